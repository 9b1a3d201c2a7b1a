"""A repository, from its address to the output of a cell: real Git over TLS, real builds, JupyterLab."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import docker
import pytest
import requests
from docker.errors import NotFound

from chalicelib.notebook.helpers import PODMAN_SOCKET, PROGRAM, SOCKET
from chalicelib.repository.tag import REPOSITORY
from local import demo, processes
from local.demo import DemoFailed, HubClient, Notebook
from local.run import Stack
from tests.git_rig import GitSite, Repository, commit_in_lfs, git
from tests.repository_rig import lessons

READ: Final = "print(open('first.ipynb').read(), open('data/second.csv').read())"


@pytest.fixture
def hub(stack: Stack) -> Iterator[HubClient]:
    with closing(HubClient(stack.hub_address)) as client:
        yield client


def launched(hub: HubClient, stack: Stack, name: str, **fields: str) -> tuple[dict[str, Any], Notebook]:
    """Launch, and enter as soon as it is ready."""
    session = hub.launch(Path(stack.bundle), name, **fields)
    ready = demo.follow(hub, session["id"], "ready")
    return ready, demo.enter(stack.hub_url, hub.enter(session["id"]), stack.proxy_port)


def stop(hub: HubClient, sid: str) -> dict[str, Any]:
    hub.stop(sid)
    return demo.follow(hub, sid, "stopped")


def built_images(engine: docker.APIClient) -> set[str]:
    return {tag for image in engine.images(name=REPOSITORY) for tag in image["RepoTags"]}


def test_a_link_leads_to_a_cells_output_and_the_same_version_is_not_built_again(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    repository = lessons(site, "o/lessons", notebook_image)
    commit = repository.head()
    for launch in (1, 2):
        ready, notebook = launched(hub, stack, f"repository {launch}", repo=repository.address, open="first.ipynb")
        assert ready["repository"]["version"] == commit
        assert demo.run_cell(notebook, READ).strip() == "lesson 1,2"
        assert demo.run_cell(notebook, "print(open('/home/jovyan/built.txt').read())").strip() == "of o/lessons"
        assert hub.enter(ready["id"])["path"] == "/lab/tree/first.ipynb"
        log = hub.log(ready["id"])
        assert ("The image of this version was built before" in log) is (launch == 2)
        log_url = f"{stack.hub_address}/{ready['log_url']}"
        answer = requests.get(log_url, headers=hub.headers, timeout=60)
        assert (answer.status_code == 200 and "RUN echo of o/lessons" in answer.text) is (launch == 1)
        stop(hub, ready["id"])
    assert built_images(behind) == {ready["image"]}


def test_a_branch_a_tag_and_a_commit_of_a_folder_are_one_image_with_submodules_and_large_files(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    part = site.repository("o/part")
    part.commit(a_dot_txt="of the submodule")
    repository = site.repository("o/course")
    commit_in_lfs(site, repository, "week/large.bin", b"of Git LFS")
    git(repository.folder, "submodule", "add", "--quiet", "../part", "week/part")
    commit = repository.commit(week__Dockerfile=f"FROM {notebook_image}\n", week__first_dot_ipynb="lesson")
    git(repository.folder, "branch", "spring")
    git(repository.folder, "tag", "--annotate", "--message", "The first", "v1")
    repository.commit(week__Dockerfile="FROM scratch\n")
    read = "print(*(open(name).read() for name in ('first.ipynb', 'part/a.txt', 'large.bin')), sep=', ')"
    images = set()
    for ref in ("spring", "v1", commit):
        ready, notebook = launched(hub, stack, f"course {ref}", repo=repository.address, ref=ref, folder="week")
        assert ready["repository"]["version"] == commit
        assert demo.run_cell(notebook, read).strip() == "lesson, of the submodule, of Git LFS"
        images.add(ready["image"])
        stop(hub, ready["id"])
    assert built_images(behind) == images
    assert len(images) == 1


def test_a_repository_of_500_mb_is_built_and_cloned(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    repository = site.repository("o/large")
    git(repository.folder, "config", "core.compression", "0")
    git(repository.folder, "config", "core.bigFileThreshold", "1m")  # sites have looked for deltas long before
    (repository.folder / "data").mkdir()
    for number in range(5):
        (repository.folder / "data" / f"{number}.bin").write_bytes(os.urandom(100_000_000))
    repository.commit(Dockerfile=f"FROM {notebook_image}\n")
    size = "print(sum(file.stat().st_size for file in __import__('pathlib').Path('{}data').glob('*.bin')))"
    try:
        for fields, where in (({"repo": repository.address}, ""), ({"content": repository.address}, "large/")):
            ready, notebook = launched(hub, stack, f"large {where}", **fields)
            assert demo.run_cell(notebook, size.format(where)).strip() == "500000000"
            stop(hub, ready["id"])
            behind.remove_volume(f"homeport-{ready['id']}")
    finally:
        shutil.rmtree(repository.folder)


def test_neither_a_step_of_the_build_nor_the_notebook_has_the_engines_socket_or_the_helpers_program(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    look = f"ls {SOCKET} {PODMAN_SOCKET} {PROGRAM}"
    dockerfile = f"FROM {notebook_image}\nRUN {look} > /home/jovyan/built.txt 2>&1 || true\n"
    repository = lessons(site, "o/socket", notebook_image, Dockerfile=dockerfile)
    ready, notebook = launched(hub, stack, "socket", repo=repository.address)
    cell = f"import subprocess; print(open('/home/jovyan/built.txt').read(), subprocess.getoutput('{look}'))"
    printed = demo.run_cell(notebook, cell)
    assert printed.count("No such file") == 6
    assert printed.count(SOCKET) == 2
    stop(hub, ready["id"])


def test_the_site_of_a_repository_is_asked_by_containers_of_the_endpoint_alone(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient
) -> None:
    repository = site.repository("o/asked")
    repository.commit(a_dot_txt="one")
    site.clients.clear()
    ready, _ = launched(hub, stack, "asked", content=repository.address)
    stop(hub, ready["id"])
    assert site.clients
    assert not site.clients & {urlsplit(site.address).hostname, "127.0.0.1"}, "the hub is on the machine of the site"


def test_the_demo_shows_a_repository(
    site: GitSite, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    repository = lessons(site, "o/demo", notebook_image)
    steps: list[str] = []
    demo.demonstrate(stack, "demo", steps.append, io.StringIO(), repository=repository.address)
    assert f"ready: {repository.address} is at {repository.head()}" in steps
    assert steps[-1] == "stopped; no container, no route, no stored credential is left"


def test_work_survives_and_is_never_overwritten(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    repository = lessons(site, "o/work", notebook_image)
    ready, notebook = launched(hub, stack, "work of a repository", repo=repository.address)
    demo.run_cell(notebook, "open('first.ipynb', 'w').write('changed')")
    stop(hub, ready["id"])
    repository.commit(first_dot_ipynb="another lesson")
    again, notebook = launched(hub, stack, "work of a repository", repo=repository.address)
    assert again["repository"]["version"] == repository.head() != ready["repository"]["version"]
    assert demo.run_cell(notebook, READ).strip() == "changed 1,2"
    stop(hub, ready["id"])


def test_files_are_cloned_beside_an_image_and_brought_up_to_date_while_nobody_has_changed_them(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient
) -> None:
    repository = site.repository("o/Data")
    first = repository.commit(a_dot_txt="one")
    read = "print(open('Data/a.txt').read())"

    def launch() -> tuple[str, str, str]:
        ready, notebook = launched(hub, stack, "files of a repository", content=repository.address, open="Data/a.txt")
        printed = demo.run_cell(notebook, read).strip()
        told = next(line for line in reversed(hub.log(ready["id"])) if "work folder" in line)
        if printed == "two":
            demo.run_cell(notebook, "open('Data/a.txt', 'w').write('mine')")
        stop(hub, ready["id"])
        return ready["content"]["version"], printed, told

    assert launch() == (first, "one", "The files are in your work folder")
    second = repository.commit(a_dot_txt="two")
    assert launch()[:2] == (second, "two")
    third = repository.commit(a_dot_txt="three")
    version, printed, told = launch()
    assert (version, printed) == (third, "mine")
    assert "you have changed some" in told
    assert built_images(behind) == set()


def test_two_launches_of_one_version_at_once_share_a_build(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    dockerfile = f"FROM {notebook_image}\nRUN sleep 4; date +%s%N > /home/jovyan/built.txt\n"
    repository = lessons(site, "o/two", notebook_image, Dockerfile=dockerfile)
    sids = [hub.launch(Path(stack.bundle), f"two {number}", repo=repository.address)["id"] for number in (1, 2)]
    printed = set()
    for sid in sids:
        demo.follow(hub, sid, "ready")
        notebook = demo.enter(stack.hub_url, hub.enter(sid), stack.proxy_port)
        printed.add(demo.run_cell(notebook, "print(open('/home/jovyan/built.txt').read())"))
    assert len(printed) == 1
    for sid in sids:
        stop(hub, sid)


@pytest.mark.parametrize(
    ("name", "files", "code", "told"),
    [
        ("o/broken", {"Dockerfile": "FROM scratch\nNONSENSE\n"}, "build-failed", "Dockerfile"),
        ("o/fails", {"Dockerfile": "FROM {image}\nRUN echo it is broken; exit 3\n"}, "build-failed", "3"),
        (
            "o/no-jupyter",
            {"Dockerfile": "FROM {image}\nUSER root\nRUN rm -r /opt/jupyter\n"},
            "image-without-jupyter",
            "",
        ),
    ],
)
def test_what_cannot_be_launched_is_told_with_its_reason_and_leaves_nothing(
    name: str,
    files: dict[str, str],
    code: str,
    told: str,
    site: GitSite,
    hub: HubClient,
    stack: Stack,
    behind: docker.APIClient,
    notebook_image: str,
) -> None:
    files = {file: text.replace("{image}", notebook_image) for file, text in files.items()}
    repository = lessons(site, name, notebook_image, **files)
    sid = hub.launch(Path(stack.bundle), name.replace("/", " "), repo=repository.address)["id"]
    stopped = demo.follow(hub, sid, "stopped")
    assert stopped["error"]["code"] == code
    assert told in stopped["error"]["message"]
    if code == "build-failed":
        answer = requests.get(f"{stack.hub_address}/{stopped['log_url']}", headers=hub.headers, timeout=60)
        assert answer.status_code == 200
        assert "attachment" in answer.headers["Content-Disposition"]
        assert answer.text.strip()
    assert behind.containers(all=True, filters={"label": f"homeport.session={sid}"}) == []


@pytest.mark.parametrize(
    ("repo", "ref", "code"),
    [
        ("nobody/nothing", "", "repository-not-found"),
        ("private/o/lessons", "", "repository-not-found"),
        ("limited/o/lessons", "", "provider-unreachable"),
        ("", "no-such-branch", "version-not-found"),
    ],
)
def test_what_cannot_be_resolved_is_told(
    repo: str, ref: str, code: str, site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient
) -> None:
    folder = site.root / "o" / "resolved"
    repository = Repository(folder, f"{site.address}/o/resolved") if folder.exists() else site.repository("o/resolved")
    repository.commit(a_dot_txt="one")
    fields = {"repo": f"{site.address}/{repo}" if repo else repository.address} | ({"ref": ref} if ref else {})
    sid = hub.launch(Path(stack.bundle), "resolved", **fields)["id"]
    with pytest.raises(DemoFailed):
        demo.follow(hub, sid, "ready")
    assert demo.follow(hub, sid, "stopped")["error"]["code"] == code


def test_a_build_that_is_stopped_ends_and_leaves_nothing_but_the_engines_cache(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    dockerfile = f"FROM {notebook_image}\nRUN echo cached\nRUN sleep 300\n"
    repository = lessons(site, "o/long", notebook_image, Dockerfile=dockerfile)
    sid = hub.launch(Path(stack.bundle), "long", repo=repository.address)["id"]
    demo.follow(hub, sid, "building")
    processes.wait_until(
        lambda: "sleep 300" in hub.session(sid)["message"], what="the second step of the build", deadline=120
    )
    stop(hub, sid)
    assert behind.containers(all=True, filters={"ancestor": notebook_image}) == []
    assert built_images(behind) == set()
    with pytest.raises(NotFound):
        behind.inspect_container(f"homeport-{sid}-1")


def test_images_built_here_are_listed_and_removed_once_no_container_uses_them(
    site: GitSite, hub: HubClient, stack: Stack, behind: docker.APIClient, notebook_image: str
) -> None:
    repository = lessons(site, "o/housekeeping", notebook_image)

    def listed() -> list[dict[str, Any]]:
        answer = requests.get(f"{stack.hub_address}/sessions", headers=hub.headers, timeout=60)
        return [image for image in answer.json()["built"] if image["version"] == repository.head()]

    def remove(sid: str, image: str) -> str:
        address = f"{stack.hub_address}/sessions/{sid}/images"
        answer = requests.post(address, headers=hub.headers, json={"image": image}, timeout=60)
        assert (answer.status_code, answer.json()["state"]) == (202, "tidying")
        return str(demo.follow(hub, sid, "ready")["message"])

    ready, _ = launched(hub, stack, "housekeeping", repo=repository.address)
    (image,) = listed()
    assert (image["name"], image["endpoint"]) == (ready["image"], ready["endpoint"])
    found = behind.inspect_image(ready["image"])  # type: ignore[no-untyped-call]
    assert image["size"] == found["Size"]
    for which in ("all", ready["image"]):
        assert "in use by a container, so it stays" in remove(ready["id"], which)
    assert built_images(behind) == {ready["image"]}
    stop(hub, ready["id"])
    beside, _ = launched(hub, stack, "beside", image=notebook_image)
    assert remove(beside["id"], "all").endswith("No image that was built here is left on the endpoint")
    assert (built_images(behind), listed()) == (set(), [])
    assert "No image that was built here is left on the endpoint" in hub.log(beside["id"])
    stop(hub, beside["id"])
