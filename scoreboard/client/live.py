"""The live board, on Trio: follows the server's board and reconnects after every failure. Read `connect` first.

`subscription` handles frames, `following` decides what to do after a connection's end, `connection` runs one
connection. One task connects again and again. The attributes that a caller reads change between two awaits, so they are
consistent and always the newest.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from scoreboard.client.addresses import ServerAddress, environment_proxy, parse_server_url
from scoreboard.client.base_live_board import BaseLiveBoard
from scoreboard.client.connection import run_connection
from scoreboard.client.errors import ClientError
from scoreboard.client.loops import require_loop
from scoreboard.client.session import Session
from scoreboard.client.subscription import Mode, SubscriptionState
from scoreboard.client.tunnel import check_proxy
from scoreboard.domain.boards import LEADERBOARD


class LiveBoard(BaseLiveBoard[Session]):  # its docstring is BoardState's
    def __init__(
        self,
        address: ServerAddress,
        proxy: str | None,
        subscription: SubscriptionState,
        token: str | None,
        session: Session | None,
    ) -> None:
        super().__init__(
            address, proxy, subscription, token, session, event=trio.Event, checkpoint=trio.lowlevel.checkpoint
        )
        self._scope = trio.CancelScope()  # of what the task waits for at the moment

    async def run(self) -> None:
        """Connects again and again; returns when left, or when to go on is pointless. Cancelling closes without a Close
        frame."""
        try:
            while not self._left:
                await self._once()
        except ClientError as exc:
            self.fail(exc)

    def leave(self) -> None:
        """Ends it: `run` sends a Close frame and returns."""
        self.mark_left()
        self._scope.cancel()

    async def _once(self) -> None:
        """A connection, and the wait after it. Raises ClientError when it was the last one."""
        ending = await run_connection(
            self._address,
            self._proxy,
            self._subscription,
            token=self._token,
            session=self._session,
            scope=self._until_left(),
            board=self,
        )
        self.on_disconnected()
        if self._left or ending is None:
            return
        step = self.on_lost(ending)
        with self._until_left():
            if step.refresh and self._session is not None:
                error: ClientError | None = None
                try:
                    await self._session.refresh()
                except ClientError as exc:
                    error = exc
                step = self.on_refreshed(error)
            await trio.sleep(self.pause(step))

    def _until_left(self) -> trio.CancelScope:
        """A scope that `leave` cancels."""
        self._scope = trio.CancelScope()
        if self._left:
            self._scope.cancel()
        return self._scope


def connect(
    url: str,
    token: str | None = None,
    *,
    session: Session | None = None,
    mode: Mode = "delta",
    channel: str = LEADERBOARD.id,
) -> AbstractAsyncContextManager[LiveBoard]:
    """Opens the live board of a server, and reconnects after every failure, until the block ends.

    `url`: http, https, ws or wss, without a path. With `session` the connection is its user's, outlives its tokens, and
    can `submit`; with `token` (an access token) it is a user's until that expires; with neither it only watches.
    `mode`: what goes over the wire, "full" or "delta"; the board is the same. An HTTP proxy of the environment is used
    as httpx would use it, with CONNECT, but never for this machine's loopback; a SOCKS proxy can't be used here.

    Enters the block when the first board is there, however long that takes: put a cancel scope round it to bound it.
    Raises, then and when iterated, Closed and Refused, and ValueError for an address that is none; an unreachable
    server is tried for ever. Leaving sends a Close frame and waits a second for its echo; cancelling closes at once.
    """
    require_loop("trio", "connect")
    address = parse_server_url(url)
    proxy = environment_proxy(address)
    check_proxy(proxy)
    return _connected(LiveBoard(address, proxy, SubscriptionState(channel, mode), token, session))


@asynccontextmanager
async def _connected(board: LiveBoard) -> AsyncIterator[LiveBoard]:
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(board.run)
        try:
            while not board.position:
                await board.changed()
            yield board
        except Exception as exc:  # noqa: BLE001
            # raised again below, outside of the nursery: it would come out of it as a group
            failure = exc
        finally:
            board.leave()
    if failure is not None:
        raise failure
