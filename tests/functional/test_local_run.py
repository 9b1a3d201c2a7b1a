"""What `make run` and `make demo` decide by themselves, without the stack."""

from __future__ import annotations

import io
import signal
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from chalicelib.errors import BadConfiguration
from local import demo, image, run
from local.aws import Aws
from local.demo import DemoFailed, ProgressBar
from local.processes import StackError, free_port
from local.run import Stack
from local.settings import Settings


def settings(folder: Path, **changes: int) -> Settings:
    return Settings(**{"state": folder, "hub_port": free_port(), "proxy_port": free_port(), **changes})  # type: ignore[arg-type]


def a_stack(wanted: Settings) -> Stack:
    names = (
        "hub_name",
        "hub_url",
        "bundle",
        "engine_url",
        "aws_url",
        "aws_key",
        "aws_secret",
        "bucket",
        "table",
        "image",
    )
    return Stack(**dict.fromkeys(names, ""), hub_port=wanted.hub_port, proxy_port=wanted.proxy_port)


def silent(_step: str) -> None:
    """Report to nobody."""


def test_ports_and_folder_come_from_the_environment(tmp_path: Path) -> None:
    found = Settings.from_environ(
        {"HOMEPORT_STATE_DIR": str(tmp_path), "HOMEPORT_HUB_PORT": "8001", "HOMEPORT_PROXY_PORT": "8081"}
    )
    assert (found.state, found.hub_port, found.proxy_port) == (tmp_path, 8001, 8081)
    assert Settings.from_environ({}).hub_url == "http://localhost:8000"


def test_a_wrong_port_is_told_by_its_variable() -> None:
    with pytest.raises(BadConfiguration, match="HOMEPORT_PROXY_PORT"):
        Settings.from_environ({"HOMEPORT_PROXY_PORT": "http"})


def test_two_state_folders_are_two_hubs(tmp_path: Path) -> None:
    assert settings(tmp_path / "a").hub_name != settings(tmp_path / "b").hub_name
    assert settings(tmp_path / "a").hub_name == settings(tmp_path / "a").hub_name


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = settings(tmp_path, proxy_port=taken.getsockname()[1])
        with pytest.raises(StackError, match="HOMEPORT_PROXY_PORT"), run.stack(wanted, {}, silent):
            pass
    assert not (tmp_path / "engine").exists()


def test_a_second_run_of_one_folder_is_refused(tmp_path: Path) -> None:
    second = run.alone(settings(tmp_path))
    with run.alone(settings(tmp_path)), pytest.raises(StackError, match="HOMEPORT_STATE_DIR"), second:
        pass


def test_hub_and_proxy_are_told_the_same_and_loopback_endpoints_are_allowed(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    cloud = Aws("http://127.0.0.1:1", {"HOMEPORT_TABLE": "table"})
    environ = run.hub_environ(wanted, cloud, "image:1", {"HOMEPORT_ENDPOINT_NETWORKS": "10.0.0.0/8"})
    assert environ["HOMEPORT_HUB_ORIGIN"] == wanted.hub_url
    assert environ["HOMEPORT_NOTEBOOK_URL"] == f"http://*.localhost:{wanted.proxy_port}"
    assert environ["HOMEPORT_ENDPOINT_NETWORKS"].split() == ["10.0.0.0/8", "127.0.0.0/8", "::1/128"]
    assert environ["HOMEPORT_TABLE"] == "table"


@pytest.mark.parametrize(("given", "told"), [({}, run.FUNCTIONS), ({"HOMEPORT_FUNCTIONS": "40"}, "40")])
def test_one_machine_has_few_functions_unless_told_otherwise(tmp_path: Path, given: dict[str, str], told: str) -> None:
    environ = run.hub_environ(settings(tmp_path), Aws("http://127.0.0.1:1", {}), "image:1", given)
    assert environ["HOMEPORT_FUNCTIONS"] == told


def test_a_stack_that_is_gone_is_not_used(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    assert run.announced(wanted) is None
    found = a_stack(wanted)
    with run.announcement(tmp_path / "stack.json", found):
        assert run.announced(wanted) is None, "nobody listens on the hub's port"
        with socket.create_server(("127.0.0.1", wanted.hub_port)):
            assert run.announced(wanted) == found
    assert not (tmp_path / "stack.json").exists()


def test_an_image_that_is_named_is_taken_as_it_is(tmp_path: Path) -> None:
    environ = {"HOMEPORT_IMAGE": "example.org/own:1"}
    assert image.provide("unix:///nowhere", tmp_path, environ, silent) == "example.org/own:1"


def test_the_local_image_is_named_after_its_recipe(tmp_path: Path) -> None:
    assert image.LOCAL_IMAGE.rpartition(":")[2] in image.RECIPE
    assert not image.built(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_way_of_ending_ends_in_order_and_is_not_broken_off(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        run.stop_on_signal()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        for again in before:
            signal.raise_signal(again)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Hub:
    """Answers with one session after another."""

    def __init__(self, *sessions: dict[str, Any]) -> None:
        self._sessions = list(sessions)

    def session(self, _sid: str) -> dict[str, Any]:
        return self._sessions.pop(0)


def a_session(state: str, error: str = "") -> dict[str, Any]:
    failure = {"code": "pull-failed", "message": error} if error else None
    return {"state": state, "progress": 0.5, "message": f"is {state}", "error": failure}


def test_the_demo_ends_at_the_first_failure_with_its_sentence() -> None:
    hub = Hub(a_session("pulling"), a_session("withdrawing", "No space is left"))
    with pytest.raises(DemoFailed, match="No space is left"):
        demo.follow(hub, "sid", "ready", lambda _session: None)  # type: ignore[arg-type]


def test_the_demo_does_not_wait_for_a_session_that_stopped_by_itself() -> None:
    with pytest.raises(DemoFailed, match="stopped, not ready"):
        demo.follow(Hub(a_session("stopped")), "sid", "ready", lambda _session: None)  # type: ignore[arg-type]


def test_the_demo_is_of_the_repository_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(run, "stop_on_signal", lambda: None)
    monkeypatch.setattr(demo, "some_stack", lambda *_: nullcontext())
    monkeypatch.setattr(demo, "demonstrate", lambda *_, repository: shown.append(repository))
    assert [demo.main({}), demo.main({"REPO": " owner/name "})] == [0, 0]
    assert shown == ["", "owner/name"]


def test_progress_is_one_line_each_and_only_when_it_changed() -> None:
    output = io.StringIO()
    bar = ProgressBar(output)
    for session in (a_session("pulling"), a_session("pulling"), a_session("ready") | {"progress": None}):
        bar.show(session)
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert "50% pulling: is pulling" in lines[0]
    assert "ready: is ready" in lines[1]
