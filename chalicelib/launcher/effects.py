"""Everything the launcher can do to the outside: one match from effects to the events they cause.

One Effects object serves one tick of one session. How it comes to the endpoint, and when it may, is visit.py; what is
done for repositories is repositories.py, and for an image that a notebook is saved as saving.py.

Sweeping (docs/adr/0010). A container may be left on an endpoint by a launch that is over: the credentials were
forgotten, the endpoint was away for too long, a creation took longer than anybody waited. So whenever the endpoint of
a session is open and all is well there (verified, answering again, removed), the other containers of this hub and this
owner are listed by their labels, and those are removed whose launch is over as the hub's table says it. One that the
table does not know is left alone: its labels may be all that is left of its session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from traceback import walk_tb
from types import MappingProxyType
from typing import Final, assert_never

from chalicelib.aws.errors import CredentialsMissing, StoreRefused, StoreUnavailable
from chalicelib.aws.slots import Pool
from chalicelib.bundle.errors import ForbiddenAddress
from chalicelib.config import Config
from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.engine.errors import (
    ContainerConflict,
    EndpointError,
    ImageMissing,
    NodeForbidden,
    NotebookSilent,
    NotebookWrongCertificate,
)
from chalicelib.engine.messages import quoted
from chalicelib.engine.ownership import LaunchThere
from chalicelib.engine.probe import probe
from chalicelib.engine.pull import ANSWER_SECONDS as FIRST_LAYER_SECONDS
from chalicelib.engine.pull_progress import of_the_rest
from chalicelib.engine.resolve import resolve
from chalicelib.errors import BadConfiguration, HomeportError
from chalicelib.launcher.ended import exit_event, not_running
from chalicelib.launcher.errors import (
    CreationUnsettled,
    CredentialsForgotten,
    InternalError,
    NotItsTurn,
    VariablesMissing,
)
from chalicelib.launcher.outside import (
    BuildLogs,
    Connect,
    CredentialsAccess,
    Engine,
    Images,
    Probe,
    Resolve,
    Routes,
    Slots,
)
from chalicelib.launcher.repositories import Repositories
from chalicelib.launcher.saving import Saving
from chalicelib.launcher.visit import Visit, own_container
from chalicelib.notebook.certificates import HubTrust, Leaf, issue_notebook
from chalicelib.notebook.container import hub_label, injected_files, specification
from chalicelib.session import events as e
from chalicelib.session.admission import slot_of
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.events import Effect, Event
from chalicelib.session.lease import EFFECT_SECONDS, SAVE_SECONDS
from chalicelib.session.values import Failure, Phase, PullPolicy, Session, State, Target, container_name

ANSWER_SECONDS: Final[Mapping[type[Effect], float]] = MappingProxyType(  # of effects that only ask
    {e.VerifyEndpoint: 10.0, e.FindImage: 10.0, e.LookAtNotebook: 15.0}
)
LOOK_SECONDS: Final = 5.0  # of a look, for the notebook; the rest is for the endpoint
PROBE_SECONDS: Final = 8.0  # the first waiting for JupyterLab, which answers about a second after start
PROBE_PAUSE: Final = 0.05
LEAST_SECONDS: Final = 1.0  # what each of these questions gets at least
IDLE_SLACK: Final = 90.0  # seconds after which Jupyter, which checks once a minute, has ended an idle notebook
SLOT_SECONDS: Final = 960.0  # above what a function may take, so that a pull at work never loses its slot
ADDRESS_LENGTH: Final = 45  # characters; the longest way to write an IPv6 address
LEAF_SLACK: Final = 86400.0  # a notebook's certificate outlives its session by a day, in seconds

log = logging.getLogger("homeport.launcher")


class Effects:
    """The outside as one session's tick sees it."""

    def __init__(
        self,
        *,
        config: Config,
        credentials: CredentialsAccess,
        routes: Routes,
        slots: Slots,
        images: Images,
        build_logs: BuildLogs,
        trust: Callable[[], HubTrust],
        find_session: Callable[[str], Session | None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        connect: Connect = DockerEndpoint,
        resolve: Resolve = resolve,
        probe: Probe = probe,
        program: bytes = b"",
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._routes = routes
        self._slots = slots
        self._trust = trust
        self._find_session = find_session
        self._clock = clock
        self._sleep = sleep
        self._ask_notebook = probe
        self._visit = Visit(
            config=config, credentials=credentials, slots=slots, clock=clock, connect=connect, resolve=resolve
        )
        self._saving = Saving(self._visit, images=images, clock=clock, leaf=self._leaf)
        self._repositories = Repositories(
            self._visit,
            config=config,
            slots=slots,
            images=images,
            build_logs=build_logs,
            find_session=find_session,
            clock=clock,
            sleep=sleep,
            program=program,
        )

    def perform(self, effect: Effect, session: Session) -> Generator[Event, None, None]:
        """Do it, and yield what happened; the last event is the outcome, those before it are progress.

        A HomeportError becomes EffectDelayed or EffectFailed, as the error's class says, and so does a defect: a tick
        that raised each time would be repeated for ever. Raises BadConfiguration, which is all sessions' problem and
        none's fault. Safe to repeat. After the outcome the endpoint may be swept; what fails in that counts for
        nothing.
        """
        error: HomeportError | None = None
        now = self._clock()
        ends_by = now + seconds_of(effect)
        if session.lease_expires_at and not isinstance(effect, e.SaveImage):  # a save that took long leaves it less
            ends_by = min(ends_by, session.lease_expires_at)
        self._visit.begin(ends_by)
        try:
            with closing(self._perform(effect, session)) as events:
                for event in events:
                    self._note_if_slow(effect, session, error)  # before the save: that may be lost, to a Stop for one
                    with self._visit.asking(False):
                        yield event
        except BadConfiguration:
            raise
        except Exception as raised:  # noqa: BLE001 - whatever it is: see above
            error = _error_of(effect, session, raised)
        self._note_if_slow(effect, session, error)
        if error is not None:
            yield self._event_of(effect, session, error)

    def _perform(self, effect: Effect, session: Session) -> Generator[Event, None, None]:  # noqa: C901 - one arm per effect
        match effect:
            case e.VerifyEndpoint():
                yield from self._verify(session)
            case e.FindImage():
                yield self._find_image(session)
            case e.PullImage(joins=joins):
                yield from self._pull_image(session, joins=joins)
            case e.ResolveVersions():
                yield from self._repositories.resolve_versions(session)
            case e.BuildImage():
                yield from self._repositories.build_image(session)
            case e.CreateContainer():
                yield self._create(session)
            case e.CloneFiles():
                yield from self._repositories.clone_files(session)
            case e.StartContainer():
                yield self._start(session)
            case e.ProbeNotebook():
                yield self._probe(session)
            case e.PublishRoute():
                if session.state is State.REPUBLISHING:  # its end may be another one
                    self._repositories.take_places(session)
                self._routes.publish(session)
                yield e.RoutePublished()
            case e.LookAtNotebook():
                yield from self._look(session)
            case e.SaveImage():
                yield from self._saving.save(session)
            case e.RemoveImages():
                yield from self._repositories.remove_images(session)
            case e.WithdrawRoute():
                self._routes.withdraw(session)
                if session.progressed_at and session.container is None:  # it pulled; no tick may be at work on it
                    self._visit.give_back(Pool.PULL, session)
                yield e.RouteWithdrawn()
            case e.RemoveContainer():
                yield from self._remove(session)
            case e.ForgetCredentials():
                yield self._purge(session)
            case e.PurgeCredentials():
                purged = self._purge(session)
                self._repositories.give_places_back(session)
                yield purged
            case e.KeepCredentials():
                is_there = self._credentials.holds(session.sid, session.credentials_of)
                ended = e.CredentialsKept() if is_there else self._purge(session)
                if not (is_there and session.again):  # the next launch has its places
                    self._repositories.give_places_back(session)
                yield ended
            case e.LaunchAgain():
                yield e.LaunchedAgain(self._config.session_lifetime)
            case _:
                assert_never(effect)

    def _purge(self, session: Session) -> Event:
        self._visit.forget()
        self._credentials.purge(session.sid, session.generation)
        return e.CredentialsPurged()

    def _event_of(self, effect: Effect, session: Session, error: HomeportError) -> Event:
        if isinstance(error, NotItsTurn) and session.phase is not Phase.LEAVING:
            return e.Queued(error.message)
        failure = Failure(error.code, self._visit.masked(error.message))
        if not _is_tried_again(effect, error):
            return e.EffectFailed(failure)
        return e.EffectDelayed(failure, ours=isinstance(error, StoreUnavailable | StoreRefused))

    def _note_if_slow(self, effect: Effect, session: Session, error: HomeportError | None) -> None:
        if not isinstance(effect, e.PullImage):  # it has a lane of its own
            self._visit.note_if_slow(session, failed=error is not None)

    # ── the visitor's endpoint ──

    def _verify(self, session: Session) -> Generator[Event, None, None]:
        session = replace(session, hub=hub_label(self._config.hub_name, self._trust().notebook_ca))
        with self._visit.endpoint(session) as endpoint:
            engine, note = endpoint.verify()
            there = self._launches_there(endpoint, session)
            of_session = (launch for launch in there if launch.sid == session.sid and not launch.helper)
            own = max(of_session, key=_number, default=None)
            if own is not None and session.generation == 1 and self._is_lost(own):
                yield self._found(endpoint.address, engine, session, own)
            else:
                endpoint.check_limits(self._config.allowance.asked(session.limits))
                past = own.generation if own is not None and own.generation >= session.generation else 0
                yield e.EndpointVerified(endpoint.address, engine, note, session.hub, past)
            self._sweep(endpoint, session, there)

    def _launches_there(self, endpoint: Engine, session: Session) -> Sequence[LaunchThere]:
        """The launches of the owner on the endpoint; none if it does not list them. A session's first asks twice."""
        for _ in range(2 if session.generation == 1 else 1):
            with suppress(EndpointError):
                return endpoint.launches(session.owner)
        return ()

    def _found(self, address: str, engine: str, session: Session, launch: LaunchThere) -> Event:
        """What is believed of the launch that was found: no longer a life than a new one would have."""
        now = self._clock()
        return e.NotebookFound(
            address=address,
            engine=engine,
            hub=session.hub,
            generation=launch.generation,
            label=launch.label,
            image=launch.image,
            expires_at=min(launch.expires_at, now + self._config.session_lifetime),
            longest_until=min(launch.longest_until, now + self._config.longest_lifetime),
        )

    def _is_lost(self, launch: LaunchThere) -> bool:
        """Say whether a launch that the table does not know of can go on: it runs, and says all there is to know."""
        return launch.running and launch.label != "" and launch.expires_at > self._clock() + EFFECT_SECONDS

    def _find_image(self, session: Session) -> Event:
        policy = PullPolicy.MISSING if session.wanted_image == session.builder else session.options.pull
        # Once it waits, the image was not there a moment ago, and the pull looks for it once more.
        if policy is PullPolicy.NEVER or (policy is PullPolicy.MISSING and not session.pull_waits):
            with self._visit.endpoint(session) as endpoint:
                if endpoint.image_present(session.wanted_image):
                    return _present(session)
        if policy is PullPolicy.NEVER:
            raise ImageMissing(
                "The image is not on the endpoint, and this launch is not to pull it. Pull it there yourself, or "
                "launch again and let it be pulled"
            )
        return self._take_pull(session) or e.PullAdmitted()

    def _take_pull(self, session: Session) -> Event | None:
        """Take the slot of a pull, or renew it for a new function; PullQueued when there is none."""
        slot = slot_of(session, self._clock() + SLOT_SECONDS)
        crowd = self._visit.take(Pool.PULL, session, slot, self._config.pull_quota)
        if crowd:
            return e.PullQueued(f"Waiting to pull the image: {crowd.count} other pulls {crowd.what} are under way")
        return None

    def _take_handover(self, session: Session) -> None:
        """Take the turn of taking a pull over, for as long as it takes to join it; raises NotItsTurn.

        There are few functions for it, and an engine that is slow to let a pull join holds one. So one tick at a time
        tries it with a pull, and an owner's or a network's pulls leave half of the functions to everybody else's.
        """
        if session.sid in self._slots.held(Pool.HANDOVER):
            raise NotItsTurn("Another function is taking this pull over")
        slot = slot_of(session, self._visit.ends_by)
        crowd = self._visit.take(Pool.HANDOVER, session, slot, self._config.handover_quota)
        if crowd:
            raise NotItsTurn(f"{crowd.count} other pulls {crowd.what} are being taken over; this one is after them")

    def _pull_image(self, session: Session, *, joins: bool) -> Generator[Event, None, None]:
        if queued := self._take_pull(session):
            yield queued
            return
        if joins:
            self._take_handover(session)
        with self._visit.endpoint(session) as endpoint:
            image = session.wanted_image
            anew = session.options.pull is PullPolicy.ALWAYS and image != session.builder
            if anew or not endpoint.image_present(image):
                first: float | None = None
                within = self._visit.ends_by - self._clock() if joins else FIRST_LAYER_SECONDS
                with closing(endpoint.pull(image, answer_within=within)) as statuses:
                    for status in statuses:
                        if self._visit.has(Pool.HANDOVER):  # it has joined
                            self._visit.give_back(Pool.HANDOVER, session)
                        first = status.fraction if first is None else first
                        # Another pull of this launch saw more bytes arrive: those of this one alone would fall.
                        loaded = status.loaded if session.fraction is None else ""
                        fraction = of_the_rest(session.fraction, first, status.fraction)
                        yield e.PullProgressed(fraction, f"{status.line}{loaded}", status.pace)
            yield _present(session)

    def close(self) -> None:
        """Forget the credentials, and the connection that was made with them."""
        self._visit.forget()

    def end_tick(self, session: Session) -> None:
        """Give back what the tick has taken, but for the slot of a pull that goes on; what fails ends by itself."""
        self._visit.end(session)

    # ── the container ──

    def _create(self, session: Session) -> Event:
        with self._visit.endpoint(session) as endpoint:
            image = endpoint.image_config(session.image)
            container = specification(
                session,
                hub_name=self._visit.hub_of(session),
                image_workdir=image.workdir,
                # Where the engine binds the notebook's port: loopback stays on loopback, otherwise every address.
                publish_address=endpoint.address if ip_address(endpoint.address).is_loopback else "",
                idle_lifetime=self._config.idle_lifetime,
                quick_start=self._config.quick_start,
                variables=self._variables(session),
            )
            endpoint.create(container)
            if endpoint.inspect(container.name).status == "created":
                user = endpoint.user_number(container.name, image.user)
                endpoint.put_files(container.name, self._files(session, workdir=container.workdir, user=user))
            return e.ContainerAwaitsFiles() if session.content else e.ContainerCreated()

    def _variables(self, session: Session) -> Mapping[str, str]:
        """The variables that the launch asked for; their values were opened with the credentials."""
        sealed = self._visit.variables
        if missing := [name for name in session.options.environment if name not in sealed]:
            raise VariablesMissing(
                f"The value of {missing[0]} is not stored any more. Stop the notebook and launch again"
            )
        return {name: sealed[name] for name in session.options.environment}

    def _files(self, session: Session, *, workdir: str, user: str) -> bytes:
        return injected_files(
            session,
            workdir=workdir,
            user=user,
            leaf=self._leaf(session),
            client_ca=self._trust().client_ca,
            idle_lifetime=self._config.idle_lifetime,
        )

    def _leaf(self, session: Session) -> Leaf:
        now = self._clock()
        lifetime = max(session.expires_at - now, session.longest_until - now, 0.0) + LEAF_SLACK
        return issue_notebook(self._trust().notebook_ca, session.host, now=now, lifetime=lifetime)

    def _start(self, session: Session) -> Event:
        name = own_container(session)
        with self._visit.endpoint(session) as endpoint:
            endpoint.start(name)
            status = endpoint.inspect(name)
            if not status.running:
                raise not_running(endpoint, name, status, self._visit.masked)
            return e.ContainerStarted(self._published(endpoint, name))

    def _published(self, endpoint: Engine, name: str) -> Target:
        target = endpoint.published(name)
        return target if target.address == endpoint.address else self._on_node(target)

    def _on_node(self, target: Target) -> Target:
        """A target that is another machine than the endpoint, its address checked; raises NodeForbidden."""
        try:
            return replace(target, address=self._config.address_policy.check([target.address]))
        except ForbiddenAddress as error:
            node = quoted(target.address, ADDRESS_LENGTH)
            raise NodeForbidden(
                f"The endpoint is a cluster and runs the notebook on its node {node}, an address to which this hub "
                "does not connect. Use nodes with public addresses, or ask the hub's operator to allow their network"
            ) from error

    def _look(self, session: Session) -> Generator[Event, None, None]:
        """Ask the notebook, and if it does not answer the endpoint why; when it answers again, sweep the endpoint."""
        self._visit.await_turn(session)
        try:
            with self._visit.asking():
                idle_since = self._ask_notebook(*self._notebook(session), deadline=LOOK_SECONDS)
        except (NotebookSilent, NotebookWrongCertificate) as error:
            if not session.credentials_held:
                raise
            yield self._exited(session, error)
            return
        yield e.NotebookAnswered(idle_since and idle_since + self._config.idle_lifetime + IDLE_SLACK)
        if session.last_problem and session.credentials_held:
            with suppress(HomeportError), self._visit.endpoint(session) as endpoint:
                self._sweep(endpoint, session)

    def _exited(self, session: Session, silent: EndpointError) -> Event:
        """Say how the container of a notebook that does not answer has ended, or to which port it has moved.

        Raises `silent` if it runs and answers nowhere.
        """
        name = own_container(session)
        with self._visit.endpoint(session) as endpoint:
            status = endpoint.inspect(name)
            if not status.running:
                return exit_event(endpoint, name, status, self._visit.masked)
            target = self._published(endpoint, name)
        if target != session.target:
            with suppress(EndpointError), self._visit.asking():
                self._ask_notebook(target, session.host, self._trust(), deadline=LOOK_SECONDS)
                return e.NotebookMoved(target)
        raise silent

    def _remove(self, session: Session) -> Generator[Event, None, None]:
        helped = session.helper != "" or session.versions != ()
        if session.container is None and not helped and not session.deletes:
            yield e.ContainerRemoved()
            return
        if not session.credentials_held:
            raise CredentialsForgotten("Your credentials were deleted, so the hub could not remove the container")
        with self._visit.endpoint(session) as endpoint:
            if session.helper or (helped and session.creations > 1):
                self._remove_settled(session, partial(self._repositories.remove_helpers, endpoint, session))
            elif helped:
                self._repositories.remove_helpers(endpoint, session)
            if session.container is not None:
                self._remove_settled(session, partial(self._remove_own, endpoint, session, session.container))
            if session.deletes:
                endpoint.remove_volume(session.sid, session.owner)
            yield e.ContainerRemoved()
            self._sweep(endpoint, session)

    def _remove_settled(self, session: Session, remove: Callable[[], bool]) -> None:
        """Remove a container of the session's; raises CreationUnsettled while it may still appear."""
        settled = self._clock() >= session.unsettled_until
        was_there = remove()
        if not settled and not (was_there and session.creations == 1):
            raise CreationUnsettled(
                "The endpoint gave no answer when it was asked to create the container, so it may still do so. The "
                "hub looks for it for some minutes and removes it"
            )

    def _remove_own(self, endpoint: Engine, session: Session, container: str) -> bool:
        """Remove the session's container, and say whether it was there."""
        try:
            return endpoint.remove(container)
        except ContainerConflict as error:
            if session.failure is None or session.failure.code != error.code:
                raise
            return False  # somebody else's, and the reason why this launch made none

    def _sweep(self, endpoint: Engine, session: Session, there: Sequence[LaunchThere] | None = None) -> None:
        """Remove what launches of the same owner that are over have left, as far as there is time and nothing fails.

        `there` are the launches that were just listed.
        """
        if not session.hub:  # launched by a version whose labels another operator's hub may have, too
            return
        with suppress(HomeportError):
            for launch in endpoint.launches(session.owner) if there is None else there:
                with self._visit.asking(False):
                    found = self._find_session(launch.sid)
                if found is not None and found.owner == session.owner and found.is_past(launch.generation):
                    with suppress(EndpointError):
                        if launch.helper:
                            endpoint.remove_helper(launch.helper, launch.label)
                        else:
                            endpoint.remove(container_name(launch.sid, launch.generation))

    # ── the notebook and its route ──

    def _probe(self, session: Session) -> Event:
        notebook = self._notebook(session)
        self._visit.await_turn(session)
        # Asked again and again by the first tick alone, and only while nothing is slow: it holds its function.
        seconds = 0.0 if session.attempts or self._visit.has_any else PROBE_SECONDS
        try:
            with self._visit.asking():
                self._ask_until(notebook, self._clock() + seconds)
        except NotebookSilent:
            self._raise_unless_running(session)
            raise
        return e.NotebookAnswered()

    def _notebook(self, session: Session) -> tuple[Target, str, HubTrust]:
        """How the session's notebook is asked."""
        if session.target is None:
            raise IllegalTransition("a session without a target cannot be probed")
        return session.target, session.host, self._trust()

    def _ask_until(self, notebook: tuple[Target, str, HubTrust], ends_at: float) -> None:
        """Ask a notebook until it answers, at least once; raises NotebookSilent."""
        while True:
            seconds = max(ends_at - self._clock(), LEAST_SECONDS)
            try:
                self._ask_notebook(*notebook, deadline=seconds)
                return
            except NotebookSilent:
                if self._clock() >= ends_at:
                    raise
            self._sleep(PROBE_PAUSE)

    def _raise_unless_running(self, session: Session) -> None:
        """Say more of a silent notebook whose container does not run; nobody need wait for one that has ended."""
        if session.credentials_held:
            name = own_container(session)
            with self._visit.endpoint(session) as endpoint:
                status = endpoint.inspect(name)
                if not status.running:
                    raise not_running(endpoint, name, status, self._visit.masked)


def _present(session: Session) -> Event:
    """That the wanted image is on the endpoint."""
    return e.BuilderPresent() if session.wanted_image == session.builder else e.ImagePresent()


def seconds_of(effect: Effect) -> float:
    """How long an effect may take; a pull takes longer."""
    return SAVE_SECONDS if isinstance(effect, e.SaveImage) else ANSWER_SECONDS.get(type(effect), EFFECT_SECONDS)


def _error_of(effect: Effect, session: Session, raised: Exception) -> HomeportError:
    """The error itself, or InternalError for a defect. That is logged without its own text, which may hold anything."""
    if isinstance(raised, HomeportError) and not isinstance(raised, IllegalTransition):
        return raised
    *_, (frame, line) = walk_tb(raised.__traceback__)
    what, kind, place = type(effect).__name__, type(raised).__name__, frame.f_globals.get("__name__")
    log.error("session %s: defect in %s, in %s: %s at %s:%d", session.sid, what, session.state, kind, place, line)
    return InternalError("This failed because of a defect in the hub itself. Please tell the hub's operator")


def _number(launch: LaunchThere) -> int:
    return launch.generation


def _is_tried_again(effect: Effect, error: HomeportError) -> bool:
    """Say whether the effect may succeed later, or must: giving it up would do more harm than the error."""
    match effect:
        case e.WithdrawRoute() | e.PurgeCredentials() | e.KeepCredentials() | e.ForgetCredentials():
            return True  # a route or a secret would be left behind
        case e.LookAtNotebook():
            return error.retryable or isinstance(error, EndpointError)  # a working notebook would be taken away
        case e.RemoveContainer():
            return error.retryable and not isinstance(error, CredentialsMissing)  # once purged, they stay away
        case _:
            return error.retryable
