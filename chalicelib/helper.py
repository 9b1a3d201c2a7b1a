"""The program of the helpers: it resolves, builds and clones repositories, in a container on the visitor's endpoint.

No part of the hub, which only reads this file and puts it into containers of the builder image (docs/adr/0020). It runs
as `python3 /opt/homeport/helper.py <resolve | build | clone> <JSON>` and needs Python 3.10 or later and Git; to build,
also repo2docker 2025.8 or later and the docker command, best with its plugin buildx; for large files git-lfs. It does
not need a shell, so the image may be Debian's or Alpine's.

Rules

1. What it prints is read by the hub, and by whoever has the endpoint: ordinary lines are the log, a line that begins
   with MARK is an answer, the last of which says how it ended. It prints nothing secret, because it is given nothing
   secret. What others print, a repository's build for one, can never look like an answer.
2. Names, versions, folders and addresses are data. They are checked, come after `--` or where no option can be, and go
   through no shell. Git speaks HTTP alone, asks nobody for a password, runs no hook, and has no settings but ours.
3. A repository's code runs in build steps only, which are the engine's own containers. This program reads its files and
   never runs them, and refuses a build file that is a link to somewhere else.
4. An image gets its labels and its name last, both at once. Until then it is called BUILDING, which is removed at the
   end; if this program is killed before, the next build of that version replaces it.
5. SIGTERM, or the end of its time, ends what it has started. A build whose client is gone is ended by the engine; but
   Podman 4 lets the one step that is running go on to its end.
6. It writes into a notebook's volume only below the one folder that it was told, and follows no link there. Files that
   somebody changed are left alone, and so is a clone whose settings are not those that this program makes.
"""

from __future__ import annotations

import calendar
import errno
import http.client
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, NoReturn
from urllib.parse import parse_qs, quote, urlencode, urlsplit

MARK: Final = "homeport "
SOCKET: Final = "/var/run/docker.sock"
LINE_LENGTH: Final = 500  # characters of a line of the log
DETAIL_LENGTH: Final = 300  # characters of a failure's detail
VERSION_LENGTH: Final = 200  # characters of a version
ADDRESS_LENGTH: Final = 500  # characters of an address that is told
MOST_BYTES: Final = 2_500_000  # of a build's log that are printed; of later lines
EVERY: Final = 1_000  # only one of so many is
LAST_LINES: Final = 60  # of a program's output, where the reason of its failure is looked for

ENGINE_SECONDS: Final = 5  # an engine on the other side of a Unix socket
IMAGE_SECONDS: Final = 300  # the same while it tags or removes an image
PERCENT_SECONDS: Final = 2  # between two lines of Git's that say how far it is
SITE_SECONDS: Final = 30  # a site may be silent
RESOLVE_SECONDS: Final = 120  # for one source
CLONE_SECONDS: Final = 3600
BAG_SECONDS: Final = 300  # HydroShare takes to prepare a download
BAG_PAUSE: Final = 10  # seconds between two questions whether it has
MOST_REFS: Final = 100_000  # of a repository, where the beginning of a commit is looked for
MOST_JSON: Final = 16 << 20  # bytes of an answer of a site's API
CHUNK: Final = 1 << 20  # bytes

USER: Final = ("jovyan", 1000)
HOMEPORT: Final = "/opt/homeport"  # as chalicelib/notebook/container.py has them; a test compares what follows
DATA: Final = "/data"
WORK: Final = "work"
DEFAULT_WORKDIR: Final = f"/home/jovyan/{WORK}"
BUILDING: Final = "localhost/homeport-building"
BUILDKIT_API: Final = (1, 39)  # from which on an engine of Docker's has BuildKit

_children: Final[set[subprocess.Popen[bytes]]] = set()  # that run now


class Failed(Exception):
    """It cannot be done: a code that the hub knows, and a short line that says why."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


# ── what is printed ──────────────────────────────────────────────────────────────────────────────────────────────

_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_PERCENT: Final = re.compile(r":\s+([0-9]{1,3})% \(")
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]*@")


def clean(text: str, length: int = LINE_LENGTH) -> str:
    """Make one printable line of it: without escape sequences, and without a password in an address."""
    plain = _CREDENTIALS.sub("", _ESCAPES.sub("", text[: 8 * length]))
    line = "".join(character if character.isprintable() else " " for character in plain).strip()
    return line if len(line) <= length else f"{line[: length - 1]}…"


def say(text: str) -> None:
    """Print a line of the log, which never looks like an answer."""
    line = clean(text)
    if line:
        print(f"> {line}" if line.startswith(MARK.strip()) else line, flush=True)


def answer(**fields: object) -> None:
    """Print an answer."""
    print(MARK + json.dumps(fields, ensure_ascii=False), flush=True)


class Percentages:
    """Says lines, but of those that say how far something is only the last, and one now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at = clock()

    def __call__(self, line: str) -> None:
        """Say the line, if it is one that is to be said."""
        percent = _PERCENT.search(line)
        if percent is None or percent[1] == "100" or self._clock() >= self._said_at + PERCENT_SECONDS:
            self._said_at = self._clock()
            say(line)


class Log(logging.Handler):
    """What libraries log, as lines of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines():
            say(line)


def fail(failure: Failed) -> int:
    """Print the answer of a failure, and give the exit code."""
    answer(answer="failed", code=failure.code, detail=clean(failure.detail, DETAIL_LENGTH))
    return 1


# ── programs, and the time they have ─────────────────────────────────────────────────────────────────────────────


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    given: IO[bytes] | None = None,
    see: Callable[[str], None] = say,
) -> tuple[int, list[str]]:
    """Run a program and `see` each line that it prints; give its exit code and its last lines."""
    last: list[str] = []
    process = subprocess.Popen(
        command,
        stdin=given or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=dict(environment),
        start_new_session=True,
    )
    _children.add(process)
    try:
        assert process.stdout is not None
        for line in _lines(process.stdout):
            see(line)
            last = [*last[1 - LAST_LINES :], clean(line)]
        return process.wait(), last
    finally:
        _kill(process)
        _children.discard(process)


def _lines(output: IO[bytes]) -> Iterator[str]:
    """Give its lines as they come, one that is written over another too; of a line that is too long, the beginning."""
    rest = b""
    while chunk := output.read1(CHUNK):  # type: ignore[attr-defined]  # what Popen gives has it
        *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
        yield from (line[: 8 * LINE_LENGTH].decode("utf-8", "replace") for line in whole if line.strip())
        rest = rest[: 8 * LINE_LENGTH]
    if rest.strip():
        yield rest.decode("utf-8", "replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    process.wait()


def stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the children and this program at once: what a signal does."""
    for process in list(_children):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    os._exit(128 + signal.SIGTERM)


