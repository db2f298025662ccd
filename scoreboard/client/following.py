"""The state of a live board without its connection, and what to do after a connection's end (Sans-I/O).

`LiveBoard` of either client is a `BoardState` with a task that connects. The task reports `on_frame` and `on_lost`,
waits as `on_lost` and `on_refreshed` say, and ends with `fail` or `mark_left`. `next_step` is the pure part: connect
again (and when), renew first, or give up.

Tested in tests/client/test_live.py.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Generic, Literal, Protocol, TypeVar

from scoreboard.client.backoff import Backoff, chance, may_reconnect
from scoreboard.client.board import Board
from scoreboard.client.errors import ClientError, Closed, Refused, Unreachable
from scoreboard.client.subscription import Personal, Standing, SubscriptionState
from scoreboard.domain.boards import Entry
from scoreboard.domain.close_codes import CLOSE_REASONS, CloseCode

State = Literal["connecting", "live", "silent", "stale", "closed"]
T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 10.0  # for TCP, TLS and the handshake
PING_INTERVAL_SECONDS = 20.0  # between two pings; the server closes after 60 s of silence
# A heartbeat that is later makes the board `silent`: 5 s after the last one, as on the page.
HEARTBEAT_GRACE_SECONDS = 1.5
# Then it reconnects. Drawn at random each time: else all clients leave a server that has paused at the same moment.
SILENCE_TIMEOUT_SECONDS = (10.0, 20.0)
PONG_TIMEOUT_SECONDS = 10.0  # no answer to a ping in this time: the connection is dead, whatever TCP says
CLOSE_TIMEOUT_SECONDS = 1.0  # for the echo of our Close
MAX_FRAME_BYTES = 65_536  # a board is 1 to 4 kB; more is not from our server
RETRIED_STATUSES = frozenset({408, 425, 429})  # that pass with time, beside all 5xx


# ---- how a connection ends, and what follows -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A WebSocket was closed, with this code and reason; None: without a Close frame."""

    code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HandshakeRefused:
    """No WebSocket was opened: the answer of the server, or of a proxy on the way. `retry_after` in seconds."""

    status: int
    retry_after: float | None = None
    detail: str = "the server does not open a live connection"


Ending = Disconnected | HandshakeRefused | ClientError


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Connect again: not before `retry_after` seconds have passed, if the server named them; with `refresh`, only under
    a new token."""

    retry_after: float | None = None
    refresh: bool = False


def next_step(ending: Ending) -> Reconnect | ClientError:
    """What to do after a connection ended like this: an error if it was the last connection."""
    match ending:
        case Disconnected(code, reason):
            if code is None or may_reconnect(code):
                return Reconnect()
            return Reconnect(refresh=True) if code == CloseCode.TOKEN else Closed(code, reason)
        case HandshakeRefused(status, retry_after, detail):
            return (
                Reconnect(retry_after) if _passes(status) else Refused(status, detail=detail, retry_after=retry_after)
            )
        case Unreachable():  # a token could not be renewed for want of a network
            return Reconnect()
        case Refused(status=status, retry_after=retry_after) if _passes(status):
            return Reconnect(retry_after)
        case ClientError():
            return ending


def _passes(status: int) -> bool:
    """Whether a refusal is temporary."""
    return status >= 500 or status in RETRIED_STATUSES


def most_relevant(
    group: BaseExceptionGroup[BaseException], order: tuple[type[BaseException] | tuple[type[BaseException], ...], ...]
) -> BaseException:
    """The most relevant exception of a group: one of ours, then by `order`, then any other."""
    flatten_exceptions = [
        most_relevant(exc, order) if isinstance(exc, BaseExceptionGroup) else exc for exc in group.exceptions
    ]
    ranked = (ClientError, *order)
    return min(
        flatten_exceptions,
        key=lambda exc: next((place for place, kind in enumerate(ranked) if isinstance(exc, kind)), len(ranked)),
    )


# ---- what a caller reads ---------------------------------------------------------------------------------------------


class Event(Protocol):
    """An event of the loop's library, set once."""

    def set(self) -> object: ...

    async def wait(self) -> object: ...


class Changes(Generic[T]):
    """An endless `async for`. `next_value` returns a value or None; `changed` waits until there may be one, and returns
    whether to go on."""

    def __init__(
        self,
        next_value: Callable[[], T | None],
        changed: Callable[[], Awaitable[bool]],
        checkpoint: Callable[[], Awaitable[object]],
    ) -> None:
        self._next_value, self._changed, self._checkpoint = next_value, changed, checkpoint

    def __aiter__(self) -> "Changes[T]":
        return self

    async def __anext__(self) -> T:
        await self._checkpoint()
        while (value := self._next_value()) is None:
            if not await self._changed():
                raise StopAsyncIteration
        return value


