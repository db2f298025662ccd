"""Routes that http1 answers without ASGI, or even without waking the connection's task.

Nearly all are Quart routes too, with the same handlers. The event stream and the long poll are not: one keeps its
Socket, and thousands of either wait at the same time.
"""

from collections.abc import Callable, Mapping

from scoreboard.domain.errors import METHOD_NOT_ALLOWED, Code, Refusal
from scoreboard.domain.paths import (
    LEADERBOARD_PATH,
    LIVE_PATH,
    LIVEZ_PATH,
    METRICS_PATH,
    OPENAPI_PATH,
    PAGE_PATH,
    POLL_PATH,
    READYZ_PATH,
    STREAM_PATH,
    SUBMIT_PATH,
)
from scoreboard.http.handlers import FastHandler, Handler
from scoreboard.http.request import Request, Response
from scoreboard.web.pages.site import PageRoutes
from scoreboard.web.problems import problem
from scoreboard.web.routes.health import HealthRoutes
from scoreboard.web.routes.scores import ScoreRoutes

UPGRADE_REQUIRED = Refusal(
    Code.UPGRADE_REQUIRED, "This is a WebSocket, version 13. /api/v1/scores/stream has the same as plain HTTP."
)
# RFC 9110 section 15.5.22, RFC 6455 section 4.4
UPGRADE = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"

# All that llhttp knows besides GET and HEAD. Any other is no valid request.
OTHER_METHODS = (
    *(
        "DELETE",
        "POST",
        "PUT",
        "OPTIONS",
        "TRACE",
        "COPY",
        "LOCK",
        "MKCOL",
        "MOVE",
        "PROPFIND",
        "PROPPATCH",
        "SEARCH",
        "UNLOCK",
        "BIND",
    ),
    *(
        "REBIND",
        "UNBIND",
        "ACL",
        "REPORT",
        "MKACTIVITY",
        "CHECKOUT",
        "MERGE",
        "M-SEARCH",
        "NOTIFY",
        "SUBSCRIBE",
        "UNSUBSCRIBE",
        "PATCH",
    ),
    *("PURGE", "MKCALENDAR", "LINK", "UNLINK", "SOURCE", "QUERY"),
)

Table = dict[tuple[bytes, bytes], Handler]


def build_direct_table(scores: ScoreRoutes) -> Table:
    """(method, path) → handler."""
    return {(b"POST", SUBMIT_PATH.encode()): scores.submit, (b"GET", LEADERBOARD_PATH.encode()): scores.leaderboard}


def build_live_table(stream: Handler, poll: Handler, refuses_live: Callable[[Request], Refusal | None]) -> Table:
    """The same for what only http1 can answer. On the live path: what is no handshake.

    `refuses_live`: why a handshake would find no place now. A page whose WebSocket was closed asks here, as its script
    can't read why.
    """

    async def upgrade_required(request: Request) -> Response:
        refusal = refuses_live(request)
        return problem(refusal or UPGRADE_REQUIRED, request.request_id, fields=b"" if refusal else UPGRADE)

    return only_get({STREAM_PATH: stream, POLL_PATH: poll, LIVE_PATH: upgrade_required})


def build_plain_table(pages: PageRoutes, description: Handler) -> Table:
    """The same for the page, its files and the API's description: bytes at hand."""
    return only_get({PAGE_PATH: pages.index, OPENAPI_PATH: description} | dict.fromkeys(pages.paths, pages.file))


def build_probe_table(health: HealthRoutes, *, metrics: bool) -> Table:
    """The same for what orchestrators and, unless it asks elsewhere, Prometheus ask."""
    paths: dict[str, Handler] = {LIVEZ_PATH: health.livez, READYZ_PATH: health.readyz}
    return only_get(paths | ({METRICS_PATH: health.metrics} if metrics else {}))


def only_get(paths: Mapping[str, Handler]) -> Table:
    """The table of these GET routes: other methods are refused as Quart does."""
    refused: Table = {(method.encode(), path.encode()): _not_allowed for path in paths for method in OTHER_METHODS}
    return refused | {(b"GET", path.encode()): handler for path, handler in paths.items()}


async def _not_allowed(request: Request) -> Response:
    return problem(METHOD_NOT_ALLOWED, request.request_id, fields=b"allow: GET, HEAD\r\n")


def build_fast_table(scores: ScoreRoutes, poll: FastHandler) -> dict[tuple[bytes, bytes], FastHandler]:
    """(method, path) → what needs no task to wait."""
    return {
        (b"POST", SUBMIT_PATH.encode()): scores.submit_fast,
        (b"GET", LEADERBOARD_PATH.encode()): scores.leaderboard_fast,
        (b"GET", POLL_PATH.encode()): poll,
    }


def build_fast_probes(health: HealthRoutes) -> dict[tuple[bytes, bytes], FastHandler]:
    """The same for the probes: they are answered whatever the node is busy with."""
    return {
        (b"GET", LIVEZ_PATH.encode()): lambda _request, _reply: health.alive(),
        (b"GET", READYZ_PATH.encode()): lambda _request, _reply: health.ready(),
    }
