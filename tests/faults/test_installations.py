"""Two installations on one Redis: neither receives the other's messages, whether they differ in the database or in the
prefix."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from scoreboard.embedded.stack import Endpoints
from tests.conftest import database
from tests.e2e.server_processes import Client, ServerProcess, Viewer, provision, viewer
from tests.faults.servers import Valkey, node_on
from tests.faults.under_fault import lasting

STEPS = 20  # of actions, in each of which the first installation acts ten times as often as the second
COUNTED_SECONDS = 15.0  # for the number of viewers, which is sent every five seconds
SETTLED_SECONDS = 3.0  # a hint that no read confirms is dropped by then


@pytest.fixture
def databases(embedded_servers: Endpoints, migrated_template: str) -> Iterator[list[str]]:
    """Two migrated ones."""
    with (
        database(embedded_servers.postgres_url, migrated_template) as one,
        database(embedded_servers.postgres_url, migrated_template) as two,
    ):
        yield [one, two]


@pytest.fixture
def shared_valkey(tmp_path: Path) -> Iterator[Valkey]:
    made = Valkey(tmp_path / "valkey").start()
    yield made
    made.kill()


def in_database(url: str, number: int) -> str:
    return urlsplit(url)._replace(path=f"/{number}").geturl()


@asynccontextmanager
async def started(*nodes: ServerProcess) -> AsyncIterator[None]:
    try:
        for node in nodes:
            await trio.to_thread.run_sync(node.start)
        yield
    finally:
        for node in nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()


async def act_apart(clients: list[Client]) -> None:
    """Both installations act, the first much more often, so that its versions run ahead."""
    for step in range(STEPS):
        for _ in range(10):
            await clients[0].act()
        if step % 4 == 0:
            await clients[1].act()


async def counts(watching: Viewer, counted: list[int]) -> None:
    while True:
        counted.append((await watching.next_event("viewers"))["count"])


async def never_concern_each_other(nodes: list[ServerProcess]) -> None:
    """Acts on both and reads both: nothing is stale, every score is right, and each counts its own viewer alone."""
    counted: list[list[int]] = [[], []]
    async with (
        httpx.AsyncClient(base_url=nodes[0].url, timeout=10) as first,
        httpx.AsyncClient(base_url=nodes[1].url, timeout=10) as second,
        viewer(nodes[0]) as here,
        viewer(nodes[1]) as there,
        trio.open_nursery() as nursery,
    ):
        clients = [(await provision(node, http, 1))[0] for node, http in zip(nodes, (first, second), strict=True)]
        for watching, into in zip((here, there), counted, strict=True):
            nursery.start_soon(_patiently, watching, into)
        await act_apart(clients)
        stale: list[int] = []
        with trio.move_on_after(lasting(SETTLED_SECONDS)):
            while True:
                for number, client in enumerate(clients):
                    if "stale" in await client.leaderboard():
                        stale.append(number)
                await trio.sleep(0.05)
        assert not stale
        boards = [await client.leaderboard() for client in clients]
        assert [[row["userId"] for row in board["leaderboard"]] for board in boards] == [
            [client.user] for client in clients
        ]
        assert boards[0]["currentUser"]["score"] == 50 * 10 * STEPS
        assert boards[1]["currentUser"]["score"] == 50 * len(range(0, STEPS, 4))
        with trio.fail_after(COUNTED_SECONDS):
            while not all(counted):
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    assert {count for one in counted for count in one} == {1}


async def _patiently(watching: Viewer, into: list[int]) -> None:
    while True:
        try:
            await counts(watching, into)
        except trio.TooSlowError:
            pass  # none has changed


async def test_in_two_databases(databases: list[str], shared_valkey: Valkey, tmp_path: Path) -> None:
    """Databases 0 and 1 of one Redis, whose channels know no databases: neither makes the other stale, viewers are
    counted apart."""
    nodes = [node_on(tmp_path, url, in_database(shared_valkey.url, number)) for number, url in enumerate(databases)]
    async with started(*nodes):
        await never_concern_each_other(nodes)


async def test_under_two_prefixes(databases: list[str], shared_valkey: Valkey, tmp_path: Path) -> None:
    """One database and two prefixes: the same."""
    nodes = [
        node_on(tmp_path, url, shared_valkey.url, redis__prefix=prefix)
        for url, prefix in zip(databases, ("", "other:"), strict=True)
    ]
    async with started(*nodes):
        await never_concern_each_other(nodes)


async def test_on_the_same_keys(databases: list[str], shared_valkey: Valkey, tmp_path: Path) -> None:
    """One database and no prefix: who comes second is stale and says so in `/readyz`; no board shows the other's users
    unmarked."""
    nodes = [node_on(tmp_path, url, shared_valkey.url) for url in databases]
    async with (
        started(*nodes),
        httpx.AsyncClient(base_url=nodes[0].url, timeout=10) as first,
        httpx.AsyncClient(base_url=nodes[1].url, timeout=10) as second,
    ):
        clients = [(await provision(node, http, 1))[0] for node, http in zip(nodes, (first, second), strict=True)]
        for _ in range(10):
            for client in clients:
                assert (await client.act()).status_code == httpx.codes.OK
                for reader in clients:
                    board = await reader.leaderboard()
                    assert board.get("stale") or [row["userId"] for row in board["leaderboard"]] in ([], [reader.user])
        with trio.fail_after(lasting(5.0)):
            while (await second.get("/readyz")).json()["boards"] != {"leaderboard": "stale"}:
                await trio.sleep(0.1)
        assert (await clients[1].leaderboard())["stale"] is True
        assert "stale" not in await clients[0].leaderboard()
