"""The stores of `scripts/bench scale`: a database with many users, and what PostgreSQL and Valkey say of their own
work.

The users are made in SQL, with scores that their action logs add up to, as a real installation has them. Nothing here
speaks to the server.
"""

from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import redis

from scoreboard.drivers.postgres_connector import COMMITTER
from scoreboard.storage.postgres import partitions
from tests.bench import machine, stores

# of one action: a million users have mostly different totals, so that an action of 50 points passes some of them
HIGHEST_POINTS = 100_000

USERS_SQL = """
INSERT INTO users (username, email)
SELECT format('bench-%s', n), format('bench-%s@example.com', n) FROM generate_series(1, $1::int) n"""

# Each user's actions lie between the month's beginning and now, so that they share the partition that the benchmark's
# own actions go to. The sequence numbers of a user's actions rise with time, and users come in no order: so do the
# pages of the tables.
LOGS_SQL = """
INSERT INTO action_logs
  (user_id, action_id, action_type, points_awarded, new_score, seq, signature, metadata, processed_at)
SELECT user_id, gen_random_uuid(), 'task_finish', points, sum(points) OVER (PARTITION BY user_id ORDER BY n), n,
       encode(sha256(user_id::text::bytea), 'hex'), '{"difficulty": "medium", "timeSpent": 120}', processed_at
FROM (
    SELECT id AS user_id, random(1, $2::int) AS points, row_number() OVER (ORDER BY turn, md5(id::text)) AS n,
           date_trunc('month', now()) + (now() - date_trunc('month', now())) * (turn - random()) / $1 AS processed_at
    FROM users CROSS JOIN generate_series(1, $1::int) AS turn
) ORDER BY n"""
KEYS_SQL = """
INSERT INTO action_keys (user_id, action_id, body_sha256, processed_at)
SELECT user_id, action_id, sha256(action_id::bytea), processed_at FROM action_logs ORDER BY seq"""
SCORES_SQL = """
INSERT INTO scores (user_id, total_score, reached, version)
SELECT user_id, sum(points_awarded), max(seq), count(*) FROM action_logs GROUP BY user_id ORDER BY min(seq)"""
NUMBERS_SQL = "SELECT setval('commit_ids', (SELECT max(seq) FROM action_logs) / 4096 + 1)"

# Evenly over all ids: as uuids are drawn by lot, that is evenly over all pages of every table and index.
ACTORS_SQL = """
SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM users)
WHERE (n - 1) % $1 = 0 ORDER BY id LIMIT $2"""

WORK_SQL = """
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, w.wal_fpi, c.num_done FROM pg_stat_wal w, pg_stat_checkpointer c"""


class Work(msgspec.Struct, frozen=True):
    """What the stores have done since they started. Two of these subtract to what a round cost."""

    postgres_cpu: float  # seconds of all PostgreSQL's processes
    valkey_cpu: float  # seconds
    wal_bytes: int
    full_pages: int  # images of whole pages in the WAL; PostgreSQL counts them up to a second late
    checkpoints: int
    script_us: int  # microseconds that Valkey spent in scripts

    def since(self, before: "Work") -> "Work":
        return Work(*(getattr(self, name) - getattr(before, name) for name in self.__struct_fields__))


async def fill(url: str, users: int, history: int) -> None:
    """Makes `users` users with `history` actions each in a migrated database, as vacuumed and analysed as one that is
    not new."""

    async def make(connection: "asyncpg.Connection[Any]") -> None:
        await partitions.make_partitions_aio(connection)
        # or triggers would note each row as a change by others
        await connection.execute(f"SET application_name = '{COMMITTER}'")
        async with connection.transaction():
            await connection.execute(USERS_SQL, users)
            await connection.execute(LOGS_SQL, history, HIGHEST_POINTS)
            await connection.execute(KEYS_SQL)
            await connection.execute(SCORES_SQL)
            await connection.execute(NUMBERS_SQL)
        for table in ("users", "scores", "action_keys", "action_logs"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")

    await stores.asked(url, make)


async def actors(url: str, users: int, count: int) -> list[UUID]:
    """At most `count` users, spread evenly over all."""

    async def choose(connection: "asyncpg.Connection[Any]") -> list[UUID]:
        return [row["id"] for row in await connection.fetch(ACTORS_SQL, max(1, users // count), count)]

    return await stores.asked(url, choose)


async def checkpoint(url: str) -> None:
    """Makes PostgreSQL write out all that is dirty, so that the next write of each page goes whole into the WAL.

    CHECKPOINT wants a role that the embedded server does not give; dropping a database does the same.
    """

    async def make(connection: "asyncpg.Connection[Any]") -> None:
        await stores.drop_database(connection, "bench_checkpoint")
        await connection.execute("CREATE DATABASE bench_checkpoint")
        await stores.drop_database(connection, "bench_checkpoint")

    await stores.asked(url, make)


def board_size(redis_url: str) -> int:
    """How many users the board in Redis has; 0 until it is in place."""
    with redis.Redis.from_url(redis_url) as client:
        return int(client.zcard("{leaderboard}:order"))


def pids(data_dir: Path) -> tuple[int, int]:
    """Of PostgreSQL's first process and of Valkey."""
    return (
        int((data_dir / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0]),
        int((data_dir / "valkey" / "valkey.pid").read_text()),
    )


async def work(data_dir: Path, url: str, redis_url: str) -> Work:
    async def count(connection: "asyncpg.Connection[Any]") -> tuple[int, int, int]:
        row = await connection.fetchrow(WORK_SQL)
        assert row is not None
        return int(row[0]), row[1], row[2]

    wal_bytes, full_pages, checkpoints = await stores.asked(url, count)
    with redis.Redis.from_url(redis_url) as client:
        commands = client.info("commandstats")
    postgres, valkey = pids(data_dir)
    return Work(
        postgres_cpu=machine.tree_cpu_seconds(postgres),
        valkey_cpu=machine.tree_cpu_seconds(valkey),
        wal_bytes=wal_bytes,
        full_pages=full_pages,
        checkpoints=checkpoints,
        script_us=sum(stats["usec"] for name, stats in commands.items() if name.startswith("cmdstat_eval")),
    )
