"""A load of posters that writes down every request and answer, and a checker that compares the record with the stores.

"200" must be there exactly once, "unknown" (a time-out, a reset, a 5xx) at most once, a refusal never.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import httpx
import trio

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.operations.verify import differences
from scoreboard.storage.connections import Stores
from tests.e2e.nodes import Client, ServerProcess

UNKNOWN = 0  # no answer
RETRIES = 5  # of an action whose answer is unknown, as a good client does


@dataclass
class Ledger:
    """What was sent and what was told. `wrong_ranks` counts answers whose rank was not a positive number or null."""

    acknowledged: dict[str, int] = field(default_factory=dict)  # action id → points told
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    nulls: int = 0


async def act_for(
    seconds: float, clients: Sequence[Client], nodes: Sequence[ServerProcess], ledger: Ledger, *, pause: float, seed: int
) -> None:
    """Every client acts until the time is over, on a node of chance, and retries what it got no answer to on the other."""
    random = Random(seed)

    async def one(client: Client) -> None:
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            await _act(client, nodes, ledger, random)
            await trio.sleep(random.uniform(0, 2 * pause))

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(one, client)


async def _act(client: Client, nodes: Sequence[ServerProcess], ledger: Ledger, random: Random) -> None:
    body = client.body()
    action = httpx.Response(200, content=body).json()["actionId"]
    for _ in range(RETRIES):
        try:
            answer = await client.act(body, base=random.choice(nodes).url)
        except httpx.HTTPError:
            ledger.statuses[UNKNOWN] += 1
        else:
            ledger.statuses[answer.status_code] += 1
            if answer.status_code in {200, 409}:
                data = answer.json()["data"]
                ledger.nulls += data["newRank"] is None
                ledger.acknowledged[action] = data["pointsAwarded"]
                ledger.unknown.discard(action)
                return
            if answer.status_code < 500:
                ledger.refused.add(action)
                return
        ledger.unknown.add(action)
        await trio.sleep(random.uniform(0.2, 0.6))


async def check(ledger: Ledger, stores: Stores) -> None:
    """The ledger against the action log, and the stores against each other. Raises AssertionError."""
    rows = await stores.fetch("SELECT action_id, points_awarded FROM action_logs")
    stored = Counter(row["action_id"] for row in rows)
    assert max(stored.values(), default=1) == 1, "an action was recorded twice"
    points = {row["action_id"]: row["points_awarded"] for row in rows}
    assert not (lost := ledger.acknowledged.keys() - points.keys()), f"acknowledged and lost: {lost}"
    assert {action: points[action] for action in ledger.acknowledged} == ledger.acknowledged
    assert not ledger.refused & points.keys(), "refused and recorded all the same"
    assert points.keys() <= ledger.acknowledged.keys() | ledger.unknown
    found, _ = await differences(stores, LEADERBOARD)
    assert not found


async def board_of(stores: Stores) -> list[tuple[UUID, int]]:
    """PostgreSQL's first ten."""
    rows = await stores.fetch("SELECT user_id, total_score FROM scores ORDER BY total_score DESC, reached LIMIT 10")
    return [(row["user_id"], row["total_score"]) for row in rows]