@contextmanager
def deadline(seconds: float, failure: Failed) -> Iterator[None]:
    """Raise `failure` in what the block does when its time is over."""

    def over(_number: int, _frame: FrameType | None) -> NoReturn:
        raise failure

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_KEPT_VARIABLES: Final = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "TMPDIR")
_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def basic_environment(home: Path) -> dict[str, str]:
    """Name the variables of what this program runs: none of the image's settings but where proxies and CAs are."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.lower() in _PROXY_VARIABLES}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "LC_ALL": "C.UTF-8"}


# ── the sources ──────────────────────────────────────────────────────────────────────────────────────────────────

GIT_KINDS: Final = ("gh", "gl", "gist", "git")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_SHORT_COMMIT: Final = re.compile(r"[0-9a-f]{7,39}", re.ASCII)
_REF: Final = re.compile(r"(?![-/.])(?!.*(?:\.\.|//|@\{|/\.))[^\x00-\x20\x7f~^:?*\[\\]{1,250}(?<![/.])")


@dataclass(frozen=True)
class Source:
    """A repository as the hub names it (chalicelib/repository/source.py)."""

    provider: str
    address: str
    ref: str = ""
    folder: str = ""

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Source:
        """Read it, and refuse what no hub would send."""
        source = cls(*(str(value.get(name) or "") for name in ("provider", "address", "ref", "folder")))
        if source.is_git and not source.address.startswith(("https://", "http://")):
            raise Failed("repository-not-found", "Only https and http addresses are supported")
        if source.ref and not _REF.fullmatch(source.ref):
            raise Failed("version-not-found", "That is no name of a branch, a tag or a commit")
        if any(part in ("", ".", "..") for part in source.folder.split("/")) and source.folder:
            raise Failed("fetch-failed", "The folder has to be in the repository")
        return source

    @property
    def is_git(self) -> bool:
        return self.provider in GIT_KINDS

    @property
    def git_address(self) -> str:
        """Where Git finds it: the hub's address of a Gist is the page that people read."""
        return f"{_bare(self.address)}.git" if self.provider == "gist" else self.address


@dataclass(frozen=True)
class Resolved:
    """The version that a source is at, and where the source is now."""

    version: str
    address: str


# ── Git ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_CONFIG: Final = """\
[core]
    hooksPath = /dev/null
    fsmonitor = false
    askPass =
[credential]
    helper =
[safe]
    directory = *
[http]
    lowSpeedLimit = 1
    lowSpeedTime = 300
[advice]
    detachedHead = false
[gc]
    auto = 0
[maintenance]
    auto = false
"""
_LFS_CONFIG: Final = """\
[filter "lfs"]
    clean = git-lfs clean -- %f
    smudge = git-lfs smudge -- %f
    process = git-lfs filter-process
