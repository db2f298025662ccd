"""Opens the two stores and says how each call's deadline is kept.

`Stores` is handed to whoever speaks to PostgreSQL or Redis. Its methods are Trio-flavoured, cross to asyncio once, and raise
`StorageUnavailable` when a store does not answer in time. The committers have PostgreSQL connections of their own (`connect`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import asyncpg
import hiredis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.runtime import observe
from scoreboard.storage import outbox
from scoreboard.storage.bridge import asyncio_loop, crossing, postgres_errors, redis_errors
from scoreboard.storage.direct import DirectClient
from scoreboard.storage.namespace import Namespace

P = ParamSpec("P")
T = TypeVar("T")

Connection = asyncpg.Connection  # for annotations above this folder, which know no driver

CONNECT_SECONDS = 2.0  # to a store in the same data centre; longer means "not there"
COMMAND_SECONDS = 5.0  # one statement of the pool; the role's statement_timeout (4 s) normally ends it before
POOL_SIZE = 8  # connections for everything but the write path
REDIS_SECONDS = 0.25  # design: a call's deadline; Redis answers in well under a millisecond
REDIS_CONNECTIONS = 16
LOCK_MS = 200  # a committer's batch waits for a row; longer than any other batch holds one, short enough for the rest of the batch
COMMITTER = "scoreboard committer"  # application_name of the committers; the triggers of migration 0003 know it
IDLE_SECONDS = 60.0  # unused pool connections are closed after this


class Stores:
    """PostgreSQL's pool and Redis' clients. Made by `open_stores`; usable from Trio while that is open."""

    __slots__ = ("installation", "namespace", "pgbouncer", "pool", "postgres_url", "redis", "redis_direct", "redis_url")

    def __init__(
        self, postgres_url: str, redis_url: str, pool: Any, client: Any, direct: DirectClient, *, pgbouncer: bool, prefix: str = ""
    ) -> None:
        self.postgres_url, self.redis_url, self.pgbouncer = postgres_url, redis_url, pgbouncer
        self.namespace = Namespace(prefix, int(client.connection_pool.connection_kwargs.get("db") or 0))
        self.installation = ""  # whose boards these are, as the last connection of `connect` said
        self.pool = pool
        self.redis = client
        self.redis_direct = direct  # for the committers and the projector

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        return await crossing(self._pooled, "fetch", sql, args)

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        return await crossing(self._pooled, "fetchrow", sql, args)

    async def fetchval(self, sql: str, *args: object) -> Any:
        return await crossing(self._pooled, "fetchval", sql, args)

    async def execute(self, sql: str, *args: object) -> str:
        return str(await crossing(self._pooled, "execute", sql, args))

    async def in_transaction(
        self, function: Callable[Concatenate[asyncpg.Connection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs an asyncio-flavoured function in one transaction of the pool: committed when it returns, rolled back when it raises."""

        async def run() -> T:
            with postgres_errors():
                async with self.pool.acquire(timeout=CONNECT_SECONDS) as conn, conn.transaction():
                    return await function(conn, *args, **kwargs)

        return await crossing(run)

    async def command(self, *args: Any) -> Any:
        """One Redis command."""

        async def run() -> Any:
            with redis_errors():
                return await self.redis.execute_command(*args)

        return await crossing(run)

    async def script(self, script: Callable[..., Awaitable[T]], keys: list[str], args: list[Any]) -> T:
        """One call of a script made by `redis.register_script`."""

        async def run() -> T:
            with redis_errors():
                return await script(keys=keys, args=args)

        return await crossing(run)

    def subscriber(self) -> Any:
        """A Redis client for Pub/Sub, without a time-out: silence is normal there. The caller closes it (asyncio: `aclose`)."""
        return redis.asyncio.Redis.from_url(self.redis_url, socket_timeout=None, socket_connect_timeout=CONNECT_SECONDS, **_plain())

    async def connect(self) -> asyncpg.Connection:
        """asyncio-flavoured: a PostgreSQL connection outside the pool. The caller closes or terminates it."""
        return await self._identified(await connect(self.postgres_url, pgbouncer=self.pgbouncer))

    async def connect_committer(self) -> asyncpg.Connection:
        """The same for a committer: it must be able to write, waits for locks a moment only, and is known by its name to the triggers."""
        return await self._identified(await connect(self.postgres_url, pgbouncer=self.pgbouncer, committer=True))

    async def _identified(self, conn: asyncpg.Connection) -> asyncpg.Connection:
        try:
            with postgres_errors():
                self.installation = await asyncio.wait_for(outbox.identity(conn), CONNECT_SECONDS)
        except BaseException:
            conn.terminate()
            raise
        return conn

    async def _pooled(self, method: str, sql: str, args: tuple[object, ...]) -> Any:
        with postgres_errors():
            async with self.pool.acquire(timeout=CONNECT_SECONDS) as conn:
                return await getattr(conn, method)(sql, *args)


