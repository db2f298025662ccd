"""One WebSocket connection to a server, on Trio, from its opening to its end. `following` decides what to do after the
end.

Tested in tests/client/test_live.py.
"""

import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from scoreboard.client import following
from scoreboard.client.addresses import ServerAddress
from scoreboard.client.backoff import seconds
from scoreboard.client.errors import ClientError
from scoreboard.client.following import BoardState, Disconnected, Ending, HandshakeRefused, most_relevant
from scoreboard.client.session import Session
from scoreboard.client.subscription import SubscriptionState, message
from scoreboard.client.tunnel import ProxyRefused, Stream, open_stream
from scoreboard.domain.actions import DECODE_ERRORS
from scoreboard.domain.paths import LIVE_PATH
from scoreboard.domain.protocol import SUBPROTOCOL

# What may end a connection; anything else is a bug. An OSError is the network's.
NETWORK_ERRORS = (
    OSError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    h11.RemoteProtocolError,
)
CONNECTION_ERRORS = (
    ConnectionClosed,
    HandshakeError,
    ProxyRefused,
    ProtocolError,
    *NETWORK_ERRORS,
    ClientError,
    *DECODE_ERRORS,
)


def ending_of(error: BaseException) -> Ending:
    """The Ending of a connection for an exception of the libraries."""
    match error:
        case ClientError():
            return error
        case ConnectionClosed(reason=reason) if reason is not None:
            return Disconnected(reason.code, reason.reason or "")
        case ConnectionRejected(status_code=status, headers=headers):
            named = {name.lower(): value.decode("latin-1") for name, value in headers or ()}
            return HandshakeRefused(status, seconds(named.get(b"retry-after")))
        case ProxyRefused(status=status, retry_after=retry_after):
            return HandshakeRefused(status, retry_after, "the proxy does not let the live connection through")
        case _:
            return Disconnected()


async def run_connection(
    address: ServerAddress,
    proxy: str | None,
    subscription: SubscriptionState,
    *,
    token: str | None,
    session: Session | None,
    scope: trio.CancelScope,
    board: BoardState,
) -> Ending | None:
    """Connects, subscribes and feeds the subscription; reports each frame and silence to `board`. Returns how it ended.

    Cancelling `scope` sends a Close frame and returns None; cancelling from outside closes the socket at once.
    """
    stream: Stream | None = None
    websocket: WebSocketConnection | None = None
    ending: Ending | None = None
    try:
        async with trio.open_nursery() as nursery:
            with scope:
                token = token if session is None else await session.token()
                with trio.fail_after(following.CONNECT_TIMEOUT_SECONDS):
                    stream = await open_stream(address, proxy)
                    websocket = await wrap_client_stream(
                        nursery,
                        stream,
                        address.authority,
                        LIVE_PATH,
                        subprotocols=[SUBPROTOCOL],
                        max_message_size=following.MAX_FRAME_BYTES,
                    )
                nursery.start_soon(_ping, websocket)
                if session is not None:
                    nursery.start_soon(_send_new_tokens, websocket, session)
                for text in subscription.opening(token):
                    await websocket.send_message(text)
                while True:
                    replies = subscription.receive(await _next_frame(websocket, board))
                    board.on_frame()
                    for text in replies:
                        await websocket.send_message(text)
            if websocket is not None:
                with trio.move_on_after(following.CLOSE_TIMEOUT_SECONDS):
                    await websocket.aclose()
            nursery.cancel_scope.cancel()
    except* CONNECTION_ERRORS as group:
        ending = ending_of(most_relevant(group, (ConnectionClosed, (HandshakeError, ProxyRefused))))
    finally:
        if stream is not None:  # the library leaves it open when the server closed first
            await trio.aclose_forcefully(stream)
    return ending


async def _next_frame(websocket: WebSocketConnection, board: BoardState) -> str | bytes:
    """The next frame. Raises TooSlowError for a server that has been silent too long."""
    with trio.move_on_after(board.silence_seconds):
        return await websocket.get_message()
    with trio.fail_after(board.on_silent()):
        return await websocket.get_message()


async def _ping(websocket: WebSocketConnection) -> None:
    """Pings until cancelled. Raises TooSlowError when no pong comes: the connection is dead."""
    while True:
        await trio.sleep(following.PING_INTERVAL_SECONDS)
        with trio.fail_after(following.PONG_TIMEOUT_SECONDS):
            await websocket.ping()


async def _send_new_tokens(websocket: WebSocketConnection, session: Session) -> None:
    """Sends each new token before the old one expires, so that the connection outlives them. Runs until cancelled."""
    while True:
        await trio.sleep_until(session.renewal)
        await websocket.send_message(message(action="auth", token=await session.token()))
