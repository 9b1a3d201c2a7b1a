"""The helpers' program in the builder image, on real engines: what it builds, and what it leaves behind.

Docker's engine builds with BuildKit, Podman's without. The repositories are on loopback, their images are built from
the local notebook image, and nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import pytest
from docker.models.containers import Container

from chalicelib import helper
from chalicelib.notebook import helpers
from chalicelib.repository.answers import Report, report_of
from local import builder, image, processes
from local.engine import Engine
from tests import engines
from tests.git_rig import GitSite, Repository, commit_in_lfs, git_site
from tests.real_parts import KEPT_IMAGES

PROGRAM: Final = Path(str(helper.__file__)).read_bytes()
REPOSITORIES: Final = Path(__file__).parent.parent / "repositories"
IMAGE: Final = f"localhost/homeport-built:{'0' * 40}"
LABELS: Final = {"homeport.hub": "a-hub", "homeport.owner": "an-owner", "homeport.built": IMAGE}
ON_PODMAN: Final = {
    "test_the_image_of_a_dockerfile_has_the_files_at_the_work_folder",
    "test_an_image_that_is_too_large_is_removed",
    "test_the_engine_behind_the_socket_is_looked_at",
    "test_the_notebooks_user_clones_into_its_volume",
}
SLEEP: Final = "61713"  # seconds that no other program sleeps


@dataclass(frozen=True)
class Place:
    """An engine with both images, and docker-py on it."""

    kind: str
    engine: Engine
    client: docker.DockerClient
    notebook: str

    def start(self, command: str, argument: str, **options: Any) -> Container:
        """Start a helper on the engine, with its socket, on the machine's own network, where the repositories are."""
        container: Container = self.client.containers.create(
            builder.LOCAL_BUILDER,
            ["python3", helpers.PROGRAM, command, argument],
            volumes={str(self.engine.socket): {"bind": helpers.SOCKET, "mode": "rw"}} | options.pop("volumes", {}),
            network_mode="host",
            **options,
        )
        container.put_archive("/", helpers.program_file(PROGRAM, 0))
        container.start()
        return container

    def run(self, command: str, task: Mapping[str, Any], **options: Any) -> tuple[int, Report, str]:
        """Have a helper do a task; give its exit code and what it said."""
        container = self.start(command, json.dumps(task), **options)
        try:
            code = int(container.wait(timeout=300)["StatusCode"])
            log = container.logs().decode()
            return code, report_of(log), log
        finally:
            container.remove(force=True)

    def build(self, repository: Repository, **changed: Any) -> tuple[int, Report, str]:
        return self.run("build", task_of(repository, **changed))

    def names(self) -> set[str]:
        """The images that helpers made, by name."""
        tags = {tag for found in self.client.images.list() for tag in found.tags}
        return {tag for tag in tags if tag.startswith(("localhost/homeport-built:", f"{helper.BUILDING}:"))}

    def inside(self, script: str) -> str:
        """What a shell in the built image prints."""
        container = self.client.containers.create(IMAGE, ["-c", script], entrypoint=["sh"], network_mode="none")
        try:
            container.start()
            container.wait(timeout=60)
            return bytes(container.logs(stderr=False)).decode().strip()
        finally:
            container.remove(force=True)


