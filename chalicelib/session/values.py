"""What a session is: its states and phases, and the frozen values that are saved, shown and handed around.

A session is one notebook of one owner, through all its launches. Nothing here holds a secret. Times are seconds since
the epoch, sizes bytes, fractions 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from chalicelib.repository.source import Source

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuv"  # of ids and labels, 5 bits each
_ID_LENGTH: Final = 20
LARGEST_GENERATION: Final = 999_999  # that is believed of an endpoint
ALL_IMAGES: Final = "all"  # that were built on an endpoint, where one may be named


class State(StrEnum):
    """Where a session is on its way; machine.py has the table that says how it goes on from there."""

    VERIFYING = "verifying"
    PULLING = "pulling"
    RESOLVING = "resolving"
    BUILDING = "building"
    CREATING = "creating"
    CLONING = "cloning"
    STARTING = "starting"
    PROBING = "probing"
    PUBLISHING = "publishing"
    READY = "ready"
    REPUBLISHING = "republishing"
    FORGETTING = "forgetting"
    SAVING = "saving"
    TIDYING = "tidying"
    WITHDRAWING = "withdrawing"
    REMOVING = "removing"
    PURGING = "purging"
    KEPT = "kept"
    STOPPED = "stopped"


class Phase(StrEnum):
    """What a visitor can do with a session: wait for it, use it, wait for its end, launch it again."""

    LAUNCHING = "launching"
    READY = "ready"
    LEAVING = "leaving"
    STOPPED = "stopped"


PHASES: Final[Mapping[Phase, frozenset[State]]] = MappingProxyType(
    {
        Phase.LAUNCHING: frozenset(
            {
                State.VERIFYING,
                State.PULLING,
                State.RESOLVING,
                State.BUILDING,
                State.CREATING,
                State.CLONING,
                State.STARTING,
                State.PROBING,
                State.PUBLISHING,
            }
        ),
        Phase.READY: frozenset({State.READY, State.REPUBLISHING, State.FORGETTING, State.SAVING, State.TIDYING}),
        Phase.LEAVING: frozenset({State.WITHDRAWING, State.REMOVING, State.PURGING}),
        Phase.STOPPED: frozenset({State.KEPT, State.STOPPED}),
    }
)


def phase_of(state: State) -> Phase:
    """The phase that a state belongs to."""
    return next(phase for phase, states in PHASES.items() if state in states)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the proxy finds a notebook: the checked address of the endpoint and the published port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a session failed: a stable code and a sentence for the visitor."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a session's log; `number` grows by one from 1 and never repeats within a session.

    `progress`: it says how far a pull is, and the pull's next line replaces it. `place` counts the lines of its launch
    from 1, a line that replaces another has the same (0: it was stored before lines had places).
    """

    number: int
    at: float
    text: str
    progress: bool = False
    place: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the container may use: bytes of memory, CPUs, number of GPUs (-1: all), bytes of shared memory.

    None is the engine's default.
    """

    memory: int | None = None
    cpus: float | None = None
    gpus: int | None = None
    shm: int | None = None


class PullPolicy(StrEnum):
    """When the image is pulled: if it is not on the endpoint, at every launch, or never."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder of the endpoint's host, by its absolute path."""

    path: str
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{'rw' if self.writable else 'ro'}"


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the endpoint's host, `first` to `last`: the notebook is published at one of them."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Options:
    """How else the container is made; `ports` None is any port.

    `environment` names the variables that the visitor sets. Their values may be secrets: they are sealed with the
    credentials (bundle/credentials.py).
    """

    data: DataFolder | None = None
    environment: tuple[str, ...] = ()
    ports: Ports | None = None
    pull: PullPolicy = PullPolicy.MISSING


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image that a notebook was saved as: on which endpoint, of which notebook by its name, and when.

    `size` is that of all of it, with the image that the notebook was launched from; 0 if the endpoint does not say it.
    """

    owner: str
    name: str
    endpoint: str
    notebook: str
    saved_at: float
    size: int


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that was built of a repository's version: on which endpoint, when, and when a launch used it last.

    `size` is that of all of it; what it shares with other images counts for each of them.
    """

    owner: str
    name: str
    endpoint: str
    repository: Source
    version: str
    size: int
    built_at: float
    used_at: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list shows of a session; `failed` as soon as it has a failure, also while it is still leaving.

    `deleted`: its volume is removed, or is going to be.
    """

    sid: str
    name: str
    endpoint: str
    phase: Phase
    failed: bool
    created_at: float
    deleted: bool = False

    @property
    def position(self) -> tuple[float, str]:
        """Its position in a list, which begins with the greatest."""
        return self.created_at, self.sid


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """All that is known of one notebook of one owner.

    identity     `sid` follows from owner and name; `generation` counts the launches; `version` the saves.
                 `hub` is whose its container is, as its label says ("": it was stored before launches had one).
    origin       `label` is random and this launch's own ("": it was stored before launches had one); `host` has it.
    asked for    `endpoint`, `image`, `limits`, `options`, `open_path`; `source` is the network it was launched from.
                 Of a repository the image is built, and `image` is "" until it is known which; the files of `content`
                 go into the work folder. For either there is a `builder`, the image of the helpers ("": it needs none).
                 `keeps`: the credentials are kept after it has stopped, until it expires. `again` is the label of the
                 launch that follows as soon as it has stopped ("": none does). `deletes`: its volume goes, too.
    found        `address` (checked, of the endpoint), `container` (its name, known before it exists), `target`.
                 Of the `creations` that were sent, one that nobody saw answered may make it until `unsettled_until`.
                 Its credentials were stored for launch `sealed_in` (0: for this one).
    helper       the name of the `helper` that is at work for it or may be ("": none is); it was seen if it `helps`.
                 `versions` are those that repository and content were resolved to, in this order.
    saved as     the image `saving`, which its container is being written to, and how many `commits` were sent for that.
    removed      `tidying`: the image that is being removed of those built on its endpoint, or ALL_IMAGES.
    how it goes  `state`, since `entered_at`; `steady` while it is ready and there has been no news for long; `queued`
                 while it waits for its turn, with `pull_waits` if that is one to pull; `fraction` of the pull, once it
                 is `admitted`, which grew last at `progressed_at`; `failure` is the first one and final, `last_problem`
                 what the present effect failed of last, `attempts` how often in a row; `message` and `log` are for the
                 visitor.
                 `log` ends with the newest line; those before it became history by the last change.
    who and when `written_by` is the tick or the web request that saved last, and a tick holds the session until
                 `lease_expires_at`; `last_news_at` is when something was last heard, and `next_attempt_at` when the
                 session wants to be looked at (None: never again). It can be kept until `longest_until` at most (0: no
                 longer than it is).
    `newer`      it was stored by a later version of Homeport, which this one does not understand: it is left alone
                 until it expires or is stopped.
    """

    sid: str
    owner: str
    name: str
    generation: int
    label: str = ""
    hub: str = ""
    version: int
    state: State
    endpoint: str
    image: str
    limits: Limits = Limits()
    options: Options = Options()
    open_path: str = ""
    source: str = ""
    repository: Source | None = None
    content: Source | None = None
    builder: str = ""
    keeps: bool = False
    again: str = ""
    deletes: bool = False
    sealed_in: int = 0
    saving: str = ""
    commits: int = 0
    tidying: str = ""
    address: str | None = None
    container: str | None = None
    creations: int = 0
    unsettled_until: float = 0.0
    helper: str = ""
    helps: bool = False
    versions: tuple[str, ...] = ()
    target: Target | None = None
    credentials_held: bool = True
    written_by: str = ""
    lease_expires_at: float = 0.0
    queued: bool = False
    pull_waits: bool = False
    admitted: bool = False
    steady: bool = False
    fraction: float | None = None
    progressed_at: float = 0.0
    message: str = ""
    failure: Failure | None = None
    last_problem: Failure | None = None
    attempts: int = 0
    log: tuple[Line, ...] = ()
    created_at: float
    entered_at: float
    last_news_at: float
    next_attempt_at: float | None
    expires_at: float
    longest_until: float = 0.0
    newer: bool = False

    @property
    def phase(self) -> Phase:
        """What the visitor can do with it; what is kept and launched again at once has not stopped."""
        return Phase.LEAVING if self.state is State.KEPT and self.again else phase_of(self.state)

    @property
    def failed(self) -> bool:
        """Whether it is over, or on its way out, because of a failure."""
        return self.failure is not None

    @property
    def sources(self) -> tuple[Source, ...]:
        """What has to be resolved: the repository that is built, and that whose files are wanted."""
        return tuple(source for source in (self.repository, self.content) if source is not None)

    @property
    def wanted_image(self) -> str:
        """The image that is looked for, and pulled, at present: first the builder."""
        return self.builder if self.builder and not self.versions else self.image

    @property
    def summary(self) -> Summary:
        """What a list shows of it."""
        deleted = self.deletes and not self.failed
        return Summary(self.sid, self.name, self.endpoint, self.phase, self.failed, self.created_at, deleted)

    @property
    def credentials_of(self) -> int:
        """The launch for which its credentials were stored."""
        return self.sealed_in or self.generation

    @property
    def host(self) -> str:
        """The first label of this launch's origin: two launches never share one, also not of the same session.

        What runs in a notebook can leave things in the browser, and they stay with the origin (docs/adr/0008).
        """
        return f"{self.sid}-{self.label}" if self.label else self.sid

    def is_past(self, generation: int) -> bool:
        """Say whether that launch of the session is over, and so is whatever there is of it on an endpoint."""
        return generation < self.generation or (
            generation == self.generation and self.state in (State.KEPT, State.STOPPED)
        )


def session_id(owner: str, name: str) -> str:
    """Derive the session's id from owner and name: 20 characters a-v0-9, fit for DNS labels and Docker names.

    The same owner and name always give the same id, which is what brings a visitor back to the same notebook; 100
    bits of SHA-256 keep any other pair from reaching it.
    """
    digest = sha256(b"homeport session\0" + owner.encode() + b"\0" + name.encode()).digest()
    return _letters(int.from_bytes(digest[:13], "big") >> 4, _ID_LENGTH)


def is_session_id(text: str) -> bool:
    """Say whether the text has the form of a session's id."""
    return len(text) == _ID_LENGTH and set(text) <= set(_ALPHABET)


def launch_label(secret: str) -> str:
    """Make the label of a launch of a fresh random text: 10 characters a-v0-9, which are 50 bits of its SHA-256."""
    digest = sha256(b"homeport launch\0" + secret.encode()).digest()
    return _letters(int.from_bytes(digest[:7], "big") >> 6, 10)


def _letters(number: int, length: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * i)) & 31] for i in range(length))


def container_name(sid: str, generation: int) -> str:
    """Name the container of one launch; the name is the idempotency key of its creation."""
    return f"homeport-{sid}-{generation}"


def helper_name(sid: str, generation: int, task: str) -> str:
    """Name the helper of one launch for a task that is its own: `resolve` or `clone`."""
    return f"{container_name(sid, generation)}-{task}"


def volume_name(sid: str) -> str:
    """Name the volume that holds a session's work through all of its launches."""
    return f"homeport-{sid}"
