"""Server-Sent Events over real connections: what is sent, when a stream ends, and that it does not affect others."""

import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from time import time
from uuid import UUID

import pytest
import trio

from scoreboard.live.admission import Admission
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports import sse as module
from scoreboard.live.transports.conversation import CHECK_INTERVAL_SECONDS
from scoreboard.telemetry import metrics
from tests.live.boards import BOARD, update_for
from tests.live.dependencies import FakeIdentity
from tests.live.live_server import LiveServer, serve_live
from tests.live.messages import names, read_stream

ANN, BOB = UUID(int=1), UUID(int=2)


class Listener:
    """Reads a stream as an EventSource does."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self.data = stream, b""

    @property
    def head(self) -> str:
        return self.data.partition(b"\r\n\r\n")[0].decode()

    @property
    def events(self) -> list[tuple[str, str, dict[str, object]]]:
        whole = self.data.partition(b"\r\n\r\n")[2].rpartition(b"\n\n")[0]
        return read_stream(whole)

    async def until(self, count: int, what: bytes = b"") -> list[tuple[str, str, dict[str, object]]]:
        """The events, once there are so many and `what` was sent."""
        while len(self.events) < count or what not in self.data:
            more = await self.stream.receive_some(65536)
            assert more, f"it has ended: {self.data!r}"
            self.data += more
        return self.events

    async def to_the_end(self) -> list[tuple[str, str, dict[str, object]]]:
        try:
            while more := await self.stream.receive_some(65536):
                self.data += more
        except trio.BrokenResourceError:
            pass
        return self.events


@asynccontextmanager
async def listening(node: LiveServer, query: str = "", *fields: str) -> AsyncIterator[Listener]:
    stream = await node.ask(f"/stream{query}", *fields)
    try:
        yield Listener(stream)
    finally:
        await stream.aclose()


def kinds(events: list[tuple[str, str, dict[str, object]]]) -> list[str]:
    return [kind for kind, _, _ in events]


# ---- what is sent ----------------------------------------------------------------------------------------------------


async def test_a_stream_from_beginning_to_end() -> None:
    """A head that no proxy buffers, advice when to reconnect, the board at once, then what changes; the id is the
    position."""
    async with serve_live() as node:
        async with listening(node, "", "X-Request-ID: abc") as listener:
            events = await listener.until(2)
            head = listener.head.lower().split("\r\n")
            assert head[0].startswith("http/1.1 200")
            assert {
                "content-type: text/event-stream",
                "cache-control: no-store, no-transform",
                "x-accel-buffering: no",
                "connection: close",
                "x-request-id: abc",
            } <= set(head)
            assert not [line for line in head if line.startswith(("content-length", "transfer-encoding"))]
            assert b"\nretry: " in listener.data
            assert [(kind, id_) for kind, id_, _ in events] == [("subscribed", ""), ("leaderboard:update", "1-1")]
            await node.publish("bac")
            kind, id_, update = (await listener.until(3))[2]
            assert (kind, id_, update["event"], names(update)) == (
                "leaderboard:update",
                "1-2",
                "leaderboard:update",
                "bac",
            )
            assert len(update["data"]["changedPositions"]) == 2  # type: ignore[index]
            assert node.admission.total == 1
        await node.until(viewers=0)
        assert node.hub.watched_boards() == []


async def test_deltas_and_the_position_that_it_had() -> None:
    """`mode=delta`, with `since` or, which counts more, Last-Event-ID: the difference, or nothing when there is
    none."""
    async with serve_live() as node, listening(node) as first:
        await first.until(2)
        await node.publish("bac")
        async with listening(node, "?mode=delta&since=1-1") as listener:
            kind, id_, delta = (await listener.until(2))[1]
            assert (kind, id_, delta["data"]["previousPosition"]) == ("leaderboard:delta", "1-2", "1-1")  # type: ignore[index]
        async with listening(node, "?since=1-1", "Last-Event-ID: 1-2") as listener:
            await listener.until(1)
            await node.publish("abc")
            assert [id_ for _, id_, _ in await listener.until(2)] == ["", "1-3"]
        async with listening(node, "", "Last-Event-ID: 9-9") as listener:
            assert kinds(await listener.until(2)) == ["subscribed", "leaderboard:update"]


@pytest.mark.parametrize(("query", "fields"), [("?token=t", ()), ("", ("Authorization: Bearer t",))])
async def test_personal_events_for_an_authenticated_stream(query: str, fields: tuple[str, ...]) -> None:
    """The identity comes first; the user's scores follow, without an id, and reach no other user."""
    async with serve_live() as node:
        node.tokens["t"] = FakeIdentity(ANN, 1, 9e9)
        async with listening(node, query, *fields) as ann, listening(node) as other:
            events = await ann.until(3)
            assert kinds(events) == ["authenticated", "subscribed", "leaderboard:update"]
            assert events[0][2]["data"] == {"userId": str(ANN), "score": 40, "rank": 7}
            await other.until(2)
            node.hub.send_personal(BOARD, update_for(ANN))
            kind, id_, personal = (await ann.until(4))[3]
            assert (kind, id_, personal["event"]) == ("score:personal", "", "score:personal")
            await node.publish("ba")
            assert kinds(await other.until(3)) == ["subscribed", "leaderboard:update", "leaderboard:update"]
            assert node.admission.users == {ANN: 1}
        await node.until(viewers=0)
        assert node.admission.users == {}