def task_of(repository: Repository, **changed: Any) -> dict[str, Any]:
    source = {"provider": "git", "address": repository.address, "ref": "main", "folder": ""}
    return {
        "source": source,
        "version": repository.head(),
        "image": IMAGE,
        "labels": LABELS,
        "seconds": 300,
        "bytes": None,
        "memory": None,
    } | changed


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What a builder does is Docker's business or Podman's in a few tests; the others are about the program."""
    if "place" in metafunc.fixturenames:
        kinds = ["docker", "podman"] if metafunc.function.__name__ in ON_PODMAN else ["docker"]
        metafunc.parametrize("place", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def place(
    request: pytest.FixtureRequest,
    engine: Engine,
    report: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    kind = request.param
    if lacking := engines.missing_for(kind):
        pytest.skip(lacking)
    if shutil.which("mmdebstrap") is None and not builder.built(KEPT_IMAGES):
        pytest.skip("needs root and `apt-get install mmdebstrap` to build the builder image")
    with engines.of_kind(kind, tmp_path_factory.mktemp(kind), engine) as running:
        notebook = image.provide_local(running.url, KEPT_IMAGES, report)
        builder.provide_local(running.url, KEPT_IMAGES, report)
        with closing(docker.DockerClient(running.url, timeout=300)) as client:
            yield Place(kind, running, client, notebook)


@pytest.fixture(autouse=True)
def nothing_left(place: Place) -> Iterator[None]:
    """No container is left by any test, and no image that is half done."""
    before = {container.id for container in place.client.containers.list(all=True)}
    yield
    assert place.names() <= {IMAGE}
    assert {container.id for container in place.client.containers.list(all=True)} == before
    if place.names():
        place.client.images.remove(IMAGE, force=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GitSite]:
    with git_site(tmp_path / "site") as served:
        yield served


@pytest.fixture
def repository(site: GitSite) -> Repository:
    return site.repository("o/r")


def test_the_image_of_a_dockerfile_has_the_files_at_the_work_folder(place: Place, repository: Repository) -> None:
    repository.commit(
        Dockerfile=f"FROM {place.notebook}\nCOPY --chown=jovyan first.ipynb /home/jovyan/work/\n"
        "RUN echo changed > /home/jovyan/work/first.ipynb && echo built > /home/jovyan/built\n",
        first_dot_ipynb="first",
        data__second_dot_csv="second",
    )
    (repository.folder / "link").symlink_to("data/second.csv")
    (repository.folder / "outside").symlink_to("/etc/hostname")
    repository.commit(_dot_hidden="hidden")
    code, said, log = place.build(repository)
    assert code == 0, log
    assert said.end is not None
    built = place.client.images.get(IMAGE)
    assert said.end["size"] == built.attrs["Size"]
    assert {name: built.labels[name] for name in LABELS} == LABELS
    assert built.attrs["Config"]["User"] == "jovyan"
    assert built.attrs["Config"]["WorkingDir"] == "/home/jovyan/work"
    assert place.inside(
        "cd /home/jovyan/work && cat first.ipynb data/second.csv link .hidden; cat /home/jovyan/built"
    ) == ("changed\nsecondsecondhiddenbuilt")
    assert place.inside("readlink /home/jovyan/work/outside") == "/etc/hostname"
    assert set(place.inside("cd /home/jovyan && stat -c %U:%G work work/* work/.hidden work/data/*").split()) == {
        "jovyan:jovyan"
    }
    assert place.inside("git --version; ls -d /homeport-*; cd /home/jovyan/work; ls -d .git; id -u") == ".git\n1000"
    assert said.fraction is not None
    phases = [line for line in log.splitlines() if '"phase"' in line and line.startswith("homeport ")]
    assert [json.loads(line.partition(" ")[2])["phase"] for line in phases] == ["fetching", "building", "finishing"]


@pytest.mark.parametrize(
    ("lines", "folder", "owner"),
    [
        ("USER root\nRUN mkdir -p '/srv/my app' && chown 1234:100 '/srv/my app'\nWORKDIR '/srv/my app'\nUSER 1234:100",
         "/srv/my app/work", "1234:100"),
        ("USER root\nWORKDIR /", "/home/jovyan/work", "0:0"),
        ("WORKDIR /home/jovyan", "/home/jovyan/work", "1000:1000"),
        ("USER root\nRUN rm -r /home/jovyan\nWORKDIR /opt/x\nUSER jovyan", "/opt/x/work", "1000:1000"),
    ],
)  # fmt: skip
def test_the_files_are_where_the_hub_mounts_the_volume(
    place: Place, repository: Repository, lines: str, folder: str, owner: str
) -> None:
    lines = lines.replace("WORKDIR '/srv/my app'", "WORKDIR /srv/my app")
    repository.commit(Dockerfile=f"FROM {place.notebook}\n{lines}\n", a__b_dot_txt="b")
    code, _, log = place.build(repository)
    assert code == 0, log
    assert helper.work_folder(place.client.images.get(IMAGE).attrs["Config"]["WorkingDir"]) == folder
    assert place.inside(f"cd '{folder}' && cat a/b.txt && stat -c ' %u:%g' . a a/b.txt").split() == ["b"] + 3 * [owner]


def test_a_folder_is_built_alone_and_its_binder_folder_goes_first(place: Place, repository: Repository) -> None:
    repository.commit(
        Dockerfile="FROM nosuch\n",
        course__Dockerfile="FROM nosuch\n",
        course__binder__Dockerfile=f"FROM {place.notebook}\n",
        course__a_dot_txt="a",
    )
    source = {"provider": "git", "address": repository.address, "ref": "", "folder": "course"}
    code, _, log = place.build(repository, source=source)
    assert code == 0, log
    assert place.inside("cd /home/jovyan/work && ls -A") == "Dockerfile\na.txt\nbinder"


@pytest.mark.parametrize(
    ("dockerfile", "code", "detail"),
    [
        ("FROM {image}\nRUN echo the reason is an ERROR: no such thing; exit 3\n", "build-failed", "the reason is"),
        ("FROM {image}\nRUNN x\n", "dockerfile-invalid", ""),
        ("", "dockerfile-invalid", ""),
        ("FROM {image}\nCOPY nosuch /x\n", "build-failed", "nosuch"),
        ("FROM {image}\nONBUILD RUN x\n", "dockerfile-invalid", "ONBUILD"),
        ("FROM localhost/nosuch:1\n", "build-failed", ""),
        ("FROM {image}\nRUN echo 'homeport {{\"answer\": \"built\", \"size\": 1}}'; exit 1\n", "build-failed", ""),
    ],
)  # fmt: skip
def test_a_build_that_fails_says_why_and_leaves_no_image(
    place: Place, repository: Repository, dockerfile: str, code: str, detail: str
) -> None:
    repository.commit(Dockerfile=dockerfile.format(image=place.notebook))
    status, said, log = place.build(repository)
    if place.kind == "podman" and "ONBUILD" in dockerfile:  # it does not tell of them, and has them fail here
        code, detail = "build-failed", "not found"
    assert (status, said.failure[0]) == (1, code), log
    assert detail in said.failure[1]
    assert place.names() == set()


def test_an_image_that_is_too_large_is_removed(place: Place, repository: Repository) -> None:
    repository.commit(Dockerfile=f"FROM {place.notebook}\n")
    status, said, log = place.build(repository, bytes=1000)
    assert (status, said.failure[0]) == (1, "image-too-large"), log
    assert place.names() == set()


def test_what_is_not_there_cannot_be_built(place: Place, repository: Repository) -> None:
    repository.commit(Dockerfile=f"FROM {place.notebook}\n")
    assert place.build(repository, version="f" * 40)[1].failure[0] == "version-not-found"
    gone = Repository(repository.folder, f"{repository.address}-gone")
    assert place.build(gone)[1].failure[0] == "repository-not-found"


def _sleeps() -> list[int]:
    """The processes of this machine that sleep so long."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", SLEEP.encode()]:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGKILL, "time"])