async def connect(postgres_url: str, *, pgbouncer: bool = False, committer: bool = False) -> asyncpg.Connection:
    """asyncio-flavoured: one connection. Raises StorageUnavailable when PostgreSQL is not there within CONNECT_SECONDS."""
    options = _options(pgbouncer=pgbouncer)
    if committer:
        options["target_session_attrs"] = "read-write"
        options["server_settings"] = {"application_name": COMMITTER}
        if not pgbouncer:  # which refuses unknown start-up parameters: the role's lock_timeout holds then
            options["server_settings"]["lock_timeout"] = f"{LOCK_MS}ms"
    with postgres_errors():
        try:
            return await asyncpg.connect(postgres_url, timeout=CONNECT_SECONDS, **options)
        except (
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
            asyncpg.TargetServerAttributeNotMatched,
        ) as exc:
            raise StorageUnavailable("postgresql", str(exc)) from exc


@asynccontextmanager
async def open_stores(
    postgres_url: str, redis_url: str, *, pool_size: int = POOL_SIZE, pgbouncer: bool = False, prefix: str = ""
) -> AsyncIterator[Stores]:
    """Opens the asyncio loop, the pool and two clients, closed in the end. Waits for no server: calls tell whether one is there."""

    async def open_pool() -> Any:
        # min_size 0: a node starts, and says so on /readyz, while PostgreSQL is away.
        return await asyncpg.create_pool(
            postgres_url,
            min_size=0,
            max_size=pool_size,
            command_timeout=COMMAND_SECONDS,
            timeout=CONNECT_SECONDS,
            max_inactive_connection_lifetime=IDLE_SECONDS,
            **_options(pgbouncer=pgbouncer),
        )

    async def open_client() -> Any:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            redis_url,
            connection_class=_PackedInC,  # a URL that names another kind (TLS, a Unix socket) gets that one
            max_connections=REDIS_CONNECTIONS,
            timeout=REDIS_SECONDS,  # waiting for a free connection
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
            **_plain(),
        )
        return redis.asyncio.Redis(connection_pool=pool)

    async def open_direct() -> DirectClient:
        pool = redis.asyncio.ConnectionPool.from_url(redis_url, connection_class=_PackedInC, socket_timeout=None, **_plain())
        return DirectClient(pool, REDIS_SECONDS)

    async with asyncio_loop(observe.ASYNCIO_EXCEPTIONS.inc):
        pool = await crossing(open_pool)
        client, direct = await crossing(open_client), await crossing(open_direct)
        try:
            yield Stores(postgres_url, redis_url, pool, client, direct, pgbouncer=pgbouncer, prefix=prefix)
        finally:
            await crossing(_close, pool, client, direct)


class _PackedInC(redis.asyncio.Connection):
    """redis-py packs an asyncio command argument by argument in Python: 260 µs for a batch of 64 actions, 50 µs here."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*name.split(), *args[1:]))]


async def _close(pool: Any, client: Any, direct: DirectClient) -> None:
    pool.terminate()  # whoever uses a connection has ended before; nothing is worth waiting for
    await direct.close()
    await client.aclose()
    await client.connection_pool.disconnect()


def _options(*, pgbouncer: bool) -> dict[str, Any]:
    """PgBouncer's transaction pooling hands a session's prepared statements to others: none are kept then."""
    return {"statement_cache_size": 0} if pgbouncer else {}


def _plain() -> dict[str, Any]:
    """By default redis-py repeats commands, scripts too; and while it listens for a vendor's maintenance notices it hands out connections
    that have ended, as all have after a restart of Redis."""
    return {"retry": Retry(NoBackoff(), 0), "maint_notifications_config": MaintNotificationsConfig(enabled=False)}
