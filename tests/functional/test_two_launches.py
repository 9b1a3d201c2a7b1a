"""Two launches of one session, by the real hub, launcher and agent on moto: nothing of one is good for the other."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.routes import ProxyStore
from chalicelib.notebook.container import FOLDER
from chalicelib.session.values import State
from proxy.agent.agent import Agent
from proxy.agent.lookups import Verdict
from proxy.agent.table import Map
from tests.builders import no_queue
from tests.functional.hub_rig import a_bundle, hub_rig
from tests.functional.test_stored_formats import Stage
from tests.table import TABLE


@dataclass(frozen=True)
class Launch:
    """What one launch has of its own."""

    host: str
    origin: str
    names: tuple[str, ...]  # of its leaf certificate
    label: str  # of its container
    ticket: str  # not used
    digest: str  # of a cookie that was granted for another ticket


@pytest.fixture
def stage() -> Iterator[Stage]:
    with hub_rig() as hub:
        yield Stage(hub)


def an_agent(stage: Stage, folder: Path, cookie: str = "") -> Agent:
    store = ProxyStore(stage.hub.client_of("dynamodb"), TABLE, stage.clock)
    agent = Agent(store, no_queue, folder, clock=stage.clock, new_cookie=lambda: cookie)
    agent.feed.sync()
    return agent


def seen(stage: Stage, folder: Path, cookie: str) -> Launch:
    """Enter the notebook, and look at all that its launch has."""
    (container,) = stage.engine.containers.values()
    with tarfile.open(fileobj=io.BytesIO(container.files)) as tar:
        pem = tar.extractfile(f"{FOLDER.lstrip('/')}/notebook.pem")
        assert pem is not None
        leaf = x509.load_pem_x509_certificate(pem.read())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    entry, unused = stage.ask("enter").json, stage.ask("enter").json
    host = stage.session.host
    assert an_agent(stage, folder, cookie).lookups.enter(host, entry["ticket"]) is not None
    return Launch(
        host=host,
        origin=stage.ask().json["url"],
        names=tuple(names.get_values_for_type(x509.DNSName)),
        label=container.specification.labels["homeport.label"],
        ticket=unused["ticket"],
        digest=digest_of(cookie),
    )


def launched_again(stage: Stage) -> None:
    stage.ask("stop")
    stage.run(State.STOPPED)
    assert stage.hub.upload(a_bundle(), name="one").json["id"] == stage.sid
    stage.run(State.READY)


def item_lost_and_launched_again(stage: Stage) -> None:
    """Then launches are counted from 1 again, and the first one's route and what is left of its container are there."""
    stage.hub.client_of("dynamodb").delete_item(TableName=TABLE, Key=stage.key)
    (container,) = stage.engine.containers.values()
    container.end(1)
    assert stage.hub.upload(a_bundle(), name="one").json["id"] == stage.sid
    stage.run(State.READY)
    assert stage.session.generation == 2


@pytest.mark.parametrize("again", [launched_again, item_lost_and_launched_again])
def test_two_launches_of_one_session_share_no_host_name_route_grant_or_ticket(
    stage: Stage, tmp_path: Path, again: Callable[[Stage], None]
) -> None:
    first = seen(stage, tmp_path, "the first cookie")
    again(stage)
    second = seen(stage, tmp_path, "the second cookie")

    assert first.host.partition("-")[0] == second.host.partition("-")[0] == stage.sid
    assert first.names == (f"{first.host}.notebook.internal",)
    assert second.names == (f"{second.host}.notebook.internal",)
    for name in ("host", "origin", "names", "label", "ticket", "digest"):
        assert getattr(first, name) != getattr(second, name), name

    lookups = an_agent(stage, tmp_path).lookups
    for one, other in ((first, second), (second, first)):
        assert lookups.look_up(other.host, one.digest) in (Verdict.OTHER_GRANT, Verdict.NO_ROUTE)
        assert lookups.enter(other.host, one.ticket) is None
    assert lookups.look_up(second.host, first.digest) is Verdict.OTHER_GRANT
    assert lookups.enter(second.host, second.ticket) is not None


def test_the_route_of_a_launch_that_is_over_is_gone_and_that_of_the_next_is_there(stage: Stage, tmp_path: Path) -> None:
    first = stage.session.host
    launched_again(stage)
    table = an_agent(stage, tmp_path).table
    assert set(table.values_of([(Map.ROUTES, first), (Map.ROUTES, stage.session.host), (Map.ROUTES, stage.sid)])) == {
        (Map.ROUTES, stage.session.host)
    }