def test_a_build_ends_with_its_helper(place: Place, repository: Repository, ends: Any) -> None:
    """On Docker: Podman 4 lets the step of a build that runs go on to its end when its client has gone."""
    repository.commit(Dockerfile=f"FROM {place.notebook}\nRUN sleep {SLEEP}\n")
    container = place.start("build", json.dumps(task_of(repository, seconds=12 if ends == "time" else 300)))
    try:
        processes.wait_until(lambda: bool(_sleeps()), what="the build step", deadline=120)
        if ends != "time":
            container.kill(ends)
        code = container.wait(timeout=60)["StatusCode"]
        if ends == "time":
            assert report_of(container.logs().decode()).failure[0] == "build-too-long"
        else:
            assert code == 128 + ends
        processes.wait_until(lambda: not _sleeps(), what="the end of the build step", deadline=60)
    finally:
        container.remove(force=True)
    assert place.names() == set()


def test_the_engine_behind_the_socket_is_looked_at(place: Place, repository: Repository) -> None:
    version = repository.commit(README="r")
    source = {"provider": "git", "address": repository.address, "ref": "", "folder": ""}
    info = place.client.info()
    code, said, log = place.run("resolve", {"sources": [source], "engine": {"Name": info["Name"]}})
    assert code == 0, log
    assert said.versions(1) == (version,)
    assert said.free_disk
    _, said, _ = place.run("resolve", {"sources": [source], "engine": {"Name": "another"}})
    assert said.failure[0] == "socket-of-another-engine"


