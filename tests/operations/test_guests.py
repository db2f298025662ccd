"""Guests, and how they become accounts: what stays, what ends, and what an attacker gets of it."""

import secrets
from uuid import UUID

import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.errors import Code, Refusal
from scoreboard.operations.guests import KEY_REFUSED, NO_GUESTS, GuestLoggedIn
from scoreboard.operations.login_admission import Client
from scoreboard.operations.sessions import LoggedIn
from scoreboard.storage.postgres import linking
from scoreboard.storage.postgres.linking import NOT_A_GUEST
from tests.operations.people import PASSWORD, Node, code, database_url, fields, logged_in, node

__all__ = ["database_url"]  # the module's own fixture


def new_key() -> str:
    return secrets.token_urlsafe(32)


async def guest(one: Node, key: str | None = None, username: str | None = None) -> GuestLoggedIn:
    outcome = await one.accounts.log_in_guest(key, username)
    assert isinstance(outcome, GuestLoggedIn), outcome
    return outcome


async def link(one: Node, session: LoggedIn, username: str | None = None, email: str = "ada@example.org") -> object:
    identity = one.sessions.authenticate(session.accessToken)
    assert identity is not None
    return await one.accounts.link_guest(identity, username, email, PASSWORD)


async def test_the_same_key_comes_back_to_the_same_guest(database_url: str, redis_url: str) -> None:
    """Another key is another guest, and a key that the server makes is returned once."""
    async with node(database_url, redis_url) as one:
        first = await guest(one, None, "Ada")
        assert (first.username, len(first.deviceKey)) == ("Ada", 43)
        again = await guest(one, first.deviceKey, "Another name")
        assert (again.userId, again.username, again.deviceKey) == (first.userId, "Ada", "")
        other = await guest(one, new_key(), "Ada")
        assert other.userId != first.userId
        assert other.username.startswith("Ada-")
        assert (await guest(one)).username.startswith("Player-")


async def test_a_device_key_is_nowhere_but_at_its_device(database_url: str, redis_url: str) -> None:
    """Neither in the database nor in a log line, nor in what is printed."""
    async with node(database_url, redis_url) as one:
        with capture_logs() as lines:
            made = await guest(one)
            await guest(one, made.deviceKey)
            await one.accounts.log_in_guest(made.deviceKey[:20], None)
        assert made.deviceKey not in f"{lines} {made!r}"
        for table in ("users", "identities", "sessions"):
            rows = await one.stores.fetch(f"SELECT t::text AS row FROM {table} AS t")
            assert rows
            assert made.deviceKey not in str([row["row"] for row in rows])


async def test_guests_can_be_switched_off(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url, guests=False) as one:
        assert await one.accounts.log_in_guest(None, None) == NO_GUESTS
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 0


@pytest.mark.parametrize("key", ["", "short", "a" * 32, "x" * 129, "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGF+", "\u2603" * 40])
async def test_a_key_that_others_could_guess_is_refused(database_url: str, redis_url: str, key: str) -> None:
    """Before anything is created."""
    async with node(database_url, redis_url) as one:
        refused = await one.accounts.log_in_guest(key, "Ada")
        assert code(refused) is Code.INVALID_REQUEST
        assert fields(refused) == {"deviceKey"}
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 0


async def test_a_bad_name_is_named(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url) as one:
        assert fields(await one.accounts.log_in_guest(new_key(), "a@b")) == {"username"}


async def test_new_guests_of_an_address_are_limited(database_url: str, redis_url: str) -> None:
    """A flood from one address, and from one household's IPv6 networks, ends; known guests come back, and other
    addresses are free."""
    async with node(database_url, redis_url, guests_per_hour=3) as one:
        flood = Client("203.0.113.7")
        keys = [new_key() for _ in range(3)]
        for key in keys:
            assert isinstance(await one.accounts.log_in_guest(key, None, flood), GuestLoggedIn)
        refused = await one.accounts.log_in_guest(None, None, flood)
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.layer) == (Code.RATE_LIMITED, "login")
        assert refused.retry_after is not None
        assert 3500 < refused.retry_after <= 3601
        assert isinstance(await one.accounts.log_in_guest(keys[0], None, flood), GuestLoggedIn)
        assert isinstance(await one.accounts.log_in_guest(None, None, Client("203.0.113.8")), GuestLoggedIn)
        for number in range(6):  # a /56 has twice as many
            client = Client(f"2001:db8:0:{number}::1")
            assert isinstance(await one.accounts.log_in_guest(None, None, client), GuestLoggedIn)
        assert code(await one.accounts.log_in_guest(None, None, Client("2001:db8:0:9::1"))) is Code.RATE_LIMITED


