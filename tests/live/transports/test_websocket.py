"""WebSockets over real connections: the real server, trio-websocket's client, and raw bytes no client would send."""

import dataclasses
import json
import math
import os
import socket as stdlib_socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog.testing
import trio
import trio.lowlevel
import wsproto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, WebSocketConnection

from scoreboard.domain.close_codes import CloseCode, close_reason
from scoreboard.domain.framing import PING_FRAME, text_frame
from scoreboard.live.admission import Admission
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports import conversation
from scoreboard.live.transports import websocket as module
from scoreboard.storage.board_cache import Standing
from scoreboard.telemetry import metrics
from tests.live.boards import BOARD, update_for
from tests.live.dependencies import FakeIdentity
from tests.live.live_server import serve_live
from tests.live.messages import kinds, masked, names, one_by_one

ANN, BOB = UUID(int=1), UUID(int=2)


@pytest.fixture(autouse=True)
def no_errors_logged() -> Iterator[None]:
    """Nothing that a client does is logged as an error."""
    with structlog.testing.capture_logs() as lines:
        yield
    assert [line for line in lines if line["log_level"] in {"error", "critical"}] == []


async def send(client: WebSocketConnection, **message: object) -> None:
    await client.send_message(json.dumps(message))


async def read_event(client: WebSocketConnection) -> Any:
    return json.loads(await client.get_message())


async def closed(client: WebSocketConnection) -> tuple[int, str | None, list[dict[str, Any]]]:
    """Reads to the end: the close code, its reason, and the events before it."""
    events: list[dict[str, Any]] = []
    with pytest.raises(ConnectionClosed) as end:
        while True:
            events.append(await read_event(client))
    assert end.value.reason is not None
    return end.value.reason.code, end.value.reason.reason, events


async def to_the_end(stream: trio.SocketStream) -> bytes:
    data = b""
    try:
        while more := await stream.receive_some(65536):
            data += more
    except trio.BrokenResourceError:
        pass
    return data


# ---- opening ---------------------------------------------------------------------------------------------------------


async def test_a_viewer_from_beginning_to_end() -> None:
    """Subscribed, the board at once, updates, a ping; after its close it is removed."""
    async with serve_live() as node:
        async with node.client() as client:
            await send(client, action="subscribe", channel=BOARD.id)
            first = [await read_event(client), await read_event(client)]
            assert kinds(first) == ["subscribed", "leaderboard:update"]
            assert names(first[1]) == "abc"
            await node.publish("bac")
            update = await read_event(client)
            assert (names(update), len(update["data"]["changedPositions"])) == ("bac", 2)
            await send(client, action="ping")
            assert (await read_event(client)) == {"event": "pong"}
            assert node.admission.addresses == {"127.0.0.1": 1}
        await node.until(viewers=0)
        assert node.admission.addresses == {}


async def test_the_token_may_come_in_the_query() -> None:
    """`authenticated` without being asked; personal events follow, subscribed or not, and reach no other user."""
    async with serve_live() as node:
        node.tokens |= {"t": FakeIdentity(ANN, 1, 9e9), "u": FakeIdentity(BOB, 2, 9e9)}
        async with node.client("?token=t&x=1") as ann, node.client() as bob:
            assert (await read_event(ann))["data"] == {"userId": str(ANN), "score": 40, "rank": 7}
            await send(bob, action="auth", token="u")
            assert (await read_event(bob))["event"] == "authenticated"
            node.hub.send_personal(BOARD, update_for(ANN))
            assert (await read_event(ann))["event"] == "score:personal"
            await send(bob, action="ping")
            assert await read_event(bob) == {"event": "pong"}


@pytest.mark.parametrize("query", ["?token=nonsense", "?token=", "?x=1&token=a%20b"])
async def test_a_bad_token_in_the_query(query: str) -> None:
    """An error event, then 4401."""
    async with serve_live() as node, node.client(query) as client:
        code, reason, events = await closed(client)
        assert (code, reason) == (CloseCode.TOKEN, "no valid token; do not reconnect")
        assert kinds(events) == ["error"]


async def test_a_foreign_origin_is_closed_with_4403() -> None:
    """A foreign page gets this close code and nothing else."""
    async with serve_live() as node:
        async with node.client(origin="https://evil.example") as client:
            assert (await closed(client))[::2] == (CloseCode.ORIGIN, [])
        async with node.client(origin="https://good.example") as client:
            await send(client, action="ping")
            assert await read_event(client) == {"event": "pong"}


