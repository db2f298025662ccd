"""How a connection to PostgreSQL is opened: for the pool, for work that needs one of its own, for a committer.

Each has a deadline and its session's settings. What keeps PostgreSQL from answering becomes StorageUnavailable.

Tested by test_postgres_pool.py, and tests/storage/test_writer.py for the committers.
"""

from dataclasses import dataclass, field
from typing import Any

import asyncpg

from scoreboard.storage.connections.bridge import postgres_errors

CONNECT_SECONDS = 2.0  # to a store in the same data centre; longer means "not there"
MIN_CONNECT_SECONDS = 0.001  # asyncpg takes no time-out of 0: a deadline that has passed already
# a committer's batch waits for a row; longer than any other batch holds one, short enough for the rest of the batch
COMMITTER_LOCK_TIMEOUT_MS = 200
COMMITTER = "scoreboard committer"  # application_name of the committers; the triggers of migration 0003 know it


@dataclass(frozen=True, slots=True)
class PostgresConnector:
    """Where PostgreSQL is. `pgbouncer`: a pooler stands before it and hands sessions from one connection to another."""

    url: str = field(repr=False)  # it may contain a password
    pgbouncer: bool = False

    async def connect_aio(self, seconds: float = CONNECT_SECONDS) -> asyncpg.Connection:
        """One connection, which the caller ends. Raises StorageUnavailable within so many seconds."""
        return await self._connect_aio(seconds)

    async def connect_committer_aio(self) -> asyncpg.Connection:
        """One connection for a committer: it must be able to write, and waits for locks a moment only.

        The triggers know it by its name. Raises StorageUnavailable within CONNECT_SECONDS.
        """
        session = {"application_name": COMMITTER}
        if not self.pgbouncer:  # which refuses unknown start-up parameters: the role's lock_timeout holds then
            session["lock_timeout"] = f"{COMMITTER_LOCK_TIMEOUT_MS}ms"
        return await self._connect_aio(CONNECT_SECONDS, target_session_attrs="read-write", server_settings=session)

    async def _connect_aio(self, seconds: float, **options: Any) -> asyncpg.Connection:
        if self.pgbouncer:  # transaction pooling hands a session's prepared statements to others: none are kept then
            options["statement_cache_size"] = 0
        with postgres_errors():
            return await asyncpg.connect(self.url, timeout=max(seconds, MIN_CONNECT_SECONDS), **options)
