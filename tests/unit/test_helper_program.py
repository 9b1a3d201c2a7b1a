"""The helpers' program without Git and engine: what it prints, and what it makes of the answers of nine kinds of sites.

The answers are written as the sites' APIs give them, cut to what matters: api.github.com, GitLab's, zenodo.org,
api.figshare.com, dataverse.harvard.edu, hydroshare.org, CKAN's, doi.org's.
"""

from __future__ import annotations

import contextlib
import email.message
import io
import json
import re
import tarfile
import urllib.request
import urllib.response
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import helper
from chalicelib.engine.endpoint import HELPER_LOG_BYTES
from chalicelib.helper import Failed, Source, Web
from chalicelib.launcher.helped import _FAILURES
from chalicelib.notebook import container, helpers
from chalicelib.repository.answers import MARK, report_of
from chalicelib.repository.source import Provider

HANDLES = "https://doi.org/api/handles/"


@dataclass
class Site(urllib.request.HTTPSHandler):
    """Every https address there is, and what it answers: JSON, bytes, a status, or a redirection (an address)."""

    answers: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def https_open(self, request: urllib.request.Request) -> Any:
        self.asked.append(request.full_url)
        given = self.answers.get(request.full_url, 404)
        if isinstance(given, OSError):
            raise urllib.error.URLError(given)
        headers = email.message.Message()
        for name, value in self.headers.items():
            headers[name] = value
        status = given if isinstance(given, int) else 200
        if isinstance(given, str):
            status, headers["Location"] = 302, given
        body = given if isinstance(given, bytes) else json.dumps(given).encode()
        response = urllib.response.addinfourl(io.BytesIO(body), headers, request.full_url, status)
        response.msg = "as said"  # type: ignore[attr-defined]
        return response


def web(answers: Mapping[str, Any], **headers: str) -> Web:
    return Web(Site(answers, {name.replace("_", "-"): value for name, value in headers.items()}))


def version_of(provider: str, address: str, answers: Mapping[str, Any], **headers: str) -> str:
    source = Source.read({"provider": provider, "address": address})
    return helper.resolve_one(_no_git(), web(answers, **headers), source).version


def _no_git() -> helper.Git:
    return None  # type: ignore[return-value] # no other kind of repository uses it


def doi(target: str) -> dict[str, Any]:
    """What doi.org says of a DOI."""
    admin = {"index": 100, "type": "HS_ADMIN", "data": {"format": "admin", "value": {"handle": "10.admin/x"}}}
    url = {"index": 1, "type": "URL", "data": {"format": "string", "value": target}, "ttl": 86400}
    return {"responseCode": 1, "handle": "10.1/x", "values": [admin, url]}


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────

