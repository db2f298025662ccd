"""What the listeners do with requests: `PublicHandlers` (the public port, and the console's) and `MetricsHandlers`.

Both implement `http.handlers.RequestHandlers`. The composition root builds them; nothing is started here.

Tested in tests/e2e/test_front_line.py.
"""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from scoreboard.domain.errors import NOT_FOUND, Code, Refusal
from scoreboard.domain.paths import LIVE_PATH
from scoreboard.http.asgi import Asgi
from scoreboard.http.handlers import FastHandler, Handler
from scoreboard.http.request import BODY_BYTES, Request, Response
from scoreboard.http.response_writer import ResponseWriter
from scoreboard.settings.model import Settings
from scoreboard.web.access_log import NONE, AccessLog
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.connection_limits import ConnectionLimits
from scoreboard.web.cors import Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.large_bodies import LargeBodyLimits
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.problems import error_response, problem
from scoreboard.web.rate_limit import USERS_LIMIT_FACTOR, RateLimitMiddleware
from scoreboard.web.route import DirectTable, Route, build_direct_table, build_fast_table, query_parameters

BODY_TOO_LARGE = Refusal(Code.PAYLOAD_TOO_LARGE, f"a body may have {BODY_BYTES} bytes")


class WebSocketEndpoint(Protocol):
    """`live.transports.websocket.WebSocketEndpoint`, which web must not import."""

    def serve(self, request: Request) -> Awaitable[None]:
        """Runs a WebSocket on the request's socket."""


class WebParts(NamedTuple):
    """The objects that routes, live transports and listeners share."""

    origins: Origins
    addresses: Addresses
    heads: ResponseHeaders
    bearer: Bearer


class PublicHandlers:
    """The public port: rate limits, connection limits, an access log, pages for errors. The console's port, if it has
    one, is the same without WebSockets."""

    __slots__ = (
        "_access_log",
        "_application",
        "_connections",
        "_error_pages",
        "_headers",
        "_large_bodies",
        "_middleware",
        "_websockets",
        "access_log_from",
        "direct",
        "fast",
        "live_path",
    )

    def __init__(
        self,
        *,
        direct: Mapping[tuple[bytes, bytes], Handler],
        fast: Mapping[tuple[bytes, bytes], FastHandler],
        websockets: WebSocketEndpoint | None,
        application: Asgi,
        headers: ResponseHeaders,
        middleware: RateLimitMiddleware,
        connections: ConnectionLimits,
        error_pages: ErrorPages,
        access_log: AccessLog,
        large_bodies: LargeBodyLimits,
    ) -> None:
        self.direct, self.fast = direct, fast
        self.live_path = LIVE_PATH.encode() if websockets else b""
        self._websockets, self._application = websockets, application
        self._middleware, self._connections, self._error_pages = middleware, connections, error_pages
        self.access_log_from = access_log.lowest_status
        self._headers, self._access_log, self._large_bodies = headers, access_log, large_bodies

    def run_middleware(self, request: Request) -> Response | None:
        return self._middleware.check_request(request)

    def write_head(self, request: Request, status: int, fields: bytes, length: int | None) -> bytes:
        return self._headers.write(request, status, fields, length)

    def log_access(self, request: Request, status: int, seconds: float) -> None:
        self._access_log.write(request, status, seconds)

    def problem(self, refusal: Refusal, request_id: bytes) -> Response:
        return problem(refusal, request_id)

    def error_response(self, request: Request, exc: Exception) -> Response:
        return error_response(request, exc)

    def error_page(self, request: Request, response: Response) -> Response:
        return self._error_pages.of(request, response)

    def reserve_large_body(self, request: Request, size: int) -> Refusal | None:
        return self._large_bodies.reserve(request, size)

    def release_large_body(self, request: Request) -> None:
        self._large_bodies.release(request)

    def on_malformed(self, request: Request) -> None:
        self._middleware.count_malformed(request)

    def serve_websocket(self, request: Request) -> Awaitable[None]:
        assert self._websockets is not None  # no request is upgraded without a live_path
        return self._websockets.serve(request)

    def answer_by_application(self, writer: ResponseWriter, request: Request) -> Awaitable[bool]:
        return self._application.answer(writer, request)

    def peer_group(self, address: str) -> str:
        return self._connections.peer_group(address)

    def admit_connection(self, peer_group: str) -> bool:
        return self._connections.admit(peer_group)

    def release_connection(self, peer_group: str) -> None:
        self._connections.release(peer_group)