"""
# Above a repository's own settings, which are above those of _CONFIG.
_OVERRIDES: Final = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "credential.helper=", "core.askPass=")
_REDIRECTION: Final = re.compile(r"warning: redirecting to (https?://\S+)")
_ADDRESS: Final = re.compile(r"https?://[^\s']+")  # may have any word in it
_GIT_FAILURES: Final = (
    ("provider-rate-limited", r"returned error: 429|rate limit|too many requests"),
    ("no-space", r"no space left on device|disk quota exceeded"),
    (
        "provider-unreachable",
        r"could not resolve host|couldn't connect|failed to connect|connection (?:refused|timed out|reset)|timed out"
        r"|ssl|certificate|returned error: 5\d\d|empty reply|early eof|rpc failed|too slow|network is unreachable"
        r"|could not resolve proxy|the remote end hung up",
    ),
    ("version-not-found", r"couldn't find remote ref|not our ref|unadvertised object|no such remote ref"),
    (
        "repository-not-found",
        r"not found|could not read username|authentication failed|returned error: 40[1346]|access denied"
        r"|does not appear to be a git repository|is this a git repository|transport '.*' not allowed"
        r"|unable to find remote helper|protocol '.*' is not supported|not supported",
    ),
)


class Git:
    """Git with no settings but ours, in a home folder of its own."""

    def __init__(self, home: Path, ceiling: Path | None = None) -> None:
        """`ceiling` is the folder in which, and above which, no repository is looked for."""
        home.mkdir(parents=True, exist_ok=True)
        self.has_lfs = shutil.which("git-lfs") is not None
        (home / ".gitconfig").write_text(_CONFIG + (_LFS_CONFIG if self.has_lfs else ""))
        self._environment = basic_environment(home) | {
            "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "https:http",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_SSH_COMMAND": "false",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_CEILING_DIRECTORIES": str(ceiling or home),
        }

    def run(
        self, *arguments: str, folder: Path | None = None, see: Callable[[str], None] = say, lfs: bool = False
    ) -> tuple[int, list[str]]:
        """Run Git; give its exit code and its last lines."""
        options = [option for override in _OVERRIDES for option in ("-c", override)]
        environment = self._environment | ({"GIT_LFS_SKIP_SMUDGE": "0"} if lfs else {})
        return run(["git", *options, *arguments], environment=environment, folder=folder, see=see)

    def must(self, *arguments: str, folder: Path | None = None) -> list[str]:
        """Run Git; give its last lines, or raise what its failure means."""
        code, lines = self.run(*arguments, folder=folder, see=Percentages())
        if code != 0:
            raise git_failure(lines)
        return lines

    def ask(self, *arguments: str, folder: Path) -> list[str] | None:
        """Run Git in silence; give its last lines, or None if it fails."""
        code, lines = self.run(*arguments, folder=folder, see=_ignore)
        return lines if code == 0 else None

    def refs(self, address: str, *patterns: str) -> tuple[dict[str, str], str]:
        """Ask a repository for its refs (HEAD is one) that end with a pattern; give also its address by now."""
        found: dict[str, str] = {}
        where = [address]

        def see(line: str) -> None:
            ref = re.fullmatch(r"([0-9a-f]{40,64})\t(\S{1,300})", line.strip())
            if ref is not None:
                if len(found) < MOST_REFS:
                    found[ref[2]] = ref[1]
                return
            moved = _REDIRECTION.search(line)
            if moved is not None:
                where[0] = moved[1]
            say(line)

        code, lines = self.run("ls-remote", "--", address, *patterns, see=see)
        if code != 0:
            raise git_failure(lines)
        return found, where[0]


def _ignore(_line: str) -> None:
    pass


def _bare(address: str) -> str:
    return address.rstrip("/").removesuffix(".git")


def git_failure(lines: Sequence[str], otherwise: str = "fetch-failed") -> Failed:
    """Make a failure of what Git said last."""
    said = [line for line in lines if re.match(r"(?:fatal|error|remote|ERROR):", line)] or list(lines[-1:])
    for code, pattern in _GIT_FAILURES:
        telling = [line for line in lines if re.search(pattern, _ADDRESS.sub("", line), re.IGNORECASE)]
        if telling:
            return Failed(code, telling[-1])
    return Failed(otherwise, said[-1] if said else "")


def resolve_git(git: Git, web: Web, source: Source, where: bool = False) -> Resolved:
    """Find the commit that a branch, a tag, or the beginning of a commit is at."""
    ref = source.ref
    is_commit = _COMMIT.fullmatch(ref) is not None
    if is_commit and not where:
        return Resolved(ref, source.address)
    wanted = _names_of("" if is_commit else ref)
    found, now = git.refs(source.git_address, *wanted, *(f"{name}^{{}}" for name in wanted))
    address = source.address if _bare(now).lower() == _bare(source.address).lower() else _bare(now)
    if is_commit:
        return Resolved(ref, address)
    for name in wanted:
        commit = found.get(f"{name}^{{}}") or found.get(name)
        if commit:
            return Resolved(commit, address)
    if _SHORT_COMMIT.fullmatch(ref):
        return Resolved(_whole_commit(git, web, source, ref), address)
    raise Failed("version-not-found", f"Not found: {ref}" if ref else "The repository is empty")


def _names_of(ref: str) -> list[str]:
    """Name the refs that may be meant, the likeliest first. None has a character that makes a pattern of it for Git."""
    if ref in ("", "HEAD"):
        return ["HEAD"]
    return [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}"]


def _whole_commit(git: Git, web: Web, source: Source, short: str) -> str:
    refs, _ = git.refs(source.git_address)
    found = {commit for commit in refs.values() if commit.startswith(short)} or _asked_commit(web, source, short)
    if len(found) == 1:
        return found.pop()
    raise Failed("version-not-found", f"{short} is part of a commit's name; give all of its 40 characters")


def _asked_commit(web: Web, source: Source, short: str) -> set[str]:
    """Ask the API of the site, if it has one, for the commit that begins so."""
    parts = urlsplit(source.address)
    path = _bare(parts.path.strip("/"))
    try:
        if source.provider == "gh":
            found = [web.json(f"https://api.github.com/repos/{quote(path)}/commits/{short}").get("sha")]
        elif source.provider == "gl":
            address = (
                f"{parts.scheme}://{parts.netloc}/api/v4/projects/{quote(path, safe='')}/repository/commits/{short}"
            )
            found = [web.json(address).get("id")]
        elif source.provider == "gist":
            history = web.json(f"https://api.github.com/gists/{quote(path.rpartition('/')[2])}").get("history") or []
            found = [version.get("version") for version in history]
        else:
            found = []
    except Failed as failure:
        if failure.code != "repository-not-found":
            raise
        found = []  # what GitHub and GitLab answer for a commit that is not there
    return {commit for commit in found if isinstance(commit, str) and _is_of(commit, short)}


def _is_of(commit: str, short: str) -> bool:
    return _COMMIT.fullmatch(commit) is not None and commit.startswith(short)


def fetch_git(git: Git, source: Source, version: str, folder: Path) -> Path:
    """Clone the repository into a folder that is not there yet, with that commit checked out."""
    if not _COMMIT.fullmatch(version):
        raise Failed("version-not-found", "That is no commit")
    git.must("init", "--quiet", "--", str(folder))
    git.must("remote", "add", "--", "origin", source.git_address, folder=folder)
    git.must("fetch", "--quiet", "--progress", "--no-recurse-submodules", "--tags", "origin", folder=folder)
    if git.ask("cat-file", "-e", f"{version}^{{commit}}", folder=folder) is None:
        git.must("fetch", "--quiet", "--progress", "--no-recurse-submodules", "origin", version, folder=folder)
    branch = _branch(git, source, version, folder)
    if branch:
        git.must("checkout", "--quiet", "-B", branch, version, folder=folder)
        git.must("branch", "--quiet", f"--set-upstream-to=origin/{branch}", branch, folder=folder)
    else:
        git.must("checkout", "--quiet", "--detach", version, folder=folder)
    _fetch_submodules(git, folder)
    fetch_large_files(git, folder)
    return folder


def _branch(git: Git, source: Source, version: str, folder: Path) -> str:
    """Name the branch that was asked for, if the version is on it; empty for none."""
    branch = source.ref.removeprefix("refs/heads/")
    if branch in ("", "HEAD"):
        git.ask("remote", "set-head", "origin", "--auto", folder=folder)
        head = git.ask("symbolic-ref", "--quiet", "refs/remotes/origin/HEAD", folder=folder) or [""]
        branch = head[-1].removeprefix("refs/remotes/origin/")
    if not _REF.fullmatch(branch):
        return ""
    tip = f"refs/remotes/origin/{branch}"
    is_on_it = git.ask("merge-base", "--is-ancestor", version, tip, folder=folder) is not None
    return branch if is_on_it else ""


def _fetch_submodules(git: Git, folder: Path) -> None:
    if not os.path.lexists(folder / ".gitmodules"):
        return
    code, lines = git.run("submodule", "--quiet", "update", "--init", "--recursive", folder=folder)
    if code != 0:
        failure = git_failure(lines)
        is_of_site = failure.code in ("provider-unreachable", "provider-rate-limited", "no-space")
        raise Failed(failure.code if is_of_site else "fetch-failed", f"A submodule: {failure.detail}")


def fetch_large_files(git: Git, folder: Path) -> None:
    """Replace the pointers of Git LFS by their files, as far as that can be done."""
    attributes = folder / ".gitattributes"
    if (
        attributes.is_symlink()
        or not attributes.is_file()
        or "filter=lfs" not in attributes.read_text("utf-8", "replace")
    ):
        return
    if not git.has_lfs:
        say("The repository has files in Git LFS, which this builder image lacks: they stay pointers")
    elif git.run("lfs", "pull", "origin", folder=folder, lfs=True)[0] != 0:
        say("Not all files in Git LFS could be fetched: those stay pointers")


# ── sites with an API ────────────────────────────────────────────────────────────────────────────────────────────


class Web:
    """Asks sites over HTTP, and says what their refusals mean."""

    def __init__(self, *handlers: urllib.request.BaseHandler) -> None:
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            *(handlers or (urllib.request.HTTPHandler(), urllib.request.HTTPSHandler())),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)
        self._opener.addheaders = [("User-Agent", "homeport-helper")]

    @contextmanager
    def open(self, address: str, accept: str = "*/*") -> Iterator[Any]:
        """Open an address; what is given is the answer after redirections."""
        try:
            with self._opener.open(
                urllib.request.Request(address, headers={"Accept": accept}), timeout=SITE_SECONDS
            ) as it:
                yield it
        except urllib.error.HTTPError as error:
            with error:
                raise _http_failure(error, address) from None
        except (http.client.HTTPException, ValueError) as error:
            raise Failed("provider-unreachable", f"{_site(address)} gave no usable answer: {error}") from None
        except urllib.error.URLError as error:
            raise Failed("provider-unreachable", f"{_site(address)}: {error.reason}") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Failed("provider-unreachable", f"{_site(address)}: {error}") from None

    def json(self, address: str) -> dict[str, Any]:
        """Get a JSON object."""
        with self.open(address, "application/json") as response:
            found = json.loads(response.read(MOST_JSON))
            if not isinstance(found, dict):
                raise ValueError("not a JSON object")
            return found

    def where(self, address: str) -> str:
        """Say where an address leads to."""
        with self.open(address) as response:
            return str(response.url)

    def save(self, address: str, path: Path) -> None:
        """Write what is at an address into a new file."""
        say(f"Fetching {path.name} from {_site(address)}")
        with path.open("wb") as file, self.open(address) as response:
            shutil.copyfileobj(response, file, CHUNK)


def _site(address: str) -> str:
    return urlsplit(address).hostname or "the site"


def _http_failure(error: urllib.error.HTTPError, address: str) -> Failed:
    limited = error.headers.get("X-RateLimit-Remaining") == "0" or error.headers.get("Retry-After") is not None
    if error.code == 429 or (error.code == 403 and limited):
        return Failed("provider-rate-limited", f"{_site(address)} answered {error.code}")
    code = "repository-not-found" if error.code in (400, 401, 403, 404, 410, 422) else "provider-unreachable"
    return Failed(code, f"{_site(address)} answered {error.code} {error.reason}")


def _doi_target(web: Web, address: str) -> str:
    """Say which address a DOI stands for; an address stands for itself."""
    if address.startswith(("https://", "http://")):
        return address
    for value in web.json(f"https://doi.org/api/handles/{quote(address)}").get("values") or []:
        target = value.get("data", {}).get("value") if value.get("type") == "URL" else None
        if isinstance(target, str) and target.startswith(("https://", "http://")):
            return target
    raise Failed("repository-not-found", f"The DOI {address} stands for no address")


@dataclass(frozen=True)
class File:
    """A file of a record: where it goes, in the record's folder, and where it is."""

    name: str
    address: str


