"""The API's description: what each Quart route takes and gives, as an OpenAPI document made by quart-schema.

Only described here: requests are decoded by the routes themselves (quart-schema's validators cost 270 µs a request).
`describe` is called once for each route, by `application`; the event stream and the long poll, which Quart does not
know, are `LIVE`.
"""

import gzip
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta
from quart_schema import (
    HttpSecurityScheme,
    Info,
    OpenAPIProvider,
    QuartSchema,
    document_headers,
    document_querystring,
    document_request,
    document_response,
    security_scheme,
)

from scoreboard import __version__
from scoreboard.domain.actions import ACTION_ID_LENGTH, ACTION_TYPE_LENGTH, TIMESTAMP_LENGTH, USER_ID_LENGTH
from scoreboard.domain.boards import LEADERBOARD, READ_SIZE, TOP_SIZE, Entry
from scoreboard.domain.etags import strong_etag
from scoreboard.domain.paths import POLL_PATH, STREAM_PATH
from scoreboard.domain.protocol import CHANNEL_LENGTH
from scoreboard.domain.queries import QUERY_BYTES
from scoreboard.http.request import Request, Response
from scoreboard.operations.sessions import LoggedIn
from scoreboard.web.pages.site import GZIPPED, accepts_gzip
from scoreboard.web.problems import Problem
from scoreboard.web.responses import JSON
from scoreboard.web.routes.scores import Scored, conditional
from scoreboard.web.routes.users import Me

EVERYWHERE = (400, 413, 429, 500, 503)  # what any route may answer, besides what is told of it
REFERENCE = "#/components/schemas/{name}"

View = Callable[..., Any]


# ---- bodies that exist only as bytes elsewhere ----------------------------------------------------------------------


class LoggedInAnswer(msgspec.Struct):
    """Logged in. A browser finds the refresh token in a cookie instead."""

    success: bool
    data: LoggedIn


class MeAnswer(msgspec.Struct):
    """One's own profile."""

    success: bool
    data: Me


class ScoredAnswer(msgspec.Struct):
    """The points are recorded."""

    success: bool
    data: Scored


class OwnPlace(msgspec.Struct):
    """The caller's rank (null before the first action) and score."""

    rank: int | None
    score: int


class Leaderboard(msgspec.Struct, omit_defaults=True):
    """The best players, in order. `stale` while the board cannot be read from Redis."""

    leaderboard: list[Entry]
    lastUpdated: str
    currentUser: OwnPlace | msgspec.UnsetType = msgspec.UNSET
    stale: bool = False


class LeaderboardAnswer(msgspec.Struct):
    """The board."""

    success: bool
    data: Leaderboard


class Alive(msgspec.Struct):
    """The process is alive."""

    alive: bool


class Nothing(msgspec.Struct):
    """Done."""


class Figures(msgspec.Struct):
    """Prometheus' text format."""


class ActionBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a user did. The raw bytes are what is signed."""

    actionId: Annotated[str, Meta(min_length=1, max_length=ACTION_ID_LENGTH)]
    actionType: Annotated[str, Meta(min_length=1, max_length=ACTION_TYPE_LENGTH)]
    timestamp: Annotated[str, Meta(max_length=TIMESTAMP_LENGTH, extra_json_schema={"format": "date-time"})]
    metadata: dict[str, Any] | None = None
    userId: Annotated[str, Meta(max_length=USER_ID_LENGTH)] | None = None


class ActionHeaders(msgspec.Struct):
    """Lower-case hex of HMAC-SHA256(actionSecret, body), by any live key or by the one named."""

    x_action_signature: Annotated[
        str, Meta(pattern=r"^(v[1-9][0-9]{0,8}\.)?[0-9a-f]{64}$", extra_json_schema={"required": True})
    ]


class LeaderboardQuery(msgspec.Struct):
    """How many entries."""

    limit: Annotated[int, Meta(ge=1, le=READ_SIZE)] = TOP_SIZE


# ---- what only http1 serves -----------------------------------------------------------------------------------------


class EventStream(msgspec.Struct):
    """Server-Sent Events: those of the WebSocket, `id` is the position. It ends when the token does, or the server
    leaves."""


class Polled(msgspec.Struct, omit_defaults=True):
    """The board, when it is not the one of `since`. `stale` while it cannot be read from Redis."""

    leaderboard: list[Entry]
    position: str
    timestamp: str
    stale: bool = False


class PolledAnswer(msgspec.Struct):
    """The board is another."""

    success: bool
    data: Polled


class Unchanged(msgspec.Struct):
    """The board is still that of `since`."""


Channel = Annotated[str, Meta(max_length=CHANNEL_LENGTH)]
InQuery = Annotated[str, Meta(max_length=QUERY_BYTES)]  # the whole query has no more


class StreamQuery(msgspec.Struct):
    """Which board, how, from which position on; a token for those who can't set headers."""

    channel: Channel = LEADERBOARD.id
    mode: Literal["full", "delta"] = "full"
    since: InQuery = ""
    token: InQuery = ""