ZENODO = "https://zenodo.org/api/records"
DATAVERSE = "https://dataverse.harvard.edu/api"
DATASET = f"{DATAVERSE}/datasets/:persistentId/?persistentId=doi%3A10.7910%2FDVN%2FTJCLKP"
LATEST = {"versionNumber": 3, "versionMinorNumber": 1, "versionState": "RELEASED", "files": []}
RESOURCE = "b8f6eae9d89241cf8b5904033460af61"
ELEMENTS = f"{helper.HYDROSHARE}/hsapi/resource/{RESOURCE}/scimeta/elements"
DATES = {"dates": [
    {"type": "created", "start_date": "2018-01-01T00:00:00.000000Z"},
    {"type": "modified", "start_date": "2019-09-25T16:09:17.006152Z"},
]}  # fmt: skip
CKAN = "https://demo.ckan.org/api/3/action"
PACKAGE = {"success": True, "result": {"id": "9f2c6d0a-35d6-4d3a-8a5e-6d5ed1a9d3b1", "name": "sample-dataset-1",
                                       "metadata_modified": "2024-02-27T14:15:54.573058", "resources": []}}  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "address", "answers", "version"),
    [
        pytest.param("zenodo", "10.5281/zenodo.3242074", {f"{ZENODO}/3242074": {"id": 3242074}},
                     "3242074", id="version"),
        pytest.param("zenodo", "10.5281/zenodo.3242073",
                     {f"{ZENODO}/3242073": f"{ZENODO}/7777777", f"{ZENODO}/7777777": {"id": 7777777}},
                     "7777777", id="concept-doi"),
        pytest.param("zenodo", "10.1234/own",
                     {f"{HANDLES}10.1234/own": doi("https://zenodo.org/record/12"), f"{ZENODO}/12": {"id": 12}},
                     "12", id="own-doi-at-zenodo"),
        pytest.param("zenodo", "10.1234/own",
                     {f"{HANDLES}10.1234/own": doi("https://zenodo.org/doi/10.1234/own"),
                      "https://zenodo.org/doi/10.1234/own": "https://zenodo.org/records/13",
                      "https://zenodo.org/records/13": b"a page", f"{ZENODO}/13": {"id": "13"}},
                     "13", id="doi-address-of-zenodo"),
        pytest.param("zenodo", "10.22002/D1.1235",
                     {f"{HANDLES}10.22002/D1.1235": doi("https://data.caltech.edu/records/abcde-12345"),
                      "https://data.caltech.edu/api/records/abcde-12345": {"id": "abcde-12345"}},
                     "abcde-12345", id="caltech"),
        pytest.param("figshare", "10.6084/m9.figshare.9782777.v1",
                     {f"{helper.FIGSHARE}/9782777": {"id": 9782777, "version": 3}}, "9782777.v1", id="version"),
        pytest.param("figshare", "10.6084/m9.figshare.9782777",
                     {f"{helper.FIGSHARE}/9782777": {"id": 9782777, "version": 3}}, "9782777.v3", id="newest"),
        pytest.param("figshare", "10.5522/04/12345.v2",
                     {f"{HANDLES}10.5522/04/12345.v2": doi("https://rdr.ucl.figshare.com/articles/dataset/a_b/12345/2"),
                      f"{helper.FIGSHARE}/12345": {"id": 12345, "version": 2}}, "12345.v2", id="institution"),
        pytest.param("dataverse", "10.7910/DVN/TJCLKP",
                     {f"{HANDLES}10.7910/DVN/TJCLKP":
                          doi("https://dataverse.harvard.edu/citation?persistentId=doi:10.7910/DVN/TJCLKP"),
                      DATASET: {"status": "OK", "data": {"latestVersion": LATEST}}},
                     "10.7910/DVN/TJCLKP.v3.1", id="dataset"),
        pytest.param("dataverse", "10.7910/DVN/TJCLKP/3YRRYJ",
                     {f"{HANDLES}10.7910/DVN/TJCLKP/3YRRYJ":
                          doi("https://dataverse.harvard.edu/file.xhtml?persistentId=doi:10.7910/DVN/TJCLKP/3YRRYJ"),
                      f"{DATAVERSE}/files/:persistentId?persistentId=doi%3A10.7910%2FDVN%2FTJCLKP%2F3YRRYJ"
                      "&returnDatasetVersion=true":
                          {"data": {"datasetVersion": {"datasetPersistentId": "doi:10.7910/DVN/TJCLKP"}}},
                      DATASET: {"status": "OK", "data": {"latestVersion": LATEST}}},
                     "10.7910/DVN/TJCLKP.v3.1", id="file"),
        pytest.param("hydroshare", f"https://www.hydroshare.org/resource/{RESOURCE}", {ELEMENTS: DATES},
                     f"{RESOURCE}.v1569427757", id="address"),
        pytest.param("hydroshare", f"10.4211/hs.{RESOURCE}",
                     {f"{HANDLES}10.4211/hs.{RESOURCE}": doi(f"http://www.hydroshare.org/resource/{RESOURCE}"),
                      ELEMENTS: DATES}, f"{RESOURCE}.v1569427757", id="doi"),
        pytest.param("ckan", "https://demo.ckan.org/dataset/sample-dataset-1",
                     {f"{CKAN}/package_show?id=sample-dataset-1": PACKAGE},
                     "9f2c6d0a-35d6-4d3a-8a5e-6d5ed1a9d3b1.v1709043354", id="dataset"),
        pytest.param("ckan", "https://demo.ckan.org/dataset/sample-dataset-1?activity_id=fd19",
                     {f"{CKAN}/activity_data_show?id=fd19&object_type=package": PACKAGE},
                     "9f2c6d0a-35d6-4d3a-8a5e-6d5ed1a9d3b1.afd19", id="activity"),
        pytest.param("ckan", "https://demo.ckan.org/prefix/dataset/x/history/fd19",
                     {"https://demo.ckan.org/prefix/api/3/action/activity_data_show?id=fd19&object_type=package":
                          PACKAGE},
                     "9f2c6d0a-35d6-4d3a-8a5e-6d5ed1a9d3b1.afd19", id="history"),
    ],
)  # fmt: skip
def test_a_record_is_resolved_to_its_version(
    provider: str, address: str, answers: Mapping[str, Any], version: str
) -> None:
    assert version_of(provider, address, answers) == version
    said = report_of(MARK + json.dumps({"answer": "resolved", "versions": [version]}))
    assert said.versions(1) == (version,)  # the hub takes it