# A site's resolver gives the version, and its fetcher makes the files of that version in an empty folder and gives the
# folder that they are in.


def _zenodo_record(web: Web, address: str) -> tuple[str, str]:
    """Say at which API a record is, and which number it has there; a concept's number stands for its newest version."""
    for site, form in (("zenodo.org", r"10\.5281/zenodo\.(\d+)"), ("sandbox.zenodo.org", r"10\.5072/zenodo\.(\d+)")):
        doi = re.fullmatch(form, address)
        if doi is not None:
            return f"https://{site}/api/records", doi[1]
    target = _doi_target(web, address)
    parts = urlsplit(target)
    if parts.path.startswith("/doi/"):
        parts = urlsplit(web.where(target))
    record = re.match(r"/records?/([A-Za-z0-9-]+)", parts.path)
    if record is None or parts.hostname not in ("zenodo.org", "sandbox.zenodo.org", "data.caltech.edu"):
        raise Failed("repository-not-found", f"{address} is no record of Zenodo's")
    return f"https://{parts.hostname}/api/records", record[1]


def resolve_zenodo(web: Web, source: Source) -> str:
    api, record = _zenodo_record(web, source.address)
    return str(web.json(f"{api}/{record}")["id"])


def fetch_zenodo(web: Web, source: Source, version: str, folder: Path) -> Path:
    api, _ = _zenodo_record(web, source.address)
    entries = web.json(f"{api}/{quote(version)}/files")["entries"]
    return _unpacked(web, [File(entry["key"], entry["links"]["content"]) for entry in entries], folder)


FIGSHARE: Final = "https://api.figshare.com/v2/articles"


def _figshare_article(web: Web, address: str) -> tuple[str, str]:
    """Say which number and which version an article has, the latter empty for the newest."""
    doi = re.fullmatch(r"10\.6084/m9\.figshare\.(\d+)(?:\.v(\d+))?", address)
    if doi is not None:
        return doi[1], doi[2] or ""
    parts = urlsplit(_doi_target(web, address))
    article = re.match(r"(?:/account)?/articles/(?:[^/]+/){1,2}(\d+)(?:/(\d+))?/?$", parts.path)
    if article is None or not f".{parts.hostname}".endswith(".figshare.com"):
        raise Failed("repository-not-found", f"{address} is no article of Figshare's")
    return article[1], article[2] or ""


def resolve_figshare(web: Web, source: Source) -> str:
    article, version = _figshare_article(web, source.address)
    found = web.json(f"{FIGSHARE}/{article}")  # the newest version
    if version and int(version) > int(found["version"]):
        raise Failed("version-not-found", f"Article {article} has no version {version}")
    return f"{article}.v{version or found['version']}"


def fetch_figshare(web: Web, source: Source, version: str, folder: Path) -> Path:
    article, _, number = version.partition(".v")
    files = web.json(f"{FIGSHARE}/{quote(article)}/versions/{quote(number)}")["files"]
    return _unpacked(
        web, [File(file["name"], file["download_url"]) for file in files if not file.get("is_link_only")], folder
    )


def _dataverse(web: Web, address: str) -> tuple[str, str]:
    """Say where an installation of Dataverse is, and what it calls the dataset, or one of its files."""
    parts = urlsplit(_doi_target(web, address))
    named = parse_qs(parts.query).get("persistentId")
    persistent = named[0] if named else f"doi:{address}"
    return f"{parts.scheme}://{parts.netloc}/api", persistent


def resolve_dataverse(web: Web, source: Source) -> str:
    api, persistent = _dataverse(web, source.address)
    try:
        data = web.json(f"{api}/datasets/:persistentId/?{urlencode({'persistentId': persistent})}")["data"]
    except Failed as failure:
        if failure.code != "repository-not-found":
            raise
        asked = urlencode({"persistentId": persistent, "returnDatasetVersion": "true"})  # it may be a file's
        persistent = web.json(f"{api}/files/:persistentId?{asked}")["data"]["datasetVersion"]["datasetPersistentId"]
        data = web.json(f"{api}/datasets/:persistentId/?{urlencode({'persistentId': persistent})}")["data"]
    latest = data["latestVersion"]
    return f"{persistent.removeprefix('doi:')}.v{latest['versionNumber']}.{latest['versionMinorNumber']}"


def fetch_dataverse(web: Web, source: Source, version: str, folder: Path) -> Path:
    api, _ = _dataverse(web, source.address)
    persistent, _, number = version.rpartition(".v")
    asked = urlencode({"persistentId": f"doi:{persistent}"})
    found = web.json(f"{api}/datasets/:persistentId/versions/{quote(number)}?{asked}")["data"]["files"]
    files = []
    for file in found:
        data = file["dataFile"]
        name = "/".join(filter(None, (file.get("directoryLabel"), data.get("originalFileName") or file["label"])))
        # A table is kept in a form of Dataverse's own, unless the original is asked for.
        files.append(File(name, f"{api}/access/datafile/{data['id']}?format=original"))
    _download(web, files, folder)
    return _only_folder(folder)


def _seconds_of(date: str) -> int:
    """Seconds since 1970 of a date in UTC such as 2019-09-25T16:35:53.456+00:00, as repo2docker counts them."""
    return calendar.timegm(time.strptime(date[:19], "%Y-%m-%dT%H:%M:%S"))


HYDROSHARE: Final = "https://www.hydroshare.org"


def _hydroshare_resource(web: Web, address: str) -> str:
    parts = urlsplit(_doi_target(web, address))
    resource = re.match(r"/resource/([0-9a-f]{32})", parts.path)
    if resource is None or parts.hostname not in ("www.hydroshare.org", "hydroshare.org"):
        raise Failed("repository-not-found", f"{address} is no resource of HydroShare's")
    return resource[1]


def resolve_hydroshare(web: Web, source: Source) -> str:
    resource = _hydroshare_resource(web, source.address)
    dates = web.json(f"{HYDROSHARE}/hsapi/resource/{resource}/scimeta/elements")["dates"]
    modified = next(date["start_date"] for date in dates if date["type"] == "modified")
    return f"{resource}.v{_seconds_of(modified)}"


def fetch_hydroshare(web: Web, source: Source, version: str, folder: Path) -> Path:
    _must_be_current(resolve_hydroshare(web, source), version)
    resource = version.partition(".v")[0]
    archive = folder.with_name(f"{folder.name}.zip")
    address = f"{HYDROSHARE}/django_s3/download/bags/{resource}.zip"
    for _ in range(BAG_SECONDS // BAG_PAUSE):  # it gives a page until it has prepared the archive
        web.save(address, archive)
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder)
            contents = folder / resource / "data" / "contents"
            return contents if contents.is_dir() else folder
        time.sleep(BAG_PAUSE)
    raise Failed("fetch-failed", "HydroShare has not prepared the resource's archive in time. Launch again")


def _ckan(address: str) -> tuple[str, str, str]:
    """Say where the API of a CKAN site is, which dataset is meant, and which activity, empty for none."""
    parts = urlsplit(address)
    prefix, found, rest = parts.path.partition("/dataset/")
    dataset, _, after = rest.partition("/")
    if not found or not dataset:
        raise Failed("repository-not-found", f"{address} is no dataset of a CKAN site's")
    activity = re.match(r"history/([^/]+)", after)
    asked = parse_qs(parts.query).get("activity_id", [""])[0]
    return f"{parts.scheme}://{parts.netloc}{prefix}/api/3/action", dataset, activity[1] if activity else asked


