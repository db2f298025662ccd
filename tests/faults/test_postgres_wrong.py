"""PostgreSQL is there and not what it seems: read-only, locked, interrupted, changed by somebody else.

Meanwhile 200 or 503 and never a wrong one; other users are not affected; two seconds after, actions are
accepted again.
"""

import statistics
from collections.abc import Iterator, Sequence
from random import Random
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import trio

from tests.conftest import execute, in_asyncio
from tests.e2e.server_processes import Client
from tests.faults.ledger import act
from tests.faults.servers import Pair
from tests.faults.under_fault import Run, lasting, under_fault
from tests.storage.proxy import Fault

DEFAULT_FAULT_SECONDS = 1.5  # seconds of most faults
BACK_SECONDS = 2.0  # after the fault until an action is accepted
OTHERS_SQL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()"""
WRITABLE = "SET default_transaction_read_only = off"


async def accepts_again(run: Run, *, within: float = BACK_SECONDS) -> None:
    """Notes if a node takes longer than this until it accepts an action."""
    for number, node in enumerate(run.pair.nodes):
        with trio.move_on_after(within + 1.0) as scope:  # one second for a busy machine
            while (
                await act(run.clients[number], [node], run.ledger, Random(3), retries=1)
            ).acknowledged > trio.current_time():
                await trio.sleep(0.1)
        if scope.cancelled_caught:
            run.found.append(f"node {number} accepted no action within {within:.0f} s after the fault")


async def sql(run: Run, *statements: str) -> None:
    await trio.to_thread.run_sync(run.pair.sql, *statements)


async def test_read_only(pair: Pair) -> None:
    """Sessions opened while default_transaction_read_only is on: `/readyz` says so in 2 s, and all is well 2 s after it
    is off again."""
    name = urlsplit(pair.postgres).path[1:]
    async with under_fault(pair, unavailable=True) as run:
        await sql(run, f"ALTER DATABASE {name} SET default_transaction_read_only = on", OTHERS_SQL)
        await run.expect_store("postgresql", "read_only")
        await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
        await sql(run, WRITABLE, f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await accepts_again(run)


async def test_sessions_are_terminated(pair: Pair) -> None:
    """All sessions are terminated again and again: 200 or 503, nothing lost, and no traceback in the log."""
    async with under_fault(pair, unavailable=True) as run:
        with trio.move_on_after(lasting(DEFAULT_FAULT_SECONDS)):
            while True:
                await sql(run, OTHERS_SQL)
                await trio.sleep(0.2)
        await accepts_again(run)


async def test_answers_are_swallowed(pair: Pair) -> None:
    """PostgreSQL's answers disappear: every request, a profile's too, ends in 4 s, and all is well again when they come
    through."""
    slowest = 4.0 + 1.0  # seconds: the server's deadline of 3 s, half a second, and a busy machine
    async with under_fault(pair, unavailable=True) as run:
        links = [link for (_, store), link in pair.links.items() if store == "postgres"]
        for link in links:
            link.fault = Fault.SWALLOW
        answers: list[tuple[int, float]] = []

        async def profile(client: Client, base: str) -> None:
            begun = trio.current_time()
            async with httpx.AsyncClient(base_url=base, timeout=20) as http:
                status = (await http.get("/api/v1/users/me", headers=client.authorization)).status_code
            answers.append((status, trio.current_time() - begun))

        async with trio.open_nursery() as nursery:
            for number, client in enumerate(run.clients[:6]):
                nursery.start_soon(profile, client, pair.nodes[number % 2].url)
            await trio.sleep(lasting(4.0))
        for link in links:
            link.restore()
        await accepts_again(run, within=4.0)  # a breaker's interval more
        run.found += [
            f"a profile was answered {status} after {took:.1f} s"
            for status, took in answers
            if took > slowest or status not in {200, 503}
        ]
        late = [one for one in run.ledger.answers if one.answered - one.sent > slowest]
        run.found += (
            [f"an action was answered {late[0].status} after {late[0].answered - late[0].sent:.1f} s"] if late else []
        )


async def test_swallowed_while_valkey_is_emptied(pair: Pair) -> None:
    """PostgreSQL falls silent, Valkey is emptied, both are well again: the board is rebuilt though its builder waited
    on a dead line."""
    async with under_fault(pair, bound=10.0, unavailable=True) as run:
        links = [link for (_, store), link in pair.links.items() if store == "postgres"]
        for link in links:
            link.fault = Fault.SWALLOW
        run.valkey.do("FLUSHALL")
        await trio.sleep(lasting(3.0))
        # the lines that were open stay dead: they are not ended, as in a network that lost its state
        for link in links:
            link.refuse, link.fault = False, None


def held(url: str, statements: Sequence[str], seconds: float) -> None:
    """Another client holds locks for so long."""

    async def run() -> None:
        import asyncio

        conn = await asyncpg.connect(url)
        try:
            for statement in (
                "SET transaction_timeout = 0",
                "SET idle_in_transaction_session_timeout = 0",
                "BEGIN",
                *statements,
            ):
                await conn.execute(statement)
            await asyncio.sleep(seconds)
            await conn.execute("ROLLBACK")
        finally:
            await conn.close()

    in_asyncio(run)


async def test_rows_of_six_users_are_locked(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """Another session holds rows of three users in `scores` and of three in `users` for five seconds: nobody else is
    refused."""
    async with under_fault(pair, unavailable=True) as run:
        users = [client.user for client in run.clients[:6]]
        locked, begun = {*users}, trio.current_time()
        lock = [
            "SELECT FROM scores WHERE user_id IN ('{}', '{}', '{}') FOR UPDATE".format(*users[:3]),
            "SELECT FROM users WHERE id IN ('{}', '{}', '{}') FOR UPDATE".format(*users[3:]),
        ]
        await trio.to_thread.run_sync(held, pair.postgres, lock, lasting(5.0))
        ended = trio.current_time()
        await run.stop_load()  # so that who waited is counted too
        others = [one for one in run.ledger.answers if one.user not in locked]
        before = [one.answered - one.sent for one in others if one.answered < begun]
        during = [one for one in others if begun <= one.sent < ended]
        if refused := [one for one in during if one.status != httpx.codes.OK]:
            run.found.append(f"{len(refused)} of {len(during)} requests of others were answered {refused[0].status}")
        took = statistics.median(one.answered - one.sent for one in during)
        with capsys.disabled():
            print(
                f"\nlocked rows: others' p50 {took * 1000:.0f} ms, {statistics.median(before) * 1000:.0f} before, "
                f"{len(during)} requests"
            )


async def test_the_table_is_locked(pair: Pair) -> None:
    """LOCK TABLE scores for some seconds: 200 or 503, and all is well 2 s after."""
    async with under_fault(pair, unavailable=True) as run:
        await trio.to_thread.run_sync(held, pair.postgres, ["LOCK TABLE scores IN ACCESS EXCLUSIVE MODE"], lasting(3.0))
        await accepts_again(run)


async def test_connections_are_used_up(pair: Pair) -> None:
    """The database takes no connection more and those that were open end: 200 or 503 until there is room again."""
    name = urlsplit(pair.postgres).path[1:]
    async with under_fault(pair, unavailable=True) as run:
        await sql(run, f"ALTER DATABASE {name} CONNECTION LIMIT 1", OTHERS_SQL)
        await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
        with trio.fail_after(10):
            while True:
                try:
                    await trio.to_thread.run_sync(_unlimited, pair.postgres, name)
                    break
                except asyncpg.PostgresError:
                    await trio.sleep(0.1)
        await accepts_again(run)


def _unlimited(url: str, name: str) -> None:
    execute(urlsplit(url)._replace(path="/scoreboard").geturl(), f"ALTER DATABASE {name} CONNECTION LIMIT -1")


# ---- rows that change behind our back --------------------------------------------------------------------------------


@pytest.fixture
def logged_totals(pair: Pair) -> Iterator[None]:
    """Afterwards the totals are those of the action log again, so that the next test's sums are right."""
    yield
    log = (
        "(SELECT user_id, sum(points_awarded)::bigint AS points, max(seq) AS reached FROM action_logs GROUP BY user_id)"
    )
    pair.sql(
        "INSERT INTO scores (user_id, total_score, reached, version) "
        f"SELECT user_id, points, reached, 1000000 FROM {log} l "
        "ON CONFLICT (user_id) DO UPDATE "
        "SET total_score = excluded.total_score, reached = excluded.reached, version = 1000000"
    )
    pair.valkey.do("FLUSHALL")


