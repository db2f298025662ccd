"""Waits until everything has healed: compares again and again, at most until the bound.

Healed: every node's board is PostgreSQL's, whole and not stale, for readers and for each viewer; `/readyz` says that
both stores are up; Redis agrees with PostgreSQL in totals, order and ranks.
"""

from collections.abc import Sequence

import httpx
import trio

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.stores import Stores
from scoreboard.operations.admin.verify import differences
from tests.e2e.server_processes import ServerProcess
from tests.faults.watching import TOP, Watcher

EVERY_SECONDS = 0.1
READ_SECONDS = 3.0  # for one answer
BOARD_SQL = """
SELECT s.user_id::text AS "userId", u.username, s.total_score AS score FROM scores s JOIN users u ON u.id = s.user_id
ORDER BY s.total_score DESC, s.reached LIMIT 100"""

Truth = list[tuple[int, str, str, int]]  # rank, user, name, score


async def truth(stores: Stores) -> Truth:
    """PostgreSQL's board."""
    return [
        (rank, row["userId"], row["username"], row["score"])
        for rank, row in enumerate(await stores.fetch(BOARD_SQL), 1)
    ]


async def converged(
    stores: Stores,
    nodes: Sequence[ServerProcess],
    watchers: Sequence[Watcher],
    within: float,
    *,
    log_counts: bool = True,
) -> tuple[float, list[str]]:
    """Seconds that it took, and what was still wrong at the bound. `log_counts` False: totals were changed by hand,
    past the log."""
    begun = trio.current_time()
    async with httpx.AsyncClient(timeout=READ_SECONDS) as http:
        while True:
            try:
                wrong = await _wrong(stores, nodes, watchers, http)
                if not wrong:
                    took = trio.current_time() - begun
                    return took, await _differences(stores, log_counts=log_counts)
            except StorageUnavailable as exc:
                wrong = [f"the stores can't be read: {exc}"]
            if trio.current_time() - begun > within:
                return within, [f"not healed after {within:.0f} s: {line}" for line in wrong]
            await trio.sleep(EVERY_SECONDS)


async def _differences(stores: Stores, *, log_counts: bool) -> list[str]:
    found, _ = await differences(stores, LEADERBOARD)
    parts = [(about, part) for about, what in found.items() for part in what.split("; ")]
    return [f"verify: {about} {part}" for about, part in parts if log_counts or "action log adds up" not in part]


async def _wrong(
    stores: Stores, nodes: Sequence[ServerProcess], watchers: Sequence[Watcher], http: httpx.AsyncClient
) -> list[str]:
    wrong = []
    right = await truth(stores)
    for number, node in enumerate(nodes):
        try:
            ready = (await http.get(f"{node.url}/readyz")).json()
            answer = await http.get(f"{node.url}/api/v1/scores/leaderboard", params={"limit": 100})
            data = answer.json()["data"]
        except (httpx.HTTPError, KeyError) as exc:
            wrong.append(f"node {number} gives no board: {exc!r}")
            continue
        if ready.get("stores") != {"postgresql": "up", "redis": "up"}:
            wrong.append(f"node {number} says of the stores {ready.get('stores')}")
        if data.get("stale"):
            wrong.append(f"node {number}'s board is stale")
        elif board := _difference(_rows_of(data["leaderboard"]), right):
            wrong.append(f"node {number}: {board}")
    for watcher in watchers:
        name = f"the viewer by {watcher.kind} of node {watcher.number}"
        if watcher.board is None or not watcher.is_connected:
            wrong.append(f"{name} has no board")
        elif watcher.is_stale:
            wrong.append(f"{name} is told that its board is stale")
        elif board := _difference(_rows_of(watcher.board), right[:TOP]):
            wrong.append(f"{name}: {board}")
    return wrong


def _rows_of(board: Sequence[dict[str, object]]) -> Truth:
    return [(int(str(row["rank"])), str(row["userId"]), str(row["username"]), int(str(row["score"]))) for row in board]


def _difference(told: Truth, right: Truth) -> str:
    """The first row that differs."""
    for shown, expected in zip(told, right, strict=False):
        if shown != expected:
            return f"shows {shown}, PostgreSQL has {expected}"
    return "" if len(told) == len(right) else f"shows {len(told)} rows, PostgreSQL has {len(right)}"
