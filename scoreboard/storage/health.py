"""Checks about once a second in which condition each store is, for /readyz, the log and the metrics.

Each check opens a new connection. An older one may lead to a server that has moved, or be a session from before a
setting was changed. A failed call anywhere makes the next check start at once. A check reads nothing of the board and
changes nothing in the stores.
"""

import asyncio
from datetime import datetime

import asyncpg
import redis.asyncio
import redis.exceptions
import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable, Store, StoreCondition
from scoreboard.drivers.bridge import failures_reported_to, postgres_errors, redis_errors, run_in_asyncio
from scoreboard.drivers.deadline import bounded_aio
from scoreboard.drivers.generation import Generation
from scoreboard.drivers.redis_pool import make_pool
from scoreboard.drivers.stores import Stores
from scoreboard.telemetry import metrics

CHECK_INTERVAL_SECONDS = 1.0  # between the starts of two checks; so a change is known within two seconds
CHECK_TIMEOUT_SECONDS = 0.6  # for one check on a new connection
# for a check on an open connection, when the new one gave no answer: a busy node is slow in opening one
OPEN_CONNECTION_TIMEOUT_SECONDS = 0.3
MIN_INTERVAL_SECONDS = 0.25  # between the starts of two checks, however many failures are reported

# Whether a new session may write, which server this is, and whether the tables exist and may be read. `WHERE false`: no
# row is read.
SESSION_SQL = """
SELECT current_setting('transaction_read_only') = 'on' AS is_read_only, pg_postmaster_start_time() AS started,
       (SELECT count(*) FROM users WHERE false), (SELECT count(*) FROM scores WHERE false),
       (SELECT count(*) FROM action_keys WHERE false), (SELECT count(*) FROM action_logs WHERE false),
       (SELECT count(*) FROM commits WHERE false), (SELECT count(*) FROM sessions WHERE false)"""
# Writes a megabyte to a temporary file, which is dropped at commit. It succeeds when PostgreSQL has room again. Rows of
# 1.6 kB stay uncompressed.
SPACE_SQL = """
CREATE TEMPORARY TABLE scoreboard_space ON COMMIT DROP AS
SELECT repeat(md5(n::text), 50) AS filler FROM generate_series(1, 640) n"""

# This key is never written. LPUSHX on it changes nothing, and is refused when any write would be.
UNUSED_LIST_KEY = "{leaderboard}:health"

NO_EVICTION = "noeviction"
EVICTION_WARNING = (
    "Redis evicts keys when its memory is full (maxmemory-policy is {}): boards and limits can lose entries. "
    "Set maxmemory-policy to noeviction."
)

SERVER_CHANGED = "a new connection leads to another server"

log = structlog.get_logger()


