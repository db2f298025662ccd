"""Rate limits and cooldowns: exact over every client, by the store's clock, and the same when the action log
decides."""

from collections.abc import Sequence
from time import time
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoreboard.domain.actions import TOO_OLD_OR_AHEAD, invalid
from scoreboard.domain.errors import Refusal, StorageUnavailable
from scoreboard.domain.outcomes import SubmittedAction
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.namespace import SPECIFIED
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.redis import limits as module
from scoreboard.storage.redis.limits import COOLDOWN, SLOT, WINDOW_MS, LimitDecision, UserLimits
from tests.storage.seeds import Scribe, claim, complete_windows, connection, make_users

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # what is asked of Redis alone
USER = UUID(int=7)
BAD = invalid("metadata", "is refused by a rule")
N = 10  # specification: actions a minute


def limits_of(stores: Stores, per_minute: int = N, *, cooldowns: bool = True) -> UserLimits:
    return UserLimits(stores.redis_direct, per_minute=per_minute, cooldowns=cooldowns)


def action(number: object = None, **others: Any) -> SubmittedAction:
    return claim(USER, action_id=None if number is None else str(number), **others)


async def reserve(limits: UserLimits, claims: Sequence[SubmittedAction]) -> list[LimitDecision]:
    judgements, _ = await run_in_asyncio(limits.reserve_aio, claims)
    return judgements


async def judge(limits: UserLimits, *claims: SubmittedAction) -> list[str]:
    """ "yes", the layer of a 429, or the field of a 400, each."""
    return [layer_of(judgement.refusal) for judgement in await reserve(limits, claims)]


def layer_of(refusal: Refusal | None) -> str:
    return "yes" if refusal is None else refusal.layer or refusal.errors[0].field


async def passes(stores: Stores, milliseconds: int) -> None:
    """Lets time pass: every slot gets older, every key expires earlier."""
    for key in await stores.command("KEYS", "*:*:*"):
        left = await stores.command("PTTL", key)
        if left <= milliseconds:
            await stores.command("DEL", key)
            continue
        await stores.command("PEXPIRE", key, left - milliseconds)
        if key.startswith(b"rate_limit:"):
            for member in await stores.command("ZRANGE", key, 0, -1):
                await stores.command("ZINCRBY", key, -milliseconds, member)


# ---- the window -----------------------------------------------------------------------------------------------------


async def test_two_clients_in_parallel_get_exactly_the_limit(redis_url: str) -> None:
    """200 actions of one user over two clients at once: ten are admitted, 190 are refused with a wait of up to a
    minute."""
    judged: list[LimitDecision] = []

    async def send(limits: UserLimits) -> None:
        judged.extend(await reserve(limits, [action() for _ in range(20)]))

    async def client() -> None:
        async with open_stores(NOWHERE, redis_url) as stores, trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send, limits_of(stores))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        nursery.start_soon(client)
    assert sum(judgement.refusal is None for judgement in judged) == N
    refused = [judgement for judgement in judged if judgement.refusal]
    assert {layer_of(judgement.refusal) for judgement in refused} == {"user"}
    assert all(59 <= (judgement.refusal.retry_after or 0) <= 60 for judgement in refused if judgement.refusal)
    assert not any(judgement.reserved for judgement in refused)


async def test_the_window_slides(stores: Stores) -> None:
    """A slot is free again a minute after it was taken, not at the turn of a minute, and Retry-After says when."""
    limits = limits_of(stores, 2)
    assert await judge(limits, action()) == ["yes"]
    await passes(stores, 40_000)
    assert await judge(limits, action(), action()) == ["yes", "user"]
    (judgement,) = await reserve(limits, [action()])
    assert judgement.refusal is not None
    assert judgement.refusal.retry_after in {19, 20}
    await passes(stores, 20_000)
    assert await judge(limits, action(), action()) == ["yes", "user"]


async def test_a_retry_takes_no_second_slot_and_is_stamped_anew(stores: Stores) -> None:
    """The same actionId holds one slot, from its latest submission on: refused ids kept warm leave no room for a second
    ten."""
    limits = limits_of(stores)
    refused = [action(number, points_or_refusal=BAD) for number in range(N)]
    assert await judge(limits, *refused, action()) == ["metadata"] * N + ["user"]
    await passes(stores, 59_900)
    assert [judgement.reserved for judgement in await reserve(limits, refused)] == [0] * N
    await passes(stores, 200)
    assert await judge(limits, action()) == ["user"]


async def test_a_refusal_of_the_limit_takes_nothing(stores: Stores) -> None:
    """However often it is sent, a 429 does not put off the moment when the next one is free."""
    limits = limits_of(stores, 1)
    await judge(limits, action("first"))
    await passes(stores, 59_000)
    assert await judge(limits, *[action() for _ in range(20)]) == ["user"] * 20
    await passes(stores, 1_100)
    assert await judge(limits, action(cooldown_ms=60_000)) == ["yes"]
    assert await stores.command("ZCARD", f"rate_limit:user:{USER}") == 1


