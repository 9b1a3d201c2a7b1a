"""Repositories' addresses: what people paste is read, one repository is one source, what is hostile is refused.

Sources: BinderHub's regular expressions for pasted addresses and repo2docker's tests of its content providers for what
is pasted, git's t1402-check-ref-format.sh for versions.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.repository.address import (
    Asked,
    content_folder,
    parse_folder,
    parse_open,
    parse_ref,
    parse_repository,
    parse_spec,
    shown,
    suggested_name,
    web_address,
    written,
)
from chalicelib.repository.source import Provider, Source
from chalicelib.web.forms import notebook_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOURCE = "b8f6eae9d89241cf8b5904033460af61"
GIST = "f6d7a5b8c9e0f1a2b3c4d5e6f7a8b9c0"
SECRET = "s3cr3t"


def github(name: str, ref: str = "") -> Source:
    return Source(Provider.GITHUB, f"https://github.com/{name}", ref)


def gitlab(name: str, ref: str = "") -> Source:
    return Source(Provider.GITLAB, f"https://gitlab.com/{name}", ref)


def git(address: str, ref: str = "") -> Source:
    return Source(Provider.GIT, f"https://{address}", ref)


def zenodo(record: int) -> Source:
    return Source(Provider.ZENODO, f"10.5281/zenodo.{record}")


# ── what is pasted ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "source", "open_path"),
    [
        ("https://github.com/u/r", github("u/r"), ""),
        ("https://GitHub.com/JupyterLab/JupyterLab-Demo", github("jupyterlab/jupyterlab-demo"), ""),
        ("HTTPS://www.github.com:443//u/r/#readme", github("u/r"), ""),
        ("https://github.com/u/r.git", github("u/r"), ""),
        ("https://github.com/U/R.GIT/", github("u/r"), ""),
        ("https://github.com./u/r?tab=readme-ov-file", github("u/r"), ""),
        ("https://github.com/u/%72", github("u/r"), ""),
        ("  github.com/u/r ", github("u/r"), ""),
        ("u/r", github("u/r"), ""),
        ("Octo-Cat/.github", github("octo-cat/.github"), ""),
        ("https://github.com/u/r/tree/main", github("u/r", "main"), ""),
        ("https://github.com/u/r/tree/HEAD/", github("u/r"), ""),
        ("https://github.com/u/r/tree/v1.0/course/week 1".replace(" ", "%20"), github("u/r", "v1.0"), "course/week 1"),
        ("https://github.com/u/r/tree/feature%2Fx/a", github("u/r", "feature/x"), "a"),
        ("https://github.com/u/r/tree/feature/x", github("u/r", "feature"), "x"),
        ("https://github.com/u/r/blob/main/a/b.ipynb#L3", github("u/r", "main"), "a/b.ipynb"),
        ("https://github.com/u/r/blob/main/Übung.ipynb?raw=1", github("u/r", "main"), "Übung.ipynb"),
        (f"https://github.com/u/r/commit/{COMMIT}", github("u/r", COMMIT), ""),
        ("https://github.com/u/r/releases/tag/v1.0", github("u/r", "v1.0"), ""),
        ("https://gitlab.com/group/sub/project", gitlab("group/sub/project"), ""),
        ("https://gitlab.com/Group/Project.git", gitlab("Group/Project"), ""),
        ("https://gitlab.com/g/p/-/tree/main/notebooks?ref_type=heads", gitlab("g/p", "main"), "notebooks"),
        ("https://gitlab.com/g/s/p/-/blob/main/x.ipynb", gitlab("g/s/p", "main"), "x.ipynb"),
        ("https://gitlab.com/g/p/-/tags/v2", gitlab("g/p", "v2"), ""),
        ("https://gitlab.com/g/p/tree/old/notebooks", gitlab("g/p", "old"), "notebooks"),
        (f"https://gist.github.com/{GIST}", Source(Provider.GIST, f"https://gist.github.com/{GIST}"), ""),
        (f"https://gist.github.com/u/{GIST}.git", Source(Provider.GIST, f"https://gist.github.com/{GIST}"), ""),
        (f"https://gist.github.com/u/{GIST.upper()}#file-a-ipynb", Source(Provider.GIST, f"https://gist.github.com/{GIST}"),
         ""),
        (f"https://gist.github.com/u/5234/{COMMIT}", Source(Provider.GIST, "https://gist.github.com/5234", COMMIT), ""),
        ("https://git.example.org/data.git", git("git.example.org/data.git"), ""),
        ("https://Git.Example.org:8443/~me/Data/", git("git.example.org:8443/~me/Data"), ""),
        ("git.example.org/~me/data", git("git.example.org/~me/data"), ""),
        ("https://192.0.2.7/r.git", git("192.0.2.7/r.git"), ""),
        ("https://gitea/r", git("gitea/r"), ""),
        ("https://xn--bcher-kva.example/r", git("xn--bcher-kva.example/r"), ""),
        ("https://git.example.org/ü r%2Fx".replace(" ", "%20"), git("git.example.org/%C3%BC%20r%2Fx"), ""),
        ("https://git.example.org/g/p/-/blob/main/dataset/x.ipynb", git("git.example.org/g/p", "main"),
         "dataset/x.ipynb"),
        ("https://codeberg.org/u/r/src/branch/main/a/b.ipynb", git("codeberg.org/u/r", "main"), "a/b.ipynb"),
        ("https://codeberg.org/u/r/src/tag/v1", git("codeberg.org/u/r", "v1"), ""),
        ("10.5281/zenodo.3242074", zenodo(3242074), ""),
        ("doi:10.5281/ZENODO.3242074", zenodo(3242074), ""),
        ("DOI:10.5281/zenodo.3242074", zenodo(3242074), ""),
        ("https://doi.org/10.5281/zenodo.3242074", zenodo(3242074), ""),
        ("https://dx.doi.org/10.5281%2Fzenodo.3242074", zenodo(3242074), ""),
        ("https://zenodo.org/record/3242074", zenodo(3242074), ""),
        ("https://zenodo.org/records/3242074/files/a.zip?download=1", zenodo(3242074), ""),
        ("https://zenodo.org/doi/10.5281/zenodo.3242074", zenodo(3242074), ""),
        ("10.22002/D1.1235", Source(Provider.ZENODO, "10.22002/d1.1235"), ""),
        ("https://doi.org/10.6084/M9.figshare.9782777.v3", Source(Provider.FIGSHARE, "10.6084/m9.figshare.9782777.v3"),
         ""),
        ("https://figshare.com/articles/Binder-ready_openSenseMap_Analysis/9782777",
         Source(Provider.FIGSHARE, "10.6084/m9.figshare.9782777"), ""),
        ("https://figshare.com/articles/software/Binder-ready/9782777/2",
         Source(Provider.FIGSHARE, "10.6084/m9.figshare.9782777.v2"), ""),
        ("figshare/10.25378/janelia.123", Source(Provider.FIGSHARE, "10.25378/janelia.123"), ""),
        (f"https://hydroshare.org/resource/{RESOURCE}/",
         Source(Provider.HYDROSHARE, f"https://www.hydroshare.org/resource/{RESOURCE}"), ""),
        (f"https://doi.org/10.4211/hs.{RESOURCE}",
         Source(Provider.HYDROSHARE, f"https://www.hydroshare.org/resource/{RESOURCE}"), ""),
        ("https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi:10.7910/DVN/TJCLKP",
         Source(Provider.DATAVERSE, "10.7910/DVN/TJCLKP"), ""),
        ("https://doi.org/10.7910/DVN/TJCLKP", Source(Provider.DATAVERSE, "10.7910/DVN/TJCLKP"), ""),
        ("https://demo.ckan.org/dataset/sample-dataset-1",
         Source(Provider.CKAN, "https://demo.ckan.org/dataset/sample-dataset-1"), ""),
        ("https://demo.ckan.org/en/dataset/sample-dataset-1/resource/x?activity_id=07894a9e-4d40-4f9e-8e1e-6a34ac4c5a9d",
         Source(Provider.CKAN,
                "https://demo.ckan.org/en/dataset/sample-dataset-1?activity_id=07894a9e-4d40-4f9e-8e1e-6a34ac4c5a9d"),
         ""),
        ("https://mybinder.org/v2/gh/U/R/HEAD?labpath=a%20b.ipynb", github("u/r"), "a b.ipynb"),
        ("https://mybinder.org/v2/gh/u/r/main?urlpath=rstudio&urlpath=lab#x", github("u/r", "main"), "/rstudio"),
        ("https://notebooks.gesis.org/binder/v2/gl/g%2Fp/main", gitlab("g/p", "main"), ""),
        ("mybinder.org/v2/zenodo/10.5281/zenodo.3242074/", zenodo(3242074), ""),
    ],
)  # fmt: skip
def test_what_people_paste_is_read(text: str, source: Source, open_path: str) -> None:
    assert parse_repository(text) == Asked(source, open_path)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must be a repository's address"),
        ("repository", "must be a repository's address"),
        ("a/b/c", "must be a repository's address"),
        ("/u/r", "must be a repository's address"),
        ("../r", "valid host name"),
        ("u/..", "must be a repository's address"),
        ("u/.", "must be a repository's address"),
        ("u/...git", "must be a repository's address"),
        ("u/-r", "must be a repository's address"),
        ("-u/r", "must be a repository's address"),
        ("--upload-pack=touch/x", "must be a repository's address"),
        ("git clone https://github.com/u/r", "must be a repository's address"),
        ("https:\\\\github.com\\u\\r", "must be a repository's address"),
        ("https://github.com", "must be a repository's address"),
        ("https://github.com/u", "must be a repository's address"),
        ("https://github.com/u%2Fr", "must be a repository's address"),
        ("https://github.com/\N{KELVIN SIGN}8s/r", "must be a repository's address"),
        ("https://github.com/u/r\N{CYRILLIC SMALL LETTER A}", "must be a repository's address"),
        ("https://git.example.org/", "must be a repository's address"),
        ("https://github.com/u/r/issues", "the repository itself"),
        ("https://github.com/u/r/pull/12", "the repository itself"),
        ("https://gitlab.com/g/p/-/issues", "the repository itself"),
        ("https://gitlab.com/g", "address of a project"),
        ("https://gitlab.com/-/g", "address of a project"),
        ("https://gist.github.com/", "a Gist's address"),
        ("https://gist.github.com/user", "a Gist's address"),
        (f"https://gist.github.com/u/{GIST}/raw", "a Gist's address"),
        ("https://git.example.org/?p=x.git", "without “?”"),
        ("https://zenodo.org/badge/latestdoi/222008654", "its DOI is the surest"),
        ("https://zenodo.org/records/x", "its DOI is the surest"),
        ("https://janelia.figshare.com/articles/dataset/a/9782777", "its DOI is the surest"),
        ("https://figshare.com/authors/a/9782777", "its DOI is the surest"),
        ("https://www.hydroshare.org/group/24", "its DOI is the surest"),
        ("doi:10.5281", "must be a DOI such as"),
        ("10.5281/zenodo/../x", "must be a DOI such as"),
        ("https://doi.org/", "must be a DOI such as"),
        ("https://data.example.org/dataset.xhtml?persistentId=hdl:1/2", "must be a DOI such as"),
        ("http://github.com/u/r", "must begin with https://, not with http://"),
        ("git://github.com/u/r", "must begin with https://; other kinds"),
        ("file:///etc/passwd", "must begin with https://; other kinds"),
        ("javascript:alert(1)", "must begin with https://; other kinds"),
        ("data:text/html,x", "must begin with https://; other kinds"),
        ("ext::sh -c x".replace(" ", "%20"), "must begin with https://; other kinds"),
        ("https:/github.com/u/r", "must begin with https://; other kinds"),
        ("ssh://git@github.com/u/r", "SSH are not supported yet"),
        ("git+ssh://github.com/u/r", "SSH are not supported yet"),
        ("git@github.com:u/r.git", "SSH are not supported yet"),
        (f"https://{SECRET}@github.com/u/r", "private repositories"),
        (f"https://u:{SECRET}@github.com/u/r", "private repositories"),
        (f"https://github.com@evil.example/{SECRET}", "private repositories"),
        (f"http://u:{SECRET}@github.com/u/r", "private repositories"),
        (f"u:{SECRET}@github.com/u/r", "private repositories"),
        (f"https://git.example.org/r?token={SECRET}", "without “?”"),
        (f"https://u:{SECRET}#@github.com/u/r", "valid host name"),
        ("https://", "valid host name"),
        ("https:///etc/passwd", "valid host name"),
        ("https://[::1]/r", "valid host name"),
        ("https://git_hub.example/r", "valid host name"),
        ("https://-a.example/r", "valid host name"),
        ("https://a..example/r", "valid host name"),
        ("https://" + "a." * 127 + "example/r", "valid host name"),
        ("https://git.example.org:0/r", "valid host name"),
        ("https://git.example.org:65536/r", "valid host name"),
        ("https://git.example.org:x/r", "valid host name"),
        ("https://github%2ecom/u/r", "valid host name"),
        ("https://g\N{CYRILLIC SMALL LETTER I}thub.com/u/r", "punycode"),
        ("https://github.com\N{FRACTION SLASH}u/r", "punycode"),
        ("https://github\N{IDEOGRAPHIC FULL STOP}com/u/r", "punycode"),
        ("https://\N{KELVIN SIGN}.example/u/r", "punycode"),
        ("https://git.example.org/a/../r", "“..”"),
        ("https://git.example.org/a/%2e%2E/r", "“..”"),
        ("https://git.example.org/a%2F..%2Fr", "“..”"),
        ("https://git.example.org/a%5Cr", "“..”"),
        ("https://git.example.org/a%0Ar", "“..”"),
        ("https://git.example.org/%ff", "percent-encoded as UTF-8"),
        ("https://github.com/u/r\nx", "control or invisible"),
        ("https://github.com/u/r\x00", "control or invisible"),
        ("https://github.com/u/\N{RIGHT-TO-LEFT OVERRIDE}r", "control or invisible"),
        ("u/\N{ZERO WIDTH SPACE}r", "control or invisible"),
        ("u/\N{HANGUL FILLER}r", "control or invisible"),
        ("u/\udc80r", "control or invisible"),
        ("https://github.com/u/r/tree/a..b", "has a version that must be a branch"),
        ("https://github.com/u/r/tree/--upload-pack=x", "has a version that must be a branch"),
        ("https://github.com/u/r/blob/main/" + "a" * 201, "has something to open that must be a path"),
        ("https://mybinder.org/v2/gh/u/r/main?urlpath=/git-pull?repo=x", "link of two repositories"),
        ("https://git.example.org/" + "a" * 2000, "too long: at most 2,000"),
        ("https://git.example.org/" + "ü" * 1000, "too long: at most 2,000"),
    ],
)  # fmt: skip
def test_what_names_no_public_repository_is_refused_with_what_to_do(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as refusal:
        parse_repository(text)
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    ["a" * 10_000, "/" * 10_000, "https://" + "a." * 5_000, "10.5281/" + "a" * 10_000, " " * 10_000, "%2f" * 4_000],
)
def test_a_text_that_is_too_long_is_only_measured(text: str) -> None:
    for parse in (parse_repository, parse_ref, parse_folder, parse_open):
        with pytest.raises(ValueError, match="at most"):
            parse(text)


# ── version, folder, what to open ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text", ["main", "v1.0", "feature/x", COMMIT, "a@b", "ü", "refs/heads/x", "a-", "@a", "a.locks"]
)
def test_a_version_is_what_git_takes_for_one(text: str) -> None:
    assert parse_ref(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a b", "a@{1}", "@", "a.lock", "a.lock/b", ".a", "a/.b",
     "a.", "a/", "/a", "a//b", "-a", "--upload-pack=x", "a\x7f", "a\n", "a\N{ZERO WIDTH SPACE}", "a" * 251],
)  # fmt: skip
def test_a_version_that_git_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a branch, a tag or a commit"):
        parse_ref(text)


@pytest.mark.parametrize(
    ("text", "folder"),
    [("a/b", "a/b"), ("./a//b/", "a/b"), (".", ""), ("", ""), (".binder", ".binder"), ("ü x", "ü x")],
)
def test_a_folder_is_relative_and_written_plainly(text: str, folder: str) -> None:
    assert parse_folder(text) == folder


@pytest.mark.parametrize("text", ["/a", "..", "a/../b", "a\\b", "-a", "./-a", "a\n", "a" * 201])
def test_a_folder_out_of_the_repository_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a folder in the repository"):
        parse_folder(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("lessons/first.ipynb", "lessons/first.ipynb"),
        ("./a//b/", "a/b"),
        ("-a b.ipynb", "-a b.ipynb"),
        ("100%.ipynb", "100%.ipynb"),
        ("/rstudio/", "/rstudio/"),
        ("/lab/tree/x.ipynb", "/lab/tree/x.ipynb"),
        ("/voila/render/x.ipynb?autoreload=1&u=https://a.example/@x", "/voila/render/x.ipynb?autoreload=1&u=https://a.example/@x"),
        ("/lab/tree/ü x.ipynb", "/lab/tree/%C3%BC%20x.ipynb"),
        ("/lab/tree/F%23/x.ipynb", "/lab/tree/F%23/x.ipynb"),
        ("/proxy/8501/", "/proxy/8501/"),
        ("/", "/"),
    ],
)  # fmt: skip
def test_what_to_open_is_below_the_work_directory_or_the_servers(text: str, path: str) -> None:
    assert parse_open(text) == path
    assert parse_open(path) == path


@pytest.mark.parametrize(
    "text",
    ["//evil.example", "/a//b", "/\\evil.example", "/a/../b", "/a/%2e%2e/b", "/a/%252e%252E/b", "/a%3F/%2e%2e/b",
     "/./a", "/a/%2e", "/%2Fevil.example", "/%5Cevil.example", "/@evil.example", "/%40evil.example", "/a#b", "/a?b#c",
     "/a\nb",
     "/a%0d%0aSet-Cookie:x", "/a?b%0Ac", "/a?b\\c", "/.homeport/enter", "/%2ehomeport/", "/.Homeport", "/%252ehomeport",
     "/" + "a" * 500, "/" + "ü" * 200, "/a\N{ZERO WIDTH SPACE}", "/a\udc80"],
)  # fmt: skip
def test_a_path_that_leads_away_from_the_notebooks_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a path of the notebook's server"):
        parse_open(text)


@pytest.mark.parametrize("text", ["..", "../a", "a/../../b", "a\\b", "a/..", "a" * 201, "a\tb", "a\N{SOFT HYPHEN}"])
def test_a_path_out_of_the_work_directory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a path below the work directory"):
        parse_open(text)


# ── what people read ─────────────────────────────────────────────────────────────────────────────────────────────────

FIGSHARE = Source(Provider.FIGSHARE, "10.25378/janelia.123")
HYDROSHARE = parse_repository(f"10.4211/hs.{RESOURCE}").source
GIST_SOURCE = parse_repository(f"https://gist.github.com/u/{GIST}/{COMMIT}").source


@pytest.mark.parametrize(
    ("source", "name", "text", "page", "folder"),
    [
        (github("u/r"), "u/r", "u/r", "https://github.com/u/r", "r"),
        (github("u/r", "a/b"), "u/r", "u/r", "https://github.com/u/r/tree/a%2Fb", "r"),
        (replace(github("u/r"), folder="a b"), "u/r", "u/r", "https://github.com/u/r/tree/HEAD/a%20b", "r"),
        (github("u/.github"), "u/.github", "u/.github", "https://github.com/u/.github", "github"),
        (gitlab("g/s/p", "v1"), "gitlab.com/g/s/p", "https://gitlab.com/g/s/p", "https://gitlab.com/g/s/p/-/tree/v1",
         "p"),
        (GIST_SOURCE, f"gist/{GIST}", f"https://gist.github.com/{GIST}", f"https://gist.github.com/{GIST}", GIST),
        (git("git.example.org/a%20b.git", "v1"), "git.example.org/a%20b", "https://git.example.org/a%20b.git",
         "https://git.example.org/a%20b.git", "a-b"),
        (git("git.example.org/.git"), "git.example.org/", "https://git.example.org/.git", "https://git.example.org/.git",
         "repository"),
        (zenodo(7), "10.5281/zenodo.7", "10.5281/zenodo.7", "https://doi.org/10.5281/zenodo.7", "zenodo.7"),
        (FIGSHARE, FIGSHARE.address, f"figshare/{FIGSHARE.address}", f"https://doi.org/{FIGSHARE.address}",
         "janelia.123"),
        (HYDROSHARE, f"hydroshare/{RESOURCE}", HYDROSHARE.address, HYDROSHARE.address, RESOURCE),
        (git("h.example/" + "a" * 90), "h.example/" + "a" * 90, "https://h.example/" + "a" * 90,
         "https://h.example/" + "a" * 90, "a" * 64),
    ],
)  # fmt: skip
def test_a_repository_has_a_short_name_a_page_and_a_folder(
    source: Source, name: str, text: str, page: str, folder: str
) -> None:
    assert (shown(source), written(source), web_address(source)) == (name, text, page)
    assert content_folder(source) == folder


def test_no_two_repositories_share_a_suggested_name() -> None:
    sources = [github("a-b/c"), github("a/b-c"), gitlab("a-b/c"), *(git(f"h.example/{'a' * 70}{n}") for n in range(9))]
    names = {notebook_name(suggested_name(source)) for source in sources}
    assert len(names) == len(sources)


# ── whatever is typed ────────────────────────────────────────────────────────────────────────────────────────────────

PIECES = st.sampled_from(
    ["https://", "http://", "github.com", "gitlab.com", "gist.github.com", "zenodo.org", "doi.org", "doi:",
     "10.5281/", "figshare", "figshare.com/articles", "/v2/", "git/", "gl/", "gh/", "ckan/", "dataset/", "/-/",
     "tree/", "blob/", "src/", "branch/", "?", "#", "&", "=", "urlpath=", "labpath=", "persistentId=",
     "git-pull", "@", ":", "%2F", "%", "%2e", "..", ".git", "a", "B", "é", "records/", "1234567", COMMIT, GIST,
     RESOURCE, "hydroshare.org/resource/", "/", "\\", "\x00"]
)  # fmt: skip
TEXTS = st.text(max_size=60) | st.lists(PIECES, max_size=12).map("".join)


@given(TEXTS)
def test_any_text_is_a_canonical_repository_or_refused(text: str) -> None:
    try:
        asked = parse_repository(text)
    except ValueError:
        return
    source = asked.source
    assert parse_repository(written(source)) == Asked(replace(source, ref=""))
    assert parse_open(asked.open_path) == asked.open_path
    assert source.ref == "" or source.takes_ref
    assert notebook_name(suggested_name(source)) == suggested_name(source)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", content_folder(source))
    assert web_address(source).isascii()
    assert web_address(source).startswith("https://")


@given(st.sampled_from([*Provider, "x"]), TEXTS)
def test_any_binder_spec_is_a_canonical_repository_or_refused(provider: str, spec: str) -> None:
    try:
        source = parse_spec(provider, spec)
    except ValueError:
        return
    assert parse_repository(written(source)) == Asked(replace(source, ref=""))


@given(TEXTS)
def test_any_text_is_a_path_to_open_or_refused(text: str) -> None:
    for path in (text, f"/{text}"):
        try:
            found = parse_open(path)
        except ValueError:
            continue
        assert parse_open(found) == found
        assert found.startswith("/") == path.startswith("/")
        assert found.isascii() or not path.startswith("/")
