"""Stop, start again, restart, keep longer, delete, on the real parts; and a notebook that outlives the hub's table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from chalicelib.aws.session_items import pk_of
from chalicelib.session.values import volume_name
from local import demo
from local.demo import HubClient
from local.run import Stack
from tests.integration.test_whole_path import ask, entered, eventually, stored_objects


class Buttons:
    """What a session's page has buttons for."""

    def __init__(self, hub: HubClient, stack: Stack, sid: str) -> None:
        self._hub, self._stack, self.sid = hub, stack, sid

    def press(self, what: str, *, status: int = 202, **form: str) -> dict[str, Any]:
        """Press one; gives the session, or the problem if another `status` is expected."""
        multipart = {name: (None, value) for name, value in form.items()} if what == "delete" else None
        answer = requests.post(
            f"{self._stack.hub_address}/sessions/{self.sid}/{what}",
            headers=self._hub.headers,
            files=multipart,
            data=None if multipart else form,
            timeout=60,
        )
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def until(self, state: str) -> dict[str, Any]:
        """The session once it is in that state."""
        return demo.follow(self._hub, self.sid, state)


@pytest.fixture
def hub(stack: Stack) -> Iterator[HubClient]:
    with closing(HubClient(stack.hub_address)) as client:
        yield client


@pytest.fixture
def docker_engine(stack: Stack) -> Iterator[docker.DockerClient]:
    with closing(docker.DockerClient(base_url=stack.engine_url)) as client:
        yield client


@contextmanager
def living(hub: HubClient, stack: Stack, name: str) -> Iterator[Buttons]:
    """A ready session; deleted afterwards whatever happened."""
    buttons = Buttons(hub, stack, hub.launch(Path(stack.bundle), name)["id"])
    try:
        buttons.until("ready")
        yield buttons
    finally:
        if hub.session(buttons.sid)["state"] == "stopped":
            hub.launch(Path(stack.bundle), name)
        buttons.press("delete", name=name)
        buttons.until("stopped")


def run(hub: HubClient, stack: Stack, buttons: Buttons, code: str) -> str:
    return demo.run_cell(entered(hub, stack, hub.session(buttons.sid)), code).strip()


def has_volume(docker_engine: docker.DockerClient, sid: str) -> bool:
    with suppress(docker.errors.NotFound):
        return bool(docker_engine.volumes.get(volume_name(sid)).attrs)
    return False


def test_what_was_stopped_with_its_credentials_starts_again_with_one_click(
    hub: HubClient, stack: Stack, docker_engine: docker.DockerClient
) -> None:
    with living(hub, stack, "kept") as buttons:
        run(hub, stack, buttons, "open('kept.txt', 'w').write('still here')")
        buttons.press("stop", keep="yes")
        kept = buttons.until("kept")
        assert (kept["phase"], kept["headline"], kept["kept_until"]) == ("stopped", "Stopped", kept["expires_at"])
        assert stored_objects(stack, buttons.sid)
        assert not [one for one in docker_engine.containers.list(all=True) if buttons.sid in str(one.name)]
        buttons.press("start")
        again = buttons.until("ready")
        assert again["url"] != kept["url"]
        assert run(hub, stack, buttons, "print(open('kept.txt').read())") == "still here"


def test_a_restart_in_the_middle_of_work_brings_the_volume_and_nothing_else_back(
    hub: HubClient, stack: Stack, docker_engine: docker.DockerClient
) -> None:
    with living(hub, stack, "restarted") as buttons:
        before = hub.session(buttons.sid)
        run(hub, stack, buttons, "open('work.txt', 'w').write('1'); open('/tmp/of-the-container', 'w').write('2')")
        buttons.press("start")
        assert hub.session(buttons.sid)["phase"] in ("leaving", "launching")
        after = buttons.until("ready")
        assert (after["url"] != before["url"], after["container"] != before["container"]) == (True, True)
        there = "import os; print(os.path.exists('work.txt'), os.path.exists('/tmp/of-the-container'))"
        assert run(hub, stack, buttons, there) == "True False"
        assert len([one for one in docker_engine.containers.list(all=True) if buttons.sid in str(one.name)]) == 1