class BoardState:
    """A board that follows the server's. `connect` makes it, starts a task with `run`, and calls `leave`.

    `async for update in board` gives a `Board` at once and after each change. A slow reader gets the newest board, not
    every one. It ends with the `connect` block and raises what ended the connection for good: Closed, Refused.
    `board.personal` gives each event of one's own actions. Any number of tasks may iterate; a personal event goes to
    one of them.
    """

    def __init__(
        self,
        subscription: SubscriptionState,
        *,
        can_refresh: bool,
        event: Callable[[], Event],
        checkpoint: Callable[[], Awaitable[object]],
    ) -> None:
        """`can_refresh`: whether there is a session with a refresh token. `event` and `checkpoint` are the loop's."""
        self._subscription, self._can_refresh = subscription, can_refresh
        self._new_event, self._checkpoint = event, checkpoint
        self._changed = event()  # replaced when it is set
        self._backoff = Backoff()
        self._left = False
        self._failure: ClientError | None = None
        self._refreshed = False  # a token was renewed because one was refused, and none was accepted since
        self._connected = self._silent = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The shown rows in rank order, at most ten."""
        return self._subscription.board.entries

    @property
    def position(self) -> str:
        """Names the content of `entries`; opaque, the same on every node."""
        return self._subscription.board.position

    @property
    def current(self) -> Board:
        """Entries, position and time in one value."""
        return self._subscription.board

    @property
    def standing(self) -> Standing | None:
        """The user's score and rank; None without a token, and before the server has sent it."""
        return self._subscription.standing

    @property
    def viewers(self) -> int | None:
        """How many watch, on all nodes; None until the server has sent it."""
        return self._subscription.viewers

    @property
    def state(self) -> State:
        """`silent`: connected, but not even the promised heartbeats come. `stale`: the server can't read the board.

        `closed`: for good. While `connecting` the last board is still there.
        """
        if self._left or self._failure is not None:
            return "closed"
        if not (self._connected and self._subscription.is_subscribed):
            return "connecting"
        if self._silent:
            return "silent"
        return "stale" if self._subscription.stale_since else "live"

    def __aiter__(self) -> AsyncIterator[Board]:
        given = Board()

        def newest() -> Board | None:
            nonlocal given
            if given == self.current:
                return None
            given = self.current
            return given

        return Changes(newest, self.changed, self._checkpoint)

    @property
    def personal(self) -> AsyncIterator[Personal]:
        """Events of the user's own actions, in order, whoever submitted them; the last 16 are kept until fetched."""
        waiting = self._subscription.personal
        return Changes(lambda: waiting.popleft() if waiting else None, self.changed, self._checkpoint)

    async def changed(self) -> bool:
        """Waits for the next frame or change of `state`: True then, False when there will be none.

        Raises what ended the connection for good. Cancelling is safe: nothing is lost.
        """
        if self._failure is not None:
            raise self._failure
        if self._left:
            return False
        await self._changed.wait()
        return True

    # ---- what its task reports ---------------------------------------------------------------------------------------

    def on_frame(self) -> None:
        """A frame has been received."""
        self._connected, self._silent = True, False
        if self._subscription.is_subscribed:
            self._backoff.reset()
        if self._subscription.is_authenticated:
            self._refreshed = False
        self._notify()

    @property
    def silence_seconds(self) -> float:
        """How long to wait for the next frame until `on_silent`; inf where no heartbeats were promised."""
        promised = self._subscription.heartbeat_seconds
        return promised + HEARTBEAT_GRACE_SECONDS if promised else inf

    def on_silent(self) -> float:
        """No frame has come in that time. Returns for how many seconds more to wait; then the connection is dead."""
        self._silent = True
        self._notify()
        return chance.uniform(*SILENCE_TIMEOUT_SECONDS)

    def on_disconnected(self) -> None:
        """There is no connection now."""
        self._connected = self._silent = False
        self._notify()

    def on_lost(self, ending: Ending) -> Reconnect:
        """What to do after that end. With `refresh`, refresh the session, then ask `on_refreshed`. Raises the error
        when it was the last connection."""
        step = next_step(ending)
        if isinstance(step, ClientError):
            raise step
        if step.refresh and (not self._can_refresh or self._refreshed):
            raise Closed(CloseCode.TOKEN, CLOSE_REASONS[CloseCode.TOKEN])
        return step

    def on_refreshed(self, error: ClientError | None) -> Reconnect:
        """What to do after a refresh that was tried because a token was refused. Raises as `on_lost`."""
        if error is not None:
            return self.on_lost(error)
        self._refreshed = True
        return Reconnect()

    def pause(self, step: Reconnect) -> float:
        """Seconds until the next connection."""
        return self._backoff.next(step.retry_after)

    def fail(self, error: ClientError) -> None:
        """The board ended for good. The error is raised to whoever iterates."""
        self._failure = error
        self._notify()

    def mark_left(self) -> None:
        """The `connect` block has ended."""
        self._left = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = self._new_event()
