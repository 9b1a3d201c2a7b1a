"""The hub against stores in memory: what happens between two of its writes, and what answers are lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws.errors import SessionNotFound, StaleSession, StoreRefused, StoreUnavailable
from chalicelib.aws.queues import TickMessage
from chalicelib.aws.sign_ins import SignIn
from chalicelib.bundle.errors import EndpointsDisagree
from chalicelib.config import Config
from chalicelib.errors import HomeportError
from chalicelib.repository.source import Provider, Source
from chalicelib.session import events as e
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.machine import advance
from chalicelib.session.narration import LOG_LINES, MESSAGES
from chalicelib.session.values import (
    DataFolder,
    Failure,
    Limits,
    Line,
    Options,
    Phase,
    Ports,
    PullPolicy,
    Session,
    State,
    Summary,
    session_id,
)
from chalicelib.web.errors import (
    DataNotAllowed,
    HubFull,
    ImageNotAllowed,
    LaunchesClosed,
    LimitTooHigh,
    NoBuildLog,
    NotAuthenticated,
    RepositoryNotAllowed,
    SessionLeaving,
    SessionNotReady,
    SessionOfLaterVersion,
    TooManyLaunches,
    TooManyNotebooks,
)
from chalicelib.web.forms import Launch
from chalicelib.web.hub import LISTED, OWNERS_PER_TOKEN, RACES, TICKET_SECONDS, Hub
from chalicelib.web.json import session_json
from tests import bundles
from tests.builders import LIFETIME, NOW, OWNER, SIGN_IN, a_session
from tests.bundles import Pki
from tests.launcher_twins import (
    BuildLogTwin,
    Clock,
    CredentialsTwin,
    DoorTwin,
    ImageStoreTwin,
    Killed,
    QueueTwin,
    SessionStoreTwin,
    TokenStoreTwin,
    Trouble,
)

UNAVAILABLE = StoreUnavailable("The store did not answer; try again in a moment")


@cache
def pki() -> Pki:
    return Pki.new()


def a_form(*, endpoint: str = "tcp://docker.example.org:2376", name: str = "lessons", **changes: Any) -> Launch:
    bundle = bundles.carina(pki(), endpoint)
    form = Launch(bundle=bundle, name=name, host=None, image=None, limits=Limits(), open_path="")
    return replace(form, **changes)


@dataclass
class Stage:
    """A hub, and what it wrote. What is to go wrong is given to the part it is in."""

    store: SessionStoreTwin = field(default_factory=SessionStoreTwin)
    credentials: CredentialsTwin = field(default_factory=CredentialsTwin)
    queue: QueueTwin = field(default_factory=QueueTwin)
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    environ: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = TokenStoreTwin(self.clock, find_session=self.store.find)
        self.images = ImageStoreTwin(self.clock)
        self.build_logs = BuildLogTwin()
        self.door = DoorTwin(self.clock)
        secrets = count()
        self.hub = Hub(
            config=Config.from_environ({"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.net", **self.environ}),
            sessions=self.store,
            tokens=self.tokens,
            credentials=self.credentials,
            images=self.images,
            build_logs=self.build_logs,
            door=self.door,
            enqueue=self.queue.enqueue,
            clock=self.clock,
            secret=lambda: f"secret-{next(secrets)}",
        )

    @property
    def session(self) -> Session:
        (session,) = self.store.sessions.values()
        return session

    def move(self, state: State, **changes: Any) -> Session:
        """Have the launcher bring the session to a state, its version one on."""
        due = None if state is State.STOPPED else self.clock()
        moved = replace(self.session, state=state, version=self.session.version + 1, next_attempt_at=due, **changes)
        self.store.save(moved)
        return moved


def launched(state: State = State.VERIFYING, **changes: Any) -> Stage:
    stage = Stage()
    stage.hub.launch(a_form())
    if state is not State.VERIFYING or changes:
        stage.move(state, **changes)
    stage.queue.sent.clear()
    return stage


def failing(error: Exception, times: int = 1) -> Callable[..., None]:
    """Something that raises at its first calls."""
    left = iter([error] * times)

    def fail(*arguments: object) -> None:
        for raised in left:
            raise raised

    return fail


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────

MIB = 1 << 20
POLICY = {
    "HOMEPORT_MEMORY": "512m",
    "HOMEPORT_MEMORY_LIMIT": "1g",
    "HOMEPORT_CPU_LIMIT": "2",
    "HOMEPORT_IMAGES": "quay.io/jupyter/*, python",
    "HOMEPORT_DATA_DIRECTORIES": "off",
}


def test_what_was_asked_for_is_the_sessions_and_the_values_of_variables_are_sealed_alone() -> None:
    stage = Stage()
    options = Options(DataFolder("/srv/data"), ("TOKEN",), Ports(40000, 40099), PullPolicy.ALWAYS)
    stage.hub.launch(a_form(options=options, environment={"TOKEN": "s3cret"}, limits=Limits(memory=512 * MIB)))
    assert stage.session.options == options
    assert stage.session.limits == Limits(memory=512 * MIB, shm=1024 * MIB)  # the default of HOMEPORT_SHM
    ((_, sealed),) = stage.credentials.objects.values()
    assert sealed.environment == {"TOKEN": "s3cret"}
    assert "s3cret" not in repr(stage.session)


def test_what_was_asked_for_is_in_the_json_as_it_was_typed_and_of_variables_the_names_alone() -> None:
    stage = Stage()
    options = Options(DataFolder("/srv/data", writable=True), ("TOKEN",), Ports(40000, 40000), PullPolicy.NEVER)
    limits = Limits(memory=512 * MIB, cpus=1.5, gpus=-1, shm=2048 * MIB)
    stage.hub.launch(a_form(options=options, environment={"TOKEN": "s3cret"}, limits=limits, open_path="a.ipynb"))
    assert session_json(stage.session, "", NOW)["options"] == {
        "pull": "never",
        "memory": 512 * MIB,
        "cpus": 1.5,
        "gpus": "all",
        "shm": 2048 * MIB,
        "data": "/srv/data:rw",
        "env": ["TOKEN"],
        "port": "40000",
        "open": "a.ipynb",
        "keep": False,
    }


def test_a_launch_that_asks_for_no_limits_gets_the_operators() -> None:
    stage = Stage(environ=POLICY)
    stage.hub.launch(a_form())
    assert stage.session.limits == Limits(memory=512 * MIB, cpus=2.0, shm=1024 * MIB)


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        ({"limits": Limits(memory=1025 * MIB)}, LimitTooHigh, "at most 1 GiB of memory"),
        ({"limits": Limits(cpus=2.01)}, LimitTooHigh, "at most 2 CPUs"),
        ({"image": "quay.io/other/a"}, ImageNotAllowed, "quay.io/jupyter/*, python"),
        ({"image": "evil.example/python"}, ImageNotAllowed, "quay.io/jupyter/*, python"),
        ({"options": Options(DataFolder("/srv/data"))}, DataNotAllowed, "no directory of the endpoint's host"),
    ],
)
def test_what_the_operator_does_not_allow_is_refused_with_what_is_and_stores_nothing(
    asked: dict[str, Any], error: type[HomeportError], told: str
) -> None:
    stage = Stage(environ=POLICY)
    for use in (stage.hub.check, stage.hub.launch):
        with pytest.raises(error) as refused:
            use(a_form(**asked))
        assert told in refused.value.message
    assert (stage.store.sessions, stage.credentials.objects) == ({}, {})


@pytest.mark.parametrize("image", [None, "quay.io/jupyter/scipy-notebook:2026", "docker.io/library/python:3"])
def test_what_the_operator_allows_is_launched(image: str | None) -> None:
    stage = Stage(environ=POLICY)
    stage.hub.launch(a_form(image=image, limits=Limits(memory=1024 * MIB, cpus=2.0, gpus=-1)))
    assert stage.session.image == (image or stage.hub.config.image)


LESSONS = Source(Provider.GITHUB, "https://github.com/somebody/lessons", "main")
DATA = Source(Provider.GIT, "https://git.example.org/data")
REPOSITORIES = {"HOMEPORT_REPOSITORIES": "gh/somebody/*", "HOMEPORT_BANNED_REPOSITORIES": "gh/somebody/miner"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"repository": DATA}, "Allowed are: gh/somebody/*"),
        ({"content": DATA}, "Allowed are: gh/somebody/*"),
        ({"repository": LESSONS, "content": DATA}, "Allowed are: gh/somebody/*"),
        ({"repository": replace(LESSONS, address="https://github.com/somebody/miner")}, "somebody/miner"),
    ],
)
def test_a_repository_that_the_operator_does_not_allow_is_refused_and_stores_nothing(
    asked: dict[str, Any], told: str
) -> None:
    stage = Stage(environ=REPOSITORIES)
    for use in (stage.hub.check, stage.hub.launch):
        with pytest.raises(RepositoryNotAllowed, match=re.escape(told)):
            use(a_form(**asked))
    assert (stage.store.sessions, stage.credentials.objects) == ({}, {})


def test_a_hub_can_launch_no_repositories_at_all() -> None:
    stage = Stage(environ={"HOMEPORT_BUILDER_IMAGE": "off"})
    for asked in (dict[str, Any](repository=LESSONS), dict[str, Any](content=DATA)):
        with pytest.raises(RepositoryNotAllowed, match="launches no repositories"):
            stage.hub.launch(a_form(**asked))
    stage.hub.launch(a_form())
    assert stage.session.builder == ""


def test_a_repository_is_launched_with_the_builder_and_without_an_image_until_it_is_built() -> None:
    stage = Stage(environ=REPOSITORIES | {"HOMEPORT_IMAGES": "quay.io/jupyter/*"})
    stage.hub.launch(a_form(repository=LESSONS))
    session = stage.session
    assert (session.repository, session.image, session.builder) == (LESSONS, "", stage.hub.config.builder)
    shown = session_json(session, "https://x", NOW)
    assert (shown["image"], shown["log_url"]) == ("", None)


def test_a_launch_again_of_a_repository_that_is_banned_by_now_is_refused() -> None:
    stage = Stage()
    stage.hub.launch(a_form(repository=LESSONS))
    strict = Stage(stage.store, stage.credentials, stage.queue, environ={"HOMEPORT_BANNED_REPOSITORIES": "gh/*"})
    with pytest.raises(RepositoryNotAllowed):
        strict.hub.launch_again(stage.session)


def test_the_log_of_a_build_is_that_of_the_present_launch() -> None:
    stage = Stage()
    stage.hub.launch(a_form(repository=LESSONS))
    with pytest.raises(NoBuildLog):
        stage.hub.build_log(stage.session)
    stage.build_logs.put(stage.session.sid, 1, "Step 1/1 : FROM scratch")
    assert stage.hub.build_log(stage.session) == "Step 1/1 : FROM scratch"


@pytest.mark.parametrize(
    ("open_path", "opened"), [("", "/lab"), ("a b/c.ipynb", "/lab/tree/a%20b/c.ipynb"), ("/rstudio/", "/rstudio/")]
)
def test_entering_opens_what_was_asked_for(open_path: str, opened: str) -> None:
    stage = Stage()
    stage.hub.launch(a_form(open_path=open_path))
    stage.move(State.READY)
    assert stage.hub.enter(stage.session, SignIn("b", stage.session.owner, int(NOW * 1000))).path == opened


def test_the_hubs_own_image_is_allowed_whatever_the_list_says() -> None:
    stage = Stage(environ=POLICY | {"HOMEPORT_IMAGE": "registry.example.org/own"})
    stage.hub.launch(a_form(image="registry.example.org/own"))
    assert stage.session.image == "registry.example.org/own"


# ── launching ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_launch_is_written_down_before_its_credentials_are_stored() -> None:
    """Rule 1: a hub that ends in between leaves no object that no session would purge."""
    stage = Stage(credentials=CredentialsTwin(Trouble(at=1)))
    with pytest.raises(Killed):
        stage.hub.launch(a_form())
    assert stage.session.state is State.VERIFYING
    assert stage.credentials.objects == {}
    assert [due.sid for due in stage.store.due(stage.clock())] == [stage.session.sid]


def test_a_launch_stores_the_credentials_and_calls_a_tick() -> None:
    stage = Stage()
    found = stage.hub.launch(a_form())
    assert (found.created, found.session) == (True, stage.session)
    owner, credentials = stage.credentials.objects[stage.session.sid, 1]
    assert (owner, credentials) == (found.bundle.owner, found.bundle.credentials)
    assert stage.queue.sent == [(TickMessage(stage.session.sid), lane_of(stage.session), 0.0)]
    assert stage.session.sid == session_id(owner, "lessons")


def test_a_look_at_a_bundle_stores_nothing() -> None:
    stage = Stage()
    assert stage.hub.check(a_form()).credentials.endpoint.host == "docker.example.org"
    assert (stage.store.sessions, stage.credentials.objects, stage.queue.sent) == ({}, {}, [])


def test_the_same_key_and_name_rejoin_the_running_notebook() -> None:
    stage = launched(State.READY)
    before = stage.session
    assert stage.hub.launch(a_form()).created is False
    assert stage.session == before
    assert stage.queue.sent == []


def test_a_stopped_notebook_is_launched_again_with_the_next_generation() -> None:
    stage = launched(State.STOPPED, credentials_held=False)
    assert stage.hub.launch(a_form()).created
    assert (stage.session.generation, stage.session.state) == (2, State.VERIFYING)
    assert (stage.session.sid, 2) in stage.credentials.objects


def test_no_two_launches_of_a_notebook_share_a_host() -> None:
    stage = launched()
    hosts = [stage.session.host]
    for _ in range(5):
        stage.move(State.STOPPED)
        stage.hub.launch(a_form())
        hosts.append(stage.session.host)
    stage.store.sessions.clear()  # the item is lost, and launches are counted from 1 again
    stage.hub.launch(a_form())
    assert stage.session.generation == 1
    hosts.append(stage.session.host)
    assert len(set(hosts)) == 7
    assert {host.partition("-")[0] for host in hosts} == {stage.session.sid}


def test_coming_back_to_a_running_notebook_keeps_its_host() -> None:
    stage = launched(State.READY)
    host = stage.session.host
    assert not stage.hub.launch(a_form()).created
    assert stage.session.host == host


def test_a_ticket_of_one_launch_is_none_for_the_next() -> None:
    stage = launched(State.READY)
    first = stage.session
    ticket = stage.hub.enter(first, SIGN_IN).ticket
    stage.move(State.STOPPED)
    stage.hub.launch(a_form())
    second = stage.move(State.READY)
    assert stage.tokens.redeem_ticket(ticket, second.host) is None
    assert stage.tokens.redeem_ticket(ticket, second.sid) is None
    assert stage.tokens.redeem_ticket(ticket, first.host) is not None


@pytest.mark.parametrize("state", [State.WITHDRAWING, State.REMOVING, State.PURGING])
def test_a_notebook_that_is_being_stopped_cannot_be_launched_yet(state: State) -> None:
    stage = launched(state)
    with pytest.raises(SessionLeaving):
        stage.hub.launch(a_form())


def test_a_write_whose_answer_was_lost_is_recognised_as_this_requests_own() -> None:
    stage = Stage(store=SessionStoreTwin(after_save=failing(StaleSession("what a repeated write finds"))))
    assert stage.hub.launch(a_form()).created
    assert (stage.session.generation, stage.session.version) == (1, 1)
    assert list(stage.credentials.objects) == [(stage.session.sid, 1)]


def test_a_session_that_changes_all_the_time_is_given_up_after_some_races() -> None:
    stage = Stage(store=SessionStoreTwin(before_save=failing(StaleSession("somebody was quicker"), RACES)))
    with pytest.raises(StoreUnavailable):
        stage.hub.launch(a_form())
    assert stage.hub.launch(a_form()).created


def test_an_upload_whose_sealing_fails_says_so_and_ends_the_session() -> None:
    stage = Stage(credentials=CredentialsTwin(before_put=failing(UNAVAILABLE)))
    with pytest.raises(StoreUnavailable):
        stage.hub.launch(a_form())
    assert stage.session.state is State.WITHDRAWING
    assert stage.session.failure == Failure("store-unavailable", UNAVAILABLE.message)
    assert stage.queue.sent == [(TickMessage(stage.session.sid), lane_of(stage.session), 0.0)]


@pytest.mark.parametrize("state", [State.WITHDRAWING, State.PURGING, State.STOPPED])
def test_an_upload_that_loses_against_stop_is_purged_after_all(state: State) -> None:
    """Between the item and its credentials, another browser presses Stop, and the launcher gets that far."""

    def stopped() -> None:
        stage.move(state, credentials_held=False)

    stage = Stage(credentials=CredentialsTwin(before_put=stopped))
    stage.hub.launch(a_form())
    assert stage.session.state is (State.PURGING if state is State.STOPPED else state)
    assert stage.session.credentials_held
    assert (TickMessage(stage.session.sid), lane_of(stage.session), 0.0) in stage.queue.sent


def test_credentials_that_were_stored_late_without_an_answer_are_purged_too() -> None:
    """Stop was pressed and the launcher had purged already; then they are stored, and only the answer is lost."""
    stage = Stage()

    def stopped() -> None:
        stage.move(State.STOPPED, credentials_held=False)

    stage.credentials.before_put, stage.credentials.after_put = stopped, failing(UNAVAILABLE)
    with pytest.raises(StoreUnavailable):
        stage.hub.launch(a_form())
    assert stage.session.state is State.PURGING
    assert (TickMessage(stage.session.sid), lane_of(stage.session), 0.0) in stage.queue.sent


def test_a_launch_whose_credentials_the_store_refuses_ends_with_that_error() -> None:
    refused = StoreRefused("The credentials store refused")
    stage = Stage(credentials=CredentialsTwin(before_put=failing(refused)))
    with pytest.raises(StoreRefused):
        stage.hub.launch(a_form())
    assert stage.session.failure == Failure("store-refused", refused.message)
    assert stage.session.phase is Phase.LEAVING


def test_an_upload_that_a_later_versions_function_overtakes_changes_nothing_of_its_session() -> None:
    def overtaken() -> None:
        stage.move(State.PURGING, newer=True)

    stage = Stage(credentials=CredentialsTwin(before_put=overtaken))
    stage.hub.launch(a_form())
    assert (stage.session.state, stage.session.newer) == (State.PURGING, True)


def test_while_the_queue_is_down_the_schedule_drives_the_session_on() -> None:
    stage = Stage(queue=QueueTwin(refuses=UNAVAILABLE))
    assert stage.hub.launch(a_form()).created
    assert [due.sid for due in stage.store.due(stage.clock())] == [stage.session.sid]


# ── bringing the credentials again ───────────────────────────────────────────────────────────────────────────────────

MISSING = Failure("credentials-missing", "The launcher found none")


@pytest.mark.parametrize(
    ("state", "changes"),
    [(State.READY, {"credentials_held": False}), (State.READY, {"last_problem": MISSING}),
     (State.VERIFYING, {"last_problem": MISSING})],
)  # fmt: skip
def test_credentials_that_were_forgotten_or_lost_can_be_brought_again(state: State, changes: dict[str, Any]) -> None:
    stage = launched(state, **changes)
    stage.credentials.objects.clear()
    assert stage.hub.launch(a_form()).created is False
    assert stage.session.credentials_held
    assert list(stage.credentials.objects) == [(stage.session.sid, 1)]
    assert (TickMessage(stage.session.sid), lane_of(stage.session), 0.0) in stage.queue.sent


def test_credentials_of_another_endpoint_are_not_brought_again() -> None:
    stage = launched(State.READY, credentials_held=False)
    stage.credentials.objects.clear()
    with pytest.raises(EndpointsDisagree):
        stage.hub.launch(a_form(endpoint="tcp://other.example.org:2376"))
    assert stage.credentials.objects == {}
    assert not stage.session.credentials_held


def test_nobody_looks_for_credentials_that_are_brought_again_before_they_are_there() -> None:
    stage = launched(State.VERIFYING, last_problem=MISSING)
    stage.credentials.before_put = lambda: woken.extend(stage.queue.sent)
    woken: list[object] = []
    stage.hub.launch(a_form())
    assert woken == []
    assert stage.queue.sent == [(TickMessage(stage.session.sid), lane_of(stage.session), 0.0)]


def test_credentials_brought_again_while_they_are_forgotten_are_forgotten() -> None:
    """One browser brings them again; before they are stored, another asks to forget them, and the launcher does."""
    stage = launched(State.READY, credentials_held=False)

    def forgotten() -> None:
        stage.move(State.READY, credentials_held=False)

    stage.credentials.before_put = forgotten
    stage.hub.launch(a_form())
    assert stage.session.state is State.FORGETTING


@pytest.mark.parametrize("state", [State.VERIFYING, State.READY])
@pytest.mark.parametrize("ends", [Killed(), UNAVAILABLE], ids=["the hub is killed", "the store does not answer"])
def test_an_upload_that_was_cut_off_before_its_credentials_were_stored_is_made_good_by_the_next(
    state: State, ends: BaseException
) -> None:
    stage = launched(state, credentials_held=state is not State.READY)
    stage.credentials.objects.clear()

    def cut_off() -> None:
        raise ends

    stage.credentials.before_put = cut_off
    with pytest.raises(type(ends)):
        stage.hub.launch(a_form())
    stage.credentials.before_put = lambda: None
    assert stage.hub.launch(a_form()).created is False
    assert stage.session.state is state
    assert stage.session.credentials_held
    assert (stage.session.sid, 1) in stage.credentials.objects


def test_a_second_upload_gives_a_launch_no_other_variables_than_it_has() -> None:
    stage = Stage()
    stage.hub.launch(a_form(options=Options(environment=("TOKEN",)), environment={"TOKEN": "first"}))
    before = dict(stage.credentials.objects)
    assert (
        stage.hub.launch(a_form(options=Options(environment=("TOKEN",)), environment={"TOKEN": "second"})).created
        is False
    )
    assert stage.credentials.objects == before


def test_a_bundle_for_another_endpoint_leads_to_a_notebook_whose_credentials_are_there_and_leaves_them() -> None:
    stage = launched(State.READY)
    before = dict(stage.credentials.objects)
    assert stage.hub.launch(a_form(endpoint="tcp://another.example.org:2376")).session == stage.session
    assert stage.credentials.objects == before


def test_a_session_of_a_later_version_is_rejoined_as_it_is() -> None:
    stage = launched(State.READY, newer=True, credentials_held=False)
    before = stage.session
    assert stage.hub.launch(a_form()).session == before == stage.session


# ── stopping and forgetting ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", sorted(set(State) - {State.STOPPED}))
@pytest.mark.parametrize("newer", [False, True])
def test_a_stop_is_obeyed_in_every_state(state: State, newer: bool) -> None:
    stage = launched(state, newer=newer)
    assert stage.hub.stop(stage.session) == stage.session
    assert stage.session.phase is Phase.LEAVING
    assert not stage.session.newer
    assert stage.queue.sent == [(TickMessage(stage.session.sid), lane_of(stage.session), 0.0)]


def test_a_session_that_is_stopped_already_is_left_alone() -> None:
    for newer in (False, True):
        stage = launched(State.STOPPED, newer=newer)
        before = stage.session
        assert stage.hub.stop(before) == before == stage.session


def test_a_stop_wins_over_what_the_launcher_saves_meanwhile() -> None:
    stage = launched(State.PULLING)
    shown = stage.session
    stage.store.save(advance(shown, e.PullProgressed(0.5, "Pulling: 1 of 2 layers"), stage.clock()))
    assert stage.hub.stop(shown).state is State.WITHDRAWING
    assert stage.session.fraction == 0.5


def test_a_stop_that_was_overtaken_changes_nothing() -> None:
    stage = launched(State.PURGING)
    shown = stage.session
    stage.store.save(advance(shown, e.CredentialsPurged(), stage.clock()))
    assert stage.hub.stop(shown) == stage.session
    assert stage.session.state is State.STOPPED


def test_credentials_are_forgotten_once_the_notebook_is_ready_and_not_before() -> None:
    stage = launched(State.PROBING)
    with pytest.raises(SessionNotReady):
        stage.hub.forget(stage.session)
    assert stage.hub.forget(stage.move(State.READY)).state is State.FORGETTING
    forgotten = stage.move(State.READY, credentials_held=False)
    assert stage.hub.forget(forgotten) == forgotten


def test_credentials_of_a_session_of_a_later_version_are_not_forgotten_from_here() -> None:
    stage = launched(State.READY, newer=True)
    with pytest.raises(SessionOfLaterVersion):
        stage.hub.forget(stage.session)
    assert stage.session.newer


# ── looking and entering ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_of_another_owner_does_not_exist() -> None:
    stage = launched()
    session = stage.session
    token, others = stage.hub.token_for(session.owner), stage.hub.token_for("cd" * 32)
    assert stage.hub.visit(token, session.sid) == (session, stage.hub.sign_ins_of(token)[session.owner])
    for shown, sid in ((others, session.sid), (token, "0" * 20), (token, "x")):
        with pytest.raises(SessionNotFound):
            stage.hub.visit(shown, sid)
    for sid in (session.sid, "0" * 20, "x"):
        with pytest.raises(NotAuthenticated):
            stage.hub.visit("a token of nobody", sid)


def test_the_sessions_of_several_owners_are_listed_newest_first() -> None:
    stage = Stage()
    for name in ("one", "two", "three"):
        stage.hub.launch(a_form(name=name))
    owners = frozenset({next(iter(stage.store.sessions.values())).owner, "cd" * 32})
    listing = stage.hub.sessions(owners)
    assert [session.name for session in listing.sessions] == ["three", "two", "one"]
    assert listing.older is None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=4 * LISTED))
def test_every_session_of_several_owners_is_on_one_page_of_the_list(created: list[tuple[int, int]]) -> None:
    """Whoever of the owners it is of, and whenever it was created: at the same time as many others, for one."""
    stage, owners = Stage(), ["ab" * 32, "cd" * 32, "ef" * 32]
    for number, (owner, at) in enumerate(created):
        session = a_session(owner=owners[owner], name=f"session {number}", created_at=NOW + at)
        stage.store.sessions[session.sid] = session
    mine, shown, pages = frozenset(owners[:2]), list[Summary](), 0
    listing = stage.hub.sessions(mine)
    while True:
        shown, pages = [*shown, *listing.sessions], pages + 1
        if listing.older is None:
            break
        assert len(listing.sessions) == LISTED
        listing = stage.hub.sessions(mine, listing.older)
    expected = [session.summary for session in stage.store.sessions.values() if session.owner in mine]
    assert shown == sorted(expected, key=lambda one: one.position, reverse=True)
    assert pages == max(1, -(-len(expected) // LISTED))


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class CountedLines(SessionStoreTwin):
    """Counts how often lines are looked for beside a session."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def earlier_lines(self, session: Session) -> list[Line]:
        self.asked += 1
        return super().earlier_lines(session)