CASES = [
    ("zenodo", "10.5281/zenodo.1", f"{ZENODO}/1"),
    ("figshare", "10.6084/m9.figshare.1", f"{helper.FIGSHARE}/1"),
    ("dataverse", "10.7910/DVN/TJCLKP", f"{HANDLES}10.7910/DVN/TJCLKP"),
    ("hydroshare", f"https://www.hydroshare.org/resource/{RESOURCE}", ELEMENTS),
    ("ckan", "https://demo.ckan.org/dataset/x", f"{CKAN}/package_show?id=x"),
]


@pytest.mark.parametrize(("provider", "address", "asked"), CASES)
@pytest.mark.parametrize(
    ("given", "headers", "code"),
    [
        (404, {}, "repository-not-found"),
        (410, {}, "repository-not-found"),  # a record that was withdrawn
        (401, {}, "repository-not-found"),
        (403, {}, "repository-not-found"),
        (403, {"X_RateLimit_Remaining": "0"}, "provider-rate-limited"),
        (429, {"Retry_After": "60"}, "provider-rate-limited"),
        (500, {}, "provider-unreachable"),
        (503, {}, "provider-unreachable"),
        (OSError("No route to host"), {}, "provider-unreachable"),
        (b"<html>Maintenance</html>", {}, "provider-unreachable"),
        ([], {}, "provider-unreachable"),
        ({}, {}, None),
    ],
)
def test_what_a_site_refuses_has_a_code(
    provider: str, address: str, asked: str, given: Any, headers: Mapping[str, str], code: str | None
) -> None:
    with pytest.raises(Failed) as caught:
        version_of(provider, address, {asked: given}, **headers)
    assert caught.value.code == (
        code or ("repository-not-found" if provider == "dataverse" else "provider-unreachable")
    )
    assert caught.value.detail


@pytest.mark.parametrize(
    ("provider", "address", "answers"),
    [
        ("zenodo", "10.1/x", {f"{HANDLES}10.1/x": doi("https://example.org/records/1")}),
        ("zenodo", "10.1/x", {f"{HANDLES}10.1/x": doi("file:///etc/passwd")}),
        ("figshare", "10.1/x", {f"{HANDLES}10.1/x": doi("https://notfigshare.com/articles/a/1")}),
        ("hydroshare", "https://hydroshare.example/resource/" + RESOURCE, {}),
        ("ckan", "https://demo.ckan.org/organization/x", {}),
        ("swh", "swh:1:rev:0", {}),
    ],
)
def test_what_is_no_record_of_the_site_is_not_found(provider: str, address: str, answers: Mapping[str, Any]) -> None:
    with pytest.raises(Failed) as caught:
        version_of(provider, address, answers)
    assert caught.value.code == "repository-not-found"


