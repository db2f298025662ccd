"""A route is one value: what follows from adding one to the list, without a change of anything else."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, cast

import msgspec
import pytest
from msgspec import Meta

from scoreboard.domain.errors import METHOD_NOT_ALLOWED, Refusal, invalid_request
from scoreboard.domain.queries import parse_query
from scoreboard.http.request import Request, Response
from scoreboard.operations.authenticator import Authenticator
from scoreboard.telemetry.request_times import name_routes, route_of
from scoreboard.web.authorization import Bearer
from scoreboard.web.problems import problem
from scoreboard.web.responses import success
from scoreboard.web.route import METHODS, Route, build_direct_table, build_fast_table, paths, query_parameters
from tests.operations.people import database_url
from tests.web.requests import request
from tests.web.site import WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

GREETING_PATH = "/api/v1/greeting"


class GreetingQuery(msgspec.Struct):
    """In which language."""

    language: Annotated[str, Meta(max_length=2)] = "en"


class Greeting(msgspec.Struct):
    """A greeting, and whom it is for."""

    text: str
    user: str


class GreetingRoutes:
    """The endpoint that these tests add: one entry and one handler."""

    def __init__(self, bearer: Bearer) -> None:
        self._bearer = bearer

    def routes(self) -> Iterator[Route]:
        yield Route(
            method="GET",
            path=GREETING_PATH,
            handler=self.greet,
            direct=True,
            auth="required",
            query_type=GreetingQuery,
            response_type=Greeting,
            errors=(401,),
        )

    async def greet(self, request: Request) -> Response:
        """Greet the caller."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        language = (parse_query(request.query) or {}).get("language", ["en"])[0]
        if language not in {"en", "fr"}:
            return problem(invalid_request("language", "must be en or fr"), request.request_id)
        return success(Greeting({"en": "Hello", "fr": "Bonjour"}[language], str(identity.user)))


def more_routes(bearer: Bearer) -> Iterator[Route]:
    return GreetingRoutes(bearer).routes()


async def check_alike(server: WebServer, method: str, query: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and code of the response, which is the same from http.connection alone and from Quart."""
    answers = [
        await http.request(method, f"{GREETING_PATH}{query}", headers=headers | {"x-request-id": "same"})
        for http in (server.http, *server.other_handlers)
    ]
    for answer in answers:
        assert (answer.status_code, answer.content) == (answers[0].status_code, answers[0].content)
        assert answer.headers.get("allow") == answers[0].headers.get("allow")
    return answers[0].status_code, answers[0].json().get("code", "")


async def test_a_new_route_needs_one_entry_and_one_handler(database_url: str, redis_url: str) -> None:
    """It is served directly and by Quart, refuses other methods and unknown parameters, and is in the document."""
    async with serve_web(database_url, redis_url, all_handlers=True, more_routes=more_routes) as server:
        user = await server.register()
        token = {"authorization": f"Bearer {user['accessToken']}"}

        answer = await server.http.get(f"{GREETING_PATH}?language=fr", headers=token)
        assert answer.json() == {"success": True, "data": {"text": "Bonjour", "user": user["userId"]}}
        assert await check_alike(server, "GET", "?language=fr", token) == (200, "")
        assert await check_alike(server, "GET", "?language=xx", token) == (400, "INVALID_REQUEST")
        assert await check_alike(server, "GET", "?langage=fr", token) == (400, "INVALID_REQUEST")
        assert await check_alike(server, "GET", "", {}) == (401, "UNAUTHORIZED")
        for method in ("POST", "DELETE", "PROPFIND"):
            assert await check_alike(server, method, "", token) == (405, "METHOD_NOT_ALLOWED")
        assert (await server.http.post(GREETING_PATH)).headers["allow"] == "GET, HEAD"
        assert (await server.http.head(GREETING_PATH, headers=token)).status_code == HTTPStatus.OK

        document = (await server.http.get("/api/v1/openapi.json")).json()
        operation = document["paths"][GREETING_PATH]["get"]
        assert (operation["operationId"], operation["summary"]) == ("get_greeting", "Greet the caller.")
        assert [(parameter["name"], parameter["in"]) for parameter in operation["parameters"]] == [
            ("language", "query")
        ]
        assert operation["security"] == [{"bearer": []}]
        assert set(operation["responses"]) == {"200", "400", "401", "408", "413", "429", "431", "500", "503"}


def test_metrics_name_a_new_route() -> None:
    """So does the access log; what is no route is not named."""
    name_routes(paths(more_routes(Bearer(cast("Authenticator", None)))))
    assert route_of(GREETING_PATH.encode()) == GREETING_PATH
    assert route_of(b"/api/v1/greetings") == "other"


async def answer_nothing(_request: Request) -> Response:
    return Response(204, b"")


def answer_nothing_fast(_request: Request, _respond: object) -> Response:
    return Response(204, b"")


def test_the_tables_of_http_connection() -> None:
    """A direct route is in the direct table, all methods that no route of its path has are refused there; a route of
    Quart alone is in no table."""
    routes = [
        Route(method="GET", path="/a", handler=answer_nothing, fast=answer_nothing_fast, direct=True),
        Route(method="PATCH", path="/a", handler=answer_nothing, name="change"),
        Route(method="POST", path="/b", handler=answer_nothing),
    ]
    table = build_direct_table(routes)
    assert {path for _, path in table} == {b"/a"}
    assert table[b"GET", b"/a"] is answer_nothing
    assert {method.decode() for method, _ in table} == set(METHODS) - {"PATCH"}
    assert build_fast_table(routes) == {(b"GET", b"/a"): answer_nothing_fast}


async def test_a_method_that_no_route_has_is_refused() -> None:
    """With 405 and the allowed methods."""
    table = build_direct_table([Route(method="POST", path="/a", handler=answer_nothing, direct=True)])
    answer = await table[b"GET", b"/a"](request())
    assert answer is not None
    assert answer.status == HTTPStatus.METHOD_NOT_ALLOWED
    assert METHOD_NOT_ALLOWED.detail.encode() in answer.body
    assert b"allow: POST\r\n" in answer.fields


def test_the_parameters_of_a_path_are_those_of_all_its_methods() -> None:
    """Only of the API: other paths may have any."""
    routes = [
        Route(method="GET", path="/api/a", handler=answer_nothing, query_type=GreetingQuery),
        Route(method="POST", path="/api/a", handler=answer_nothing),
        Route(method="POST", path="/api/b", handler=answer_nothing),
        Route(method="GET", path="/c", handler=answer_nothing),
    ]
    assert query_parameters(routes) == {b"/api/a": frozenset({"language"}), b"/api/b": frozenset()}


def test_a_route_that_could_not_be_served_is_an_error() -> None:
    """When it is made, and not when a request comes."""
    with pytest.raises(ValueError, match="no parameters in its path"):
        Route(method="GET", path="/a/<b>", handler=answer_nothing, direct=True)
    with pytest.raises(ValueError, match="nothing serves this route"):
        Route(method="GET", path="/a", handler=answer_nothing, quart=False)
    with pytest.raises(ValueError, match="nothing asks its fast handler"):
        Route(method="GET", path="/a", handler=answer_nothing, fast=answer_nothing_fast)