async def test_heartbeats_are_comments() -> None:
    """Every stream of a quiet board gets them, one that had the board already too, and again each time. They are no
    events."""
    async with serve_live() as node, listening(node) as first, listening(node) as second:
        await first.until(2)
        await second.until(2)
        await node.publish("bac")  # these two are in a batch from now on
        async with listening(node, "", "Last-Event-ID: 1-2") as current:
            await current.until(1)
            for count in (1, 2):
                await node.hub.send_heartbeats(0)
                for listener, events in ((first, 3), (second, 3), (current, 1)):
                    assert len(await listener.until(events, b"\n\n" + b": heartbeat\n\n" * count)) == events


async def test_an_anonymous_stream_needs_no_deadline() -> None:
    """It has no time limit, so the sweeper never calls it; a stream with a token is checked."""
    async with serve_live() as node:
        node.tokens["t"] = FakeIdentity(ANN, 1, 9e9)
        async with listening(node) as anonymous, listening(node, "?token=t") as ann:
            await anonymous.until(2)
            await ann.until(3)
            deadlines = {viewer.user: viewer.socket.deadline for viewer in node.hub.subscribers()}
            assert deadlines[None] == inf
            assert deadlines[ANN] < trio.current_time() + CHECK_INTERVAL_SECONDS + 1


async def test_a_board_that_no_store_gives_is_stale() -> None:
    """The stream opens, gets the stale event, and the board when there is one."""
    async with serve_live() as node:
        node.away = True
        async with listening(node) as listener:
            assert kinds(await listener.until(2)) == ["subscribed", "leaderboard:stale"]
            await node.publish("ab")
            assert kinds(await listener.until(3))[2] == "leaderboard:update"


async def test_head_is_only_the_head() -> None:
    """HEAD says what GET would, and ends."""
    async with serve_live() as node:
        listener = Listener(await node.ask("/stream", method="HEAD"))
        assert await listener.to_the_end() == []
        assert "content-type: text/event-stream" in listener.head
        assert listener.data.endswith(b"\r\n\r\n")
        assert node.admission.total == 0


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "fields", "status"),
    [
        ("?mode=other", (), 400),
        ("?channel=nothing", (), 400),
        ("?since=1-1&since=1-2", (), 400),
        ("?token=nonsense", (), 401),
        ("?token=", (), 401),
        ("", ("Authorization: Bearer nonsense",), 401),
        ("", ("Origin: https://evil.example",), 403),
    ],
)
async def test_refusals_are_answers(query: str, fields: tuple[str, ...], status: int) -> None:
    """A bad value, a bad token, a foreign page: a problem, and the connection goes on."""
    async with serve_live() as node:
        stream = await node.ask(f"/stream{query}", *fields)
        answer = await stream.receive_some(4096)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n")
        assert kinds(await Listener(stream).until(2)) == ["subscribed", "leaderboard:update"]


async def test_no_token_where_one_is_needed() -> None:
    """Without anonymous viewers: 401."""
    async with serve_live(LiveLimits(anonymous=False)) as node:
        node.tokens["t"] = FakeIdentity(ANN, 1, 9e9)
        assert (await (await node.ask("/stream")).receive_some(4096)).startswith(b"HTTP/1.1 401 ")
        async with listening(node, "?token=t") as listener:
            await listener.until(3)


