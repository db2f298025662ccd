"""Opens connections to PostgreSQL: for the pool, for work that needs its own, and for a committer.

Opening has a deadline, and the session gets its settings. Failures to connect become StorageUnavailable.

Tested by test_postgres_pool.py, and tests/storage/test_writer.py for the committers.
"""

from dataclasses import dataclass, field
from typing import Any

import asyncpg

from scoreboard.drivers.bridge import postgres_errors

CONNECT_SECONDS = 2.0  # to a store in the same data centre; longer means "not there"
MIN_CONNECT_SECONDS = 0.001  # when the deadline has passed already; asyncpg does not accept a time-out of 0
# for a row lock: longer than any other batch holds one, and short enough for the other actions of the batch
COMMITTER_LOCK_TIMEOUT_MS = 200
# For a background transaction that locks the rows of several users and waits for one of them. Its own locks keep
# committers waiting, which would take users for locked that nobody holds: so it gives up long before they do.
BACKGROUND_LOCK_TIMEOUT_MS = 20
BACKGROUND_LOCK_TIMEOUT_SQL = f"SET LOCAL lock_timeout = '{BACKGROUND_LOCK_TIMEOUT_MS}ms'"
COMMITTER = "scoreboard committer"  # application_name of the committers; the triggers of migration 0003 compare it


@dataclass(frozen=True, slots=True)
class PostgresConnector:
    """The address of PostgreSQL. `pgbouncer`: a pooler is in front of it and gives sessions to several connections."""

    url: str = field(repr=False)  # it may contain a password
    pgbouncer: bool = False

    async def connect_aio(self, seconds: float = CONNECT_SECONDS) -> asyncpg.Connection:
        """Opens a connection, which the caller closes. Raises StorageUnavailable within `seconds`."""
        return await self._connect_aio(seconds)

    async def connect_committer_aio(self) -> asyncpg.Connection:
        """Opens a connection for a committer. Its session can write, and waits at most COMMITTER_LOCK_TIMEOUT_MS for a
        lock. The triggers recognise it by its application_name.

        Raises StorageUnavailable within CONNECT_SECONDS.
        """
        session = {"application_name": COMMITTER}
        if not self.pgbouncer:  # which refuses unknown start-up parameters: the role's lock_timeout holds then
            session["lock_timeout"] = f"{COMMITTER_LOCK_TIMEOUT_MS}ms"
        return await self._connect_aio(CONNECT_SECONDS, target_session_attrs="read-write", server_settings=session)

    async def _connect_aio(self, seconds: float, **options: Any) -> asyncpg.Connection:
        if self.pgbouncer:  # transaction pooling gives a session's prepared statements to others, so none are cached
            options["statement_cache_size"] = 0
        with postgres_errors():
            return await asyncpg.connect(self.url, timeout=max(seconds, MIN_CONNECT_SECONDS), **options)
