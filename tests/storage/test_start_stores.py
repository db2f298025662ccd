"""Stores that a start can't use: the error comes at once and shows no secret."""

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import trio

from scoreboard.domain.errors import ScoreboardError, SettingsError, StartError
from scoreboard.drivers.bridge import postgres_errors
from scoreboard.settings.model import Settings, load_settings
from scoreboard.storage import start_stores as opening
from scoreboard.storage.start_stores import check_postgres_url, check_redis_url, start_stores
from tests.conftest import execute

HANG = 60  # seconds after which a test that hangs fails; nothing is measured


def settings_of(postgres_url: str, redis_url: str) -> Settings:
    return load_settings(None, {}, {"SCOREBOARD_POSTGRES__URL": postgres_url, "SCOREBOARD_REDIS__URL": redis_url})


async def refusal(postgres_url: str, redis_url: str) -> str:
    """Why a start on these stores can't go on."""
    with trio.fail_after(HANG), pytest.raises(ScoreboardError) as caught:
        async with start_stores(settings_of(postgres_url, redis_url)):
            pytest.fail("it goes on")
    assert isinstance(caught.value, StartError | SettingsError)
    return str(caught.value)


async def test_a_log_in_that_is_refused(database_url: str, redis_url: str) -> None:
    """A wrong password or an absent database ends the start at once: waiting would not help."""
    parts = urlsplit(database_url)
    wrong = parts._replace(netloc=parts.netloc.replace(parts.password or "", "not-this-one")).geturl()
    told = await refusal(wrong, redis_url)
    assert told.startswith("postgres.url: PostgreSQL refuses it (password authentication failed")
    assert "not-this-one" not in told
    assert "does not exist" in await refusal(parts._replace(path="/nowhere").geturl(), redis_url)


@pytest.mark.parametrize(
    "url", ["postgresql://u:pa@db:port/x", "postgresql://u:pa/ss@db/x", "postgresql://u:pa@db:99999/x"]
)
async def test_an_unreadable_address_of_postgresql(url: str, redis_url: str) -> None:
    """A port that is none, and a password that looks like one, are named and not shown."""
    told = await refusal(url, redis_url)
    assert told.startswith("postgres.url: ")
    assert "pa" not in told.replace("password", "").replace("characters", "")


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@h", "postgresql://u:p@h:1,[::1]:2/x", "postgresql://h:/x", "postgresql:///x?host=/run"]
)
def test_a_good_address_of_postgresql(url: str) -> None:
    """Several hosts, IPv6, none at all: what the driver can read passes."""
    check_postgres_url(url)


async def test_a_parameter_that_is_wrong(database_url: str, redis_url: str) -> None:
    """What the driver says of it is the line."""
    assert "sslmode" in await refusal(f"{database_url}?sslmode=bogus", redis_url)


@pytest.mark.parametrize(
    "url",
    ["redis://h:port/0", "redis://h:99999/0", "redis://h/zero", "redis://:pa/ss@h", "redis://h/0?nonsense=1"],
    ids=lambda url: url[8:],
)
def test_an_unreadable_address_of_redis(url: str) -> None:
    """A URL that redis-py would read as another server or database is refused."""
    with pytest.raises(SettingsError, match=r"^redis\.url: ") as caught:
        check_redis_url(url)
    assert "ss@" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h:1/3", "rediss://u:p@h/0", "unix:///run/redis.sock?db=1", "redis://[::1]:6379/0"]
)
def test_a_good_address_of_redis(url: str) -> None:
    """The check opens no connection: a node starts also while Redis is away."""
    check_redis_url(url)


async def test_a_database_of_a_newer_version(database_url: str, redis_url: str) -> None:
    """A database that a newer version has migrated is not changed, and the start ends."""
    execute(database_url, "INSERT INTO schema_migrations (name, sha256) VALUES ('9999_later.sql', '')")
    told = await refusal(database_url, redis_url)
    assert "newer than this version" in told
    assert "9999_later.sql" in told


@pytest.mark.parametrize("error", [asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError])
async def test_a_pooler_that_was_not_named(
    database_url: str, redis_url: str, error: type[asyncpg.PostgresError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PgBouncer's transaction pooling makes of prepared statements ends the start at once, and names the
    setting."""

    async def migrate(*_: object, **__: object) -> list[str]:
        with postgres_errors():
            raise error('prepared statement "__asyncpg_stmt_1__" already exists')

    monkeypatch.setattr(opening, "migrate", migrate)
    assert (await refusal(database_url, redis_url)).startswith("postgres.pgbouncer: must be true here")


async def test_keys_are_not_made_for_stores_that_cannot_be_used(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Opening stores writes nothing beside them."""
    async with start_stores(settings_of(database_url, redis_url)):
        assert list(tmp_path.iterdir()) == []
