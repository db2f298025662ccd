"""Nodes and stores die under load: nothing acknowledged is lost, nothing counts twice, and the board heals by itself.

The times are short here. By hand, longer: FAULT_SECONDS=30 FAULT_ACTORS=200 scripts/test tests/faults
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import httpx
import pytest
import trio

from scoreboard.storage.connections import open_stores
from tests.conftest import OwnValkey
from tests.e2e.nodes import Client, ServerProcess, Viewer, provision, viewer
from tests.faults.ledger import Ledger, act_for, board_of, check

SECONDS = float(os.environ.get("FAULT_SECONDS", "6"))
ACTORS = int(os.environ.get("FAULT_ACTORS", "40"))
PAUSE = 0.2  # seconds between two actions of one actor, on average
HEALED = 5.0  # seconds after the last fault until everything agrees

StartNode = Callable[..., ServerProcess]


async def actors(stack: AsyncExitStack, node: ServerProcess) -> list[Client]:
    http = await stack.enter_async_context(
        httpx.AsyncClient(base_url=node.url, timeout=10, limits=httpx.Limits(max_connections=ACTORS, max_keepalive_connections=ACTORS))
    )
    return await provision(node, http, ACTORS)


async def shows(watching: Viewer, expected: Sequence[tuple[object, int]]) -> None:
    """Returns when the viewer has been given this board."""
    with trio.fail_after(HEALED + 5):
        while True:
            board = (await watching.hear("leaderboard:update"))["leaderboard"]
            if [(row["userId"], row["score"]) for row in board] == [(str(user), score) for user, score in expected]:
                return


@pytest.mark.parametrize("seed", [7])
async def test_a_node_and_then_valkey_die_under_load(start_node: StartNode, database_url: str, fresh_valkey: OwnValkey, seed: int) -> None:
    """A node is killed and restarted, then Valkey is killed and comes back empty: every 200 is there once, and all stores agree in 5 s."""
    settings = {"redis": fresh_valkey.url, "limits__user_per_minute": "0"}
    nodes = [start_node(**settings), start_node(**settings)]
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        clients = await actors(stack, nodes[0])

        async def faults() -> None:
            await trio.sleep(SECONDS / 4)
            nodes[1].kill()
            await trio.sleep(0.5)
            await trio.to_thread.run_sync(nodes[1].start)
            await trio.sleep(SECONDS / 4)
            fresh_valkey.kill()
            fresh_valkey.forget()
            await trio.sleep(0.5)
            await trio.to_thread.run_sync(fresh_valkey.start)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(faults)
            await act_for(SECONDS, clients, nodes, ledger, pause=PAUSE, seed=seed)
        async with open_stores(database_url, fresh_valkey.url) as stores:
            await check(ledger, stores)
            expected = await board_of(stores)
            for node in nodes:
                async with viewer(node) as watching:
                    await shows(watching, expected)
    assert ledger.statuses[200] > ACTORS, ledger.statuses
    assert not set(ledger.statuses) - {0, 200, 409, 503}, ledger.statuses
    for node in nodes:
        assert not [line for line in node.lines() if line["level"] in {"error", "critical"}]