@pytest.mark.parametrize(
    ("admission", "status"),
    [(Admission(per_node=1), 503), (Admission(per_address=1), 429), (Admission(per_user=1), 429)],
)
async def test_no_room(admission: Admission, status: int) -> None:
    """The node is full: 503; the address or the user has enough: 429; with Retry-After."""
    async with serve_live(admission=admission) as node:
        node.tokens["t"] = FakeIdentity(ANN, 1, 9e9)
        async with listening(node, "?token=t") as listener:
            await listener.until(3)
            answer = await (await node.ask("/stream?token=t")).receive_some(4096)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b"retry-after: " in answer
        await node.until(viewers=0)
        async with listening(node, "?token=t") as listener:
            await listener.until(3)


# ---- how it ends -----------------------------------------------------------------------------------------------------


async def test_a_crowd_that_comes_at_once_finds_no_more_room_than_there_is() -> None:
    """The check for room and the admission are one step, whatever other connections do."""
    async with serve_live(admission=Admission(per_address=3)) as node:
        streams = [await trio.open_tcp_stream("127.0.0.1", node.server.port) for _ in range(8)]
        for stream in streams:  # no turn for the server between them
            os.write(stream.socket.fileno(), b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n")
        answers = [(await stream.receive_some(12))[9:] for stream in streams]
        assert sorted(answers) == [b"200"] * 3 + [b"429"] * 5
        for stream in streams:
            await stream.aclose()


async def test_shutdown_ends_the_body() -> None:
    """Every stream ends after a whole event; new ones get 503."""
    async with serve_live() as node, listening(node) as listener:
        await listener.until(2)
        await node.hub.shut_down()
        assert kinds(await listener.to_the_end()) == ["subscribed", "leaderboard:update"]
        assert listener.data.endswith(b"\n\n")
        answer = await (await node.ask("/stream")).receive_some(4096)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer


async def test_a_token_that_expires_or_is_revoked_ends_it() -> None:
    """The error says why; another user's stream goes on."""
    async with serve_live() as node:
        node.tokens |= {"t": FakeIdentity(ANN, 1, time() + 0.3), "u": FakeIdentity(BOB, 2, 9e9)}
        async with (
            listening(node, "?token=t") as expiring,
            listening(node, "?token=u") as revoked,
            listening(node) as other,
        ):
            await revoked.until(3)
            node.hub.close_session(UUID(int=2))
            for listener in (expiring, revoked):
                events = await listener.to_the_end()
                assert kinds(events)[-1] == "error"
                assert events[-1][2]["data"]["code"] == "UNAUTHORIZED"  # type: ignore[index]
            await node.publish("ba")
            assert kinds(await other.until(3))[2] == "leaderboard:update"


async def test_a_slow_reader_is_closed_and_the_others_are_not_held_up() -> None:
    """Behind for longer than allowed: closed and counted like a WebSocket."""
    before = metrics.SLOW_READERS_CLOSED._value.get()
    async with serve_live(LiveLimits(slow_reader_seconds=0.6)) as node, listening(node) as listener:
        await listener.until(2)
        await node.ask("/stream", receive_buffer=1024)
        await node.until(viewers=2)
        turn = 0
        while len(node.hub) == 2:
            turn += 1
            await node.publish("abcdefghij" if turn % 2 else "jihgfedcba")
            listener.data = b"\r\n\r\n"
            assert names((await listener.until(1))[-1][2]) == node.board
        assert turn > 1
    assert metrics.SLOW_READERS_CLOSED._value.get() == before + 1


async def test_bytes_of_the_client_on_a_stream_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes are read and thrown away, another request among them; more than that ends it."""
    monkeypatch.setattr(module, "MAX_DISCARDED_BYTES", 200)
    async with serve_live() as node, listening(node) as listener:
        await listener.until(2)
        await listener.stream.send_all(b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n")
        await node.publish("ba")
        assert kinds(await listener.until(3)) == ["subscribed", "leaderboard:update", "leaderboard:update"]
        await listener.stream.send_all(b"x" * 200)
        assert len(await listener.to_the_end()) == 3
        await node.until(viewers=0)


async def test_a_viewer_that_resets_is_gone() -> None:
    """After a reset no viewer and no count is left."""
    async with serve_live() as node:
        stream = await node.ask("/stream")
        await node.until(viewers=1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await node.until(viewers=0)
        assert (node.hub.watched_boards(), node.hub.viewer_count()) == ([], 0)
