"""Two nodes behind nginx, then behind HAProxy, as shipped: every transport without stickiness, who is counted, what is
passed on."""

from collections.abc import AsyncIterator
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import trio

from tests.e2e.balanced_nodes import LOG_INS, SPREAD, NodePair, balancer, pair, playing
from tests.e2e.balancers import PROGRAMS, PUBLIC_URL, Balancer, Certificate
from tests.e2e.server_processes import ServerProcess, register

__all__ = ["balancer", "pair"]  # fixtures


# ---- transports -----------------------------------------------------------------------------------------------------

REFRESH_COOKIE = "__Secure-scoreboard_refresh"


async def test_a_websocket_goes_through(pair: NodePair, balancer: Balancer) -> None:
    """Over wss a viewer is given the board, then each change of it and its own points, whichever node has which
    request."""
    async with playing(pair, balancer) as user, balancer.viewer(token=user.token) as watching:
        await watching.next_event("leaderboard:update")
        for _ in range(4):
            recorded = (await user.act()).json()["data"]
            assert (await watching.next_event("score:personal"))["newScore"] == recorded["newScore"]
            while (await watching.next_event("leaderboard:update"))["leaderboard"][0]["score"] != recorded["newScore"]:
                pass
        await watching.send(action="ping")
        await watching.next_event("pong")


async def test_events_go_out_as_they_come(pair: NodePair, balancer: Balancer) -> None:
    """An event stream is not held back: each event is here before the next thing happens; and it resumes on any
    node."""
    async with playing(pair, balancer) as user, trio.open_nursery() as nursery:
        async with balancer.streaming(**user.authorization) as events:
            before = await events.next("leaderboard:update")
            for _ in range(4):
                recorded = (await user.act()).json()["data"]
                assert f'"newScore":{recorded["newScore"]}' in (await events.next("score:personal"))["data"]
                while (
                    f'"score":{recorded["newScore"]}' not in (after := await events.next("leaderboard:update"))["data"]
                ):
                    pass
        request_ids = [str(uuid4()) for _ in range(SPREAD)]
        for request_id in request_ids:
            async with balancer.streaming(last_event_id=before["id"], x_request_id=request_id) as events:
                while (await events.next("leaderboard:update"))["id"] != after["id"]:  # at most a tick behind
                    pass

        async def keep_acting() -> None:
            while True:  # HAProxy sees, and logs, that a stream was left when an event can't be sent
                await user.act()
                await trio.sleep(0.1)

        nursery.start_soon(keep_acting)
        assert len({(await balancer.nodes_of(request_id))[-1].port for request_id in request_ids}) == 2
        nursery.cancel_scope.cancel()


async def test_a_poll_waits_on_any_node(pair: NodePair, balancer: Balancer) -> None:
    """A poll without stickiness: at once when its position is an old one, whoever gave it; else when the board changes,
    or 204."""
    async with playing(pair, balancer) as user:
        await user.act()

        async def poll(**query: str) -> httpx.Response:
            return await user.http.get("/api/v1/scores/poll", params=query)

        old = (await poll()).json()["data"]["position"]
        await user.act()
        nodes: set[int] = set()
        with trio.fail_after(20):
            while len(nodes) < 2:
                answer = await poll(since=old, wait="20")
                assert answer.json()["data"]["position"] != old
                nodes.add((await balancer.nodes_of(answer.headers["x-request-id"]))[-1].port)
        present = answer.json()["data"]["position"]
        for _ in range(4):
            assert (await poll(since=present, wait="1")).status_code == httpx.codes.NO_CONTENT
        answers: list[httpx.Response] = []

        async def wait() -> None:
            answers.append(await poll(since=present, wait="20"))

        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(wait)
                await trio.sleep(0.2)  # they wait by now; one that does not is answered at once all the same
                await user.act()
        positions = {answer.json()["data"]["position"] for answer in answers}
        assert len(positions) == 1
        assert positions != {present}


# ---- what is passed on ----------------------------------------------------------------------------------------------


