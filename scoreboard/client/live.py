"""The live board: follows the server's, and comes back after whatever happened. `connect` is the way in.

What frames mean is `protocol`'s, what a connection does and what follows from its end `connection`'s. One task connects again and again;
everything that a caller reads is set between two awaits and always the newest known.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

import trio

from scoreboard.client.backoff import Backoff
from scoreboard.client.board import Board
from scoreboard.client.connection import Again, converse, verdict
from scoreboard.client.errors import ClientError, Closed
from scoreboard.client.protocol import Follower, Mode, Personal, Standing
from scoreboard.client.session import Outcome, Session
from scoreboard.domain.boards import LEADERBOARD, Entry
from scoreboard.domain.wire import WORDS, CloseCode

State = Literal["connecting", "live", "stale", "closed"]
T = TypeVar("T")


class Changes(Generic[T]):
    """An endless `async for`: `take` gives the next value or None, `changed` waits until there may be one and says whether to go on."""

    def __init__(self, take: Callable[[], T | None], changed: Callable[[], Awaitable[bool]]) -> None:
        self._take, self._changed = take, changed

    def __aiter__(self) -> "Changes[T]":
        return self

    async def __anext__(self) -> T:
        await trio.lowlevel.checkpoint()
        while (value := self._take()) is None:
            if not await self._changed():
                raise StopAsyncIteration
        return value


class LiveBoard:
    """A board that follows the server's. Made by `connect`, which calls `run` and `leave`.

    `async for update in board` gives a `Board` at once and after each change; whoever is slow gets the newest, not each. It ends with the
    `connect` block and raises what ended the connection for good: Closed, Refused. `board.personal` gives each event of one's own actions.
    Any number of tasks may iterate; a personal event goes to one of them.
    """

    def __init__(self, address: SplitResult, follower: Follower, token: str | None, session: Session | None) -> None:
        self._address, self._follower, self._token, self._session = address, follower, token, session
        self._changed = trio.Event()  # replaced when it is set
        self._scope = trio.CancelScope()  # of what the task waits for at the moment
        self._backoff = Backoff()
        self._left = False
        self._failure: ClientError | None = None
        self._renewed = False  # a token was renewed because one was refused, and none was accepted since
        self._connected = False

    # ---- what is known ----------------------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The shown rows in rank order, at most ten."""
        return self._follower.board.entries

    @property
    def position(self) -> str:
        """Names the content of `entries`; opaque, the same on every node."""
        return self._follower.board.position

    @property
    def current(self) -> Board:
        """Entries, position and time in one value."""
        return self._follower.board

    @property
    def standing(self) -> Standing | None:
        """The user's score and rank; None without a token and before the server has told."""
        return self._follower.standing

    @property
    def viewers(self) -> int | None:
        """How many watch, on all nodes; None until the server has told."""
        return self._follower.viewers

    @property
    def state(self) -> State:
        """`stale`: connected, but the server can't read the board. `closed`: for good. While `connecting` the last board is still there."""
        if self._left or self._failure is not None:
            return "closed"
        if not (self._connected and self._follower.is_subscribed):
            return "connecting"
        return "stale" if self._follower.stale_since else "live"

    def __aiter__(self) -> AsyncIterator[Board]:
        given = Board()

        def newest() -> Board | None:
            nonlocal given
            if given == self.current:
                return None
            given = self.current
            return given

        return Changes(newest, self.changed)

    @property
    def personal(self) -> AsyncIterator[Personal]:
        """Events of the user's own actions, in order, whoever submitted them; the last 16 are kept until fetched."""
        waiting = self._follower.personal
        return Changes(lambda: waiting.popleft() if waiting else None, self.changed)

    async def changed(self) -> bool:
        """Waits for the next frame or change of `state`: True then, False when there will be none.

        Raises what ended the connection for good.
        """
        if self._failure is not None:
            raise self._failure
        if self._left:
            return False
        await self._changed.wait()
        return True

    async def submit(self, action_type: str, metadata: Mapping[str, Any] | None = None, *, action_id: str | None = None) -> Outcome:
        """`Session.submit` of the session that the board was connected with; RuntimeError without one."""
        if self._session is None:
            raise RuntimeError("a board without a session is read-only: connect(url, session=…)")
        return await self._session.submit(action_type, metadata, action_id=action_id)

    # ---- its task ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connects again and again; returns when left, or when to go on is pointless. Cancelling closes without a Close frame."""
        try:
            while not self._left:
                await self._once()
        except ClientError as exc:
            self._failure = exc
        self._tell()

    def leave(self) -> None:
        """Ends it: `run` says good-bye and returns."""
        self._left = True
        self._scope.cancel()
        self._tell()

    async def _once(self) -> None:
        """A connection, and the wait after it. Raises ClientError when it was the last one."""
        scope, token, session = self._while_here(), self._token, self._session
        ending = await converse(self._address, self._follower, token=token, session=session, scope=scope, on_frame=self._heard)
        self._connected = False
        self._tell()
        if self._left:
            return
        after = verdict(ending)
        if isinstance(after, Again) and after.renew:
            if session is None or not session.credentials.refreshToken or self._renewed:
                raise Closed(CloseCode.TOKEN, WORDS[CloseCode.TOKEN])
            with self._while_here():
                try:
                    await session.refresh()
                    self._renewed, after = True, Again()
                except ClientError as exc:
                    after = verdict(exc)
        if isinstance(after, ClientError):
            raise after
        with self._while_here():
            await trio.sleep(self._backoff.next(after.retry_after))

    def _while_here(self) -> trio.CancelScope:
        """A scope that `leave` cancels."""
        self._scope = trio.CancelScope()
        if self._left:
            self._scope.cancel()
        return self._scope

    def _heard(self) -> None:
        self._connected = True
        if self._follower.is_subscribed:
            self._backoff.reset()
        if self._follower.is_authenticated:
            self._renewed = False
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def connect(
    url: str, token: str | None = None, *, session: Session | None = None, mode: Mode = "delta", channel: str = LEADERBOARD.id
) -> AsyncIterator[LiveBoard]:
    """Opens the live board of a server and keeps it open, whatever happens in between, until the block is left.

    `url`: http, https, ws or wss, without a path. With `session` the connection is its user's, outlives its tokens, and can `submit`; with
    `token` (an access token) it is a user's until that expires; with neither it only watches. `mode`: what goes over the wire, "full" or
    "delta"; the board is the same.

    Enters the block when the first board is there, however long that takes: put a cancel scope round it to bound it. Raises, then and when
    iterated, Closed and Refused, and ValueError for an address that is none; an unreachable server is tried for ever. Leaving sends a Close
    frame and waits a second for its echo; cancelling closes at once.
    """
    address = urlsplit(url)
    if address.scheme not in {"http", "https", "ws", "wss"} or not address.hostname:
        raise ValueError(f"not the address of a server: {url}")
    board = LiveBoard(address, Follower(channel, mode), token, session)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(board.run)
        try:
            while not board.position:
                await board.changed()
            yield board
        except Exception as exc:  # noqa: BLE001 – raised again below, outside of the nursery: it would come out of it as a group
            failure = exc
        finally:
            board.leave()
    if failure is not None:
        raise failure
