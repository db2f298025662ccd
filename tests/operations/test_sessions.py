"""Sessions: a token is verified once and asked for ever whether its session was ended, on whatever node. On a real PostgreSQL."""

from uuid import UUID, uuid4

import pytest
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.operations import sessions as sessions_module
from scoreboard.security import tokens
from scoreboard.storage import sessions as storage
from scoreboard.storage.clock import DatabaseClock
from tests.operations.people import ISSUER, KEYS, Node, database_url, node

__all__ = ["database_url"]  # the module's own fixture


async def eventually(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


def token_of(someone: Node, lifetime: int = 900) -> str:
    return tokens.issue(KEYS, issuer=ISSUER, user=uuid4(), sid=uuid4(), jti="1", now=someone.clock(), lifetime=lifetime)


async def test_a_token_is_verified_once(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ed25519 costs 150 µs: the second time the token is only looked up."""
    async with node(database_url, redis_url) as one:
        token = token_of(one)
        first = one.sessions.authenticate(token)
        assert first is not None
        monkeypatch.setattr(tokens, "verify", None)
        assert one.sessions.authenticate(token) is first


async def test_a_remembered_token_expires_all_the_same(database_url: str, redis_url: str) -> None:
    """To the second, by PostgreSQL's clock, or the node's before that was asked."""
    async with node(database_url, redis_url) as one:
        token = token_of(one, lifetime=60)
        assert one.sessions.authenticate(token) is not None
        one.ahead = 61
        assert one.sessions.authenticate(token) is None


async def test_a_bad_token_is_not_remembered(database_url: str, redis_url: str) -> None:
    """Whatever is presented, nothing grows by it."""
    async with node(database_url, redis_url) as one:
        for bad in ("", "a.b.c", token_of(one)[:-4] + "AAAA", "x" * 100_000):
            assert one.sessions.authenticate(bad) is None
        assert one.sessions._known == {}


async def test_what_is_remembered_is_bounded(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first and is simply verified again."""
    monkeypatch.setattr(sessions_module, "REMEMBERED", 3)
    async with node(database_url, redis_url) as one:
        presented = [token_of(one) for _ in range(5)]
        for token in presented:
            assert one.sessions.authenticate(token) is not None
        assert list(one.sessions._known) == presented[2:]
        assert one.sessions.authenticate(presented[0]) is not None


async def test_a_revoked_session_is_refused_at_once_where_it_was_told(database_url: str, redis_url: str) -> None:
    """By message: a token verified long before is refused from then on."""
    async with node(database_url, redis_url) as one:
        token = token_of(one)
        identity = one.sessions.authenticate(token)
        assert identity is not None
        one.sessions.revoke_seen(identity.sid)
        assert one.sessions.authenticate(token) is None
        assert one.sessions.is_revoked(identity.sid)


async def test_a_log_out_reaches_every_node_without_a_message(database_url: str, redis_url: str) -> None:
    """PostgreSQL is read every second and a half: the bus may be away."""
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        other = Node(one.stores)
        await nursery.start(other.sessions.watch)
        given = await one.register()
        identity = other.sessions.authenticate(given.accessToken)
        assert identity is not None
        await one.accounts.logout(identity)
        await eventually(lambda: other.sessions.authenticate(given.accessToken) is None)
        nursery.cancel_scope.cancel()


async def test_a_node_that_starts_knows_who_was_logged_out_before(database_url: str, redis_url: str) -> None:
    """As far back as a token may still be valid, and no further."""
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        recent, old = await one.register("Ada"), await one.register("Grace")
        for given in (recent, old):
            identity = one.sessions.authenticate(given.accessToken)
            assert identity is not None
            await one.accounts.logout(identity)
        await one.stores.execute("UPDATE sessions SET revoked_at = now() - interval '15 minutes' WHERE user_id = $1", UUID(recent.userId))
        await one.stores.execute("UPDATE sessions SET revoked_at = now() - interval '20 minutes' WHERE user_id = $1", UUID(old.userId))
        started = Node(one.stores)
        await nursery.start(started.sessions.watch)
        assert started.sessions.authenticate(recent.accessToken) is None
        assert started.sessions.authenticate(old.accessToken) is not None
        nursery.cancel_scope.cancel()


async def test_the_watch_outlives_an_outage_and_reads_back_over_it(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While PostgreSQL is away it goes on trying; what was stamped before is still found afterwards."""
    asked: list[float] = []
    away = True
    revoked_within = storage.revoked_within

    async def flaky(stores: object, seconds: float) -> list[UUID]:
        asked.append(seconds)
        if away:
            raise StorageUnavailable("postgresql", "not there")
        return await revoked_within(stores, seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "revoked_within", flaky)
    monkeypatch.setattr(sessions_module, "REREAD", 0.01)
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        given = await one.register()
        await nursery.start(one.sessions.watch)
        await eventually(lambda: len(asked) > 3)
        assert asked[-1] > asked[0] > 900
        await one.stores.execute("UPDATE sessions SET revoked_at = now() - interval '5 minutes'")
        away = False
        await eventually(lambda: one.sessions.authenticate(given.accessToken) is None)
        await eventually(lambda: asked[-1] < 15)
        nursery.cancel_scope.cancel()


async def test_what_is_outdated_is_forgotten(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither revoked sessions nor tokens are kept longer than a token lives."""
    monkeypatch.setattr(sessions_module, "REREAD", 0.01)
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        assert one.sessions.authenticate(token_of(one)) is not None
        one.sessions.revoke_seen(uuid4())
        await nursery.start(one.sessions.watch)
        assert len(one.sessions._known) == len(one.sessions._revoked) == 1
        monkeypatch.setattr(DatabaseClock, "measure", lambda *_: None)  # or PostgreSQL would set the clock right
        one.ahead = 900 + tokens.IAT_LEEWAY + 1
        await eventually(lambda: not one.sessions._known and not one.sessions._revoked)
        nursery.cancel_scope.cancel()


async def test_ended_sessions_are_pruned_and_living_ones_stay(database_url: str, redis_url: str) -> None:
    """Housekeeping deletes what ended days ago."""
    async with node(database_url, redis_url) as one:
        given = {name: await one.register(name) for name in ("Expired", "Revoked", "Lately", "Living")}
        change = "UPDATE sessions SET {} WHERE user_id = $1"
        await one.stores.execute(change.format("expires_at = now() - interval '3 days'"), UUID(given["Expired"].userId))
        await one.stores.execute(change.format("revoked_at = now() - interval '3 days'"), UUID(given["Revoked"].userId))
        await one.stores.execute(change.format("revoked_at = now() - interval '1 day'"), UUID(given["Lately"].userId))
        await storage.prune(one.stores)
        left = {str(row["user_id"]) for row in await one.stores.fetch("SELECT user_id FROM sessions")}
        assert left == {given["Lately"].userId, given["Living"].userId}


@pytest.mark.parametrize("ahead", [90.0, -90.0, 86_400.0])
async def test_nodes_with_wrong_clocks_judge_tokens_alike(database_url: str, redis_url: str, ahead: float) -> None:
    """A clock that is off by a minute and a half, or a day: what one node issues is good on the other, and ends at the same moment."""
    async with node(database_url, redis_url) as right, trio.open_nursery() as nursery:
        wrong = Node(right.stores, ahead=ahead)
        for one in (right, wrong):
            await nursery.start(one.sessions.watch)
        assert abs(wrong.sessions.clock.now() - right.sessions.clock.now()) < 2
        for issuer, reader in ((right, wrong), (wrong, right)):
            now = issuer.sessions.clock.now()
            token = tokens.issue(KEYS, issuer=ISSUER, user=uuid4(), sid=uuid4(), jti="1", now=now, lifetime=100)
            identity = reader.sessions.authenticate(token)
            assert identity is not None
            assert 98 < identity.expires - reader.sessions.clock.now() <= 101
        nursery.cancel_scope.cancel()


def test_a_slow_answer_says_nothing_of_the_time() -> None:
    """Half a second on the way: PostgreSQL may have read its clock at any time in it."""
    clock = DatabaseClock(lambda: 1000.0)
    clock.measure(1000.0, 1100.05, 1000.1)
    assert clock.now() == pytest.approx(1100.0)
    clock.measure(1000.0, 5000.0, 1001.0)
    assert clock.now() == pytest.approx(1100.0)
