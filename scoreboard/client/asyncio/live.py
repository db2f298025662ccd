"""A board that a program on asyncio follows: `connect`.

Tested in tests/client/test_loops.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from math import inf

import websockets

from scoreboard.client import following
from scoreboard.client.addresses import (
    ServerAddress,
    environment_proxy,
    parse_server_url,
    proxy_scheme,
    tls_context,
)
from scoreboard.client.asyncio.session import Session
from scoreboard.client.backoff import seconds
from scoreboard.client.base_live_board import BaseLiveBoard
from scoreboard.client.errors import ClientError
from scoreboard.client.following import Disconnected, Ending, HandshakeRefused, Reconnect, most_relevant
from scoreboard.client.loops import require_loop
from scoreboard.client.subscription import Mode, SubscriptionState, message
from scoreboard.domain.actions import DECODE_ERRORS
from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.protocol import SUBPROTOCOL

SOCKS = frozenset({"socks4", "socks4a", "socks5", "socks5h"})

# What may end a connection; anything else is a bug. An OSError is the network's, a TimeoutError is one of them.
CONNECTION_ERRORS = (websockets.WebSocketException, EOFError, OSError, ClientError, *DECODE_ERRORS)


class _Connect(websockets.connect):
    """Follows no redirect. It is an error, as for the Trio client and for every other request."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def ending_of(error: BaseException) -> Ending:
    """The Ending of a connection for an exception of the libraries."""
    match error:
        case ClientError():
            return error
        case websockets.ConnectionClosed(rcvd=received) if received is not None:
            return Disconnected(received.code, received.reason)
        case websockets.InvalidStatus(response=response):
            return HandshakeRefused(response.status_code, seconds(response.headers.get("retry-after")))
        case websockets.InvalidProxyStatus(response=response):
            retry_after = seconds(response.headers.get("retry-after"))
            return HandshakeRefused(
                response.status_code, retry_after, "the proxy does not let the live connection through"
            )
        case _:
            return Disconnected()


class LiveBoard(BaseLiveBoard[Session]):  # its docstring is BoardState's
    def __init__(
        self,
        address: ServerAddress,
        proxy: str | None,
        subscription: SubscriptionState,
        token: str | None,
        session: Session | None,
    ) -> None:
        checkpoint = partial(asyncio.sleep, 0)
        super().__init__(address, proxy, subscription, token, session, event=asyncio.Event, checkpoint=checkpoint)
        self._task: asyncio.Task[None] | None = None  # that runs `run`
        self._leaving = False  # with a Close frame

    async def run(self) -> None:
        """Connects again and again; returns when left, or when to go on is pointless. Cancelling closes without a Close
        frame."""
        self._task = asyncio.current_task()
        try:
            while not self._left:
                await self._once()
        except ClientError as exc:
            self.fail(exc)
        except asyncio.CancelledError:
            if not self._left:
                raise
        finally:
            self._task = None

    def leave(self) -> None:
        """Ends it: `run` sends a Close frame and returns."""
        self.mark_left()
        self._leaving = True
        if self._task is not None:
            self._task.cancel()  # ends whatever it waits for

    async def _once(self) -> None:
        """A connection, and the wait after it. Raises ClientError when it was the last one."""
        try:
            ending = await self._run_connection()
        finally:
            self.on_disconnected()
        # A connection that fails in the step in which `leave` cancels it returns its end: the cancellation is lost.
        if self._left:
            return
        step = self.on_lost(ending)
        if step.refresh and self._session is not None:
            error: ClientError | None = None
            try:
                await self._session.refresh()
            except ClientError as exc:
                error = exc
            step = self.on_refreshed(error)
        await self._wait(step)

    async def _wait(self, step: Reconnect) -> None:
        """Waits until the next connection. Does not wait when the board was left meanwhile: a refresh that fails loses
        the cancellation too."""
        if not self._left:
            await asyncio.sleep(self.pause(step))

    async def _run_connection(self) -> Ending:
        """Connects, subscribes, and feeds the subscription until the connection ends: returns its end.

        Cancelled by `leave` it sends a Close frame and waits CLOSE_TIMEOUT_SECONDS for the echo; cancelled otherwise it
        closes at once.
        """
        websocket: websockets.ClientConnection | None = None
        try:
            token = self._token if self._session is None else await self._session.token()
            websocket = await _Connect(
                self._address.websocket_url,
                subprotocols=[websockets.Subprotocol(SUBPROTOCOL)],
                compression=None,  # a frame has 1 to 4 kB
                proxy=self._proxy,
                ssl=tls_context() if self._address.secure else None,
                open_timeout=following.CONNECT_TIMEOUT_SECONDS,
                ping_interval=following.PING_INTERVAL_SECONDS,
                ping_timeout=following.PONG_TIMEOUT_SECONDS,
                close_timeout=following.CLOSE_TIMEOUT_SECONDS,
                max_size=following.MAX_FRAME_BYTES,
            )
            async with asyncio.TaskGroup() as group:
                if self._session is not None:
                    group.create_task(_send_new_tokens(websocket, self._session))
                group.create_task(self._receive(websocket, token))
        except CONNECTION_ERRORS as exc:
            return ending_of(exc)
        except BaseExceptionGroup as errors:
            expected, bugs = errors.split(CONNECTION_ERRORS)
            if bugs is not None or expected is None:
                raise
            return ending_of(most_relevant(expected, (websockets.ConnectionClosed,)))
        except asyncio.CancelledError:
            if self._leaving and websocket is not None:
                await websocket.close()
            raise
        finally:
            if websocket is not None:
                websocket.transport.abort()
        raise AssertionError("the tasks of a connection end by an exception only")

    async def _receive(self, websocket: websockets.ClientConnection, token: str | None) -> None:
        for text in self._subscription.opening(token):
            await websocket.send(text)
        while True:
            replies = self._subscription.receive(await self._next_frame(websocket))
            self.on_frame()
            for text in replies:
                await websocket.send(text)

    async def _next_frame(self, websocket: websockets.ClientConnection) -> str | bytes:
        """Raises TimeoutError for a server that has been silent too long."""
        silence = self.silence_seconds
        try:
            async with asyncio.timeout(None if silence == inf else silence):
                return await websocket.recv()
        except TimeoutError:
            async with asyncio.timeout(self.on_silent()):
                return await websocket.recv()