def _ckan_dataset(web: Web, address: str) -> tuple[str, dict[str, Any]]:
    """Give the version of a dataset, and what the site says of it."""
    api, dataset, activity = _ckan(address)
    if activity:
        asked = urlencode({"id": activity, "object_type": "package"})
        found = web.json(f"{api}/activity_data_show?{asked}")["result"]
        return f"{found['id']}.a{activity}", found
    found = web.json(f"{api}/package_show?{urlencode({'id': dataset})}")["result"]
    return f"{found['id']}.v{_seconds_of(found['metadata_modified'])}", found


def resolve_ckan(web: Web, source: Source) -> str:
    return _ckan_dataset(web, source.address)[0]


def fetch_ckan(web: Web, source: Source, version: str, folder: Path) -> Path:
    now, dataset = _ckan_dataset(web, source.address)
    _must_be_current(now, version)
    files = []
    for resource in dataset["resources"]:
        if resource["url"]:
            files.append(File(urlsplit(resource["url"]).path.rpartition("/")[2] or resource["id"], resource["url"]))
    _download(web, files, folder)
    return folder


def _must_be_current(now: str, version: str) -> None:
    """Of a site that has the newest version alone."""
    if now != version:
        raise Failed("fetch-failed", "It was changed while it was being launched. Launch again")


RESOLVERS: Final[Mapping[str, Callable[[Web, Source], str]]] = {
    "zenodo": resolve_zenodo,
    "figshare": resolve_figshare,
    "dataverse": resolve_dataverse,
    "hydroshare": resolve_hydroshare,
    "ckan": resolve_ckan,
}
FETCHERS: Final[Mapping[str, Callable[[Web, Source, str, Path], Path]]] = {
    "zenodo": fetch_zenodo,
    "figshare": fetch_figshare,
    "dataverse": fetch_dataverse,
    "hydroshare": fetch_hydroshare,
    "ckan": fetch_ckan,
}


