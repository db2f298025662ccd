"""A batch through limits, ledger and board: the order of the checks, outages of a store, and released reservations."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from scoreboard.domain.actions import TOO_OLD_OR_AHEAD, invalid
from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.domain.outcomes import UNSTORABLE_ACTION, USER_DELETED, Duplicate, Outcome, Recorded, SubmittedAction
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.runtime.breaker import Breaker, State
from scoreboard.storage import board_writer as module
from scoreboard.storage.board_writer import BoardWriter
from scoreboard.storage.commit import Commit, Committed
from scoreboard.storage.postgres import ledger
from scoreboard.storage.redis.limits import LimitDecision, UserLimits
from scoreboard.storage.redis.projection import Projection
from scoreboard.storage.writer import Writer
from tests.storage.proxy import Proxy, proxy_before
from tests.storage.seeds import NAMES, agreed, claim, make_users, open_board, order_in_postgres, order_in_redis

BAD = invalid("metadata", "is refused by a rule")


class CommitterNode:
    """A node's stores with Redis behind a proxy, its projection of a board that is there, and committers."""

    def __init__(self, stores: Stores, redis: Proxy) -> None:
        self.stores, self.redis = stores, redis
        self.projection = Projection(stores.redis_direct, LEADERBOARD, lambda: None)
        self.breaker = Breaker("redis", interval=0)  # every call may be the probe
        self.agreement = agreed()
        self.made: list[Commit] = []

    def committer(self, *, per_minute: int = 10) -> Commit:
        limits = UserLimits(self.stores.redis_direct, per_minute=per_minute, cooldowns=True)
        writer = Writer(self.stores, limits, [self.agreement])
        self.made.append(Commit(writer, limits, [BoardWriter(self.projection, self.agreement)], self.breaker))
        return self.made[-1]

    async def applied(self) -> dict[int, int]:
        return {
            int(writer): int(sequence)
            for writer, sequence in (await self.stores.command("HGETALL", NAMES.applied)).items()
        }

    async def slots(self, user: UUID) -> set[str]:
        return {member.decode() for member in await self.stores.command("ZRANGE", f"rate_limit:user:{user}", 0, -1)}

    async def cooling(self, user: UUID) -> bytes | None:
        held: bytes | None = await self.stores.command("GET", f"cooldown:{user}:task_finish")
        return held


@pytest.fixture
async def node(database_url: str, redis_url: str) -> AsyncIterator[CommitterNode]:
    async with proxy_before(redis_url) as proxy, open_stores(database_url, proxy.url) as stores:
        await open_board(stores)
        made = CommitterNode(stores, proxy)
        yield made
        for commit in made.made:
            commit.writer.close()


async def run(commit: Commit, *claims: SubmittedAction) -> list[Outcome]:
    return (await run_in_asyncio(commit.run_aio, claims)).outcomes


def result(outcome: Outcome) -> Any:
    """What a test compares: rank, or "again", or the layer or code of a refusal."""
    match outcome:
        case Recorded():
            return outcome.rank
        case Duplicate():
            return "again"
        case Refusal():
            return outcome.layer or outcome.code


# ---- order ----------------------------------------------------------------------------------------------------------


async def test_what_is_recorded_has_its_rank(node: CommitterNode) -> None:
    """Outcomes in the order of the actions, with ranks after the whole batch, and the board's version."""
    ada, bob = await make_users(node.stores, 2)
    committed: Committed = await run_in_asyncio(
        node.committer().run_aio, [claim(ada, points=5), claim(bob, points=7), claim(ada, points=1)]
    )
    assert [result(outcome) for outcome in committed.outcomes] == [2, 1, 2]
    assert [(outcome.previous, outcome.new) for outcome in committed.outcomes if isinstance(outcome, Recorded)] == [
        (0, 5),
        (0, 7),
        (5, 6),
    ]
    assert committed.versions[LEADERBOARD] == node.projection.known
    assert committed.versions[LEADERBOARD].version == 1


async def test_409_goes_before_429_and_400(node: CommitterNode) -> None:
    """A known actionId is a duplicate, also when the limits, its timestamp or its rule would refuse it now."""
    (user,) = await make_users(node.stores, 1)
    commit = node.committer(per_minute=2)
    first, second = claim(user, action_id="a"), claim(user, action_id="b")
    assert [result(outcome) for outcome in await run(commit, first, second)] == [1, 1]
    await node.stores.command("DEL", f"rate_limit:user:{user}")
    assert [result(outcome) for outcome in await run(commit, claim(user), claim(user))] == [1, 1]
    asked = [
        claim(user, action_id="a"),  # no slot left
        claim(user, action_id="b", timestamp_ms=0),
        claim(user, points_or_refusal=BAD),
        claim(user),
    ]
    assert [result(outcome) for outcome in await run(commit, *asked)] == ["again", "again", "user", "user"]
    assert [
        result(outcome) for outcome in await run(node.committer(), claim(user, action_id="a", points_or_refusal=BAD))
    ] == ["again"]


