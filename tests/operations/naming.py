"""Steps that tests of names share: refusals, concurrent renames, skeletons that housekeeping writes."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import trio

from scoreboard.domain.errors import Code, Refusal
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.operations.authenticator import Identity
from scoreboard.storage.postgres import users
from scoreboard.storage.postgres.skeletons import Backfill
from tests.operations.people import Node


def refusal(outcome: object) -> tuple[Code, set[str]]:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code, {error.field for error in outcome.errors}


async def identity(one: Node, name: str) -> Identity:
    found = one.sessions.authenticate(
        (await one.register(name, email=f"{name.encode().hex()}@example.org")).accessToken
    )
    assert found is not None
    return found


async def backfill(one: Node) -> int:
    async def run() -> int:
        conn = await one.stores.connect_aio()
        try:
            return await Backfill().run_aio(conn)
        finally:
            conn.terminate()

    return await run_in_asyncio(run)


async def rename_later(one: Node, user: UUID, name: str) -> object:
    """Once housekeeping holds a lock, or is through."""
    locks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    for _ in range(20):
        if await one.stores.fetchval(locks):
            break
    return await users.change_profile(one.stores, user, name, None, set_avatar=False)


async def at_once(*calls: Callable[[], Awaitable[object]]) -> list[object]:
    outcomes: list[object] = []

    async def call(one: Callable[[], Awaitable[object]]) -> None:
        outcomes.append(await one())

    async with trio.open_nursery() as nursery:
        for one in calls:
            nursery.start_soon(call, one)
    return outcomes