async def _send_new_tokens(websocket: websockets.ClientConnection, session: Session) -> None:
    """Sends each new token before the old one expires, so that the connection outlives them. Runs until cancelled."""
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(max(0.0, session.renewal - now()))
        if session.is_due:  # no other task has refreshed it, and the loop did not wake a moment early
            await websocket.send(message(action="auth", token=await session.token()))


# ---- connecting ------------------------------------------------------------------------------------------------------


def check_proxy(proxy: str | None) -> None:
    """Raises ValueError, in one line, for a proxy that can't be used for a live connection."""
    scheme = "http" if proxy is None else proxy_scheme(proxy)
    if scheme in SOCKS and find_spec("python_socks") is None:
        raise ValueError(
            f"a live connection through a {scheme} proxy needs the package python-socks: install it or set NO_PROXY"
        )
    if scheme not in {"http", "https", *SOCKS}:
        raise ValueError(f"a live connection does not go through {scheme} proxies: set NO_PROXY")


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
    `mode`: what goes over the wire, "full" or "delta"; the board is the same. A proxy of the environment is used as
    httpx would use it, but never for this machine's loopback; a SOCKS proxy needs the package python-socks.

    Enters the block when the first board is there, however long that takes: put `asyncio.timeout` round it to bound it.
    Raises, then and when iterated, Closed and Refused, and ValueError for an address that is none; an unreachable
    server is tried for ever. Leaving sends a Close frame and waits a second for its echo; cancelling closes at once.
    """
    require_loop("asyncio", "connect")
    address = parse_server_url(url)
    proxy = environment_proxy(address)
    check_proxy(proxy)
    return _connected(LiveBoard(address, proxy, SubscriptionState(channel, mode), token, session))


@asynccontextmanager
async def _connected(board: LiveBoard) -> AsyncIterator[LiveBoard]:
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        group.create_task(board.run())
        try:
            while not board.position:
                await board.changed()
            yield board
        except Exception as exc:  # noqa: BLE001
            # raised again below, outside of the group: it would come out of it as a group
            failure = exc
            board.leave()
        except BaseException:  # a cancellation, mostly: the group cancels `run`
            board.mark_left()
            raise
        else:
            board.leave()
    if failure is not None:
        raise failure