async def test_429_goes_before_400_and_400_tells_why(node: CommitterNode) -> None:
    """Without a free slot the rule is not checked; with one, the timestamp is checked before the rule."""
    (user,) = await make_users(node.stores, 1)
    outcomes = await run(
        node.committer(per_minute=2),
        claim(user, timestamp_ms=0, points_or_refusal=BAD),
        claim(user, points_or_refusal=BAD),
        claim(user, points_or_refusal=BAD),
    )
    assert outcomes[:2] == [TOO_OLD_OR_AHEAD, BAD]
    assert result(outcomes[2]) == "user"
    assert await node.stores.fetchval("SELECT count(*) FROM action_keys") == 0


async def test_a_duplicate_has_the_first_outcome_and_the_present_rank(node: CommitterNode) -> None:
    """The same body gets its first outcome with the user's current rank; another body gets no outcome."""
    ada, bob = await make_users(node.stores, 2)
    commit = node.committer()
    (first,) = await run(commit, claim(ada, action_id="a", points=5))
    await run(commit, claim(ada, points=3), claim(bob, points=100))
    same, other = (
        await run(commit, claim(ada, action_id="a", points=5)),
        await run(commit, claim(ada, action_id="a", body=b"other")),
    )
    assert isinstance(first, Recorded)
    assert first.rank == 1
    (duplicate,) = same
    assert isinstance(duplicate, Duplicate)
    assert duplicate.original == Recorded(ada, 0, 5, 5, 2, first.at_ms)
    assert other == [Duplicate(None)]


async def test_an_action_of_a_deleted_user(node: CommitterNode) -> None:
    """401, and neither slot nor cooldown is left behind."""
    ada, gone = (await make_users(node.stores, 1))[0], uuid4()
    outcomes = await run(node.committer(), claim(gone, cooldown_ms=9_000), claim(ada))
    assert [result(outcome) for outcome in outcomes] == [Code.UNAUTHORIZED, 1]
    assert outcomes[0] is USER_DELETED
    assert await node.slots(gone) == set()
    assert await node.cooling(gone) is None


# ---- giving back ----------------------------------------------------------------------------------------------------


async def test_a_duplicate_of_an_old_action_gives_its_slot_back(node: CommitterNode) -> None:
    """Newly reserved for something that was recorded long ago: it does not count now."""
    (user,) = await make_users(node.stores, 1)
    commit, again = node.committer(), claim(user, action_id="a", cooldown_ms=9_000)
    await run(commit, again)
    await node.stores.execute("UPDATE action_keys SET processed_at = processed_at - interval '2 minutes'")
    await node.stores.command("DEL", f"rate_limit:user:{user}", f"cooldown:{user}:task_finish")
    assert [result(outcome) for outcome in await run(commit, again)] == ["again"]
    assert await node.slots(user) == set()
    assert await node.cooling(user) is None


async def test_a_duplicate_of_a_young_action_leaves_that_ones_slot(
    node: CommitterNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two committers have the same action at once: one reserves, the other records on that reservation, and the slot
    stays its own."""
    (user,) = await make_users(node.stores, 1)
    one, other, again = node.committer(), node.committer(), claim(user, action_id="a", cooldown_ms=9_000)
    judgements = await run_in_asyncio(one.limits.reserve_aio, [again])
    assert [result(outcome) for outcome in await run(other, again)] == [1]

    async def judged_before(*_: object) -> tuple[list[LimitDecision], bool]:
        return judgements

    monkeypatch.setattr(Commit, "_decide_aio", judged_before)
    assert [result(outcome) for outcome in await run(one, again)] == ["again"]
    assert await node.slots(user) == {"a"}
    assert await node.cooling(user) == b"a"


async def test_what_is_refused_keeps_its_slot_only(node: CommitterNode) -> None:
    """By its rule or because it can't be stored: the slot is used up, no cooldown was started."""
    (user,) = await make_users(node.stores, 1)
    commit = node.committer()
    await run(commit, claim(user, action_id="bad", points_or_refusal=BAD, cooldown_ms=9_000))
    assert await run(commit, claim(user, action_id="poisoned", metadata="[", cooldown_ms=9_000)) == [UNSTORABLE_ACTION]
    assert await node.slots(user) == {"bad", "poisoned"}
    assert await node.cooling(user) is None
    assert [result(outcome) for outcome in await run(commit, claim(user, cooldown_ms=9_000))] == [1]


async def test_200_parallel_actions_of_one_user_record_ten(node: CommitterNode) -> None:
    """Over two committers, every actionId sent twice: exactly ten are recorded, also when reservations are released in
    between."""
    (user,) = await make_users(node.stores, 1)
    claims = [claim(user, action_id=str(number)) for number in range(100)]
    outcomes: list[Outcome] = []

    async def send(commit: Commit, step: int) -> None:
        for start in range(0, 100, 20):
            outcomes.extend(await run(commit, *claims[::step][start : start + 20]))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, node.committer(), 1)
            nursery.start_soon(send, node.committer(), -1)
    assert sum(isinstance(outcome, Recorded) for outcome in outcomes) == 10
    assert await node.stores.fetchval("SELECT count(*) FROM action_logs") == 10
    assert len(await node.slots(user)) == 10