async def test_the_client_is_counted_not_the_balancer(pair: NodePair, balancer: Balancer) -> None:
    """An address that logs in too often is refused, whatever it claims in X-Forwarded-For; its neighbour is not.

    It is 127.0.0.1, which the nodes trust: an X-Forwarded-For that the balancer only added to would be believed.
    """
    async with balancer.client("127.0.0.1") as hasty, balancer.client(pair.address()) as neighbour:

        async def log_in(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
            body = {"username": f"user-{uuid4().hex[:12]}", "password": "not the password"}
            return await client.post("/api/v1/auth/login", json=body, headers=fields)

        answers = [await log_in(hasty, **{"x-forwarded-for": f"192.0.2.{turn}"}) for turn in range(2 * LOG_INS + 1)]
        refused = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
        assert refused
        assert {answer.json()["layer"] for answer in refused} == {"login"}
        assert (await log_in(neighbour)).status_code == httpx.codes.UNAUTHORIZED


async def test_a_browser_logs_in_over_https(pair: NodePair, balancer: Balancer) -> None:
    """The refresh cookie is Secure, comes back by any node, and HSTS is on; a foreign page is refused, on the WebSocket
    too."""
    async with balancer.client(pair.address()) as http:
        user = await register(http)
        body = {"username": user.session["username"], "password": "a long password"}
        answer = await http.post("/api/v1/auth/login", json=body, headers={"origin": PUBLIC_URL})
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.headers["strict-transport-security"]
        cookies = SimpleCookie("\r\n".join(answer.headers.get_list("set-cookie")))
        assert cookies[REFRESH_COOKIE]["secure"]
        assert cookies[REFRESH_COOKIE]["httponly"]
        cookie = {"cookie": f"{REFRESH_COOKIE}={cookies[REFRESH_COOKIE].value}"}
        tokens = []
        for _ in range(6):  # the same successor each time: on whatever node, so a retry is safe
            answer = await http.post("/api/v1/auth/refresh", headers={"origin": PUBLIC_URL} | cookie)
            assert answer.status_code == httpx.codes.OK, answer.text
            found = next(
                value for value in answer.headers.get_list("set-cookie") if value.startswith(f"{REFRESH_COOKIE}=")
            )
            tokens.append(found.partition(";")[0])
        assert len(set(tokens)) == 1
        assert (
            await http.post("/api/v1/auth/login", json=body, headers={"origin": "https://foreign.test"})
        ).status_code == 403
    async with balancer.viewer(origin="https://foreign.test", subscribe=False) as watching:
        assert await watching.close_code() == 4403


async def test_request_ids_limits_and_closed_doors(pair: NodePair, balancer: Balancer) -> None:
    """A request keeps its id or gets one; a body too large is 413; no handshake is 426; /metrics is closed; tokens are
    not logged."""
    async with balancer.client(pair.address()) as http:
        assert (await http.get("/livez", headers={"x-request-id": "my-own.id_1"})).headers[
            "x-request-id"
        ] == "my-own.id_1"
        given = (await http.get("/livez", headers={"x-request-id": "no id: spaces"})).headers["x-request-id"]
        assert given != "no id: spaces"
        await balancer.nodes_of(given)

        for body in (b" " * 16_385, _pieces(20_000)):
            too_large = await http.post("/api/v1/scores/action", content=body, headers={"x-request-id": "large"})
            assert too_large.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
            assert too_large.json()["code"] == "PAYLOAD_TOO_LARGE"
            assert too_large.headers["content-type"] == "application/problem+json"
            assert too_large.headers["x-request-id"] == too_large.json()["requestId"] == "large"
        just_right = await http.post("/api/v1/scores/action", content=b" " * 16_384)
        assert just_right.json()["code"] == "UNAUTHORIZED"

        no_handshake = await http.get("/api/v1/scores/live")
        assert (no_handshake.status_code, no_handshake.json()["code"]) == (426, "UPGRADE_REQUIRED")
        assert no_handshake.headers["sec-websocket-version"] == "13"
        for path in ("/metrics", "/metrics/", "/metrics?x=1"):
            closed = await http.get(path)
            assert (closed.status_code, closed.json()["code"]) == (404, "NOT_FOUND")
        assert (await http.get("/livez?token=a-secret")).status_code == httpx.codes.OK
        await balancer.nodes_of((await http.get("/readyz")).headers["x-request-id"])
        assert "a-secret" not in balancer.log.read_text()
    async with httpx.AsyncClient() as http:
        moved = await http.get(f"http://127.0.0.1:{balancer.plain_port}/api/v1/scores/leaderboard?limit=3")
        assert moved.status_code == httpx.codes.PERMANENT_REDIRECT
        assert moved.headers["location"].startswith("https://127.0.0.1")
        assert moved.headers["location"].endswith("/api/v1/scores/leaderboard?limit=3")


SPELLINGS = (
    "//metrics",
    "/%6detrics",
    "/%6Detric%73",
    "/./metrics",
    "/static/../metrics",
    "/static/%2e%2e/metrics",
    "/metrics%2F",
    "/%2fmetrics",
)
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_metrics_are_closed_in_every_spelling(pair: NodePair, balancer: Balancer) -> None:
    """By the balancer already: no node is asked, whatever letters, slashes and dots the path is written with."""
    for number, path in enumerate(SPELLINGS):
        assert (await balancer.raw(path, f"spelling-{number}")).startswith(b"HTTP/1.1 404 "), path
        assert await balancer.asks_no_node(f"spelling-{number}"), path


async def test_the_balancers_own_errors_are_pages_too(pair: NodePair, balancer: Balancer) -> None:
    """For a browser that opens an address; the API's are problems."""
    async with balancer.client(pair.address()) as http:
        page = await http.get("/metrics", headers=BROWSER)
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "There is nothing at this path." in page.text
        assert "x-request-id" in page.headers
        assert (await http.get("/metrics", headers={"accept": "application/json"})).json()["code"] == "NOT_FOUND"


async def test_a_page_view_is_one_request_for_the_balancer(pair: NodePair, balancer: Balancer) -> None:
    """More files than the limit has requests pass, and so do requests with a token; then there is still room for the
    page."""
    async with balancer.client(pair.address()) as http:
        answered: list[int] = []

        async def ask(path: str, **fields: str) -> None:
            answered.extend([(await http.get(path, headers=fields)).status_code for _ in range(120)])

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask, "/static/favicon.svg")
                    nursery.start_soon(partial(ask, "/livez", authorization="Bearer x"))
        assert answered == [200] * 1200
        assert (await http.get("/", headers=BROWSER)).status_code == httpx.codes.OK