async def test_connections_per_address_are_capped() -> None:
    """One more than allowed is closed with 1013; another address is not; a connection that ends makes room."""
    async with serve_live(admission=Admission(per_address=2)) as node, node.client() as one, node.client():
        async with node.client() as third:
            code, _, events = await closed(third)
            assert code == CloseCode.OVERLOADED
            assert events[0]["data"] == {
                "code": "TOO_MANY_CONNECTIONS",
                "message": "Too many connections from this address. Next try in 5 s.",
                "layer": "ip",
            }
        async with node.client(x_address="192.0.2.7") as other:
            await send(other, action="ping")
            assert await read_event(other) == {"event": "pong"}
        await one.aclose()
        while node.admission.addresses["127.0.0.1"] > 1:
            await trio.sleep(0.005)
        async with node.client() as again:
            await send(again, action="ping")
            assert await read_event(again) == {"event": "pong"}


async def test_the_answer_to_an_upgrade_has_the_request_id() -> None:
    """Like every other answer."""
    async with serve_live() as node:
        stream = await node.raw(fields="X-Request-ID: abc-1\r\n")
        head = (await stream.receive_some(4096)).lower()
        assert head.startswith(b"http/1.1 101 ")
        assert b"\r\nx-request-id: abc-1\r\n" in head
        assert b"s3pplmbitxaq9kygzzhzrbk+xoo=" in head


async def test_connections_of_a_user_and_of_the_node_are_capped() -> None:
    """One more is closed with 1013 (reconnect); a connection that ends makes room, whatever it was counted as."""
    async with serve_live(admission=Admission(per_user=1, per_node=3)) as node:
        node.tokens |= {"t": FakeIdentity(ANN, 1, 9e9), "u": FakeIdentity(BOB, 2, 9e9)}
        async with node.client("?token=t") as ann, node.client("?token=t") as again:
            assert (await read_event(ann))["event"] == "authenticated"
            code, reason, events = await closed(again)
            assert (code, reason) == (CloseCode.OVERLOADED, "too many connections; reconnect")
            assert events[-1]["data"]["message"] == "Too many connections of this user. Next try in 5 s."
            assert events[-1]["data"]["layer"] == "user"
            await node.until(viewers=1)
            async with node.client("?token=u") as bob, node.client():
                assert (await read_event(bob))["event"] == "authenticated"
                async with node.client() as fourth:
                    code, _, events = await closed(fourth)
                    assert code == CloseCode.OVERLOADED
                    assert "layer" not in events[0]["data"]  # the node's own
        await node.until(viewers=0)
        assert (node.admission.addresses, node.admission.users, node.admission.total) == ({}, {}, 0)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("scoreboard.v1", b"scoreboard.v1"),
        ("other, scoreboard.v1", b"scoreboard.v1"),
        ("other\r\nSec-WebSocket-Protocol: scoreboard.v1", b"scoreboard.v1"),
        ("other", b""),
        ("", b""),
    ],
)
async def test_the_subprotocol_is_echoed_when_offered(offered: str, chosen: bytes) -> None:
    """Ours and no other; a client that offers none gets none."""
    async with serve_live() as node:
        stream = await node.raw(fields=f"Sec-WebSocket-Protocol: {offered}\r\n" if offered else "")
        head = (await stream.receive_some(4096)).lower()
        assert head.startswith(b"http/1.1 101 ")
        fields = dict(line.partition(b": ")[::2] for line in head.split(b"\r\n"))
        assert fields.get(b"sec-websocket-protocol", b"") == chosen


async def test_deltas_over_a_real_connection() -> None:
    """Subscribed with `mode: delta`: the whole board first, then what changes; another viewer goes on with whole
    ones."""
    async with serve_live() as node, node.client() as client, node.client() as whole:
        await send(client, action="subscribe", channel=BOARD.id, mode="delta")
        await send(whole, action="subscribe", channel=BOARD.id)
        for viewer in (client, whole):
            assert kinds([await read_event(viewer), await read_event(viewer)]) == ["subscribed", "leaderboard:update"]
        await node.publish("bac")
        delta = await read_event(client)
        assert (delta["event"], delta["data"]["previousPosition"], delta["data"]["position"]) == (
            "leaderboard:delta",
            "1-1",
            "1-2",
        )
        assert [(row["userId"], row["rank"], row["previousRank"]) for row in delta["data"]["changed"]] == [
            ("b", 1, 2),
            ("a", 2, 1),
        ]
        assert (await read_event(whole))["event"] == "leaderboard:update"


