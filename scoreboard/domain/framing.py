"""Encodes messages for a transport: as a WebSocket frame (RFC 6455), or as an event of a Server-Sent stream. Pure.

The JSON is the same for both and comes from `protocol`. Server frames are neither masked nor compressed, so a message
for many viewers is encoded once. Constant frames are encoded at import.
"""

import struct
from collections.abc import Callable

from scoreboard.domain.close_codes import CloseCode, close_reason
from scoreboard.domain.protocol import Event

Encoding = Callable[[Event, bytes, str], bytes]
"""Encodes a message for a transport. Arguments: the event, its JSON, and the position of a viewer after it ("":
none)."""


def text_frame(payload: bytes) -> bytes:
    """A server's text frame, whole and uncompressed: the same bytes for everyone (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x81, size) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def close_frame(code: CloseCode) -> bytes:
    """A server's Close frame (RFC 6455, 5.5.1)."""
    payload = struct.pack("!H", code) + close_reason(code).encode()
    return struct.pack("!BB", 0x88, len(payload)) + payload


def websocket(_event: Event, payload: bytes, _position: str = "") -> bytes:
    """A WebSocket frame. The JSON contains the event and the position already."""
    return text_frame(payload)


def event_stream(event: Event, payload: bytes, position: str = "") -> bytes:
    """An event of a Server-Sent stream. A browser sends the newest `id` back when it reconnects. JSON has no line
    breaks."""
    return b"event: %b\n%bdata: %b\n\n" % (
        event.encode(),
        b"id: %b\n" % position.encode() if position else b"",
        payload,
    )


PING_FRAME = b"\x89\x00"  # an empty ping: browsers answer it and send nothing by themselves
PONG_FRAME = text_frame(b'{"event":"pong"}')
HEARTBEAT_FRAME = text_frame(b'{"event":"heartbeat"}')
# A comment. It keeps proxies from closing a silent stream, and shows whether the client is still connected.
HEARTBEAT_COMMENT = b": heartbeat\n\n"
