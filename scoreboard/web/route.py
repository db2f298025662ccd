"""A route is one value: `Route`. Everything that depends on the set of routes is made from the list of these values.

Each class in web.routes, and web.pages.site, has a method `routes` that yields its own. To add an endpoint: write its
handler, and one `Route` in that method. From the list follow

- the table of direct handlers with its 405 answers, and the table of fast handlers (here; http.connection uses them),
- Quart's rules (web.application) and the OpenAPI document (web.openapi),
- the query parameters that web.rate_limit lets pass, and the names of routes in metrics and in the access log (here).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import msgspec

from scoreboard.domain.errors import METHOD_NOT_ALLOWED
from scoreboard.domain.paths import API_PREFIX
from scoreboard.domain.roles import Role
from scoreboard.domain.scopes import Scope
from scoreboard.http.handlers import FastHandler, Handler
from scoreboard.http.request import BODY_BYTES, Request, Response
from scoreboard.web.problems import problem

DirectTable = Mapping[tuple[bytes, bytes], Handler]
"""(method, path) → the handler that http.connection calls without Hypercorn and Quart."""

FastTable = Mapping[tuple[bytes, bytes], FastHandler]
"""The same for handlers that answer without a task that waits."""

# All methods that llhttp knows, besides HEAD, which is answered by the handler of GET. Any other is no valid request.
# fmt: off
METHODS = (
    "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
    "ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE",
    "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND",
    "UNLINK", "UNLOCK", "UNSUBSCRIBE",
)
# fmt: on

Auth = Literal["none", "optional", "required"] | Role | Scope
"""Whether a route reads an access token. With "optional" too, a token that is not valid is refused. A role: the token's
user must have it, or a higher one; see web.staff. A scope: the route takes a server key that has it, and no token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint. Types are msgspec Structs; they describe the endpoint, and its handler decodes and encodes.

    Raises ValueError for a combination that cannot be served.
    """

    method: str
    path: str  # as Quart writes it: /avatars/<user>
    handler: Handler
    name: str = ""  # Quart's endpoint and part of the operation id; the path's last segment when it is not given
    fast: FastHandler | None = None  # called before `handler`, without a task; only of a direct route
    direct: bool = False  # http.connection calls the handler, without Hypercorn and Quart; no parameters in the path
    quart: bool = True  # Quart serves it too. False: only a direct handler can, or a rule with parameters covers it
    summary: str = ""  # for the OpenAPI document; the first line of the handler's docstring when it is not given
    auth: Auth = "none"
    max_body_bytes: int = BODY_BYTES  # more only for valid tokens, see web.large_bodies
    request_type: type[msgspec.Struct] | None = None  # of the body
    response_type: type[msgspec.Struct] | None = None  # of the response with `status`; None: not in the document
    status: int = 200
    other_responses: tuple[tuple[int, type[msgspec.Struct]], ...] = ()  # status and type of further good responses
    query_type: type[msgspec.Struct] | None = None  # its fields are the parameters that the query may have
    headers_type: type[msgspec.Struct] | None = None
    errors: tuple[int, ...] = ()  # besides those that any route may answer

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.path.rpartition("/")[2])
        if self.direct and "<" in self.path:
            raise ValueError(f"{self.path}: a direct route has no parameters in its path")
        if not self.direct and (self.fast or not self.quart):
            raise ValueError(f"{self.path}: nothing serves this route, or nothing asks its fast handler")

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods that it answers."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


def build_direct_table(routes: Iterable[Route]) -> DirectTable:
    """The direct handlers. On their paths every method that no route has is refused with 405, as Quart does."""
    by_path = defaultdict[str, list[Route]](list)
    for route in routes:
        by_path[route.path].append(route)
    table: dict[tuple[bytes, bytes], Handler] = {}
    for path, on_path in by_path.items():
        if not any(route.direct for route in on_path):
            continue
        refuse = partial(_refuse_method, b"allow: %b\r\n" % allow(on_path).encode())
        known = {route.method for route in on_path}
        table |= {(method.encode(), path.encode()): refuse for method in METHODS if method not in known}
        table |= {(route.method.encode(), path.encode()): route.handler for route in on_path if route.direct}
    return table


def build_fast_table(routes: Iterable[Route]) -> FastTable:
    """The fast handlers of the direct routes."""
    return {(route.method.encode(), route.path.encode()): route.fast for route in routes if route.fast}


def query_parameters(routes: Iterable[Route]) -> dict[bytes, frozenset[str]]:
    """For each path of the API: the parameters that its query may have. On other paths any are ignored."""
    found: dict[bytes, frozenset[str]] = {}
    for route in routes:
        if route.path.startswith(API_PREFIX):
            names = msgspec.structs.fields(route.query_type) if route.query_type else ()
            path = route.path.encode()
            found[path] = found.get(path, frozenset()) | {field.encode_name for field in names}
    return found


def paths(routes: Iterable[Route]) -> set[str]:
    """The path of each route, with parameters as Quart writes them."""
    return {route.path for route in routes}


def allow(routes: Iterable[Route]) -> str:
    """The value of an Allow field for these routes of one path."""
    return ", ".join(sorted({method for route in routes for method in route.allowed}))


async def _refuse_method(allowed: bytes, request: Request) -> Response:
    return problem(METHOD_NOT_ALLOWED, request.request_id, fields=allowed)
