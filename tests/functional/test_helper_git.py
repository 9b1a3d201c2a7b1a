"""The helpers' program on real Git repositories, served on loopback: what it resolves, fetches and clones.

It runs as it does in a container: one file in a folder of its own, with one JSON argument.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chalicelib import helper
from chalicelib.repository.answers import report_of
from tests.git_rig import GitSite, Repository, git, git_site

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs `apt-get install git`")

NOBODY = 65_123  # a user without an entry in passwd


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GitSite]:
    with git_site(tmp_path / "site") as served:
        yield served


@pytest.fixture
def repository(site: GitSite) -> Repository:
    """A repository with two commits, a tag at the first one, and a branch beside the default one."""
    made = site.repository("o/r")
    made.commit(README_dot_md="one")
    git(made.folder, "tag", "--annotate", "--message", "The first", "v1")
    git(made.folder, "tag", "plain")
    made.commit(README_dot_md="two", data__a_dot_csv="1,2\n")
    git(made.folder, "branch", "feature/x")
    return made


@dataclass(frozen=True, slots=True)
class Ended:
    """How the program ended: its exit code, its last answer, and all that it printed."""

    code: int
    answer: Mapping[str, Any]
    log: str

    @property
    def failure(self) -> tuple[int, str]:
        return self.code, str(self.answer.get("code"))


def run(command: str, task: Mapping[str, Any], tmp_path: Path, **environ: str) -> Ended:
    program = tmp_path / "helper.py"
    if not program.exists():
        shutil.copy(str(helper.__file__), program)
    done = subprocess.run(
        [sys.executable, str(program), command, json.dumps(task)],
        env={"PATH": os.environ["PATH"], **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        cwd="/",
    )
    end = report_of(done.stdout).end
    assert end is not None, done.stdout
    assert all(len(line) <= 2000 for line in done.stdout.splitlines())
    return Ended(done.returncode, end, done.stdout)


def source(address: str, ref: str = "", provider: str = "git", folder: str = "") -> dict[str, str]:
    return {"provider": provider, "address": address, "ref": ref, "folder": folder}


def resolve(tmp_path: Path, *sources: Mapping[str, str]) -> Ended:
    return run("resolve", {"sources": sources, "engine": None}, tmp_path)


# ── resolve ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_branch_a_tag_and_a_commit_are_resolved_to_the_whole_commit(repository: Repository, tmp_path: Path) -> None:
    first, second = git(repository.folder, "rev-parse", "HEAD~"), repository.head()
    expected = {
        "": second,
        "HEAD": second,
        "main": second,
        "feature/x": second,
        "refs/heads/main": second,
        "heads/main": second,
        "v1": first,  # the commit, and not the tag's own object
        "plain": first,
        first: first,
        second[:8]: second,
    }
    ended = resolve(tmp_path, *(source(repository.address, ref) for ref in expected))
    assert ended.code == 0
    assert ended.answer["versions"] == list(expected.values())
    assert ended.answer["addresses"] == [repository.address] * len(expected)
    disk = os.statvfs("/")
    assert 0 < ended.answer["disk"] <= disk.f_blocks * disk.f_frsize


def test_a_branch_goes_before_a_tag_of_the_same_name(repository: Repository, tmp_path: Path) -> None:
    git(repository.folder, "tag", "main", "HEAD~")
    assert resolve(tmp_path, source(repository.address, "main")).answer["versions"] == [repository.head()]


def test_a_repository_that_has_moved_is_followed_and_its_address_told(
    site: GitSite, repository: Repository, tmp_path: Path
) -> None:
    ended = resolve(tmp_path, source(f"{site.address}/moved/o/r", "main"))
    assert ended.answer["versions"] == [repository.head()]
    assert ended.answer["addresses"] == [repository.address]


def test_where_the_repository_of_a_commit_is_by_now_is_asked_only_if_it_is_wanted(
    site: GitSite, repository: Repository, tmp_path: Path
) -> None:
    moved = source(f"{site.address}/moved/o/r", repository.head())
    for where, address in ((False, moved["address"]), (True, repository.address)):
        ended = run("resolve", {"sources": [moved], "engine": None, "where": where}, tmp_path)
        assert (ended.answer["versions"], ended.answer["addresses"]) == ([repository.head()], [address])


@pytest.mark.parametrize(
    ("path", "ref", "code"),
    [
        ("o/r", "no-such-branch", "version-not-found"),
        ("o/r", "mai", "version-not-found"),
        ("o/r", "0123456", "version-not-found"),
        ("o/r", "--upload-pack=touch ran", "version-not-found"),
        ("o/r", "main*", "version-not-found"),
        ("o/r", "a..b", "version-not-found"),
        ("o/missing", "main", "repository-not-found"),
        ("private/o/r", "main", "repository-not-found"),
        ("limited/o/r", "main", "provider-rate-limited"),
        ("broken/o/r", "main", "provider-unreachable"),
    ],
)
def test_what_cannot_be_resolved_has_a_code(
    site: GitSite, repository: Repository, tmp_path: Path, path: str, ref: str, code: str
) -> None:
    ended = resolve(tmp_path, source(f"{site.address}/{path}", ref))
    assert ended.failure == (1, code), ended.log
    assert ended.answer["detail"].isprintable()


def test_an_empty_repository_has_no_version(site: GitSite, tmp_path: Path) -> None:
    assert resolve(tmp_path, source(site.repository("empty").address)).failure == (1, "version-not-found")


@pytest.mark.parametrize("address", ["ext::sh -c touch% ran", "file:///etc", "/etc", "git@host:o/r", "-c"])
def test_git_speaks_http_alone(tmp_path: Path, address: str) -> None:
    assert resolve(tmp_path, source(address, "main")).failure == (1, "repository-not-found")


def test_a_site_that_is_not_there_is_unreachable(site: GitSite, tmp_path: Path) -> None:
    port = 1  # nothing listens there
    assert resolve(tmp_path, source(f"http://127.0.0.1:{port}/o/r")).failure == (1, "provider-unreachable")


def test_no_setting_of_the_image_reaches_git(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text('[url "http://127.0.0.1:1/"]\n  insteadOf = http://127.0.0.1:\n')
    task = {"sources": [source(repository.address)], "engine": None}
    ended = run("resolve", task, tmp_path, HOME=str(tmp_path / "home"), GIT_CONFIG_PARAMETERS="'nonsense", GIT_DIR="/x")
    assert ended.answer["versions"] == [repository.head()]


# ── clone ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


def clone(tmp_path: Path, repository: Repository, version: str, ref: str = "main", **changed: object) -> Ended:
    task = {
        "source": source(repository.address, ref),
        "version": version,
        "folder": str(tmp_path / "volume"),
        "name": "r",
    }
    return run("clone", task | changed, tmp_path)


def states(ended: Ended) -> str:
    assert ended.code == 0, ended.log
    return str(ended.answer["state"])


def contents(folder: Path) -> dict[str, str]:
    """Every file, link and folder of a folder and what it holds, and nothing that Git only keeps for itself."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if ".git" not in path.relative_to(folder).parts:
            name = str(path.relative_to(folder))
            found[name] = (
                os.readlink(path) if path.is_symlink() else path.read_text("latin-1") if path.is_file() else "/"
            )
    return found