@contextmanager
def _understood(provider: str) -> Iterator[None]:
    """Say that a site's answer lacks what it should have, instead of what went wrong with it in here."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, StopIteration) as error:
        raise Failed(
            "provider-unreachable", f"{provider} gave no usable answer: {type(error).__name__} {error}"
        ) from None


# ── files of a record ────────────────────────────────────────────────────────────────────────────────────────────


def _inside(folder: Path, name: str) -> Path:
    """Say where a file of that name goes; raises Failed if that is outside of the folder."""
    parts = name.split("/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise Failed("fetch-failed", f"A file is called {name!r}, which leads out of its folder")
    return folder.joinpath(*parts)


def _download(web: Web, files: Iterable[File], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for file in files:
        path = _inside(folder, file.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            web.save(file.address, path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise Failed("fetch-failed", f"{file.name!r} is a file and a folder") from None


def _unpacked(web: Web, files: Sequence[File], folder: Path) -> Path:
    """Download files; a single archive is unpacked instead, and a single folder in it stands for it."""
    _download(web, files, folder)
    if len(files) != 1 or not zipfile.is_zipfile(_inside(folder, files[0].name)):
        return folder
    inside = folder.with_name(f"{folder.name}.unpacked")
    _unzip(_inside(folder, files[0].name), inside)
    return _only_folder(inside)


def _unzip(archive: Path, folder: Path) -> None:
    """Unpack an archive: names that lead out are led in, links become files, and no more is written than it says."""
    with zipfile.ZipFile(archive) as opened:
        if sum(member.file_size for member in opened.infolist()) > _free(archive.parent):
            raise Failed("no-space", f"{archive.name} has more in it than fits on the disk")
        try:
            opened.extractall(folder)  # noqa: S202 - zipfile leads in what would lead out
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise Failed("fetch-failed", f"{archive.name} cannot be unpacked: {error}") from None


def _only_folder(folder: Path) -> Path:
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink() else folder


def _free(folder: Path | str) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """The engine behind a Unix socket."""

    def __init__(self, path: str = SOCKET) -> None:
        self.path = path

    def ask(self, method: str, path: str, seconds: float = ENGINE_SECONDS) -> tuple[int, Mapping[str, str], bytes]:
        """Ask it; give status, headers and body. Raises Failed if there is no answer."""
        connection = _SocketConnection(self.path, seconds)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read(MOST_JSON)
        except (OSError, http.client.HTTPException) as error:
            raise Failed("socket-unreachable", f"{self.path}: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def json(self, path: str, seconds: float = ENGINE_SECONDS) -> dict[str, Any]:
        """Get a JSON object; raises Failed."""
        status, _, body = self.ask("GET", path, seconds)
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if status != 200 or not isinstance(found, dict):
            raise Failed("socket-unreachable", f"The engine answered {status} to {path}")
        return found

    def must_be(self, known: Mapping[str, Any]) -> None:
        """Raise Failed unless it says of itself what is known of the one that is meant."""
        info = self.json("/info")
        for key, value in known.items():
            if str(info.get(key, "")) != str(value):
                raise Failed("socket-of-another-engine", f"{key} is another than that of your endpoint")

    def image(self, name: str) -> dict[str, Any]:
        """Inspect an image."""
        return self.json(f"/images/{name}/json", IMAGE_SECONDS)

    def tag(self, image: str, name: str) -> None:
        """Give an image one more name."""
        repository, _, tag = name.rpartition(":")
        asked = urlencode({"repo": repository, "tag": tag})
        status, _, body = self.ask("POST", f"/images/{image}/tag?{asked}", IMAGE_SECONDS)
        if status >= 300:
            raise Failed("build-failed", f"The image could not be named: {body[:200].decode('utf-8', 'replace')}")

    def remove(self, image: str) -> None:
        """Take a name away from an image, which is removed if that was its last; nothing if it is not there."""
        with suppress(Failed):
            self.ask("DELETE", f"/images/{image}", IMAGE_SECONDS)


# ── resolve ──────────────────────────────────────────────────────────────────────────────────────────────────────


def resolve(task: Mapping[str, Any], folder: Path, engine: Engine, web: Web) -> dict[str, Any]:
    """Find out the version of each source, and whether the engine is the one that is meant."""
    if task.get("engine") is not None:
        engine.must_be(task["engine"])
    git = Git(folder / "home")
    found = []
    for value in task["sources"]:
        source = Source.read(value)
        late = Failed("provider-unreachable", f"{source.address} gave no answer in {RESOLVE_SECONDS} seconds")
        with deadline(RESOLVE_SECONDS, late):
            found.append(resolve_one(git, web, source, bool(task.get("where"))))
        say(f"{source.address} {source.ref or 'as it is now'}: {found[-1].version}")
    addresses = [now.address[:ADDRESS_LENGTH] for now in found]
    return {
        "answer": "resolved",
        "versions": [clean(now.version, VERSION_LENGTH) for now in found],
        "addresses": addresses,
        "disk": _free("/"),
    }


def resolve_one(git: Git, web: Web, source: Source, where: bool = False) -> Resolved:
    """Find out the version that a source is at; of a commit, where its repository is only if that is wanted."""
    if source.is_git:
        return resolve_git(git, web, source, where)
    if source.provider not in RESOLVERS:
        raise Failed("repository-not-found", f"Unknown kind of repository: {source.provider}")
    with _understood(source.provider):
        return Resolved(RESOLVERS[source.provider](web, source), source.address)


def fetch(git: Git, web: Web, source: Source, version: str, folder: Path) -> Path:
    """Fetch a version into a folder that is not there yet; give the folder, in there or beside, of its files."""
    if source.is_git:
        return fetch_git(git, source, version, folder)
    if source.provider not in FETCHERS:
        raise Failed("repository-not-found", f"Unknown kind of repository: {source.provider}")
    with _understood(source.provider):
        folder.mkdir()
        return FETCHERS[source.provider](web, source, version, folder)


# ── build ────────────────────────────────────────────────────────────────────────────────────────────────────────

_STEPS: Final = (
    re.compile(r"(?:Step|STEP) (?P<done>\d+)/(?P<of>\d+) ?:"),  # the classic builder; Podman's
    re.compile(r"#\d+ \[(?:(?P<stage>[^\]]*?) +)?(?P<done>\d+)/(?P<of>\d+)\] "),  # BuildKit, plain
)
_STEP_DIGEST: Final = re.compile(r"#\d+ sha256:[0-9a-f]{64}")  # what BuildKit once printed behind each step
_BUILD_FAILURES: Final = (
    ("no-space", r"no space left on device|disk quota exceeded"),
    (
        "build-failed",
        r"pull access denied|toomanyrequests|manifest unknown|manifest for .* not found|no such host|dial tcp"
        r"|tls handshake",
    ),
    (
        "dockerfile-invalid",
        r"dockerfile parse error|unknown instruction|no build stage in current context|file with no instructions"
        r"|no contents in|dockerfile.{0,40} cannot be empty|provide a source image with .?from|circular dependency"
        r"|unknown flag|invalid reference format|base name .* should not be blank|invalid from flag value",
    ),
)
_ERROR: Final = re.compile(
    r"\berror\b|\bfailed\b|\bE: |could not|cannot|not found|denied|no such|non-zero", re.IGNORECASE
)
_SUMMARY: Final = re.compile(
    r"executor failed running|failed to solve|did not complete successfully|returned a non-zero code|-{6,}|^\S+:\d+$"
    r"|^ERROR: process"
)


class Progress:
    """What a build prints: its lines, and how many of its steps are done, in answers."""

    def __init__(self) -> None:
        self._stages: dict[str, tuple[int, int]] = {}
        self._told = (0, 0)
        self._count = 0
        self._bytes = 0

    def see(self, line: str) -> None:
        """Print a line, and an answer if it is that of a further step; the digest of a step tells nobody anything."""
        if _STEP_DIGEST.fullmatch(line.strip()):
            return
        self._count += 1
        if self._bytes <= MOST_BYTES:
            self._bytes += len(clean(line).encode())
            say(line)
            if self._bytes > MOST_BYTES:
                say(f"… The build prints very much: from here on only one line of {EVERY:,} is kept")
        elif self._count % EVERY == 0:
            say(line)
        for form in _STEPS:
            step = form.match(line)
            if step is not None:
                self._step(step.groupdict())

    def _step(self, step: Mapping[str, str | None]) -> None:
        done, of, stage = int(step["done"] or 0), int(step["of"] or 0), step.get("stage") or ""
        if not 0 < done <= of < 10_000:
            return
        before = self._stages.get(stage, (0, of))
        self._stages[stage] = max(before[0], done), max(before[1], of)
        total = sum(one for one, _ in self._stages.values()), sum(one for _, one in self._stages.values())
        if total != self._told and total[1] < 10_000 and len(self._stages) < 100:
            self._told = total
            answer(answer="step", done=total[0] - 1, of=total[1])  # the last one has begun


class Builder:
    """Builds images with the docker command, as far as that and the engine can: with BuildKit, else without.

    Has the interface of repo2docker's container engines, as far as a build pack uses it.
    """

    string_output = True

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], memory: int | None) -> None:
        self.command = tuple(command)
        self.environment = dict(environment)
        self.is_classic = environment["DOCKER_BUILDKIT"] == "0"
        self.see: Callable[[str], None] = Progress().see
        self._memory = memory if self.is_classic else None

    def build(
        self,
        *,
        tag: str,
        path: str = "",
        dockerfile: str = "",
        fileobj: IO[bytes] | None = None,
        buildargs: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        **_others: object,
    ) -> Iterator[str]:
        """Build the image of a folder, or of a tar; raises Failed. No line is given: all are printed."""
        command = [*self.command, f"--tag={tag}"]
        command += [f"--build-arg={name}={value}" for name, value in (buildargs or {}).items()]
        command += [f"--label={name}={value}" for name, value in (labels or {}).items()]
        if self._memory is not None:
            command += [f"--memory={self._memory}", f"--memory-swap={self._memory}"]
        if fileobj is None:
            command += [f"--file={os.path.join(path, dockerfile or 'Dockerfile')}", "--", path]
            self._run(command, None)
        else:
            with tempfile.TemporaryFile() as context:
                _write_context(fileobj, context, without_chmod=self.is_classic)
                context.seek(0)
                self._run([*command, "-"], context)
        yield from ()

    def _run(self, command: Sequence[str], context: IO[bytes] | None) -> None:
        code, lines = run(command, environment=self.environment, given=context, see=self.see)
        if code != 0:
            raise build_failure(lines)


def _write_context(source: IO[bytes], target: IO[bytes], *, without_chmod: bool) -> None:
    """Copy a tar; for a builder that does not know COPY's --chmod, the files get their mode here.

    It is what repo2docker makes for a build pack: the Dockerfile, programs of its own, and the repository in `src`.
    """
    if not without_chmod:
        shutil.copyfileobj(source, target, CHUNK)
        return
    with tarfile.open(fileobj=source) as before, tarfile.open(fileobj=target, mode="w") as after:
        for member in before:
            content = before.extractfile(member) if member.isreg() else None
            if member.name == "Dockerfile" and content is not None:
                text = content.read().replace(b"COPY --chmod=0755 ", b"COPY ")
                member.size, content = len(text), io.BytesIO(text)
            elif "/" not in member.name and member.isreg():
                member.mode = 0o755
            after.addfile(member, content)


def build_failure(lines: Sequence[str]) -> Failed:
    """Make a failure of what a build printed last."""
    text = "\n".join(lines)
    for code, pattern in _BUILD_FAILURES:
        found = [line for line in lines if re.search(pattern, line, re.IGNORECASE)]
        if found and re.search(pattern, text, re.IGNORECASE):
            return Failed(code, _without_prefix(found[-1]))
    errors = [line for line in lines if _ERROR.search(line)]
    telling = [line for line in errors if not _SUMMARY.search(_without_prefix(line))]
    return Failed("build-failed", _without_prefix((telling or errors or list(lines[-1:]) or [""])[-1]))


def _without_prefix(line: str) -> str:
    return re.sub(r"^(?:#\d+ (?:\d+\.\d+ )?|\s*> )+", "", line)


def choose_builder(engine: Engine, folder: Path, memory: int | None) -> Builder:
    """Choose how to build: with buildx, with the BuildKit that the docker command had before 23.0, or classically."""
    environment = basic_environment(folder) | {
        "DOCKER_CONFIG": str(folder / "docker"),
        "DOCKER_HOST": f"unix://{engine.path}",
        "DOCKER_CLI_HINTS": "false",
        "BUILDKIT_PROGRESS": "plain",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",  # an image is an image, and no index of it and what is said of it
    }
    (folder / "docker").mkdir(parents=True)
    _, headers, _ = engine.ask("GET", "/_ping")
    named = {name.lower(): value for name, value in headers.items()}
    has_buildkit = "libpod-api-version" not in named and _is_at_least(named.get("api-version", ""), BUILDKIT_API)
    if has_buildkit and run(["docker", "buildx", "version"], environment=environment, see=_ignore)[0] == 0:
        command = ["docker", "buildx", "build", "--builder=default", "--progress=plain", "--load"]
        builder = Builder(command, environment | {"DOCKER_BUILDKIT": "1"}, memory)
    elif has_buildkit and _has_own_buildkit(environment):
        builder = Builder(["docker", "build", "--progress=plain"], environment | {"DOCKER_BUILDKIT": "1"}, memory)
    else:
        builder = Builder(["docker", "build", "--force-rm"], environment | {"DOCKER_BUILDKIT": "0"}, memory)
    if memory is not None and not builder.is_classic:
        say("BuildKit cannot limit the memory of a build, so this one has no limit")
    return builder


def _is_at_least(version: str, least: tuple[int, int]) -> bool:
    numbers = re.fullmatch(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= least


def _has_own_buildkit(environment: Mapping[str, str]) -> bool:
    _, lines = run(["docker", "--version"], environment=environment, see=_ignore)
    version = re.search(r"version (\d+)\.", "\n".join(lines))
    return version is not None and int(version[1]) < 23


def build(task: Mapping[str, Any], folder: Path, engine: Engine, web: Web) -> dict[str, Any]:
    """Build the image of a version of a repository, and name it; nothing has that name until all is done."""
    source, version, image, most = Source.read(task["source"]), task["version"], task["image"], task.get("bytes")
    unnamed = f"{BUILDING}:{image.rpartition(':')[2]}"
    unlabeled = f"{unnamed}-unlabeled"
    with deadline(task["seconds"], Failed("build-too-long", f"It was not done after {task['seconds']} seconds")):
        answer(answer="phase", phase="fetching")
        files = fetch(Git(folder / "home"), web, source, version, folder / "fetched")
        context = build_folder(files, source.folder)
        answer(answer="phase", phase="building")
        builder = choose_builder(engine, folder / "docker-home", task.get("memory"))
        try:
            is_dockerfile = _build_pack_image(builder, context, unlabeled)
            _must_fit(engine, unlabeled, most)
            answer(answer="phase", phase="finishing")
            builder.see = say
            _label(builder, engine, unlabeled, unnamed, task["labels"], context if is_dockerfile else None, folder)
            size = _must_fit(engine, unnamed, most)
            engine.tag(unnamed, image)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # what is left to do is short
            engine.remove(unnamed)
            engine.remove(unlabeled)
    return {"answer": "built", "size": size}


def _must_fit(engine: Engine, image: str, most: int | None) -> int:
    size = int(engine.image(image)["Size"])
    if most is not None and size > most:
        raise Failed("image-too-large", f"It has {size / 1e9:.1f} GB, of which {most / 1e9:.1f} are allowed")
    return size


# Files, and folders of such files, that repo2docker reads, or this program's docker command does.
_BUILD_FILES: Final = (
    *(
        ".binder",
        ".dockerignore",
        "DESCRIPTION",
        "Dockerfile",
        "JuliaManifest.toml",
        "JuliaProject.toml",
        "Manifest.toml",
    ),
    *("Pipfile", "Pipfile.lock", "Project.toml", "REQUIRE", "apt.txt", "binder", "default.nix", "environment.yml"),
    *("install.R", "postBuild", "pyproject.toml", "requirements.txt", "requirements3.txt", "runtime.txt", "setup.py"),
    "start",
)


def build_folder(files: Path, folder: str) -> Path:
    """Say which folder is built; raises Failed if it, or what repo2docker would read in it, is somewhere else."""
    chosen = files / folder if folder else files
    root = files.resolve()
    if not chosen.is_dir() or not chosen.resolve().is_relative_to(root):
        raise Failed("fetch-failed", f"The repository has no folder {folder}")
    for place in (chosen, chosen / "binder", chosen / ".binder"):
        for entry in (place, *(place / name for name in _BUILD_FILES)):
            if not entry.resolve().is_relative_to(root):
                raise Failed("build-failed", f"{entry.relative_to(files)} is a link that leads out of the repository")
    return chosen


def _build_pack_image(builder: Builder, context: Path, image: str) -> bool:
    """Have repo2docker build the folder; say whether it did so by the folder's own Dockerfile."""
    before = Path.cwd()
    os.chdir(context)  # where build packs look for their files
    try:
        pack, arguments = choose_pack()
        say(f"Building it with repo2docker's {type(pack).__name__}")
        for _ in pack.build(builder, image, 0, arguments, [], {}, platform=pack.platform):
            pass
        return type(pack).__name__ == "DockerBuildPack"
    except Failed:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        # A build file that repo2docker cannot read: it raises whatever its parsers do.
        raise Failed("build-failed", f"{type(error).__name__}: {error}") from None
    finally:
        os.chdir(before)


