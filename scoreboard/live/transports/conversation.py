"""What one WebSocket viewer asks and is told: its messages, its budgets, its deadlines. `websocket` opens and closes
the connection.

Everything is decided here and nothing is waited for but the stores. `receive` says with which code the connection ends,
if it does; `check`, called by the sweeper, does so for what passes with time: silence, a token that expires, a viewer
that must log in.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from time import time
from typing import Protocol, assert_never
from uuid import UUID

import trio

from scoreboard.domain import protocol as wire
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.protocol import CloseCode, Event, LiveErrorCode
from scoreboard.live.admission import Admission, refusal_event
from scoreboard.live.frames import FrameBuffer
from scoreboard.live.hub import Hub
from scoreboard.live.viewer import Viewer
from scoreboard.storage.board_cache import Standing

CHECK_SECONDS = 5.0  # between two looks at a connection's deadlines: what is late by then is late by at most this
MODES = ("full", "delta")


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """What a connection may do, whatever its transport; how many there may be is a matter of admission."""

    anonymous: bool = True
    slow_reader_seconds: float = 4.0  # behind for so long: closed, counted as 4413
    window_seconds: float = 10.0  # contract: too many messages per 10 s
    messages: int = 60  # a window; a client needs three to begin with, and one now and then
    frames: int = 120  # a window; a message is one, and a browser answers one ping in 20 s
    reads: int = 240  # a window; whoever sends a byte at a time costs a wake-up for each
    received: int = 65_536  # bytes a window
    silent_seconds: float = 60.0  # contract
    ping_seconds: float = 20.0  # contract
    auth_seconds: float = 10.0  # contract: with anonymous = False


class Identity(Protocol):
    """Whom a valid token speaks for (operations.authenticator has it; live does not know that layer)."""

    @property
    def user(self) -> UUID: ...
    @property
    def sid(self) -> UUID: ...
    @property
    def expires(self) -> float: ...  # Unix seconds


@dataclass(frozen=True, slots=True)
class LiveDependencies:
    """What conversations ask: handed in by app.py, the same for all."""

    hub: Hub
    admission: Admission
    refresh: Callable[[str], Awaitable[None]]  # brings the hub up to date with a board; raises StorageUnavailable
    authenticate: Callable[[str], Identity | None]
    is_revoked: Callable[[UUID], bool]
    standing: Callable[[UUID], Awaitable[Standing]]  # raises StorageUnavailable
    clock: Callable[[], float] = time  # Unix seconds

    async def send_identity(self, viewer: Viewer, user: UUID) -> None:
        """Tells a viewer who it is and where that user stands."""
        score = rank = None
        try:
            score, rank = await self.standing(user)
        except StorageUnavailable:
            pass  # it is told with the first action, or by the board
        self.hub.tell(viewer, viewer.wrap(Event.AUTHENTICATED, wire.authenticated(user, score, rank), ""))

    async def show_to(self, viewer: Viewer, board: str, *, delta: bool, since: str) -> None:
        """Subscribes a viewer to a board, says so, and gives it what it lacks of it. Returns when it has been handed
        that."""
        # first: whatever is shown from here on reaches it
        is_cold = self.hub.subscribe(viewer, board, delta=delta, since=since)
        self.hub.tell(
            viewer, viewer.wrap(Event.SUBSCRIBED, wire.subscribed(board, heartbeat=viewer.wants_heartbeat), "")
        )
        if is_cold:
            try:
                await self.refresh(board)
            except StorageUnavailable:
                self.hub.hand(viewer, board)  # what was shown last, if anything was
                self.hub.tell(viewer, viewer.wrap(Event.STALE, wire.stale(round(self.clock() * 1000)), ""))
                # whole, with the next news: that alone says that it is live again
                self.hub.subscribe(viewer, board, delta=delta)
                return
        self.hub.hand(viewer, board)


class Conversation:
    """One viewer's. Small: there are thousands."""

    __slots__ = (
        "_auth_by",
        "_expires",
        "_frames",
        "_heard_at",
        "_messages",
        "_ping_at",
        "_reads",
        "_received",
        "_rules",
        "_services",
        "_window_ends",
        "viewer",
    )

    def __init__(self, viewer: Viewer, services: LiveDependencies, rules: LiveLimits) -> None:
        now = trio.current_time()
        self.viewer, self._services, self._rules = viewer, services, rules
        self._heard_at = now  # trio's clock, when the last bytes came
        self._ping_at = now + rules.ping_seconds
        self._auth_by = inf if rules.anonymous else now + rules.auth_seconds
        self._expires = inf  # Unix seconds, of the token
        self._window_ends = now + rules.window_seconds
        self._messages = self._reads = self._received = 0  # in this window
        self._frames = FrameBuffer()

    # ---- deadlines and budgets --------------------------------------------------------------------------------------

    def check(self) -> None:
        """Ends the connection if it is too late for it, pings if it is time, and sets the next deadline."""
        now, wall = trio.current_time(), self._services.clock()
        if now >= self._heard_at + self._rules.silent_seconds:
            self.viewer.end(CloseCode.SILENT)
        elif (
            now >= self._auth_by
            or wall >= self._expires
            or (self.viewer.sid is not None and self._services.is_revoked(self.viewer.sid))
        ):
            self.viewer.end(CloseCode.TOKEN)
        else:
            if now >= self._ping_at:
                self._ping_at = now + self._rules.ping_seconds
                # not taken: it is behind, or just being written to; another rule minds that
                self.viewer.socket.send_now(wire.PING)
            self.viewer.socket.deadline = min(
                now + CHECK_SECONDS, now + self._expires - wall, self._auth_by, self._ping_at
            )

    def count_received(self, data: bytes) -> bytes | CloseCode:
        """Counts what came. Returns what may be parsed now, b"" for nothing yet; or the code to close with, and nothing
        may be parsed."""
        now, rules = trio.current_time(), self._rules
        self._heard_at = now
        if now >= self._window_ends:
            self._window_ends = now + rules.window_seconds
            self._messages = self._reads = self._received = self._frames.frames = 0
        self._reads += 1
        self._received += len(data)
        if self._received > rules.received or self._reads > rules.reads:
            return CloseCode.POLICY
        return self._frames.take(data, rules.frames)

    # ---- messages ---------------------------------------------------------------------------------------------------

    async def receive(self, text: str | bytes) -> CloseCode | None:
        """Does what a message asks; the code to close with, if that is the end of it. Waits for the stores, never for
        the viewer."""
        self._messages += 1
        if self._messages > self._rules.messages:
            return CloseCode.POLICY
        if (
            len(text) * 4 > wire.MESSAGE_BYTES
            and len(text.encode() if isinstance(text, str) else text) > wire.MESSAGE_BYTES
        ):
            return CloseCode.TOO_BIG
        message = wire.read_message(text) if isinstance(text, str) else None
        match message:
            case None:
                self._trouble(
                    LiveErrorCode.BAD_MESSAGE,
                    "a message is a JSON object whose action is subscribe, unsubscribe, auth or ping",
                )
                return CloseCode.BAD_MESSAGE
            case wire.Ping():
                self._tell(wire.PONG)
            case wire.Auth(token):
                return await self.authenticate(token)
            case wire.Subscribe():
                await self._subscribe(message)
            case wire.Unsubscribe(channel):
                if self._is_board(channel):
                    self._services.hub.unsubscribe(self.viewer, channel)
                    self._tell(wire.text_frame(wire.unsubscribed(channel)))
            case _:
                assert_never(message)
        return None

    async def authenticate(self, token: str) -> CloseCode | None:
        """The token of the query or of a message: says who the viewer is, or renews it."""
        identity, viewer = self._services.authenticate(token), self.viewer
        if identity is None:
            self._trouble(LiveErrorCode.UNAUTHORIZED, "the token is not valid, or not any more")
            return CloseCode.TOKEN
        if viewer.user is not None and viewer.user != identity.user:
            self._trouble(LiveErrorCode.UNAUTHORIZED, "the token is another user's")
            return CloseCode.TOKEN
        if viewer.user is None:
            if full := self._services.admission.refuses_user(identity.user):
                self._tell(wire.text_frame(refusal_event(full)))
                return CloseCode.OVERLOADED
            self._services.admission.identify(identity.user)
        self._services.hub.identify(viewer, identity.user, identity.sid)
        self._auth_by, self._expires = inf, identity.expires
        self.check()
        await self._services.send_identity(viewer, identity.user)
        return None

    async def _subscribe(self, message: wire.Subscribe) -> None:
        board = message.channel
        if not self._is_board(board):
            return
        if message.mode not in MODES:
            self._trouble(LiveErrorCode.UNSUPPORTED_MODE, "the mode is full or delta")
            return
        if self._auth_by != inf:
            self._trouble(LiveErrorCode.UNAUTHORIZED, "log in first")
            return
        self.viewer.wants_heartbeat = message.heartbeat
        delta = message.mode == "delta"
        await self._services.show_to(self.viewer, board, delta=delta, since=message.since or "" if delta else "")

    def _is_board(self, channel: str) -> bool:
        known = self._services.hub.knows(channel)
        if not known:
            self._trouble(LiveErrorCode.UNKNOWN_CHANNEL, "there is no such channel")
        return known

    def _trouble(self, code: LiveErrorCode, message: str) -> None:
        self._tell(wire.text_frame(wire.error(code, message)))

    def _tell(self, frame: bytes) -> None:
        self._services.hub.tell(self.viewer, frame)
