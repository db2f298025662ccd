"""The log is looked at once and in its order: on two nodes, through crashes, behind transactions in flight, and
whatever clients put into it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.anomalies import AnomalyLimits
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.postgres_connector import BACKGROUND_LOCK_TIMEOUT_MS, COMMITTER_LOCK_TIMEOUT_MS
from scoreboard.drivers.stores import Stores
from scoreboard.storage import anomaly_log, flagging
from scoreboard.storage.anomaly_log import NOTHING, AnomalyLog, Examined
from scoreboard.telemetry import metrics
from scoreboard.workers import anomalies
from tests.storage.seeds import NO_LOCK_TIMEOUT_SQL, make_users

LIMITS = AnomalyLimits(points_jump=1000, action_rate=0, regular_intervals=0, impossible_time=0)

# What record.sql does, as far as the log is concerned: the number is taken in the statement that inserts.
ACT_SQL = """
INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature, metadata)
SELECT $1, gen_random_uuid()::text, 'task_finish', $2::int, $2::int, nextval('commit_ids') * 4096 + 1, '', $3
RETURNING seq"""


async def act(stores: Stores, user: UUID, points: int = 10, metadata: str | None = None) -> int:
    return int(await stores.fetchval(ACT_SQL, user, points, metadata))


async def flags(stores: Stores) -> list[tuple[str, UUID, int, int]]:
    rows = await stores.fetch("SELECT rule, user_id, seq, hits FROM flags ORDER BY seq, rule")
    return [(row["rule"], row["user_id"], row["seq"], row["hits"]) for row in rows]


async def examined_all(log: AnomalyLog) -> int:
    """Looks until there is nothing more; how many actions that were."""
    number = 0
    with trio.fail_after(20):
        while (examined := await log.examine()) != NOTHING:
            number += examined.actions
    return number


@asynccontextmanager
async def in_flight(stores: Stores, user: UUID, points: int) -> AsyncIterator[asyncpg.Connection]:
    """A batch that has its number and is not committed yet. Inside open stores."""

    async def begin() -> asyncpg.Connection:
        conn = await stores.connect_aio()
        await conn.execute("BEGIN")
        await conn.fetchval(ACT_SQL, user, points, None)
        return conn

    conn = await run_in_asyncio(lambda: begin())
    try:
        yield conn
    finally:
        conn.terminate()


async def test_each_action_is_looked_at_once(stores: Stores) -> None:
    """In runs that follow each other; the flag tells at which action it was found."""
    (user,) = await make_users(stores, 1)
    log = AnomalyLog(stores, LIMITS, alerts=False)
    assert await log.examine() == NOTHING
    await act(stores, user, 600)
    assert await examined_all(log) == 1
    found_at = await act(stores, user, 600)
    await act(stores, user, 600)
    assert await examined_all(log) == 2
    assert await flags(stores) == [("points_jump", user, found_at, 1)]
    assert await examined_all(log) == 0


async def test_a_locked_user_keeps_no_writer_of_others_waiting(stores: Stores) -> None:
    """A run that meets a row of another session gives up before a committer would, and flags both users later."""
    assert BACKGROUND_LOCK_TIMEOUT_MS * 5 <= COMMITTER_LOCK_TIMEOUT_MS
    await stores.execute(NO_LOCK_TIMEOUT_SQL)  # so that only the run's own ends the wait
    stores.pool.replace("another setting of the role")
    users = sorted(await make_users(stores, 2))  # the first is locked by the run, then it waits for the second
    log = AnomalyLog(stores, LIMITS, alerts=False)
    for user in users:
        await act(stores, user, 5000)
    holder = await run_in_asyncio(stores.connect_aio)
    try:
        await run_in_asyncio(lambda: holder.execute("BEGIN"))
        await run_in_asyncio(lambda: holder.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", users[1]))
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            await log.examine()
        assert await flags(stores) == []
    finally:
        holder.terminate()
    while not await flags(stores):
        await log.examine()
    assert [user for _, user, _, _ in await flags(stores)] == users


async def test_an_open_flag_absorbs_further_hits(stores: Stores) -> None:
    """A flood of hits is one flag, with their number."""
    (user,) = await make_users(stores, 1)
    log = AnomalyLog(stores, LIMITS, alerts=False)
    first = await act(stores, user, 5000)
    for _ in range(5):
        await examined_all(log)
        await act(stores, user, 5000)
    await examined_all(log)
    assert await flags(stores) == [("points_jump", user, first, 6)]


async def test_two_nodes_share_the_log(stores: Stores) -> None:
    """They take turns: together they look at each action once, and each user has one flag with one hit."""
    users = await make_users(stores, 30)
    nodes = [AnomalyLog(stores, LIMITS, alerts=False) for _ in range(3)]
    seen = list[int]()

    async def run(log: AnomalyLog) -> None:
        for _ in range(40):
            seen.append((await log.examine()).actions)

    async with trio.open_nursery() as nursery:
        for log in nodes:
            nursery.start_soon(run, log)
        for user in users:
            await act(stores, user, 2000)
    for log in nodes:
        seen.append(await examined_all(log))
    assert sum(seen) == len(users)
    assert sorted((rule, hits) for rule, _, _, hits in await flags(stores)) == [("points_jump", 1)] * len(users)


async def test_a_lower_number_that_is_committed_later_is_not_missed(stores: Stores) -> None:
    """The watermark waits for the transaction in flight, and only for that."""
    slow, quick = await make_users(stores, 2)
    log = AnomalyLog(stores, LIMITS, alerts=False)
    async with in_flight(stores, slow, 2000) as conn:
        await act(stores, quick, 2000)
        for _ in range(3):
            assert await log.examine() == NOTHING
        await run_in_asyncio(lambda: conn.execute("COMMIT"))
    assert await examined_all(log) == 2
    assert [user for _, user, _, _ in await flags(stores)] == [slow, quick]


async def test_a_batch_that_is_rolled_back_holds_nothing_up(stores: Stores) -> None:
    """Its number is never used."""
    slow, quick = await make_users(stores, 2)
    log = AnomalyLog(stores, LIMITS, alerts=False)
    async with in_flight(stores, slow, 2000):
        await act(stores, quick, 2000)
        assert await log.examine() == NOTHING
    with trio.fail_after(10):
        while not (await log.examine()).actions:
            await trio.sleep(0.01)
    assert [user for _, user, _, _ in await flags(stores)] == [quick]


@pytest.mark.parametrize("step", ["find_all", "open_flags_aio", "advance", "commit"])
async def test_a_node_that_dies_at_any_step_loses_and_doubles_nothing(
    stores: Stores, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session ends without a commit: the next node looks at the same actions, with one flag and one alert."""
    (user,) = await make_users(stores, 1)
    await act(stores, user, 2000)
    dying = AnomalyLog(stores, LIMITS, alerts=True)

    def die(*_: Any, **__: Any) -> Any:
        raise ConnectionResetError("killed")

    with monkeypatch.context() as patched:
        if step == "advance":
            patched.setattr(anomaly_log, "ADVANCE_SQL", "SELECT pg_terminate_backend(pg_backend_pid()), $1::bigint")
        elif step == "commit":  # everything is written, and the session ends before the commit
            advance = (
                "WITH a AS (UPDATE anomaly_watermark SET below = $1) SELECT pg_terminate_backend(pg_backend_pid())"
            )
            patched.setattr(anomaly_log, "ADVANCE_SQL", advance)
        else:
            patched.setattr(anomaly_log, step, die)
        with pytest.raises(StorageUnavailable):
            await dying.examine()
    assert await flags(stores) == []
    assert await examined_all(AnomalyLog(stores, LIMITS, alerts=True)) == 1
    assert len(await flags(stores)) == 1
    assert await stores.fetchval("SELECT count(*) FROM outgoing_messages") == 1