def test_a_helper_without_a_socket_says_so(place: Place) -> None:
    container = place.client.containers.create(
        builder.LOCAL_BUILDER,
        ["python3", helpers.PROGRAM, "resolve", '{"sources": [], "engine": {"ID": "x"}}'],
        network_mode="none",
    )
    try:
        container.put_archive("/", helpers.program_file(PROGRAM, 0))
        container.start()
        assert container.wait(timeout=60)["StatusCode"] == 1
        assert report_of(container.logs().decode()).failure[0] == "socket-unreachable"
    finally:
        container.remove(force=True)


@contextmanager
def _volume(place: Place) -> Iterator[str]:
    volume = place.client.volumes.create()
    try:
        yield volume.name
    finally:
        volume.remove(force=True)


def test_the_notebooks_user_clones_into_its_volume(place: Place, repository: Repository) -> None:
    version = repository.commit(README="r")
    task = {"source": task_of(repository)["source"], "version": version, "folder": helpers.WORK, "name": "r"}
    with _volume(place) as name:
        mount = {name: {"bind": helpers.WORK, "mode": "rw"}}
        place.client.containers.run(
            place.notebook, ["1000:1000", helpers.WORK], entrypoint=["chown"], user="0", volumes=mount, remove=True
        )
        for state in ("new", "current"):
            code, said, log = place.run("clone", task, volumes=mount, user="1000")
            assert code == 0, log
            assert (said.end or {})["state"] == state
        shown = place.client.containers.run(
            place.notebook, ["-c", "%u", f"{helpers.WORK}/r/README"], entrypoint=["stat"], volumes=mount, remove=True
        )
    assert bytes(shown).strip() == b"1000"


def test_files_in_git_lfs_are_fetched(place: Place, site: GitSite, repository: Repository) -> None:
    large = b"a large file"
    repository.commit(Dockerfile=f"FROM {place.notebook}\n")
    version = commit_in_lfs(site, repository, "large.bin", large)
    code, _, log = place.build(repository)
    assert code == 0, log
    assert place.inside("cat /home/jovyan/work/large.bin") == large.decode()
    task = {"source": task_of(repository)["source"], "version": version, "folder": helpers.WORK, "name": "r"}
    with _volume(place) as name:
        mount = {name: {"bind": helpers.WORK, "mode": "rw"}}
        states = [(place.run("clone", task, volumes=mount)[1].end or {}).get("state") for _ in range(2)]
    assert states == ["new", "current"]


# ── repo2docker ──────────────────────────────────────────────────────────────────────────────────────────────────

