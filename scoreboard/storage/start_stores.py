"""Opens the stores that the settings name, or the embedded ones, and migrates the database.

Every command that needs the stores begins here. It waits for a database that is still starting. A database that can't
be reached for START_TIMEOUT_SECONDS, or that refuses the log-in, ends the start with a message of one line.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import unquote, urlsplit

import asyncpg
import redis.asyncio
import structlog
import trio

from scoreboard.domain.errors import SettingsError, StartError, StorageUnavailable
from scoreboard.drivers.conditions import POOLER_ERRORS
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.embedded import stack as embedded
from scoreboard.settings.model import Settings
from scoreboard.storage.postgres.migrate import migrate

START_TIMEOUT_SECONDS = 60.0  # for PostgreSQL to accept connections
RETRY_INTERVAL_SECONDS = 1.0
# a wrong password or no such database: waiting does not help
REFUSAL_ERRORS = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
POOLER_HINT = "a pooler such as PgBouncer stands before PostgreSQL and mixes up prepared statements"
MAX_PORT = 65535
URL_HINT = "has no readable port (in a password, characters such as / ? # @ : must be percent-encoded)"

log = structlog.get_logger()


@asynccontextmanager
async def start_stores(settings: Settings) -> AsyncIterator[Stores]:
    """The open and migrated stores: those that the settings name, or the embedded ones, started or joined.

    Raises SettingsError and StartError. Leaving the block closes the connections, and ends embedded servers that this
    process started.
    """
    async with AsyncExitStack() as stack:
        postgres_url, redis_url = settings.postgres.url.get_secret_value(), settings.redis.url.get_secret_value()
        if settings.embedded.enabled:
            endpoints = await stack.enter_async_context(embedded.running(settings.embedded.data_dir))
            postgres_url, redis_url = endpoints.postgres_url, endpoints.redis_url
        check_postgres_url(postgres_url)
        check_redis_url(redis_url)
        if owner_url := "" if settings.embedded.enabled else settings.postgres.migrate_url.get_secret_value():
            check_postgres_url(owner_url, "postgres.migrate_url")
            await _migrate_when_there(owner_url, "postgres.migrate_url", app_role=role_of(postgres_url))
        await _migrate_when_there(postgres_url, pgbouncer=settings.postgres.pgbouncer)
        yield await stack.enter_async_context(
            open_stores(
                postgres_url,
                redis_url,
                pool_size=settings.postgres.pool_size,
                pgbouncer=settings.postgres.pgbouncer,
                prefix=settings.redis.prefix,
            )
        )


def role_of(url: str) -> str:
    """The role that a URL names. Raises SettingsError when it names none."""
    if role := unquote(urlsplit(url).username or ""):
        return role
    raise SettingsError("postgres.url: must name its role, as postgresql://role:password@host/database")


def check_postgres_url(url: str, setting: str = "postgres.url") -> None:
    """Raises SettingsError when the port of a host is not a port number. An unencoded colon in a password looks like
    that, too."""
    for host in urlsplit(url).netloc.rpartition("@")[2].split(","):
        _, colon, port = host.rpartition("]")[2].rpartition(":")
        if colon and port and not (port.isascii() and port.isdecimal() and int(port) <= MAX_PORT):
            raise SettingsError(f"{setting}: {URL_HINT}")


def check_redis_url(url: str) -> None:
    """Raises SettingsError when redis-py can't read the URL, or would use another database than the URL seems to
    name."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdigit():
            raise SettingsError(
                "redis.url: must end with the number of a database, e.g. /0 (in a password, / is written %2F)"
            )
        redis.asyncio.ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]  # opens no socket
    except ValueError:  # its message may quote a part of the password
        raise SettingsError(f"redis.url: {URL_HINT}") from None
    except TypeError as exc:  # a parameter that redis-py does not know
        raise SettingsError(f"redis.url: {str(exc).rpartition('() ')[2]}") from None


async def _migrate_when_there(
    postgres_url: str, setting: str = "postgres.url", *, pgbouncer: bool = False, app_role: str = ""
) -> None:
    give_up = trio.current_time() + START_TIMEOUT_SECONDS
    while True:
        try:
            done = await migrate(postgres_url, pgbouncer=pgbouncer, app_role=app_role)
        except StorageUnavailable as exc:
            if isinstance(exc.__cause__, REFUSAL_ERRORS):
                raise StartError(f"{setting}: PostgreSQL refuses it ({exc.__cause__})") from exc
            if isinstance(exc.__cause__, POOLER_ERRORS):
                raise StartError(f"postgres.pgbouncer: must be true here: {POOLER_HINT}") from exc
            if trio.current_time() >= give_up:
                raise StartError(f"PostgreSQL can't be reached ({exc.why})") from exc
            log.warning("postgres_unavailable", why=exc.why)
            await trio.sleep(RETRY_INTERVAL_SECONDS)
        except asyncpg.ClientConfigurationError as exc:
            raise SettingsError(f"{setting}: {exc}") from None
        except (ValueError, OverflowError):  # its message may quote a part of the password
            raise SettingsError(f"{setting}: {URL_HINT}") from None
        else:
            if done:
                log.info("migrations_applied", applied=done)
            return
