"""The agent's decisions: what the maps shall hold, whatever order the news come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws.routes import Grant, Route
from chalicelib.aws.sign_ins import SIGN_OUT_TTL, SignIn, SignOut, sign_outs
from chalicelib.session.values import Target
from proxy.agent import table
from proxy.agent.table import BATCH, MANY, PENDING_SECONDS, Delete, Item, Key, Map, News, Put, Replace, Table
from tests.builders import NOW, OWNER, SIGN_IN

HOST = "0123456789abcdefghij-0a1b2c3d4e"
DIGEST = "ab" * 32
ROUTE = Route(HOST, Target("192.0.2.7", 32768), True, 1000, int(NOW) + 60)
GRANT = Grant(DIGEST, HOST, False, 1000, int(NOW) + 60, SIGN_IN)


def test_a_route_is_worth_address_and_port() -> None:
    assert table.value_of(ROUTE, NOW) == "192.0.2.7|32768"
    assert table.value_of(replace(ROUTE, target=Target("2001:DB8::1", 1)), NOW) == "2001:db8::1|1"


def test_a_grant_is_worth_the_host_of_its_launch() -> None:
    assert table.value_of(GRANT, NOW) == HOST


@pytest.mark.parametrize("host", ["a", "0123456789abcdefghij", HOST, "a" * 63, "a-b", "a--b"])
def test_a_host_is_a_dns_label_in_lower_case(host: str) -> None:
    assert table.is_host(host)


@pytest.mark.parametrize(
    "host", ["", "-", "-a", "a-", "a" * 64, "A", "a b", "a.b", "a\n", "\na", "ä", "a_b", "a|b", "١"]
)
def test_anything_else_is_no_host(host: str) -> None:
    assert not table.is_host(host)


def test_withdrawn_revoked_and_expired_means_absent() -> None:
    assert table.value_of(replace(ROUTE, published=False, target=None), NOW) is None
    assert table.value_of(replace(GRANT, revoked=True), NOW) is None
    assert table.value_of(ROUTE, NOW + 60) is None
    assert table.value_of(GRANT, NOW + 60) is None
    assert table.value_of(None, NOW) is None


@given(st.text(), st.integers(), st.text())
def test_nothing_malformed_gets_into_a_command(address: str, port: int, text: str) -> None:
    routes = [
        replace(ROUTE, target=Target(address, 80)),
        replace(ROUTE, target=Target("192.0.2.7", port)),
        replace(ROUTE, host=text),
    ]
    grants = [replace(GRANT, host=text), replace(GRANT, digest=text)]
    items: list[Route | Grant] = [*routes, *grants]
    for item in items:
        value = table.value_of(item, NOW)
        if value is not None:
            line = f"{table.key_of(item)[1]} {value}"
            assert line.isascii()
            assert line.isprintable()
            assert line.count(" ") == 1


def test_an_address_that_is_none_or_link_local_is_absent() -> None:
    metadata = ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1")
    for address in (*metadata, "notebook.example", "192.0.2.7\nset map", "fe80::1%eth0", "", "1.2.3.4|5|6"):
        assert table.value_of(replace(ROUTE, target=Target(address, 80)), NOW) is None


changes = st.lists(
    st.builds(
        lambda published, at: Route(HOST, Target("192.0.2.7", at) if published else None, published, at, int(NOW) + 60),
        st.booleans(),
        st.integers(1, 5),
    ),
    max_size=8,
)


@given(changes, st.randoms(use_true_random=False))
def test_news_in_any_order_and_repeated_end_in_the_same_entry(news: list[Route], random: Random) -> None:
    shuffled = [*news, *news]
    random.shuffle(shuffled)

    def end(*readings: Sequence[Item]) -> tuple[Item | None, dict[Key, str]]:
        learner = Table({})
        for reading in readings:
            learner.learn(reading, NOW)
        return learner.item((Map.ROUTES, HOST)), learner.take_all()

    def one_by_one(items: Sequence[Item]) -> tuple[Item | None, dict[Key, str]]:
        return end(*([item] for item in items))

    _, values = end(news)
    assert one_by_one(news)[1] == one_by_one(shuffled)[1] == end(shuffled)[1] == values
    last = end(news)[0]
    assert values == ({} if table.value_of(last, NOW) is None else {(Map.ROUTES, HOST): table.value_of(last, NOW)})


def test_a_withdrawal_is_final_for_its_launch_and_says_nothing_of_the_next() -> None:
    withdrawn = replace(ROUTE, published=False, target=None, changed_at=500)
    assert table.newest(ROUTE, withdrawn) is withdrawn
    assert table.newest(withdrawn, ROUTE) is withdrawn
    late = replace(ROUTE, changed_at=9000)
    assert table.newest(withdrawn, late) is withdrawn
    assert table.newest(late, withdrawn) is withdrawn
    relaunched = replace(ROUTE, host="0123456789abcdefghij-zzzzzzzzzz", changed_at=400)
    assert table.key_of(relaunched) != table.key_of(withdrawn)
    known = Table({})
    known.learn([withdrawn, relaunched, ROUTE], NOW)
    assert known.take_all() == {table.key_of(relaunched): "192.0.2.7|32768"}


WITHDRAWN = replace(ROUTE, published=False, target=None, changed_at=2000)
NEIGHBOUR = replace(GRANT, digest="ef" * 32, host="neighbour")


@given(st.permutations([ROUTE, WITHDRAWN, GRANT, replace(GRANT, digest="cd" * 32, changed_at=3000), NEIGHBOUR]))
def test_withdrawn_with_a_launch_are_its_grants_whichever_is_known_first(news: list[Item]) -> None:
    for readings in ([news], [[item] for item in news]):
        known = Table({})
        for reading in readings:
            known.learn(reading, NOW)
        assert known.take_all() == {(Map.GRANTS, NEIGHBOUR.digest): "neighbour"}


def test_grants_from_the_files_are_withdrawn_with_their_launch_too() -> None:
    held = {(Map.GRANTS, f"{number:064x}"): HOST for number in range(2 * table.BATCH)}
    known = Table({**held, (Map.GRANTS, NEIGHBOUR.digest): "neighbour"})
    known.learn([WITHDRAWN], NOW)
    assert known.take_all() == {(Map.GRANTS, NEIGHBOUR.digest): "neighbour"}


def test_known_news_change_nothing() -> None:
    known = a_synced_table(ROUTE)
    known.learn([ROUTE, ROUTE], NOW)
    assert known.take_changes() == {}
    assert known.take_unsaved() is None


def a_synced_table(*items: Item, values: Mapping[Key, str] = MappingProxyType({})) -> Table:
    """A table after a full reading of these items, all told and saved."""
    made = Table(values)
    made.replace(items, started=NOW, now=NOW)
    made.take_all()
    made.confirm()
    made.take_unsaved()
    return made


def test_a_full_reading_replaces_all_but_what_is_pending() -> None:
    other, pending = replace(ROUTE, host="other"), replace(ROUTE, host="pending")
    known = Table({})
    known.learn([ROUTE, other], NOW - PENDING_SECONDS)
    known.learn([pending], NOW - PENDING_SECONDS + 1)
    known.replace([ROUTE], started=NOW, now=NOW)
    assert [known.item(table.key_of(item)) for item in (ROUTE, other, pending)] == [ROUTE, None, pending]
    assert set(known.take_all()) == {table.key_of(ROUTE), table.key_of(pending)}


def test_what_is_learnt_while_a_full_reading_is_taken_in_stays() -> None:
    known = a_synced_table(ROUTE)
    late = replace(ROUTE, host="late")

    def reading() -> Iterator[Item]:
        yield ROUTE
        known.learn([late], NOW + 1)

    known.replace(list(reading()), started=NOW, now=NOW + 2)
    assert known.item(table.key_of(late)) == late


def test_a_full_reading_that_is_behind_undoes_nothing() -> None:
    withdrawn = replace(ROUTE, published=False, target=None, changed_at=2000)
    key = table.key_of(ROUTE)
    for learnt_at in (NOW - PENDING_SECONDS, NOW):  # not pending any more, and pending
        known = Table({})
        known.learn([withdrawn], learnt_at)
        known.replace([ROUTE], started=NOW, now=NOW)
        assert known.item(key) is withdrawn
        assert known.take_all() == {}


def test_what_came_from_the_files_stays_until_a_full_reading_lacks_it() -> None:
    held = {(Map.ROUTES, HOST): "192.0.2.7|32768", (Map.ROUTES, "gone"): "192.0.2.8|1"}
    known = Table(held)
    known.expire(NOW)
    assert (known.synced, known.take_all()) == (False, held)
    known.replace([ROUTE], started=NOW, now=NOW)
    assert (known.synced, known.take_changes()) == (True, {(Map.ROUTES, "gone"): None})


def test_only_differences_become_commands_and_leaving_goes_first() -> None:
    a, b, grant = replace(ROUTE, host="a"), replace(ROUTE, host="b"), GRANT
    known = a_synced_table(a, b, grant)
    news: list[Route | Grant] = [
        a,
        replace(b, target=Target("192.0.2.7", 9), changed_at=1001),
        replace(ROUTE, host="c"),
        replace(grant, revoked=True),
    ]
    known.learn(news, NOW)
    assert table.single(known.take_changes()) == [
        Delete(Map.GRANTS, DIGEST),
        Put(Map.ROUTES, "b", "192.0.2.7|9"),
        Put(Map.ROUTES, "c", "192.0.2.7|32768"),
    ]
    known.learn([replace(ROUTE, host="unknown", published=False, target=None)], NOW)
    assert table.single(known.take_changes()) == []


def test_many_changes_are_one_swap_that_keeps_what_was_not_named() -> None:
    kept = replace(ROUTE, host="kept")
    known = a_synced_table(kept, GRANT)
    known.learn([replace(ROUTE, host=f"r{n}") for n in range(MANY)], NOW)
    assert not known.has_many_changes
    known.learn([replace(GRANT, revoked=True)], NOW)
    assert known.has_many_changes
    value = "192.0.2.7|32768"
    assert table.whole(known.take_all()) == [
        Replace(Map.GRANTS, {}),
        Replace(Map.ROUTES, {"kept": value} | {f"r{n}": value for n in range(MANY)}),
    ]


def test_before_the_first_full_reading_nothing_is_swapped_and_every_change_is_told_in_its_turn() -> None:
    known = Table({})
    known.learn([replace(ROUTE, host=f"r{n}") for n in range(MANY + 1)], NOW)
    assert not known.has_many_changes
    assert (len(known.take_changes()), len(known.take_changes())) == (MANY, 1)


def test_what_was_left_for_the_next_time_wakes_the_pusher_again() -> None:
    known = a_synced_table()
    known.learn([replace(ROUTE, host=f"r{n}") for n in range(MANY + 1)], NOW)
    assert known.wait(0)
    assert len(known.take_changes()) == MANY
    assert known.wait(0)
    assert len(known.take_changes()) == 1
    assert not known.wait(0)


# ── whose streams are to be cut ──────────────────────────────────────────────────────────────────────────────────

OLD = "192.0.2.7|32768"


@pytest.mark.parametrize(
    ("news", "ended"),
    [
        (WITHDRAWN, {HOST: {OLD}}),
        (replace(GRANT, revoked=True), {HOST: {OLD}}),
        (replace(ROUTE, target=Target("192.0.2.7", 9), changed_at=2000), {HOST: {OLD}}),
        (replace(ROUTE, changed_at=2000), {}),
        (replace(GRANT, digest="cd" * 32), {}),
        (replace(ROUTE, host="new"), {}),
        (replace(WITHDRAWN, host="unknown"), {}),
        (replace(GRANT, digest="cd" * 32, revoked=True), {}),
        (replace(NEIGHBOUR, revoked=True), {"neighbour": set()}),
    ],
)
def test_the_streams_of_who_is_shut_out_are_to_be_cut_once(news: Item, ended: dict[str, set[str]]) -> None:
    known = a_synced_table(ROUTE, GRANT, NEIGHBOUR)
    known.learn([news], NOW)
    assert known.take_ended() == ended
    assert known.take_ended() == {}


def test_the_streams_of_what_expires_or_vanishes_are_to_be_cut() -> None:
    expiring, vanishing = a_synced_table(ROUTE, GRANT), a_synced_table(ROUTE, GRANT)
    expiring.expire(NOW + 60)
    vanishing.replace([], started=NOW, now=NOW)
    assert expiring.take_ended() == vanishing.take_ended() == {HOST: {OLD}}


def test_nothing_is_to_be_cut_before_the_first_full_reading_and_then_what_was_before_it_is() -> None:
    known = Table({(Map.ROUTES, HOST): OLD, (Map.ROUTES, "gone"): "192.0.2.8|1"})
    known.learn([WITHDRAWN], NOW)
    assert known.take_ended() == {}
    known.replace([WITHDRAWN], started=NOW, now=NOW)
    assert known.take_ended() == {HOST: {OLD}, "gone": {"192.0.2.8|1"}}


def test_an_entry_is_confirmed_only_with_its_current_value() -> None:
    known, key = Table({}), table.key_of(ROUTE)
    known.learn([ROUTE], NOW)
    assert not known.confirmed([key])
    assert known.take_changes() == {key: "192.0.2.7|32768"}
    assert not known.confirmed([key])
    known.learn([replace(ROUTE, published=False, target=None)], NOW)
    known.confirm()
    assert not known.confirmed([key])
    assert known.take_changes() == {key: None}
    known.confirm()
    assert known.confirmed([key])


def test_what_haproxy_may_not_have_is_given_back_with_its_current_value() -> None:
    known, key = Table({}), table.key_of(ROUTE)
    known.learn([ROUTE], NOW)
    known.take_changes()
    known.learn([replace(ROUTE, target=Target("192.0.2.7", 4), changed_at=1001)], NOW)
    known.give_back()
    assert known.take_changes() == {key: "192.0.2.7|4"}


# ── signing out ──────────────────────────────────────────────────────────────────────────────────────────────────────

MINUTE = 60_000  # milliseconds
grants = st.lists(
    st.builds(
        lambda number, browser, owner, minute, revoked: Grant(
            f"{number:064x}", HOST, revoked, 1000, int(NOW) + 60, SignIn(browser, owner, int(NOW * 1000) + minute)
        ),
        st.integers(0, 5),
        st.sampled_from(["b0" * 32, "b1" * 32]),
        st.sampled_from([OWNER, "cd" * 32]),
        st.integers(-3, 3).map(MINUTE.__mul__),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda grant: grant.digest,
)
signed_out = st.lists(
    st.builds(
        lambda browser, owners, minute: list(sign_outs(browser, owners, NOW + 60 * minute)),
        st.sampled_from(["b0" * 32, "b2" * 32]),
        st.sets(st.sampled_from([OWNER, "cd" * 32])),
        st.integers(-3, 3),
    ),
    max_size=3,
).map(lambda lists: [sign_out for one in lists for sign_out in one])


@given(grants, signed_out, st.randoms(use_true_random=False), st.booleans())
def test_sign_outs_and_grants_in_any_order_and_repeated_end_in_the_same_table(
    granted: list[Grant], ended: list[SignOut], random: Random, full: bool
) -> None:
    expected = {
        table.key_of(grant): HOST
        for grant in granted
        if not grant.revoked and not any(sign_out.ends(grant.sign_in) for sign_out in ended)
    }
    news: list[News] = [*granted, *ended]
    shuffled = [*news, *news]
    random.shuffle(shuffled)
    known = Table({})
    for one in shuffled:
        known.learn([one], NOW)
    assert known.take_all() == expected
    if full:
        known.replace(shuffled, started=NOW, now=NOW)
        assert known.take_all() == expected
    once = Table({})
    once.replace(news, started=NOW, now=NOW)
    assert once.take_all() == expected


def test_a_sign_out_takes_the_grants_out_that_are_its_and_is_news_only_once() -> None:
    other = replace(GRANT, digest="cd" * 32, sign_in=replace(SIGN_IN, browser="b1" * 32))
    known = a_synced_table(ROUTE, GRANT, other)
    (here,) = sign_outs(SIGN_IN.browser, [], NOW)
    known.learn([here], NOW)
    assert known.take_changes() == {table.key_of(GRANT): None}
    known.learn([here, GRANT], NOW)
    assert known.take_changes() == {}
    known.learn(list(sign_outs("b2" * 32, [OWNER], NOW)), NOW)
    assert known.take_changes() == {table.key_of(other): None}
    assert known.item(table.key_of(other)) == replace(other, revoked=True)


def test_a_grant_of_an_earlier_sign_in_that_comes_late_does_not_get_in() -> None:
    """Its ticket was redeemed just before the sign-out; it has been stored, and is learnt, after it."""
    known = a_synced_table(ROUTE)
    known.learn(list(sign_outs("b2" * 32, [OWNER], NOW)), NOW)
    late = replace(GRANT, changed_at=int(NOW * 1000) + 5000)
    known.learn([late], NOW + 5)
    assert known.take_changes() == {}
    assert known.values_of([table.key_of(late)]) == {}
    again = replace(late, digest="cd" * 32, sign_in=replace(SIGN_IN, shown_at=SIGN_IN.shown_at + 1))
    known.learn([again], NOW + 5)
    assert known.take_changes() == {table.key_of(again): HOST}


def test_what_the_files_had_goes_with_the_first_full_reading_if_it_was_signed_out_meanwhile() -> None:
    known = Table({table.key_of(GRANT): HOST, table.key_of(ROUTE): "192.0.2.7|32768"})
    known.replace([ROUTE, *sign_outs(SIGN_IN.browser, [], NOW), GRANT], started=NOW, now=NOW)
    assert known.take_all() == {table.key_of(ROUTE): "192.0.2.7|32768"}


def test_a_sign_out_is_forgotten_when_it_has_expired_and_not_because_a_full_reading_lacks_it() -> None:
    known = a_synced_table()
    known.learn(list(sign_outs(SIGN_IN.browser, [], NOW)), NOW)
    known.replace([], started=NOW + 3600, now=NOW + 3600)
    lasting = replace(GRANT, expires_at=int(NOW + 2 * SIGN_OUT_TTL))
    known.expire(NOW + SIGN_OUT_TTL - 1)
    known.learn([lasting], NOW + SIGN_OUT_TTL - 1)
    assert known.take_changes() == {}
    known.expire(NOW + SIGN_OUT_TTL)
    known.learn([replace(lasting, digest="cd" * 32)], NOW + SIGN_OUT_TTL)
    assert known.take_changes() == {(Map.GRANTS, "cd" * 32): HOST}


def test_grants_by_the_thousand_are_signed_out_at_once() -> None:
    many = [replace(GRANT, digest=f"{number:064x}") for number in range(2 * BATCH + 1)]
    known = a_synced_table(*many, replace(GRANT, sign_in=replace(SIGN_IN, browser="b1" * 32)))
    known.learn(list(sign_outs(SIGN_IN.browser, [], NOW)), NOW)
    assert known.take_all() == {table.key_of(GRANT): HOST}
