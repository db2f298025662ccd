"""What viewers and the server say to each other on a live connection: the catalogue of events and close codes, and
their bytes.

The messages are the same on every transport: `websocket` makes a frame of one, `event_stream` an event of a Server-Sent
stream. Whatever goes to many viewers is encoded once (`update`, `delta`, `stale`) or here, at import (`PONG`, `PING`).
Pure: nothing is sent, and nothing is known of who listens.
"""

import struct
from collections.abc import Callable, Sequence
from enum import IntEnum, StrEnum
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from scoreboard.domain.actions import DECODE_ERRORS
from scoreboard.domain.boards import Entry, Snapshot, rfc3339
from scoreboard.domain.deltas import ChangedPosition, Comparison
from scoreboard.domain.errors import LimitLayer

MESSAGE_BYTES = 4096  # contract: text frames of at most 4 KiB in
CHANNEL_LENGTH = 255  # characters; a channel that we don't have is told so and costs no connection, up to here
MODE_LENGTH = 32  # characters; the same for a mode
POSITION_LENGTH = MESSAGE_BYTES  # characters; one that is none of ours is only compared, and a full board is sent
HEARTBEAT_SECONDS = 3.5  # of silence at most for who asked for heartbeats: a page says after 5 s that nobody answers
SUBPROTOCOL = "scoreboard.v1"  # names these messages; echoed to a client that offers it


# ---- the catalogue --------------------------------------------------------------------------------------------------


class Event(StrEnum):
    """The server's events, as `event` names them."""

    UPDATE = "leaderboard:update"
    DELTA = "leaderboard:delta"
    STALE = "leaderboard:stale"
    VIEWERS = "viewers"
    PERSONAL = "score:personal"
    PONG = "pong"
    SUBSCRIBED = "subscribed"
    UNSUBSCRIBED = "unsubscribed"
    AUTHENTICATED = "authenticated"
    HEARTBEAT = "heartbeat"
    ERROR = "error"


class LiveErrorCode(StrEnum):
    """Codes of the error event.

    BAD_MESSAGE and TOO_MANY_CONNECTIONS end the connection, so does UNAUTHORIZED of a token; after the others it stays.
    """

    UNKNOWN_CHANNEL = "UNKNOWN_CHANNEL"
    UNSUPPORTED_MODE = "UNSUPPORTED_MODE"
    BAD_MESSAGE = "BAD_MESSAGE"
    UNAUTHORIZED = "UNAUTHORIZED"
    # of an address or a user; the message says of which, and when to try again
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"


class CloseCode(IntEnum):
    """Why the server closes a connection. RECONNECT has what a client does next."""

    LEAVING = 1001
    PROTOCOL = 1002  # frames that RFC 6455 forbids
    NOT_UTF8 = 1007
    POLICY = 1008  # too many messages, frames or bytes
    TOO_BIG = 1009
    RESTART = 1012
    OVERLOADED = 1013
    BAD_MESSAGE = 4400
    TOKEN = 4401  # missing, expired, revoked, of another user
    ORIGIN = 4403
    SILENT = 4408
    SLOW = 4413


# True: reconnect, with jitter and the same token. False: don't, the same again would end the same way.
RECONNECT: dict[CloseCode, bool] = {
    CloseCode.LEAVING: True,
    CloseCode.PROTOCOL: False,
    CloseCode.NOT_UTF8: False,
    CloseCode.POLICY: False,
    CloseCode.TOO_BIG: False,
    CloseCode.RESTART: True,
    CloseCode.OVERLOADED: True,
    CloseCode.BAD_MESSAGE: False,
    CloseCode.TOKEN: False,
    CloseCode.ORIGIN: False,
    CloseCode.SILENT: True,
    CloseCode.SLOW: True,
}