def choose_pack() -> tuple[Any, dict[str, str]]:
    """Choose the build pack for the current folder, as repo2docker does; give also the arguments of its build."""
    from repo2docker.app import Repo2Docker

    app = Repo2Docker()
    packs = (pack(base_image=app.base_image) for pack in app.buildpacks)
    pack = next((pack for pack in packs if pack.detect()), None) or app.default_buildpack(base_image=app.base_image)
    pack.platform = app.platform
    pack.appendix = ""
    name, number = USER
    return pack, {"NB_USER": name, "NB_UID": str(number), "REPO_DIR": DEFAULT_WORKDIR}


# $1 is the work folder in the image, $2 its own name. What is there already, by the Dockerfile's own doing, stays.
_PICK: Final = """\
set -e
mkdir -p "/homeport-new/$2"
cd /homeport-files
for entry in * .[!.]* ..?*; do
    if [ -e "$entry" ] || [ -L "$entry" ]; then
        if [ ! -e "$1/$entry" ] && [ ! -L "$1/$entry" ]; then mv "./$entry" "/homeport-new/$2/"; fi
    fi
done
"""
_OWNER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,60}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,60})?", re.ASCII)


def last_layer(base: str, workdir: str, user: str) -> str:
    """Write the Dockerfile that copies `files` into an image's work folder, except for what is there already."""
    work = Path(work_folder(workdir))
    owner = user if _OWNER.fullmatch(user) else "0:0"
    pick = json.dumps(["sh", "-c", _PICK, "sh", str(work), work.name])
    places = json.dumps(["/homeport-new/", f"{str(work.parent).rstrip('/')}/"])
    lines = (
        f"FROM {base} AS homeport-files",
        "USER 0:0",
        'COPY ["files/", "/homeport-files/"]',
        f"RUN {pick}",
        f"FROM {base}",
        f"COPY --from=homeport-files --chown={owner} {places}",
    )
    return "\n".join(lines) + "\n"


def _label(
    builder: Builder,
    engine: Engine,
    base: str,
    image: str,
    labels: Mapping[str, str],
    files: Path | None,
    folder: Path,
) -> None:
    """Make the last image of the one that was built: with the labels, and with `files` at its work folder."""
    config = engine.image(base).get("Config") or {}
    if config.get("OnBuild"):
        raise Failed("dockerfile-invalid", "It has ONBUILD instructions: its image is made to build others from")
    context = folder / "last"
    context.mkdir()
    if files is None:
        dockerfile = f"FROM {base}\n"
    else:
        files.rename(context / "files")
        dockerfile = last_layer(base, config.get("WorkingDir") or "", config.get("User") or "")
    (context / "Dockerfile").write_text(dockerfile)
    for _ in builder.build(tag=image, path=str(context), labels=labels):
        pass