class MetricsHandlers:
    """The port of the metrics, which clients do not reach: probes and nothing else, without limits and access log."""

    __slots__ = ("_headers", "access_log_from", "direct", "fast", "live_path")

    def __init__(self, headers: ResponseHeaders, probes: DirectTable) -> None:
        self.direct: Mapping[tuple[bytes, bytes], Handler] = probes
        self.fast: Mapping[tuple[bytes, bytes], FastHandler] = {}
        self.live_path = b""
        self.access_log_from = NONE
        self._headers = headers

    def write_head(self, request: Request, status: int, fields: bytes, length: int | None) -> bytes:
        return self._headers.write(request, status, fields, length)

    def run_middleware(self, request: Request) -> Response | None:
        return None

    def problem(self, refusal: Refusal, request_id: bytes) -> Response:
        return problem(refusal, request_id)

    def error_response(self, request: Request, exc: Exception) -> Response:
        return error_response(request, exc)

    def error_page(self, request: Request, response: Response) -> Response:
        return response

    def log_access(self, request: Request, status: int, seconds: float) -> None:
        """Never called: see `access_log_from`."""

    def reserve_large_body(self, request: Request, size: int) -> Refusal | None:
        return BODY_TOO_LARGE

    def release_large_body(self, request: Request) -> None:
        """None is ever reserved."""

    def on_malformed(self, request: Request) -> None:
        """Not counted: this port has no limits."""

    async def serve_websocket(self, request: Request) -> None:
        raise AssertionError("no request is upgraded without a live_path")

    async def answer_by_application(self, writer: ResponseWriter, request: Request) -> bool:
        """All other paths: 404."""
        keep_alive = writer.write_nowait(request, problem(NOT_FOUND, request.request_id))
        await writer.flush()
        return keep_alive

    def peer_group(self, address: str) -> str:
        return address

    def admit_connection(self, peer_group: str) -> bool:
        return True

    def release_connection(self, peer_group: str) -> None:
        """NoContent is counted."""


def build_public_handlers(
    settings: Settings,
    parts: WebParts,
    routes: Sequence[Route],
    error_pages: ErrorPages,
    *,
    files: Collection[str],
    websockets: WebSocketEndpoint | None,
    application: Asgi,
) -> PublicHandlers:
    """`PublicHandlers` of these routes with the limits of the settings. `files`: paths of files in memory;
    `websockets`: None for a listener without."""
    per_minute = settings.limits.ip_per_minute
    most = settings.server.most_connections_per_ip(settings.live.connections_per_ip)
    connections = ConnectionLimits(parts.addresses, most, USERS_LIMIT_FACTOR * per_minute)
    middleware = RateLimitMiddleware(
        parts.heads,
        parts.origins,
        parts.addresses,
        connections,
        per_minute,
        files=files,
        parameters=query_parameters(routes),
        bearer=parts.bearer,
        server_key_per_minute=settings.limits.server_key_per_minute,
        wrong_keys_per_minute=settings.limits.login_ip,
    )
    return PublicHandlers(
        direct=build_direct_table(routes),
        fast=build_fast_table(routes),
        websockets=websockets,
        application=application,
        headers=parts.heads,
        middleware=middleware,
        connections=connections,
        error_pages=error_pages,
        access_log=AccessLog(parts.addresses, settings.log.access),
        large_bodies=LargeBodyLimits(routes, parts.bearer.caller_of),
    )
