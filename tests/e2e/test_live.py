"""Every way to watch, on two nodes of one pair of stores: the same boards under the same positions, and coming back
elsewhere."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from tests.e2e.server_processes import ServerProcess, register, viewer

StartNode = Callable[..., ServerProcess]
STREAM, POLL = "/api/v1/scores/stream", "/api/v1/scores/poll"
HANG_SECONDS = 15  # seconds; a bound on hangs, not a measure


class Stream:
    """An open event stream, read from its socket: httpx leaves async generators behind."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self.data, self.last_id = stream, b"", ""

    async def line(self) -> str | None:
        """The next line; None at the end."""
        while b"\n" not in self.data:
            more = await self.stream.receive_some(65536)
            if not more:
                return None
            self.data += more
        line, _, self.data = self.data.partition(b"\n")
        return line.decode().rstrip("\r")

    async def next_event(self, event: str) -> dict[str, Any]:
        """The data of the next event of that name; others are passed over."""
        with trio.fail_after(HANG_SECONDS):
            while (line := await self.line()) is not None:
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                if name == "data" and (told := json.loads(value))["event"] == event:
                    data: dict[str, Any] = told["data"]
                    return data
        raise AssertionError(f"it has ended before {event}")

    async def to_the_end(self) -> list[str]:
        """The names of the events that still come."""
        names = []
        with trio.fail_after(HANG_SECONDS):
            while (line := await self.line()) is not None:
                if line.startswith("event: "):
                    names.append(line.partition(": ")[2])
        return names


@asynccontextmanager
async def streaming(node: ServerProcess, **headers: str) -> AsyncIterator[Stream]:
    async with await trio.open_tcp_stream("127.0.0.1", node.port) as socket:
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await socket.send_all(f"GET {STREAM} HTTP/1.1\r\nHost: 127.0.0.1:{node.port}\r\n{fields}\r\n".encode())
        stream = Stream(socket)
        assert await stream.line() == "HTTP/1.1 200 OK"
        yield stream


async def poll(base: str, **query: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=base, timeout=60) as http:
        return await http.get(POLL, params=query)


async def test_every_transport_shows_the_same_on_both_nodes(start_node: StartNode) -> None:
    """A recorded action is on both nodes' WebSockets, whole and as delta, streams and polls, under one position."""
    first, second = start_node(), start_node()
    answers: list[httpx.Response] = []
    async with (
        httpx.AsyncClient(base_url=first.url) as http,
        viewer(first) as whole,
        viewer(second, subscribe=False) as delta,
    ):
        user = await register(http)
        await delta.send(action="subscribe", channel="leaderboard", mode="delta")
        before = (await delta.next_event("leaderboard:update"))["position"]
        assert (await whole.next_event("leaderboard:update"))["position"] == before
        async with streaming(first) as here, streaming(second) as there, trio.open_nursery() as nursery:
            for stream in (here, there):
                assert (await stream.next_event("leaderboard:update"))["position"] == before == stream.last_id

            async def ask(node: ServerProcess) -> None:
                answers.append(await poll(node.url, since=before))

            for node in (first, second):
                nursery.start_soon(ask, node)
            await user.act()
            update = await whole.next_event("leaderboard:update")
            told = [
                await here.next_event("leaderboard:update"),
                await there.next_event("leaderboard:update"),
                await delta.next_event("leaderboard:delta"),
            ]
            assert here.last_id == there.last_id == update["position"] != before
        assert {board["position"] for board in (*told, *(answer.json()["data"] for answer in answers))} == {
            update["position"]
        }
        assert told[2]["previousPosition"] == before
        (row,) = told[2]["changed"]
        assert {name: value for name, value in row.items() if name != "previousRank"} == update["leaderboard"][0]
        assert all(answer.json()["data"]["leaderboard"] == update["leaderboard"] for answer in answers)


async def test_coming_back_on_the_other_node(start_node: StartNode) -> None:
    """With the position that one node gave, the other tells the difference, or that there is none; on every
    transport."""
    first, second = start_node(limits__user_per_minute="0"), start_node()
    async with httpx.AsyncClient(base_url=first.url) as http, viewer(second) as watching:
        user = await register(http)
        async with viewer(first, subscribe=False) as cut_off:
            await cut_off.send(action="subscribe", channel="leaderboard", mode="delta")
            position = (await cut_off.next_event("leaderboard:update"))["position"]
            while (await watching.next_event("leaderboard:update"))["position"] != position:
                pass
        await user.act()
        now = (await watching.next_event("leaderboard:update"))["position"]
        async with viewer(second, subscribe=False) as back:
            await back.send(action="subscribe", channel="leaderboard", mode="delta", since=position)
            delta = await back.next_event("leaderboard:delta")
            assert (delta["previousPosition"], delta["position"]) == (position, now)
            await back.send(action="subscribe", channel="leaderboard", mode="delta", since=now)
            await back.send(action="ping")
            heard = [json.loads(await back.socket.get_message())["event"] for _ in range(2)]
            assert heard == ["subscribed", "pong"]
        assert (await poll(first.url, since=now, wait="0")).status_code == httpx.codes.NO_CONTENT
        async with streaming(first, **{"last-event-id": now}) as stream:
            await stream.next_event("subscribed")
            await user.act()
            assert (await stream.next_event("leaderboard:update"))["position"] != now