_WORKDIR: Final = re.compile(r"(?:/[A-Za-z0-9_.+-][A-Za-z0-9_.+ -]*){1,16}")
_WORKDIR_LENGTH: Final = 200
_SYSTEM: Final = frozenset(
    ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var")  # noqa: S108
)


def work_folder(image_workdir: str) -> str:
    """Say where the hub mounts the volume: chalicelib/notebook/container.py has the rule."""
    usable = len(image_workdir) <= _WORKDIR_LENGTH and _WORKDIR.fullmatch(image_workdir) is not None
    parts = image_workdir.split("/")
    beside_ours = not any(
        f"{image_workdir}/".startswith(f"{ours}/") or ours.startswith(f"{image_workdir}/") for ours in (HOMEPORT, DATA)
    )
    if usable and beside_ours and ".." not in parts and "." not in parts and image_workdir not in _SYSTEM:
        return image_workdir if image_workdir == DEFAULT_WORKDIR else f"{image_workdir}/{WORK}"
    return DEFAULT_WORKDIR


# ── clone ────────────────────────────────────────────────────────────────────────────────────────────────────────

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}", re.ASCII)
# What `git init`, `remote add`, `checkout --track` and `submodule update` write, and what Git LFS does. Everything else
# could have a program run, or files written elsewhere.
_SETTINGS: Final = re.compile(
    r"core\.(?:repositoryformatversion|filemode|bare|logallrefupdates)|remote\.origin\.(?:url|fetch)"
    r"|branch\..+\.(?:remote|merge)|submodule\..+\.(?:url|active)|submodule\.active"
    r"|lfs\.(?:repositoryformatversion|.+\.access)|user\.(?:name|email)"
)


def clone(task: Mapping[str, Any], folder: Path, _engine: Engine, web: Web) -> dict[str, Any]:
    """Put the files of a version into a folder of the volume; what is there already is only ever fast-forwarded."""
    source, version, name = Source.read(task["source"]), task["version"], task["name"]
    if not _NAME.fullmatch(name):
        raise Failed("fetch-failed", "That is no name for a folder")
    volume = Path(task["folder"])
    git = Git(folder / "home", volume)
    target = volume / name
    with deadline(CLONE_SECONDS, Failed("fetch-failed", f"It was not done after {CLONE_SECONDS} seconds")):
        _remove_parts(volume, name)
        if not os.path.lexists(target):
            _clone_new(git, web, source, version, target)
            return {"answer": "cloned", "state": "new"}
        return {"answer": "cloned", "state": update(git, source, version, target)}


def _part_prefix(name: str) -> str:
    return f".{name}.part-"


def _remove_parts(volume: Path, name: str) -> None:
    """Remove what a clone that was killed has left."""
    for part in volume.iterdir():
        if part.name.startswith(_part_prefix(name)):
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part, ignore_errors=True)
            else:
                with suppress(OSError):
                    part.unlink()


def _clone_new(git: Git, web: Web, source: Source, version: str, target: Path) -> None:
    """Fetch beside the folder, and rename what is complete: the folder is there as a whole, or not at all."""
    part = Path(tempfile.mkdtemp(prefix=_part_prefix(target.name), dir=target.parent))
    try:
        files = fetch(git, web, source, version, part / "files")
        files.chmod(0o755)
        files.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def update(git: Git, source: Source, version: str, target: Path) -> str:
    """Fast-forward a clone that nobody has changed; say what was done. Whatever is not as expected is left alone."""
    reason = _strange(git, source, target)
    head = git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}", folder=target) if not reason else None
    if head is None:
        return _kept(target, reason or "it has no commit")
    # Submodules' own settings are not looked at, so no Git may run in them.
    changes = git.ask(
        "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty", "--no-renames", folder=target
    )
    if changes != []:
        return _kept(target, "files in it were changed")
    if head == [version]:
        return "current"
    if git.ask("cat-file", "-e", f"{version}^{{commit}}", folder=target) is None:
        git.must("fetch", "--quiet", "--progress", "--no-recurse-submodules", "--no-auto-gc", "origin", folder=target)
        if git.ask("cat-file", "-e", f"{version}^{{commit}}", folder=target) is None:
            git.must(
                "fetch",
                "--quiet",
                "--progress",
                "--no-recurse-submodules",
                "--no-auto-gc",
                "origin",
                version,
                folder=target,
            )
    if git.ask("merge-base", "--is-ancestor", "HEAD", version, folder=target) is None:
        return _kept(target, "it has commits that the version has not")
    if any(
        git.ask("cat-file", "-e", f"{commit}:.gitmodules", folder=target) is not None for commit in ("HEAD", version)
    ):
        return _kept(target, "it has submodules, which are not brought up to date")
    if git.run("merge", "--quiet", "--ff-only", "--no-autostash", version, folder=target)[0] != 0:
        return _kept(target, "files in it are in the way")
    fetch_large_files(git, target)
    return "updated"


def _kept(target: Path, reason: str) -> str:
    say(f"{target.name} is left as it is: {reason}")
    return "kept"


def _strange(git: Git, source: Source, target: Path) -> str:
    """Say what about a folder is not as this program makes it, empty for nothing. No Git runs in it before that."""
    inside = target / ".git"
    if not source.is_git:
        return "its kind of repository is fetched once"
    if target.is_symlink() or inside.is_symlink() or not inside.is_dir():
        return "it is no clone"
    if any(link.is_symlink() for link in _everything_below(inside)):
        return "it has links among Git's own files"
    if any(
        (inside / name).exists() for name in ("commondir", "objects/info/alternates", "config.worktree", "MERGE_HEAD")
    ):
        return "it has settings of its own"
    settings: list[str] = []
    command = ("config", "--file", str(inside / "config"), "--no-includes", "--list")
    if git.run(*command, see=settings.append)[0] != 0:
        return "its settings cannot be read"
    names = dict(setting.partition("=")[::2] for setting in settings)
    if not all(_SETTINGS.fullmatch(name) for name in names) or names.get("core.bare", "false") != "false":
        return "it has settings of its own"
    origins = [setting for setting in settings if setting.startswith("remote.origin.url=")]
    if [_bare(origin.partition("=")[2]) for origin in origins] != [_bare(source.address)]:
        return "it is a clone of another repository"
    return ""


def _everything_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(place, name)


# ── the program ──────────────────────────────────────────────────────────────────────────────────────────────────

COMMANDS: Final[Mapping[str, Callable[[Mapping[str, Any], Path, Engine, Web], dict[str, Any]]]] = {
    "resolve": resolve,
    "build": build,
    "clone": clone,
}


def main(arguments: Sequence[str], engine: Engine | None = None, web: Web | None = None) -> int:
    """Do one task, and give the exit code."""
    if len(arguments) != 2 or arguments[0] not in COMMANDS:
        return fail(Failed("task-unknown", f"Usage: helper.py {' | '.join(COMMANDS)} JSON"))
    with tempfile.TemporaryDirectory(prefix="homeport-", ignore_cleanup_errors=True) as made:
        try:
            task = json.loads(arguments[1])
            answer(**COMMANDS[arguments[0]](task, Path(made), engine or Engine(), web or Web()))
        except Failed as failure:
            return fail(failure)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return fail(Failed("no-space" if full else "task-broken", str(error)))
        except Exception as error:  # noqa: BLE001 - the hub reads what is printed, and nothing else
            return fail(Failed("task-broken", f"{type(error).__name__}: {error}"))
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    logging.getLogger().addHandler(Log())
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    sys.exit(main(sys.argv[1:]))
