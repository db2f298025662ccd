"""The API's description: what each Quart route takes and gives, as an OpenAPI document made by quart-schema.

Only described here: requests are decoded by the routes themselves (quart-schema's validators cost 270 µs a request). `describe` is called
once for each route, by `application`.
"""

from collections.abc import Callable
from typing import Annotated, Any

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
from scoreboard.domain.actions import ACTION_ID_LENGTH, ACTION_TYPE_LENGTH
from scoreboard.domain.boards import KEPT, SHOWN, Entry
from scoreboard.operations.accounts import LoggedIn
from scoreboard.web.problems import Problem
from scoreboard.web.scores import Scored
from scoreboard.web.users import Me

PATH = "/api/v1/openapi.json"
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
    timestamp: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    metadata: dict[str, Any] | None = None
    userId: str | None = None


class ActionHeaders(msgspec.Struct):
    """Lower-case hex of HMAC-SHA256(actionSecret, body), by any live key or by the one named."""

    x_action_signature: Annotated[str, Meta(pattern=r"^(v[1-9][0-9]{0,8}\.)?[0-9a-f]{64}$", extra_json_schema={"required": True})]


class LeaderboardQuery(msgspec.Struct):
    """How many entries."""

    limit: Annotated[int, Meta(ge=1, le=KEPT)] = SHOWN


# ---- the document ---------------------------------------------------------------------------------------------------


class Provider(OpenAPIProvider):
    """quart-schema's, but the types within a Struct are described too, errors are problem+json, and not every answer is JSON."""

    def build_request_body(self, model: Any, source: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        schema, components = _schema(model)
        return {"required": True, "content": {"application/json": {"schema": schema}}}, components

    def build_response_object(self, model: Any, headers_model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        description = (model.__doc__ or "").strip()
        if model is Nothing:
            return {"description": description}, {}
        if model is Figures:
            return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}, {}
        schema, components = _schema(model)
        kind = "application/problem+json" if model is Problem else "application/json"
        return {"description": description, "content": {kind: {"schema": schema}}}, components


def _schema(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    (schema,), components = msgspec.json.schema_components([model], ref_template=REFERENCE)
    return schema, components


def install(app: Any) -> None:
    """Serves the document; no user interface, which would load scripts from elsewhere."""
    QuartSchema(
        app,
        openapi_path=PATH,
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        info=Info(title="Scoreboard", version=__version__),
        security_schemes={"bearer": HttpSecurityScheme(scheme="bearer", bearer_format="JWT")},
        conversion_preference="msgspec",
        openapi_provider_class=Provider,
    )


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
    """Says of a view what it takes and gives. `login`: "required", "optional", or "" for a route that takes no token."""
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
