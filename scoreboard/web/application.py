"""The Quart-Trio application: routing, the OpenAPI document, the page. Every route is a method that also http1's
express table could call.

`quart_view` is the adapter: it hands a handler the `Request` that http1 made, and makes Quart's response of its
`Response`. What Quart itself refuses (no such path, wrong method) becomes problem+json here. ResponseHeaders are written by the
front; see web.headers.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import quart
from quart_schema import hide
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from scoreboard.domain.errors import METHOD_NOT_ALLOWED, NOT_FOUND, STATUS, TITLE, Code, Refusal
from scoreboard.domain.paths import (
    AVATAR_PREFIX,
    CLIENT_PATH,
    LEADERBOARD_PATH,
    LIVEZ_PATH,
    LOGIN_PATH,
    LOGOUT_PATH,
    METRICS_PATH,
    OPENAPI_PATH,
    PAGE_PATH,
    PASSWORD_PATH,
    PROFILE_PATH,
    READYZ_PATH,
    REFRESH_PATH,
    REGISTER_PATH,
    STATIC_PREFIX,
    SUBMIT_PATH,
)
from scoreboard.http.request import BODY_BYTES, Request, Response
from scoreboard.web import openapi
from scoreboard.web.openapi import Description, describe
from scoreboard.web.pages.error_pages import ErrorPages
from scoreboard.web.pages.site import CLIENT, PageRoutes
from scoreboard.web.problems import failed, problem
from scoreboard.web.routes.auth import AuthRoutes, Credentials, Refresh, Registration
from scoreboard.web.routes.avatars import AvatarRoutes
from scoreboard.web.routes.health import HealthRoutes, Readiness
from scoreboard.web.routes.scores import ScoreRoutes
from scoreboard.web.routes.users import PasswordChange, ProfileChange, UserRoutes

Handler = Callable[[Request], Awaitable[Response]]

# What Quart may refuse by itself, and how clients know it; any other status of its own is a request that is not valid.
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
class Services:
    """The routes, put together by the composition root."""

    auth: AuthRoutes
    users: UserRoutes
    scores: ScoreRoutes
    health: HealthRoutes
    pages: PageRoutes
    avatars: AvatarRoutes
    description: Description
    error_pages: ErrorPages
    metrics: bool = True  # served here, and not at an address of their own


# ---- the adapter ----------------------------------------------------------------------------------------------------


def read_request() -> Request:
    """The request as http1 made it."""
    request = quart.request.scope["state"]["request"]  # http.asgi puts it there
    assert isinstance(request, Request)
    return request


def reply(answer: Response) -> quart.Response:
    """Quart's response, with exactly the fields that the answer has."""
    response = quart.Response(answer.body, answer.status)
    del response.headers["content-type"]  # Quart's default
    if answer.status in {204, 304}:
        del response.headers["content-length"]  # it would tell of the body that there is not
    for line in answer.fields.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        response.headers.add(name, value)
    return response


def quart_view(handler: Handler, name: str, pages: ErrorPages) -> Callable[..., Awaitable[quart.Response]]:
    """A view that asks the handler, as http1 does for the express table."""

    async def view(**_: str) -> quart.Response:  # what the rule finds in the path, the handler finds there too
        request = read_request()
        try:
            answer = await handler(request)
        except Exception as exc:  # noqa: BLE001 – logged by `failed`
            answer = failed(request, exc)
        return reply(pages.of(request, answer))

    view.__name__, view.__doc__ = name, handler.__doc__
    return view


async def refused(pages: ErrorPages, error: HTTPException) -> quart.Response:
    """What Quart refuses by itself."""
    code = _CODES.get(error.code or 500, Code.INVALID_REQUEST)
    request = read_request()
    response = reply(pages.of(request, problem(Refusal(code, _DETAILS.get(code, TITLE[code])), request.request_id)))
    if code is Code.METHOD_NOT_ALLOWED:
        response.headers["allow"] = dict(error.get_headers()).get("Allow", "GET")
    return response


# ---- the application ------------------------------------------------------------------------------------------------


