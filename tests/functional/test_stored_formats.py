"""Sessions that another version of Homeport stored, and those that nobody can read: on DynamoDB, through the hub.

An item of a later format is left alone until it is stopped or expires. A broken one ends, and leaves nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from chalicelib.aws.images import ImageStore
from chalicelib.aws.queues import Handover, TickMessage
from chalicelib.aws.routes import ProxyStore, Route, RouteStore
from chalicelib.aws.slots import SlotStore
from chalicelib.engine.errors import NotebookSilent
from chalicelib.launcher.effects import Effects
from chalicelib.launcher.tick import Launcher
from chalicelib.notebook.certificates import HubTrust
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.machine import PullPatience
from chalicelib.session.narration import NEWER, UNREADABLE
from chalicelib.session.values import Session, State, Target, container_name
from chalicelib.web.json import listed_json
from tests.functional.hub_rig import Answer, HubRig, a_bundle, a_hub, hub_rig
from tests.launcher_twins import Clock, EngineTwin, a_trust, drive
from tests.table import TABLE

Item = dict[str, Any]
Change = Callable[[Item], None]
LATER = "99"
FOR_EVER = 1e11


@dataclass
class Stage:
    """A ready notebook: its session, credentials and route really stored, on an engine's twin."""

    hub: HubRig
    clock: Clock = field(default_factory=lambda: Clock(time.time()))
    engine: EngineTwin = field(default_factory=EngineTwin)
    ticks: int = 0

    def __post_init__(self) -> None:
        self.hub.hub = a_hub(self.hub.parts, clock=self.clock)
        launched = self.hub.upload(a_bundle(), name="one").json
        self.sid, self.token = launched["id"], launched["owner_token"]
        self.run(State.READY)
        self.hub.messages()

    @property
    def session(self) -> Session:
        return self.hub.parts.sessions.load(self.sid)

    @property
    def key(self) -> Item:
        return {"pk": {"S": f"session#{self.sid}"}, "sk": {"S": "session"}}

    @property
    def item(self) -> Item:
        found: Item = self.hub.client_of("dynamodb").get_item(TableName=TABLE, Key=self.key)["Item"]
        return found

    def change(self, change: Change) -> None:
        """Store the session's item with a change that only another version, or an accident, makes."""
        item = self.item
        change(item)
        self.hub.client_of("dynamodb").put_item(TableName=TABLE, Item=item)

    def tick(self, handover: Handover | None = None) -> None:
        drive(self.launcher, self.hub.parts.sessions, TickMessage(self.sid, handover))

    def launcher(self, lane: Lane) -> Launcher:
        self.ticks += 1
        table = self.hub.parts.config.table
        effects = Effects(
            config=self.hub.parts.config,
            credentials=self.hub.parts.credentials,
            routes=RouteStore(self.hub.client_of("dynamodb"), table, self.clock),
            slots=SlotStore(self.hub.client_of("dynamodb"), table, self.clock),
            images=ImageStore(self.hub.client_of("dynamodb"), table, self.clock),
            build_logs=self.hub.parts.build_logs,
            trust=a_trust,
            find_session=self.hub.parts.sessions.find,
            clock=self.clock,
            sleep=self.clock.sleep,
            connect=self.engine.connect,
            resolve=lambda endpoint, policy: self.engine.address,
            probe=self.probe,
        )
        return Launcher(
            sessions=self.hub.parts.sessions,
            effects=effects,
            enqueue=lambda message, *, lane, delay: None,
            lane=lane,
            pulls=PullPatience(),
            clock=self.clock,
            time_left=lambda: 1000.0,
            name=f"tick-{self.ticks}",
        )

    def probe(self, target: Target, host: str, trust: HubTrust, *, deadline: float) -> None:
        container = self.engine.containers.get(container_name(self.sid, self.session.generation))
        if container is None or container.status != "running":
            raise NotebookSilent("The notebook does not answer yet")

    def run(self, until: State, ticks: int = 100) -> None:
        """What queue and schedule do: wake the session whenever it is due, until it is there."""
        for _ in range(ticks):
            session = self.session
            if session.state is until:
                return
            self.clock.now = max(self.clock.now, session.next_attempt_at or 0.0, session.lease_expires_at)
            self.tick()
        raise AssertionError(f"still {self.session.state} after {ticks} ticks: {self.session.message}")

    def ask(self, action: str = "") -> Answer:
        path = f"/sessions/{self.sid}"
        if action:
            return self.hub.press(f"{path}/{action}", token=self.token)
        return self.hub.ask("GET", path, token=self.token)

    def published(self) -> list[Route]:
        proxy = ProxyStore(self.hub.client_of("dynamodb"), TABLE, self.clock)
        return [found for found in proxy.changes(0) if isinstance(found, Route) and found.published]

    def assert_all_is_there(self) -> None:
        assert list(self.engine.containers) == [container_name(self.sid, 1)]
        assert [route.host for route in self.published()] == [self.session.host]
        assert self.hub.objects() == [f"credentials/{self.sid}/1"]

    def assert_nothing_is_left(self) -> None:
        assert self.session.state is State.STOPPED
        assert not self.session.credentials_held
        assert self.engine.containers == {}
        assert self.published() == []
        assert self.hub.objects() == []
        assert list(self.hub.parts.sessions.due(FOR_EVER)) == []


