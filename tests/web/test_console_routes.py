"""Which listener has which route, where the console has a port of its own."""

from scoreboard.domain.paths import CONSOLE_PATH, LOGIN_PATH, LOGOUT_PATH, PROFILE_PATH, REFRESH_PATH, STATIC_PREFIX
from scoreboard.domain.roles import Role
from scoreboard.http.request import Request, Response
from scoreboard.web.console_routes import split
from scoreboard.web.route import Auth, Route


async def handler(request: Request) -> Response:
    return Response(200, request.path)


def route(path: str, auth: Auth = "none") -> Route:
    return Route(method="GET", path=path, handler=handler, auth=auth)


def test_what_needs_a_role_is_the_consoles_alone() -> None:
    """Wherever its path is. Log-in and files are in both, and everything else is public."""
    own = [route(CONSOLE_PATH), *(route(f"/api/v1/{role}", role) for role in Role)]
    both = [route(path) for path in (LOGIN_PATH, REFRESH_PATH, LOGOUT_PATH, f"{STATIC_PREFIX}console.js")]
    others = [route("/"), route(PROFILE_PATH, "required"), route("/api/v1/scores/leaderboard", "optional")]
    found = split([*others, *own, *both])
    assert set(found.console) == {*own, *both}
    assert set(found.public) == {*others, *both}