DETECTS: Final = """
import json, os, sys
sys.path.insert(0, "/opt/homeport")
import helper
found = {}
for kind in sorted(os.listdir("/repositories")):
    os.chdir(f"/repositories/{kind}")
    pack, arguments = helper.choose_pack()
    try:
        text = pack.render(arguments)
    except Exception as error:  # it asks a site for versions
        text = type(error).__name__
    found[kind] = type(pack).__name__, text
print(json.dumps(found))
"""
# What each example is built with, and what has to be in its Dockerfile: nothing where a site would be asked for more.
PACKS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "binder_folder": ("CondaBuildPack", ("binder/environment.yml",)),
    "dockerfile": ("DockerBuildPack", ("FROM scratch",)),
    "dot_binder": ("PythonBuildPack", ("graphviz",)),
    "environment": ("CondaBuildPack", ("environment.yml",)),
    "everything": (
        "PythonBuildPack",
        ("graphviz", "RUN ./postBuild", 'R2D_ENTRYPOINT="${REPO_DIR}/start"', "requirements.txt"),
    ),
    "install_r": ("RBuildPack", ()),
    "nix": ("NixBuildPack", ("nix-shell default.nix",)),
    "nothing": ("PythonBuildPack", (" src/ ${REPO_DIR}/",)),
    "pipfile": ("PipfileBuildPack", ("pipenv install",)),
    "project": ("JuliaProjectTomlBuildPack", ()),
    "pyproject": ("PythonBuildPack", ()),
    "requirements": ("PythonBuildPack", ("requirements.txt",)),
    "setup": ("PythonBuildPack", ("pip install --no-cache-dir .",)),
}


def test_every_kind_of_repository_is_told(place: Place) -> None:
    container = place.client.containers.create(
        builder.LOCAL_BUILDER,
        ["python3", "-c", DETECTS],
        volumes={str(REPOSITORIES): {"bind": "/repositories", "mode": "ro"}},
        network_mode="none",
    )
    try:
        container.put_archive("/", helpers.program_file(PROGRAM, 0))
        container.start()
        container.wait(timeout=300)
        found = json.loads(container.logs(stderr=False))
    finally:
        container.remove(force=True)
    assert {kind: pack for kind, (pack, _) in found.items()} == {kind: pack for kind, (pack, _) in PACKS.items()}
    for kind, (pack, wanted) in PACKS.items():
        text = found[kind][1]
        assert all(each in text for each in wanted), (kind, text)
        if wanted and pack != "DockerBuildPack":
            assert "\nFROM docker.io/library/buildpack-deps:24.04\n" in text


PACK: Final = """
import io, sys, tarfile
sys.path.insert(0, "/opt/homeport")
import helper
from pathlib import Path
context = io.BytesIO()
with tarfile.open(fileobj=context, mode="w") as tar:
    for name, content in (
        ("Dockerfile", b"FROM @IMAGE@\\nUSER root\\nCOPY --chmod=0755 /hello /usr/local/bin/hello\\nRUN hello\\n"),
        ("hello", b"#!/bin/sh\\necho said hello\\n"),
        ("src/a.txt", b"a"),
    ):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
context.seek(0)
builder = helper.choose_builder(helper.Engine(), Path("/tmp/home"), None)
print("classic" if builder.is_classic else "BuildKit")
for _ in builder.build(fileobj=context, tag="@NAME@", buildargs={}, custom_context=True, platform="linux/amd64"):
    pass
"""


def test_what_a_build_pack_makes_is_built_with_what_the_engine_has(place: Place) -> None:
    code = PACK.replace("@IMAGE@", place.notebook).replace("@NAME@", IMAGE)
    container = place.client.containers.create(
        builder.LOCAL_BUILDER,
        ["python3", "-c", code],
        volumes={str(place.engine.socket): {"bind": helpers.SOCKET, "mode": "rw"}},
        network_mode="none",
    )
    try:
        container.put_archive("/", helpers.program_file(PROGRAM, 0))
        container.start()
        status = container.wait(timeout=300)["StatusCode"]
        log = container.logs().decode()
    finally:
        container.remove(force=True)
    assert status == 0, log
    assert "said hello" in log
    assert ("classic" in log.splitlines()) == (place.kind == "podman")
    assert IMAGE in place.names()