# ---- Redis away ------------------------------------------------------------------------------------------------------


async def test_without_redis_actions_are_recorded_without_rank(node: CommitterNode) -> None:
    """PostgreSQL decides: limits and cooldowns by its log, no ranks, no board version; a duplicate has no rank
    either."""
    (user,) = await make_users(node.stores, 1)
    commit = node.committer(per_minute=3)
    (first,) = await run(commit, claim(user, action_id="a", cooldown_ms=9_000))
    node.redis.refuse = True
    committed: Committed = await run_in_asyncio(
        commit.run_aio, [claim(user, action_type="other"), claim(user, cooldown_ms=9_000), claim(user, action_id="a")]
    )
    assert [result(outcome) for outcome in committed.outcomes] == [None, "cooldown", "again"]
    assert committed.versions == {}
    again = committed.outcomes[2]
    assert isinstance(again, Duplicate)
    assert isinstance(first, Recorded)
    assert again.original == Recorded(user, 0, 10, 10, None, first.at_ms)
    outcomes = await run(commit, claim(user, action_type="other"), claim(user, action_type="other"))
    assert [result(outcome) for outcome in outcomes] == [None, "user"]


async def test_an_open_breaker_asks_redis_nothing(node: CommitterNode) -> None:
    """While the circuit to Redis is open, a batch waits for no time-out."""
    (user,) = await make_users(node.stores, 1)
    commit = node.committer()
    commit.breaker = Breaker("redis", failures=1, interval=float("inf"))
    commit.breaker.failed(0)
    assert commit.breaker.state is State.OPEN
    before = node.redis.connections
    node.redis.refuse = True
    assert [result(outcome) for outcome in await run(commit, claim(user))] == [None]
    assert node.redis.connections == before


async def test_missed_rows_go_with_the_next_call(node: CommitterNode) -> None:
    """A committer closes its own gap: it sends the newest missed row of each user, and the batches of these rows."""
    ada, bob, carl = await make_users(node.stores, 3)
    commit, other = node.committer(), node.committer()
    await run(commit, claim(ada))
    node.redis.refuse = True
    await run(commit, claim(ada, points=20), claim(bob))
    await run(commit, claim(bob, points=50))
    node.redis.refuse = False
    await run(other, claim(ada, points=1))  # the other's rows are its own: bob is still missing
    assert len(await order_in_redis(node.stores)) == 1
    assert await node.applied() == {commit.writer.writer_id: 1, other.writer.writer_id: 1}
    node.agreement.begin_comparison()
    node.agreement.set_stale_reasons(())  # nothing else is found by the projector
    (outcome,) = await run(commit, claim(carl, points=40))
    assert result(outcome) == 2
    assert await order_in_redis(node.stores) == await order_in_postgres(node.stores)
    assert await node.applied() == {commit.writer.writer_id: 4, other.writer.writer_id: 1}


async def test_a_gap_of_a_former_number_is_left_to_the_projector(node: CommitterNode) -> None:
    """A new number covers its own batches only; the rows go in all the same."""
    ada, bob = await make_users(node.stores, 2)
    commit = node.committer()
    node.redis.refuse = True
    await run(commit, claim(ada))
    commit.writer.close()
    node.redis.refuse = False
    await run(commit, claim(bob))
    assert await order_in_redis(node.stores) == await order_in_postgres(node.stores)
    assert await node.applied() == {commit.writer.writer_id: 1}