def test_a_clone_is_new_then_current_then_updated(repository: Repository, volume: Path, tmp_path: Path) -> None:
    assert states(clone(tmp_path, repository, repository.head())) == "new"
    assert contents(volume / "r") == {"README.md": "two", "data": "/", "data/a.csv": "1,2\n"}
    assert git(volume / "r", "status", "--porcelain", "--branch") == "## main...origin/main"
    assert states(clone(tmp_path, repository, repository.head())) == "current"
    version = repository.commit(README_dot_md="three", more_dot_txt="more")
    (volume / "r" / "mine.txt").write_text("mine")
    assert states(clone(tmp_path, repository, version)) == "updated"
    assert contents(volume / "r") == {
        "README.md": "three", "data": "/", "data/a.csv": "1,2\n", "mine.txt": "mine", "more.txt": "more"
    }  # fmt: skip
    assert git(volume / "r", "rev-parse", "HEAD") == version
    assert [path.name for path in volume.iterdir()] == ["r"]


@pytest.mark.parametrize("ref", ["v1", "", "feature/x"])
def test_tags_and_other_branches_are_cloned_too(repository: Repository, volume: Path, tmp_path: Path, ref: str) -> None:
    version = git(repository.folder, "rev-parse", f"{ref or 'HEAD'}^{{commit}}")
    assert states(clone(tmp_path, repository, version, ref)) == "new"
    assert git(volume / "r", "rev-parse", "HEAD") == version
    branch = git(volume / "r", "branch", "--show-current")
    assert branch == {"v1": "", "": "main"}.get(ref, ref)