@pytest.mark.parametrize("spent", ["1e400", "-1e400", "9" * 5000, '"60"', "null", "[60]", "{}", "true", "1e-400", "-5"])
async def test_no_metadata_stops_the_worker(stores: Stores, spent: str) -> None:
    """A number that no float can hold, another type, a negative one: the actions after it are looked at."""
    cheat, honest = await make_users(stores, 2)
    log = AnomalyLog(stores, LIMITS._replace(impossible_time=600), alerts=False)
    await act(stores, cheat, metadata=f'{{"timeSpent": {spent}}}')
    await act(stores, cheat, metadata="[1]")
    await act(stores, honest, 2000)
    assert await examined_all(log) == 3
    assert ("points_jump", honest) in [(rule, user) for rule, user, _, _ in await flags(stores)]


async def test_claimed_time_comes_from_the_metadata(stores: Stores) -> None:
    """As a number of seconds; the evidence has figures and nothing that a client wrote."""
    (user,) = await make_users(stores, 1)
    log = AnomalyLog(stores, LIMITS._replace(impossible_time=600), alerts=False)
    for _ in range(2):
        await act(stores, user, metadata='{"timeSpent": 1e300, "note": "<b>me</b>"}')
    await examined_all(log)
    row = await stores.fetchrow("SELECT rule, evidence FROM flags")
    assert row is not None
    assert row["rule"] == "impossible_time"
    assert json.loads(row["evidence"]) == {"excessSeconds": pytest.approx(1_000_000, abs=60), "actions": 2}