async def test_guessing_keys_finds_nobody_and_is_limited(database_url: str, redis_url: str) -> None:
    """A guess is a new guest, never somebody else's."""
    async with node(database_url, redis_url, guests_per_hour=5, login_per_minute=1000) as one:
        victim = await guest(one, new_key())
        guesser = Client("203.0.113.9")
        outcomes = [await one.accounts.log_in_guest(new_key(), None, guesser) for _ in range(8)]
        opened = [outcome for outcome in outcomes if isinstance(outcome, GuestLoggedIn)]
        assert len(opened) == 5
        assert victim.userId not in {each.userId for each in opened}
        assert {code(outcome) for outcome in outcomes[5:]} == {Code.RATE_LIMITED}


async def test_one_device_is_limited_as_one_account_is(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url, login_per_minute=2) as one:
        key, client = new_key(), Client("203.0.113.7")
        for _ in range(2):
            assert isinstance(await one.accounts.log_in_guest(key, None, client), GuestLoggedIn)
        assert code(await one.accounts.log_in_guest(key, None, client)) is Code.RATE_LIMITED


async def test_eight_tabs_at_once_are_one_guest(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url) as one:
        key, outcomes = new_key(), list[GuestLoggedIn]()

        async def tab() -> None:
            outcomes.append(await guest(one, key))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(tab)
        assert len({each.userId for each in outcomes}) == 1
        assert len({each.accessToken for each in outcomes}) == 8


async def test_a_guest_becomes_an_account(database_url: str, redis_url: str) -> None:
    """The same user, who logs in with the password now; boards hear of the new name."""
    async with node(database_url, redis_url) as one:
        before = await guest(one, None, "Guest")
        await one.stores.execute(
            "INSERT INTO scores (user_id, total_score, reached, version) VALUES ($1, 120, 1, 1)", UUID(before.userId)
        )
        linked = await link(one, before, "Ada")
        assert isinstance(linked, LoggedIn)
        assert (linked.userId, linked.username) == (before.userId, "Ada")
        assert one.sessions.authenticate(linked.accessToken) is not None
        assert one.changed == [(UUID(before.userId), "Ada", None)]
        assert (await logged_in(one, "Ada")).userId == before.userId
        assert (await logged_in(one, "ada@example.org")).userId == before.userId
        assert await one.stores.fetchval("SELECT total_score FROM scores") == 120


async def test_a_guest_may_keep_the_name(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url) as one:
        before = await guest(one, None, "Ada")
        linked = await link(one, before)
        assert isinstance(linked, LoggedIn)
        assert linked.username == "Ada"
        assert one.changed == []


async def test_the_device_key_opens_no_session_of_the_account(database_url: str, redis_url: str) -> None:
    """Nor another guest: the device would play for somebody whom its user does not know."""
    async with node(database_url, redis_url) as one:
        before = await guest(one)
        assert isinstance(await link(one, before), LoggedIn)
        assert await one.accounts.log_in_guest(before.deviceKey, None) == KEY_REFUSED
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 1


async def test_a_planted_session_does_not_become_one_of_the_account(database_url: str, redis_url: str) -> None:
    """Session fixation: the attacker knows the device key, has a session by it, and has the victim's tokens as well.
    The victim makes an account of the guest: the attacker is out at once, with every token."""
    async with node(database_url, redis_url) as one:
        victims = await guest(one)
        attackers = await guest(one, victims.deviceKey)
        linked = await link(one, victims)
        assert isinstance(linked, LoggedIn)
        for planted in (attackers, victims):
            assert one.sessions.authenticate(planted.accessToken) is None
            assert code(await one.accounts.refresh_session(planted.refreshToken)) is Code.UNAUTHORIZED
        assert len(one.revoked) == 2
        assert one.sessions.authenticate(linked.accessToken) is not None