def test_a_commit_that_no_branch_has_is_fetched_by_its_name(
    repository: Repository, volume: Path, tmp_path: Path
) -> None:
    git(repository.folder, "checkout", "--quiet", "--detach")
    version = repository.commit(README_dot_md="of a pull request")
    git(repository.folder, "update-ref", "refs/pull/1/head", version)
    git(repository.folder, "checkout", "--quiet", "main")
    assert states(clone(tmp_path, repository, version, "refs/pull/1/head")) == "new"
    assert contents(volume / "r")["README.md"] == "of a pull request"


def _modify(folder: Path) -> None:
    (folder / "README.md").write_text("changed")


def _delete(folder: Path) -> None:
    (folder / "README.md").unlink()


def _stage(folder: Path) -> None:
    (folder / "staged.txt").write_text("staged")
    git(folder, "add", "staged.txt")


def _commit(folder: Path) -> None:
    Repository(folder, "").commit(local_dot_txt="local")


def _be_in_the_way(folder: Path) -> None:
    (folder / "more.txt").write_text("mine")


def _replace_by_files(folder: Path) -> None:
    shutil.rmtree(folder / ".git")


def _have_a_program_run(folder: Path) -> None:
    git(folder, "config", "core.fsmonitor", f"touch {folder.parent / 'ran'}")


def _have_a_filter_run(folder: Path) -> None:
    git(folder, "config", "filter.x.smudge", f"touch {folder.parent / 'ran'}; cat")
    git(folder, "config", "filter.x.clean", f"touch {folder.parent / 'ran'}; cat")
    (folder / ".git" / "info" / "attributes").write_text("* filter=x\n")


def _include_settings(folder: Path) -> None:
    (folder.parent / "settings").write_text(f"[core]\nfsmonitor = touch {folder.parent / 'ran'}\n")
    git(folder, "config", "include.path", str(folder.parent / "settings"))


def _have_another_origin(folder: Path) -> None:
    git(folder, "remote", "set-url", "origin", "http://127.0.0.1:1/other")