async def test_a_backlog_is_divided(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has a bounded number of actions, also when the node was away for long; the next one goes on at once."""
    monkeypatch.setattr(anomaly_log, "MAX_ACTIONS", 10)
    (user,) = await make_users(stores, 1)
    for _ in range(35):
        await act(stores, user)
    log, runs = AnomalyLog(stores, LIMITS, alerts=False), list[Examined]()
    while (examined := await log.examine()) != NOTHING:
        runs.append(examined)
    assert sum(run.actions for run in runs) == 35
    assert max(run.actions for run in runs) == 10
    assert [run.is_behind for run in runs] == [True] * (len(runs) - 1) + [False]


async def test_a_user_who_is_deleted_meanwhile_stops_nothing(stores: Stores) -> None:
    """The flags of a user go with the user."""
    gone, stays = await make_users(stores, 2)
    for user in (gone, stays):
        await act(stores, user, 2000)
    await examined_all(AnomalyLog(stores, LIMITS, alerts=False))
    await stores.execute("DELETE FROM users WHERE id = $1", gone)
    assert [user for _, user, _, _ in await flags(stores)] == [stays]


async def test_a_crowd_of_bots_is_one_alert_beyond_the_bound(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a flag. Of an hour only so many are told one by one, and one message tells that there are more."""
    monkeypatch.setattr(flagging, "MAX_ALERTS_AN_HOUR", 3)
    log = AnomalyLog(stores, LIMITS, alerts=True)
    for _ in range(2):
        for user in await make_users(stores, 10):
            await act(stores, user, 2000)
        await examined_all(log)
    assert len(await flags(stores)) == 20
    kinds = await stores.fetch("SELECT kind, count(*) AS number FROM outgoing_messages GROUP BY kind ORDER BY kind")
    assert [tuple(row) for row in kinds] == [("anomaly", 3), ("many_anomalies", 1)]


async def test_an_alert_has_no_personal_data(stores: Stores) -> None:
    """The id of the user and figures; no name, address, action id or metadata."""
    (user,) = await make_users(stores, 1)
    await stores.execute("UPDATE users SET username = 'Ada Private', email = 'ada@private.example'")
    await act(stores, user, 2000, '{"note": "my diary"}')
    await examined_all(AnomalyLog(stores, LIMITS, alerts=True))
    row = await stores.fetchrow("SELECT * FROM outgoing_messages")
    assert row is not None
    assert (row["key"], row["kind"]) == ("flag-1", "anomaly")
    assert row["summary"] == f"Anomaly points_jump: user {user} (points 2000, actions 1, seconds 60); flag 1"
    assert json.loads(row["data"]) == {
        "flagId": 1,
        "rule": "points_jump",
        "userId": str(user),
        "evidence": {"points": 2000, "actions": 1, "seconds": 60},
    }
    assert not any(word in str(dict(row)) for word in ("Ada", "private", "diary"))


async def test_the_worker_counts_and_outlives_an_outage(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning for an outage; what was recorded during it is found afterwards."""
    monkeypatch.setattr(anomalies, "RUN_INTERVAL_SECONDS", 0.01)
    (user,) = await make_users(stores, 1)

    def counted() -> float:
        return metrics.REGISTRY.get_sample_value("scoreboard_anomalies_total", {"rule": "points_jump"}) or 0.0

    before, failures, examine = counted(), 0, AnomalyLog.examine

    async def flaky(log: AnomalyLog) -> Examined:
        nonlocal failures
        if failures < 5:
            failures += 1
            raise StorageUnavailable("postgresql", "gone")
        return await examine(log)

    monkeypatch.setattr(AnomalyLog, "examine", flaky)
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(anomalies.run_anomalies, stores, AnomalyLog(stores, LIMITS, alerts=False))
            await act(stores, user, 2000)
            with trio.fail_after(10):
                while counted() == before:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert counted() == before + 1
    assert [line["event"] for line in lines] == ["anomalies_not_read"]


async def test_the_index_serves_the_reading(stores: Stores) -> None:
    """The log is not read as a whole for each run: the index that the transparency log has made serves it too."""
    (user,) = await make_users(stores, 1)
    for begin in range(0, 20_000, 2_000):
        await stores.execute(
            "INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature) "
            "SELECT $1, n::text, 'task_finish', 1, 1, n * 4096, '' FROM generate_series($2::int + 1, $2 + 2000) n",
            user,
            begin,
        )
    await stores.execute("VACUUM ANALYZE action_logs_default")
    sql = anomaly_log.NEW_SQL.replace("$1", "4096000").replace("$2", "8192000").replace("$3", "100")
    plan = "\n".join(row[0] for row in await stores.fetch(f"EXPLAIN {sql}"))
    assert "seq_idx on action_logs_default" in plan
    assert "Seq Scan on action_logs_default" not in plan
