"""Messages for the tests of live: makes a client's frames, and reads a server's frames and events."""

import json
import struct
from collections.abc import Sequence
from typing import Any


def masked(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame (its mask is zero)."""
    size = len(payload)
    length = (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + struct.pack("!H", size)
        if size < 65536
        else b"\xff" + struct.pack("!Q", size)
    )
    return bytes([(0x80 if final else 0) | opcode]) + length + b"\0\0\0\0" + payload


def one_by_one(data: bytes) -> list[bytes]:
    """Each byte alone, as a client that sends so small segments."""
    return [data[place : place + 1] for place in range(len(data))]


def read_frames(data: bytes, *, cut: bool = False) -> list[dict[str, Any]]:
    """The JSON of each of a server's text frames. `cut`: the last may have been cut short, by a close."""
    events = []
    while data:
        size, start = (data + b"\0")[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        assert data[0] == 0x81
        if cut and len(data) < start + size:
            break
        assert len(data) >= start + size
        events.append(json.loads(data[start : start + size]))
        data = data[start + size :]
    return events


def read_stream(data: bytes) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, id and JSON of each event of a Server-Sent stream; comments and advice are passed over."""
    events = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
        if "data" in fields:
            events.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return events


def names(event: dict[str, Any]) -> str:
    """The user ids of an update, in order."""
    return "".join(row["userId"] for row in event["data"]["leaderboard"])


def kinds(events: Sequence[dict[str, Any]]) -> list[object]:
    """Each event's name."""
    return [event["event"] for event in events]
