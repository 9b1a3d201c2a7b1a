"""What a visitor can have done, without HTTP: check a bundle, launch, look, enter, keep longer, save as an image, stop,
launch again, forget, delete, sign out.

Rules

1. What is about to exist is written down first: the session's item precedes its credentials, so every stored object
   belongs to an item whose purging is inevitable. If the item's launch finds no credentials, it ends by itself.
2. A visitor is whoever holds the key: the owner is the fingerprint of the client key in the uploaded bundle. A token
   only spares the visitor from uploading it again, for a session's lifetime and for each key by itself.
3. A session of another owner does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final, Protocol
from urllib.parse import quote

from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.errors import CredentialsMissing, SessionNotFound, StaleSession, StoreRefused, StoreUnavailable
from chalicelib.aws.queues import Enqueue, TickMessage
from chalicelib.aws.sign_ins import SignIn
from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.bundle.errors import EndpointsDisagree
from chalicelib.bundle.parse import Bundle, parse
from chalicelib.config import SESSIONS_MOST, Config
from chalicelib.metrics import SILENT, Metric, Metrics
from chalicelib.repository.address import shown
from chalicelib.repository.allowed import is_allowed as is_repository_allowed
from chalicelib.repository.source import Source
from chalicelib.session.door import Door, Rate
from chalicelib.session.events import (
    AgainRequested,
    CredentialsRenewed,
    CredentialsStoredLate,
    DeleteRequested,
    EffectFailed,
    Event,
    ExtendRequested,
    ForgetRequested,
    SaveRequested,
    StopRequested,
    TidyRequested,
)
from chalicelib.session.image import is_allowed, parse_image
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.lease import LEASE_SECONDS, released
from chalicelib.session.machine import accepts, advance, is_purged, new_session
from chalicelib.session.narration import LOG_LINES
from chalicelib.session.values import (
    BuiltImage,
    Failure,
    Limits,
    Line,
    Options,
    Phase,
    SavedImage,
    Session,
    State,
    Summary,
    is_session_id,
    launch_label,
    session_id,
)
from chalicelib.text import one_line
from chalicelib.web.errors import (
    CredentialsNeeded,
    DataNotAllowed,
    HubFull,
    ImageNotAllowed,
    LaunchesClosed,
    LimitTooHigh,
    LongestLifeReached,
    NameNotTyped,
    NoBuildLog,
    NotAuthenticated,
    OwnersDisagree,
    RepositoryNotAllowed,
    SessionLeaving,
    SessionNotReady,
    SessionOfLaterVersion,
    TooManyLaunches,
    TooManyNotebooks,
    VariablesWouldBeSaved,
)
from chalicelib.web.forms import Deletion, Launch

TICKET_SECONDS: Final = 60.0
OWNERS_PER_TOKEN: Final = 10
LEAST_SHARE: Final = 24  # of a session's lifetime: the least that a launch with kept credentials must have
ALLOWED_LENGTH: Final = 300  # characters of the allowed images in a refusal
LISTED: Final = 50  # sessions on one page of a list
RACES: Final = 8  # a save loses only against another save, and a launch has about ten


class Sessions(Protocol):
    """What the hub needs of chalicelib.aws.sessions.SessionStore."""

    def find(self, sid: str) -> Session | None: ...
    def load(self, sid: str) -> Session: ...
    def save(self, session: Session) -> None: ...
    def earlier_lines(self, session: Session) -> Sequence[Line]: ...
    def of_owner(self, owner: str, limit: int, before: tuple[float, str] | None) -> Sequence[Summary]: ...
    def may_ask_for_look(self, sid: str) -> bool: ...


class Tokens(Protocol):
    """What the hub needs of chalicelib.aws.tokens.TokenStore."""

    def put_token(self, token: str, sign_ins: Collection[SignIn]) -> None: ...
    def sign_ins_of(self, token: str) -> dict[str, SignIn]: ...
    def visit(self, token: str, sid: str) -> tuple[dict[str, SignIn], Session | None]: ...
    def browser_of(self, token: str) -> str | None: ...
    def put_ticket(self, ticket: str, session: Session, sign_in: SignIn, *, path: str, expires_at: float) -> None: ...
    def sign_out(self, browser: str, owners: Iterable[str] = ()) -> None: ...


class Images(Protocol):
    """What the hub needs of chalicelib.aws.images.ImageStore."""

    def of_owner(self, owner: str) -> Sequence[SavedImage]: ...
    def built_of(self, owner: str) -> Sequence[BuiltImage]: ...


class BuildLogs(Protocol):
    """What the hub needs of chalicelib.aws.build_logs.BuildLogStore."""

    def get(self, sid: str, generation: int) -> str | None: ...


class Doorkeeper(Protocol):
    """What the hub needs of chalicelib.aws.door.DoorStore."""

    def read(self, *, counted: bool = ...) -> Door: ...
    def take(self, whose: str, rate: Rate) -> float: ...


class CredentialsSink(Protocol):
    """What the hub needs of chalicelib.aws.credentials.CredentialsStore: it can store, and not read."""

    def put(self, sid: str, generation: int, owner: str, credentials: Credentials) -> None: ...


@dataclass(frozen=True, slots=True)
class Launched:
    """The session a visitor was brought to; `created` is False when it was already there."""

    session: Session
    bundle: Bundle
    created: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a list, newest first; `older` is the position before which the next page goes on, if there is one."""

    sessions: Sequence[Summary]
    older: tuple[float, str] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the visitor's browser posts the ticket, and what JupyterLab is to open."""

    action: str
    ticket: str
    path: str