class HealthMonitor:
    """One for the process. `conditions` and `warnings` are what /readyz shows; before the first check both stores count
    as down."""

    __slots__ = (
        "_check_pool",
        "_has_checked",
        "_policy",
        "_postgres_started",
        "_reported",
        "_run_id",
        "_stores",
        "conditions",
    )

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.conditions: dict[Store, StoreCondition] = {"postgresql": StoreCondition.DOWN, "redis": StoreCondition.DOWN}
        self._policy = NO_EVICTION  # maxmemory-policy in the last answer of Redis
        self._has_checked = False
        self._reported = trio.Event()
        # of the server that the last new connection led to and that takes writes
        self._postgres_started: datetime | None = None
        self._run_id: bytes | None = None  # of the server that the last new connection to Redis led to
        # A generation of its own: a reply to a check replaces no other connection.
        self._check_pool = make_pool(
            redis.asyncio.ConnectionPool, stores.redis_url, Generation("redis"), socket_timeout=None
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should change, in sentences."""
        return (EVICTION_WARNING.format(self._policy),) if self.redis_evicts else ()

    @property
    def redis_evicts(self) -> bool:
        """Whether Redis throws keys away when its memory is full."""
        return self._policy != NO_EVICTION

    def report(self, failure: StorageUnavailable) -> None:
        """A call failed: the next check starts at once. FULL is set without a check, since no check of an up store
        tests the free space."""
        if failure.condition is StoreCondition.FULL:
            self._set_condition(failure.store, StoreCondition.FULL, failure.why)
            self._reported.set()
        if failure.condition not in {StoreCondition.BUSY, self.conditions[failure.store]}:
            self._reported.set()

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Checks both stores for ever; started after the first check. Cancelling loses nothing."""
        with failures_reported_to(self):
            began = trio.current_time()
            await run_in_asyncio(self._check_aio)
            self._has_checked = True
            task_status.started()
            while True:
                await trio.sleep_until(began + MIN_INTERVAL_SECONDS)
                with trio.move_on_at(began + CHECK_INTERVAL_SECONDS):
                    await self._reported.wait()
                began, self._reported = trio.current_time(), trio.Event()
                await run_in_asyncio(self._check_aio)

    async def _check_aio(self) -> None:
        await asyncio.gather(self._check_postgres_aio(), self._check_redis_aio())

    # ---- PostgreSQL -------------------------------------------------------------------------------------------------

    async def _check_postgres_aio(self) -> None:
        before = self.conditions["postgresql"]
        began = asyncio.get_running_loop().time()
        try:
            found, why = await self._check_session_aio(is_full=before is StoreCondition.FULL), ""
        except StorageUnavailable as exc:
            found, why = exc.condition, exc.why
            if found is StoreCondition.BUSY or _has_timed_out(began):  # too many connections, a lock, or silence
                found, why = await self._check_pool_connection_aio(before, why)
        if found is StoreCondition.UP and before is not self.conditions["postgresql"]:
            return  # a call found the disk full during this check, which tested no space: the next one does
        if (
            found is StoreCondition.UP
            and before in {StoreCondition.DOWN, StoreCondition.READ_ONLY}
            and self._has_checked
        ):
            # Sessions from before may be read-only or half-open.
            self._stores.pool.replace("postgresql can be written again", at_once=True)
        self._set_condition("postgresql", found, why)

    async def _check_session_aio(self, *, is_full: bool) -> StoreCondition:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CHECK_TIMEOUT_SECONDS
        conn = await self._stores.postgres.connect_aio(CHECK_TIMEOUT_SECONDS)
        try:
            with postgres_errors():
                session = await bounded_aio(conn, deadline - loop.time(), conn.fetchrow(SESSION_SQL))
                assert session is not None  # a SELECT without FROM has one row
                if session["is_read_only"]:
                    return StoreCondition.READ_ONLY
                self._compare_postgres(session["started"])
                if is_full:
                    await bounded_aio(conn, deadline - loop.time(), _check_space_aio(conn))
            return StoreCondition.UP
        finally:
            conn.terminate()

    def _compare_postgres(self, started: datetime) -> None:
        """Replaces the connections when this is another server than last time: the address has moved, or the server was
        started anew."""
        if started != self._postgres_started and self._has_checked:
            self._stores.replace_postgres(SERVER_CHANGED)
        self._postgres_started = started

    async def _check_pool_connection_aio(self, before: StoreCondition, why: str) -> tuple[StoreCondition, str]:
        """Checks an open connection, when a new one gave no answer. If it answers, the store is there, and its
        condition is the one from `before`; DOWN becomes UP."""
        try:
            await self._stores.pool.call_aio(
                lambda conn: conn.fetchval("SELECT 1"), seconds=OPEN_CONNECTION_TIMEOUT_SECONDS
            )
        except StorageUnavailable as exc:
            return (StoreCondition.DOWN, why) if exc.condition is StoreCondition.BUSY else (exc.condition, exc.why)
        return (StoreCondition.UP if before is StoreCondition.DOWN else before), why

    # ---- Redis ------------------------------------------------------------------------------------------------------

    async def _check_redis_aio(self) -> None:
        before, generation = self.conditions["redis"], self._stores.redis_generation
        began, number = asyncio.get_running_loop().time(), generation.number
        try:
            with redis_errors():
                async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                    found, why = await self._check_server_aio()
        except StorageUnavailable as exc:
            found, why = StoreCondition.DOWN if exc.condition is StoreCondition.BUSY else exc.condition, exc.why
            if _has_timed_out(began) and await self._answers_ping_aio():
                found = StoreCondition.UP if before is StoreCondition.DOWN else before
        if (
            found is StoreCondition.UP
            and before is StoreCondition.DOWN
            and self._has_checked
            and number == generation.number
        ):
            # connections from before may be half-open, which no call would notice
            generation.replace("redis answers again", at_once=True)
        self._set_condition("redis", found, why)

    async def _answers_ping_aio(self) -> bool:
        try:
            with redis_errors():
                async with asyncio.timeout(OPEN_CONNECTION_TIMEOUT_SECONDS):
                    return bool(await self._stores.redis_direct.execute_aio("PING"))
        except StorageUnavailable:
            return False

    async def _check_server_aio(self) -> tuple[StoreCondition, str]:
        conn = self._check_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await conn.connect()
            await conn.send_command("INFO", "server", "memory", "replication")
            info = _parse_info(await conn.read_response())
            self._compare_redis(info[b"run_id"])
            self._note_policy(info.get(b"maxmemory_policy", NO_EVICTION.encode()))
            if info.get(b"role", b"master") != b"master":
                return StoreCondition.READ_ONLY, "its role is that of a replica"
            await conn.send_command("LPUSHX", UNUSED_LIST_KEY, "")
            try:
                await conn.read_response()
            except redis.exceptions.NoPermissionError:
                pass  # our role may have no right to this command alone
            return StoreCondition.UP, ""
        finally:
            await conn.disconnect(nowait=True)

    def _compare_redis(self, run_id: bytes) -> None:
        """Replaces the connections when this is another server than last time, as with PostgreSQL."""
        if run_id != self._run_id and self._has_checked:
            self._stores.redis_generation.replace(SERVER_CHANGED, at_once=True)
        self._run_id = run_id

    def _note_policy(self, policy: bytes) -> None:
        if policy.decode() != self._policy:
            self._policy = policy.decode()
            self._stores.redis_retention.evicts = self.redis_evicts
            if self.redis_evicts:
                log.warning("redis_eviction_found", policy=self._policy, hint=EVICTION_WARNING.format(self._policy))

    # ---- both -------------------------------------------------------------------------------------------------------

    def _set_condition(self, store: Store, found: StoreCondition, why: str) -> None:
        before, self.conditions[store] = self.conditions[store], found
        for condition in StoreCondition:
            if condition is not StoreCondition.BUSY:
                metrics.STORE_CONDITION.labels(store, condition).set(condition is found)
        if found is not before and not (found is StoreCondition.UP and not self._has_checked):
            level = log.info if found is StoreCondition.UP else log.warning
            level("store_condition_changed", store=store, condition=found, before=before, why=why)


def _has_timed_out(began: float) -> bool:
    """Whether a check that began then has reached its time-out, so that the store gave no answer."""
    return asyncio.get_running_loop().time() - began >= CHECK_TIMEOUT_SECONDS


async def _check_space_aio(conn: asyncpg.Connection) -> None:
    """Raises StorageUnavailable with FULL when there is no space. For a role that may not make temporary tables nothing
    is tested."""
    try:
        async with conn.transaction():
            await conn.execute(SPACE_SQL)
    except asyncpg.InsufficientPrivilegeError:
        pass


def _parse_info(info: bytes) -> dict[bytes, bytes]:
    """The fields of an INFO reply."""
    return dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
