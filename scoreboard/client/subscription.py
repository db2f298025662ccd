"""The client's side of the live protocol, without a connection: what to send, what frames mean (Sans-I/O).

`SubscriptionState` outlives connections. Each connection begins with the messages of `opening`; then every frame goes
through `receive`, which returns what to answer. The board is never wrong: a delta that does not fit is dropped, and the
client subscribes again.
"""

from collections import deque
from typing import Any, Literal

import msgspec

from scoreboard.client.board import Board, Delta, Update
from scoreboard.client.errors import Refused
from scoreboard.domain.protocol import Event, LiveErrorCode

Mode = Literal["full", "delta"]

PERSONAL_EVENTS = 16  # events not yet fetched; full: the oldest is dropped, the newest score counts


class Personal(msgspec.Struct, frozen=True):
    """The result of an action of one's own: points, totals, the present rank (None while the server can't tell)."""

    previousScore: int
    newScore: int
    pointsAwarded: int
    rank: int | None
    position: str = ""
    timestamp: str = ""


class Standing(msgspec.Struct, frozen=True):
    """The user, with score and rank. None where the stores can't be read; rank also without a score."""

    userId: str
    score: int | None = None
    rank: int | None = None


class _Frame(msgspec.Struct):
    event: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Subscribed(msgspec.Struct):
    heartbeatSeconds: float = 0.0


class _Stale(msgspec.Struct):
    since: str


class _Viewers(msgspec.Struct):
    count: int


class _Error(msgspec.Struct):
    code: str
    message: str = ""


_frame = msgspec.json.Decoder(_Frame)
_update = msgspec.json.Decoder(Update)
_delta = msgspec.json.Decoder(Delta)
_personal = msgspec.json.Decoder(Personal)
_standing = msgspec.json.Decoder(Standing)
_subscribed = msgspec.json.Decoder(_Subscribed)
_stale = msgspec.json.Decoder(_Stale)
_viewers = msgspec.json.Decoder(_Viewers)
_error = msgspec.json.Decoder(_Error)


class SubscriptionState:
    """The state of one channel."""

    def __init__(self, channel: str = "leaderboard", mode: Mode = "delta") -> None:
        self.channel, self.mode = channel, mode
        self.board = Board()
        self.standing: Standing | None = None  # of the authenticated user
        self.stale_since = ""  # RFC 3339; "" while the board is fresh
        self.viewers: int | None = None  # who watch, on all nodes; None until the server has sent it
        self.personal: deque[Personal] = deque(maxlen=PERSONAL_EVENTS)
        self.is_subscribed = False  # on this connection, and the board is the server's
        self.is_authenticated = False  # on this connection
        self.heartbeat_seconds = 0.0  # of silence at most, as the server has promised on this connection; 0: it has not
        self._resubscriptions = 0  # since a frame fitted last
        self._awaits_board = False  # subscribed again, and the answer has not begun

    def opening(self, token: str | None) -> list[str]:
        """The first messages of a new connection."""
        self.is_subscribed = self.is_authenticated = False
        self.heartbeat_seconds = 0.0
        self._resubscriptions, self._awaits_board = 0, False
        first = [message(action="auth", token=token)] if token is not None else []
        return [*first, self._subscribe(with_since=True)]

    def receive(self, text: str | bytes) -> list[str]:
        """Handles one frame; returns the answers to send. Unknown events are ignored.

        Raises msgspec.MsgspecError when it is no frame of this protocol, Refused when there is no such channel.
        """
        frame = _frame.decode(text)
        match frame.event:
            case Event.UPDATE:
                self._set_board(self.board.apply_update(_update.decode(frame.data)))
            case Event.DELTA:
                return self._delta(_delta.decode(frame.data))
            case Event.SUBSCRIBED:
                # Behind it comes the board, or the deltas since ours, or nothing because ours is the newest.
                self.is_subscribed = bool(self.board.position)
                self.heartbeat_seconds = _subscribed.decode(frame.data).heartbeatSeconds
                self._awaits_board = False
            case Event.STALE:
                self.stale_since = _stale.decode(frame.data).since
            case Event.PERSONAL:
                self._personal(_personal.decode(frame.data))
            case Event.AUTHENTICATED:
                self.standing, self.is_authenticated = _standing.decode(frame.data), True
            case Event.VIEWERS:
                self.viewers = _viewers.decode(frame.data).count
            case Event.ERROR:
                error = _error.decode(frame.data)
                if error.code == LiveErrorCode.UNKNOWN_CHANNEL:
                    raise Refused(404, error.code, error.message)
        return []

    def _delta(self, delta: Delta) -> list[str]:
        board = self.board.apply_delta(delta)
        if board is not None:
            self._set_board(board)
            return []
        if self._awaits_board:
            return []  # sent before the server read our subscription
        self._awaits_board, self._resubscriptions = True, self._resubscriptions + 1
        return [self._subscribe(with_since=self._resubscriptions == 1)]  # the second time in a row without a position

    def _set_board(self, board: Board) -> None:
        self.board, self.is_subscribed, self.stale_since = board, True, ""
        self._awaits_board, self._resubscriptions = False, 0

    def _personal(self, personal: Personal) -> None:
        self.personal.append(personal)
        if self.standing is not None:
            self.standing = Standing(self.standing.userId, personal.newScore, personal.rank)

    def _subscribe(self, *, with_since: bool) -> str:
        if self.mode == "full":
            return message(action="subscribe", channel=self.channel, heartbeat=True)
        since = {"since": self.board.position} if with_since and self.board.position else {}
        return message(action="subscribe", channel=self.channel, mode=self.mode, heartbeat=True, **since)


def message(**members: Any) -> str:
    """A client's message as text."""
    return msgspec.json.encode(members).decode()
