"""Two closed unions: what the launcher can do (Effect, imperative) and what can have happened (Event, past tense).

All are frozen values without behaviour and without secrets. An effect names nothing but what it does: the session it
is performed for is handed to `Effects.perform` beside it. Times are seconds since the epoch; fractions are 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.session.values import Failure, Target

# ── effects ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class VerifyEndpoint:
    """Connect to the endpoint with the visitor's certificate and ask for its version; then sweep it."""


@dataclass(frozen=True, slots=True)
class FindImage:
    """Look for the image on the endpoint, and ask for a slot to pull it when it is not there.

    While there is none the endpoint is not asked again: many wait in the lane in which others launch.
    """


@dataclass(frozen=True, slots=True)
class PullImage:
    """Pull the image, unless it is there by now; `joins`: another tick pulls it, and offers its pull."""

    joins: bool = False


@dataclass(frozen=True, slots=True)
class ResolveVersions:
    """Have a helper find out at which versions the launch's repositories are, and whether it can build."""


@dataclass(frozen=True, slots=True)
class BuildImage:
    """Have a helper build the repository's image, unless it is there or another launch's helper is building it."""


@dataclass(frozen=True, slots=True)
class CloneFiles:
    """Have a helper put the content's files into the work folder; none that is there is overwritten."""


@dataclass(frozen=True, slots=True)
class CreateContainer:
    """Create the container, or adopt it if it is there, and put certificate, key and configuration into it."""


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Start the container; one that already runs is left alone."""


@dataclass(frozen=True, slots=True)
class ProbeNotebook:
    """Ask the notebook for its status over mutual TLS, through the published port."""


@dataclass(frozen=True, slots=True)
class PublishRoute:
    """Write the route that the proxy follows, or write it once more: to where it leads and until when."""


@dataclass(frozen=True, slots=True)
class LookAtNotebook:
    """See whether a ready session's notebook answers; only if it does not, ask the endpoint about its container."""


@dataclass(frozen=True, slots=True)
class SaveImage:
    """Write the container to an image, without the notebook's key in it, or see that it has been written."""


@dataclass(frozen=True, slots=True)
class RemoveImages:
    """Remove images that were built on the endpoint, all or one; what a container uses stays."""


@dataclass(frozen=True, slots=True)
class ForgetCredentials:
    """Delete the stored credentials of a running session and verify that they are gone."""


@dataclass(frozen=True, slots=True)
class WithdrawRoute:
    """Take the route away from the proxy."""


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Stop and remove the container, see that no creation of it is still to come, and sweep.

    Its volume stays, unless the visitor wants it deleted.
    """


@dataclass(frozen=True, slots=True)
class PurgeCredentials:
    """Delete the stored credentials and verify that they are gone."""


@dataclass(frozen=True, slots=True)
class KeepCredentials:
    """See that the stored credentials are there, to be kept."""


@dataclass(frozen=True, slots=True)
class LaunchAgain:
    """Begin the launch that was asked for, with the credentials that were kept."""


Effect = (
    VerifyEndpoint
    | FindImage
    | PullImage
    | ResolveVersions
    | BuildImage
    | CreateContainer
    | CloneFiles
    | StartContainer
    | ProbeNotebook
    | PublishRoute
    | LookAtNotebook
    | SaveImage
    | RemoveImages
    | ForgetCredentials
    | WithdrawRoute
    | RemoveContainer
    | PurgeCredentials
    | KeepCredentials
    | LaunchAgain
)


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class EndpointVerified:
    """The endpoint took the certificate. `address` is the checked IP address, `engine` what to show: its version.

    `hub` is what the launch's container is going to be labelled with. `past`: there is a container of that launch of
    the session on the endpoint, although the hub's table knows of none.
    """

    address: str
    engine: str
    note: str = ""
    hub: str = ""
    past: int = 0


@dataclass(frozen=True, slots=True)
class NotebookFound:
    """The endpoint was verified as in EndpointVerified, and runs a notebook of the session that the table lost.

    What follows is as its container's labels say: `generation` and `label` of its launch, the `image`, its end.
    """

    address: str
    engine: str
    hub: str
    generation: int
    label: str
    image: str
    expires_at: float
    longest_until: float


@dataclass(frozen=True, slots=True)
class Queued:
    """It is not this session's turn: its owner or network is slow, and too many of them are asked. `line` says so."""

    line: str


@dataclass(frozen=True, slots=True)
class PullQueued:
    """The image was not on the endpoint, and too many others pull. `line` says so."""

    line: str


@dataclass(frozen=True, slots=True)
class PullAdmitted:
    """The image is not on the endpoint, and the pull has its slot."""


@dataclass(frozen=True, slots=True)
class PullProgressed:
    """The pull goes on; `line` is what the visitor reads, and `pace` after it what changes although nothing happens."""

    fraction: float | None
    line: str
    pace: str = ""


@dataclass(frozen=True, slots=True)
class ImagePresent:
    """The image is on the endpoint."""


@dataclass(frozen=True, slots=True)
class BuilderPresent:
    """The builder is on the endpoint: the image of the helpers."""


@dataclass(frozen=True, slots=True)
class HelperStarted:
    """The launch's helper is at work, and known to be the only one."""


@dataclass(frozen=True, slots=True)
class HelperProgressed:
    """A helper is at work: `line` is what the visitor reads of it, `fraction` how far it is, if that is known."""

    fraction: float | None
    line: str


@dataclass(frozen=True, slots=True)
class VersionsResolved:
    """The repositories are at these `versions`, and there is one to build: as `image`."""

    versions: tuple[str, ...]
    image: str


