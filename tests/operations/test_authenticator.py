"""A token is verified once, and its session is checked at each use, on every node. On a real PostgreSQL."""

from time import time
from uuid import UUID, uuid4

import pytest
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.clock import DatabaseClock, steady_clock
from scoreboard.drivers.stores import Connection, Stores
from scoreboard.operations import authenticator as sessions_module
from scoreboard.operations.log_in import INVALID_CREDENTIALS
from scoreboard.operations.sessions import MAX_PUBLISHED, LoggedIn
from scoreboard.security import tokens
from scoreboard.storage.postgres import sessions as storage
from scoreboard.storage.postgres import users
from scoreboard.storage.postgres.users import Profile
from tests.operations.people import ISSUER, KEYS, PASSWORD, Node, database_url, node

__all__ = ["database_url"]  # the module's own fixture


async def eventually(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


async def logged_in(someone: Node, name: str = "Ada") -> LoggedIn:
    outcome = await someone.accounts.log_in(name, PASSWORD)
    assert isinstance(outcome, LoggedIn), outcome
    return outcome


async def profile_of(someone: Node, given: LoggedIn) -> Profile:
    found = await users.profile(someone.stores, UUID(given.userId))
    assert found is not None
    return found


def token_of(someone: Node, lifetime: int = 900) -> str:
    return tokens.issue(KEYS, issuer=ISSUER, user=uuid4(), sid=uuid4(), jti="1", now=someone.clock(), lifetime=lifetime)


async def test_a_token_is_verified_once(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying takes 150 µs, so a token is verified once and then found in the cache."""
    async with node(database_url, redis_url) as one:
        token = token_of(one)
        first = one.sessions.authenticate(token)
        assert first is not None
        monkeypatch.setattr(tokens, "verify", None)
        assert one.sessions.authenticate(token) is first


async def test_a_remembered_token_expires_all_the_same(database_url: str, redis_url: str) -> None:
    """A token expires to the second, by PostgreSQL's clock, or by the node's before the first measurement."""
    async with node(database_url, redis_url) as one:
        token = token_of(one, lifetime=60)
        assert one.sessions.authenticate(token) is not None
        one.ahead = 61
        assert one.sessions.authenticate(token) is None


async def test_a_bad_token_is_not_remembered(database_url: str, redis_url: str) -> None:
    """Invalid tokens are not cached."""
    async with node(database_url, redis_url) as one:
        for bad in ("", "a.b.c", token_of(one)[:-4] + "AAAA", "x" * 100_000):
            assert one.sessions.authenticate(bad) is None
        assert one.sessions._verified == {}


async def test_what_is_remembered_is_bounded(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest token is dropped first, and is verified again when it is used."""
    monkeypatch.setattr(sessions_module, "VERIFIED_CACHE_SIZE", 3)
    async with node(database_url, redis_url) as one:
        presented = [token_of(one) for _ in range(5)]
        for token in presented:
            assert one.sessions.authenticate(token) is not None
        assert list(one.sessions._verified) == presented[2:]
        assert one.sessions.authenticate(presented[0]) is not None


async def test_a_session_that_is_marked_as_revoked_is_refused_at_once(database_url: str, redis_url: str) -> None:
    """By message: a token verified long before is refused from then on."""
    async with node(database_url, redis_url) as one:
        token = token_of(one)
        identity = one.sessions.authenticate(token)
        assert identity is not None
        one.sessions.mark_revoked(identity.sid)
        assert one.sessions.authenticate(token) is None
        assert one.sessions.is_revoked(identity.sid)


async def test_a_log_out_reaches_every_node_without_a_message(database_url: str, redis_url: str) -> None:
    """Another node reads the revocation from PostgreSQL within two seconds, also without the bus."""
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        other = Node(one.stores)
        await nursery.start(other.sessions.watch)
        given = await one.register()
        identity = other.sessions.authenticate(given.accessToken)
        assert identity is not None
        await one.accounts.log_out(identity)
        await eventually(lambda: other.sessions.authenticate(given.accessToken) is None)
        nursery.cancel_scope.cancel()


async def not_published(_: UUID) -> None:
    """The message of an ended session, while Redis is away."""
    raise StorageUnavailable("redis", "gone")


async def test_a_deleted_user_is_logged_out_everywhere_without_a_message(database_url: str, redis_url: str) -> None:
    """However many sessions there are; their rows outlive the user, until they are pruned."""
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        one.publish_revoked = not_published  # type: ignore[assignment, method-assign]
        other = Node(one.stores)
        await nursery.start(other.sessions.watch)
        given = [await one.register(), *[await logged_in(one) for _ in range(MAX_PUBLISHED)]]
        assert all(other.sessions.authenticate(each.accessToken) for each in given)
        assert await one.accounts.delete(await profile_of(one, given[0]))
        assert not any(one.sessions.authenticate(each.accessToken) for each in given)
        await eventually(lambda: not any(other.sessions.authenticate(each.accessToken) for each in given))
        assert await one.stores.fetchval("SELECT count(*) FROM sessions WHERE user_id IS NULL") == len(given)
        await one.stores.execute("UPDATE sessions SET revoked_at = revoked_at - interval '3 days'")
        await storage.prune(one.stores)
        assert await one.stores.fetchval("SELECT count(*) FROM sessions") == 0
        nursery.cancel_scope.cancel()


async def test_nobody_logs_in_while_the_user_is_being_deleted(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of the sessions and the deletion, which may take minutes. A session that was opened
    without the password (a development token's) ends with the user."""
    delete, outcomes, late = users.delete, list[object](), uuid4()

    async def delete_later(stores: Stores, user: UUID, actor: str) -> bool:
        outcomes.append(await one.accounts.log_in("Ada", PASSWORD))
        await storage.open_many(stores, [late], [user], [b""], 30)
        return await delete(stores, user, actor)

    monkeypatch.setattr(users, "delete", delete_later)
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        one.publish_revoked = not_published  # type: ignore[assignment, method-assign]
        other = Node(one.stores)
        await nursery.start(other.sessions.watch)
        assert await one.accounts.delete(await profile_of(one, await one.register()))
        assert outcomes == [INVALID_CREDENTIALS]
        await eventually(lambda: other.sessions.is_revoked(late))
        nursery.cancel_scope.cancel()


async def test_a_deletion_by_plain_sql_ends_the_sessions_when_it_is_committed(
    database_url: str, redis_url: str
) -> None:
    """Not when it began: nodes read back some seconds only, and it may take minutes. A session that had ended before is
    stamped anew."""
    async with node(database_url, redis_url) as one:
        given = await one.register()
        await logged_in(one)
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        await one.accounts.log_out(identity)

        async def delete(conn: Connection) -> float:
            await conn.execute("DELETE FROM users")
            return float(await conn.fetchval(storage.NOW))

        done = await one.stores.in_transaction(delete)
        stamped = [
            row["at"]
            for row in await one.stores.fetch("SELECT extract(epoch FROM revoked_at)::float AS at FROM sessions")
        ]
        assert len(stamped) == 2
        assert min(stamped) > done


async def test_a_node_that_starts_knows_who_was_logged_out_before(database_url: str, redis_url: str) -> None:
    """As far back as a token may still be valid, and no further."""
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        recent, old = await one.register("Ada"), await one.register("Grace")
        for given in (recent, old):
            identity = one.sessions.authenticate(given.accessToken)
            assert identity is not None
            await one.accounts.log_out(identity)
        await one.stores.execute(
            "UPDATE sessions SET revoked_at = now() - interval '15 minutes' WHERE user_id = $1", UUID(recent.userId)
        )
        await one.stores.execute(
            "UPDATE sessions SET revoked_at = now() - interval '20 minutes' WHERE user_id = $1", UUID(old.userId)
        )
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

    async def flaky(stores: Stores, seconds: float) -> tuple[list[UUID], float]:
        asked.append(seconds)
        if away:
            raise StorageUnavailable("postgresql", "not there")
        return await revoked_within(stores, seconds)

    monkeypatch.setattr(storage, "revoked_within", flaky)
    monkeypatch.setattr(sessions_module, "REVOCATION_CHECK_SECONDS", 0.01)
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


async def test_what_is_outdated_is_forgotten(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither revoked sessions nor tokens are kept longer than a token lives."""
    monkeypatch.setattr(sessions_module, "REVOCATION_CHECK_SECONDS", 0.01)
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        assert one.sessions.authenticate(token_of(one)) is not None
        one.sessions.mark_revoked(uuid4())
        await nursery.start(one.sessions.watch)
        assert len(one.sessions._verified) == len(one.sessions._revoked) == 1
        monkeypatch.setattr(DatabaseClock, "measure", lambda *_: None)  # or PostgreSQL would set the clock right
        one.sessions._revoked = dict.fromkeys(one.sessions._revoked, trio.current_time())
        one.ahead = 900 + tokens.IAT_LEEWAY_SECONDS + 1
        await eventually(lambda: not one.sessions._verified and not one.sessions._revoked)
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


@pytest.mark.parametrize(("one", "other"), [(0, 90), (0, -90), (90, -90), (0, 86_400), (-86_400, 0)])
async def test_nodes_with_wrong_clocks_judge_tokens_alike(
    database_url: str, redis_url: str, one: float, other: float
) -> None:
    """90 seconds, three minutes, a day apart: what one node issues is good on the other, and ends at the same
    moment."""
    async with node(database_url, redis_url, ahead=one) as first, trio.open_nursery() as nursery:
        second = Node(first.stores, ahead=other)
        for each in (first, second):
            await nursery.start(each.sessions.watch)
        for number, (issuer, reader) in enumerate([(first, second), (second, first)]):
            given = await issuer.register(f"Ada{number}")
            here, there = (
                issuer.sessions.authenticate(given.accessToken),
                reader.sessions.authenticate(given.accessToken),
            )
            assert here is not None
            assert there is not None
            database_now = await storage.now(first.stores)
            assert 898 <= there.expires - database_now <= 900
            ends = [
                identity.expires - each.sessions.clock.now() for identity, each in ((here, issuer), (there, reader))
            ]
            assert abs(ends[0] - ends[1]) < 2
        nursery.cancel_scope.cancel()


async def test_a_clock_that_is_set_while_the_node_runs_is_followed(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next measurement, a day forwards or backwards: a token of before is good all the same."""
    monkeypatch.setattr(sessions_module, "REVOCATION_CHECK_SECONDS", 0.01)
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        await nursery.start(one.sessions.watch)
        given = await one.register()
        for ahead in (86_400, -86_400):
            one.ahead = ahead
            assert abs(one.sessions.clock.now() - time()) > 1000
            await eventually(lambda: abs(one.sessions.clock.now() - time()) < 2)  # PostgreSQL runs on this machine
            assert one.sessions.authenticate(given.accessToken) is not None
        nursery.cancel_scope.cancel()


async def test_what_was_ended_stays_ended_when_the_clock_is_set(database_url: str, redis_url: str) -> None:
    """Setting the node's clock does not change how long a revoked session is stored."""
    async with node(database_url, redis_url) as one:
        token = token_of(one)
        identity = one.sessions.authenticate(token)
        assert identity is not None
        one.ahead = -86_400
        one.sessions.mark_revoked(identity.sid)
        one.ahead = 0
        one.sessions._drop_outdated()
        assert one.sessions.is_revoked(identity.sid)


def test_a_node_s_time_goes_on_evenly() -> None:
    """Setting the clock of a running node does not change its tokens' time."""
    wall, monotonic = [1_000.0], [5.0]
    clock = steady_clock(lambda: wall[0], lambda: monotonic[0])
    assert clock() == 1_000.0
    wall[0], monotonic[0] = 90_000.0, 7.0
    assert clock() == 1_002.0


def test_a_slow_answer_is_believed_only_as_far_as_it_proves() -> None:
    """PostgreSQL may have read its clock at any time on the way. The first answer is better than none."""
    clock = DatabaseClock(lambda: 1000.0)
    clock.measure(1000.0, 5000.0, 1004.0)
    assert clock.now() == pytest.approx(4998.0)
    clock.measure(1000.0, 1100.05, 1000.1)
    assert clock.now() == pytest.approx(1100.0)
    clock.measure(1000.0, 1101.0, 1002.0)  # the offset is between 99 and 101
    assert clock.now() == pytest.approx(1100.0)
    clock.measure(1000.0, 1201.0, 1002.0)  # it is at least 199
    assert clock.now() == pytest.approx(1199.0)
    clock.measure(1000.0, 5000.0, 998.0)  # the node's clock was set back meanwhile
    assert clock.now() == pytest.approx(1199.0)
