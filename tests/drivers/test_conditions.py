"""The condition of a store after a failure, by real replies and by the list of codes."""

import asyncio

import asyncpg
import pytest
import redis.exceptions
from redis._parsers.base import BaseParser

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers.bridge import failures_reported_to, postgres_errors, redis_errors, run_in_asyncio
from scoreboard.drivers.conditions import costs_connection, postgres_condition, redis_condition, reply_code
from scoreboard.drivers.stores import Stores
from tests.storage.seeds import connection

DOWN, READ_ONLY, FULL, BUSY = StoreCondition.DOWN, StoreCondition.READ_ONLY, StoreCondition.FULL, StoreCondition.BUSY

STATES = {
    "25006": (READ_ONLY, True),
    "53100": (FULL, False),
    "53300": (BUSY, False),
    "55P03": (BUSY, False),
    "40P01": (BUSY, False),
    "40001": (BUSY, False),
    "57014": (BUSY, False),
    "25P04": (BUSY, False),
    "57P01": (DOWN, True),
    "57P03": (DOWN, True),
    "08006": (DOWN, True),
    "28000": (DOWN, True),
    "28P01": (DOWN, True),
    "3D000": (DOWN, True),
    "42501": (DOWN, True),
    "42P01": (DOWN, True),
    "42703": (DOWN, True),
    "42883": (DOWN, True),
    "42704": (DOWN, True),
    "3F000": (DOWN, True),
    "58030": (DOWN, True),
    "55000": (DOWN, True),
    "26000": (DOWN, True),
    "42P05": (DOWN, True),
    "23505": (None, False),
    "22003": (None, False),
    "54000": (None, False),
    "XX000": (None, False),
}
REPLIES = {
    "READONLY You can't write against a read only replica.": (READ_ONLY, True),
    "READONLY You can't write against a read only replica. script: 7f, on @user_script:3.": (READ_ONLY, True),
    "MISCONF Valkey is configured to save RDB snapshots, but it is currently unable to persist to disk.": (
        READ_ONLY,
        True,
    ),
    "NOREPLICAS Not enough good replicas to write.": (READ_ONLY, True),
    "OOM command not allowed when used memory > 'maxmemory'.": (FULL, False),
    "LOADING Valkey is loading the dataset in memory": (DOWN, True),
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": (DOWN, True),
    "NOAUTH Authentication required.": (DOWN, True),
    "WRONGPASS invalid username-password pair or user is disabled.": (DOWN, True),
    "NOPERM User app has no permissions to run the 'set' command": (DOWN, True),
    "CLUSTERDOWN The cluster is down": (DOWN, True),
    "MOVED 3999 127.0.0.1:6381": (DOWN, True),
    "BUSY Valkey is busy running a script.": (BUSY, False),
    "ERR unknown command 'NONSENSE'": (BUSY, False),
    "WRONGTYPE Operation against a key holding the wrong kind of value": (BUSY, False),
}


@pytest.mark.parametrize("state", STATES)
def test_sqlstates(state: str) -> None:
    """Each class of error replies has its condition, errors of the data have none; a connection to the wrong server is
    closed."""
    exc = asyncpg.PostgresError.new({"C": state, "M": "made for this test", "S": "ERROR"})
    assert (postgres_condition(exc), costs_connection(exc)) == STATES[state]


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("pipelined", [False, True])
def test_replies_of_redis(reply: str, pipelined: bool) -> None:
    """Redis' codes are found in redis-py's exceptions, also in those of a pipeline, which puts the command first."""
    exc = BaseParser.parse_error(reply)  # type: ignore[no-untyped-call]
    if pipelined:
        exc.args = (f"Command # 1 (HSET x y z) of pipeline caused error: {exc}", *exc.args[1:])
    assert (redis_condition(exc), costs_connection(exc)) == REPLIES[reply]


@pytest.mark.parametrize(
    "exc", [OSError("gone"), TimeoutError(), EOFError(), redis.exceptions.ConnectionError("closed")]
)
def test_no_reply_at_all(exc: Exception) -> None:
    """Without a reply the store counts as down, and the connection is closed."""
    of_store = redis_condition if isinstance(exc, redis.exceptions.RedisError) else postgres_condition
    assert (of_store(exc), reply_code(exc), costs_connection(exc)) == (DOWN, None, True)


def test_what_is_nobodys_failure() -> None:
    """A bug has no condition; an argument that can't be sent keeps the connection open; cancelling closes it."""
    assert postgres_condition(KeyError("x")) is None
    assert redis_condition(KeyError("x")) is None
    refused = asyncpg.DataError("invalid input for query argument $1")
    assert (postgres_condition(refused), costs_connection(refused)) == (None, False)
    assert costs_connection(asyncio.CancelledError())


@pytest.mark.parametrize("condition", [DOWN, READ_ONLY, FULL, BUSY])
def test_a_storage_failure_tells_it_too(condition: StoreCondition) -> None:
    """`costs_connection` accepts StorageUnavailable as well as the libraries' exceptions."""
    assert costs_connection(StorageUnavailable("redis", "x", condition)) is (condition in {DOWN, READ_ONLY})


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("BEGIN READ ONLY; INSERT INTO users (username, email) VALUES ('x', 'x')", READ_ONLY),
        ("SELECT * FROM nothing_of_the_kind", DOWN),
        ("SELECT nothing_of_the_kind FROM users", DOWN),
        ("SELECT * FROM nowhere.users", DOWN),
        ("SELECT nothing_of_the_kind()", DOWN),
        ("SELECT '1'::nothing_of_the_kind", DOWN),
        ("SELECT * FROM pg_authid", DOWN),
        ("SET statement_timeout = 1; SELECT pg_sleep(10)", BUSY),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$", FULL),
        ("SELECT 1 / 0", None),
        ("INSERT INTO scores (user_id) VALUES (gen_random_uuid())", None),
    ],
)
async def test_postgresql_says_so(stores: Stores, statement: str, expected: StoreCondition | None) -> None:
    """Real replies come out of the edge with their condition, and are reported; errors of the data pass as they are."""
    reported: list[StorageUnavailable] = []

    class Listener:
        def report(self, failure: StorageUnavailable) -> None:
            reported.append(failure)

    async with connection(stores) as conn:

        async def ask() -> None:
            with failures_reported_to(Listener()), postgres_errors():
                await conn.execute(statement)

        with pytest.raises(asyncpg.PostgresError if expected is None else StorageUnavailable) as raised:
            await run_in_asyncio(ask)
    assert [failure.condition for failure in reported] == ([] if expected is None else [expected])
    assert isinstance(raised.value, StorageUnavailable) is (expected is not None)


async def test_redis_says_so(stores: Stores) -> None:
    """A refused command is a failure of the call, not of the store."""

    async def ask() -> None:
        with redis_errors():
            await stores.redis.execute_command("NONSENSE")

    with pytest.raises(StorageUnavailable) as raised:
        await run_in_asyncio(ask)
    assert raised.value.condition is BUSY
