"""What the server says on a live connection: the catalogue of events, and the JSON of each.

The messages are the same on every transport; `framing` makes frames of them. What clients say is in
`client_messages`, why a connection is closed in `close_codes`. Pure: nothing is sent here.

An event about a board names it in `channel`. The first board is the exception: clients of its time know one board, and
their messages stay as they were.
"""

from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from scoreboard.domain.boards import LEADERBOARD, Entry, Snapshot, rfc3339
from scoreboard.domain.deltas import ChangedPosition, Comparison
from scoreboard.domain.errors import LimitLayer

# The longest silence for a client that asked for heartbeats: a page says after 5 s that nobody answers.
HEARTBEAT_SECONDS = 3.5
FIRST_CHANNEL = LEADERBOARD.id
SUBPROTOCOL = "scoreboard.v1"  # names these messages; echoed to a client that offers it


# ---- the catalogue --------------------------------------------------------------------------------------------------


class Event(StrEnum):
    """The server's events, as `event` names them."""

    UPDATE = "leaderboard:update"
    DELTA = "leaderboard:delta"
    STALE = "leaderboard:stale"
    VIEWERS = "viewers"
    PERSONAL = "score:personal"
    REJECTED = "score:rejected"
    PONG = "pong"
    SUBSCRIBED = "subscribed"
    UNSUBSCRIBED = "unsubscribed"
    AUTHENTICATED = "authenticated"
    HEARTBEAT = "heartbeat"
    ERROR = "error"


class LiveErrorCode(StrEnum):
    """Codes of the error event.

    BAD_MESSAGE, TOO_MANY_CONNECTIONS and UNAUTHORIZED for a token end the connection. After the others it stays open.
    """

    UNKNOWN_CHANNEL = "UNKNOWN_CHANNEL"
    UNSUPPORTED_MODE = "UNSUPPORTED_MODE"
    BAD_MESSAGE = "BAD_MESSAGE"
    UNAUTHORIZED = "UNAUTHORIZED"
    # of an address or a user; the message says which, and when to try again
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"


# ---- encoders -------------------------------------------------------------------------------------------------------


class _Envelope(msgspec.Struct):
    event: Event
    data: Any


class _Board(msgspec.Struct, omit_defaults=True):
    leaderboard: Sequence[Entry]
    changedPositions: Sequence[ChangedPosition]
    position: str
    timestamp: str
    channel: str = FIRST_CHANNEL


class _DeltaRow(msgspec.Struct, omit_defaults=True):
    userId: str
    username: str
    score: int
    rank: int
    previousRank: int | None
    avatarUrl: str | None = None


class _Delta(msgspec.Struct, omit_defaults=True):
    position: str
    previousPosition: str
    changed: Sequence[_DeltaRow]
    removed: Sequence[str]
    timestamp: str
    channel: str = FIRST_CHANNEL


class _Stale(msgspec.Struct, omit_defaults=True):
    since: str
    channel: str = FIRST_CHANNEL


class _Polled(msgspec.Struct, omit_defaults=True):
    leaderboard: Sequence[Entry]
    position: str
    timestamp: str
    stale: bool = False


class _Personal(msgspec.Struct, omit_defaults=True):
    previousScore: int
    newScore: int
    pointsAwarded: int
    rank: int | None
    position: str
    timestamp: str
    channel: str = FIRST_CHANNEL


class _Rejected(msgspec.Struct):
    actionId: str
    actionType: str
    reason: str


class _Standing(msgspec.Struct):
    userId: str
    score: int | None
    rank: int | None


class _Error(msgspec.Struct, omit_defaults=True):
    code: LiveErrorCode
    message: str
    # of TOO_MANY_CONNECTIONS: the limit, as in a problem; left out for the node's own limit
    layer: LimitLayer | None = None


_encode = msgspec.json.Encoder().encode


def position(snapshot: Snapshot) -> str:
    """Names the shown rows, the same on every node. Rows from PostgreSQL have no version, so it is a hash of them."""
    return f"stale-{sha256(_encode(snapshot.shown)).hexdigest()[:16]}" if snapshot.stale else snapshot.position


def update(snapshot: Snapshot, changed: Sequence[ChangedPosition]) -> bytes:
    """`leaderboard:update`: all shown rows, and the ranks that changed since the update before it."""
    board = _Board(snapshot.shown, changed, position(snapshot), rfc3339(snapshot.updated_ms), snapshot.board)
    return _encode(_Envelope(Event.UPDATE, board))


def delta(previous: str, comparison: Comparison, snapshot: Snapshot) -> bytes:
    """`leaderboard:delta`: what turns the rows of the position `previous` into the snapshot's rows."""
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
    timestamp = rfc3339(snapshot.updated_ms)
    data = _Delta(position(snapshot), previous, changed, removed, timestamp, snapshot.board)
    return _encode(_Envelope(Event.DELTA, data))


def polled(snapshot: Snapshot) -> bytes:
    """The body of a long poll's answer, in the envelope of the REST routes."""
    data = _Polled(snapshot.shown, position(snapshot), rfc3339(snapshot.updated_ms), snapshot.stale)
    return b'{"success":true,"data":%b}' % _encode(data)


def viewers(count: int) -> bytes:
    """`viewers`: the number of viewers on all nodes."""
    return _encode(_Envelope(Event.VIEWERS, {"count": count}))


def stale(channel: str, since_ms: int) -> bytes:
    """`leaderboard:stale`: the board can't be read from Redis since that time. The next update ends this state."""
    return _encode(_Envelope(Event.STALE, _Stale(rfc3339(since_ms), channel)))


def personal(channel: str, previous: int, new: int, points: int, rank: int | None, position: str, at_ms: int) -> bytes:
    """`score:personal`, for the connections of the user who scored."""
    return _encode(_Envelope(Event.PERSONAL, _Personal(previous, new, points, rank, position, rfc3339(at_ms), channel)))


def rejected(action_id: str, action_type: str, reason: str) -> bytes:
    """`score:rejected`, for the connections of the user whose action was refused after it had waited."""
    return _encode(_Envelope(Event.REJECTED, _Rejected(action_id, action_type, reason)))


def authenticated(user: UUID, score: int | None, rank: int | None) -> bytes:
    """`authenticated`: the viewer's user, total and rank; None for what no store could give."""
    return _encode(_Envelope(Event.AUTHENTICATED, _Standing(str(user), score, rank)))


def subscribed(channel: str, *, heartbeat: bool = False) -> bytes:
    """`subscribed`. With heartbeats it names the longest silence in seconds."""
    data: dict[str, Any] = {"channel": channel}
    if heartbeat:
        data["heartbeatSeconds"] = HEARTBEAT_SECONDS
    return _encode(_Envelope(Event.SUBSCRIBED, data))


def unsubscribed(channel: str) -> bytes:
    return _encode(_Envelope(Event.UNSUBSCRIBED, {"channel": channel}))


def error(code: LiveErrorCode, message: str, layer: LimitLayer | None = None) -> bytes:
    return _encode(_Envelope(Event.ERROR, _Error(code, message, layer)))
