"""The state machine of a session: one total table, pure functions, no I/O.

How to read it

The world is slow, may be silent and may fail; the launcher may be killed between any two instructions. So a session
never remembers what it was doing, only what *state* it is in. A state stands for one thing that has to be done next:
EFFECTS names it. The launcher performs that effect, the effect ends in an event, and TRANSITIONS says which state the
event leads to. That is all there is:

    session ──next_effect──▶ effect ──performed──▶ event ──advance──▶ session, one version on

`advance` is a function of its arguments: the state of the world enters as an event, the time as a number. Whoever
wants to change a session (the launcher, a visitor who presses Stop, a deadline) makes an event, calls `advance` and
saves the result on condition that the stored version is the one before. Who loses that race loads the session again and
decides again; nothing was done that cannot be done twice. What the visitor reads about it is said in narration.py.

An event that does not lead on leads back: the state's row names the state itself. Those self-loops are news (the pull
got further), requests (Stop, pressed again) or a problem that may pass (EffectDelayed, after which the effect is
repeated). Only what was heard from the endpoint counts as news; patience is counted from there.

Rules

1. TRANSITIONS is the whole truth: an event the state does not list raises IllegalTransition.
2. There is one way out. Failing, stopping, expiring and losing patience all lead to WITHDRAWING, from there to
   REMOVING, PURGING and STOPPED. In STOPPED nothing secret is left; an upload that lost a race against Stop goes
   back to PURGING. Who wants the volume deleted goes that way, too, or from wherever they are on it back to REMOVING.
   Credentials that are to outlive the container, because their owner chose so or is to be launched again, are not
   purged in PURGING: it leads to KEPT then, which ends as the session would have, by expiring, or in the next launch.
3. READY is left only through WITHDRAWING. (REPUBLISHING, after its end or its port has changed, FORGETTING, SAVING and
   TIDYING keep the notebook running and come back. From SAVING and TIDYING even what fails for good, or takes too long,
   leads back: it is told, and takes no notebook away.)
4. The first failure is kept and shown; later ones only add a line to the log. (Who wants it all deleted has done with
   that one: what is told from then on is what keeps it from being deleted.)
5. Effects are safe to repeat, so a lost save costs nothing but the repetition.
6. PATIENCE bounds the endpoint's silence in every state that waits for the endpoint, counted from the first attempt
   that it left without an answer, so that a hub that was down itself, or whose stores were, gives nothing up. Who
   waits for its turn is asked once more before it is given up.
   WITHDRAWING and PURGING wait for those stores and never give up: giving up there would leave a route or a secret
   behind. A pull's status that only repeats itself is silence; that it is another session's turn (Queued) is no news
   either. Who waits for a slot (PullQueued) does not wait for the endpoint.
7. What will exist is written down before it does: entering CREATING records the container's name, and entering a
   state in which a helper is at work that helper's. An engine may go on
   with a creation that the hub has given up. So leaving CREATING records how many may have been sent, and until when
   one that nobody saw answered is waited for: until then REMOVING does not believe that nothing is there.
8. One tick at a time holds a session (lease.py).
9. A ready session is not held: it is looked at again and again, by however many ticks at once, and only news are
   saved (`is_news`). So a look has no effect but to find something out, and costs no write (looks.py).
10. A session that a later version of Homeport stored is left alone until it expires or is stopped: that one may have
   states and effects this one does not know, and a rollback must not end notebooks. From then on it is this one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from chalicelib.repository.source import Source
from chalicelib.repository.tag import build_name
from chalicelib.session import events as e
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.events import Effect, Event
from chalicelib.session.lease import LEASE_SECONDS
from chalicelib.session.narration import (
    LINE_LENGTH,
    begin,
    helped_too_long,
    kept_waiting,
    narrate,
    silence,
    stalled,
    too_long,
)
from chalicelib.session.values import (
    Failure,
    Limits,
    Options,
    Phase,
    Session,
    State,
    container_name,
    helper_name,
    session_id,
)
from chalicelib.text import one_line

_LEAVE: Final[Mapping[type[Event], State]] = {
    e.EffectFailed: State.WITHDRAWING,
    e.PatienceExpired: State.WITHDRAWING,
    e.StopRequested: State.WITHDRAWING,
    e.AgainRequested: State.WITHDRAWING,
    e.DeleteRequested: State.WITHDRAWING,
    e.SessionExpired: State.WITHDRAWING,
}

_AGAIN: Final[Mapping[State, Mapping[type[Event], State]]] = {
    state: {e.Queued: state, e.EffectDelayed: state}
    for state in (
        State.VERIFYING,
        State.PULLING,
        State.RESOLVING,
        State.BUILDING,
        State.CREATING,
        State.CLONING,
        State.STARTING,
        State.PROBING,
        State.SAVING,
        State.TIDYING,
    )
}

_SERVES: Final = frozenset({State.SAVING, State.TIDYING})  # its notebook is ready, and its visitor watches (rule 3)

HELPED: Final = frozenset({State.RESOLVING, State.BUILDING, State.CLONING})  # in which a helper is at work
_HELPS: Final[Mapping[State, Mapping[type[Event], State]]] = {
    state: {e.HelperStarted: state, e.HelperProgressed: state} for state in HELPED
}

_SETTLES_CREATION: Final = (
    e.ContainerCreated,
    e.ContainerAwaitsFiles,
    e.HelperStarted,
    e.ImageBuilt,  # it was there already, and no helper was wanted
    e.EffectFailed,
)
_ENDS_A_NEWER_ONE: Final = frozenset({e.StopRequested, e.SessionExpired})

# fmt: off
TRANSITIONS: Final[Mapping[State, Mapping[type[Event], State]]] = MappingProxyType({
    State.VERIFYING:   {e.EndpointVerified: State.PULLING,
                        e.NotebookFound: State.STARTING,
                        e.CredentialsRenewed: State.VERIFYING, **_AGAIN[State.VERIFYING], **_LEAVE},
    State.PULLING:     {e.PullProgressed: State.PULLING,
                        e.PullAdmitted: State.PULLING,
                        e.PullQueued: State.PULLING,
                        e.ImagePresent: State.CREATING,
                        e.BuilderPresent: State.RESOLVING,
                        **_AGAIN[State.PULLING], **_LEAVE},
    State.RESOLVING:   {e.VersionsResolved: State.BUILDING,
                        e.ContentResolved: State.PULLING,
                        **_HELPS[State.RESOLVING], **_AGAIN[State.RESOLVING], **_LEAVE},
    State.BUILDING:    {e.ImageBuilt: State.CREATING,
                        **_HELPS[State.BUILDING], **_AGAIN[State.BUILDING], **_LEAVE},
    State.CREATING:    {e.ContainerCreated: State.STARTING,
                        e.ContainerAwaitsFiles: State.CLONING,
                        **_AGAIN[State.CREATING], **_LEAVE},
    State.CLONING:     {e.FilesCloned: State.STARTING,
                        **_HELPS[State.CLONING], **_AGAIN[State.CLONING], **_LEAVE},
    State.STARTING:    {e.ContainerStarted: State.PROBING,
                        **_AGAIN[State.STARTING], **_LEAVE},
    State.PROBING:     {e.NotebookAnswered: State.PUBLISHING,
                        **_AGAIN[State.PROBING], **_LEAVE},
    State.PUBLISHING:  {e.RoutePublished: State.READY,
                        e.EffectDelayed: State.PUBLISHING, **_LEAVE},
    State.READY:       {e.NotebookAnswered: State.READY,
                        e.CredentialsRenewed: State.READY,
                        e.Queued: State.READY,
                        e.NotebookMoved: State.REPUBLISHING,
                        e.ExtendRequested: State.REPUBLISHING,
                        e.ForgetRequested: State.FORGETTING,
                        e.SaveRequested: State.SAVING,
                        e.TidyRequested: State.TIDYING,
                        e.ContainerExited: State.WITHDRAWING,
                        e.EffectDelayed: State.READY, **_LEAVE},
    State.REPUBLISHING: {e.RoutePublished: State.READY,
                        e.ExtendRequested: State.REPUBLISHING,
                        e.EffectDelayed: State.REPUBLISHING, **_LEAVE},
    State.FORGETTING:  {e.CredentialsPurged: State.READY,
                        e.ForgetRequested: State.FORGETTING,
                        e.EffectDelayed: State.FORGETTING, **_LEAVE},
    State.SAVING:      {e.CommitSent: State.SAVING,
                        e.SaveProgressed: State.SAVING,
                        e.ImageSaved: State.READY,
                        e.ForgetRequested: State.FORGETTING,
                        **_AGAIN[State.SAVING], **_LEAVE,
                        e.EffectFailed: State.READY,
                        e.PatienceExpired: State.READY},
    State.TIDYING:     {e.ImageRemoved: State.TIDYING,
                        e.ImagesRemoved: State.READY,
                        e.ForgetRequested: State.FORGETTING,
                        **_AGAIN[State.TIDYING], **_LEAVE,
                        e.EffectFailed: State.READY,
                        e.PatienceExpired: State.READY},
    State.WITHDRAWING: {e.RouteWithdrawn: State.REMOVING,
                        e.StopRequested: State.WITHDRAWING,
                        e.AgainRequested: State.WITHDRAWING,
                        e.DeleteRequested: State.WITHDRAWING,
                        e.CredentialsStoredLate: State.WITHDRAWING,
                        e.EffectDelayed: State.WITHDRAWING},
    State.REMOVING:    {e.ContainerRemoved: State.PURGING,
                        e.EffectFailed: State.PURGING,
                        e.PatienceExpired: State.PURGING,
                        e.StopRequested: State.REMOVING,
                        e.AgainRequested: State.REMOVING,
                        e.DeleteRequested: State.REMOVING,
                        e.CredentialsStoredLate: State.REMOVING,
                        e.EffectDelayed: State.REMOVING},
    State.PURGING:     {e.CredentialsPurged: State.STOPPED,
                        e.CredentialsKept: State.KEPT,
                        e.StopRequested: State.PURGING,
                        e.AgainRequested: State.PURGING,
                        e.DeleteRequested: State.REMOVING,
                        e.CredentialsStoredLate: State.PURGING,
                        e.EffectDelayed: State.PURGING},
    State.KEPT:        {e.LaunchedAgain: State.VERIFYING,
                        e.AgainRequested: State.KEPT,
                        e.DeleteRequested: State.REMOVING,
                        e.StopRequested: State.PURGING,
                        e.ForgetRequested: State.PURGING,
                        e.SessionExpired: State.PURGING,
                        e.CredentialsStoredLate: State.KEPT,
                        e.EffectDelayed: State.KEPT},
    State.STOPPED:     {e.DeleteRequested: State.REMOVING,
                        e.CredentialsStoredLate: State.PURGING},
})

EFFECTS: Final[Mapping[State, Effect]] = MappingProxyType({
    State.VERIFYING:   e.VerifyEndpoint(),
    State.PULLING:     e.FindImage(),
    State.RESOLVING:   e.ResolveVersions(),
    State.BUILDING:    e.BuildImage(),
    State.CREATING:    e.CreateContainer(),
    State.CLONING:     e.CloneFiles(),
    State.STARTING:    e.StartContainer(),
    State.PROBING:     e.ProbeNotebook(),
    State.PUBLISHING:  e.PublishRoute(),
    State.READY:       e.LookAtNotebook(),
    State.REPUBLISHING: e.PublishRoute(),
    State.FORGETTING:  e.ForgetCredentials(),
    State.SAVING:      e.SaveImage(),
    State.TIDYING:     e.RemoveImages(),
    State.WITHDRAWING: e.WithdrawRoute(),
    State.REMOVING:    e.RemoveContainer(),
    State.PURGING:     e.PurgeCredentials(),
    State.KEPT:        e.LaunchAgain(),
})

# How long a state waits, in seconds from its first EffectDelayed, for any other news (rule 6). Judgement, not
# measurement.
PATIENCE: Final[Mapping[State, float]] = MappingProxyType({
    State.VERIFYING:    60,   # longer than an engine's restart; shorter than a visitor's patience
    State.PULLING:     600,   # extracting one large layer on a slow disk says nothing for minutes
    State.RESOLVING:   120,
    State.BUILDING:    600,   # a build can keep an engine busy; what it says of itself is no silence
    State.CREATING:    120,
    State.CLONING:     120,
    State.STARTING:    120,   # a cold disk, or an engine that is busy with somebody else's container
    State.PROBING:     180,   # large images import slowly the first time
    State.PUBLISHING:  300,   # ours: DynamoDB has to take one small write
    State.SAVING:      900,   # tens of gigabytes on a slow disk; then the notebook goes on, and the visitor is told
    State.TIDYING:     300,   # removing one large image on a slow disk
    State.REMOVING:    600,   # then the visitor is told which container to remove
})
# fmt: on

# Added to the patience while the endpoint has not been found silent: the hub itself was down, or its launcher killed,
# and that is no reason to give up a launch, until it is.
HUB_OUTAGE_ALLOWANCE: Final = 1800.0

# How long a creation without an answer is waited for, in seconds after CREATING was left. Judgement: a busy engine
# took 46. What appears later is removed by the next launch (docs/adr/0010).
SETTLE_SECONDS: Final = 180.0

STEADY_SECONDS: Final = 3600.0  # a ready session of which there was no news for so long is looked at less often
RETRY_LIMIT: Final = 5.0  # while a visitor watches
UNWATCHED_RETRY_LIMIT: Final = 60.0  # while nobody does
PULL_ATTEMPTS: Final = 10  # failed pulls that got no further than one before; then only getting further is news
PULL_STEP: Final = 0.002  # the share of an image that counts as getting further: 5 seconds of an hour's pull
_NO_OPTIONS: Final = Options()
QUEUE_PAUSE: Final = 3.0  # seconds; a wait for a turn is half as long as all waiting before it, but no shorter,
QUEUE_PAUSE_LIMIT: Final = 45.0  # and no longer


HELPER_PAUSE: Final = 1.0  # seconds between two looks at a helper, growing with the time that it is at work
HELPER_PAUSE_LIMIT: Final = 15.0
RESOLVE_SECONDS: Final = 60.0  # a helper may take to find out versions
BUILD_SLACK: Final = 300.0  # seconds that a helper may take above its limit, which that of a build keeps by itself


@dataclass(frozen=True, slots=True)
class PullPatience:
    """How long a launch may be in PULLING: without getting a step further, and in all, waiting included; in seconds.

    `build` is how long it may be in BUILDING, and in CLONING.
    """

    stalled: float = 3600.0
    longest: float = 43200.0
    build: float = 3600.0

    def of_helper(self, state: State) -> float | None:
        """How long a helper may be at work in that state; None if none is."""
        return {State.RESOLVING: RESOLVE_SECONDS, State.BUILDING: self.build, State.CLONING: self.build}.get(state)


def new_session(
    *,
    owner: str,
    name: str,
    endpoint: str,
    image: str,
    limits: Limits,
    options: Options = _NO_OPTIONS,
    open_path: str = "",
    source: str = "",
    repository: Source | None = None,
    content: Source | None = None,
    builder: str = "",
    keeps: bool = False,
    now: float,
    lifetime: float,
    longest: float = 0.0,
    request: str,
    label: str,
    previous: Session | None = None,
) -> Session:
    """Begin a launch; `previous` is the stopped session of the same owner and name, if there is one.

    If that one's credentials were kept, those of this launch are where they were, in their place.
    It lasts for `lifetime` seconds, and for `longest` at most if its visitor keeps it longer. `request` names the web
    request, so that it recognises its own write when the answer to it was lost; `label` is a fresh one
    (values.launch_label); `source` is the network the request came from (admission.network_of).
    """
    session = Session(
        sid=session_id(owner, name),
        owner=owner,
        name=name,
        generation=previous.generation + 1 if previous else 1,
        label=label,
        version=previous.version + 1 if previous else 1,
        state=State.VERIFYING,
        endpoint=endpoint,
        image=image,
        limits=limits,
        options=options,
        open_path=open_path,
        source=source,
        repository=repository,
        content=content,
        builder=builder,
        keeps=keeps,
        sealed_in=previous.credentials_of if previous is not None and previous.state is State.KEPT else 0,
        written_by=request,
        log=previous.log if previous else (),
        created_at=now,
        entered_at=now,
        last_news_at=now,
        next_attempt_at=now,
        expires_at=now + lifetime,
        longest_until=now + max(longest, lifetime),
    )
    return begin(session, now)


def _launched_again(session: Session, lifetime: float, now: float) -> Session:
    """The next launch, as it was asked for, of a session whose credentials were kept; they get no older by it."""
    launched = new_session(
        owner=session.owner,
        name=session.name,
        endpoint=session.endpoint,
        image="" if session.repository else session.image,  # the branch may be elsewhere by now
        limits=session.limits,
        options=session.options,
        open_path=session.open_path,
        source=session.source,
        repository=session.repository,
        content=session.content,
        builder=session.builder,
        keeps=session.keeps,
        now=now,
        lifetime=lifetime,
        request=session.written_by,
        label=session.again,
        previous=session,
    )
    until = session.longest_until or session.expires_at
    return replace(launched, expires_at=min(launched.expires_at, until), longest_until=until)


def next_effect(session: Session) -> Effect | None:
    """Say what is to be done in this state; None when nothing is, ever."""
    if session.admitted:
        return e.PullImage()
    if session.state is State.PURGING and (session.keeps or session.again):
        return e.KeepCredentials()
    return EFFECTS.get(session.state)


def overdue(session: Session, now: float, pulls: PullPatience = PullPatience()) -> Event | None:
    """Say which deadline has passed: the session's lifetime or the state's patience; None while neither has."""
    if now >= session.expires_at and (session.phase in (Phase.LAUNCHING, Phase.READY) or session.state is State.KEPT):
        return e.SessionExpired()
    if session.newer:  # rule 10
        return e.StopRequested() if now >= session.expires_at and session.phase is Phase.LEAVING else None
    if session.state is State.PULLING and (failure := _pull_overdue(session, now, pulls)):
        return e.PatienceExpired(failure)
    longest = pulls.of_helper(session.state)
    if longest is not None and session.last_news_at - session.entered_at > longest + BUILD_SLACK:  # it was seen then
        return e.PatienceExpired(helped_too_long(session.state, longest))
    patience = PATIENCE.get(session.state)
    if patience is None:
        return None
    if session.last_problem is None or session.queued:  # nobody asks the endpoint: the silence is the hub's own
        patience += HUB_OUTAGE_ALLOWANCE
    if now - session.last_news_at <= patience:
        return None
    if session.queued:
        return e.PatienceExpired(kept_waiting(session))
    return e.PatienceExpired(session.last_problem or silence(session, patience))


def _pull_overdue(session: Session, now: float, pulls: PullPatience) -> Failure | None:
    """Why a launch has been in PULLING for too long, if it has."""
    if now - session.entered_at > pulls.longest:
        return kept_waiting(session) if session.queued else too_long(pulls.longest)
    return stalled(pulls.stalled) if session.admitted and now - session.progressed_at > pulls.stalled else None


def accepts(session: Session, event: type[Event]) -> bool:
    """Say whether such an event can happen to the session as it is (rules 1 and 10)."""
    return event in TRANSITIONS[session.state] and (not session.newer or event in _ENDS_A_NEWER_ONE)


def is_purged(session: Session) -> bool:
    """Say whether the credentials are being deleted: it is too late to keep them, a tick may be about to do it."""
    return session.state is State.PURGING and not (session.keeps or session.again)


def is_news(before: Session, after: Session) -> bool:
    """Say whether what was found in a ready session has to be saved: all but that it is as it was (rule 9)."""
    same = replace(
        after,
        version=before.version,
        last_news_at=before.last_news_at,
        log=before.log if after.log[-1:] == before.log[-1:] else after.log,
    )
    return same != before


def advance(session: Session, event: Event, now: float) -> Session:
    """Answer with the session after `event`, one version on, as it is and as the visitor reads of it.

    Raises IllegalTransition when the state does not know the event.
    """
    if not accepts(session, type(event)):
        whose = "of a later version" if session.newer else str(session.state)
        raise IllegalTransition(f"{type(event).__name__} cannot happen to a session that is {whose}")
    if isinstance(event, e.LaunchedAgain):
        return _launched_again(session, event.lifetime, now)
    state = TRANSITIONS[session.state][type(event)]
    return narrate(session, event, _changed(session, event, state, now), now)


def _changed(session: Session, event: Event, state: State, now: float) -> Session:
    """All that changes through `event`, but for what the visitor reads."""
    # In this order: what the event says, then what entering a state or staying in it means for patience and attempts.
    queued = isinstance(event, e.Queued | e.PullQueued)
    waits = isinstance(event, e.PullQueued)
    after = replace(session, state=state, version=session.version + 1, newer=False, queued=queued, pull_waits=waits)
    after = replace(after, **_facts(session, event))
    if session.newer and state in (State.WITHDRAWING, State.REMOVING):  # it may not have said what there is to remove
        after = replace(after, container=after.container or container_name(after.sid, after.generation))
    if state is not session.state:
        if session.state is State.CREATING or (session.state in HELPED and not session.helps):
            after = replace(after, **_unsettled(session, event, now))
        return _entered(after, now)
    if state is State.READY:
        return _looked_at(session, after, event, now)
    return _stayed(session, after, event, now)


def _stayed(session: Session, after: Session, event: Event, now: float) -> Session:
    """The session after an event that has not led it on."""
    match event:
        case e.EffectDelayed(failure=failure, ours=ours):
            return _delayed(session, after, None if ours else failure, now)
        case e.PullProgressed(line=line):
            return _pulled_on(session, after, not session.message.startswith(one_line(line, LINE_LENGTH)), now)
        case e.Queued():
            return replace(_unasked(after, now), next_attempt_at=_next_turn(session.last_news_at, now))
        case e.PullQueued():  # it is not the endpoint that is waited for; PullPatience bounds it
            return replace(_heard(after, now), next_attempt_at=_next_turn(session.entered_at, now))
        case e.PullAdmitted():
            return replace(_heard(after, now), progressed_at=now)
        case e.HelperStarted():  # whoever started it looks at it first
            doubled = {} if session.helps else _unsettled(session, event, now)
            return replace(_heard(after, now), next_attempt_at=now, **doubled)
        case e.StopRequested() | e.AgainRequested() | e.DeleteRequested() | e.ForgetRequested() | e.ExtendRequested():
            # heard from the visitor, not from the endpoint
            return replace(after, next_attempt_at=_next_look(after, now))
        case _:
            return _heard(after, now)


def _facts(session: Session, event: Event) -> dict[str, Any]:  # noqa: C901 - one arm per event
    """What the event itself says, as changes of fields."""
    match event:
        case e.EndpointVerified(address=address, hub=hub, past=past):
            return {"address": address, "hub": hub} | (_number(session, past + 1) if past >= session.generation else {})
        case e.NotebookFound():
            return _found(session, event)
        case e.PullQueued():
            return {"admitted": False}
        case e.PullAdmitted():
            return {"admitted": True}
        case e.PullProgressed(fraction=fraction):
            known = [share for share in (fraction, session.fraction) if share is not None]
            return {"fraction": max(known, default=None)}
        case e.HelperStarted():
            return {"helps": True}
        case e.HelperProgressed(fraction=fraction):
            known = [share for share in (fraction, session.fraction) if share is not None]
            return {"fraction": max(known, default=None)}
        case e.VersionsResolved(versions=versions, image=image):
            return {"versions": versions, "image": image, "helper": ""}
        case e.ContentResolved(versions=versions):
            return {"versions": versions, "helper": ""}
        case e.ImageBuilt() | e.FilesCloned():
            return {"helper": ""}
        case e.ContainerStarted(target=target) | e.NotebookMoved(target=target):
            return {"target": target}
        case e.StopRequested(keep=keep):
            keeps = session.keeps if keep is None else keep
            return {"again": "", "keeps": keeps and session.state is not State.KEPT and not is_purged(session)}
        case e.AgainRequested(label=label, source=source):
            return {} if is_purged(session) else {"again": label, "source": source or session.source}
        case e.DeleteRequested():
            # Why it failed before is not what is told of it from now on. Who is stopped has uploaded the credentials.
            held = session.credentials_held or session.state is State.STOPPED
            return {"deletes": True, "again": "", "keeps": False, "failure": None, "credentials_held": held}
        case e.ExtendRequested(until=until):
            return {"expires_at": max(session.expires_at, min(until, session.longest_until))}
        case e.SaveRequested(image=image):
            return {"saving": image, "commits": 0}
        case e.CommitSent():
            return {"commits": session.commits + 1}
        case e.TidyRequested(images=images):
            return {"tidying": images}
        case e.ForgetRequested() | e.SessionExpired():
            return {"keeps": False, "again": ""}
        case e.EffectFailed() | e.PatienceExpired() if session.state in _SERVES:  # the notebook has not failed
            return {}
        case e.ContainerExited(failure=failure) | e.EffectFailed(failure=failure) | e.PatienceExpired(failure=failure):
            return {"failure": session.failure or failure}
        case e.ContainerRemoved():
            return {"container": None, "helper": ""}
        case e.CredentialsPurged():
            return {"credentials_held": False, "keeps": False, "again": "", "sealed_in": 0}
        case e.CredentialsRenewed() | e.CredentialsStoredLate():
            return {"credentials_held": True}
        case _:
            return {}


def _number(session: Session, generation: int) -> dict[str, Any]:
    """Another number for a launch that has only begun, as changes of fields; its credentials stay where they are."""
    return {"generation": generation, "sealed_in": session.credentials_of}


def _found(session: Session, found: e.NotebookFound) -> dict[str, Any]:
    """A launch goes on as the one that was found on its endpoint, as changes of fields."""
    return {
        **(_number(session, found.generation) if found.generation != session.generation else {}),
        "address": found.address,
        "hub": found.hub,
        "label": found.label,
        "image": found.image or session.image,
        "container": container_name(session.sid, found.generation),
        "expires_at": found.expires_at,
        "longest_until": found.longest_until,
    }


def _unsettled(session: Session, event: Event, now: float) -> dict[str, Any]:
    """What may still come of the creations that a session sent in the state that it is in, as changes of fields.

    It leaves CREATING, or one where a helper is at work, or has seen that helper. One was sent on entering it, one for
    each attempt that failed, and one more if a tick may have been killed after sending it, which shows at the end of
    its lease (none was while it waited for its turn: `entered_at` is the end of that). The answer to the last one
    settles it if there was no other.
    """
    sent = 1 + session.attempts + (now >= session.entered_at + LEASE_SECONDS)
    if sent == 1 and isinstance(event, _SETTLES_CREATION):
        return {}
    return {"creations": sent, "unsettled_until": now + SETTLE_SECONDS}


def _unasked(session: Session, now: float) -> Session:
    """The session having waited for its turn: if no creation was sent up to now, that counts from now (_unsettled)."""
    creates = session.state is State.CREATING or (session.state in HELPED and not session.helps)
    nothing_sent = creates and not session.attempts
    return replace(session, entered_at=now) if nothing_sent and now < session.entered_at + LEASE_SECONDS else session


def _entered(session: Session, now: float) -> Session:
    """The session having just entered its state."""
    session = replace(session, entered_at=now, admitted=False, steady=False, helps=False)
    session = _heard(session, now)
    session = _without_wishes(session)
    match session.state:
        case State.PULLING:
            return replace(session, fraction=None)
        case State.RESOLVING:  # rule 7, as in the following
            return replace(session, helper=helper_name(session.sid, session.generation, "resolve"))
        case State.BUILDING:
            return replace(session, helper=build_name(session.image), fraction=None)
        case State.CREATING:
            return replace(session, container=container_name(session.sid, session.generation))
        case State.CLONING:
            return replace(session, helper=helper_name(session.sid, session.generation, "clone"))
        case State.REMOVING:
            return replace(session, target=None)
        case State.KEPT:
            return session if session.again else replace(session, source="")
        case State.STOPPED:
            return replace(session, source="")
        case _:
            return session


def _without_wishes(session: Session) -> Session:
    """The session without what it is not doing (any more)."""
    if session.state is not State.SAVING:
        session = replace(session, saving="", commits=0)
    return session if session.state is State.TIDYING else replace(session, tidying="")


def _heard(session: Session, now: float) -> Session:
    """The session with news: its patience starts again, and its problems are over."""
    look = _next_look(session, now)
    return replace(session, last_news_at=now, attempts=0, last_problem=None, next_attempt_at=look)


def _looked_at(before: Session, after: Session, event: Event, now: float) -> Session:
    """The ready session after a look, or after another upload; what is as it was before makes it steady in the end."""
    if isinstance(event, e.Queued) or (isinstance(event, e.EffectDelayed) and event.ours):  # nothing was asked
        return replace(after, queued=False)
    problem = event.failure if isinstance(event, e.EffectDelayed) else None
    is_news = problem != before.last_problem or isinstance(event, e.CredentialsRenewed)
    steady = not is_news and (before.steady or now - before.last_news_at >= STEADY_SECONDS)
    return replace(_heard(after, now), last_problem=problem, steady=steady)


def _pulled_on(before: Session, after: Session, is_new: bool, now: float) -> Session:
    """The session after a pull's status: a step further is news; so is any change, until too many pulls failed.

    A hostile engine can make endless changes, and nearly endless steps: PullPatience bounds both.
    """
    if _steps(after.fraction) > _steps(before.fraction):
        return replace(_heard(after, now), progressed_at=now)
    news_at = now if is_new and before.attempts < PULL_ATTEMPTS else before.last_news_at
    return replace(after, last_news_at=news_at, last_problem=None, next_attempt_at=_next_look(after, now))


def _steps(fraction: float | None) -> int:
    return -1 if fraction is None else int(fraction / PULL_STEP)


def _delayed(before: Session, after: Session, problem: Failure | None, now: float) -> Session:
    """The session after an attempt that failed and may succeed later; the `problem` is None if it was the hub's own.

    Patience is counted from the first attempt with a problem (rule 6), and attempts wait longer and longer: from half
    a second, doubling, up to what suits the state.
    """
    keeps_failing = before.admitted and before.attempts >= PULL_ATTEMPTS
    is_first = problem is not None and before.last_problem is None and not keeps_failing
    is_watched = before.phase is Phase.LAUNCHING or before.state in _SERVES
    limit = RETRY_LIMIT if is_watched else UNWATCHED_RETRY_LIMIT
    pause = min(0.5 * 2.0 ** min(before.attempts, 10), limit)
    return replace(
        after,
        attempts=before.attempts + 1,
        last_problem=problem,
        last_news_at=now if is_first else before.last_news_at,
        next_attempt_at=now + pause,
    )


def _next_turn(since: float, now: float) -> float:
    """When a session that has waited since then asks again whether it is its turn."""
    return now + min(max((now - since) / 2, QUEUE_PAUSE), QUEUE_PAUSE_LIMIT)


def _next_look(session: Session, now: float) -> float | None:
    """When the session wants to be looked at next, if nothing goes wrong."""
    match session.state:
        case State.STOPPED:
            return None
        case State.KEPT:
            return now if session.again else session.expires_at
        case State.READY:
            return session.expires_at  # and before that as often as looks.py says
        case _ if session.helps:
            return now + min(HELPER_PAUSE + (now - session.entered_at) / 20, HELPER_PAUSE_LIMIT)
        case _:
            return now