def _work_elsewhere(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    git(folder, "config", "core.worktree", str(folder.parent / "elsewhere"))


def _link_objects(folder: Path) -> None:
    shutil.move(folder / ".git" / "objects", folder.parent / "objects")
    (folder / ".git" / "objects").symlink_to("../../objects")


def _link_git(folder: Path) -> None:
    shutil.move(folder / ".git", folder.parent / "repository")
    (folder / ".git").symlink_to("../repository")


def _point_to_git(folder: Path) -> None:
    shutil.move(folder / ".git", folder.parent / "repository")
    (folder / ".git").write_text("gitdir: ../repository\n")


def _be_a_link(folder: Path) -> None:
    folder.rename(folder.parent / "real")
    folder.symlink_to("real")


def _be_nowhere(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def _be_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def _break(folder: Path) -> None:
    (folder / ".git" / "HEAD").unlink()


@pytest.mark.parametrize(
    "change",
    [
        _modify, _delete, _stage, _commit, _be_in_the_way, _replace_by_files, _have_a_program_run, _have_a_filter_run,
        _include_settings, _have_another_origin, _work_elsewhere, _link_objects, _link_git, _point_to_git, _be_a_link,
        _be_nowhere, _be_a_file, _break,
    ],
    ids=lambda change: change.__name__.strip("_"),
)  # fmt: skip
def test_whatever_somebody_changed_is_left_exactly_as_it_is(
    repository: Repository, volume: Path, tmp_path: Path, change: Any
) -> None:
    clone(tmp_path, repository, repository.head())
    change(volume / "r")
    before = contents(volume), _branches(volume / "r")
    version = repository.commit(README_dot_md="three", more_dot_txt="more")
    assert states(clone(tmp_path, repository, version)) == "kept"
    assert (contents(volume), _branches(volume / "r")) == before
    assert not (volume / "ran").exists()


def _branches(folder: Path) -> str:
    return "".join(path.read_text() for path in (folder / ".git" / "refs" / "heads").rglob("*") if path.is_file())


def test_no_hook_of_a_clone_runs(repository: Repository, volume: Path, tmp_path: Path) -> None:
    clone(tmp_path, repository, repository.head())
    for name in ("post-merge", "post-checkout", "reference-transaction", "post-index-change"):
        hook = volume / "r" / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {volume / 'ran'}\n")
        hook.chmod(0o755)
    assert states(clone(tmp_path, repository, repository.commit(README_dot_md="three"))) == "updated"
    assert not (volume / "ran").exists()


def test_a_link_in_a_clone_leads_no_file_out_of_it(repository: Repository, volume: Path, tmp_path: Path) -> None:
    clone(tmp_path, repository, repository.head())
    (tmp_path / "outside").mkdir()
    shutil.rmtree(volume / "r" / "data")
    (volume / "r" / "data").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "a.csv").write_text("1,2\n")
    version = repository.commit(data__a_dot_csv="3,4\n")
    assert states(clone(tmp_path, repository, version)) == "kept"
    assert (tmp_path / "outside" / "a.csv").read_text() == "1,2\n"


def test_what_a_killed_clone_left_is_removed_and_links_of_that_name_are_not_followed(
    repository: Repository, volume: Path, tmp_path: Path
) -> None:
    (volume / ".r.part-old" / "files").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("stays")
    (volume / ".r.part-link").symlink_to(tmp_path / "outside")
    (volume / ".r.part-file").write_text("")
    assert states(clone(tmp_path, repository, repository.head())) == "new"
    assert [path.name for path in volume.iterdir()] == ["r"]
    assert (tmp_path / "outside" / "file").read_text() == "stays"


def test_a_clone_that_fails_leaves_nothing(repository: Repository, volume: Path, tmp_path: Path) -> None:
    ended = clone(tmp_path, repository, "f" * 40)
    assert ended.failure == (1, "version-not-found"), ended.log
    assert list(volume.iterdir()) == []


@pytest.mark.parametrize("name", ["../r", ".git", "a/b", "", "-x", ".", ".."])
def test_a_clone_goes_into_a_folder_of_the_volume_alone(
    repository: Repository, volume: Path, tmp_path: Path, name: str
) -> None:
    assert clone(tmp_path, repository, repository.head(), name=name).failure == (1, "fetch-failed")
    assert list(volume.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_user_without_a_name_or_a_home_can_clone(repository: Repository, tmp_path: Path) -> None:
    program, volume = Path("/tmp") / f"homeport-helper-{os.getpid()}", tmp_path / "volume"
    program.mkdir(mode=0o755)
    try:
        shutil.copy(str(helper.__file__), program / "helper.py")
        (program / "work").mkdir()
        os.chown(program / "work", NOBODY, NOBODY)
        task = {"source": source(repository.address, "main"), "version": repository.head(),
                "folder": str(program / "work"), "name": "r"}  # fmt: skip
        for expected in ("new", "current"):
            done = subprocess.run(
                ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/env", "python3",
                 str(program / "helper.py"), "clone", json.dumps(task)],
                env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}, cwd="/", capture_output=True, text=True,
            )  # fmt: skip
            assert (
                report_of(done.stdout).cloned
                == report_of(f'homeport {{"answer": "cloned", "state": "{expected}"}}').cloned
            )
        assert (program / "work" / "r" / "README.md").stat().st_uid == NOBODY
    finally:
        shutil.rmtree(program)
    assert not volume.exists()


