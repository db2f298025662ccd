"""What a listener does with requests and connections: the Protocol `RequestHandlers`, which http calls.

`web.listeners` implements it, one class a listener, and http calls it by name. Go-to-definition leads from here to
`web.listeners`, and from there to the rate limiter, the headers and the access log. Each method of `web.listeners`
passes the call on; that costs 0.01 µs, and a fast request takes 10 µs.

Bare callables remain where a route is looked up: `direct` and `fast` are mappings from (method, path) to a method.

Tested in tests/http/test_fast_path.py.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Protocol

from scoreboard.domain.errors import Refusal
from scoreboard.http.request import Request, Response
from scoreboard.http.response_writer import ResponseFormat, ResponseWriter

Handler = Callable[[Request], Awaitable[Response | None]]
"""Answers a request of the direct table. None: it has taken `request.socket` over (a stream), and the connection ends
when it returns.

A handler of GET is called for HEAD too, and its body is left out. One that takes the socket over must check
`request.method` itself.
"""


class Deferred(Enum):
    """What a fast handler returns that responds later, without a task that waits."""

    DEFERRED = "deferred"


DEFERRED = Deferred.DEFERRED

RespondCallback = Callable[[Callable[[], Response]], None]
"""Calls the function that it is given, and writes the response that the function returns. An exception of the function
is answered as if the handler had raised it. Never raises, never waits."""

FastHandler = Callable[[Request, RespondCallback], Response | Deferred | None]
"""Answers a request of the fast table without waiting.

DEFERRED: the handler calls `respond` once, whatever happens meanwhile, and only after it has returned. Until then the
connection answers nothing else. None: it cannot answer, and the handler of the direct table is called.
"""


class RequestHandlers(ResponseFormat, Protocol):
    """All that http asks of a listener. Only the two methods that return an awaitable may wait."""

    direct: Mapping[tuple[bytes, bytes], Handler]  # by (method, path without query)
    fast: Mapping[tuple[bytes, bytes], FastHandler]  # some of the same routes, never HEAD
    live_path: bytes  # of WebSockets; b"": there are none
    access_log_from: int  # the lowest status that `log_access` is called for

    # ---- a request --------------------------------------------------------------------------------------------------

    def run_middleware(self, request: Request, /) -> Response | None:
        """Called first for each request. A response ends the request; None passes it on to its handler."""

    def error_response(self, request: Request, exc: Exception, /) -> Response:
        """The response to a request whose handler raised. It also logs the exception."""

    def log_access(self, request: Request, status: int, seconds: float, /) -> None:
        """A request was answered with `status`, `seconds` after it was complete."""

    def reserve_large_body(self, request: Request, size: int, /) -> Refusal | None:
        """Whether a body of `size` bytes, which is more than request.BODY_BYTES, is accepted: None, or why not. Called
        when the head is complete, before the middleware. After None `release_large_body` is called once."""

    def release_large_body(self, request: Request, /) -> None:
        """The body of that request has come, or never will."""

    def on_malformed(self, request: Request, /) -> None:
        """Bytes came that are not a valid request. Of `request` only the socket is sure to be set."""

    def serve_websocket(self, request: Request, /) -> Awaitable[None]:
        """Runs a WebSocket on `request.socket`, whose `unread_buffer` holds the head and what followed it."""

    def answer_by_application(self, writer: ResponseWriter, request: Request, /) -> Awaitable[bool]:
        """Answers what is in no table. True when the connection can go on."""

    # ---- a connection -----------------------------------------------------------------------------------------------

    def peer_group(self, address: str, /) -> str:
        """The key under which connections of that address are counted, take turns and are evicted. Called once a
        connection, as it is accepted."""

    def admit_connection(self, peer_group: str, /) -> bool:
        """Whether one more connection of that group is accepted. If so, `release_connection` is called once."""

    def release_connection(self, peer_group: str, /) -> None:
        """A connection that was admitted has ended."""