def a_launch(stage: Stage, *events: e.Event) -> list[Line]:
    """Have these events happen to a session; gives its whole log."""
    session = a_session(state=State.PULLING)
    stage.store.save(session)
    log = {line.place: line for line in session.log}
    for event in events:
        session = advance(session, event, stage.clock())
        stage.store.save(session)
        log |= {line.place: line for line in session.log}
    return [log[place] for place in sorted(log)]


def problems(count: int) -> list[e.Event]:
    return [e.EffectDelayed(Failure("a-code", f"problem {number}")) for number in range(count)]


def test_a_log_is_what_the_session_holds_and_what_is_beside_it() -> None:
    stage = Stage(store=CountedLines())
    log = a_launch(stage, *problems(3), e.PullProgressed(0.5, "half"), e.PullProgressed(0.7, "more"), *problems(2))
    assert stage.hub.lines(stage.session) == log
    for after in range(log[-1].number + 2):
        assert stage.hub.lines(stage.session, after) == [line for line in log if line.number > after]


def test_who_has_all_but_the_newest_lines_costs_no_second_reading() -> None:
    """A page that asks every second."""
    store = CountedLines()
    stage = Stage(store=store)
    assert len(stage.hub.lines(a_session())) == 1
    log = a_launch(stage, *problems(5))
    for after in (log[-1].number, log[-2].number, log[-3].number):
        assert stage.hub.lines(stage.session, after) == [line for line in log if line.number > after]
    assert store.asked == 0
    stage.hub.lines(stage.session, log[-4].number)
    assert store.asked == 1