class PollQuery(msgspec.Struct):
    """Which board, the position that the client has, and how long to wait for another, in seconds."""

    channel: Channel = LEADERBOARD.id
    since: InQuery = ""
    wait: Annotated[float, Meta(ge=0, le=30)] = 25.0
    token: InQuery = ""


class StreamHeaders(msgspec.Struct):
    """The position of the last event, as browsers send it when they reconnect."""

    last_event_id: str = ""


class _Described(NamedTuple):
    """A GET that takes a token, or none."""

    summary: str
    query: Any
    headers: Any
    gives: tuple[tuple[int, Any], ...]


LIVE = {
    STREAM_PATH: _Described(
        "Watch the board as a stream of events.", StreamQuery, StreamHeaders, ((200, EventStream),)
    ),
    POLL_PATH: _Described("Wait for the board to change.", PollQuery, None, ((200, PolledAnswer), (204, Unchanged))),
}


# ---- the document ---------------------------------------------------------------------------------------------------


TEXTS: dict[Any, str] = {Figures: "text/plain", EventStream: "text/event-stream"}  # answers that are no JSON


class Provider(OpenAPIProvider):
    """quart-schema's, but the types within a Struct are described too, errors are problem+json, and not every answer is
    JSON."""

    def schema(self) -> dict[str, Any]:
        document = super().schema()
        for path, described in LIVE.items():
            parameters, _ = self.build_querystring_parameters(described.query)
            if described.headers is not None:
                parameters += self.build_headers_parameters(described.headers)[0]
            operation: dict[str, Any] = {
                "summary": described.summary,
                "operationId": f"get_{path.rpartition('/')[2]}",
                "parameters": parameters,
                "security": [{"bearer": []}, {}],
                "responses": {},
            }
            problems = tuple((status, Problem) for status in sorted({*EVERYWHERE, 401, 403}))
            for status, model in described.gives + problems:
                operation["responses"][str(status)], components = self.build_response_object(model, None)
                document["components"]["schemas"].update(components)
            document["paths"][path]["get"] = operation
        return document

    def build_request_body(self, model: Any, source: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        schema, components = _schema(model)
        return {"required": True, "content": {"application/json": {"schema": schema}}}, components

    def build_response_object(self, model: Any, headers_model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        description = (model.__doc__ or "").strip()
        if model in {Nothing, Unchanged}:
            return {"description": description}, {}
        if model in TEXTS:
            return {"description": description, "content": {TEXTS[model]: {"schema": {"type": "string"}}}}, {}
        schema, components = _schema(model)
        kind = "application/problem+json" if model is Problem else "application/json"
        return {"description": description, "content": {kind: {"schema": schema}}}, components


def _schema(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    (schema,), components = msgspec.json.schema_components([model], ref_template=REFERENCE)
    return schema, components


class Description:
    """The document, rendered once, when all routes are there."""

    def __init__(self) -> None:
        self._plain: tuple[Response, bytes] | None = None
        self._packed: tuple[Response, bytes] | None = None

    def render(self, document: Mapping[str, Any]) -> None:
        """From now on it is this one."""
        content = json.dumps(document).encode()
        self._plain, self._packed = _document(content), _document(gzip.compress(content, mtime=0), GZIPPED)

    async def read(self, request: Request) -> Response:
        """The API's description."""
        found = self._packed if accepts_gzip(request) else self._plain
        assert found is not None  # rendered before anything is served
        return conditional(request, *found)


def _document(content: bytes, coding: bytes = b"") -> tuple[Response, bytes]:
    etag = strong_etag(content)
    return Response(
        200, content, JSON + b"cache-control: no-cache\r\nvary: accept-encoding\r\n%betag: %b\r\n" % (coding, etag)
    ), etag


def install(app: Any) -> OpenAPIProvider:
    """Collects what is described; the provider makes the document. No user interface, which would load scripts from
    elsewhere."""
    schema = QuartSchema(
        app,
        openapi_path=None,
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        info=Info(title="Scoreboard", version=__version__),
        security_schemes={"bearer": HttpSecurityScheme(scheme="bearer", bearer_format="JWT")},
        conversion_preference="msgspec",
        openapi_provider_class=Provider,
    )
    return schema.openapi_provider


def describe(
    view: View,
    *,
    takes: Any = None,
    gives: Any = None,
    status: int = 200,
    refuses: tuple[int, ...] = (),
    login: str = "",
    query: Any = None,
    headers: Any = None,
) -> View:
    """Says of a view what it takes and gives. `login`: "required", "optional", or "" for a route that takes no
    token."""
    if takes is not None:
        view = document_request(takes)(view)
    if gives is not None:
        view = document_response(gives, status)(view)
    if query is not None:
        view = document_querystring(query)(view)
    if headers is not None:
        view = document_headers(headers)(view)
    for refused in sorted({*EVERYWHERE, *refuses}):
        view = document_response(Problem, refused)(view)
    if login:
        anybody: dict[str, list[str]] = {}
        view = security_scheme([{"bearer": []}, anybody] if login == "optional" else [{"bearer": []}])(view)
    return view