@pytest.mark.usefixtures("logged_totals")
async def test_rows_are_changed_by_somebody_else(pair: Pair) -> None:
    """Another client deletes users and scores, the leader's too, and corrects totals: every board follows, whoever acts
    again is back."""
    async with under_fault(pair) as run:
        run.allowed |= {401}
        run.log_counts = False
        watching = {watcher.client.user for watcher in run.watchers}
        best_first = sorted((client.user for client in run.clients), key=lambda user: -run.ledger.base.get(user, 0))
        # a deleted user's session ends, and the viewer with it
        gone = [user for user in best_first if user not in watching][:2]
        users = [*gone, *(user for user in best_first if user not in gone)][:6]
        run.ledger.excuse(*users)
        run.mark("users deleted")
        await sql(run, *(f"DELETE FROM users WHERE id = '{user}'" for user in gone))
        await trio.sleep(lasting(1.0))
        run.mark("scores deleted")
        await sql(run, *(f"DELETE FROM scores WHERE user_id = '{user}'" for user in users[2:4]))
        await trio.sleep(lasting(1.0))
        run.mark("totals halved")
        halved = "UPDATE scores SET total_score = total_score / 2, version = version + 1 WHERE user_id = '{}'"
        await sql(run, *(halved.format(user) for user in users[4:]))
        await trio.sleep(lasting(1.0))


