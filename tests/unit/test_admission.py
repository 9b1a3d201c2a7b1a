"""Who may pull, and who may wait for a silent endpoint."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.session.admission import SHARED_FACTOR, Crowd, Quota, Slot, crowd_before, network_of, slot_of
from tests.builders import NOW, OWNER, a_session

QUOTA = Quota(per_owner=2, per_network=3, in_all=5)


def a_slot(owner: str = "one", endpoint: str = "203.0.113.7/32", source: str = "198.51.100.1/32") -> Slot:
    return Slot(owner, endpoint, source, NOW + 60)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        ("::ffff:203.0.113.7", "203.0.113.7/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1%eth0", "2001:db8:1:2::/64"),
    ],
)
def test_an_ipv6_network_counts_as_one_and_an_ipv4_address_as_itself(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("text", ["", "None", "docker.example.org", "203.0.113"])
def test_what_is_no_address_has_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        network_of(text)


def test_a_slot_tells_owner_endpoint_and_source_and_nothing_that_opens_anything() -> None:
    session = a_session(address="203.0.113.7", source="198.51.100.1/32")
    assert slot_of(session, NOW) == Slot(OWNER[:16], "203.0.113.7/32", "198.51.100.1/32", NOW)
    assert slot_of(a_session(), NOW) == Slot(OWNER[:16], "", "", NOW)


@pytest.mark.parametrize(
    ("others", "crowd"),
    [
        ([a_slot(), a_slot()], Crowd(2, "with your key")),
        ([a_slot(owner=str(n), source="") for n in range(3)], Crowd(3, "on this endpoint's address")),
        ([a_slot(owner=str(n), endpoint="") for n in range(3)], Crowd(3, "launched from your network")),
        ([a_slot(str(n), "", "") for n in range(5)], Crowd(5, "on this hub")),
        ([a_slot()], None),
        ([a_slot(str(n), "", "") for n in range(4)], None),
    ],
)
def test_each_limit_is_told_by_name(others: list[Slot], crowd: Crowd | None) -> None:
    held = {f"sid-{number}": slot for number, slot in enumerate(others)}
    assert crowd_before(held, "mine", a_slot(), QUOTA, NOW) == crowd


def test_slots_that_are_over_and_ones_own_count_for_nothing() -> None:
    held = {"mine": a_slot(), "other": a_slot(), "over": replace(a_slot(), until=NOW)}
    assert crowd_before(held, "mine", a_slot(), QUOTA, NOW) is None


def test_what_is_not_known_is_shared_with_nobody() -> None:
    held = {f"sid-{number}": a_slot(str(number), "", "") for number in range(100)}
    quota = Quota(per_owner=2, per_network=3)
    assert crowd_before(held, "mine", a_slot("mine", "", ""), quota, NOW) is None


def test_a_network_that_many_share_has_more() -> None:
    campus = replace(
        QUOTA, in_all=None, shared=(ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")), shared_most=100
    )
    held = {f"sid-{number}": a_slot(str(number), "") for number in range(SHARED_FACTOR * QUOTA.per_network - 1)}
    assert crowd_before(held, "mine", a_slot("mine", ""), campus, NOW) is None
    held["one more"] = a_slot("other", "")
    assert crowd_before(held, "mine", a_slot("mine", ""), campus, NOW) == Crowd(30, "launched from your network")
    assert campus.of_network("2001:db8:5:6::/64") == 30
    assert campus.of_network("203.0.113.7/32") == 3
    assert replace(campus, shared_most=18).of_network("2001:db8:5:6::/64") == 18


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["10.0.0.1/32", "10.0.0.2/32"]), st.booleans())))
def test_no_sequence_of_launches_has_more_than_its_limits(asked: list[tuple[str, str, bool]]) -> None:
    held: dict[str, Slot] = {}
    for number, (owner, network, gives_back) in enumerate(asked):
        slot = a_slot(owner, network, network)
        if crowd_before(held, str(number), slot, QUOTA, NOW) is None:
            held[str(number)] = slot
        elif gives_back:
            held.popitem()
        assert max(Counter(slot.owner for slot in held.values()).values(), default=0) <= QUOTA.per_owner
        assert max(Counter(slot.endpoint for slot in held.values()).values(), default=0) <= QUOTA.per_network
        assert len(held) <= 5
