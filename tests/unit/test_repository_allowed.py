"""Which repositories an operator allows: patterns, whatever way the repository was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.repository.address import parse_repository, parse_spec
from chalicelib.repository.allowed import is_allowed, is_pattern
from chalicelib.repository.source import Provider

RESOURCE = "b8f6eae9d89241cf8b5904033460af61"


@pytest.mark.parametrize(
    "text",
    ["*", "gh/*", "gh/jupyterlab/*", "gh/jupyterlab/jupyterlab-demo", "GH/JupyterLab/*", "gh/*/lessons",
     "gl/group/sub/*",
     "gist/*", f"gist/{RESOURCE}", "git/*", "git/https://git.example.org/*", "git/https://*.example.org/*", "zenodo/*",
     "zenodo/10.5281/*", "dataverse/10.7910/*", "hydroshare/*", "ckan/https://demo.ckan.org/*"],
)  # fmt: skip
def test_a_pattern_is_written_as_a_binder_link_is(text: str) -> None:
    assert is_pattern(text)


@pytest.mark.parametrize(
    "text",
    ["", "gh", "gh/", "gh//x", "gh/a/b/main", "x/*", "jupyterlab/*", "gist/user/id", "hydroshare/a/b",
     "git/git.example.org/*",
     "git/http://git.example.org/*", "git/https://", "gh/a /b", "gh/a\n", "gh/\N{ZERO WIDTH SPACE}a",
     "https://github.com/*"],
)  # fmt: skip
def test_what_is_no_pattern_is_told(text: str) -> None:
    assert not is_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("*", "u/r"),
        ("gh/*", "u/r"),
        ("gh/JupyterLab/*", "jupyterlab/jupyterlab-demo"),
        ("gh/jupyterlab/jupyterlab-*", "https://github.com/JupyterLab/JupyterLab-Demo.git"),
        ("gh/jupyterlab/jupyterlab-demo", "https://github.com/jupyterlab/jupyterlab-demo/tree/feature%2Fx/a"),
        ("gh/u/r", "https://mybinder.org/v2/git/https%3A%2F%2Fwww.GitHub.com.%3A443%2FU%2F%2Fr.git/HEAD"),
        ("gh/*/r", "u/r"),
        ("gl/group/*", "https://gitlab.com/Group/sub/project"),
        (f"gist/{RESOURCE}", f"https://gist.github.com/anybody/{RESOURCE}"),
        ("git/https://git.example.org/*", "https://GIT.example.org/a/b.git"),
        ("git/https://git.example.org/a/b", "https://git.example.org/A/b.git"),
        ("git/https://git.example.org/a/b.git", "https://git.example.org/a//%62"),
        ("git/https://*.example.org/*", "https://git.example.org/a"),
        ("zenodo/*", "https://zenodo.org/records/3242074"),
        ("zenodo/10.5281/zenodo.3242074", "10.5281/ZENODO.3242074"),
        ("dataverse/10.7910/*", "10.7910/DVN/TJCLKP"),
        ("figshare/10.6084/*", "10.6084/m9.figshare.9782777"),
        ("hydroshare/*", f"https://www.hydroshare.org/resource/{RESOURCE}"),
        ("ckan/https://demo.ckan.org/*", "https://demo.ckan.org/dataset/sample-dataset-1"),
    ],
)  # fmt: skip
def test_a_pattern_holds_however_a_repository_is_written(pattern: str, text: str) -> None:
    source = parse_repository(text).source
    assert is_pattern(pattern)
    assert is_allowed(source, [pattern], [])
    assert not is_allowed(source, [], [pattern])
    assert not is_allowed(source, ["*"], ["gh/nobody/nothing", pattern])


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("gh/jupyter/*", "jupyterlab/jupyterlab-demo"),
        ("gh/u/r", "u/r2"),
        ("gh/u/r", "x/u"),
        ("gh/*", "https://gitlab.com/u/r"),
        ("gh/*", "https://git.example.org/u/r"),
        ("gl/group/*", "https://gitlab.com/group2/x"),
        ("gl/group/x", "https://gitlab.com/group/x/y"),
        ("git/https://git.example.org/*", "https://git.example.org.evil.example/a"),
        ("git/https://git.example.org/*", "https://git.example.org:8443/a"),
        ("git/https://*.example.org/*", "https://evil.example/x.example.org/a"),
        ("git/https://git.example.org/a.c", "https://git.example.org/abc"),
        ("git/https://git.example.org/a/*", "https://git.example.org/a"),
        ("zenodo/*", "10.7910/DVN/TJCLKP"),
    ],
)  # fmt: skip
def test_a_pattern_reaches_no_further_than_it_says(pattern: str, text: str) -> None:
    source = parse_repository(text).source
    assert not is_allowed(source, [pattern], [])
    assert is_allowed(source, [], [pattern])


def test_without_patterns_all_is_allowed() -> None:
    assert is_allowed(parse_repository("u/r").source, [], [])


@given(st.sampled_from(list(Provider)), st.text(st.sampled_from("*/aB.-"), max_size=20))
def test_any_pattern_can_be_compared(provider: Provider, rest: str) -> None:
    pattern = f"{provider}/{rest}"
    is_pattern(pattern)
    source = parse_spec("gh", "u/r/main")
    assert is_allowed(source, [pattern], []) != is_allowed(source, [], [pattern])