async def _pieces(length: int) -> AsyncIterator[bytes]:
    """A body whose length is not told."""
    for _ in range(length // 1000):
        yield b" " * 1000


async def test_a_thousand_requests_a_minute(pair: NodePair, balancer: Balancer) -> None:
    """The thousandth request of an address is answered; soon after it is told 429 and when to come back; its neighbour
    is not."""
    refused: list[httpx.Response] = []
    pages: list[httpx.Response] = []
    admitted = 0
    async with balancer.client(pair.address()) as http, balancer.client(pair.address()) as neighbour:

        async def ask() -> None:
            nonlocal admitted
            while not refused:
                answer = await http.get("/livez")
                if answer.status_code == httpx.codes.OK:
                    admitted += 1
                else:
                    refused.append(answer)
            while not pages:  # 17 a second are admitted again
                page = await http.get("/", headers=BROWSER)
                if page.status_code != httpx.codes.OK:
                    pages.append(page)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ask)
        assert (await neighbour.get("/livez")).status_code == httpx.codes.OK
    assert admitted >= 1000
    answer = refused[0]
    assert answer.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    body = answer.json()
    assert (body["code"], body["layer"], body["status"], body["success"]) == ("RATE_LIMITED", "ip", 429, False)
    assert body["requestId"] == answer.headers["x-request-id"]
    assert "Too many requests from this address. Please try again" in pages[0].text
    assert pages[0].headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("program", PROGRAMS)
async def test_no_node_answers(program: str, tmp_path: Path) -> None:
    """Without a node the balancer says what a node without stores says: 503, a problem, when to come back."""
    nodes = [ServerProcess(tmp_path, [], {}) for _ in range(2)]  # never started
    balancer = Balancer(program, tmp_path, Certificate(tmp_path), nodes).start()
    try:
        async with balancer.client("127.0.0.1") as http:
            for method, path in (("GET", "/"), ("POST", "/api/v1/scores/action"), ("POST", "/api/v1/auth/login")):
                answer = await http.request(method, path, headers={"x-request-id": "mine"})
                assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["x-request-id"] == answer.json()["requestId"] == "mine"
                assert (answer.json()["code"], answer.json()["status"]) == ("SERVICE_UNAVAILABLE", 503)
    finally:
        balancer.stop()


async def test_who_keeps_the_cookie_keeps_the_node(pair: NodePair, balancer: Balancer) -> None:
    """A browser that keeps the balancer's cookie comes to one node; clients that don't are spread over both."""
    async with (
        balancer.client(pair.address(), keeps_cookies=True) as browser,
        balancer.client(pair.address()) as script,
    ):
        ids = [(await browser.get("/livez")).headers["x-request-id"] for _ in range(12)]
        assert len({(await balancer.nodes_of(request_id))[-1].port for request_id in ids}) == 1
        cookie = browser.cookies.jar
        assert [(one.name, one.secure) for one in cookie] == [("scoreboard_node", True)]
        await balancer.balances(script)
