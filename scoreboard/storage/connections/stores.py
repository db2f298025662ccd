"""Opens the two stores and says how each call's deadline is kept.

`Stores` is handed to whoever speaks to PostgreSQL or Redis. Its methods are Trio-flavoured, cross to asyncio once, and
raise `StorageUnavailable` when a store does not answer in time. The committers have PostgreSQL connections of their own
(`connect`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

import asyncpg
import redis.asyncio

from scoreboard.storage.connections.bridge import asyncio_loop, postgres_errors, redis_errors, run_in_asyncio
from scoreboard.storage.connections.deadline import bounded
from scoreboard.storage.connections.generation import Generation
from scoreboard.storage.connections.namespace import Namespace
from scoreboard.storage.connections.postgres_pool import PostgresPool, opening
from scoreboard.storage.connections.redis_client import DirectClient
from scoreboard.storage.connections.redis_pool import make_pool
from scoreboard.telemetry import metrics

P = ParamSpec("P")
T = TypeVar("T")

Connection = asyncpg.Connection  # for annotations above this folder, which know no driver

CONNECT_SECONDS = 2.0  # to a store in the same data centre; longer means "not there"
POOL_SIZE = 8  # connections for everything but the write path
# a committer's batch waits for a row; longer than any other batch holds one, short enough for the rest of the batch
LOCK_MS = 200
COMMITTER = "scoreboard committer"  # application_name of the committers; the triggers of migration 0003 know it
REDIS_SECONDS = 0.25  # design: a call's deadline; Redis answers in well under a millisecond
# for a pipeline of some thousand users: milliseconds, but Redis may be enlarging a table, or forking
BULK_SECONDS = 3.0
REDIS_CONNECTIONS = 16
CLOSING_TURNS = 3  # of the loop: a transport that was closed lets go of its socket in one of the next


# Another one where a dump was restored into a new database.
INSTALLATION_SQL = (
    "SELECT id || ':' || (SELECT oid FROM pg_database WHERE datname = current_database()) FROM installation"
)


class Stores:
    """PostgreSQL's pool and Redis' clients. Made by `open_stores`; usable from Trio while that is open."""

    __slots__ = (
        "_outside",
        "installation",
        "namespace",
        "pgbouncer",
        "pool",
        "postgres_url",
        "redis",
        "redis_bulk",
        "redis_direct",
        "redis_generation",
        "redis_url",
    )

    def __init__(
        self,
        postgres_url: str,
        redis_url: str,
        pool: Any,
        client: Any,
        bulk: Any,
        direct: DirectClient,
        *,
        pgbouncer: bool,
        prefix: str = "",
        redis_generation: Generation | None = None,
    ) -> None:
        self.postgres_url, self.redis_url, self.pgbouncer = postgres_url, redis_url, pgbouncer
        self.namespace = Namespace(prefix, int(client.connection_pool.connection_kwargs.get("db") or 0))
        self.installation = ""  # whose boards these are, as the last connection of `connect` said
        self.pool = pool
        self.redis = client
        self.redis_bulk = bulk  # for work that takes Redis longer than a call's deadline: a board that is built
        self.redis_direct = direct  # for the committers and the projector
        self.redis_generation = redis_generation or Generation("redis")
        self._outside: WeakSet[asyncpg.Connection] = WeakSet()

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
        self, function: Callable[Concatenate[asyncpg.Connection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs an asyncio-flavoured function in one transaction of the pool: committed when it returns, rolled back
        when it raises.

        The pool's deadline holds for all of it.
        """

        async def run(conn: asyncpg.Connection) -> T:
            async with conn.transaction():
                return await function(conn, *args, **kwargs)

        return await run_in_asyncio(self.pool.call, run)

    async def command(self, *args: Any) -> Any:
        """One Redis command."""

        async def run() -> Any:
            with redis_errors():
                return await self.redis.execute_command(*args)

        return await run_in_asyncio(run)

    async def script(self, script: Callable[..., Awaitable[T]], keys: list[str], args: list[Any]) -> T:
        """One call of a script made by `redis.register_script`."""

        async def run() -> T:
            with redis_errors():
                return await script(keys=keys, args=args)

        return await run_in_asyncio(run)

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

    async def connect(self) -> asyncpg.Connection:
        """asyncio-flavoured: a PostgreSQL connection outside the pool. The caller closes or terminates it;
        `replace_postgres` may too."""
        return await self._identified(await connect(self.postgres_url, pgbouncer=self.pgbouncer))

    async def connect_committer(self) -> asyncpg.Connection:
        """The same for a committer: it must be able to write, waits for locks a moment only, and is known by its name
        to the triggers."""
        return await self._identified(await connect_committer(self.postgres_url, pgbouncer=self.pgbouncer))

    async def _identified(self, conn: asyncpg.Connection) -> asyncpg.Connection:
        try:
            with postgres_errors():
                self.installation = await bounded(conn, CONNECT_SECONDS, _read_installation(conn))
        except BaseException:
            conn.terminate()
            raise
        self._outside.add(conn)
        return conn

    def replace_postgres(self, why: str) -> None:
        """Called when the address leads to another server: what the old one would still record is lost there.

        Ends connections outside the pool at once, their calls too; those of the pool when their call has ended.
        """
        self.pool.replace(why, at_once=True)
        for conn in tuple(self._outside):
            conn.terminate()

    async def _call(self, method: str, sql: str, args: tuple[object, ...]) -> Any:
        return await run_in_asyncio(self.pool.call, lambda conn: getattr(conn, method)(sql, *args))