@pytest.mark.usefixtures("logged_totals")
async def test_scores_are_truncated(pair: Pair) -> None:
    """Another client truncates `scores`: the board is empty, and fills again with those who act."""
    async with under_fault(pair) as run:
        run.log_counts = False
        run.ledger.excuse(*run.ledger.base, *(client.user for client in run.clients))
        await sql(run, "TRUNCATE scores")
        await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))


async def test_a_user_is_renamed_while_valkey_is_away(pair: Pair) -> None:
    """The new name is on every board as soon as Valkey is back, wherever an old one was remembered."""
    user = ""
    try:
        async with under_fault(pair) as run:
            client = run.clients[0]
            user = client.user
            run.valkey.kill()
            answer = await client.http.patch(
                "/api/v1/users/me", json={"username": "a-new-name"}, headers=client.authorization
            )
            assert answer.status_code == httpx.codes.OK, answer.text
            await trio.sleep(lasting(1.0))
            await trio.to_thread.run_sync(run.valkey.start)
    finally:
        if user:  # the next test looks for the old name
            await trio.to_thread.run_sync(pair.sql, f"UPDATE users SET username = 'load-000001' WHERE id = '{user}'")
            pair.is_clean = False  # and nobody was told


async def test_names_are_kept_while_postgresql_is_away(pair: Pair) -> None:
    """PostgreSQL is away and Valkey has no names: who was known by name is not shown under another one on a board that
    is not stale."""
    async with under_fault(pair, unavailable=True) as run:
        links = [link for (_, store), link in pair.links.items() if store == "postgres"]
        for link in links:
            link.cut()
        profiles = (
            "EVAL \"for _, key in ipairs(redis.call('KEYS', '*profile*')) do redis.call('DEL', key) end return 1\" 0"
        )
        run.valkey.do(profiles)
        await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
        async with httpx.AsyncClient(timeout=10) as http:
            for number, node in enumerate(pair.nodes):
                data = (await http.get(f"{node.url}/api/v1/scores/leaderboard")).json()["data"]
                if not data.get("stale"):
                    made_up = [row["username"] for row in data["leaderboard"] if row["username"].startswith("user-")]
                    run.found += [f"node {number} calls somebody {made_up[0]}, unmarked"] if made_up else []
        for link in links:
            link.restore()
