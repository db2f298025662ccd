"""One WebSocket connection to a server, from its opening to its end, and what may follow from that end.

`converse` holds the connection for a Follower; `verdict` is the pure part: connect again (and when), renew the token first, or give up.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from scoreboard.client.backoff import may_reconnect, seconds
from scoreboard.client.errors import ClientError, Closed, Refused, Unreachable
from scoreboard.client.protocol import Follower, say
from scoreboard.client.session import Session
from scoreboard.domain.actions import DECODE_ERRORS
from scoreboard.domain.wire import SUBPROTOCOL, CloseCode

PATH = "/api/v1/scores/live"
CONNECT_SECONDS = 10.0  # for TCP, TLS and the handshake
HEARTBEAT_SECONDS = 20.0  # between two pings; the server closes after 60 s of silence
PONG_SECONDS = 10.0  # no answer to a ping in this time: the connection is dead, whatever TCP says
CLOSING_SECONDS = 1.0  # for the echo of our Close
FRAME_BYTES = 65_536  # a board is 1 to 4 kB; more is not from our server
AGAIN_LATER = frozenset({408, 425, 429})  # statuses that pass with time, beside all 5xx

# What ends a connection and is nobody's bug; an OSError is the network's.
ENDINGS = (
    *(ConnectionClosed, HandshakeError, ProtocolError, OSError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError),
    *(ClientError, *DECODE_ERRORS),
)


# ---- pure: what follows from an end -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Again:
    """Connect again, not before `retry_after` seconds have passed if the server named them; with `renew` under a new token only."""

    retry_after: float | None = None
    renew: bool = False


def verdict(ending: BaseException | None) -> Again | ClientError:
    """What to do after a connection that ended so (None: we left it): the error is what a caller is told if that was the last one."""
    match ending:
        case ConnectionClosed(reason=reason):
            code, words = (reason.code, reason.reason or "") if reason else (None, "")
            if code is None or may_reconnect(code):
                return Again()
            return Again(renew=True) if code == CloseCode.TOKEN else Closed(code, words)
        case ConnectionRejected(status_code=status, headers=headers):
            named = {name.lower(): value for name, value in headers or ()}
            retry_after = seconds(named[b"retry-after"].decode("latin-1")) if b"retry-after" in named else None
            if _passes(status):
                return Again(retry_after)
            return Refused(status, detail="the server does not open a live connection", retry_after=retry_after)
        case Unreachable():  # a token could not be renewed for want of a network
            return Again()
        case Refused(status=status, retry_after=retry_after) if _passes(status):
            return Again(retry_after)
        case ClientError():
            return ending
        case _:
            return Again()


def _passes(status: int) -> bool:
    """Whether a refusal is over after a while."""
    return status >= 500 or status in AGAIN_LATER


def telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception of a group that says most: an error of ours, then a Close or a refusal, then what followed from these."""
    leaves = [telling(exc) if isinstance(exc, BaseExceptionGroup) else exc for exc in group.exceptions]
    return min(leaves, key=_weight)


def _weight(exc: BaseException) -> int:
    return 0 if isinstance(exc, ClientError) else 1 if isinstance(exc, ConnectionClosed | HandshakeError) else 2


# ---- the connection -----------------------------------------------------------------------------------------------------


async def converse(
    address: SplitResult,
    follower: Follower,
    *,
    token: str | None,
    session: Session | None,
    scope: trio.CancelScope,
    on_frame: Callable[[], None],
) -> BaseException | None:
    """Connects, subscribes, and feeds the follower, calling `on_frame` after each frame, until the connection ends: returns what ended it.

    Cancelling `scope` leaves politely, with a Close frame, and returns None; cancelling from outside closes the socket at once.
    """
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] | None = None
    websocket: WebSocketConnection | None = None
    ending: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            with scope:
                token = token if session is None else await session.token()
                with trio.fail_after(CONNECT_SECONDS):
                    stream = await _open(address)
                    host = address.netloc.rpartition("@")[2]
                    websocket = await wrap_client_stream(
                        nursery, stream, host, PATH, subprotocols=[SUBPROTOCOL], max_message_size=FRAME_BYTES
                    )
                nursery.start_soon(_beat, websocket)
                if session is not None:
                    nursery.start_soon(_renew, websocket, session)
                for message in follower.opening(token):
                    await websocket.send_message(message)
                while True:
                    replies = follower.receive(await websocket.get_message())
                    on_frame()
                    for message in replies:
                        await websocket.send_message(message)
            if websocket is not None:
                with trio.move_on_after(CLOSING_SECONDS):
                    await websocket.aclose()
            nursery.cancel_scope.cancel()
    except* ENDINGS as group:
        ending = telling(group)
    finally:
        if stream is not None:  # the library leaves it open when the server closed first
            await trio.aclose_forcefully(stream)
    return ending


async def _open(address: SplitResult) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    host, secure = address.hostname or "", address.scheme in {"https", "wss"}
    port = address.port or (443 if secure else 80)
    if secure:
        return await trio.open_ssl_over_tcp_stream(host, port, ssl_context=ssl.create_default_context(), https_compatible=True)
    return await trio.open_tcp_stream(host, port)


async def _beat(websocket: WebSocketConnection) -> None:
    """Pings for ever, so that a dead connection is noticed. Raises TooSlowError then."""
    while True:
        await trio.sleep(HEARTBEAT_SECONDS)
        with trio.fail_after(PONG_SECONDS):
            await websocket.ping()


async def _renew(websocket: WebSocketConnection, session: Session) -> None:
    """Tells the server each new token before the old one ends, for ever, so that the connection outlives them."""
    while True:
        await trio.sleep_until(session.renewal)
        await websocket.send_message(say(action="auth", token=await session.token()))
