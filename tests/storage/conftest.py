"""Open stores for storage and operations tests: a migrated database with its role's time-outs, and an emptied
Valkey."""

from collections.abc import AsyncIterator

import pytest

from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.postgres.migrate import migrate


@pytest.fixture
async def stores(database_url: str, redis_url: str) -> AsyncIterator[Stores]:
    """Both stores, open. The role's time-outs belong to a database and are not copied from the template: migrating
    gives them."""
    await migrate(database_url)
    async with open_stores(database_url, redis_url) as opened:
        yield opened