def test_a_version_that_an_article_has_not_is_not_found() -> None:
    with pytest.raises(Failed) as caught:
        version_of("figshare", "10.6084/m9.figshare.1.v4", {f"{helper.FIGSHARE}/1": {"id": 1, "version": 3}})
    assert caught.value.code == "version-not-found"


def test_a_site_leads_to_no_other_kind_of_address() -> None:
    with pytest.raises(Failed) as caught:
        version_of("zenodo", "10.5281/zenodo.1", {f"{ZENODO}/1": "file:///etc/passwd"})
    assert caught.value.code == "provider-unreachable"


COMMIT = "0123456" + "a" * 33


@pytest.mark.parametrize(
    ("provider", "address", "asked", "given"),
    [
        ("gh", "https://github.com/o/r", "https://api.github.com/repos/o/r/commits/0123456", {"sha": COMMIT}),
        ("gl", "https://gitlab.com/g/s/r", "https://gitlab.com/api/v4/projects/g%2Fs%2Fr/repository/commits/0123456",
         {"id": COMMIT, "short_id": "01234567"}),
        ("gist", "https://gist.github.com/o/abc", "https://api.github.com/gists/abc",
         {"history": [{"version": "f" * 40}, {"version": COMMIT}]}),
    ],
)  # fmt: skip
def test_a_shortened_commit_is_asked_of_the_site(provider: str, address: str, asked: str, given: Any) -> None:
    source = Source(provider, address)
    assert helper._asked_commit(web({asked: given}), source, "0123456") == {COMMIT}
    assert helper._asked_commit(web({asked: {}}), source, "0123456") == set()
    assert helper._asked_commit(web({asked: 422}), source, "0123456") == set()
    with pytest.raises(Failed) as caught:
        helper._asked_commit(web({asked: 403}, X_RateLimit_Remaining="0"), source, "0123456")
    assert caught.value.code == "provider-rate-limited"


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def archive(**files: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return made.getvalue()


def fetched(provider: str, address: str, version: str, answers: Mapping[str, Any], folder: Path) -> dict[str, str]:
    source = Source.read({"provider": provider, "address": address})
    place = helper.fetch(_no_git(), web(answers), source, version, folder / "files")
    return {str(path.relative_to(place)): path.read_text() for path in sorted(place.rglob("*")) if path.is_file()}


def zenodo_files(**files: bytes) -> dict[str, Any]:
    entries = [{"key": name, "links": {"content": f"{ZENODO}/1/files/{name}/content"}} for name in files]
    contents = {f"{ZENODO}/1/files/{name}/content": content for name, content in files.items()}
    return {f"{ZENODO}/1/files": {"entries": entries}, **contents}


def test_the_files_of_a_record_are_fetched(tmp_path: Path) -> None:
    answers = zenodo_files(**{"a.ipynb": b"{}", "data/b.csv": b"1,2"})
    assert fetched("zenodo", "10.5281/zenodo.1", "1", answers, tmp_path) == {"a.ipynb": "{}", "data/b.csv": "1,2"}


def test_a_single_archive_is_unpacked_and_its_single_folder_stands_for_it(tmp_path: Path) -> None:
    answers = zenodo_files(**{"r-1.0.zip": archive(**{"o-r-abc/a.ipynb": "{}", "o-r-abc/d/b.csv": "1"})})
    assert fetched("zenodo", "10.5281/zenodo.1", "1", answers, tmp_path) == {"a.ipynb": "{}", "d/b.csv": "1"}


def test_an_archive_beside_another_file_stays_one(tmp_path: Path) -> None:
    answers = zenodo_files(**{"r.zip": archive(a="b"), "README": b"r"})
    place = helper.fetch(_no_git(), web(answers), Source("zenodo", "10.5281/zenodo.1"), "1", tmp_path / "files")
    assert {path.name for path in place.iterdir()} == {"r.zip", "README"}


def test_an_archive_leads_no_file_out_of_its_folder(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        opened.writestr(link, "/etc")
        for name in ("../up", "/absolute", "a/../../../b"):
            opened.writestr(name, "x")
    (tmp_path / "in").mkdir()
    site = web(zenodo_files(**{"r.zip": made.getvalue()}))
    place = helper.fetch(_no_git(), site, Source("zenodo", "10.5281/zenodo.1"), "1", tmp_path / "in" / "files")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert not any(path.is_symlink() for path in place.rglob("*"))
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"files", "files.unpacked"}


def test_an_archive_that_does_not_fit_on_the_disk_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_free", lambda _folder: 4)
    site = web(zenodo_files(**{"r.zip": archive(a="12", b="345")}))
    with pytest.raises(Failed) as caught:
        helper.fetch(_no_git(), site, Source("zenodo", "10.5281/zenodo.1"), "1", tmp_path / "files")
    assert caught.value.code == "no-space"
    assert not (tmp_path / "files.unpacked").exists()


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a//b", ".", "", "a\0b"])
def test_a_record_has_no_file_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failed) as caught:
        fetched("zenodo", "10.5281/zenodo.1", "1", zenodo_files(**{name: b"x"}), tmp_path)
    assert caught.value.code == "fetch-failed"
    assert list((tmp_path / "files").rglob("*")) == []