WORDS: dict[CloseCode, str] = {
    CloseCode.LEAVING: "the server is leaving",
    CloseCode.PROTOCOL: "protocol error",
    CloseCode.NOT_UTF8: "text that is not UTF-8",
    CloseCode.POLICY: "too many messages",
    CloseCode.TOO_BIG: "message too big",
    CloseCode.RESTART: "the server restarts",
    CloseCode.OVERLOADED: "too many connections",
    CloseCode.BAD_MESSAGE: "bad message",
    CloseCode.TOKEN: "no valid token",
    CloseCode.ORIGIN: "origin not allowed",
    CloseCode.SILENT: "nothing heard",
    CloseCode.SLOW: "reads too slowly",
}


def reason(code: CloseCode) -> str:
    """The close frame's text: why, and what to do. At most 123 bytes, as a control frame allows."""
    return f"{WORDS[code]}; {'reconnect' if RECONNECT[code] else 'do not reconnect'}"


# ---- from a client --------------------------------------------------------------------------------------------------


class Subscribe(msgspec.Struct, tag_field="action", tag="subscribe", frozen=True):
    channel: Annotated[str, Meta(max_length=CHANNEL_LENGTH)]
    mode: Annotated[str, Meta(max_length=MODE_LENGTH)] = "full"
    since: Annotated[str, Meta(max_length=POSITION_LENGTH)] | None = None
    heartbeat: bool = False  # whether it wants a sign of life when there is nothing else to hear


class Unsubscribe(msgspec.Struct, tag_field="action", tag="unsubscribe", frozen=True):
    channel: Annotated[str, Meta(max_length=CHANNEL_LENGTH)]


class Ping(msgspec.Struct, tag_field="action", tag="ping", frozen=True):
    pass


class Auth(msgspec.Struct, tag_field="action", tag="auth", frozen=True):
    token: Annotated[str, Meta(max_length=MESSAGE_BYTES)]

    def __repr__(self) -> str:
        return "Auth()"  # never the token


Message = Subscribe | Unsubscribe | Ping | Auth

_decode_message = msgspec.json.Decoder(Message).decode


def read_message(text: str) -> Message | None:
    """A client's message; None when it is not JSON, not an object, or none of the actions. Unknown members are
    ignored."""
    try:
        message: Message = _decode_message(text)
    except DECODE_ERRORS:
        return None
    return message


# ---- to a client ----------------------------------------------------------------------------------------------------


class _Envelope(msgspec.Struct):
    event: Event
    data: Any


class _Board(msgspec.Struct):
    leaderboard: Sequence[Entry]
    changedPositions: Sequence[ChangedPosition]
    position: str
    timestamp: str


class _DeltaRow(msgspec.Struct, omit_defaults=True):
    userId: str
    username: str
    score: int
    rank: int
    previousRank: int | None
    avatarUrl: str | None = None


class _Delta(msgspec.Struct):
    position: str
    previousPosition: str
    changed: Sequence[_DeltaRow]
    removed: Sequence[str]
    timestamp: str


class _Polled(msgspec.Struct, omit_defaults=True):
    leaderboard: Sequence[Entry]
    position: str
    timestamp: str
    stale: bool = False


class _Personal(msgspec.Struct):
    previousScore: int
    newScore: int
    pointsAwarded: int
    rank: int | None
    position: str
    timestamp: str


class _Standing(msgspec.Struct):
    userId: str
    score: int | None
    rank: int | None


class _Error(msgspec.Struct, omit_defaults=True):
    code: LiveErrorCode
    message: str
    # of TOO_MANY_CONNECTIONS: which limit refused it, named as in a problem; left out where it is the node's
    layer: LimitLayer | None = None


_encode = msgspec.json.Encoder().encode


def position(snapshot: Snapshot) -> str:
    """Names the rows that are shown, the same on every node. Rows that PostgreSQL tells have no version, so they stand
    for themselves."""
    return f"stale-{sha256(_encode(snapshot.shown)).hexdigest()[:16]}" if snapshot.stale else snapshot.position


def update(snapshot: Snapshot, changed: Sequence[ChangedPosition]) -> bytes:
    """`leaderboard:update`: all shown rows, and whose rank changed since the update before. The same bytes on every
    node."""
    board = _Board(snapshot.shown, changed, position(snapshot), rfc3339(snapshot.updated_ms))
    return _encode(_Envelope(Event.UPDATE, board))