async def test_each_user_has_a_window_of_their_own(stores: Stores) -> None:
    """In a batch of several users each has their own slots."""
    ada, bob = UUID(int=1), UUID(int=2)
    assert await judge(limits_of(stores, 1), claim(ada), claim(bob), claim(ada), claim(bob)) == [
        "yes",
        "yes",
        "user",
        "user",
    ]


async def test_an_idle_window_goes_away_by_itself(stores: Stores) -> None:
    """Its key expires with its youngest slot."""
    await judge(limits_of(stores), action())
    assert 59_000 < await stores.command("PTTL", f"rate_limit:user:{USER}") <= WINDOW_MS


async def test_switched_off_limits_refuse_nobody(stores: Stores) -> None:
    """0 and false switch window and cooldowns off; the timestamp and the rule are still checked."""
    limits = limits_of(stores, 0, cooldowns=False)
    claims = [action(cooldown_ms=60_000) for _ in range(N + 5)]
    assert await judge(limits, *claims) == ["yes"] * (N + 5)
    assert await judge(limits, action(points_or_refusal=BAD), action(timestamp_ms=0)) == ["metadata", "timestamp"]
    assert await stores.command("KEYS", "*:*:*") == []


steps = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), min_size=1, max_size=30)


@given(steps)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_window_holds_more_than_the_limit(redis_url: str, plan: list[tuple[int, int]]) -> None:
    """Submissions and retries at any times have the same outcomes as with a plain list of timestamps."""
    limit, now = 3, 0
    stamps: dict[int, int] = {}
    async with open_stores(NOWHERE, redis_url) as stores:
        await stores.command("FLUSHALL")
        limits = limits_of(stores, limit)
        for seconds, number in plan:
            await passes(stores, seconds * 1000)
            now += seconds
            stamps = {each: at for each, at in stamps.items() if at + 60 > now}
            expected = number in stamps or len(stamps) < limit
            if expected:
                stamps[number] = now
            assert await judge(limits, action(number)) == ["yes" if expected else "user"]


# ---- cooldowns and rules --------------------------------------------------------------------------------------------