# A base image such as repo2docker's, as far as that can be had without a network.
BASE: Final = """
FROM {image}
USER root
RUN rm -r /home/jovyan/work && for name in apt-get locale-gen; do printf '#!/bin/sh\\n' > /usr/local/bin/$name; \\
    chmod 755 /usr/local/bin/$name; done
ENV PATH=/usr/sbin:/usr/local/bin:/opt/jupyter/bin:/usr/bin:/bin
"""
BASE_IMAGE: Final = "localhost/homeport-test-base:1"
BASE_PACK: Final = """
import os, sys
sys.path.insert(0, "/opt/homeport")
import helper
from pathlib import Path
from repo2docker.buildpacks.base import BaseImage
engine, place = helper.Engine(), Path("/tmp/place")
builder = helper.choose_builder(engine, place, None)
_, arguments = helper.choose_pack()
os.chdir("/repository")
pack = BaseImage(base_image="@BASE@")
for _ in pack.build(builder, "@UNNAMED@", 0, arguments, [], {}, platform="linux/amd64"):
    pass
helper._label(builder, engine, "@UNNAMED@", "@NAME@", {"homeport.hub": "a-hub"}, None, place)
engine.remove("@UNNAMED@")
"""


def test_what_repo2docker_makes_of_a_repository_has_its_files_at_the_work_folder(place: Place, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "Dockerfile").write_text(BASE.format(image=place.notebook))
    place.client.images.build(path=str(tmp_path / "base"), tag=BASE_IMAGE, rm=True)
    code = BASE_PACK.replace("@BASE@", BASE_IMAGE).replace("@UNNAMED@", f"{helper.BUILDING}:1").replace("@NAME@", IMAGE)
    volumes = {
        str(place.engine.socket): {"bind": helpers.SOCKET, "mode": "rw"},
        str(REPOSITORIES / "everything"): {"bind": "/repository", "mode": "ro"},
    }
    container = place.client.containers.create(
        builder.LOCAL_BUILDER, ["python3", "-c", code], volumes=volumes, network_mode="none"
    )
    try:
        container.put_archive("/", helpers.program_file(PROGRAM, 0))
        container.start()
        status = container.wait(timeout=300)["StatusCode"]
        log = container.logs().decode()
    finally:
        container.remove(force=True)
        place.client.images.remove(BASE_IMAGE, force=True, noprune=True)
    assert status == 0, log
    built = place.client.images.get(IMAGE)
    assert built.labels["homeport.hub"] == "a-hub"
    assert built.attrs["Config"]["User"] == "jovyan"
    assert built.attrs["Config"]["WorkingDir"] == helper.DEFAULT_WORKDIR
    printed = place.inside("pwd; id -u; ls -A; stat -c %U:%G . apt.txt built").splitlines()
    assert [line for line in printed if "setlocale" not in line] == [  # the base has no such locale
        "/home/jovyan/work", "1000", "apt.txt", "built", "postBuild", "requirements.txt", "runtime.txt", "start",
        *3 * ["jovyan:jovyan"],
    ]  # fmt: skip
    started = place.client.containers.run(IMAGE, ["echo", "it starts"], remove=True, network_mode="none")
    assert b"it starts" in started  # by way of repo2docker's entrypoint


def test_the_builder_image_has_what_a_helper_needs_and_no_engine(place: Place) -> None:
    script = "git --version; git lfs version; docker --version; python3 -c 'import repo2docker'; which dockerd runc"
    container = place.client.containers.create(
        builder.LOCAL_BUILDER, ["sh", "-c", f"{script}; true"], network_mode="none"
    )
    try:
        container.start()
        container.wait(timeout=60)
        lines = container.logs().decode().splitlines()
    finally:
        container.remove(force=True)
    assert [line.split()[0] for line in lines] == ["git", lines[1].split()[0], "Docker"]
    assert lines[1].startswith("git-lfs/")