def build_application(services: Services) -> QuartTrio:
    """The application with all its routes."""
    app = QuartTrio("scoreboard.web", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES  # the front refuses more already
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.url_map.merge_slashes = False  # Werkzeug would redirect //a to /a: a path is there or it is not
    app.register_error_handler(HTTPException, partial(refused, services.error_pages))
    app.register_error_handler(Exception, partial(_broken, services.error_pages))
    provider = openapi.install(app)

    def route(method: str, path: str, handler: Handler, name: str, **described: Any) -> None:
        view = describe(quart_view(handler, name, services.error_pages), **described)
        app.add_url_rule(path, name, view, methods=[method], provide_automatic_options=False)

    auth, users, scores, health = services.auth, services.users, services.scores, services.health
    logged_in = openapi.LoggedInAnswer
    route(
        "POST",
        REGISTER_PATH,
        auth.register,
        "register",
        takes=Registration,
        gives=logged_in,
        status=201,
        refuses=(403, 409, 415),
    )
    route("POST", LOGIN_PATH, auth.login, "login", takes=Credentials, gives=logged_in, refuses=(401, 403, 415))
    route("POST", REFRESH_PATH, auth.refresh, "refresh", takes=Refresh, gives=logged_in, refuses=(401, 403, 415))
    route(
        "POST",
        LOGOUT_PATH,
        auth.logout,
        "logout",
        gives=openapi.Nothing,
        status=204,
        refuses=(401, 403),
        login="required",
    )
    route("GET", PROFILE_PATH, users.read, "me", gives=openapi.MeAnswer, refuses=(401,), login="required")
    changed = {"takes": ProfileChange, "gives": openapi.MeAnswer, "refuses": (401, 409, 415)}
    route("PATCH", PROFILE_PATH, users.change, "change_me", login="required", **changed)
    changed = {"takes": PasswordChange, "gives": openapi.Nothing, "status": 204, "refuses": (401, 415)}
    route("POST", PASSWORD_PATH, users.change_password, "change_password", login="required", **changed)
    submitted = {
        "takes": openapi.ActionBody,
        "gives": openapi.ScoredAnswer,
        "headers": openapi.ActionHeaders,
        "refuses": (401, 403, 409, 415),
    }
    route("POST", SUBMIT_PATH, scores.submit, "submit", login="required", **submitted)
    board = {"gives": openapi.LeaderboardAnswer, "query": openapi.LeaderboardQuery, "refuses": (401,)}
    route("GET", LEADERBOARD_PATH, scores.leaderboard, "leaderboard", login="optional", **board)
    route("GET", LIVEZ_PATH, health.livez, "livez", gives=openapi.Alive)
    route("GET", READYZ_PATH, health.readyz, "readyz", gives=Readiness)
    if services.metrics:
        route("GET", METRICS_PATH, health.metrics, "metrics", gives=openapi.Figures)
    _add_pages(app, services)
    services.description.render(provider.schema())
    return app


def _add_pages(app: QuartTrio, services: Services) -> None:
    def hidden(handler: Handler, name: str) -> Callable[..., Awaitable[quart.Response]]:
        view: Callable[..., Awaitable[quart.Response]] = hide(quart_view(handler, name, services.error_pages))
        return view

    pages = services.pages
    document, avatar = hidden(services.description.read, "openapi"), hidden(services.avatars.avatar, "avatar")
    index, file = hidden(pages.index, "index"), hidden(pages.file, "file")
    app.add_url_rule(OPENAPI_PATH, "openapi", document, methods=["GET"], provide_automatic_options=False)
    app.add_url_rule(PAGE_PATH, "index", index, methods=["GET"], provide_automatic_options=False)
    app.add_url_rule(f"{STATIC_PREFIX}<path:name>", "file", file, methods=["GET"], provide_automatic_options=False)
    app.add_url_rule(f"{AVATAR_PREFIX}<user>", "avatar", avatar, methods=["GET"], provide_automatic_options=False)
    app.add_url_rule(
        CLIENT_PATH, "client", file, methods=["GET"], defaults={"name": CLIENT}, provide_automatic_options=False
    )


async def _broken(pages: ErrorPages, error: Exception) -> quart.Response:
    """An exception outside of any handler: this module's own."""
    request = read_request()
    return reply(pages.of(request, failed(request, error)))