def test_a_line_that_was_lost_is_missing_and_nothing_else() -> None:
    stage = Stage()
    log = a_launch(stage, *problems(6))
    del stage.store.lines[stage.session.sid, 3]
    assert stage.hub.lines(stage.session) == [line for line in log if line.place != 3]


def test_a_log_keeps_its_last_lines() -> None:
    stage = Stage()
    log = a_launch(stage, *problems(3 * LOG_LINES))
    assert stage.hub.lines(stage.session) == log[-LOG_LINES:]
    assert len(stage.store.lines) == LOG_LINES


def test_a_log_that_was_stored_whole_is_shown_whole() -> None:
    store = CountedLines()
    stage, old = Stage(store=store), tuple(Line(number, NOW, f"line {number}") for number in range(1, 21))
    session = a_session(state=State.PULLING, log=old)
    store.save(session)
    assert stage.hub.lines(session) == list(old)
    assert stage.hub.lines(session, 18) == list(old[18:])
    assert store.asked == 0
    for event in (*problems(1), e.ImagePresent(), e.ContainerCreated()):
        session = advance(session, event, NOW)
        store.save(session)
    shown = [line.text for line in stage.hub.lines(session)]
    assert shown == [*(line.text for line in old), "problem 0", MESSAGES[State.CREATING], MESSAGES[State.STARTING]]
    assert len(session.log) == 2