async def test_a_gap_that_grows_too_large_is_left_to_the_projector(
    node: CommitterNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most MAX_GAP_ROWS rows are kept, and no batch of dropped rows counts as applied."""
    monkeypatch.setattr(module, "MAX_GAP_ROWS", 2)
    users = await make_users(node.stores, 5)
    commit = node.committer()
    await run(commit, claim(users[0]))
    node.redis.refuse = True
    await run(commit, *[claim(user) for user in users[1:4]])
    await run(commit, claim(users[0]))
    node.redis.refuse = False
    await run(commit, claim(users[4]))
    assert {user for user, _ in await order_in_redis(node.stores)} == {str(users[0]), str(users[4])}
    assert await node.applied() == {commit.writer.writer_id: 1}


async def test_an_emptied_redis_gives_no_rank(node: CommitterNode) -> None:
    """An absent board gives no ranks, and a repair is requested."""
    ada, bob = await make_users(node.stores, 2)
    commit = node.committer()
    repair_requests: list[int] = []
    node.projection.request_repair = lambda: repair_requests.append(1)
    await run(commit, claim(ada))
    await node.stores.command("FLUSHALL")
    committed: Committed = await run_in_asyncio(commit.run_aio, [claim(bob)])
    assert [result(outcome) for outcome in committed.outcomes] == [None]
    assert committed.versions == {}
    assert repair_requests
    assert await node.stores.command("EXISTS", *NAMES) == 0


# ---- PostgreSQL away -------------------------------------------------------------------------------------------------


async def test_without_postgresql_nothing_is_acknowledged(redis_url: str) -> None:
    """The batch fails as a whole; a retry uses the slot that was reserved."""
    async with open_stores("postgresql://nobody@127.0.0.1:1/none", redis_url) as stores:
        commit = CommitterNode(stores, Proxy("", "")).committer()
        with pytest.raises(StorageUnavailable, match="postgresql"):
            await run(commit, claim(UUID(int=1)))
        assert await stores.command("ZCARD", f"rate_limit:user:{UUID(int=1)}") == 1


async def test_a_failed_look_back_costs_only_who_asked(node: CommitterNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded is told so, though PostgreSQL went away before the duplicates among them could be looked up."""
    ada, bob = await make_users(node.stores, 2)
    commit = node.committer()

    async def away(*_: object) -> None:
        raise StorageUnavailable("postgresql", "on purpose")

    monkeypatch.setattr(ledger, "find_recorded_aio", away)
    outcomes = await run(commit, claim(ada), claim(bob, action_id="bad", points_or_refusal=BAD))
    assert [result(outcome) for outcome in outcomes] == [1, Code.SERVICE_UNAVAILABLE]
    assert await node.slots(bob) == {"bad"}
    with pytest.raises(StorageUnavailable, match="on purpose"):
        await run(commit, claim(bob, points_or_refusal=BAD))


async def test_a_gap_closes_however_soon_the_next_turn_comes(node: CommitterNode) -> None:
    """The board lacks an earlier batch of the writer: its rows and batches go with each next call until all are in,
    without the projector."""
    ada, bob = await make_users(node.stores, 2)
    commit = node.committer()
    await run(commit, claim(ada))
    await node.stores.command("HDEL", NAMES.applied, commit.writer.writer_id)
    await node.stores.command("HINCRBY", NAMES.meta, "writers", -1)
    assert [result(outcome) for outcome in await run(commit, claim(bob, points=3))] == [None]
    assert await node.applied() == {}
    # the projector has brought the first batch
    await node.stores.command("HSET", NAMES.applied, commit.writer.writer_id, 1)
    await node.stores.command("HINCRBY", NAMES.meta, "writers", 1)
    assert [result(outcome) for outcome in await run(commit, claim(ada))] == [1]
    assert await node.applied() == {commit.writer.writer_id: 3}
    assert not node.agreement.is_stale


# ---- actions of server keys -----------------------------------------------------------------------------------------


def by_key(user: UUID, **others: Any) -> SubmittedAction:
    return claim(user, is_limited=False, signature="server-key:0123456789ab", **others)


async def run_mixed(commit: Commit, *claims: SubmittedAction) -> list[Any]:
    return [result(one) for one in (await run_in_asyncio(commit.run_aio, claims, has_unlimited=True)).outcomes]


@pytest.mark.parametrize("is_redis_away", [False, True])
async def test_limits_of_users_are_not_for_server_keys(node: CommitterNode, is_redis_away: bool) -> None:
    """Neither by Redis nor by the log; and what a server key submitted uses up no slot and no cooldown of the user."""
    (user,) = await make_users(node.stores, 1)
    commit = node.committer(per_minute=2)
    if is_redis_away:
        node.redis.cut()
    recorded = await run_mixed(commit, *(by_key(user, cooldown_ms=60_000) for _ in range(5)))
    assert recorded == [None if is_redis_away else 1] * 5
    mixed = await run_mixed(
        commit,
        *(by_key(user), claim(user, cooldown_ms=60_000), by_key(user), claim(user, cooldown_ms=60_000)),
        *(by_key(user, points_or_refusal=BAD), by_key(user)),
    )
    rank = None if is_redis_away else 1
    assert mixed == [rank, rank, rank, "cooldown", Code.INVALID_ACTION, rank]
    assert await node.stores.fetchval("SELECT count(*) FROM action_logs") == 9
    if not is_redis_away:
        assert len(await node.slots(user)) == 1
