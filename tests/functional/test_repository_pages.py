"""Launch links, the form that they fill in, what the hub says of an address, and badges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

import pytest

from tests.functional.hub_rig import Answer, HubRig, a_bundle, hub_rig

HUB = "https://hub.example.org"
PROVIDERS = [
    ("/v2/gh/jupyterlab/jupyterlab-demo/main", {"repo": "jupyterlab/jupyterlab-demo", "ref": "main"}),
    ("/v2/gh/JupyterLab/JupyterLab-Demo/HEAD", {"repo": "jupyterlab/jupyterlab-demo"}),
    ("/v2/gh/u/r/main?labpath=demo%2Fone.ipynb", {"repo": "u/r", "ref": "main", "open": "demo/one.ipynb"}),
    ("/v2/gh/u/r/main?urlpath=rstudio", {"repo": "u/r", "ref": "main", "open": "/rstudio"}),
    ("/v2/gl/group%2Fsub%2Fproject/v1", {"repo": "https://gitlab.com/group/sub/project", "ref": "v1"}),
    ("/v2/gist/ada/0123456789abcdef0123/master", {"repo": "https://gist.github.com/0123456789abcdef0123"}),
    (
        "/v2/git/https%3A%2F%2Fgit.example.org%2Fcourse.git/main",
        {"repo": "https://git.example.org/course.git", "ref": "main"},
    ),
    ("/v2/zenodo/10.5281/zenodo.3242074", {"repo": "10.5281/zenodo.3242074"}),
    ("/v2/figshare/10.6084/m9.figshare.9782777.v1", {"repo": "10.6084/m9.figshare.9782777.v1"}),
    ("/v2/dataverse/10.7910/DVN/TJCLKP", {"repo": "10.7910/DVN/TJCLKP"}),
    (
        "/v2/hydroshare/b8f6eae9d89241cf8b5904033460af61",
        {"repo": "https://www.hydroshare.org/resource/b8f6eae9d89241cf8b5904033460af61"},
    ),
    (
        "/v2/ckan/https%3A%2F%2Fdemo.ckan.org%2Fdataset%2Fsample",
        {"repo": "https://demo.ckan.org/dataset/sample"},
    ),
]
HOSTILE = [
    "/?repo=https://secret-token@github.com/u/r",
    "/?repo=javascript:alert(1)",
    "/?repo=u/r&ref=--upload-pack=secret-token",
    "/?repo=u/r&folder=../secret-token",
    "/?repo=u/r&open=//secret-token.example/",
    "/?repo=u/r&image=busybox",
    "/?content=http://git.example.org/secret-token",
    "/?ref=main",
    "/?image=%22%3E%3Cscript%3E",
    "/v2/nowhere/u/r",
    "/v2/gh/u/r/..%2F..%2Fsecret-token",
    "/v2/gh/u/-r-/main?urlpath=%2F%2Fsecret-token.example",
    "/v2/git/ssh%3A%2F%2Fsecret-token@host%2Fr/main",
]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubRig]:
    with hub_rig() as rig:
        yield rig


def followed(hub: HubRig, path: str) -> tuple[str, dict[str, str]]:
    """Where a browser at `path` comes to, and the query there."""
    answer = hub.ask("GET", path, html=True)
    assert answer.status == 303, answer.text
    target = urlsplit(urljoin(f"{HUB}{path}", answer.headers["location"]))
    return target.path, {name: value for name, (value,) in parse_qs(target.query, strict_parsing=True).items()}


def through_gateway(hub: HubRig, path: str, *, stage: str = "", html: bool = True, query: str = "") -> Answer:
    """What API Gateway makes of a request below its stage: no slash at its end, and the stage in one place alone."""
    parts = path.strip("/").split("/")
    is_link = parts[0] == "v2"
    names = [f"part{number}" for number in range(1, len(parts))] if is_link else []
    resource = "/v2/" + "/".join(f"{{{name}}}" for name in names) if is_link else path or "/"
    event: dict[str, Any] = {
        "requestContext": {
            "httpMethod": "GET",
            "resourcePath": resource,
            "path": stage + path,
            "identity": {"sourceIp": "192.0.2.1"},
        },
        "headers": {"accept": "text/html" if html else "application/json"},
        "pathParameters": dict(zip(names, parts[1:], strict=True)),
        "multiValueQueryStringParameters": parse_qs(query) or None,
        "stageVariables": None,
        "body": None,
    }
    answer = hub.client.http._local_gateway._app_object(event, None)
    headers = {**answer.get("headers", {}), **{name: v[0] for name, v in answer.get("multiValueHeaders", {}).items()}}
    return Answer(
        answer["statusCode"], {name.lower(): value for name, value in headers.items()}, answer["body"].encode()
    )


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("path", "query"), PROVIDERS)
def test_a_link_of_binders_leads_to_the_form_filled_in_with_it(hub: HubRig, path: str, query: dict[str, str]) -> None:
    at, found = followed(hub, path)
    assert (at, found) == ("/", query)


@pytest.mark.parametrize(("path", "query"), PROVIDERS)
def test_the_form_has_what_the_link_says(hub: HubRig, path: str, query: dict[str, str]) -> None:
    location = hub.ask("GET", path, html=True).headers["location"]
    page = hub.ask("GET", "/" + location.lstrip("./"), html=True)
    assert page.status == 200
    for name, value in query.items():
        assert f'name="{name}" value="{value}"' in page.text
    assert 'id="what-repository" name="what" value="repository" checked' in page.text
    assert "has not checked it" in page.text


def test_two_repositories_of_one_link_become_what_runs_and_its_files(hub: HubRig) -> None:
    pull = "git-pull?" + urlencode(
        {"repo": "https://github.com/u/course", "urlpath": "lab/tree/course/one.ipynb", "branch": "main"}
    )
    _at, found = followed(hub, f"/v2/gh/u/env/main?urlpath={quote(pull)}")
    assert found == {
        "repo": "u/env",
        "ref": "main",
        "content": "u/course",
        "content_ref": "main",
        "open": "course/one.ipynb",
    }


@pytest.mark.parametrize("stage", ["", "/api"])
@pytest.mark.parametrize("path", ["/v2/gh/u", "/v2/gh/u/r/main", "/v2/gh/u/r/main/", "/v2/gh/u/r/a/b/c/"])
def test_a_link_leads_up_to_the_first_page_from_any_depth_and_below_a_stage(hub: HubRig, stage: str, path: str) -> None:
    answer = through_gateway(hub, path, stage=stage)
    if path == "/v2/gh/u":
        (home,) = re.findall(r'class="brand" href="([^"]+)"', answer.text)
        assert (answer.status, urljoin(f"{HUB}{stage}{path}", home)) == (400, f"{HUB}{stage}/")
        return
    assert answer.status == 303
    assert urljoin(f"{HUB}{stage}{path}", answer.headers["location"]).startswith(f"{HUB}{stage}/?repo=u/r&ref=")


@pytest.mark.parametrize("query", ["", "repo=u%2Fr&ref=a%2Fb"])
def test_the_stage_without_its_slash_leads_to_the_first_page(hub: HubRig, query: str) -> None:
    answer = through_gateway(hub, "", stage="/api", query=query)
    assert answer.status == 303
    assert urljoin(f"{HUB}/api", answer.headers["location"]) == f"{HUB}/api/" + (f"?{query}" if query else "")
    assert through_gateway(hub, "/", stage="/api", query=query).status == 200


def test_the_error_page_of_a_link_with_a_slash_at_its_end_leads_back(hub: HubRig) -> None:
    answer = through_gateway(hub, "/v2/nowhere/u/r/", stage="/api")
    (home,) = re.findall(r'class="brand" href="([^"]+)"', answer.text)
    assert urljoin(f"{HUB}/api/v2/nowhere/u/r/", home) == f"{HUB}/api/"


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_link_gets_the_parsers_sentence_and_not_its_own_words_back(hub: HubRig, path: str) -> None:
    page, problem = hub.ask("GET", path, html=True), hub.ask("GET", path)
    assert (page.status, problem.status) == (400, 400)
    assert problem.json["code"] in ("bad-field", "bad-link")
    assert problem.json["detail"].replace("'", "&#39;") in page.text
    assert "secret-token" not in page.text + problem.text


@pytest.mark.parametrize("field", ["repo", "content"])
def test_an_address_with_a_token_in_it_is_in_no_answer_no_log_and_no_store(
    field: str, hub: HubRig, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    asked: dict[str, Any] = {field: "https://ada:secret-token@github.com/u/r"}
    answers = [
        hub.upload(a_bundle(), **asked),
        hub.upload(a_bundle(), "/bundles", **asked),
        hub.ask("GET", f"/?{urlencode(asked)}", html=True),
        hub.ask("GET", f"/repository?{urlencode(asked)}"),
        hub.ask("GET", f"/badge?{urlencode(asked)}"),
    ]
    assert {answer.status for answer in answers} == {400}
    printed = capfd.readouterr()
    everything = "".join(answer.text for answer in answers) + caplog.text + printed.out + printed.err
    assert "secret-token" not in everything + hub.everything_stored()


# ── the form ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_page_says_nothing_of_others_code_unless_a_link_names_some(hub: HubRig) -> None:
    for path in ("/", "/?name=thesis", "/?image=quay.io/jupyter/minimal-notebook:latest"):
        assert "has not checked it" not in hub.ask("GET", path, html=True).text
    image = hub.ask("GET", "/?image=docker.io/ada/notebook", html=True).text
    assert "<code>docker.io/ada/notebook</code>: others made it, and this hub has not checked it" in image
    assert "engine’s socket" not in image
    both = hub.ask("GET", "/?repo=u/env&content=u/course", html=True).text
    assert 'href="https://github.com/u/env" rel="external noreferrer"' in both
    assert 'href="https://github.com/u/course" rel="external noreferrer"' in both
    assert "engine’s socket" in both


def test_what_was_not_chosen_is_not_launched(hub: HubRig) -> None:
    repository = hub.upload(a_bundle(), what="repository", repo="u/r", image="docker.io/ada/notebook").json
    assert (repository["repository"]["name"], repository["image"], repository["name"]) == ("u/r", "", "u/r")
    image = hub.upload(a_bundle(), what="image", repo="u/r", ref="x", folder="y", image="docker.io/ada/notebook").json
    assert (image["repository"], image["image"]) == (None, "docker.io/ada/notebook")
    both = hub.upload(a_bundle(), repo="u/r", image="docker.io/ada/notebook")
    assert (both.status, both.json["code"]) == (400, "bad-field")


@pytest.mark.parametrize(("what", "code"), [("repository", "missing-field"), ("other", "bad-field")])
def test_a_choice_without_its_field_and_one_that_there_is_not_are_refused(hub: HubRig, what: str, code: str) -> None:
    refused = hub.upload(a_bundle(), what=what)
    assert (refused.status, refused.json["code"]) == (400, code)


def test_the_page_of_a_stopped_launch_leads_to_the_form_with_its_repository(hub: HubRig) -> None:
    launched = hub.upload(a_bundle(), repo="u/again", ref="v1", content="u/course", open="course/a b.ipynb")
    page = hub.ask("GET", f"/sessions/{launched.json['id']}", token=launched.json["owner_token"], html=True).text
    (query,) = set(re.findall(r'href="\.\./\?([^"]+)"', page))
    assert parse_qs(query.replace("&amp;", "&")) == {
        "name": ["u/again"],
        "repo": ["u/again"],
        "ref": ["v1"],
        "content": ["u/course"],
        "open": ["course/a b.ipynb"],
    }
    assert hub.ask("GET", f"/?{query.replace('&amp;', '&')}", html=True).status == 200


# ── what the hub says of an address ──────────────────────────────────────────────────────────────────────────────────


def test_an_address_is_read_by_the_hubs_own_parser_without_a_sign_in(hub: HubRig) -> None:
    answer = hub.ask("GET", "/repository?repo=https://github.com/JupyterLab/jupyterlab-demo/blob/main/demo/one.ipynb")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {
        "repo": "jupyterlab/jupyterlab-demo",
        "ref": "main",
        "folder": "",
        "open": "demo/one.ipynb",
        "name": "jupyterlab/jupyterlab-demo",
        "provider": "gh",
        "shown": "jupyterlab/jupyterlab-demo",
        "place": "GitHub",
        "page": "https://github.com/jupyterlab/jupyterlab-demo/tree/main",
        "summary": "jupyterlab/jupyterlab-demo on GitHub, version main",
        "versioned": True,
    }


@pytest.mark.parametrize(
    ("query", "summary"),
    [
        ("repo=u/r", "u/r on GitHub, the default branch"),
        ("repo=u/r&ref=v1&folder=a/b", "u/r on GitHub, version v1, folder a/b"),
        ("repo=https://gitlab.com/g/p", "gitlab.com/g/p, the default branch"),
        ("repo=10.5281/zenodo.3242074", "10.5281/zenodo.3242074 on Zenodo"),
        (
            "content=https://github.com/u/course/blob/main/one.ipynb",
            "u/course on GitHub, version main",
        ),
    ],
)
def test_an_address_is_said_in_a_line(hub: HubRig, query: str, summary: str) -> None:
    assert hub.ask("GET", f"/repository?{query}").json["summary"] == summary


@pytest.mark.parametrize(
    ("query", "code"),
    [("", "missing-field"), ("?image=busybox", "missing-field"), ("?repo=10.5281/zenodo.1&ref=main", "bad-field")],
)
def test_what_is_no_address_is_refused(hub: HubRig, query: str, code: str) -> None:
    refused = hub.ask("GET", f"/repository{query}")
    assert (refused.status, refused.json["code"]) == (400, code)


# ── badges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_badge_may_be_kept_and_shown_by_other_sites_and_runs_nothing(hub: HubRig) -> None:
    answer = hub.ask("GET", "/badge.svg", html=True)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/svg+xml")
    assert answer.text.startswith("<svg")
    assert answer.headers["cache-control"] == "public, max-age=86400"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("stage", ["", "/api"])
def test_a_launch_link_is_made_of_the_hubs_own_address_and_its_stage(hub: HubRig, stage: str) -> None:
    query = "repo=https://github.com/u/r/blob/main/one.ipynb"
    made = through_gateway(hub, "/badge", stage=stage, html=False, query=query).json
    assert made["link"] == f"{HUB}{stage}/?repo=u/r&ref=main&open=one.ipynb"
    assert made["badge"] == f"{HUB}{stage}/badge.svg"
    for language in ("markdown", "html", "rst"):
        assert made["badge"] in made[language]


def test_the_page_of_a_link_works_by_a_plain_form_and_shows_its_own_badge_alone(hub: HubRig) -> None:
    page = hub.ask("GET", "/badge?repo=u/r&ref=main", html=True)
    assert page.status == 200
    assert 'src="badge.svg"' in page.text
    assert f'href="{HUB}/?repo=u/r&amp;ref=main"' in page.text
    assert "img-src 'self' data:;" in page.headers["content-security-policy"]
    assert "img-src data:;" in hub.ask("GET", "/", html=True).headers["content-security-policy"]


def test_what_no_link_can_be_made_of_keeps_what_was_typed(hub: HubRig) -> None:
    page = hub.ask("GET", "/badge?repo=javascript:x&open=one.ipynb", html=True)
    assert page.status == 400
    assert 'name="open" value="one.ipynb"' in page.text
    assert "must begin with https://" in page.text
    assert hub.ask("GET", "/badge", html=True).status == 200
    nothing = hub.ask("GET", "/badge?repo=")
    assert (nothing.status, nothing.json["code"]) == (400, "missing-field")