def delta(previous: str, comparison: Comparison, snapshot: Snapshot) -> bytes:
    """`leaderboard:delta`: what turns the rows of the position `previous` into the snapshot's; each changed row is
    whole."""
    changed = [
        _DeltaRow(
            row.entry.userId,
            row.entry.username,
            row.entry.score,
            row.entry.rank,
            row.previous_rank,
            row.entry.avatarUrl,
        )
        for row in comparison.changed
    ]
    removed = [entry.userId for entry in comparison.removed]
    return _encode(
        _Envelope(Event.DELTA, _Delta(position(snapshot), previous, changed, removed, rfc3339(snapshot.updated_ms)))
    )


def polled(snapshot: Snapshot) -> bytes:
    """The body of a long poll's answer, in the envelope of the REST routes."""
    data = _Polled(snapshot.shown, position(snapshot), rfc3339(snapshot.updated_ms), snapshot.stale)
    return b'{"success":true,"data":%b}' % _encode(data)


def viewers(count: int) -> bytes:
    """`viewers`: how many watch, on all nodes."""
    return _encode(_Envelope(Event.VIEWERS, {"count": count}))


def stale(since_ms: int) -> bytes:
    """`leaderboard:stale`: the board can't be read from Redis since then. The next update ends it."""
    return _encode(_Envelope(Event.STALE, {"since": rfc3339(since_ms)}))


def personal(previous: int, new: int, points: int, rank: int | None, position: str, at_ms: int) -> bytes:
    """`score:personal`, for the connections of the user who scored."""
    return _encode(_Envelope(Event.PERSONAL, _Personal(previous, new, points, rank, position, rfc3339(at_ms))))


def authenticated(user: UUID, score: int | None, rank: int | None) -> bytes:
    """`authenticated`: who the viewer is and where they stand; None where no store tells."""
    return _encode(_Envelope(Event.AUTHENTICATED, _Standing(str(user), score, rank)))


def subscribed(channel: str, *, heartbeat: bool = False) -> bytes:
    """`subscribed`, with the longest silence that is to be expected, in seconds, if heartbeats come."""
    data: dict[str, Any] = {"channel": channel}
    if heartbeat:
        data["heartbeatSeconds"] = HEARTBEAT_SECONDS
    return _encode(_Envelope(Event.SUBSCRIBED, data))


def unsubscribed(channel: str) -> bytes:
    return _encode(_Envelope(Event.UNSUBSCRIBED, {"channel": channel}))


def error(code: LiveErrorCode, message: str, layer: LimitLayer | None = None) -> bytes:
    return _encode(_Envelope(Event.ERROR, _Error(code, message, layer)))


# ---- transports -----------------------------------------------------------------------------------------------------

Encoding = Callable[[Event, bytes, str], bytes]
"""Makes what a transport sends of a message: its event, its JSON, and the position that a viewer has after it, "" for
none."""


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
    payload = struct.pack("!H", code) + reason(code).encode()
    return struct.pack("!BB", 0x88, len(payload)) + payload


def websocket(_event: Event, payload: bytes, _position: str = "") -> bytes:
    """A WebSocket frame: the JSON says all of it."""
    return text_frame(payload)


def event_stream(event: Event, payload: bytes, position: str = "") -> bytes:
    """An event of a Server-Sent stream. A browser sends the newest `id` back when it reconnects. JSON has no line
    breaks."""
    return b"event: %b\n%bdata: %b\n\n" % (
        event.encode(),
        b"id: %b\n" % position.encode() if position else b"",
        payload,
    )


PING = b"\x89\x00"  # an empty ping: browsers answer it and send nothing by themselves
PONG = text_frame(b'{"event":"pong"}')
HEARTBEAT_FRAME = text_frame(b'{"event":"heartbeat"}')
# a comment: it keeps proxies from closing a stream that is silent, and finds out whether anybody is there
HEARTBEAT = b": heartbeat\n\n"
