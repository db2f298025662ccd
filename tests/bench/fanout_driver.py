"""What moves our board while it is watched: signed actions through the public API, and reads of the leaderboard that
are timed.

Ten players, all on the board, so that every action shows; a few more actions a second than there are ticks, evenly
spaced, so that the top changes in every tick. Each answer's time is PostgreSQL's at the start of the transaction: lag
counts from there.
"""

import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import trio

from tests.bench.fanout_lag import Commit
from tests.bench.load import ACTION_PATH, BOARD_PATH, Actor, action_body, sign

PLAYERS = 10  # as many as a board shows
RATE = 13.0  # actions a second: one every 77 ms, and a tick takes 100
READS = 20.0  # of the leaderboard, a second
AT_ONCE = 32  # connections of the driver; an action is answered in milliseconds
ANSWER_TIMEOUT_SECONDS = 30.0  # seconds for an answer


@dataclass
class Drive:
    """What was done since `clear`, and how it was answered."""

    commits: list[Commit] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    refused: int = 0  # 503: the server or a store had too much to do

    def clear(self) -> None:
        """The commits stay: a board that is shown from now on may carry an older one."""
        self.read_ms.clear()
        self.refused = 0

    def read_percentile(self, share: float) -> float:
        ordered = sorted(self.read_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def accepted(answer: httpx.Response, drive: Drive) -> bool:
    """Overload is counted; any other refusal is a mistake of the benchmark."""
    if answer.status_code not in {200, 503}:
        raise RuntimeError(f"{answer.request.url.path} answered {answer.status_code} {answer.text}")
    drive.refused += answer.status_code == 503
    return answer.status_code == 200


async def act(client: httpx.AsyncClient, actor: Actor, action_id: str, drive: Drive) -> None:
    body = action_body(action_id, datetime.now(UTC))
    headers = {
        "Authorization": f"Bearer {actor.token}",
        "X-Action-Signature": sign(actor, body),
        "Content-Type": "application/json",
    }
    answer = await client.post(ACTION_PATH, content=body, headers=headers)
    if not accepted(answer, drive):
        return
    data = answer.json()["data"]
    drive.commits.append(
        Commit(actor.user_id, data["newScore"], datetime.fromisoformat(data["timestamp"]).timestamp() * 1000)
    )


async def read(client: httpx.AsyncClient, drive: Drive) -> None:
    begun = trio.current_time()
    if accepted(await client.get(BOARD_PATH), drive):
        drive.read_ms.append((trio.current_time() - begun) * 1000)


@asynccontextmanager
async def driving(port: int, actors: Sequence[Actor], rate: float = RATE) -> AsyncIterator[Drive]:
    """Acts and reads until the block is left. Everybody is on the board when it is entered.

    Raises RuntimeError when an action or a read is refused for another reason than overload.
    """
    drive, players, lot = Drive(), actors[:PLAYERS], random.Random("players")
    ids = (f"{run}-{number}" for run in [random.Random().getrandbits(40)] for number in itertools.count())
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_TIMEOUT_SECONDS, limits=limits) as client,
        trio.open_nursery() as nursery,
    ):
        for player in players:
            await act(client, player, next(ids), drive)

        async def acting() -> None:
            due = trio.current_time()
            while True:
                due = max(due + 1 / rate, trio.current_time())
                await trio.sleep_until(due)
                nursery.start_soon(act, client, lot.choice(players), next(ids), drive)

        async def reading() -> None:
            while True:
                await trio.sleep(1 / READS)
                await read(client, drive)

        nursery.start_soon(acting)
        nursery.start_soon(reading)
        yield drive
        nursery.cancel_scope.cancel()