async def test_of_a_pair_at_the_same_time_exactly_one_is_admitted(redis_url: str) -> None:
    """Over two clients, thirty users: one action of each pair is admitted, the other is refused with the wait."""
    users, verdicts = [uuid4() for _ in range(30)], dict[UUID, list[str]]()

    async def client() -> None:
        async with open_stores(NOWHERE, redis_url) as stores:
            limits = limits_of(stores)
            for user in users:
                verdicts.setdefault(user, []).extend(await judge(limits, claim(user, cooldown_ms=30_000)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        nursery.start_soon(client)
    assert [sorted(verdicts[user]) for user in users] == [["cooldown", "yes"]] * 30


async def test_a_cooldown_is_of_its_type_and_ends(stores: Stores) -> None:
    """Another type is free; a retry of the same action is not held up by its own; afterwards the next one is
    admitted."""
    limits = limits_of(stores)
    assert await judge(limits, action("a", cooldown_ms=30_000)) == ["yes"]
    assert await judge(limits, action(cooldown_ms=30_000), action(cooldown_ms=30_000, action_type="other")) == [
        "cooldown",
        "yes",
    ]
    assert await judge(limits, action("a", cooldown_ms=30_000)) == ["yes"]
    (judgement,) = await reserve(limits, [action(cooldown_ms=30_000)])
    assert judgement.refusal is not None
    assert judgement.refusal.retry_after in {29, 30}
    assert judgement.reserved == 0
    await passes(stores, 30_000)
    assert await judge(limits, action(cooldown_ms=30_000)) == ["yes"]


async def test_what_a_rule_refuses_takes_a_slot_but_starts_no_cooldown(stores: Stores) -> None:
    """So does a timestamp out of bounds; the next good action is admitted."""
    limits = limits_of(stores, 3)
    bad, old = action(points_or_refusal=BAD, cooldown_ms=30_000), action(timestamp_ms=0, cooldown_ms=30_000)
    assert [judgement.reserved for judgement in await reserve(limits, [bad, old])] == [SLOT, SLOT]
    (judgement,) = await reserve(limits, [action(cooldown_ms=30_000)])
    assert judgement == LimitDecision(None, SLOT | COOLDOWN, left=0)
    assert await judge(limits, action()) == ["user"]


async def test_the_order_is_rate_limit_then_validation(stores: Stores) -> None:
    """A user without a free slot gets 429, also for an invalid action; the cooldown is checked before the rule too."""
    limits = limits_of(stores, 1)
    assert await judge(limits, action(cooldown_ms=9_000), action(points_or_refusal=BAD, timestamp_ms=0)) == [
        "yes",
        "user",
    ]
    assert await judge(limits_of(stores, 0), action(cooldown_ms=9_000, points_or_refusal=BAD)) == ["cooldown"]


async def test_a_timestamp_is_judged_by_the_stores_clock(stores: Stores) -> None:
    """At most five minutes old and one ahead, independent of the node's clock."""
    seconds, micros = await stores.command("TIME")
    now = int(seconds) * 1000 + int(micros) // 1000
    offsets = (-302_000, -298_000, 0, 58_000, 62_000)
    judged = await reserve(limits_of(stores, 0), [action(timestamp_ms=now + offset) for offset in offsets])
    assert [judgement.refusal for judgement in judged] == [TOO_OLD_OR_AHEAD, None, None, None, TOO_OLD_OR_AHEAD]


# ---- giving back ----------------------------------------------------------------------------------------------------


async def test_only_what_a_call_newly_took_is_given_back(stores: Stores) -> None:
    """An older slot or cooldown of the same id stays."""
    limits = limits_of(stores, 2)
    old, new = action("old", cooldown_ms=30_000), action("new", action_type="other", cooldown_ms=30_000)
    await reserve(limits, [old])
    judged = await reserve(limits, [old, new])
    assert [judgement.reserved for judgement in judged] == [0, SLOT | COOLDOWN]
    await run_in_asyncio(limits.release_aio, [(old, judged[0].reserved), (new, judged[1].reserved)])
    assert await stores.command("ZRANGE", f"rate_limit:user:{USER}", 0, -1) == [b"old"]
    assert await judge(limits, action(action_type="other", cooldown_ms=30_000), action(cooldown_ms=30_000)) == [
        "yes",
        "user",
    ]


async def test_each_half_of_a_reservation_can_be_given_back_alone(stores: Stores) -> None:
    """The slot without the cooldown, and the other way round; never a cooldown that belongs to another action by
    now."""
    limits = limits_of(stores)
    await reserve(limits, [action("a", cooldown_ms=30_000)])
    await run_in_asyncio(limits.release_aio, [(action("a"), SLOT)])
    assert await stores.command("KEYS", "*:*:*") == [f"cooldown:{USER}:task_finish".encode()]
    await run_in_asyncio(limits.release_aio, [(action("b"), COOLDOWN)])
    assert len(await stores.command("KEYS", "*:*:*")) == 1
    await run_in_asyncio(limits.release_aio, [(action("a"), COOLDOWN)])
    assert await stores.command("KEYS", "*:*:*") == []


async def test_redis_away_is_storage_unavailable() -> None:
    """A Redis that does not answer neither admits nor refuses."""
    async with open_stores(NOWHERE, "redis://127.0.0.1:1/0") as stores:
        with pytest.raises(StorageUnavailable, match="redis"):
            await run_in_asyncio(limits_of(stores).reserve_aio, [action()])


# ---- by the log -----------------------------------------------------------------------------------------------------

LOG_SQL = (
    "INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature)"
    " SELECT $1, unnest($2::text[]), unnest($3::text[]), 1, 1, 1, ''"
)
COOLDOWNS = {"quick": 0, "slow": 20_000, "slower": 90_000}
submissions = st.lists(
    st.tuples(st.integers(0, 40), st.lists(st.sampled_from(sorted(COOLDOWNS)), min_size=1, max_size=4)), max_size=12
)


async def by_log(limits: UserLimits, stores: Stores, claims: Sequence[SubmittedAction]) -> list[Refusal | None]:
    async with connection(stores) as conn:
        return await run_in_asyncio(limits.decide_by_log_aio, conn, claims)


@given(submissions)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_log_judges_as_redis_does(
    database_url: str, redis_url: str, plan: list[tuple[int, list[str]]]
) -> None:
    """For the same history of accepted actions both give the same verdicts, batch by batch, and the same waits within a
    second."""
    async with open_stores(database_url, redis_url) as stores:
        await stores.command("FLUSHALL")
        (user,) = await make_users(stores, 1)
        limits = limits_of(stores, 4)
        for seconds, kinds in plan:
            await passes(stores, seconds * 1000)
            await stores.execute(
                "UPDATE action_logs SET processed_at = processed_at - $1 * interval '1 second'", seconds
            )
            claims = [claim(user, action_type=kind, cooldown_ms=COOLDOWNS[kind]) for kind in kinds]
            log = await by_log(limits, stores, claims)
            redis = [judgement.refusal for judgement in await reserve(limits, claims)]
            assert [layer_of(refusal) for refusal in log] == [layer_of(refusal) for refusal in redis]
            for one, other in zip(log, redis, strict=True):
                assert one is other or abs((one.retry_after or 0) - (other.retry_after or 0)) <= 1  # type: ignore[union-attr]
            accepted = [each for each, refusal in zip(claims, redis, strict=True) if refusal is None]
            await stores.execute(
                LOG_SQL, user, [each.action_id for each in accepted], [each.action_type for each in accepted]
            )


async def test_the_log_judges_time_and_rule_too(stores: Stores) -> None:
    """PostgreSQL's clock and the type's rule, in the same order; nothing is reserved."""
    (user,) = await make_users(stores, 1)
    now = round(time() * 1000)
    times = ((now - 400_000, 1), (now, BAD), (now + 70_000, BAD), (now, 1))
    claims = [claim(user, timestamp_ms=at, points_or_refusal=points_or_refusal) for at, points_or_refusal in times]
    assert [layer_of(refusal) for refusal in await by_log(limits_of(stores), stores, claims)] == [
        "timestamp",
        "metadata",
        "timestamp",
        "yes",
    ]


async def test_a_retry_does_not_count_against_itself_in_the_log(stores: Stores) -> None:
    """Whose action was recorded before Redis went away is not refused by its own slot or cooldown: its key shows a
    duplicate."""
    (user,) = await make_users(stores, 1)
    again = claim(user, action_id="a", cooldown_ms=30_000)
    await stores.execute(LOG_SQL, user, ["a"], ["task_finish"])
    assert await by_log(limits_of(stores, 1), stores, [again]) == [None]
    assert [
        layer_of(refusal) for refusal in await by_log(limits_of(stores, 0), stores, [claim(user, cooldown_ms=30_000)])
    ] == ["cooldown"]


# ---- windows that may lack something ---------------------------------------------------------------------------------


async def is_complete(limits: UserLimits) -> bool:
    _, complete = await run_in_asyncio(limits.reserve_aio, [action()])
    return complete


async def test_windows_that_begin_without_their_past_are_not_complete(stores: Stores) -> None:
    """An emptied Redis stores since when its windows are complete; for the longest window after that the log decides
    too."""
    limits = UserLimits(stores.redis_direct, per_minute=0, cooldowns=True, max_window_ms=120_000)
    await complete_windows(stores)
    assert await is_complete(limits)
    await stores.command("FLUSHALL")
    assert not await is_complete(limits)
    await stores.command("INCRBY", SPECIFIED.limits_since, -119_000)
    assert not await is_complete(limits)
    await stores.command("INCRBY", SPECIFIED.limits_since, -1_000)
    assert await is_complete(limits)


async def test_windows_begun_when_nobody_had_acted_are_complete(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first start, or a night without actions: there is nothing that Redis could lack."""
    monkeypatch.setattr(module, "CONFIRM_INTERVAL_SECONDS", 0)
    (user,) = await make_users(stores, 1)
    limits = limits_of(stores)
    async with connection(stores) as conn:
        await run_in_asyncio(limits.confirm_windows_aio, conn)
        assert await is_complete(limits)
        await Scribe(conn, 7).record([claim(user)])
        await stores.command("FLUSHALL")
        await run_in_asyncio(limits.confirm_windows_aio, conn)
        assert not await is_complete(limits)
        await stores.execute("UPDATE commits SET committed_at = committed_at - interval '61 seconds'")
        await run_in_asyncio(limits.confirm_windows_aio, conn)
        assert await is_complete(limits)


async def test_an_outage_begins_the_windows_anew_on_all_nodes(stores: Stores) -> None:
    """Redis lacks what was recorded meanwhile."""
    here, there = limits_of(stores), limits_of(stores)
    await complete_windows(stores)
    await run_in_asyncio(here.reset_windows_aio)
    assert not await is_complete(there)


async def test_a_connection_that_was_made_anew_is_distrusted(stores: Stores) -> None:
    """After a restart of Redis the log decides too: what Redis had saved may be a second old."""
    retention = stores.redis_retention
    limits = UserLimits(stores.redis_direct, per_minute=N, cooldowns=True, retention=retention)
    await complete_windows(stores)
    assert await is_complete(limits)
    retention.evicts = True
    assert not await is_complete(limits)
    retention.evicts = False
    stores.redis_generation.reconnects += 1
    assert not await is_complete(limits)
    assert not await is_complete(limits)


async def test_a_repeated_action_counts_once_in_its_batch(stores: Stores) -> None:
    """One below the limit: an action that the log has already, sent again beside a new one, does not use up the last
    slot."""
    (user,) = await make_users(stores, 1)
    limits = limits_of(stores, 3)
    known = [claim(user, action_id=str(n)) for n in range(2)]
    async with connection(stores) as conn:
        await Scribe(conn, 7).record(known)
    assert await by_log(limits, stores, [known[0], claim(user)]) == [None, None]
