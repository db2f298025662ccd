"""The open stores: PostgreSQL's pool, Redis' clients, and the deadlines of their calls.

Every module that uses PostgreSQL or Redis gets a `Stores`. Its methods are called from Trio and cross to asyncio once,
except those whose names end in `_aio`. All raise `StorageUnavailable` when a store does not answer in time. The
commands and the server get theirs from storage.start_stores, which migrates the database first.

Tested in tests/drivers/test_postgres_pool.py and tests/storage/test_terminated.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

import asyncpg
import redis.asyncio

from scoreboard.drivers.bridge import asyncio_loop, postgres_errors, redis_errors, run_in_asyncio
from scoreboard.drivers.deadline import bounded_aio, ended_connection
from scoreboard.drivers.generation import Generation
from scoreboard.drivers.namespace import Namespace
from scoreboard.drivers.postgres_connector import CONNECT_SECONDS, PostgresConnector
from scoreboard.drivers.postgres_pool import PostgresPool
from scoreboard.drivers.redis_client import DirectClient
from scoreboard.drivers.redis_pool import make_pool
from scoreboard.drivers.redis_retention import RedisRetention

P = ParamSpec("P")
T = TypeVar("T")

Connection = asyncpg.Connection  # for annotations outside of this folder, which do not import asyncpg

POOL_SIZE = 8  # connections for everything but the write path
REDIS_SECONDS = 0.25  # design: a call's deadline; Redis answers in well under a millisecond
# for a pipeline of some thousand users: it takes milliseconds, but Redis may be resizing a table, or forking
BULK_SECONDS = 3.0
REDIS_CONNECTIONS = 16
CLOSE_LOOP_TURNS = 3  # turns of the loop, in one of which a closed transport closes its socket


# The installation's id. It changes when a dump is restored into a new database, since that has another oid.
INSTALLATION_SQL = (
    "SELECT id || ':' || (SELECT oid FROM pg_database WHERE datname = current_database()) FROM installation"
)


class Stores:
    """PostgreSQL's pool and Redis' clients. Made by `open_stores`; usable from Trio while that is open."""

    __slots__ = (
        "_own_connections",
        "installation",
        "namespace",
        "pool",
        "postgres",
        "redis",
        "redis_bulk",
        "redis_direct",
        "redis_generation",
        "redis_retention",
        "redis_url",
    )

    def __init__(
        self,
        postgres: PostgresConnector,
        redis_url: str,
        pool: PostgresPool,
        client: Any,
        bulk: Any,
        direct: DirectClient,
        *,
        prefix: str = "",
        redis_generation: Generation | None = None,
    ) -> None:
        self.postgres, self.redis_url = postgres, redis_url
        self.namespace = Namespace(prefix, int(client.connection_pool.connection_kwargs.get("db") or 0))
        self.installation = ""  # the installation's id, as the last connection outside the pool read it
        self.pool = pool
        self.redis = client
        self.redis_bulk = bulk  # for work that takes longer than a call's deadline: building a board
        self.redis_direct = direct  # for the committers and the projector
        self.redis_generation = redis_generation or Generation("redis")
        self.redis_retention = RedisRetention(self.redis_generation)
        self._own_connections: WeakSet[asyncpg.Connection] = WeakSet()

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        return list(await self._call("fetch", sql, args))

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        row: asyncpg.Record | None = await self._call("fetchrow", sql, args)
        return row

    async def fetchval(self, sql: str, *args: object) -> Any:
        return await self._call("fetchval", sql, args)

    async def execute(self, sql: str, *args: object) -> str:
        return str(await self._call("execute", sql, args))

    async def in_transaction(
        self,
        function_aio: Callable[Concatenate[asyncpg.Connection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Runs a function in asyncio, in one transaction of the pool: committed when it returns, rolled back when it
        raises. Returns its value.

        The pool's deadline applies to all of it. Raises as the pool's `call_aio`. After a cancellation it is unknown
        whether the transaction was committed.
        """

        async def run_aio(conn: asyncpg.Connection) -> T:
            async with conn.transaction():
                return await function_aio(conn, *args, **kwargs)

        return await run_in_asyncio(self.pool.call_aio, run_aio)

    async def on_own_connection(
        self,
        seconds: float | None,
        function_aio: Callable[Concatenate[asyncpg.Connection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Runs a function in asyncio, on a new connection outside the pool, for work that takes longer than a call.
        Returns its value.

        After `seconds` the connection is terminated, and StorageUnavailable raised; None: there is no limit. Cancelling
        terminates the connection too.
        """

        async def run_aio() -> T:
            conn = await self.connect_aio()
            try:
                with ended_connection(conn), postgres_errors():
                    call = function_aio(conn, *args, **kwargs)
                    return await (call if seconds is None else bounded_aio(conn, seconds, call))
            finally:
                conn.terminate()

        return await run_in_asyncio(run_aio)

    async def command(self, *args: Any) -> Any:
        """Runs one Redis command and returns its reply. Raises StorageUnavailable."""

        async def run_aio() -> Any:
            with redis_errors():
                return await self.redis.execute_command(*args)

        return await run_in_asyncio(run_aio)

    async def script(self, script_aio: Callable[..., Awaitable[T]], keys: list[str], args: list[Any]) -> T:
        """Calls a script made by `redis.register_script`, and returns its reply. Raises StorageUnavailable."""

        async def run_aio() -> T:
            with redis_errors():
                return await script_aio(keys=keys, args=args)

        return await run_in_asyncio(run_aio)

    def subscriber(self) -> Any:
        """A Redis client for Pub/Sub, without a time-out: silence is normal there. The caller closes it (asyncio:
        `aclose`)."""
        pool = make_pool(
            redis.asyncio.ConnectionPool,
            self.redis_url,
            self.redis_generation,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_SECONDS,
        )
        return redis.asyncio.Redis.from_pool(pool)  # which closes the pool with the client

    async def connect_aio(self) -> asyncpg.Connection:
        """A PostgreSQL connection outside the pool. The caller closes or terminates it; `replace_postgres` may too."""
        return await self._identified_aio(await self.postgres.connect_aio())

    async def connect_committer_aio(self) -> asyncpg.Connection:
        """The same for a committer: see PostgresConnector.connect_committer_aio."""
        return await self._identified_aio(await self.postgres.connect_committer_aio())

    async def _identified_aio(self, conn: asyncpg.Connection) -> asyncpg.Connection:
        try:
            with postgres_errors():
                self.installation = await bounded_aio(conn, CONNECT_SECONDS, _read_installation_aio(conn))
        except BaseException:
            conn.terminate()
            raise
        self._own_connections.add(conn)
        return conn

    def replace_postgres(self, why: str) -> None:
        """Called when the address leads to another server: whatever the old one still records is lost.

        Terminates connections outside the pool at once, with their calls; those of the pool when their call has ended.
        """
        self.pool.replace(why, at_once=True)
        for conn in tuple(self._own_connections):
            conn.terminate()

    async def _call(self, method: str, sql: str, args: tuple[object, ...]) -> Any:
        return await run_in_asyncio(self.pool.call_aio, lambda conn: getattr(conn, method)(sql, *args))


@asynccontextmanager
async def open_stores(
    postgres_url: str, redis_url: str, *, pool_size: int = POOL_SIZE, pgbouncer: bool = False, prefix: str = ""
) -> AsyncIterator[Stores]:
    """Opens the asyncio loop, the pool and the Redis clients, and closes them when the block ends. Connects to no
    server: the first call does, and raises StorageUnavailable when it can't."""

    async def make_aio() -> Stores:
        # No connection yet: a node can start, and report on /readyz, while PostgreSQL is away.
        postgres = PostgresConnector(postgres_url, pgbouncer)
        generation = Generation("redis")
        shared = make_pool(
            redis.asyncio.BlockingConnectionPool,
            redis_url,
            generation,
            max_connections=REDIS_CONNECTIONS,
            timeout=REDIS_SECONDS,  # waiting for a free connection
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
        )
        direct = DirectClient(
            make_pool(redis.asyncio.ConnectionPool, redis_url, generation, socket_timeout=None), REDIS_SECONDS
        )
        slow = make_pool(redis.asyncio.ConnectionPool, redis_url, generation, socket_timeout=BULK_SECONDS)
        client, bulk = (redis.asyncio.Redis(connection_pool=each) for each in (shared, slow))
        return Stores(
            postgres,
            redis_url,
            PostgresPool(postgres, pool_size),
            client,
            bulk,
            direct,
            prefix=prefix,
            redis_generation=generation,
        )

    async with asyncio_loop():
        stores = await run_in_asyncio(make_aio)
        try:
            yield stores
        finally:
            await run_in_asyncio(_close_aio, stores)


async def _close_aio(stores: Stores) -> None:
    stores.pool.terminate()  # every user of a connection has ended before, so there is nothing to wait for
    await stores.redis_direct.close_aio()
    for client in (stores.redis, stores.redis_bulk):
        await client.aclose()
        await client.connection_pool.disconnect()
    for _ in range(CLOSE_LOOP_TURNS):
        await asyncio.sleep(0)


async def _read_installation_aio(conn: Connection) -> str:
    """The id of this installation and this database."""
    return str(await conn.fetchval(INSTALLATION_SQL))