def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        fetched("zenodo", "10.5281/zenodo.1", "1", zenodo_files(**{"a": b"x", "a/b": b"x"}), tmp_path)
    assert caught.value.code == "fetch-failed"


def test_the_files_of_an_article_are_fetched_without_those_that_are_elsewhere(tmp_path: Path) -> None:
    files = [
        {"name": "a.txt", "download_url": "https://ndownloader.figshare.com/files/1", "is_link_only": False},
        {"name": "elsewhere", "download_url": "https://example.org/", "is_link_only": True},
    ]
    answers = {f"{helper.FIGSHARE}/1/versions/2": {"files": files}, "https://ndownloader.figshare.com/files/1": b"a"}
    assert fetched("figshare", "10.6084/m9.figshare.1.v2", "1.v2", answers, tmp_path) == {"a.txt": "a"}


def test_the_files_of_a_dataset_keep_their_folders_and_their_original_form(tmp_path: Path) -> None:
    files = [
        {"label": "t.tab", "directoryLabel": "data/x", "dataFile": {"id": 1, "originalFileName": "t.dta"}},
        {"label": "README", "dataFile": {"id": 2}},
    ]
    answers = {
        f"{HANDLES}10.7910/DVN/X": doi("https://dataverse.harvard.edu/citation?persistentId=doi:10.7910/DVN/X"),
        f"{DATAVERSE}/datasets/:persistentId/versions/1.0?persistentId=doi%3A10.7910%2FDVN%2FX": {
            "data": {"files": files}
        },
        f"{DATAVERSE}/access/datafile/1?format=original": b"dta",
        f"{DATAVERSE}/access/datafile/2?format=original": b"read",
    }
    found = fetched("dataverse", "10.7910/DVN/X", "10.7910/DVN/X.v1.0", answers, tmp_path)
    assert found == {"README": "read", "data/x/t.dta": "dta"}