@pytest.fixture
def stage() -> Iterator[Stage]:
    with hub_rig() as hub:
        yield Stage(hub)


def with_fields(**fields: Any) -> Change:
    """Change fields in the item's JSON."""

    def change(item: Item) -> None:
        item["session"] = {"S": json.dumps({**json.loads(item["session"]["S"]), **fields})}

    return change


def made_newer(stage: Stage, **fields: Any) -> Item:
    """What a later version may have stored; it is due. Gives the item."""

    def change(item: Item) -> None:
        item["format"] = {"N": LATER}
        item["replicas"] = {"L": [{"S": "one"}]}
        item["redrive_at"] = {"N": "0"}

    known = {"state": "migrating", "shape": {"of": ["things"]}, "next_attempt_at": 0.0}
    stage.change(with_fields(**known | fields))
    stage.change(change)
    assert stage.session.newer
    return stage.item


# ── of a later format ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["migrating", *State])
def test_a_later_versions_session_is_left_alone_by_ticks_and_schedule(stage: Stage, state: str) -> None:
    item = made_newer(stage, state=state, written_by="its tick", lease_expires_at=0.0)
    assert set(stage.hub.parts.redrive()) == {stage.sid}
    put_off = {"redrive_at": stage.item["redrive_at"]}  # by the schedule, which has sent it
    (message, *_) = stage.hub.messages()
    assert message == {"session": stage.sid}
    stage.hub.parts.tick(lane_of(stage.session), json.dumps(message), time_left=lambda: 1000.0)
    stage.tick()
    stage.tick(Handover("its tick"))
    assert stage.item == item | put_off
    assert stage.engine.created == [container_name(stage.sid, 1)]
    assert stage.engine.pulls == 1
    stage.assert_all_is_there()


def test_a_later_versions_session_is_shown_and_can_be_entered(stage: Stage) -> None:
    item = made_newer(stage)
    shown = stage.ask().json
    assert (shown["name"], shown["state"], shown["phase"]) == ("one", "ready", "ready")
    assert shown["message"] == NEWER
    assert shown["container"] == container_name(stage.sid, 1)
    assert shown["url"] == f"https://{stage.session.host}.notebooks.example.net/"
    (listed,) = stage.hub.ask("GET", "/sessions", token=stage.token).json["sessions"]
    assert listed == listed_json(stage.session.summary)
    page = stage.hub.ask("GET", f"/sessions/{stage.sid}", token=stage.token, html=True)
    assert page.status == 200
    entry = stage.ask("enter")
    assert (entry.status, entry.json["path"]) == (200, "/lab")
    proxy = ProxyStore(stage.hub.client_of("dynamodb"), TABLE, stage.clock)
    redeemed = proxy.redeem_ticket(entry.json["ticket"], stage.session.host)
    assert redeemed is not None
    assert stage.item == item


