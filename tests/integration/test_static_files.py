"""Files of a real JupyterLab through a real proxy: compressed, kept by browsers, and had in parts."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pytest

from local.endpoint import LocalEndpoint
from local.engine import Engine
from tests.lab_rig import jupyterlab
from tests.proxy_rig import Answer, Rig

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="apt-get install haproxy"
)

GZIP: Final = ("Accept-Encoding", "gzip, deflate, br, zstd")  # as Chromium sends it
OWN: Final = '{"ServerApp": {"tornado_settings": {"headers": {"X-Own": "kept"}}}}'
STATIC: Final = (
    "{main}",
    "/static/favicons/favicon.ico",
    "/lab/api/themes/@jupyterlab/theme-light-extension/index.css",
    "/lab/api/settings",
    "/lsp/status",
    "/kernelspecs/python3/logo-svg.svg",
)
OTHERS: Final = (
    "/lab",
    "/tree",
    "/api/contents?content=1",
    "/api/kernelspecs",
    "/files/large.txt",
    "/api/contents/large.txt",
    "/static/{large}",
    "/lab/api/workspaces/default",
)
LARGE: Final = "large" * 2000

Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def ask(door: Rig, endpoint: LocalEndpoint, engine: Engine, notebook_image: str) -> Iterator[Ask]:
    """Ask a JupyterLab, in whose image somebody has set something of Tornado's, too."""
    with jupyterlab(door, endpoint, engine, notebook_image, own=OWN) as host:
        asked = partial(door.ask, host, cookie=door.cookie(host), origin=door.origin(host))
        body = b'{"type": "file", "format": "text", "content": "%s"}' % LARGE.encode()
        written = asked(path="/api/contents/large.txt", method="PUT", headers=[("X-XSRFToken", "token")], body=body)
        assert written.status == 201, written.body
        yield asked


@pytest.fixture(scope="module")
def main(ask: Ask) -> str:
    """The address of JupyterLab's first script, as its page has it."""
    [path] = re.findall(rb'src="(/static/lab/main\.[^"]+)"', ask("/lab").body)
    return str(path.decode())


@pytest.mark.parametrize("path", STATIC)
def test_jupyterlabs_own_files_are_compressed_for_who_takes_it_and_are_the_same(ask: Ask, main: str, path: str) -> None:
    path = path.format(main=main)
    plain, compressed = ask(path), ask(path, headers=[GZIP])
    assert (plain.status, plain.get("Content-Encoding")) == (200, None)
    assert plain.get("Content-Length") == str(len(plain.body))
    assert (compressed.status, compressed.get("Content-Encoding")) == (200, "gzip")
    assert gzip.decompress(compressed.body) == plain.body
    assert len(compressed.body) < len(plain.body) / 2
    for answer in (plain, compressed):
        assert "Accept-Encoding" in (answer.get("Vary") or "")
        assert answer.get("Content-Type") == plain.get("Content-Type")
        assert answer.get("Cache-Control") == plain.get("Cache-Control")


@pytest.mark.parametrize("path", OTHERS)
def test_nothing_else_is_compressed(ask: Ask, path: str) -> None:
    answer = ask(path.format(large=LARGE[:1500]), headers=[GZIP])
    assert len(answer.body) > 0
    assert (answer.get("Content-Encoding"), answer.get("Content-Length")) == (None, str(len(answer.body)))


def test_files_whose_names_have_a_hash_are_kept_for_a_year_and_others_are_asked_for_again(ask: Ask, main: str) -> None:
    kept = ask(main, headers=[GZIP]).get("Cache-Control") or ""
    assert {"max-age=31536000", "immutable"} <= set(kept.split(", "))
    theme = ask("/lab/api/themes/@jupyterlab/theme-light-extension/index.css", headers=[GZIP])
    assert theme.get("Cache-Control") == "no-cache"
    assert ask("/lab").get("Cache-Control") is None


@pytest.mark.parametrize("path", STATIC)
def test_what_a_browser_has_is_not_sent_again(ask: Ask, main: str, path: str) -> None:
    path = path.format(main=main)
    first = ask(path, headers=[GZIP])
    etag, modified = first.get("ETag"), first.get("Last-Modified")
    has = ("If-None-Match", etag) if etag else ("If-Modified-Since", modified or "")
    again = ask(path, headers=[GZIP, has])
    assert (again.status, again.body, again.get("Content-Encoding")) == (304, b"", None)
    assert etag is None or etag.startswith("W/")


def test_parts_of_a_file_are_those_of_the_file_itself(ask: Ask, main: str) -> None:
    whole = ask(main)
    assert whole.get("Accept-Ranges") == "bytes"
    assert ask(main, headers=[GZIP]).get("Accept-Ranges") is None
    part = ask(main, headers=[GZIP, ("Range", "bytes=1000-2999")])
    assert (part.status, part.get("Content-Range")) == (206, f"bytes 1000-2999/{len(whole.body)}")
    assert (part.body, part.get("Content-Encoding")) == (whole.body[1000:3000], None)


def test_head_says_what_the_file_is(ask: Ask, main: str) -> None:
    answer = ask(main, method="HEAD", headers=[GZIP])
    assert (answer.status, answer.body) == (200, b"")
    assert answer.get("Content-Length") == str(len(ask(main).body))


def test_what_the_image_has_set_of_tornado_stays(ask: Ask, main: str) -> None:
    assert ask("/api/status").get("X-Own") == ask(main, headers=[GZIP]).get("X-Own") == "kept"


@pytest.mark.parametrize("cookie", [None, "x" * 43])
def test_a_browser_without_the_grant_gets_no_file(ask: Ask, main: str, cookie: str | None) -> None:
    assert ask(main, cookie=cookie, headers=[GZIP]).status == 401