def test_the_contents_of_a_resource_are_fetched(tmp_path: Path) -> None:
    bag = archive(**{f"{RESOURCE}/data/contents/a.ipynb": "{}", f"{RESOURCE}/bagit.txt": "b"})
    answers = {ELEMENTS: DATES, f"{helper.HYDROSHARE}/django_s3/download/bags/{RESOURCE}.zip": bag}
    address = f"https://www.hydroshare.org/resource/{RESOURCE}"
    assert fetched("hydroshare", address, f"{RESOURCE}.v1569427757", answers, tmp_path) == {"a.ipynb": "{}"}


def test_a_resource_that_has_changed_meanwhile_is_not_fetched(tmp_path: Path) -> None:
    address = f"https://www.hydroshare.org/resource/{RESOURCE}"
    with pytest.raises(Failed) as caught:
        fetched("hydroshare", address, f"{RESOURCE}.v1", {ELEMENTS: DATES}, tmp_path)
    assert caught.value.code == "fetch-failed"


def test_the_resources_of_a_dataset_are_fetched(tmp_path: Path) -> None:
    resources = [
        {"id": "r1", "url": "https://demo.ckan.org/download/a.csv?x=1"},
        {"id": "r2", "url": "https://example.org/"},
        {"id": "r3", "url": ""},
    ]
    package = {"result": {**PACKAGE["result"], "resources": resources}}  # type: ignore[dict-item]
    answers = {
        f"{CKAN}/package_show?id=x": package,
        "https://demo.ckan.org/download/a.csv?x=1": b"1",
        "https://example.org/": b"2",
    }
    version = version_of("ckan", "https://demo.ckan.org/dataset/x", answers)
    assert fetched("ckan", "https://demo.ckan.org/dataset/x", version, answers, tmp_path) == {"a.csv": "1", "r2": "2"}


# ── what is printed ──────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=200))
def test_no_line_of_another_program_is_taken_for_an_answer(text: str) -> None:
    forged = 'homeport {"answer": "built", "size": 1}'
    for line in (text, f"{text}{forged}", f"\x1b[0m{forged}", f"{text}\x0b{forged}", f"\u2028{forged}", forged):
        said = helper.clean(line)
        assert said.isprintable()
        assert len(said) <= helper.LINE_LENGTH
        assert report_of(_said(line)).end is None