async def test_a_log_in_by_key_and_a_link_at_once_leave_no_session_of_the_key(
    database_url: str, redis_url: str
) -> None:
    """In whatever order they come."""
    async with node(database_url, redis_url) as one:
        before = await guest(one)
        late: list[object] = []

        async def by_key() -> None:
            late.append(await one.accounts.log_in_guest(before.deviceKey, None))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(by_key)
                linked = await link(one, before)
        assert isinstance(linked, LoggedIn)
        live = await one.stores.fetch("SELECT id FROM sessions WHERE revoked_at IS NULL")
        identity = one.sessions.authenticate(linked.accessToken)
        assert identity is not None
        assert [row["id"] for row in live] == [identity.sid]
        assert all(outcome == KEY_REFUSED or isinstance(outcome, GuestLoggedIn) for outcome in late)


async def test_only_a_guest_becomes_an_account(database_url: str, redis_url: str) -> None:
    """Not whoever has one, not twice, and not a user of another log-in."""
    async with node(database_url, redis_url) as one:
        ada = await one.register("Ada")
        assert await link(one, ada, email="other@example.org") == NOT_A_GUEST
        user = await one.stores.fetchval("INSERT INTO users (username) VALUES ('Eve') RETURNING id")
        await one.stores.execute("INSERT INTO identities VALUES ('game', 'eve', $1)", user)
        eve = await one.accounts.sessions.open_identified(user, "Eve")
        assert eve is not None
        assert await link(one, eve, email="eve@example.org") == NOT_A_GUEST
        before = await guest(one)
        identity = one.sessions.authenticate(before.accessToken)
        assert identity is not None
        outcomes: list[object] = []

        async def tab(number: int) -> None:
            outcomes.append(await one.accounts.link_guest(identity, None, f"tab{number}@example.org", PASSWORD))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(tab, number)
        assert sum(isinstance(outcome, LoggedIn) for outcome in outcomes) == 1
        assert outcomes.count(NOT_A_GUEST) == 2


async def test_what_is_taken_is_named_and_nothing_changes(database_url: str, redis_url: str) -> None:
    """Neither the name nor the sessions; a second try with other words goes well."""
    async with node(database_url, redis_url) as one:
        await one.register("Ada")
        before = await guest(one, None, "Guest")
        for username, email, field in (
            ("ADA", "new@example.org", "username"),
            ("New", "ADA@example.org", "email"),
            (None, "ada@example.org", "email"),
        ):
            refused = await link(one, before, username, email)
            assert code(refused) is Code.CONFLICT
            assert fields(refused) == {field}
        for username, email, password, field in (
            ("a", "new@example.org", PASSWORD, "username"),
            (None, "nobody", PASSWORD, "email"),
            (None, "new@example.org", "short", "password"),
            (None, "new@example.org", "password123", "password"),
            ("New name here", "new@example.org", "new name here", "password"),
        ):
            identity = one.sessions.authenticate(before.accessToken)
            assert identity is not None
            refused = await one.accounts.link_guest(identity, username, email, password)
            assert (code(refused), fields(refused)) == (Code.INVALID_REQUEST, {field})
        profile = await one.stores.fetchrow("SELECT username, email FROM users WHERE id = $1", UUID(before.userId))
        assert profile is not None
        assert tuple(profile) == ("Guest", None)
        assert isinstance(await link(one, before, "New", "new@example.org"), LoggedIn)


async def test_an_address_that_is_taken_at_the_same_moment_is_refused(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unique index decides, within a block that keeps the address out of PostgreSQL's log."""
    async with node(database_url, redis_url) as one:
        await one.register("Ada")
        before = await guest(one)
        monkeypatch.setattr(
            linking, "STATE_SQL", "SELECT true AS is_guest, false AS is_email_taken, $1::uuid, $2::text[]"
        )
        refused = await link(one, before)
        assert fields(refused) == {"email"}
        assert await one.stores.fetchval("SELECT count(*) FROM credentials") == 1
