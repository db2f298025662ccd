"""The users that are made in SQL, and what the stores say of their work: `tests/bench/scale_stores.py`."""

import asyncio
import subprocess
import sys
from uuid import UUID

import asyncpg
import trio

from tests.bench import machine, scale_stores, stores
from tests.conftest import execute

USERS, HISTORY = 500, 3

# What `verify` compares in the ledger, and what ORIGINALS_SQL looks up: a score is the sum of its log, each action has
# a key and a log row.
CHECK_SQL = """
SELECT (SELECT count(*) FROM scores),
       (SELECT count(*) FROM scores s
          JOIN (SELECT user_id, sum(points_awarded) AS points, max(seq) AS reached, count(*) AS n,
                       max(new_score) AS last
                  FROM action_logs GROUP BY user_id) l USING (user_id)
         WHERE (s.total_score, s.total_score, s.reached, s.version) = (l.points, l.last, l.reached, l.n)),
       (SELECT count(*) FROM action_keys JOIN action_logs USING (user_id, action_id, processed_at)),
       (SELECT count(DISTINCT seq) FROM action_logs),
       (SELECT count(*) FROM action_logs_default),
       (SELECT max(seq) < nextval('commit_ids') * 4096 FROM action_logs)"""


async def test_made_users_have_scores_that_their_log_adds_up_to(database_url: str) -> None:
    """Each has so many actions with a key and a log row each, in this month's partition, and later actions come later
    in the order."""
    await scale_stores.fill(database_url, USERS, HISTORY)

    async def check(connection: asyncpg.Connection) -> asyncpg.Record | None:
        return await connection.fetchrow(CHECK_SQL)

    found = await stores.asked(database_url, check)
    assert found is not None
    assert tuple(found) == (USERS, USERS, USERS * HISTORY, USERS * HISTORY, 0, True)


async def test_actors_are_spread_over_all_users(database_url: str) -> None:
    """A tenth of the users is every tenth id; more than there are is everybody."""
    await scale_stores.fill(database_url, USERS, 1)

    async def ids(connection: asyncpg.Connection) -> list[UUID]:
        return [row["id"] for row in await connection.fetch("SELECT id FROM users ORDER BY id")]

    everybody = await stores.asked(database_url, ids)
    assert await scale_stores.actors(database_url, USERS, USERS // 10) == everybody[::10]
    assert await scale_stores.actors(database_url, USERS, USERS * 2) == everybody


async def test_a_database_is_dropped_whoever_is_in_it(database_url: str) -> None:
    """Our own sessions in it are ended, one that is not there is no error."""
    execute(database_url, "CREATE DATABASE bench_in_use")
    inside = stores.named(database_url, "bench_in_use")

    async def drop(connection: asyncpg.Connection) -> None:
        other = await asyncpg.connect(inside)
        for _ in range(2):
            await stores.drop_database(connection, "bench_in_use")
        other.terminate()
        assert not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'bench_in_use')")

    await stores.asked(database_url, drop)


async def test_a_worker_of_postgresqls_own_is_waited_for() -> None:
    """It is a superuser's, whom we may not send away, and it ends by itself."""
    said: list[Exception | None] = [
        asyncpg.InsufficientPrivilegeError("autovacuum"),
        asyncpg.ObjectInUseError("autovacuum"),
        None,
    ]

    class Connection:
        async def execute(self, _: str) -> None:
            if (error := said.pop(0)) is not None:
                raise error

    await trio.to_thread.run_sync(lambda: asyncio.run(stores.drop_database(Connection(), "bench")))  # type: ignore[arg-type]
    assert said == []


async def test_a_checkpoint_is_made_when_asked_for(database_url: str, redis_url: str) -> None:
    """Afterwards the statistics count one more, and no database is left over."""

    async def count(connection: asyncpg.Connection) -> tuple[int, int]:
        row = await connection.fetchrow("SELECT num_done, (SELECT count(*) FROM pg_database) FROM pg_stat_checkpointer")
        assert row is not None
        return row[0], row[1]

    before = await stores.asked(database_url, count)
    execute(database_url, "CREATE TABLE dirty AS SELECT generate_series(1, 1000)")
    await scale_stores.checkpoint(database_url)
    done, databases = await stores.asked(database_url, count)
    assert done > before[0]
    assert databases == before[1]


def test_work_is_what_was_done_in_between() -> None:
    """Two readings subtract field by field."""
    before = scale_stores.Work(
        postgres_cpu=1.5, valkey_cpu=0.5, wal_bytes=100, full_pages=1, checkpoints=1, script_us=10
    )
    after = scale_stores.Work(
        postgres_cpu=4.0, valkey_cpu=0.75, wal_bytes=350, full_pages=6, checkpoints=1, script_us=40
    )
    assert after.since(before) == scale_stores.Work(2.5, 0.25, 250, 5, 0, 30)


def test_the_cpu_of_a_process_has_its_children_in_it() -> None:
    """A shell that only waits counts what its child used, while the child runs and after its end."""
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint('burnt', flush=True)\ninput()"
    command = ["sh", "-c", '"$0" -c "$1"; echo ended; read line', sys.executable, burn]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as shell:
        assert shell.stdin
        assert shell.stdout
        assert shell.stdout.readline() == "burnt\n"
        running = machine.tree_cpu_seconds(shell.pid)
        shell.stdin.write("\n")
        assert shell.stdout.readline() == "ended\n"
        ended = machine.tree_cpu_seconds(shell.pid)
        shell.stdin.write("\n")
    assert running >= 0.4
    assert ended >= running