@pytest.mark.parametrize("cut", [0, 1, 5])
async def test_frames_right_behind_the_upgrade_are_not_lost(cut: int) -> None:
    """Also a frame that begins in the same segment and ends in another, before our 101 was read."""
    async with serve_live() as node:
        data = masked(1, b'{"action":"ping"}') * 2
        stream = await node.raw(behind=data[: len(data) - cut])
        await stream.send_all(data[len(data) - cut :] + masked(8, b"\x03\xe8"))
        answer = await to_the_end(stream)
        assert answer.count(b'{"event":"pong"}') == 2


# ---- closing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["{", '{"action":"dance"}', b'{"action":"ping"}'])
async def test_a_bad_message_closes_with_an_error_event(message: str | bytes) -> None:
    """The error event first, then 4400 with what to do."""
    async with serve_live() as node, node.client() as client:
        await client.send_message(message)
        code, reason, events = await closed(client)
        assert (code, reason, kinds(events)) == (CloseCode.BAD_MESSAGE, "bad message; do not reconnect", ["error"])


@pytest.mark.parametrize("size", [4097, 5000, 100_000, 900_000])
async def test_a_message_that_is_too_big(size: int) -> None:
    """1009, whether it comes in one read or many; the Close is not overtaken by a reset."""
    async with serve_live() as node, node.client() as client:
        try:
            await client.send_message(json.dumps({"action": "ping", "x": "y" * size}))
        except ConnectionClosed:
            pass  # closed while it was still being sent
        assert (await closed(client))[0] == CloseCode.TOO_BIG


PROTOCOL_ERRORS = {
    "a frame without a mask": (bytes([0x81, 2]) + b"{}", 1002),
    "a reserved bit": (bytes([0xC1, 0x80, 0, 0, 0, 0]), 1002),
    "a reserved opcode": (masked(3), 1002),
    "a reserved control opcode": (masked(11), 1002),
    "a ping in fragments": (masked(9, b"x", final=False), 1002),
    "a ping of 126 bytes": (masked(9, b"x" * 126), 1002),
    "a continuation of nothing": (masked(0, b"x"), 1002),
    "a text in the middle of a text": (masked(1, b"a", final=False) + masked(1, b"b"), 1002),
    "a length in a longer form": (b"\x81\xfe\x00\x01" + bytes(5), 1002),
    "a Close of one byte": (masked(8, b"\x03"), 1002),
    "a Close with a code below 1000": (masked(8, struct.pack("!H", 999)), 1002),
    "a Close with a code that is never sent": (masked(8, struct.pack("!H", 1005)), 1002),
    "a Close with an unassigned code": (masked(8, struct.pack("!H", 2000)), 1002),
    "a Close with a code above 4999": (masked(8, struct.pack("!H", 5000)), 1002),
    "a Close whose reason is not UTF-8": (masked(8, b"\x03\xe8\xff"), 1007),
    "a text that is not UTF-8": (masked(1, b"\xff\xfe"), 1007),
    "a text of half a surrogate pair": (masked(1, b"\xed\xa0\x80"), 1007),
    "a text that ends in the middle of a character": (masked(1, b"\xc3"), 1007),
    "a text that is not UTF-8 in its last fragment": (masked(1, b"\xc3", final=False) + masked(0, b"("), 1007),
}


@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(("data", "code"), PROTOCOL_ERRORS.values(), ids=PROTOCOL_ERRORS.keys())
async def test_protocol_errors(data: bytes, code: int, slowly: bool) -> None:
    """Our Close frame says 1002, or 1007 where a text is not UTF-8; nothing follows it but the end."""
    async with serve_live() as node:
        stream = await node.raw()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(4096)
        try:
            for part in one_by_one(data) if slowly else [data]:
                await stream.send_all(part)
                await trio.lowlevel.checkpoint()
        except trio.BrokenResourceError:
            pass  # it is closed before all was sent
        words = close_reason(CloseCode(code)).encode()
        assert await to_the_end(stream) == bytes([0x88, 2 + len(words)]) + struct.pack("!H", code) + words
        await stream.aclose()
        await node.until(viewers=0)