# ── signing in and out ───────────────────────────────────────────────────────────────────────────────────────────────

OTHER, THIEF = "cd" * 32, "ef" * 32


def test_a_token_stands_for_its_owner_and_the_browsers_latest_others_but_not_for_too_many() -> None:
    stage, token = Stage(), ""
    for number in range(20):
        token = stage.hub.token_for(f"{number:064x}", stage.hub.sign_ins_of(token))
    assert stage.hub.sign_ins_of(token).keys() == {f"{number:064x}" for number in range(20 - OWNERS_PER_TOKEN, 20)}
    assert stage.hub.sign_ins_of("unknown") == {}


def test_a_stolen_token_that_is_only_used_is_over_in_time_whatever_its_owner_launches() -> None:
    stage = Stage()
    stolen = browser = stage.hub.token_for(OWNER)
    thief = stage.hub.token_for(THIEF, stage.hub.sign_ins_of(stolen))
    begun = stage.clock.now
    for hour in range(90 * 24):
        stage.clock.now = begun + 3600.0 * hour
        stands = hour < LIFETIME / 3600
        for token in (stolen, thief):
            assert (OWNER in stage.hub.sign_ins_of(token)) == stands, hour
        thief = stage.hub.token_for(THIEF, stage.hub.sign_ins_of(thief))
        if hour % 5 == 0:
            browser = stage.hub.token_for(OTHER, stage.hub.sign_ins_of(browser))
            assert (OWNER in stage.hub.sign_ins_of(browser)) == stands, hour
        if hour % 24 == 23:
            stage.hub.token_for(OWNER, stage.hub.sign_ins_of(browser))  # in another tab: shown again, in a new token