@dataclass(frozen=True, slots=True)
class ContentResolved:
    """The content is at this version, and nothing is to be built."""

    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageBuilt:
    """The repository's image is on the endpoint; `built`: and was not before."""

    built: bool


@dataclass(frozen=True, slots=True)
class ContainerAwaitsFiles:
    """The container exists and holds its files, but the content's are still to come."""


@dataclass(frozen=True, slots=True)
class FilesCloned:
    """The content's files are in the work folder; `line` says which."""

    line: str


@dataclass(frozen=True, slots=True)
class ContainerCreated:
    """The container exists and holds its files."""


@dataclass(frozen=True, slots=True)
class ContainerStarted:
    """The container runs and its port is published at `target`."""

    target: Target


@dataclass(frozen=True, slots=True)
class NotebookAnswered:
    """The notebook answered over mutual TLS with its session's certificate.

    `idle_at` is when it will end by itself if nothing happens in it, as far as it says so.
    """

    idle_at: float | None = None


@dataclass(frozen=True, slots=True)
class NotebookMoved:
    """The notebook of a ready session answers at another port than before: its container was started anew."""

    target: Target


@dataclass(frozen=True, slots=True)
class RoutePublished:
    """The proxy can find the notebook."""


@dataclass(frozen=True, slots=True)
class ContainerExited:
    """The container ended by itself; `failure` is None when it ended as asked (idle for long, or from its menu)."""

    failure: Failure | None


@dataclass(frozen=True, slots=True)
class EffectDelayed:
    """The effect did not succeed, and the same effect may succeed later.

    `ours`: a store of the hub's own failed, which says nothing of the endpoint.
    """

    failure: Failure
    ours: bool = False


@dataclass(frozen=True, slots=True)
class EffectFailed:
    """The effect did not succeed and never will."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class PatienceExpired:
    """Nothing was heard for longer than the state's patience."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The visitor wants the notebook stopped; `keep`: and the credentials kept or not (None: as they chose before)."""

    keep: bool | None = None


@dataclass(frozen=True, slots=True)
class AgainRequested:
    """The visitor wants it launched again, once it has stopped; `label` is that launch's, `source` where they are."""

    label: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class DeleteRequested:
    """The visitor wants the notebook stopped and its volume removed."""


@dataclass(frozen=True, slots=True)
class ExtendRequested:
    """The visitor wants the notebook kept until then."""

    until: float


@dataclass(frozen=True, slots=True)
class SaveRequested:
    """The visitor wants the container of a ready session saved as that image."""

    image: str


@dataclass(frozen=True, slots=True)
class CommitSent:
    """The endpoint is about to be asked to write the image."""


@dataclass(frozen=True, slots=True)
class SaveProgressed:
    """The endpoint has not answered yet whether it has written the image; it was asked a moment ago."""


@dataclass(frozen=True, slots=True)
class ImageSaved:
    """The image is on the endpoint, and in its owner's list; `size` in bytes, 0 if the endpoint does not say it."""

    size: int


@dataclass(frozen=True, slots=True)
class TidyRequested:
    """The visitor wants `images` that were built on the endpoint of a ready session removed: one's name, or all."""

    images: str


@dataclass(frozen=True, slots=True)
class ImageRemoved:
    """An image is removed, and others are to follow; `line` says which."""

    line: str


@dataclass(frozen=True, slots=True)
class ImagesRemoved:
    """The images are removed that can be; `line` says which stay."""

    line: str


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """The session expired."""


@dataclass(frozen=True, slots=True)
class ForgetRequested:
    """The visitor wants the stored credentials deleted and the notebook kept."""


@dataclass(frozen=True, slots=True)
class CredentialsRenewed:
    """The visitor uploads the credentials again: they were forgotten, or the first upload did not complete."""


@dataclass(frozen=True, slots=True)
class CredentialsStoredLate:
    """Credentials were stored while the session was already on its way out: they have to be purged (again)."""


@dataclass(frozen=True, slots=True)
class RouteWithdrawn:
    """The proxy no longer knows the notebook."""


@dataclass(frozen=True, slots=True)
class ContainerRemoved:
    """No container of this session is left."""


@dataclass(frozen=True, slots=True)
class CredentialsPurged:
    """No stored credentials of this session are left, in any version."""


@dataclass(frozen=True, slots=True)
class CredentialsKept:
    """The credentials are stored, and stay so for now."""


@dataclass(frozen=True, slots=True)
class LaunchedAgain:
    """The next launch begins, with the credentials that were kept; its life is `lifetime` seconds at most."""

    lifetime: float


Event = (
    EndpointVerified
    | NotebookFound
    | Queued
    | PullQueued
    | PullAdmitted
    | PullProgressed
    | ImagePresent
    | BuilderPresent
    | HelperStarted
    | HelperProgressed
    | VersionsResolved
    | ContentResolved
    | ImageBuilt
    | ContainerAwaitsFiles
    | FilesCloned
    | ContainerCreated
    | ContainerStarted
    | NotebookAnswered
    | NotebookMoved
    | RoutePublished
    | ContainerExited
    | EffectDelayed
    | EffectFailed
    | PatienceExpired
    | StopRequested
    | AgainRequested
    | DeleteRequested
    | ExtendRequested
    | SaveRequested
    | CommitSent
    | SaveProgressed
    | ImageSaved
    | TidyRequested
    | ImageRemoved
    | ImagesRemoved
    | SessionExpired
    | ForgetRequested
    | CredentialsRenewed
    | CredentialsStoredLate
    | RouteWithdrawn
    | ContainerRemoved
    | CredentialsPurged
    | CredentialsKept
    | LaunchedAgain
)
