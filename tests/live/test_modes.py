"""Deltas and whole boards lead to the same rows, whatever happens: two nodes, viewers of every format, gaps, changes of
node."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from scoreboard.domain.boards import TOP_SIZE, Entry, Snapshot
from scoreboard.domain.framing import Encoding, event_stream, websocket
from scoreboard.live.hub import Hub
from tests.live.boards import BOARD
from tests.live.messages import read_frames, read_stream
from tests.live.viewers import FakeViewer

PLAYERS = 14  # more than are shown


@dataclass
class ScoredBoard:
    """The board as the stores have it."""

    scores: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    epoch: int = 1
    shown_version: int = 0
    shown: tuple[Entry, ...] = ()

    def rows(self) -> tuple[Entry, ...]:
        order = sorted(self.scores, key=lambda user: (-self.scores[user], user))
        return tuple(
            Entry(
                rank,
                f"u{user}",
                self.names.get(user, f"U{user}"),
                self.scores[user],
                "https://example.org/p" if user % 3 else None,
            )
            for rank, user in enumerate(order, 1)
        )

    def settle(self) -> None:
        """As the stores do: `top` moves when what is shown does."""
        if self.rows()[:TOP_SIZE] != self.shown:
            self.shown, self.shown_version = self.rows()[:TOP_SIZE], self.shown_version + 1

    def snapshot(self, *, stale: bool) -> Snapshot:
        return Snapshot(
            BOARD.id,
            self.epoch,
            self.shown_version,
            self.shown_version,
            1_768_041_000_000,
            self.rows(),
            stale,
            7 if stale else 0,
        )


class Client:
    """A client that follows the contract: it applies what it reads, and reconnects with the position that it has."""

    def __init__(self, hub: Hub, encode: Encoding, *, delta: bool) -> None:
        self.encode, self.delta = encode, delta
        self.rows: dict[str, Any] = {}
        self.position = ""
        self.join(hub)

    def join(self, hub: Hub) -> None:
        """A new connection. What was not read on the previous one is lost."""
        since = self.position if self.delta or self.encode is event_stream else ""
        self.hub, self.viewer = hub, FakeViewer(hub, encode=self.encode, delta=self.delta, since=since)
        hub.send_latest(self.viewer, BOARD)

    def read(self) -> None:
        data = b"".join(self.viewer.fake.accepted)
        self.viewer.fake.accepted = []
        events = read_frames(data) if self.encode is websocket else [event for _, _, event in read_stream(data)]
        for event in events:
            self.apply(event["event"], event["data"])
        if self.encode is event_stream and (ids := [id_ for _, id_, _ in read_stream(data) if id_]):
            assert ids[-1] == self.position

    def apply(self, kind: object, data: Any) -> None:
        if kind == "leaderboard:update":
            self.rows = {row["userId"]: row for row in data["leaderboard"]}
        elif kind == "leaderboard:delta":
            assert self.delta
            assert data["previousPosition"] == self.position, "a gap that the server made"
            for user in data["removed"]:
                del self.rows[user]
            for row in data["changed"]:
                had = self.rows.get(row["userId"])
                assert row["previousRank"] == (had["rank"] if had else None)
                self.rows[row["userId"]] = {name: value for name, value in row.items() if name != "previousRank"}
        else:
            return
        self.position = data["position"]

    @property
    def board(self) -> list[Any]:
        return sorted(self.rows.values(), key=lambda row: row["rank"])


async def play(steps: list[tuple[str, int, int]]) -> None:
    """Plays the steps. Each has a kind, and two numbers that choose the users or clients."""
    scored, hubs = ScoredBoard(), [Hub((BOARD,)), Hub((BOARD,))]
    clients = [
        Client(hubs[0], encode, delta=delta) for encode in (websocket, event_stream) for delta in (False, True, True)
    ]

    def score(user: int, points: int) -> None:
        scored.scores[user % PLAYERS] = scored.scores.get(user % PLAYERS, 0) + points - 20  # totals may fall

    def rename(user: int, name: int) -> None:
        scored.names[user % PLAYERS] = f"Name {name}"

    def drop_out(user: int, _: int) -> None:
        scored.scores.pop(user % PLAYERS, None)

    def rebuild(_: int, __: int) -> None:
        scored.epoch, scored.shown_version = scored.epoch + 1, 0
        scored.shown = ()

    changes: dict[str, Callable[[int, int], None]] = {
        "score": score,
        "rename": rename,
        "drop": drop_out,
        "rebuild": rebuild,
    }
    for what, one, other in steps:
        client, hub = clients[one % len(clients)], hubs[other % 2]
        if what in changes:
            changes[what](one, other)
            scored.settle()
        elif what in {"publish", "stale"}:
            await hub.publish(BOARD, scored.snapshot(stale=what == "stale"))
        elif what == "stick":
            client.viewer.fake.stuck = True
        elif what == "release":
            client.viewer.fake.release()
        elif what == "read":
            client.read()
        elif what == "move":
            client.hub.remove(client.viewer)
            client.join(hub)
        else:
            client.hub.subscribe(client.viewer, BOARD, delta=client.delta, since=client.position if other % 2 else "")
            client.viewer.fake.accepted = []  # what it had not read belongs to the previous subscription
            client.hub.send_latest(client.viewer, BOARD)
    for hub in hubs:
        await hub.publish(BOARD, scored.snapshot(stale=False))
    for client in clients:
        client.viewer.fake.release()
        client.read()
        expected = client_rows(scored)
        assert client.board == expected, (client.encode.__name__, client.delta)
        assert client.position == f"{scored.epoch}-{scored.shown_version}"


def client_rows(scored: ScoredBoard) -> list[dict[str, object]]:
    """The rows as JSON has them."""
    rows = []
    for entry in scored.shown:
        row: dict[str, object] = {
            "rank": entry.rank,
            "userId": entry.userId,
            "username": entry.username,
            "score": entry.score,
        }
        rows.append(row | ({"avatarUrl": entry.avatarUrl} if entry.avatarUrl else {}))
    return rows


kinds_of_steps = st.sampled_from(
    ["score"] * 6
    + ["publish"] * 6
    + ["read"] * 4
    + ["rename", "drop", "rebuild", "stale", "stick", "stick", "release", "move", "move", "again"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(kinds_of_steps, st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60))
def test_every_format_ends_with_the_same_board(steps: list[tuple[str, int, int]]) -> None:
    """Score changes, joins, new names, drop-outs, rebuilds, outages, slow readers, lost frames, other nodes: all
    clients end with the present board."""
    trio.run(play, steps)


@pytest.mark.parametrize("stale", [False, True])
async def test_a_viewer_that_was_behind_gets_the_whole_board(stale: bool) -> None:
    """In delta mode too, and after it deltas again; a stale board, and the one that ends it, come whole."""
    hub, scored = Hub((BOARD,)), ScoredBoard({1: 10, 2: 20})
    scored.settle()
    client = Client(hub, websocket, delta=True)
    await hub.publish(BOARD, scored.snapshot(stale=False))
    for points in (30, 40):
        client.viewer.fake.stuck = points == 30 and not stale
        scored.scores[1] = points
        scored.settle()
        await hub.publish(BOARD, scored.snapshot(stale=stale and points == 30))
    client.viewer.fake.release()
    scored.scores[1] = 50
    scored.settle()
    await hub.publish(BOARD, scored.snapshot(stale=False))
    events = [event["event"] for event in read_frames(b"".join(client.viewer.fake.accepted))]
    wholly = (
        ["leaderboard:update", "leaderboard:update", "leaderboard:stale", "leaderboard:update"]
        if stale
        else ["leaderboard:update"] * 2
    )
    assert events == [*wholly, "leaderboard:delta"]
    client.read()
    assert client.board == client_rows(scored)


async def test_a_position_of_another_node_is_known_here() -> None:
    """A client with a position that this node has published too gets the difference alone, in one delta, whichever node
    the position is from."""
    here, there, scored = Hub((BOARD,)), Hub((BOARD,)), ScoredBoard({user: user for user in range(5)})
    client = Client(there, websocket, delta=True)
    for turn in range(4):
        scored.scores[turn] = 100 + turn
        scored.settle()
        await here.publish(BOARD, scored.snapshot(stale=False))
        if turn < 2:
            await there.publish(BOARD, scored.snapshot(stale=False))
    client.read()
    had = client.position
    client.join(here)
    (delta,) = read_frames(b"".join(client.viewer.fake.accepted))
    assert (delta["event"], delta["data"]["previousPosition"], delta["data"]["position"]) == (
        "leaderboard:delta",
        had,
        "1-4",
    )
    client.read()
    assert client.board == client_rows(scored)