# ── what repositories bring ──────────────────────────────────────────────────────────────────────────────────────


def test_submodules_are_fetched_and_such_a_clone_is_not_updated(
    site: GitSite, repository: Repository, volume: Path, tmp_path: Path
) -> None:
    part = site.repository("o/part")
    part.commit(part_dot_txt="part")
    git(repository.folder, "submodule", "--quiet", "add", part.address, "sub")
    version = repository.commit()
    assert states(clone(tmp_path, repository, version)) == "new"
    assert contents(volume / "r")["sub/part.txt"] == "part"
    assert states(clone(tmp_path, repository, version)) == "current"
    assert states(clone(tmp_path, repository, repository.commit(README_dot_md="x"))) == "kept"


@pytest.mark.parametrize(
    "address",
    [
        "ext::sh -c 'touch ran'",
        "file:///etc",
        "ssh://127.0.0.1/x",
        "git@127.0.0.1:x",
        "-u./ran",
        "/etc",
        "--upload-pack=touch ran",
    ],
)
def test_a_submodule_is_fetched_by_http_alone(
    repository: Repository, volume: Path, tmp_path: Path, address: str
) -> None:
    version = repository.head()
    (repository.folder / ".gitmodules").write_text(f'[submodule "sub"]\n  path = sub\n  url = {json.dumps(address)}\n')
    git(repository.folder, "add", ".gitmodules")
    git(repository.folder, "update-index", "--add", "--cacheinfo", f"160000,{version},sub")
    git(repository.folder, "commit", "--quiet", "--message", "A submodule")
    ended = clone(tmp_path, repository, repository.head())
    assert ended.failure == (1, "fetch-failed"), ended.log
    assert "submodule" in ended.answer["detail"]
    assert list(volume.iterdir()) == []


@pytest.mark.parametrize("name", ["../../x", "sub/../../../x"])
def test_the_name_of_a_submodule_leads_nowhere(repository: Repository, volume: Path, tmp_path: Path, name: str) -> None:
    version = repository.head()
    (repository.folder / ".gitmodules").write_text(
        f'[submodule "{name}"]\n  path = sub\n  url = {repository.address}\n'
    )
    git(repository.folder, "add", ".gitmodules")
    git(repository.folder, "update-index", "--add", "--cacheinfo", f"160000,{version},sub")
    git(repository.folder, "commit", "--quiet", "--message", "A submodule")
    clone(tmp_path, repository, repository.head())
    assert {path.name for path in tmp_path.iterdir()} <= {"site", "volume", "helper.py"}
    assert {path.name for path in volume.iterdir()} <= {"r"}


def test_a_pointer_of_git_lfs_stays_where_it_cannot_be_fetched(
    repository: Repository, volume: Path, tmp_path: Path
) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n"
    version = repository.commit(_dot_gitattributes="*.bin filter=lfs diff=lfs merge=lfs -text\n", big_dot_bin=pointer)
    ended = clone(tmp_path, repository, version)
    assert states(ended) == "new"
    assert "stay pointers" in ended.log
    assert (volume / "r" / "big.bin").read_text() == pointer


def test_what_a_repository_prints_is_no_answer(repository: Repository, volume: Path, tmp_path: Path) -> None:
    hostile = 'homeport {"answer": "cloned", "state": "kept"}'
    git(repository.folder, "checkout", "--quiet", "-b", "homeport")
    task = {"sources": [source(repository.address, f"x{hostile}")], "engine": None}
    assert run("resolve", task, tmp_path).failure == (1, "version-not-found")


def test_an_unknown_task_is_a_failure(tmp_path: Path) -> None:
    assert run("dance", {}, tmp_path).failure == (1, "task-unknown")
    assert run("resolve", {}, tmp_path).failure == (1, "task-broken")
