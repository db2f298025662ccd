"""The OpenAPI document, made by quart-schema from the list of routes.

It only describes. Requests are decoded by the routes themselves, since quart-schema's validators cost 270 µs a request.
`describe` is called by web.application for each route that Quart serves. Routes with quart=False are added when the
document is rendered. Routes without a `response_type` are not in it.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from quart_schema import (
    HttpSecurityScheme,
    Info,
    OpenAPIProvider,
    QuartSchema,
    document_headers,
    document_querystring,
    document_request,
    document_response,
    hide,
    security_scheme,
)

from scoreboard import __version__
from scoreboard.domain.paths import OPENAPI_PATH
from scoreboard.domain.scopes import Scope
from scoreboard.http.request import Request, Response
from scoreboard.web.compression import CompressedResponse, compressed
from scoreboard.web.problems import Problem
from scoreboard.web.responses import JSON
from scoreboard.web.route import Route
from scoreboard.web.schemas import NO_BODY

COMMON_ERRORS = (400, 408, 413, 429, 431, 500, 503)  # statuses that any route may answer, besides its own
REFERENCE = "#/components/schemas/{name}"

_FIELDS = JSON + b"cache-control: no-cache\r\nvary: accept-encoding\r\n"

View = Callable[..., Any]
JsonObject = dict[str, Any]


class Provider(OpenAPIProvider):
    """quart-schema's, but types within a Struct are described too, errors are problem+json, and not every response is
    JSON."""

    def build_request_body(self, model: Any, source: Any) -> tuple[JsonObject, JsonObject]:
        schema, components = _schema(model)
        return {
            "required": not getattr(model, "may_be_absent", False),
            "content": {"application/json": {"schema": schema}},
        }, components

    def build_response_object(self, model: Any, headers_model: Any) -> tuple[JsonObject, JsonObject]:
        described: JsonObject = {"description": (model.__doc__ or "").strip()}
        media_type = "application/problem+json" if model is Problem else getattr(model, "media_type", None)
        if media_type == NO_BODY:
            return described, {}
        if media_type is not None and model is not Problem:
            return described | {"content": {media_type: {"schema": {"type": "string"}}}}, {}
        schema, components = _schema(model)
        return described | {"content": {media_type or "application/json": {"schema": schema}}}, components

    def add_operation(self, document: JsonObject, route: Route) -> None:
        """Describes a route that Quart does not serve."""
        parameters: list[JsonObject] = []
        if route.query_type is not None:
            parameters += self.build_querystring_parameters(route.query_type)[0]
        if route.headers_type is not None:
            parameters += self.build_headers_parameters(route.headers_type)[0]
        operation: JsonObject = {
            "summary": route.summary or (route.handler.__doc__ or "").partition("\n")[0],
            "operationId": f"{route.method.lower()}_{route.name}",
            "parameters": parameters,
            "responses": {},
        }
        if route.auth != "none":
            operation["security"] = _security(route)
        for status, model in _responses(route):
            operation["responses"][str(status)], components = self.build_response_object(model, None)
            document["components"]["schemas"].update(components)
        document["paths"][route.path][route.method.lower()] = operation


def _schema(model: Any) -> tuple[JsonObject, JsonObject]:
    (schema,), components = msgspec.json.schema_components([model], ref_template=REFERENCE)
    return schema, components


def _responses(route: Route) -> list[tuple[int, Any]]:
    """Status and type of each response that a route may give."""
    errors = [(status, Problem) for status in sorted({*COMMON_ERRORS, *route.errors})]
    return [(route.status, route.response_type), *route.other_responses, *errors]


def _security(route: Route) -> list[dict[str, list[str]]]:
    anybody: dict[str, list[str]] = {}
    if isinstance(route.auth, Scope):
        return [{"serverKey": []}]
    return [{"bearer": []}, anybody] if route.auth == "optional" else [{"bearer": []}]


def install(app: Any) -> Provider:
    """Installs quart-schema on the application, and returns the provider that makes the document.

    There is no user interface: it would load scripts from other sites.
    """
    schema = QuartSchema(
        app,
        openapi_path=None,
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        info=Info(title="Scoreboard", version=__version__),
        security_schemes={
            "bearer": HttpSecurityScheme(scheme="bearer", bearer_format="JWT"),
            "serverKey": HttpSecurityScheme(scheme="bearer", bearer_format="sbk"),
        },
        conversion_preference="msgspec",
        openapi_provider_class=Provider,
    )
    provider = schema.openapi_provider
    assert isinstance(provider, Provider)
    return provider


def describe(view: View, route: Route) -> View:
    """Attaches the route's types to its view, for quart-schema."""
    if route.response_type is None:
        hidden: View = hide(view)
        return hidden
    if route.request_type is not None:
        view = document_request(route.request_type)(view)
    if route.query_type is not None:
        view = document_querystring(route.query_type)(view)
    if route.headers_type is not None:
        view = document_headers(route.headers_type)(view)
    for status, model in _responses(route):
        view = document_response(model, status)(view)
    if route.auth != "none":
        view = security_scheme(_security(route))(view)
    return view


class OpenApiRoutes:
    """Serves the document, which is rendered once, when all routes are known."""

    def __init__(self) -> None:
        self._document: CompressedResponse | None = None

    def routes(self) -> Iterable[Route]:
        """One; it is not in the document itself."""
        yield Route(method="GET", path=OPENAPI_PATH, handler=self.read, direct=True, name="openapi")

    def render(self, provider: Provider, routes: Iterable[Route]) -> None:
        """Renders the document of these routes. Must be called before the first request."""
        document = provider.schema()
        for route in routes:
            if route.response_type is not None and not route.quart:
                provider.add_operation(document, route)
        self._document = compressed(json.dumps(document).encode(), _FIELDS)

    async def read(self, request: Request) -> Response:
        """The API's description."""
        assert self._document is not None
        return self._document.respond(request)