steps = st.lists(
    st.one_of(
        st.tuples(st.just("launch"), st.integers(0, 20), st.sampled_from([OWNER, OTHER, THIEF])),
        st.tuples(st.just("wait"), st.integers(1, 5), st.none()),
        st.tuples(st.just("sign out"), st.integers(0, 20), st.booleans()),
    ),
    max_size=25,
)


@given(steps)
def test_a_token_stands_for_a_key_that_was_shown_lately_for_it_and_for_nothing_else(taken: list[Any]) -> None:
    """Against a model: each token has the times at which keys were shown on the way to it. Nothing renews them."""
    stage = Stage()
    model: dict[str, tuple[int, dict[str, float]]] = {}  # token to its browser's number and the times

    def standing(token: str) -> dict[str, float]:
        return {owner: at for owner, at in model[token][1].items() if at + LIFETIME > stage.clock.now}

    for step, number, choice in taken:
        token = list(model)[number] if number < len(model) else ""
        if step == "wait":
            stage.clock.now += number * 7 * 3600.0  # 7 does not divide 72: no look comes within a second of an end
        elif step == "launch":
            earlier = standing(token) if token else {}
            browser = model[token][0] if earlier else len(model)
            made = stage.hub.token_for(choice, stage.hub.sign_ins_of(token))
            model[made] = (browser, {**earlier, choice: stage.clock.now})
        elif token and (ended := standing(token)):
            stage.hub.sign_out(token, everywhere=choice)
            for other, (browser, times) in model.items():
                ends = set(times) if browser == model[token][0] else set(ended) if choice else set()
                model[other] = (browser, {owner: at for owner, at in times.items() if owner not in ends})
        for shown in model:
            assert stage.hub.sign_ins_of(shown).keys() == standing(shown).keys()