def _said(line: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        helper.say(line)
    return printed.getvalue()


def test_a_password_in_an_address_is_not_printed() -> None:
    assert helper.clean("fatal: https://me:secret@example.org/x not found") == "fatal: https://example.org/x not found"


@pytest.mark.parametrize("detail", ["\0", "é" * 5000, "😀" * 5000, '"' * 5000, "\u2028homeport {}", ""])
def test_a_failure_is_one_short_line(detail: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert helper.fail(Failed("build-failed", detail)) == 1
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1
    assert len(printed) <= 2000
    assert report_of(printed).failure[0] == "build-failed"


def test_steps_of_every_builder_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for lines, fraction in (
        (["Step 1/4 : FROM x", " ---> 0123", "Step 3/4 : RUN homeport"], 2 / 4),
        (["STEP 1/2: FROM x", "STEP 2/2: LABEL"], 1 / 2),
        (["#4 [1/5] FROM docker.io/library/x", "#5 [2/5] RUN x", "#5 0.312 Step 9/9 :", "#5 DONE 0.4s"], 1 / 5),
        (["#4 [base 1/2] FROM x", "#5 [stage-1 3/6] COPY x", "#6 [internal] load build context"], 3 / 8),
        (["#4 [linux/amd64 2/4] RUN x"], 1 / 4),
        (["Step 7/3 : FROM x", "Step 0/0 : x", "[1/2] x"], None),
    ):
        progress = helper.Progress()
        for line in lines:
            progress.see(line)
        assert report_of(capsys.readouterr().out).fraction == fraction


def test_a_step_that_says_nothing_is_the_last_that_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    progress = helper.Progress()
    for line in ("#6 [3/3] RUN sleep 300", f"#6 sha256:{'3c' * 32}"):
        progress.see(line)
    assert report_of(capsys.readouterr().out).line == "[3/3] RUN sleep 300"


def test_a_build_that_prints_without_end_is_printed_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    progress = helper.Progress()
    count = helper.MOST_BYTES // 500 + 1
    for _ in range(count + 10 * helper.EVERY):
        progress.see("noise" * 100)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == count + 1 + 10
    assert "only one line of 1,000 is kept" in printed
    assert len(printed.encode()) + 8 * len(printed.splitlines()) < HELPER_LOG_BYTES  # each is a frame of its own


@pytest.mark.parametrize(
    ("lines", "code", "detail"),
    [
        (["#9 1.2 ERROR: No matching distribution found for nosuch==9", "#9 ERROR: executor failed running [sh -c x]",
          "------", "executor failed running [/bin/sh -c pip install]: exit code: 1"],
         "build-failed", "ERROR: No matching distribution found for nosuch==9"),
        (["E: Unable to locate package nosuch",
          "The command '/bin/sh -c apt-get install' returned a non-zero code: 100"],
         "build-failed", "E: Unable to locate package nosuch"),
        (["failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN"], "dockerfile-invalid",
         "failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN"),
        (["Error response from daemon: Dockerfile parse error line 2: unknown instruction: RUNN"], "dockerfile-invalid",
         "Error response from daemon: Dockerfile parse error line 2: unknown instruction: RUNN"),
        (["#5 1.0 tar: write error: No space left on device", "ERROR: failed to solve"], "no-space",
         "tar: write error: No space left on device"),
        (["#3 [1/2] FROM nosuch", "pull access denied for nosuch, repository does not exist"], "build-failed",
         "pull access denied for nosuch, repository does not exist"),
        ([], "build-failed", ""),
    ],
)  # fmt: skip
def test_a_failed_build_says_why(lines: list[str], code: str, detail: str) -> None:
    failure = helper.build_failure(lines)
    assert (failure.code, failure.detail) == (code, detail)


def test_the_hub_knows_every_code_that_is_not_a_defect() -> None:
    text = Path(str(helper.__file__)).read_text()
    used = set(re.findall(r'Failed\(\s*"([a-z-]+)"', text)) | {code for code, _ in helper._GIT_FAILURES}
    used |= {code for code, _ in helper._BUILD_FAILURES}
    assert used - {"task-unknown", "task-broken"} <= _FAILURES.keys()


# ── what both sides have to agree on ─────────────────────────────────────────────────────────────────────────────


def test_the_providers_are_those_of_the_hub() -> None:
    assert {*helper.GIT_KINDS, *helper.RESOLVERS} == {str(provider) for provider in Provider}
    assert helper.RESOLVERS.keys() == helper.FETCHERS.keys()
    assert helper.MARK == MARK
    assert helper.SOCKET == helpers.SOCKET


@given(
    st.one_of(
        st.text(max_size=30),
        st.from_regex(r"(/[a-z.]{1,5}){0,4}/?", fullmatch=True),
        st.sampled_from(
            ["", "/", "/home/jovyan", "/home/jovyan/work", "/opt/homeport", "/opt", "/data", "/data/x", "/usr", "/root",
             "/usr/src/app", "/tmp", "/a/../b", "/" + "x" * 250, "/app:ro", "/my app", "//", "/app/", "/opt/homeportx"]
        ),
    )
)  # fmt: skip
def test_the_work_folder_is_where_the_hub_mounts_the_volume(workdir: str) -> None:
    assert helper.work_folder(workdir) == container.work_folder(workdir)


def test_the_last_layer_of_a_dockerfile_is_one_of_names_that_are_quoted() -> None:
    text = helper.last_layer("localhost/homeport-building:x", "/srv/my app", "1000:100")
    assert 'COPY --from=homeport-files --chown=1000:100 ["/homeport-new/", "/srv/my app/"]' in text
    assert "--chown=0:0" in helper.last_layer("x", "/srv", "a b; rm")
    assert '["/homeport-new/", "/home/jovyan/"]' in helper.last_layer("x", "", "jovyan")
    assert len(text.splitlines()) == 6


def test_a_context_for_a_builder_without_chmod_has_the_modes_itself() -> None:
    before, after = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=before, mode="w") as made:
        for name, content in (
            ("Dockerfile", b"FROM x\nCOPY --chmod=0755 /python3-login /usr/local/bin/python3-login\n"),
            ("python3-login", b"#!"),
            ("src/a.txt", b"a"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    before.seek(0)
    helper._write_context(before, after, without_chmod=True)
    after.seek(0)
    with tarfile.open(fileobj=after) as made:
        assert {one.name: one.mode for one in made} == {"Dockerfile": 0o644, "python3-login": 0o755, "src/a.txt": 0o644}
        dockerfile = made.extractfile("Dockerfile")
        assert dockerfile is not None
        assert b"--chmod" not in dockerfile.read()


def test_a_build_file_that_is_a_link_to_somewhere_else_is_refused(tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "sub").mkdir(parents=True)
    (files / "real").write_text("FROM x")
    (files / "Dockerfile").symlink_to("real")
    (files / "data").symlink_to("/etc")  # not read by what builds
    assert helper.build_folder(files, "") == files
    assert helper.build_folder(files, "sub") == files / "sub"
    (tmp_path / "secret").write_text("secret")
    (files / "sub" / "environment.yml").symlink_to("../../secret")
    (files / "out").symlink_to("..")
    for folder, code in (
        ("sub", "build-failed"),
        ("missing", "fetch-failed"),
        ("out", "fetch-failed"),
        ("real", "fetch-failed"),
    ):
        with pytest.raises(Failed) as caught:
            helper.build_folder(files, folder)
        assert caught.value.code == code
    (files / "out").unlink()
    (files / ".binder").symlink_to(tmp_path)
    with pytest.raises(Failed):
        helper.build_folder(files, "")


@pytest.mark.parametrize("folder", ["..", "a/../b", "/etc", "a//b", "./a", "a/"])
def test_a_folder_is_one_of_the_repository(folder: str) -> None:
    with pytest.raises(Failed) as caught:
        Source.read({"provider": "gh", "address": "https://github.com/o/r", "folder": folder})
    assert caught.value.code == "fetch-failed"


def lines_of(*chunks: bytes) -> list[str]:
    """The lines of a program that printed these chunks, one after the other."""
    left = iter(chunks)
    output = io.BytesIO()
    output.read1 = lambda _size=-1: next(left, b"")  # type: ignore[method-assign]
    return list(helper._lines(output))


def test_lines_come_as_they_are_printed_and_of_one_that_is_too_long_its_beginning() -> None:
    assert lines_of(b"Receiving:  1%\rReceiv", b"ing:  2%\r\n\nlast") == ["Receiving:  1%", "Receiving:  2%", "last"]
    long = b"x" * helper.CHUNK
    (first, second) = lines_of(long, long, b"y\nnext\n")
    assert (first, second) == ("x" * 8 * helper.LINE_LENGTH, "next")
    assert lines_of(b"\xff\n") == ["\ufffd"]
    assert lines_of() == []


def test_of_how_far_something_is_a_line_is_said_now_and_then_and_the_last_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    see = helper.Percentages(lambda: now)
    for percent in range(0, 101, 10):
        now += helper.PERCENT_SECONDS / 2
        see(f"Receiving objects: {percent:3d}% ({percent}/100), 1.00 MiB | 2.00 MiB/s")
    see("remote: Total 100 (delta 0)")
    said = capsys.readouterr().out.splitlines()
    assert [line.partition("%")[0][-3:].strip() for line in said[:-1]] == ["10", "30", "50", "70", "90", "100"]
    assert said[-1] == "remote: Total 100 (delta 0)"