async def connect(
    postgres_url: str, *, pgbouncer: bool = False, seconds: float = CONNECT_SECONDS
) -> asyncpg.Connection:
    """asyncio-flavoured: one connection. Raises StorageUnavailable when PostgreSQL is not there within so many
    seconds."""
    return await opening(postgres_url, **_options(pgbouncer=pgbouncer))(seconds)


async def connect_committer(postgres_url: str, *, pgbouncer: bool = False) -> asyncpg.Connection:
    """asyncio-flavoured: one connection for a committer. Raises StorageUnavailable, also when it could not write."""
    settings = {"application_name": COMMITTER}
    if not pgbouncer:  # which refuses unknown start-up parameters: the role's lock_timeout holds then
        settings["lock_timeout"] = f"{LOCK_MS}ms"
    options = _options(pgbouncer=pgbouncer)
    return await opening(postgres_url, target_session_attrs="read-write", server_settings=settings, **options)(
        CONNECT_SECONDS
    )


@asynccontextmanager
async def open_stores(
    postgres_url: str, redis_url: str, *, pool_size: int = POOL_SIZE, pgbouncer: bool = False, prefix: str = ""
) -> AsyncIterator[Stores]:
    """Opens the asyncio loop, the pool and two clients, closed in the end. Waits for no server: calls tell whether one
    is there."""

    async def make() -> Stores:
        # No connection yet: a node starts, and says so on /readyz, while PostgreSQL is away.
        pool = PostgresPool(opening(postgres_url, **_options(pgbouncer=pgbouncer)), pool_size)
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
            postgres_url,
            redis_url,
            pool,
            client,
            bulk,
            direct,
            pgbouncer=pgbouncer,
            prefix=prefix,
            redis_generation=generation,
        )

    async with asyncio_loop(metrics.ASYNCIO_EXCEPTIONS.inc):
        stores = await run_in_asyncio(make)
        try:
            yield stores
        finally:
            await run_in_asyncio(_close, stores)


async def _close(stores: Stores) -> None:
    stores.pool.terminate()  # whoever uses a connection has ended before; nothing is worth waiting for
    await stores.redis_direct.close()
    for client in (stores.redis, stores.redis_bulk):
        await client.aclose()
        await client.connection_pool.disconnect()
    for _ in range(CLOSING_TURNS):
        await asyncio.sleep(0)


def _options(*, pgbouncer: bool) -> dict[str, Any]:
    """PgBouncer's transaction pooling hands a session's prepared statements to others: none are kept then."""
    return {"statement_cache_size": 0} if pgbouncer else {}


async def _read_installation(conn: Connection) -> str:
    """Names this installation and this database."""
    return str(await conn.fetchval(INSTALLATION_SQL))
