"""The agent's decisions: what the maps shall hold, whatever order the news come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws.routes import Grant, Route
from chalicelib.session.values import Target
from proxy.agent import plan
from proxy.agent.plan import Delete, Map, Put, Replace

NOW = 1_790_000_000.0
SID = "0123456789abcdefghij"
DIGEST = "ab" * 32
ROUTE = Route(SID, 3, Target("192.0.2.7", 32768), True, 1000, int(NOW) + 60)
GRANT = Grant(DIGEST, SID, 3, False, 1000, int(NOW) + 60)


def test_a_route_is_worth_address_port_and_generation() -> None:
    assert plan.value_of(ROUTE, NOW) == "192.0.2.7|32768|3"
    assert plan.value_of(replace(ROUTE, target=Target("2001:DB8::1", 1)), NOW) == "2001:db8::1|1|3"


def test_a_grant_is_worth_its_session_and_generation() -> None:
    assert plan.value_of(GRANT, NOW) == f"{SID}/3"


def test_withdrawn_revoked_and_expired_means_absent() -> None:
    assert plan.value_of(replace(ROUTE, published=False, target=None), NOW) is None
    assert plan.value_of(replace(GRANT, revoked=True), NOW) is None
    assert plan.value_of(ROUTE, NOW + 60) is None
    assert plan.value_of(GRANT, NOW + 60) is None
    assert plan.value_of(None, NOW) is None


@given(st.text(), st.integers(), st.text(), st.integers())
def test_nothing_malformed_gets_into_a_command(address: str, port: int, sid: str, generation: int) -> None:
    routes = [
        replace(ROUTE, target=Target(address, 80)),
        replace(ROUTE, target=Target("192.0.2.7", port)),
        replace(ROUTE, sid=sid),
        replace(ROUTE, generation=generation),
    ]
    grants = [replace(GRANT, sid=sid), replace(GRANT, digest=sid), replace(GRANT, generation=generation)]
    for item in (*routes, *grants):
        value = plan.value_of(item, NOW)
        if value is not None:
            line = f"{plan.key_of(item)[1]} {value}"
            assert line.isascii()
            assert line.isprintable()
            assert line.count(" ") == 1


def test_an_address_that_is_none_or_link_local_is_absent() -> None:
    metadata = ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1")
    for address in (*metadata, "notebook.example", "192.0.2.7\nset map", "fe80::1%eth0", "", "1.2.3.4|5|6"):
        assert plan.value_of(replace(ROUTE, target=Target(address, 80)), NOW) is None


changes = st.lists(
    st.builds(
        lambda generation, published, at: Route(
            SID, generation, Target("192.0.2.7", generation) if published else None, published, at, int(NOW) + 60
        ),
        st.integers(1, 3),
        st.booleans(),
        st.integers(1, 5),
    ),
    max_size=8,
)


@given(changes, st.randoms(use_true_random=False))
def test_news_in_any_order_and_repeated_end_in_the_same_entry(news: list[Route], random: Random) -> None:
    shuffled = [*news, *news]
    random.shuffle(shuffled)

    once = list(plan.merged({}, news).values())

    def end(items: Sequence[plan.Item]) -> str | None:
        known: dict[plan.Key, plan.Item] = {}
        for item in items:
            known |= plan.merged(known, [item])
        return plan.value_of(known.get((Map.ROUTES, SID)), NOW)

    assert end(news) == end(shuffled) == end(once)


def test_a_withdrawal_is_final_for_its_launch_and_says_nothing_of_the_next() -> None:
    withdrawn = replace(ROUTE, published=False, target=None, changed_at=500)
    assert plan.newest(ROUTE, withdrawn) is withdrawn
    assert plan.newest(withdrawn, ROUTE) is withdrawn
    relaunched = replace(ROUTE, generation=4, changed_at=400)
    assert plan.newest(withdrawn, relaunched) is relaunched
    assert plan.newest(relaunched, withdrawn) is relaunched


def test_known_news_change_nothing() -> None:
    assert plan.merged({plan.key_of(ROUTE): ROUTE}, [ROUTE, ROUTE]) == {}


def test_a_full_reading_replaces_all_but_what_is_pending() -> None:
    other, pending = replace(ROUTE, sid="other"), replace(ROUTE, sid="pending")
    known = {plan.key_of(item): item for item in (ROUTE, other, pending)}
    after = plan.replaced(known, [ROUTE], [plan.key_of(pending)])
    assert set(after.values()) == {ROUTE, pending}


def test_a_full_reading_that_is_behind_undoes_nothing() -> None:
    withdrawn = replace(ROUTE, published=False, target=None, changed_at=2000)
    key = plan.key_of(ROUTE)
    assert plan.replaced({key: withdrawn}, [ROUTE], [])[key] is withdrawn
    assert plan.replaced({key: withdrawn}, [ROUTE], [key])[key] is withdrawn


def test_only_differences_become_commands_and_leaving_goes_first() -> None:
    held = {(Map.ROUTES, "a"): "1", (Map.ROUTES, "b"): "2", (Map.GRANTS, "g"): "3"}
    wanted = {(Map.ROUTES, "a"): "1", (Map.ROUTES, "b"): "9", (Map.ROUTES, "c"): "4", (Map.GRANTS, "g"): None}
    assert plan.commands(held, wanted) == [
        Delete(Map.GRANTS, "g"),
        Put(Map.ROUTES, "b", "9"),
        Put(Map.ROUTES, "c", "4"),
    ]
    assert plan.commands(held, {(Map.ROUTES, "unknown"): None}) == []


def test_many_changes_are_one_swap_that_keeps_what_was_not_named() -> None:
    held = {(Map.ROUTES, "kept"): "1", (Map.GRANTS, "gone"): "2"}
    wanted: dict[plan.Key, str | None] = {(Map.ROUTES, f"r{n}"): str(n) for n in range(plan.MANY)}
    swap = plan.commands(held, {**wanted, (Map.GRANTS, "gone"): None})
    assert swap == [
        Replace(Map.GRANTS, {}),
        Replace(Map.ROUTES, {"kept": "1"} | {f"r{n}": str(n) for n in range(plan.MANY)}),
    ]