def _in(seconds: float) -> str:
    """When something can be tried again, in words."""
    return "in a minute" if seconds <= 60 else f"in {math.ceil(seconds / 60)} minutes"


def _refuse_newer(session: Session) -> None:
    """Raise SessionOfLaterVersion."""
    if session.newer:
        raise SessionOfLaterVersion(
            "This notebook was launched by a later version of this hub, so this one cannot change it. Stop the "
            "notebook, which deletes the credentials too, or wait until the hub is updated again"
        )


def _check_same(session: Session, bundle: Bundle) -> None:
    """See that a bundle is for the session; raises OwnersDisagree, EndpointsDisagree."""
    if bundle.owner != session.owner:
        raise OwnersDisagree("This bundle holds another key. Use the bundle that the notebook was launched with")
    brought = str(bundle.credentials.endpoint)
    if brought != session.endpoint:
        raise EndpointsDisagree(
            f"“{session.name}” is on {session.endpoint}, and this bundle is for {brought}. Use the bundle it was "
            "launched with"
        )


def _opened(open_path: str) -> str:
    """The path on the notebook's origin that is opened on entering."""
    if open_path.startswith("/"):
        return open_path
    return f"/lab/tree/{quote(open_path)}" if open_path else "/lab"


def not_signed_in() -> NotAuthenticated:
    """What is said to a browser that shows no token, or one that stands for nobody."""
    return NotAuthenticated("Upload the bundle again: this browser is not signed in, or its sign-in has expired")


