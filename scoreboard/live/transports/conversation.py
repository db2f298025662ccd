"""What one WebSocket viewer asks and gets: its messages, its budgets, its deadlines. `websocket` opens and closes the
connection.

Decisions are made here; only the stores are waited for. `receive` returns the code to close the connection with, or
None. The sweeper calls `check_deadlines` for the time limits: silence, the token's expiry, the time to log in.
"""

from math import inf
from typing import assert_never

import trio

from scoreboard.domain import client_messages, framing, protocol
from scoreboard.domain.boards import Board
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.protocol import LiveErrorCode
from scoreboard.live.admission import refusal_event
from scoreboard.live.dependencies import LiveDependencies
from scoreboard.live.frames import FrameBuffer
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports.subscribing import send_identity, subscribe
from scoreboard.live.viewer import Viewer

CHECK_INTERVAL_SECONDS = 5.0  # between two checks of a connection: the longest delay until a missed deadline is noticed
MODES = ("full", "delta")


class Conversation:
    """One viewer's. Small: there are thousands."""

    __slots__ = (
        "_auth_by",
        "_expires",
        "_frames",
        "_last_received_at",
        "_limits",
        "_live",
        "_messages",
        "_ping_at",
        "_reads",
        "_received_bytes",
        "_window_ends",
        "viewer",
    )

    def __init__(self, viewer: Viewer, live: LiveDependencies, limits: LiveLimits) -> None:
        now = trio.current_time()
        self.viewer, self._live, self._limits = viewer, live, limits
        self._last_received_at = now  # trio's clock
        self._ping_at = now + limits.ping_seconds
        self._auth_by = inf if limits.anonymous else now + limits.auth_seconds
        self._expires = inf  # Unix seconds, of the token
        self._window_ends = now + limits.window_seconds
        self._messages = self._reads = self._received_bytes = 0  # in this window
        self._frames = FrameBuffer()

    # ---- deadlines and budgets --------------------------------------------------------------------------------------

    def check_deadlines(self) -> None:
        """Closes the connection if a deadline has passed, pings if it is time, and sets the next deadline."""
        now, wall = trio.current_time(), self._live.clock.now()
        if now >= self._last_received_at + self._limits.silent_seconds:
            self.viewer.close(CloseCode.SILENT)
        elif (
            now >= self._auth_by
            or wall >= self._expires
            or (self.viewer.sid is not None and self._live.authenticator.is_revoked(self.viewer.sid))
        ):
            self.viewer.close(CloseCode.TOKEN)
        else:
            if now >= self._ping_at:
                self._ping_at = now + self._limits.ping_seconds
                # May be refused: the viewer is behind, or another task writes. The sweeper closes slow readers.
                self.viewer.socket.send_now(framing.PING_FRAME)
            self.viewer.socket.deadline = min(
                now + CHECK_INTERVAL_SECONDS, now + self._expires - wall, self._auth_by, self._ping_at
            )

    def count_received(self, data: bytes) -> bytes | CloseCode:
        """Counts bytes that came. Returns what may be parsed now, b"" for nothing yet; or the code to close with, and
        nothing may be parsed."""
        now, limits = trio.current_time(), self._limits
        self._last_received_at = now
        if now >= self._window_ends:
            self._window_ends = now + limits.window_seconds
            self._messages = self._reads = self._received_bytes = self._frames.frame_count = 0
        self._reads += 1
        self._received_bytes += len(data)
        if self._received_bytes > limits.max_received_bytes or self._reads > limits.max_reads:
            return CloseCode.POLICY
        return self._frames.feed(data, limits.max_frames)

    # ---- messages ---------------------------------------------------------------------------------------------------

    async def receive(self, text: str | bytes) -> CloseCode | None:
        """Does what a message asks. Returns the code to close with, or None when the connection goes on.

        Waits for the stores, never for the viewer. Cancelling may leave a subscription without its first board.
        """
        self._messages += 1
        if self._messages > self._limits.max_messages:
            return CloseCode.POLICY
        if (
            len(text) * 4 > client_messages.MAX_MESSAGE_BYTES
            and len(text.encode() if isinstance(text, str) else text) > client_messages.MAX_MESSAGE_BYTES
        ):
            return CloseCode.TOO_BIG
        message = client_messages.read_message(text) if isinstance(text, str) else None
        match message:
            case None:
                self._send_error(
                    LiveErrorCode.BAD_MESSAGE,
                    "a message is a JSON object whose action is subscribe, unsubscribe, auth or ping",
                )
                return CloseCode.BAD_MESSAGE
            case client_messages.Ping():
                self._send(framing.PONG_FRAME)
            case client_messages.Auth(token):
                return await self.authenticate(token)
            case client_messages.Subscribe():
                await self._subscribe(message)
            case client_messages.Unsubscribe(channel):
                if (board := self._find_board(channel)) is not None:
                    self._live.hub.unsubscribe(self.viewer, board)
                    self._send(framing.text_frame(protocol.unsubscribed(board.id)))
            case _:
                assert_never(message)
        return None

    async def authenticate(self, token: str) -> CloseCode | None:
        """Identifies the viewer by a token of the query or of a message, or renews its token. Returns the code to close
        with when the token is refused."""
        identity, viewer = self._live.authenticator.authenticate(token), self.viewer
        if identity is None:
            self._send_error(LiveErrorCode.UNAUTHORIZED, "the token is not valid, or not any more")
            return CloseCode.TOKEN
        if viewer.user is not None and viewer.user != identity.user:
            self._send_error(LiveErrorCode.UNAUTHORIZED, "the token is another user's")
            return CloseCode.TOKEN
        if viewer.user is None:
            if limit := self._live.admission.user_limit_reached(identity.user):
                self._send(framing.text_frame(refusal_event(limit)))
                return CloseCode.OVERLOADED
            self._live.admission.identify(identity.user)
        self._live.hub.identify(viewer, identity.user, identity.sid)
        self._auth_by, self._expires = inf, identity.expires
        self.check_deadlines()
        await send_identity(self._live, viewer, identity.user)
        return None

    async def _subscribe(self, message: client_messages.Subscribe) -> None:
        board = self._find_board(message.channel)
        if board is None:
            return
        if message.mode not in MODES:
            self._send_error(LiveErrorCode.UNSUPPORTED_MODE, "the mode is full or delta")
            return
        if self._auth_by != inf:
            self._send_error(LiveErrorCode.UNAUTHORIZED, "log in first")
            return
        self.viewer.wants_heartbeat = message.heartbeat
        delta = message.mode == "delta"
        await subscribe(self._live, self.viewer, board, delta=delta, since=message.since or "" if delta else "")

    def _find_board(self, channel: str) -> Board | None:
        """The board of that channel; None, and the viewer was sent an error, when there is none."""
        board = self._live.hub.find_board(channel)
        if board is None:
            self._send_error(LiveErrorCode.UNKNOWN_CHANNEL, "there is no such channel")
        return board

    def _send_error(self, code: LiveErrorCode, message: str) -> None:
        self._send(framing.text_frame(protocol.error(code, message)))

    def _send(self, frame: bytes) -> None:
        self._live.hub.send(self.viewer, frame)
