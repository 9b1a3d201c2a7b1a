"""What every store of tokens, tickets and sign-outs must do: inherited by the tests of the twin and of DynamoDB."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from chalicelib.aws.routes import Redeemed
from chalicelib.session.values import Session
from chalicelib.web.hub import Tokens
from tests.builders import LIFETIME, NOW, OWNER, SIGN_IN, a_session

OTHER = replace(SIGN_IN, owner="cd" * 32, shown_at=SIGN_IN.shown_at - 100_000)  # the same browser, another key
ELSEWHERE = replace(SIGN_IN, browser="b1" * 32)  # another browser, the same key


class TokenStoreContract(ABC):
    """`tokens` and `stored`, a session, are fixtures of the inheriting class.

    The store's clock says `now`, a sign-in lasts for LIFETIME.
    """

    now = NOW

    @abstractmethod
    def redeem(self, ticket: str, host: str) -> Redeemed | None:
        """Take a ticket as the proxy does."""

    def test_a_token_stands_for_each_sign_in_until_its_own_time_is_over(self, tokens: Tokens) -> None:
        tokens.put_token("token-1", [SIGN_IN, OTHER])
        assert tokens.sign_ins_of("token-1") == {OWNER: SIGN_IN, OTHER.owner: OTHER}
        assert tokens.sign_ins_of("token-2") == {}
        self.now = NOW + LIFETIME - 100
        assert tokens.sign_ins_of("token-1") == {OWNER: SIGN_IN}
        self.now = NOW + LIFETIME
        assert tokens.sign_ins_of("token-1") == {}

    def test_a_visit_reads_the_session_beside_the_sign_ins(self, tokens: Tokens, stored: Session) -> None:
        tokens.put_token("token-1", [SIGN_IN])
        for _ in range(2):
            assert tokens.visit("token-1", stored.sid) == ({OWNER: SIGN_IN}, stored)
            assert tokens.visit("token-1", "0" * 20) == ({OWNER: SIGN_IN}, None)
            assert tokens.visit("token-2", stored.sid) == ({}, None)

    def test_what_was_read_before_is_over_all_the_same_with_its_time_or_a_sign_out(
        self, tokens: Tokens, stored: Session
    ) -> None:
        for token, sign_in in (("token-1", SIGN_IN), ("token-2", OTHER), ("token-3", ELSEWHERE)):
            tokens.put_token(token, [sign_in])
            assert tokens.visit(token, stored.sid)[0] == tokens.sign_ins_of(token) == {sign_in.owner: sign_in}
        self.now = NOW + 1
        tokens.sign_out(SIGN_IN.browser)
        for token in ("token-1", "token-2"):
            assert tokens.visit(token, stored.sid)[0] == tokens.sign_ins_of(token) == {}
        self.now = NOW + LIFETIME
        assert tokens.visit("token-3", stored.sid) == ({}, None)

    def test_a_ticket_is_good_once_for_its_launch(self, tokens: Tokens) -> None:
        session = a_session()
        later = replace(session, label="zzzzzzzzzz")
        tokens.put_ticket("ticket-1", session, SIGN_IN, path="/lab", expires_at=NOW + 60)
        for other in ("another-session", session.sid, later.host):
            assert self.redeem("ticket-1", other) is None
        assert self.redeem("ticket-1", session.host) == Redeemed(session.host, "/lab", int(NOW + LIFETIME), SIGN_IN)
        assert self.redeem("ticket-1", session.host) is None

    def test_a_ticket_is_good_for_its_time_only(self, tokens: Tokens) -> None:
        tokens.put_ticket("ticket-1", a_session(), SIGN_IN, path="/lab", expires_at=NOW + 60)
        self.now = NOW + 60
        assert self.redeem("ticket-1", a_session().host) is None

    def test_what_a_ticket_becomes_does_not_outlast_its_sign_in(self, tokens: Tokens) -> None:
        """Somebody else with the same key launched since; that is no reason to let this browser in for longer."""
        session = a_session(expires_at=NOW + 2 * LIFETIME)
        tokens.put_ticket("ticket-1", session, OTHER, path="/lab", expires_at=NOW + 60)
        redeemed = self.redeem("ticket-1", session.host)
        assert redeemed is not None
        assert redeemed.expires_at == int(NOW + LIFETIME - 100)

    def test_signing_a_browser_out_ends_what_it_has_for_ever(self, tokens: Tokens) -> None:
        tokens.put_token("token-1", [SIGN_IN, OTHER])
        tokens.put_token("token-2", [ELSEWHERE])
        tokens.put_ticket("ticket-1", a_session(), SIGN_IN, path="/lab", expires_at=NOW + 60)
        tokens.put_ticket("ticket-2", a_session(), ELSEWHERE, path="/lab", expires_at=NOW + 60)
        tokens.sign_out(SIGN_IN.browser)
        assert tokens.sign_ins_of("token-1") == {}
        assert tokens.sign_ins_of("token-2") == {OWNER: ELSEWHERE}
        assert self.redeem("ticket-1", a_session().host) is None
        assert self.redeem("ticket-2", a_session().host) is not None
        late = replace(SIGN_IN, shown_at=SIGN_IN.shown_at + 5000)  # another of its requests was under way
        tokens.put_token("token-3", [late])
        assert tokens.sign_ins_of("token-3") == {}

    def test_signing_owners_out_ends_in_all_browsers_what_they_signed_in_to_until_then(self, tokens: Tokens) -> None:
        tokens.put_token("token-1", [SIGN_IN, OTHER])
        tokens.put_token("token-2", [ELSEWHERE, replace(OTHER, browser=ELSEWHERE.browser)])
        tokens.put_ticket("ticket-1", a_session(), ELSEWHERE, path="/lab", expires_at=NOW + 60)
        tokens.sign_out(SIGN_IN.browser, [OWNER])
        assert tokens.sign_ins_of("token-1") == {}
        assert set(tokens.sign_ins_of("token-2")) == {OTHER.owner}
        assert self.redeem("ticket-1", a_session().host) is None
        again = replace(ELSEWHERE, shown_at=SIGN_IN.shown_at + 1)
        tokens.put_token("token-3", [again])
        assert tokens.sign_ins_of("token-3") == {OWNER: again}

    def test_the_browser_of_a_token_is_known_whatever_it_still_stands_for(self, tokens: Tokens) -> None:
        tokens.put_token("token-1", [SIGN_IN])
        tokens.sign_out("b2" * 32, [OWNER])
        assert tokens.sign_ins_of("token-1") == {}
        assert tokens.browser_of("token-1") == SIGN_IN.browser
        assert tokens.browser_of("token-2") is None

    def test_an_earlier_sign_out_that_is_written_late_takes_nothing_from_a_later_one(self, tokens: Tokens) -> None:
        tokens.put_token("token-1", [SIGN_IN])
        self.now = NOW + 20
        tokens.sign_out("b2" * 32, [OWNER])
        self.now = NOW - 20
        tokens.sign_out("b3" * 32, [OWNER])
        self.now = NOW + 30
        assert tokens.sign_ins_of("token-1") == {}
        tokens.put_token("token-2", [replace(SIGN_IN, browser="b3" * 32)])
        assert tokens.sign_ins_of("token-2") == {}

    def test_what_is_made_late_of_a_sign_in_that_is_over_is_over(self, tokens: Tokens) -> None:
        """A request had read its token before the sign-out, and writes after it."""
        tokens.sign_out("b2" * 32, [OWNER])
        self.now = NOW + 30
        tokens.put_token("token-1", [ELSEWHERE])
        tokens.put_ticket("ticket-1", a_session(), ELSEWHERE, path="/lab", expires_at=NOW + 60)
        assert tokens.sign_ins_of("token-1") == {}
        assert self.redeem("ticket-1", a_session().host) is None