def test_delete_takes_container_volume_and_credentials_away_and_needs_the_name(
    hub: HubClient, stack: Stack, docker_engine: docker.DockerClient
) -> None:
    with living(hub, stack, "to be deleted") as buttons:
        refused = buttons.press("delete", status=400, name="to be")
        assert refused["code"] == "name-not-typed"
        assert has_volume(docker_engine, buttons.sid)
        buttons.press("delete", name="to be deleted")
        deleted = buttons.until("stopped")
        assert (deleted["headline"], deleted["error"]) == ("Deleted", None)
        assert not has_volume(docker_engine, buttons.sid)
        assert stored_objects(stack, buttons.sid) == []


def test_what_was_stopped_long_ago_is_deleted_with_its_bundle(
    hub: HubClient, stack: Stack, docker_engine: docker.DockerClient
) -> None:
    with living(hub, stack, "stopped") as buttons:
        buttons.press("stop")
        buttons.until("stopped")
        assert has_volume(docker_engine, buttons.sid)
        assert buttons.press("delete", status=409, name="stopped")["code"] == "credentials-needed"
        with Path(stack.bundle).open("rb") as bundle:
            answer = requests.post(
                f"{stack.hub_address}/sessions/{buttons.sid}/delete",
                headers=hub.headers,
                files={"credentials": bundle},
                data={"name": "stopped"},
                timeout=60,
            )
        assert answer.status_code == 202, answer.text
        assert buttons.until("stopped")["headline"] == "Deleted"
        assert not has_volume(docker_engine, buttons.sid)
        assert stored_objects(stack, buttons.sid) == []


def test_keep_longer_moves_the_end_and_the_notebook_goes_on(hub: HubClient, stack: Stack) -> None:
    with living(hub, stack, "kept longer") as buttons:
        before = hub.session(buttons.sid)
        assert before["keepable_until"] > before["expires_at"]
        run(hub, stack, buttons, "here = 6 * 7")
        buttons.press("keep")
        after = buttons.until("ready")
        assert after["expires_at"] > before["expires_at"]
        assert after["url"] == before["url"]


def test_a_container_that_its_owner_restarts_is_followed_to_its_new_port(
    hub: HubClient, stack: Stack, docker_engine: docker.DockerClient
) -> None:
    with living(hub, stack, "moved") as buttons:
        session = hub.session(buttons.sid)
        container = docker_engine.containers.get(session["container"])
        port = container.attrs["NetworkSettings"]["Ports"]["8888/tcp"][0]["HostPort"]
        container.restart(timeout=5)
        container.reload()
        moved_to = container.attrs["NetworkSettings"]["Ports"]["8888/tcp"][0]["HostPort"]
        assert moved_to != port, "the engine chose the same port again"

        # A look that comes too early is followed by the next only after a minute.
        eventually(lambda: container.logs().count(b"is running at") == 2)

        def is_followed() -> bool:
            hub.look(buttons.sid)
            return any(f"another port, {moved_to}" in line for line in hub.log(buttons.sid))

        eventually(is_followed)
        buttons.until("ready")
        grant = f"{demo.COOKIE}={entered(hub, stack, session).grant}"
        eventually(lambda: ask(stack, session, "/api/status", Cookie=grant).status_code == 200)
        assert run(hub, stack, buttons, "print(6 * 7)") == "42"
        assert hub.session(buttons.sid)["url"] == session["url"]


def test_a_running_notebook_is_found_again_when_the_hub_has_lost_its_table(
    hub: HubClient, stack: Stack, docker_engine: docker.DockerClient
) -> None:
    with living(hub, stack, "found") as buttons:
        buttons.press("start")
        before = buttons.until("ready")
        container = docker_engine.containers.get(before["container"])
        run(hub, stack, buttons, "open('/tmp/of-the-container', 'w').write('x')")
        table = stack.cloud.client("dynamodb")
        for item in table.query(
            TableName=stack.table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk_of(buttons.sid)}},
        )["Items"]:
            table.delete_item(TableName=stack.table, Key={key: item[key] for key in ("pk", "sk")})
        hub.launch(Path(stack.bundle), "found")
        after = buttons.until("ready")
        assert (after["url"], after["container"], after["expires_at"]) == (
            before["url"],
            before["container"],
            before["expires_at"],
        )
        container.reload()
        assert container.status == "running"
        assert run(hub, stack, buttons, "print(open('/tmp/of-the-container').read())") == "x"
        assert any("had lost its record" in line for line in hub.log(buttons.sid))