async def test_a_stream_is_as_good_as_a_websocket_for_its_user(start_node: StartNode) -> None:
    """Personal events come on whatever node; the number of viewers is that of both; a log-out ends the stream."""
    first, second = start_node(), start_node()
    async with httpx.AsyncClient(base_url=first.url) as http, viewer(first) as watching:
        user = await register(http)
        async with streaming(second, **user.authorization) as mine:
            assert (await mine.next_event("authenticated"))["userId"] == user.user
            recorded = (await user.act()).json()["data"]
            assert (await mine.next_event("score:personal"))["newScore"] == recorded["newScore"]
            for one in (mine, watching):
                while (await one.next_event("viewers"))["count"] != 2:
                    pass
            assert (
                await http.post("/api/v1/auth/logout", headers=user.authorization)
            ).status_code == httpx.codes.NO_CONTENT
            assert (await mine.to_the_end())[-1] == "error"
        answer = await poll(second.url, token=user.token)
        assert answer.status_code == httpx.codes.UNAUTHORIZED


async def test_limits_of_connections_come_from_the_settings(start_node: StartNode) -> None:
    """A user's second connection is refused, a WebSocket with 1013, a stream with 429; so is one more than the node
    takes, with 503."""
    node = start_node(live__connections_per_user="1", live__connections="2")
    async with httpx.AsyncClient(base_url=node.url) as http:
        user = await register(http)
        async with viewer(node, token=user.token) as mine:
            await mine.next_event("authenticated")
            async with viewer(node, token=user.token, subscribe=False) as again:
                assert await again.close_code() == 1013
            while "scoreboard_websocket_connections 1.0" not in (await http.get("/metrics")).text:
                await trio.sleep(0.05)  # it counts until it has gone
            answer = await http.get(STREAM, headers=user.authorization)
            assert (answer.status_code, answer.json()["layer"]) == (httpx.codes.TOO_MANY_REQUESTS, "user")
            async with viewer(node) as other:
                await other.next_event("leaderboard:update")
                answer = await http.get(POLL)
                assert (answer.status_code, answer.headers["retry-after"]) == (httpx.codes.SERVICE_UNAVAILABLE, "5")


async def test_a_leaving_node_ends_streams_and_polls(start_node: StartNode) -> None:
    """SIGTERM: the stream's body ends, the poll is answered 204 with the advice to come back elsewhere, the exit code
    is 0."""
    node = start_node()
    async with streaming(node) as stream, trio.open_nursery() as nursery:
        position = (await stream.next_event("leaderboard:update"))["position"]
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await poll(node.url, since=position))

        nursery.start_soon(ask)
        async with httpx.AsyncClient(base_url=node.url) as http:
            while "scoreboard_long_polls 1.0" not in (await http.get("/metrics")).text:
                await trio.sleep(0.05)
        node.signal()
        assert await stream.to_the_end() == []
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [
        (httpx.codes.NO_CONTENT, "1")
    ]
    assert node.stop() == 0
    assert not [line for line in node.lines() if line["level"] in {"error", "critical"}]


@pytest.mark.parametrize("path", [STREAM, POLL])
async def test_other_methods_and_foreign_pages(start_node: StartNode, path: str) -> None:
    """405 with what is allowed; an allowed origin may read the answer, a foreign one is refused."""
    node = start_node(server__allowed_origins="https://stage.example")
    async with httpx.AsyncClient(base_url=node.url) as http:
        answer = await http.post(path)
        assert (answer.status_code, answer.headers["allow"]) == (httpx.codes.METHOD_NOT_ALLOWED, "GET, HEAD")
        answer = await http.get(path, headers={"origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (httpx.codes.FORBIDDEN, "FORBIDDEN")
        answer = await http.head(path, headers={"origin": "https://stage.example"})
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["access-control-allow-origin"] == "https://stage.example"
