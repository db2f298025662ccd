"""The Quart-Trio application, made from the list of routes: Quart's rules and the OpenAPI document.

`quart_view` is the adapter. It calls a handler with the `Request` that http.parser made, and turns the handler's
`Response` into Quart's. So one handler serves Quart and http.connection alike. What Quart itself refuses (no such path,
another method) becomes problem+json here. http.asgi writes the heads; see web.headers.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import quart
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from scoreboard.domain.errors import METHOD_NOT_ALLOWED, NOT_FOUND, STATUS, TITLE, Code, Refusal
from scoreboard.http.request import BODY_BYTES, Request, Response
from scoreboard.web import openapi
from scoreboard.web.openapi import OpenApiRoutes
from scoreboard.web.pages.audit_page import AuditPage
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.pages.site import PageRoutes
from scoreboard.web.problems import error_response, problem
from scoreboard.web.route import Route
from scoreboard.web.routes.actions import ActionRoutes
from scoreboard.web.routes.admin.corrections import AdminCorrectionRoutes
from scoreboard.web.routes.admin.flags import AdminFlagRoutes
from scoreboard.web.routes.admin.held import AdminHeldRoutes
from scoreboard.web.routes.admin.log import AdminLogRoutes
from scoreboard.web.routes.admin.users import AdminUserRoutes
from scoreboard.web.routes.audit import AuditRoutes
from scoreboard.web.routes.auth import AuthRoutes
from scoreboard.web.routes.avatars import AvatarRoutes
from scoreboard.web.routes.health import HealthRoutes
from scoreboard.web.routes.keys import KeyRoutes
from scoreboard.web.routes.live import LiveRoutes
from scoreboard.web.routes.outside import OutsideRoutes
from scoreboard.web.routes.personal_data import PersonalDataRoutes
from scoreboard.web.routes.scores import ScoreRoutes
from scoreboard.web.routes.server import ServerRoutes
from scoreboard.web.routes.sessions import SessionRoutes
from scoreboard.web.routes.users import UserRoutes

View = Callable[..., Awaitable[quart.Response]]

# The error codes for what Quart refuses by itself. Any other status of its own becomes INVALID_REQUEST.
_CODES = {
    STATUS[code]: code
    for code in (
        Code.NOT_FOUND,
        Code.METHOD_NOT_ALLOWED,
        Code.REQUEST_TIMEOUT,
        Code.PAYLOAD_TOO_LARGE,
        Code.UNSUPPORTED_MEDIA_TYPE,
        Code.INTERNAL,
    )
}
_DETAILS = {
    Code.NOT_FOUND: NOT_FOUND.detail,
    Code.METHOD_NOT_ALLOWED: METHOD_NOT_ALLOWED.detail,
    Code.PAYLOAD_TOO_LARGE: f"A body may have {BODY_BYTES} bytes.",
}


@dataclass(frozen=True, slots=True)
class AdminRoutes:
    """The objects that have routes of /admin. Iterating yields every route of them."""

    users: AdminUserRoutes
    corrections: AdminCorrectionRoutes
    flags: AdminFlagRoutes
    held: AdminHeldRoutes
    log: AdminLogRoutes

    def __iter__(self) -> Iterator[Route]:
        for resource in (self.users, self.corrections, self.flags, self.held, self.log):
            yield from resource.routes()


@dataclass(frozen=True, slots=True)
class WebRoutes:
    """The objects that have routes, put together by the composition root. Iterating yields every route."""

    auth: AuthRoutes
    outside: OutsideRoutes
    users: UserRoutes
    sessions: SessionRoutes
    personal_data: PersonalDataRoutes
    scores: ScoreRoutes
    actions: ActionRoutes
    server: ServerRoutes
    live: LiveRoutes
    keys: KeyRoutes
    health: HealthRoutes
    pages: PageRoutes
    avatars: AvatarRoutes
    audit: AuditRoutes
    audit_page: AuditPage
    document: OpenApiRoutes
    admin: AdminRoutes
    metrics: bool = True  # served here; False: at a listener of its own

    def __iter__(self) -> Iterator[Route]:
        for resource in (
            *(self.auth, self.outside, self.users, self.sessions, self.personal_data, self.scores, self.actions),
            *(self.live, self.server, self.keys, self.pages, self.avatars),
            *(self.audit, self.audit_page, self.document),
        ):
            yield from resource.routes()
        yield from self.admin
        yield from self.health.routes(metrics=self.metrics)


# ---- the adapter ----------------------------------------------------------------------------------------------------


def read_request() -> Request:
    """The request as http.parser made it."""
    request = quart.request.scope["state"]["request"]  # http.asgi puts it there
    assert isinstance(request, Request)
    return request


def to_quart_response(answer: Response) -> quart.Response:
    """Quart's response, with exactly the fields that the answer has."""
    response = quart.Response(answer.body, answer.status)
    del response.headers["content-type"]  # Quart's default
    if answer.status in {204, 304}:
        del response.headers["content-length"]  # Quart's is 0; such a response has none
    for line in answer.fields.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        response.headers.add(name, value)
    return response


def quart_view(route: Route, pages: ErrorPages) -> View:
    """A view that calls the route's handler, as http.connection calls a direct one."""
    handler = route.handler

    async def view(**_: str) -> quart.Response:  # the handler finds the path's parameters in the path
        request = read_request()
        try:
            answer = await handler(request)
        except Exception as exc:  # noqa: BLE001 – logged by `error_response`
            answer = error_response(request, exc)
        assert answer is not None  # only a route with quart=False may keep the socket
        return to_quart_response(pages.of(request, answer))

    view.__name__, view.__doc__ = route.name, route.summary or handler.__doc__
    return view


async def quart_error_response(pages: ErrorPages, error: HTTPException) -> quart.Response:
    """The response to a request that Quart refuses by itself."""
    code = _CODES.get(error.code or 500, Code.INVALID_REQUEST)
    request = read_request()
    response = to_quart_response(
        pages.of(request, problem(Refusal(code, _DETAILS.get(code, TITLE[code])), request.request_id))
    )
    if isinstance(error, MethodNotAllowed):
        response.headers["allow"] = ", ".join(sorted(error.valid_methods or ("GET",)))
    return response


# ---- the application ------------------------------------------------------------------------------------------------


def build_application(routes: Iterable[Route], document: OpenApiRoutes, pages: ErrorPages) -> QuartTrio:
    """The application with those of the routes that Quart serves; `document` is rendered with all of them."""
    app = QuartTrio("scoreboard.web", static_folder=None)
    routes = tuple(routes)
    # http.parser has refused more already, by each route's own limit
    app.config["MAX_CONTENT_LENGTH"] = max(route.max_body_bytes for route in routes)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.url_map.merge_slashes = False  # Werkzeug would redirect //a to /a; here //a is not found
    app.register_error_handler(HTTPException, partial(quart_error_response, pages))
    app.register_error_handler(Exception, partial(unhandled_error_response, pages))
    provider = openapi.install(app)
    for route in routes:
        if route.quart:
            view = openapi.describe(quart_view(route, pages), route)
            app.add_url_rule(route.path, route.name, view, methods=[route.method], provide_automatic_options=False)
    document.render(provider, routes)
    return app


async def unhandled_error_response(pages: ErrorPages, error: Exception) -> quart.Response:
    """The response when an exception was raised outside of any handler: a bug of this module."""
    request = read_request()
    return to_quart_response(pages.of(request, error_response(request, error)))
