"""Requests are counted by kind of handler and status."""

import pytest
import trio
import trio.testing

from scoreboard.domain.errors import Code, Refusal
from scoreboard.telemetry import metrics
from scoreboard.telemetry.request_times import name_routes
from tests.http.application import Application, problem, serving
from tests.http.raw import UPGRADE, connected, get

HELLO = get("/hello")


def counted(handler: str, status: str) -> float:
    labels = {"handler": handler, "status": status}
    return metrics.REGISTRY.get_sample_value("scoreboard_http_requests_total", labels) or 0


COUNTED = [
    (HELLO, {("fast", "2xx"): 1}),
    (HELLO * 20, {("fast", "2xx"): 16, ("direct", "2xx"): 4}),
    (get("/fail"), {("fast", "5xx"): 1}),
    (get("/same"), {("fast", "3xx"): 1}),
    (get("/hello", method="HEAD"), {("direct", "2xx"): 1}),
    (get("/hello?refuse"), {("middleware", "4xx"): 1}),
    (get("/app/x?refuse"), {("middleware", "4xx"): 1}),
    (get("/app/x"), {("asgi", "2xx"): 1}),
    (get("/app/fail"), {("asgi", "5xx"): 1}),
    (get("/stream"), {("direct", "2xx"): 1}),
    (get("/torn"), {("direct", "2xx"): 1}),
    (UPGRADE + b"\x88\x80\0\0\0\0", {("live", "1xx"): 1}),
    (get("/hello", "Content-Length: x"), {("middleware", "4xx"): 1}),
    (b"", {}),
]


@pytest.mark.parametrize(("data", "more"), COUNTED)
async def test_every_answer_is_counted(data: bytes, more: dict[tuple[str, str], int]) -> None:
    """Once, by the kind of its handler and the class of its status."""
    application = Application()
    application.refused = lambda request: (
        problem(Refusal(Code.RATE_LIMITED, "slowly"), request.request_id) if request.query else None
    )
    names = [(handler, f"{digit}xx") for handler in metrics.HANDLER_KINDS for digit in range(1, 6)]
    before = {name: counted(*name) for name in names}
    async with serving(application) as server:
        async with connected(server) as client:
            await client.send(data)
            await client.stream.send_eof()
            await client.rest()
        while server.connections:
            await trio.sleep(0.001)
    assert {name: counted(*name) - before[name] for name in names if counted(*name) != before[name]} == more


async def test_durations_are_of_answers_that_the_server_hastens() -> None:
    """A request has a duration; a WebSocket and a stream, which last as long as their client likes, have none."""

    def measured(path: str) -> float:
        labels = [{"route": path, "status": f"{digit}xx"} for digit in range(1, 6)]
        return sum(
            metrics.REGISTRY.get_sample_value("scoreboard_http_request_seconds_count", each) or 0 for each in labels
        )

    paths = {"/hello": 1, "/live": 0, "/stream": 0}
    name_routes(paths)
    before = {path: measured(path) for path in paths}
    async with serving() as server:
        for data in (get("/hello"), UPGRADE + b"\x88\x80\0\0\0\0", get("/stream")):
            async with connected(server) as client:
                await client.send(data)
                await client.stream.send_eof()
                await client.rest()
        while server.connections:
            await trio.sleep(0.001)
    assert {path: measured(path) - before[path] for path in paths} == paths
