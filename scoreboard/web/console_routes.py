"""Which routes go to the console's own listener, where there is one. Pure.

Tested in tests/web/test_console_routes.py.
"""

from collections.abc import Iterable
from typing import NamedTuple

from scoreboard.domain.paths import CONSOLE_PATH, LOGIN_PATH, LOGOUT_PATH, REFRESH_PATH, STATIC_PREFIX
from scoreboard.domain.roles import Role
from scoreboard.web.route import Route

SHARED_PATHS = frozenset({LOGIN_PATH, REFRESH_PATH, LOGOUT_PATH})  # and files: what the page of the console asks for


class ListenerRoutes(NamedTuple):
    """The routes of each listener. Files and the log-in are in both."""

    public: tuple[Route, ...]
    console: tuple[Route, ...]


def split(routes: Iterable[Route]) -> ListenerRoutes:
    """The routes of the public port, and those of the console's. A route that needs a role is the console's."""
    routes = tuple(routes)
    own = tuple(route for route in routes if route.path == CONSOLE_PATH or isinstance(route.auth, Role))
    shared = tuple(route for route in routes if route.path in SHARED_PATHS or route.path.startswith(STATIC_PREFIX))
    return ListenerRoutes(tuple(route for route in routes if route not in own), own + shared)