class Hub:
    """One hub. `secret` makes fresh random texts of 256 bits."""

    def __init__(
        self,
        *,
        config: Config,
        sessions: Sessions,
        tokens: Tokens,
        credentials: CredentialsSink,
        images: Images,
        build_logs: BuildLogs,
        door: Doorkeeper,
        enqueue: Enqueue,
        clock: Callable[[], float],
        secret: Callable[[], str],
        metrics: Metrics = SILENT,
    ) -> None:
        self.config = config
        self._sessions = sessions
        self._tokens = tokens
        self._credentials = credentials
        self._images = images
        self._build_logs = build_logs
        self._door = door
        self._enqueue = enqueue
        self._clock = clock
        self._secret = secret
        self._metrics = metrics

    def now(self) -> float:
        """The hub's time, in seconds since the epoch."""
        return self._clock()

    def let_upload(self, source: str) -> None:
        """Count the upload of a bundle from a network, empty if it is not known; raises TooManyLaunches."""
        rate = self.config.upload_rate(source) if source else None
        if rate is not None and (late := self._door.take(f"network {source}", rate)):
            raise TooManyLaunches(
                f"More bundles were uploaded from your network than this hub takes in an hour ({rate.count}). Try "
                f"again {_in(late)}",
                math.ceil(late),
            )

    def check(self, form: Launch) -> Bundle:
        """Look into the bundle and store nothing; raises BadBundle, BadEndpoint, and what `_check_allowed` raises."""
        self._check_asked(form.limits, form.options)
        self.check_program(form.repository, form.content, form.image or self.config.image)
        now = self._clock()
        bundle = parse(form.bundle, host=form.host, now=now)
        self._check_address(bundle.credentials.endpoint)
        if bundle.not_after >= now + self.config.session_lifetime:
            return bundle
        day = datetime.fromtimestamp(bundle.not_after, UTC).strftime("%d %B %Y %H:%M UTC").lstrip("0")
        warning = f"The certificate expires on {day}, before the session would end; it cannot be stopped from here then"
        return replace(bundle, warnings=(*bundle.warnings, warning))

    def launch(self, form: Launch, source: str = "") -> Launched:
        """Bring the visitor to the running notebook of this key and name, or launch it; `source` is their network.

        Raises what `check` raises, SessionLeaving, StoreUnavailable, StoreRefused.
        """
        bundle = self.check(form)
        request = self._secret()
        for _ in range(RACES):
            try:
                return self._launch(form, bundle, source, request)
            except StaleSession:
                continue
        raise StoreUnavailable("Other requests are changing this session; try again")

    def visit(self, token: str, sid: str) -> tuple[Session, SignIn]:
        """The session, if the token stands for its owner, and that sign-in.

        Raises NotAuthenticated for a token that stands for nobody, SessionNotFound.
        """
        # The table refuses keys of any length; and whoever is signed in may know that no session has such an id.
        sign_ins, session = self._tokens.visit(token, sid) if is_session_id(sid) else (self.sign_ins_of(token), None)
        if not sign_ins:
            raise not_signed_in()
        if session is None or session.owner not in sign_ins:
            raise SessionNotFound("There is no such session here. Upload the bundle it was launched with to see it")
        return session, sign_ins[session.owner]

    def lines(self, session: Session, after: int = 0) -> list[Line]:
        """The lines of the session's log after the line number `after`, oldest first; one that was lost is missing.

        The session is all that is needed for whoever has the lines before those it holds.
        """
        held = session.log
        complete = not held or held[0].place <= 1 or held[0].number <= after + 1
        lines = {line.number: line for line in (*(() if complete else self._sessions.earlier_lines(session)), *held)}
        return [lines[number] for number in sorted(lines) if number > after][-LOG_LINES:]

    def sessions(self, owners: Collection[str], before: tuple[float, str] | None = None) -> Listing:
        """The owners' sessions, newest first, LISTED of them; `before` is the `older` of the page before."""
        found = [summary for owner in owners for summary in self._sessions.of_owner(owner, LISTED + 1, before)]
        found.sort(key=lambda summary: summary.position, reverse=True)
        return Listing(found[:LISTED], found[LISTED - 1].position if len(found) > LISTED else None)

    def build_log(self, session: Session) -> str:
        """What the builder of the session's launch said; raises NoBuildLog."""
        found = self._build_logs.get(session.sid, session.generation)
        if found is None:
            raise NoBuildLog("This launch has built nothing, or its log is not kept any more")
        return found

    def images(self, owners: Collection[str]) -> list[SavedImage]:
        """The images that the owners' notebooks were saved as, the last saved first."""
        found = [image for owner in owners for image in self._images.of_owner(owner)]
        return sorted(found, key=lambda image: image.saved_at, reverse=True)[:LISTED]

    def built(self, owners: Collection[str], endpoint: str | None = None) -> list[BuiltImage]:
        """The images that were built for the owners, on that endpoint or on all (None), the last used first."""
        found = [image for owner in owners for image in self._images.built_of(owner)]
        there = [image for image in found if endpoint in (None, image.endpoint)]
        return sorted(there, key=lambda image: image.used_at, reverse=True)

    def enter(self, session: Session, sign_in: SignIn) -> Entry:
        """Make a one-time ticket of 60 seconds for a browser that is signed in; raises SessionNotReady."""
        if session.phase is not Phase.READY:
            raise SessionNotReady("The notebook cannot be entered now; its page says what it is doing")
        ticket = self._secret()
        path = _opened(session.open_path)
        self._tokens.put_ticket(ticket, session, sign_in, path=path, expires_at=self._clock() + TICKET_SECONDS)
        self.ask_for_look(session)
        return Entry(f"{self.config.notebook_origin(session.host)}/.homeport/enter", ticket, path)

    def ask_for_look(self, session: Session) -> None:
        """Have a ready notebook looked at now, as its visitor does; at most once a minute, and as well as it goes."""
        with suppress(StoreUnavailable):
            if session.state is State.READY and not session.newer and self._sessions.may_ask_for_look(session.sid):
                self._enqueue(TickMessage(session.sid), lane=Lane.WATCH, delay=0.0)

    def stop(self, session: Session, *, keep: bool | None = None) -> Session:
        """Have the notebook stopped; one on its way out goes on at once, one that is gone is left alone.

        `keep`: the credentials are kept until the session expires (None: if that was chosen at its launch). They are
        kept no longer if what has stopped is stopped again.
        """
        if session.state is State.STOPPED or (session.state is State.KEPT and keep):
            return session
        return self._have_done(session, StopRequested(keep))

    def launch_again(self, session: Session, source: str = "") -> Session:
        """Have the notebook launched again with the stored credentials, once it has stopped.

        Raises CredentialsNeeded, SessionOfLaterVersion, and what the operator does not allow (any more).
        """
        _refuse_newer(session)
        if not session.credentials_held or session.state is State.FORGETTING or is_purged(session):
            raise CredentialsNeeded(
                "This hub has no credentials for this notebook any more. Launch it again with its bundle, under the "
                "same name"
            )
        until = session.longest_until or session.expires_at
        if until <= self._clock() + self.config.session_lifetime / LEAST_SHARE:
            raise CredentialsNeeded(
                "The credentials were uploaded too long ago to be used for another launch. Upload them again: launch "
                "with the same bundle and name"
            )
        self._check_asked(session.limits, session.options)
        self.check_program(session.repository, session.content, session.image)
        self._admit(session.owner, session)
        after = self._have_done(session, AgainRequested(launch_label(self._secret()), source))
        self._metrics.put({Metric.LAUNCHES: 1}, session=session.sid)
        return after

    def keep_longer(self, session: Session) -> Session:
        """Have a ready notebook kept for a session's lifetime from now, as far as it may be.

        Raises SessionNotReady, LongestLifeReached, SessionOfLaterVersion.
        """
        _refuse_newer(session)
        if not accepts(session, ExtendRequested):
            raise SessionNotReady("Only a notebook that is ready, and not busy with anything else, can be kept longer")
        if session.longest_until <= session.expires_at:
            raise LongestLifeReached(
                "This notebook cannot be kept any longer. Save your work: it stays in its volume, and you can launch "
                "the notebook again"
            )
        return self._have_done(session, ExtendRequested(self._clock() + self.config.session_lifetime))

    def save_as(self, session: Session, image: str) -> Session:
        """Have the container of a ready notebook saved as an image of that name, on its endpoint.

        Raises SessionOfLaterVersion, SessionNotReady, CredentialsNeeded, VariablesWouldBeSaved, ImageNotAllowed.
        """
        _refuse_newer(session)
        if session.state is State.SAVING and session.saving == image:
            return session
        if session.state is not State.READY:
            raise SessionNotReady("Only a notebook that is ready, and not busy with anything else, can be saved")
        if not session.credentials_held:
            raise CredentialsNeeded(
                "This hub has no credentials for this notebook any more. Launch it with its bundle and the same name, "
                "then save it"
            )
        if session.options.environment:
            raise VariablesWouldBeSaved(
                "This notebook was launched with variables, and an engine writes their values into an image. Launch it "
                "without them to save it"
            )
        self._check_image(image)
        return self._have_done(session, SaveRequested(image))

    def remove_images(self, session: Session, images: str) -> Session:
        """Have images that were built on the endpoint of a ready notebook removed: one by its name, or ALL_IMAGES.

        Raises SessionOfLaterVersion, SessionNotReady, CredentialsNeeded.
        """
        _refuse_newer(session)
        if session.state is State.TIDYING and session.tidying == images:
            return session
        if session.state is not State.READY:
            raise SessionNotReady(
                "Images are removed through a notebook on their endpoint that is ready, and not busy with anything else"
            )
        if not session.credentials_held:
            raise CredentialsNeeded(
                "This hub has no credentials for this notebook any more. Launch a notebook on that endpoint, or this "
                "one with its bundle and the same name, then remove the images"
            )
        return self._have_done(session, TidyRequested(images))

    def delete(self, session: Session, form: Deletion) -> Session:
        """Have the notebook stopped, and its volume removed with all files in it.

        Raises NameNotTyped, SessionOfLaterVersion; CredentialsNeeded if the form holds no bundle and the hub no
        credentials; OwnersDisagree, EndpointsDisagree, and what `parse` raises; StoreUnavailable, StoreRefused.
        """
        if form.name != session.name:
            raise NameNotTyped("To delete the notebook and all of its files, type its name exactly as it is shown")
        _refuse_newer(session)
        if session.state is State.STOPPED and session.summary.deleted:
            return session
        if session.credentials_held and session.state is not State.FORGETTING:
            return self._have_done(session, DeleteRequested())
        if form.bundle is None:
            raise CredentialsNeeded(
                "This hub has no credentials for this notebook any more. Choose its bundle, too, so that the volume "
                "can be removed"
            )
        bundle = parse(form.bundle, host=session.endpoint, now=self._clock())
        self._check_address(bundle.credentials.endpoint)
        _check_same(session, bundle)
        return self._delete_with(session, bundle)

    def forget(self, session: Session) -> Session:
        """Have the credentials deleted and the notebook kept; raises SessionNotReady, SessionOfLaterVersion."""
        if not session.credentials_held:
            return session
        _refuse_newer(session)
        if session.phase is not Phase.READY and session.state is not State.KEPT:
            raise SessionNotReady(
                "The credentials are needed until the notebook is ready. You can forget them after that, or stop the "
                "notebook now"
            )
        return self._have_done(session, ForgetRequested())

    def sign_ins_of(self, token: str) -> Mapping[str, SignIn]:
        """The sign-ins a token stands for, by owner; none if it is not known, or its time is over."""
        return self._tokens.sign_ins_of(token)

    def token_for(self, owner: str, others: Mapping[str, SignIn] = MappingProxyType({})) -> str:
        """Make a token for the owner, whose key was just shown, and for the browser's other sign-ins as they are.

        The token that the browser showed stays as it is: the answer with the new one may be lost, or come to one of two
        tabs before that of another launch. It renews nothing, and the browser's sign-out ends both.
        """
        token = self._secret()
        browser = next((sign_in.browser for sign_in in others.values()), digest_of(token))
        latest = sorted(others.values(), key=lambda sign_in: sign_in.shown_at, reverse=True)
        kept = [sign_in for sign_in in latest if sign_in.owner != owner][: OWNERS_PER_TOKEN - 1]
        self._tokens.put_token(token, [SignIn(browser, owner, int(self._clock() * 1000)), *kept])
        return token

    def sign_out(self, token: str, *, everywhere: bool) -> None:
        """Sign the token's browser out; `everywhere`: and whoever else signed in as one of those it stands for."""
        browser = self._tokens.browser_of(token)
        if browser is not None:
            self._tokens.sign_out(browser, self._tokens.sign_ins_of(token) if everywhere else ())

    def _wake(self, session: Session) -> None:
        """Have the session driven on at once; if the queue does not answer, the schedule does it a minute late."""
        with suppress(StoreUnavailable):
            self._enqueue(TickMessage(session.sid), lane=lane_of(session), delay=0.0)

    def check_program(self, repository: Source | None, content: Source | None, image: str) -> None:
        """Refuse what is to be launched if the operator does not allow it.

        Raises RepositoryNotAllowed, ImageNotAllowed.
        """
        for source in (repository, content):
            if source is None:
                continue
            if not self.config.launches_repositories:
                raise RepositoryNotAllowed("This hub launches no repositories. Launch an image")
            if not is_repository_allowed(source, self.config.repositories, self.config.banned_repositories):
                allowed = one_line(", ".join(self.config.repositories), ALLOWED_LENGTH)
                raise RepositoryNotAllowed(
                    f"This hub does not allow the repository {shown(source)}."
                    + (f" Allowed are: {allowed}" if allowed else "")
                )
        if repository is None:
            self._check_image(image)

    def _check_asked(self, limits: Limits, options: Options) -> None:
        """Refuse what the operator does not allow of limits and options; raises LimitTooHigh, DataNotAllowed."""
        allowance = self.config.allowance
        for most in allowance.exceeded(limits):
            raise LimitTooHigh(f"This hub allows a notebook at most {most}. Ask for less")
        if options.data and not allowance.data:
            raise DataNotAllowed("This hub lets notebooks have no directory of the endpoint's host. Launch without one")

    def _check_image(self, image: str) -> None:
        """Refuse an image that the operator does not allow; raises ImageNotAllowed."""
        allowance = self.config.allowance
        if image != self.config.image and allowance.images and not is_allowed(parse_image(image), allowance.images):
            allowed = one_line(", ".join((self.config.image, *allowance.images)), ALLOWED_LENGTH)
            raise ImageNotAllowed(f"This hub does not allow that image. Allowed are: {allowed}")

    def _check_address(self, endpoint: Endpoint) -> None:
        """Refuse at once what can be refused without asking a name server; the launcher checks every answer."""
        policy = self.config.address_policy
        policy.check_port(endpoint)
        try:
            literal = str(ip_address(endpoint.host))
        except ValueError:
            return
        policy.check([literal])

    def _launch(self, form: Launch, bundle: Bundle, source: str, request: str) -> Launched:
        # Another request, or the launcher, may write between this read and our save. Then the save raises StaleSession
        # and `launch` comes here again, to decide by what is stored then.
        present = self._sessions.find(session_id(bundle.owner, form.name))
        if present is not None and present.written_by == request:
            return self._store_and_start(present, bundle, form)  # written before, and only the answer was lost
        if present is None or present.phase is Phase.STOPPED:
            return self._begin(form, bundle, source, request, present)
        if present.phase is Phase.LEAVING:
            raise SessionLeaving(f"“{present.name}” is being stopped. Launch it again in a few seconds")
        return self._rejoin(present, bundle, form)

    def _admit(self, owner: str, session: Session | None) -> None:
        """Count another launch, of a session that is there already or is not.

        Raises LaunchesClosed, HubFull, TooManyNotebooks, TooManyLaunches.
        """
        door = self._door.read(counted=self.config.sessions_limit is not None)
        if door.message:
            raise LaunchesClosed(f"This hub launches no notebooks at the moment. {door.message}")
        if (session is None or session.state is State.STOPPED) and door.holds(
            self.config.sessions_limit, self._clock()
        ):
            raise HubFull(
                f"This hub has {self.config.sessions_limit} notebooks, the most that it allows at once. Launch yours "
                "again when others have ended"
            )
        most = self.config.owner_sessions
        if most is not None and (session is None or session.phase is Phase.STOPPED):
            latest = self._sessions.of_owner(owner, SESSIONS_MOST, None)
            if sum(summary.phase is not Phase.STOPPED for summary in latest) >= most:
                raise TooManyNotebooks(
                    f"You have {most} notebooks that have not ended, the most that this hub allows for one key. Stop "
                    "one of them first"
                )
        rate = self.config.owner_rate
        if rate is not None and (late := self._door.take(f"owner {owner}", rate)):
            raise TooManyLaunches(
                f"You have launched more often than this hub allows for one key in an hour ({rate.count}). Try again "
                f"{_in(late)}",
                math.ceil(late),
            )

    def _begin(self, form: Launch, bundle: Bundle, source: str, request: str, previous: Session | None) -> Launched:
        """Write a launch down, then store its credentials, so that there are none that no session names.

        Where credentials were kept there is a session that names them, and the new ones replace them first.
        """
        self._admit(bundle.owner, previous)
        replaces = previous is not None and previous.state is State.KEPT
        if previous is not None and replaces:
            self._store_credentials(previous, bundle, form.environment)
        session = new_session(
            owner=bundle.owner,
            name=form.name,
            endpoint=str(bundle.credentials.endpoint),
            image="" if form.repository else form.image or self.config.image,
            repository=form.repository,
            content=form.content,
            builder=self.config.builder if form.repository or form.content else "",
            limits=self.config.allowance.settled(form.limits),
            options=form.options,
            open_path=form.open_path,
            source=source,
            keeps=form.keep,
            now=self._clock(),
            lifetime=self.config.session_lifetime,
            longest=self.config.longest_lifetime,
            request=request,
            label=launch_label(self._secret()),
            previous=previous,
        )
        self._sessions.save(session)
        self._metrics.put({Metric.LAUNCHES: 1}, session=session.sid)
        if not replaces:
            return self._store_and_start(session, bundle, form)
        self._wake(session)
        return Launched(session, bundle, created=True)

    def _store_and_start(self, session: Session, bundle: Bundle, form: Launch) -> Launched:
        """Seal the credentials for a session that is already written down, and have it driven on."""
        try:
            self._store_credentials(session, bundle, form.environment)
        except (StoreUnavailable, StoreRefused) as error:
            self._have_done(session, EffectFailed(Failure(error.code, error.message)))
            self._metrics.put({Metric.FAILURES: 1}, session=session.sid, state=str(session.state), code=error.code)
            raise
        self._wake(session)
        return Launched(session, bundle, created=True)

    def _rejoin(self, session: Session, bundle: Bundle, form: Launch) -> Launched:
        lost = session.last_problem is not None and session.last_problem.code == CredentialsMissing.code
        wanted = lost or not session.credentials_held
        brought = str(bundle.credentials.endpoint)
        if not accepts(session, CredentialsRenewed):
            return Launched(session, bundle, created=False)
        if brought == session.endpoint:
            if wanted:
                session = self._save_event(session, CredentialsRenewed())
            # Also if they should be there: the upload that was to store them may have been cut off just before. What is
            # launched gets no other variables than it was launched with: those are missed if they are not there.
            plain = form.options == session.options and not session.options.environment
            if wanted or session.state is State.READY or plain:
                self._store_credentials(session, bundle, form.environment)
            if wanted:
                self._wake(session)
        elif wanted:  # the container is on another one
            raise EndpointsDisagree(
                f"“{session.name}” is on {session.endpoint}, and this bundle is for {brought}. "
                "Use the bundle it was launched with, or choose another name"
            )
        return Launched(session, bundle, created=False)

    def _delete_with(self, session: Session, bundle: Bundle) -> Session:
        """Have a session deleted whose credentials were uploaded for that.

        No tick may look for them before they are stored, so the session is held meanwhile, as by a tick. A request
        that is cut off leaves it to end by itself, without credentials.
        """
        if session.state is not State.STOPPED:  # they were forgotten while it ran
            session = self._save_event(session, CredentialsRenewed())
            self._store_credentials(session, bundle, {})
            return self._have_done(session, DeleteRequested())
        request, now = self._secret(), self._clock()
        held = advance(session, DeleteRequested(), now)
        held = replace(held, written_by=request, lease_expires_at=now + LEASE_SECONDS)
        self._sessions.save(held)
        try:
            self._credentials.put(held.sid, held.credentials_of, held.owner, bundle.credentials)
        except (StoreUnavailable, StoreRefused) as error:
            self._have_done(held, EffectFailed(Failure(error.code, error.message)))
            raise
        free = released(held)
        with suppress(StaleSession):  # it was changed meanwhile, and so goes on
            self._sessions.save(free)
        self._wake(free)
        return free

    def _store_credentials(self, session: Session, bundle: Bundle, environment: Mapping[str, str]) -> None:
        """Seal the credentials, and variables with them.

        If they are not wanted any more by then, see to it that they are purged after all.
        """
        try:
            sealed = replace(bundle.credentials, environment=environment)
            self._credentials.put(session.sid, session.credentials_of, session.owner, sealed)
        finally:  # a store that gave no answer may have stored them too
            self._purge_if_late(session.sid)

    def _purge_if_late(self, sid: str) -> None:
        # While they were sealed, somebody may have pressed Stop or Forget, and the launcher may have purged already:
        # then what was just stored would stay. So the session is read once more, and purged once more if need be.
        present = self._sessions.load(sid)
        if present.phase in (Phase.LEAVING, Phase.STOPPED) and present.state is not State.KEPT:
            self._have_done(present, CredentialsStoredLate())
        elif present.state is State.FORGETTING or not present.credentials_held:
            self._have_done(present, ForgetRequested())

    def _have_done(self, session: Session, event: Event) -> Session:
        """Save what the visitor wants, and have it done at once."""
        after = self._save_event(session, event)
        self._wake(after)
        return after

    def _save_event(self, session: Session, event: Event) -> Session:
        """Save what the visitor wants, whatever the launcher saves meanwhile."""
        for _ in range(RACES):
            if not accepts(session, type(event)):
                return session  # what was wanted has been overtaken
            after = advance(session, event, self._clock())
            try:
                self._sessions.save(after)
            except StaleSession:
                session = self._sessions.load(session.sid)
                continue
            return after
        raise StoreUnavailable("Other requests are changing this session; try again")
