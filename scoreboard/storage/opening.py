"""The stores that the settings name, or the embedded ones: reached, migrated, open.

Every command begins here. A database that is still starting is waited for; one that stays away ends the start with one line.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
import trio

from scoreboard.domain.errors import StartError, StorageUnavailable
from scoreboard.runtime import embedded
from scoreboard.runtime.settings import Settings
from scoreboard.storage.connections import Stores, open_stores
from scoreboard.storage.migrate import migrate

START_SECONDS = 60.0  # that a database may take to be there
RETRY_SECONDS = 1.0  # between two tries

log = structlog.get_logger()


@asynccontextmanager
async def stores_of(settings: Settings) -> AsyncIterator[Stores]:
    """The migrated stores that the settings name, or the embedded ones, started or joined. Raises StartError."""
    async with AsyncExitStack() as stack:
        postgres_url, redis_url = settings.postgres.url.get_secret_value(), settings.redis.url.get_secret_value()
        if settings.embedded.enabled:
            endpoints = await stack.enter_async_context(embedded.running(settings.embedded.data_dir))
            postgres_url, redis_url = endpoints.postgres_url, endpoints.redis_url
        await _migrate_patiently(postgres_url, pgbouncer=settings.postgres.pgbouncer)
        yield await stack.enter_async_context(
            open_stores(
                postgres_url,
                redis_url,
                pool_size=settings.postgres.pool_size,
                pgbouncer=settings.postgres.pgbouncer,
                prefix=settings.redis.prefix,
            )
        )


async def _migrate_patiently(postgres_url: str, *, pgbouncer: bool) -> None:
    give_up = trio.current_time() + START_SECONDS
    while True:
        try:
            done = await migrate(postgres_url, pgbouncer=pgbouncer)
        except StorageUnavailable as exc:
            if trio.current_time() >= give_up:
                raise StartError(f"PostgreSQL can't be reached ({exc.why})") from exc
            log.warning("postgresql_awaited", why=exc.why)
            await trio.sleep(RETRY_SECONDS)
        else:
            if done:
                log.info("migrated", applied=done)
            return
