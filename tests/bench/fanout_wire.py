"""What a viewer says and hears, by transport, with as little parsing as counting needs. Pure; `fanout_viewers` has the
sockets.

A chunk of bytes is cut into messages by their lengths alone. Two messages with the same last TAIL bytes are the same,
so only the first viewer of a board looks into it (`read_message`): the others compare a tail, whatever the transport.
"""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

PREFIX = "/api/v1/scores"
TAIL = 64  # bytes; position and timestamp, or the time of sending, end each message: no two boards share them
CHANNEL = "leaderboard"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
PING, PONG = 0x89, b"\x8a\x80\0\0\0\0"
WAIT = 30  # seconds a long poll waits, at most


class Shown(NamedTuple):
    """What a message shows: its identity, the scores in it, and when it was sent, if it says so (peers' messages
    do)."""

    key: str
    scores: dict[str, int]
    sent_ms: float | None


class Transport(NamedTuple):
    request: bytes  # opens it
    cut: Callable[[bytes], tuple[list[bytes], bytes]]  # a chunk → whole messages, the rest
    payload: Callable[[bytes], bytes]  # a message's JSON
    answer: bytes  # how the first response must begin
    greeting: bytes  # said once it is open


def read_message(payload: bytes) -> Shown | None:
    """What is shown; None for everything that is not a board (a peer's message is one)."""
    try:
        message = json.loads(payload)
    except ValueError:
        return None
    if "sent" in message:
        return Shown(str(message["sent"]), {}, message["sent"])
    data = message.get("data")
    if not isinstance(data, dict) or "position" not in data:
        return None
    rows = data.get("leaderboard", data.get("changed"))
    if rows is None:
        return None  # a personal event
    return Shown(data["position"], {row["userId"]: row["score"] for row in rows}, None)


# ---- cutting ---------------------------------------------------------------------------------------------------------


def cut_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """WebSocket frames of a server: not masked. Raises ValueError at one of 64 KiB and more: nobody sends such
    boards."""
    if len(data) > 4 and data[1] == 126 and len(data) == 4 + (data[2] << 8 | data[3]):
        return [data], b""  # one whole frame: nearly always
    found, at = [], 0
    while len(data) - at >= 2:
        length, head = data[at + 1], 2
        if length == 126:
            if len(data) - at < 4:
                break
            length, head = data[at + 2] << 8 | data[at + 3], 4
        elif length > 126:
            raise ValueError("no frame that this client understands")
        end = at + head + length
        if end > len(data):
            break
        found.append(data[at:end])
        at = end
    return found, data[at:]


def cut_events(data: bytes) -> tuple[list[bytes], bytes]:
    """Server-Sent Events, each ended by an empty line. Comments count as messages: their tail says what they are."""
    if 0 < data.find(b"\n\n") == len(data) - 2:
        return [data], b""
    *found, rest = data.split(b"\n\n")
    return [event + b"\n\n" for event in found], rest


def cut_responses(data: bytes) -> tuple[list[bytes], bytes]:
    """HTTP responses, each with a Content-Length or without a body (204)."""
    found = []
    while (end := data.find(b"\r\n\r\n")) >= 0:
        length = LENGTH.search(data, 0, end)
        end += 4 + (int(length[1]) if length else 0)
        if end > len(data):
            break
        found.append(data[:end])
        data = data[end:]
    return found, data


# ---- payloads --------------------------------------------------------------------------------------------------------


def frame_payload(frame: bytes) -> bytes:
    return frame[4:] if frame[1] == 126 else frame[2:]


def event_payload(event: bytes) -> bytes:
    return b"".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))


def response_payload(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


# ---- transports ------------------------------------------------------------------------------------------------------


def masked(text: str) -> bytes:
    """A client's text frame, under the mask of zeros: the rule is kept, and nothing has to be computed."""
    data = text.encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data)]) + b"\0\0\0\0" + data


def websocket(path: str, port: int, mode: str | None) -> Transport:
    """`mode`: full or delta, what a viewer of our server subscribes with; None: a peer's, which sends to whoever
    connects."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()
    subscribe = json.dumps({"action": "subscribe", "channel": CHANNEL, "mode": mode})
    return Transport(request, cut_frames, frame_payload, b"HTTP/1.1 101", masked(subscribe) if mode else b"")


def stream(port: int) -> Transport:
    request = f"GET {PREFIX}/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
    return Transport(request, cut_events, event_payload, b"HTTP/1.1 200", b"")


def poll_request(port: int, since: str) -> bytes:
    query = f"?since={since}&wait={WAIT}" if since else ""
    return f"GET {PREFIX}/poll{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def poll(port: int) -> Transport:
    return Transport(poll_request(port, ""), cut_responses, response_payload, b"HTTP/1.1 200", b"")