def test_an_upload_of_the_same_key_and_name_comes_back_to_a_later_versions_session(stage: Stage) -> None:
    item = made_newer(stage)
    again = stage.hub.upload(a_bundle(), name="one")
    assert (again.status, again.json["id"]) == (200, stage.sid)
    assert stage.item == item


@pytest.mark.parametrize("state", ["migrating", "ready", "pulling", "withdrawing", "purging"])
def test_a_later_versions_session_can_be_stopped_and_leaves_nothing(stage: Stage, state: str) -> None:
    made_newer(stage, state=state)
    answer = stage.ask("stop")
    assert (answer.status, answer.json["phase"]) == (202, "leaving")
    assert not stage.session.newer
    stage.run(State.STOPPED)
    if state != "purging":  # its own version had removed the container by then
        stage.assert_nothing_is_left()
    assert stage.hub.objects() == []
    assert stage.ask().json["headline"] == "Stopped"
    assert stage.item["format"]["N"] != LATER


def test_a_later_versions_session_cannot_be_forgotten(stage: Stage) -> None:
    item = made_newer(stage)
    answer = stage.ask("forget")
    assert (answer.status, answer.json["code"]) == (409, "session-of-later-version")
    page = stage.hub.press(f"/sessions/{stage.sid}/forget", token=stage.token, html=True)
    assert page.status == 409
    assert "session-of-later-version" in page.text
    assert stage.item == item
    stage.assert_all_is_there()


@pytest.mark.parametrize("state", ["migrating", "ready", "pulling", "withdrawing"])
def test_a_later_versions_session_expires_and_leaves_nothing(stage: Stage, state: str) -> None:
    item = made_newer(stage, state=state)
    stage.clock.now = stage.session.expires_at - 1
    stage.tick()
    assert stage.item == item
    stage.clock.now = stage.session.expires_at
    stage.tick()
    stage.run(State.STOPPED)
    stage.assert_nothing_is_left()


def test_a_later_versions_stopped_session_can_be_launched_again(stage: Stage) -> None:
    stage.ask("stop")
    stage.run(State.STOPPED)

    def change(item: Item) -> None:
        item["format"] = {"N": LATER}

    stage.change(change)
    assert stage.session.newer
    answer = stage.hub.upload(a_bundle(), name="one")
    assert (answer.status, answer.json["state"]) == (201, "verifying")
    assert (stage.session.newer, stage.session.generation) == (False, 2)
    stage.run(State.READY)


# ── of the version before launches had labels ────────────────────────────────────────────────────────────────────────


def without_a_label(item: Item) -> None:
    del item["label"]


def test_a_notebook_that_was_launched_before_launches_had_labels_goes_on_at_its_old_origin(stage: Stage) -> None:
    """As after an update of the hub: its route is under the session's id, and so are its tickets and its origin."""
    labelled = stage.session
    stage.change(without_a_label)
    store = RouteStore(stage.hub.client_of("dynamodb"), TABLE, stage.clock)
    store.withdraw(labelled)
    store.publish(stage.session)
    assert [route.host for route in stage.published()] == [stage.sid]
    assert stage.ask().json["url"] == f"https://{stage.sid}.notebooks.example.net/"
    entry = stage.ask("enter").json
    assert entry["url"] == f"https://{stage.sid}.notebooks.example.net/.homeport/enter"
    proxy = ProxyStore(stage.hub.client_of("dynamodb"), TABLE, stage.clock)
    assert proxy.redeem_ticket(entry["ticket"], stage.sid) is not None
    stage.tick()
    assert stage.session.host == stage.sid
    stage.ask("stop")
    stage.run(State.STOPPED)
    stage.assert_nothing_is_left()
    stage.hub.upload(a_bundle(), name="one")
    stage.run(State.READY)
    assert [route.host for route in stage.published()] == [stage.session.host] != [stage.sid]


# ── broken ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def cut(item: Item) -> None:
    item["session"] = {"S": item["session"]["S"][:200]}