def test_signing_out_here_ends_all_that_this_browser_has_and_leaves_other_browsers_theirs() -> None:
    stage = launched(State.READY)
    session = stage.session
    first = stage.hub.token_for(session.owner)
    second = stage.hub.token_for(OTHER, stage.hub.sign_ins_of(first))
    stolen = stage.hub.token_for(THIEF, stage.hub.sign_ins_of(first))
    elsewhere = stage.hub.token_for(session.owner)
    sign_ins = {token: stage.hub.sign_ins_of(token)[session.owner] for token in (first, second, stolen, elsewhere)}
    tickets = {token: stage.hub.enter(session, sign_in).ticket for token, sign_in in sign_ins.items()}
    stage.hub.sign_out(second, everywhere=False)
    for token in (first, second, stolen):
        assert stage.hub.sign_ins_of(token) == {}
        assert stage.tokens.redeem_ticket(tickets[token], session.host) is None
    assert stage.hub.sign_ins_of(elsewhere).keys() == {session.owner}
    assert stage.tokens.redeem_ticket(tickets[elsewhere], session.host) is not None
    assert stage.session == session
    again = stage.hub.token_for(session.owner, stage.hub.sign_ins_of(second))
    assert stage.hub.sign_ins_of(again).keys() == {session.owner}