@pytest.fixture
def no_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock of the server's ends a connection."""
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_SECONDS", math.inf)
    monkeypatch.setattr(conversation, "CHECK_INTERVAL_SECONDS", math.inf)


NO_PINGS = LiveLimits(ping_seconds=math.inf)  # whose time is a deadline, too


@pytest.mark.usefixtures("no_deadlines")
@pytest.mark.parametrize("code", [1000, 1001, 1002, 1007, 1008, 3000, 4999])
async def test_a_viewers_own_close_is_echoed(code: int) -> None:
    """Whatever its code, also one that the server uses; then the server ends the connection without waiting for the
    viewer."""
    async with serve_live(NO_PINGS) as node:
        stream = await node.raw()
        await node.until(viewers=1)
        await stream.send_all(masked(8, struct.pack("!H", code) + b"bye"))
        await node.until(viewers=0)
        assert (await to_the_end(stream)).endswith(b"\r\n\r\n" + bytes([0x88, 5]) + struct.pack("!H", code) + b"bye")


@pytest.mark.usefixtures("no_deadlines")
@pytest.mark.parametrize("code", [1001, 1002, 1007])
async def test_the_echo_of_our_close_ends_the_connection(code: int) -> None:
    """Whatever its code: the server sends one Close frame, and does not wait for the viewer to end the connection."""
    async with serve_live(dataclasses.replace(NO_PINGS, max_messages=1)) as node:
        stream = await node.raw(behind=masked(1, b'{"action": "ping"}') * 2)
        answers = b""
        while struct.pack("!H", CloseCode.POLICY) not in answers:
            answers += await stream.receive_some(65536)
        await stream.send_all(masked(8, struct.pack("!H", code)))
        await node.until(viewers=0)
        assert (answers + await to_the_end(stream)).endswith(close_reason(CloseCode.POLICY).encode())


