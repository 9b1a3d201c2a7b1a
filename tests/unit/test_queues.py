"""The messages of the lanes' queues."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws.queues import Handover, TickMessage

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1)
MESSAGES = st.builds(TickMessage, TEXTS, st.none() | st.builds(Handover, TEXTS), st.booleans())


@given(MESSAGES)
def test_a_message_is_read_as_it_was_written(message: TickMessage) -> None:
    assert TickMessage.from_body(message.to_body()) == message


def test_a_message_names_the_session_and_the_tick_whose_pull_is_handed_over() -> None:
    assert json.loads(TickMessage("sid").to_body()) == {"session": "sid"}
    assert json.loads(TickMessage("sid", Handover("tick-1")).to_body()) == {"session": "sid", "handover": "tick-1"}
    assert json.loads(TickMessage("sid", idle=True).to_body()) == {"session": "sid", "idle": True}


@given(
    MESSAGES, st.dictionaries(st.text().filter(lambda name: name not in ("session", "handover", "idle")), st.integers())
)
def test_entries_that_nobody_knows_are_passed_over(message: TickMessage, more: dict[str, int]) -> None:
    assert TickMessage.from_body(json.dumps(more | json.loads(message.to_body()))) == message


@pytest.mark.parametrize("body", ["", "{", "[]", "7", "null", '"session"', "{}", '{"handover": "tick-1"}'])
def test_a_message_of_another_queue_is_refused(body: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        TickMessage.from_body(body)
