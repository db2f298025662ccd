"""Starts of actions: for whom, how many, until when."""

from uuid import UUID

import pytest
import trio

from scoreboard.domain.action_rules import read_rules
from scoreboard.domain.errors import LimitLayer, Refusal
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.drivers.stores import Stores
from scoreboard.operations.start_action import NOT_STARTED, start_action
from scoreboard.storage.postgres import starts
from scoreboard.storage.postgres.starts import MAX_STARTS_PER_MINUTE, Start
from tests.storage.conftest import stores
from tests.storage.seeds import make_users

__all__ = ["stores"]  # the fixture

RULES = read_rules(
    '[race]\ntitle = "Race"\npoints = 1\nstarted = { minimum = 5, expires = 60 }\n[plain]\ntitle = "P"\npoints = 1'
)


async def start(stores: Stores, user: UUID) -> Start | Refusal:
    return await start_action(stores, RULES, user, "race")


async def test_a_start_is_the_users_and_of_the_type(stores: Stores) -> None:
    """It ends when the type says, by the database's clock."""
    (ada,) = await make_users(stores, 1)
    made = await start(stores, ada)
    assert isinstance(made, Start)
    row = await stores.fetchrow("SELECT *, extract(epoch FROM expires_at - started_at) AS lasts FROM action_starts")
    assert row is not None
    assert (row["id"], row["user_id"], row["action_type"]) == (made.id, ada, "race")
    assert 59.9 < row["lasts"] < 60.1


@pytest.mark.parametrize("kind", ["plain", "nothing", ""])
async def test_only_types_that_need_a_start_have_one(stores: Stores, kind: str) -> None:
    """400; no row is made."""
    (ada,) = await make_users(stores, 1)
    assert await start_action(stores, RULES, ada, kind) is NOT_STARTED
    assert await start_action(stores, RULES, UUID(int=1), "race") is USER_DELETED
    assert await stores.fetchval("SELECT count(*) FROM action_starts") == 0


async def test_a_user_starts_so_many_a_minute(stores: Stores) -> None:
    """Also when they come at once; another user is not concerned. A minute later there is room again."""
    ada, bob = await make_users(stores, 2)
    outcomes: list[Start | Refusal] = []

    async def one() -> None:
        outcomes.append(await start(stores, ada))

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_STARTS_PER_MINUTE + 5):
            nursery.start_soon(one)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert len(refused) == 5
    assert refused[0].layer is LimitLayer.USER
    assert refused[0].retry_after is not None
    assert 50 < refused[0].retry_after <= 60
    assert isinstance(await start(stores, bob), Start)
    await stores.execute("UPDATE action_starts SET started_at = started_at - interval '61 seconds'")
    assert isinstance(await start(stores, ada), Start)


async def test_a_user_has_so_many_starts(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes; nobody is locked out by starts that were never used."""
    monkeypatch.setattr(starts, "MAX_OPEN_STARTS", 3)
    (ada,) = await make_users(stores, 1)
    made = [await start(stores, ada) for _ in range(5)]
    kept = {row["id"] for row in await stores.fetch("SELECT id FROM action_starts")}
    assert kept == {one.id for one in made[2:] if isinstance(one, Start)}


async def test_old_starts_are_deleted(stores: Stores) -> None:
    """An hour after their end; a deleted user's at once."""
    ada, bob = await make_users(stores, 2)
    await start(stores, ada)
    await start(stores, bob)
    await starts.prune(stores)
    assert await stores.fetchval("SELECT count(*) FROM action_starts") == 2
    await stores.execute("DELETE FROM users WHERE id = $1", bob)
    await stores.execute("UPDATE action_starts SET expires_at = now() - interval '61 minutes'")
    await starts.prune(stores)
    assert await stores.fetchval("SELECT count(*) FROM action_starts") == 0
