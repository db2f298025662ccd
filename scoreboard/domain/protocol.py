"""Messages of the server on a live connection: the catalogue of events, and the JSON of each. Pure: nothing is sent
here.

The messages are the same on every transport; `framing` makes frames of them. Messages of clients are in
`client_messages`, close codes in `close_codes`.

An event about a board names it in `channel`. Events of the first board have no `channel`, since older clients know only
that board.
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

# The longest silence for a client that asked for heartbeats. The page shows after 5 s that the server is silent.
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
    """Identifies the shown rows, the same on every node. Stale rows, which come from PostgreSQL, have no version, so
    the position is their hash."""
    return f"stale-{sha256(_encode(snapshot.shown)).hexdigest()[:16]}" if snapshot.stale else snapshot.position


def update(snapshot: Snapshot, changed: Sequence[ChangedPosition]) -> bytes:
    """`leaderboard:update`: all shown rows, and whose rank changed since the previous update. The same bytes on every
    node."""
    board = _Board(snapshot.shown, changed, position(snapshot), rfc3339(snapshot.updated_ms), snapshot.board)
    return _encode(_Envelope(Event.UPDATE, board))


def delta(previous: str, comparison: Comparison, snapshot: Snapshot) -> bytes:
    """`leaderboard:delta`: the changes from the rows of the position `previous` to the snapshot's. A changed row has
    all its members."""
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
    """`leaderboard:stale`: the board can't be read from Redis since then. The next update ends it."""
    return _encode(_Envelope(Event.STALE, _Stale(rfc3339(since_ms), channel)))


def personal(channel: str, previous: int, new: int, points: int, rank: int | None, position: str, at_ms: int) -> bytes:
    """`score:personal`, for the connections of the user who scored."""
    return _encode(_Envelope(Event.PERSONAL, _Personal(previous, new, points, rank, position, rfc3339(at_ms), channel)))


def authenticated(user: UUID, score: int | None, rank: int | None) -> bytes:
    """`authenticated`: the viewer's user id, score and rank. Score and rank are None when no store gives them."""
    return _encode(_Envelope(Event.AUTHENTICATED, _Standing(str(user), score, rank)))


def subscribed(channel: str, *, heartbeat: bool = False) -> bytes:
    """`subscribed`. With `heartbeat` it has the longest silence to expect, in seconds."""
    data: dict[str, Any] = {"channel": channel}
    if heartbeat:
        data["heartbeatSeconds"] = HEARTBEAT_SECONDS
    return _encode(_Envelope(Event.SUBSCRIBED, data))


def unsubscribed(channel: str) -> bytes:
    return _encode(_Envelope(Event.UNSUBSCRIBED, {"channel": channel}))


def error(code: LiveErrorCode, message: str, layer: LimitLayer | None = None) -> bytes:
    return _encode(_Envelope(Event.ERROR, _Error(code, message, layer)))