def test_signing_out_here_ends_an_earlier_token_of_the_browser_also_when_the_latest_stands_for_nobody() -> None:
    """Two uploads at once with one token: each answer's token lacks the other's key."""
    stage = launched(State.READY)
    first = stage.hub.sign_ins_of(stage.hub.token_for(THIEF))
    one, two = (stage.hub.token_for(owner, first) for owner in (stage.session.owner, OTHER))
    elsewhere = stage.hub.token_for(OTHER, stage.hub.sign_ins_of(stage.hub.token_for(THIEF)))
    stage.hub.sign_out(elsewhere, everywhere=True)
    assert stage.hub.sign_ins_of(two) == {}
    assert stage.hub.sign_ins_of(one).keys() == {stage.session.owner}
    stage.hub.sign_out(two, everywhere=False)
    assert stage.hub.sign_ins_of(one) == {}


def test_signing_out_everywhere_ends_all_that_any_browser_has_of_these_keys() -> None:
    stage = launched(State.READY)
    session = stage.session
    here = stage.hub.token_for(session.owner)
    elsewhere = stage.hub.token_for(session.owner, stage.hub.sign_ins_of(stage.hub.token_for(OTHER)))
    ticket = stage.hub.enter(session, stage.hub.sign_ins_of(elsewhere)[session.owner]).ticket
    stage.hub.sign_out(here, everywhere=True)
    assert stage.hub.sign_ins_of(here) == {}
    assert stage.hub.sign_ins_of(elsewhere).keys() == {OTHER}
    assert stage.tokens.redeem_ticket(ticket, session.host) is None
    again = stage.hub.token_for(session.owner)
    assert stage.hub.sign_ins_of(again).keys() == {session.owner}


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_request_that_read_its_token_before_a_sign_out_makes_nothing_that_stands_after_it(everywhere: bool) -> None:
    stage = launched(State.READY)
    session = stage.session
    token = stage.hub.token_for(session.owner)
    read = stage.hub.sign_ins_of(token)
    stage.hub.sign_out(token, everywhere=everywhere)
    assert stage.hub.sign_ins_of(stage.hub.token_for(OTHER, read)) == {}
    ticket = stage.hub.enter(session, read[session.owner]).ticket
    assert stage.tokens.redeem_ticket(ticket, session.host) is None


def test_who_is_not_signed_in_signs_nobody_out() -> None:
    stage = Stage()
    token = stage.hub.token_for(OWNER)
    for unknown in ("", "another"):
        stage.hub.sign_out(unknown, everywhere=True)
    assert stage.hub.sign_ins_of(token).keys() == {OWNER}