async def test_a_message_that_never_ends_is_held_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty fragments, single bytes, half a frame: nothing of it reaches the library, and too many pieces are 1008."""
    parsed: list[bytes] = []
    receive = wsproto.WSConnection.receive_data
    monkeypatch.setattr(
        wsproto.WSConnection, "receive_data", lambda self, data: parsed.append(data) or receive(self, data)
    )
    for data in (
        masked(1, final=False) + masked(0, final=False) * 100,
        masked(1, b"x" * 4_000)[:100],
        masked(1, b"x" * 4_000)[:-1],
    ):
        async with serve_live() as node:
            stream = await node.raw()
            await node.until(viewers=1)
            parsed.clear()
            try:
                for part in [data] if len(data) > 1_000 else one_by_one(data):
                    await stream.send_all(part)
                    await trio.sleep(0.001)
            except trio.BrokenResourceError:
                pass  # it is closed before all was sent
            assert parsed == []
            if len(data) < 1_000:
                assert struct.pack("!H", CloseCode.POLICY) in await to_the_end(stream)


async def test_too_many_messages() -> None:
    """1008 after the answers to those that were allowed."""
    async with serve_live(LiveLimits(max_messages=5)) as node, node.client() as client:
        for _ in range(6):
            await send(client, action="ping")
        code, _, events = await closed(client)
        assert (code, kinds(events)) == (CloseCode.POLICY, ["pong"] * 5)


@pytest.mark.parametrize(
    ("first", "frame"),
    [
        (b"", masked(9)),
        (b"", masked(9, b"x" * 125)),
        (b"", masked(10)),
        (masked(1, final=False), masked(0, final=False)),
    ],
)
@pytest.mark.parametrize("rules", [LiveLimits(max_received_bytes=2000), LiveLimits()], ids=["bytes", "frames"])
async def test_floods_that_are_no_messages(
    rules: LiveLimits, first: bytes, frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pings, pongs and empty fragments are counted, as bytes and as frames: 1008, and the flood is not read to its
    end."""
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_SECONDS", 0.3)
    async with serve_live(rules) as node:
        stream = await node.raw(behind=first)
        answers = b""

        async def read() -> None:
            nonlocal answers
            answers = await to_the_end(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                while True:
                    await stream.send_all(frame * 20)
                    await trio.lowlevel.checkpoint()
        assert (
            struct.pack("!BB", 0x88, 2 + len("too many messages; do not reconnect"))
            + struct.pack("!H", CloseCode.POLICY)
            in answers
        )
        await node.until(viewers=0)


async def test_shutdown_closes_with_1012() -> None:
    """Every viewer is closed with it, and so is each later connection."""
    async with serve_live() as node, node.client() as client:
        await node.until(viewers=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.hub.shut_down)
            assert (await closed(client))[:2] == (CloseCode.RESTART, "the server restarts; reconnect")
            async with node.client() as late:
                assert (await closed(late))[0] == CloseCode.RESTART


async def test_what_waits_goes_out_once_before_our_close() -> None:
    """Pending events come before the Close, for example the error event that explains it."""
    async with serve_live() as node:
        node.tokens["t"] = FakeIdentity(ANN, 1, 9e9)
        async with node.client("?token=t") as client:
            await read_event(client)
            (viewer,) = node.hub._viewers
            viewer.pending = deque([text_frame(b'{"event":"waiting"}')])
            viewer.socket._write_refused = True  # so that the next writer calls `on_writable`
            node.hub.close_session(UUID(int=1))
            code, _, events = await closed(client)
            assert (code, kinds(events)) == (CloseCode.TOKEN, ["waiting"])


async def test_a_close_does_not_wait_for_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed while it waits for a store ends at once; the store's answer is dropped."""
    async with serve_live() as node:
        asked = trio.Event()

        async def standing(user: UUID) -> Standing:
            asked.set()
            await trio.sleep_forever()

        node.tokens["t"] = FakeIdentity(ANN, 1, 9e9)
        monkeypatch.setattr(node, "standing", standing)
        async with node.client("?token=t") as client:
            await asked.wait()
            node.hub.close_session(UUID(int=1))
            node.hub.close_session(UUID(int=1))
            assert (await closed(client))[0] == CloseCode.TOKEN
        await node.until(viewers=0)
        assert node.admission.users == {}


async def test_nothing_follows_our_close() -> None:
    """Ticks and events after a Close are not written, though the viewer has not answered it yet."""
    async with serve_live() as node:
        node.tokens["t"] = FakeIdentity(ANN, 1, 9e9)
        stream = await node.raw("?token=t")
        await stream.send_all(masked(1, json.dumps({"action": "subscribe", "channel": BOARD.id}).encode()))
        while not node.hub.watched_boards():
            await trio.sleep(0.005)
        node.hub.close_session(UUID(int=1))
        for users in ("ba", "ab", "ba"):
            await node.publish(users)
            node.hub.send_personal(BOARD, update_for(ANN))
            await trio.sleep(0.01)
        await stream.send_all(masked(9, b"hello?"))  # a ping in the closing state
        answer = await to_the_end(stream)
        close = struct.pack("!H", CloseCode.TOKEN) + b"no valid token; do not reconnect"
        assert answer.endswith(bytes([0x88, len(close)]) + close)


async def test_a_slow_reader_is_closed_and_the_others_are_not_held_up() -> None:
    """Behind for longer than allowed: closed, counted as 4413; another viewer gets every board meanwhile."""
    before = metrics.SLOW_READERS_CLOSED._value.get()
    async with serve_live(LiveLimits(slow_reader_seconds=0.6)) as node, node.client() as client:
        await send(client, action="subscribe", channel=BOARD.id)
        assert kinds([await read_event(client), await read_event(client)]) == ["subscribed", "leaderboard:update"]
        slow = await node.raw(receive_buffer=1024)
        await slow.send_all(masked(1, json.dumps({"action": "subscribe", "channel": BOARD.id}).encode()))
        await node.until(viewers=2)
        turn = 0
        while len(node.hub) == 2:
            turn += 1
            await node.publish("abcdefghij" if turn % 2 else "jihgfedcba")
            assert names(await read_event(client)) == node.board
        assert turn > 1
        assert node.hub.watched_boards() == [BOARD]
    assert metrics.SLOW_READERS_CLOSED._value.get() == before + 1


async def test_a_stuck_viewer_ends_with_its_connection() -> None:
    """An RST in the middle of everything ends the connection like any other end."""
    async with serve_live() as node:
        stream = await node.raw()
        await stream.send_all(masked(1, json.dumps({"action": "subscribe", "channel": BOARD.id}).encode()) + b"\x81")
        while not node.hub.watched_boards():
            await trio.sleep(0.005)
        stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await node.publish("ba")
        await node.until(viewers=0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 200,
        masked(3),
        masked(9, b"x" * 125, final=False),
        masked(9, b"x" * 126),
        masked(8, b"\x03"),
        masked(8, b"\x03\xed"),
        masked(8, b"\x03\xe8\xff"),
        masked(8) + masked(8) + masked(1, b"late"),
        masked(1, b"\xff\xfe"),
        masked(0, b"nothing to continue"),
        masked(1, b"a", final=False) + masked(1, b"b"),
        bytes([0x81, 2]) + b"{}",
        bytes([0xC1, 0x80, 0, 0, 0, 0]),
        b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    ],
)
async def test_hostile_bytes_end_their_own_connection(data: bytes) -> None:
    """Whatever comes after the upgrade and however it ends, another viewer is still served."""
    async with serve_live() as node, node.client() as client:
        for ending in (b"", masked(9), masked(8, b"\x03\xe8")):
            stream = await node.raw()
            await stream.send_all(data + ending)
            await stream.send_eof()
            await to_the_end(stream)
        await send(client, action="ping")
        assert await read_event(client) == {"event": "pong"}
        await node.until(viewers=1)