def emptied(item: Item) -> None:
    del item["session"]


def of_another_type(item: Item) -> None:
    item["session"] = {"M": {"state": {"S": "ready"}}}


def a_list(item: Item) -> None:
    item["session"] = {"S": f"[{item['session']['S']}]"}


def without_a_time(item: Item) -> None:
    item["expires_at"] = {"S": "soon"}


def stripped(item: Item) -> None:
    """Leave what no item can be without, and what brings it to the schedule."""
    for name in set(item) - {"pk", "sk", "version", "redrive", "redrive_at"}:
        del item[name]


BROKEN: dict[str, Change] = {
    "cut": cut,
    "no JSON": emptied,
    "a map": of_another_type,
    "a list": a_list,
    "an unknown state": with_fields(state="migrating"),
    "no state": with_fields(state=None),
    "limits": with_fields(limits=7),
    "log": with_fields(log="a text"),
    "log lines": with_fields(log=[{"number": "one", "at": 0, "text": "x"}]),
    "credentials_held": with_fields(credentials_held="yes"),
    "target": with_fields(target={"address": "203.0.113.7", "port": "32768"}),
    "failure": with_fields(failure={"code": "x"}),
    "never due": with_fields(next_attempt_at=None),
    "no time": without_a_time,
}


def assert_it_ends(stage: Stage) -> None:
    assert stage.session.state is State.WITHDRAWING
    assert [due.sid for due in stage.hub.parts.sessions.due(FOR_EVER)] == [stage.sid]
    stage.run(State.STOPPED)
    stage.assert_nothing_is_left()
    assert stage.session.failure == UNREADABLE


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_session_ends_and_leaves_nothing(stage: Stage, name: str) -> None:
    stage.change(BROKEN[name])
    shown = stage.ask().json
    assert (shown["phase"], shown["message"]) == ("leaving", UNREADABLE.message)
    assert_it_ends(stage)
    shown = stage.ask().json
    assert (shown["headline"], shown["error"]["code"]) == ("Failed", "session-unreadable")
    (listed,) = stage.hub.ask("GET", "/sessions", token=stage.token).json["sessions"]
    assert listed == listed_json(stage.session.summary)


def test_a_broken_session_of_the_first_format_ends_and_leaves_nothing(stage: Stage) -> None:
    def change(item: Item) -> None:
        del item["format"]
        cut(item)

    stage.change(change)
    assert_it_ends(stage)


@pytest.mark.parametrize("action", ["stop", "enter", "forget"])
def test_a_broken_session_can_be_asked_for_anything_and_still_ends(stage: Stage, action: str) -> None:
    stage.change(cut)
    answer = stage.ask(action)
    assert answer.status == (202 if action == "stop" else 409)
    stage.run(State.STOPPED)
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("label_is_known", [True, False])
def test_a_session_of_which_nothing_is_known_still_loses_its_route_and_its_credentials(
    stage: Stage, label_is_known: bool
) -> None:
    """Its owner and its launch are unknown, so the container is left; and nobody is shown it who could be told so.

    If even the label is lost, nobody knows the route's host: the route is left too, and ends when the session would.
    """
    ends_at, label = int(stage.session.expires_at), stage.item["label"]
    stage.change(stripped)
    if label_is_known:
        stage.change(lambda item: item.update(label=label))
    assert stage.ask().status == 404
    stage.run(State.STOPPED)
    assert stage.session.failure == UNREADABLE
    assert [route.expires_at for route in stage.published()] == ([] if label_is_known else [ends_at])
    assert stage.hub.objects() == []
    assert list(stage.hub.parts.sessions.due(FOR_EVER)) == []


def test_a_broken_session_can_be_launched_again_once_it_has_ended(stage: Stage) -> None:
    stage.change(cut)
    leaving = stage.hub.upload(a_bundle(), name="one")
    assert (leaving.status, leaving.json["code"]) == (409, "session-leaving")
    stage.run(State.STOPPED)
    assert stage.hub.upload(a_bundle(), name="one").status == 201
    stage.run(State.READY)
    assert stage.session.generation == 2