@pytest.mark.parametrize("state", State)
def test_a_look_is_asked_for_at_a_ready_notebook_once_in_a_minute(state: State) -> None:
    stage = launched(state)
    for _ in range(3):
        stage.hub.ask_for_look(stage.session)
    assert stage.queue.sent == ([(TickMessage(stage.session.sid), Lane.WATCH, 0.0)] if state is State.READY else [])


def test_who_enters_a_notebook_asks_for_a_look_at_it() -> None:
    stage = launched(State.READY)
    stage.hub.enter(stage.session, SIGN_IN)
    assert stage.queue.sent == [(TickMessage(stage.session.sid), Lane.WATCH, 0.0)]


def test_a_look_that_cannot_be_asked_for_keeps_nobody_out() -> None:
    stage = launched(State.READY)
    stage.queue.refuses = StoreUnavailable("The hub's queue did not answer")
    assert stage.hub.enter(stage.session, SIGN_IN).ticket


def test_a_ready_notebook_is_entered_by_a_ticket_of_a_minute() -> None:
    stage = Stage()
    stage.hub.launch(a_form(open_path="a b/ü.ipynb"))
    with pytest.raises(SessionNotReady):
        stage.hub.enter(stage.session, SIGN_IN)
    session = stage.move(State.READY)
    entry = stage.hub.enter(session, SIGN_IN)
    assert entry.action == f"https://{session.host}.notebooks.example.net/.homeport/enter"
    redeemed = stage.tokens.redeem_ticket(entry.ticket, session.host)
    assert redeemed is not None
    assert (redeemed.host, redeemed.path) == (session.host, "/lab/tree/a%20b/%C3%BC.ipynb")
    late = stage.hub.enter(session, SIGN_IN)
    stage.clock.now += TICKET_SECONDS
    assert stage.tokens.redeem_ticket(late.ticket, session.host) is None


# ── who may launch at the moment ─────────────────────────────────────────────────────────────────────────────────────


def test_a_closed_door_lets_nobody_launch_and_says_why_and_takes_nothing_away() -> None:
    stage = launched(State.READY)
    stage.door.close("We are moving to another region. Back at noon")
    with pytest.raises(LaunchesClosed, match="no notebooks at the moment\\. We are moving to another region"):
        stage.hub.launch(a_form(name="another"))
    assert not stage.hub.launch(a_form()).created  # it runs: its visitor comes back to it
    with pytest.raises(LaunchesClosed):
        stage.hub.launch_again(stage.session)
    assert list(stage.store.sessions) == [stage.session.sid]
    stage.door.open()
    assert stage.hub.launch(a_form(name="another")).created


def test_a_full_hub_lets_nobody_launch_until_the_schedule_counts_less() -> None:
    stage = Stage(environ={"HOMEPORT_NOTEBOOKS": "3"})
    stage.door.count(3)
    with pytest.raises(HubFull, match="This hub has 3 notebooks"):
        stage.hub.launch(a_form())
    assert (stage.store.sessions, stage.credentials.objects) == ({}, {})
    stage.door.count(2)
    stage.hub.launch(a_form())
    stage.door.count(3)
    assert not stage.hub.launch(a_form()).created


def test_a_key_has_so_many_notebooks_that_have_not_ended() -> None:
    stage = Stage(environ={"HOMEPORT_OWNER_NOTEBOOKS": "2"})
    sids = [stage.hub.launch(a_form(name=name)).session.sid for name in ("one", "two")]
    with pytest.raises(TooManyNotebooks, match="You have 2 notebooks that have not ended"):
        stage.hub.launch(a_form(name="three"))
    first = stage.store.sessions[sids[0]]
    stage.store.save(replace(first, state=State.STOPPED, version=first.version + 1, next_attempt_at=None))
    assert stage.hub.launch(a_form(name="three")).created
    with pytest.raises(TooManyNotebooks):
        stage.hub.launch(a_form(name="one"))  # it has stopped, and would be one more


def test_a_key_may_launch_so_often_in_an_hour() -> None:
    stage = Stage(environ={"HOMEPORT_OWNER_LAUNCHES": "2", "HOMEPORT_OWNER_NOTEBOOKS": "0"})
    for name in ("one", "two"):
        stage.hub.launch(a_form(name=name))
    with pytest.raises(TooManyLaunches, match=r"for one key in an hour \(2\). Try again in 30 minutes") as refused:
        stage.hub.launch(a_form(name="three"))
    assert refused.value.retry_after == 1800
    assert not stage.hub.launch(a_form(name="one")).created  # coming back is no launch
    stage.clock.now += 1800
    assert stage.hub.launch(a_form(name="three")).created


def test_so_many_bundles_are_uploaded_from_a_network_and_more_from_one_that_is_shared() -> None:
    stage = Stage(environ={"HOMEPORT_NETWORK_UPLOADS": "2", "HOMEPORT_SHARED_NETWORKS": "198.51.100.0/24"})
    for source, most in (("203.0.113.7/32", 2), ("2001:db8::/64", 2), ("198.51.100.9/32", 20)):
        for _ in range(most):
            stage.hub.let_upload(source)
        with pytest.raises(TooManyLaunches, match=rf"from your network than this hub takes in an hour \({most}\)"):
            stage.hub.let_upload(source)
    stage.hub.let_upload("")  # it is not known
    for _ in range(1000):
        Stage(environ={"HOMEPORT_NETWORK_UPLOADS": "0"}).hub.let_upload("203.0.113.7/32")