async def test_our_pings_are_answered_and_theirs_too() -> None:
    """One prepared ping goes out when it is time; a viewer's own ping gets its pong beside our frames."""
    async with serve_live(LiveLimits(ping_seconds=0.2)) as node:
        stream = await node.raw()
        await stream.send_all(masked(9, b"are you there"))
        seen = b""
        while PING_FRAME not in seen or b"\x8a\x0dare you there" not in seen:
            seen += await stream.receive_some(4096)
        await stream.aclose()
        await node.until(viewers=0)


async def test_ticks_beside_control_frames_never_break_a_frame() -> None:
    """A viewer that pings as fast as it may, while boards go out as fast as they can, reads only whole frames, the
    newest board last."""
    async with (
        serve_live(LiveLimits(max_frames=10**9, max_reads=10**9, max_received_bytes=10**9)) as node,
        node.client() as client,
    ):
        await send(client, action="subscribe", channel=BOARD.id)
        assert kinds([await read_event(client), await read_event(client)]) == ["subscribed", "leaderboard:update"]
        seen: list[str] = []

        async def read() -> None:
            while not seen or seen[-1] != "zz":
                seen.append(names(await read_event(client)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for turn in range(300):
                await node.publish("abcdefghij" if turn % 2 else "jihgfedcba")
                with trio.move_on_after(0.05):
                    await client.ping(os.urandom(4))
            await node.publish("zz")
        assert len(seen) > 100


async def test_a_refusal_is_not_a_refusal_of_others() -> None:
    """A malformed query does not end the listener."""
    async with serve_live() as node:
        stream = await node.raw("?" + "&".join(f"token{n}=%ff&;=" for n in range(300)))
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 ")
        async with node.client() as client:
            await send(client, action="ping")
            assert await read_event(client) == {"event": "pong"}


frames = st.builds(
    lambda opcode, payload, final, spoil: masked(opcode, payload, final=final)[spoil:],
    st.sampled_from([0, 1, 1, 1, 2, 3, 8, 9, 10, 15]),
    st.sampled_from(
        [
            b"",
            b"{}",
            b'{"action":"ping"}',
            b'{"action":"subscribe","channel":"leaderboard"}',
            b"\xff",
            b"x" * 125,
            b"x" * 5000,
        ]
    )
    | st.binary(max_size=20),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 0, 0, 1, 3]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(frames, max_size=8), st.lists(st.integers(1, 40), max_size=30), st.sampled_from(["close", "reset", "end"])
)
def test_fuzzed_frames(sent: list[bytes], cuts: list[int], ending: str) -> None:
    """Valid and invalid frames, cut anywhere, ended anyhow, while boards go out: another viewer is still served, and no
    connection is left."""

    async def scenario() -> None:
        async with serve_live() as node, node.client() as client:
            stream = await node.raw()
            data = b"".join(sent)
            try:
                for cut in cuts:
                    await stream.send_all(data[:cut])
                    data = data[cut:]
                    await node.publish("ba" if cut % 2 else "ab")
                await stream.send_all(data)
            except trio.BrokenResourceError:
                pass  # the server closed it before all was sent
            if ending == "reset":
                stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif ending == "end":
                try:
                    await stream.send_eof()
                    await to_the_end(stream)
                except trio.BrokenResourceError:
                    pass  # as above
            await stream.aclose()
            await send(client, action="ping")
            assert await read_event(client) == {"event": "pong"}
            await node.until(viewers=1)

    trio.run(scenario)
