"""The long poll over real connections: when a poll is answered, with what, and that the connection goes on."""

import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import trio

from scoreboard.domain import protocol
from scoreboard.domain.boards import Board, Snapshot
from scoreboard.live.admission import Admission
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports import long_poll as module
from scoreboard.live.transports.long_poll import is_ahead
from scoreboard.telemetry import metrics
from scoreboard.telemetry.request_times import name_routes
from tests.live.boards import BOARD, snapshot
from tests.live.dependencies import FakeIdentity
from tests.live.live_server import LiveServer, serve_live
from tests.live.viewers import FakeViewer

ANN = UUID(int=1)


@pytest.fixture(autouse=True, params=[True, False], ids=["at once", "task"])
def _every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls wait without a task or with one; the responses are the same."""
    monkeypatch.setattr(LiveServer, "has_fast_polls", request.param)


class Poller:
    """One connection that polls again and again."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self.data = stream, b""

    @classmethod
    async def connect(cls, node: LiveServer) -> "Poller":
        return cls(await node.connect())

    async def ask(self, query: str = "", *fields: str, method: str = "GET") -> None:
        await self.stream.send_all(
            "\r\n".join([f"{method} /poll{query} HTTP/1.1", "Host: t", *fields, "", ""]).encode()
        )

    async def answer(self, *, has_body: bool = True) -> tuple[int, dict[str, str], Any]:
        """Status, fields, JSON of the next answer."""
        while b"\r\n\r\n" not in self.data:
            await self._more()
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = dict(line.partition(": ")[::2] for line in lines)
        size = int(fields.get("content-length", 0)) if has_body else 0
        while len(self.data) < size:
            await self._more()
        body, self.data = self.data[:size], self.data[size:]
        return int(first.split()[1]), fields, json.loads(body) if body.startswith(b"{") else body

    async def _more(self) -> None:
        more = await self.stream.receive_some(65536)
        assert more, "the connection has ended"
        self.data += more


@asynccontextmanager
async def polling(rules: LiveLimits | None = None, admission: Admission | None = None) -> AsyncIterator[LiveServer]:
    """A node. For polls without a task its board has a viewer already, so that it is current."""
    async with serve_live(rules, admission) as node:
        if node.has_fast_polls:
            FakeViewer(node.hub)
            await node.refresh(BOARD)
        before = node.refreshed
        yield node
        assert not node.has_fast_polls or node.refreshed == before


async def waiting(node: LiveServer, polls: int = 1) -> None:
    while node.hub.viewer_count() - len(node.hub.subscribers()) != polls:
        await trio.sleep(0.005)


async def test_the_board_at_once_and_then_when_it_changes() -> None:
    """Without `since`, or with another position, the response comes at once. With the present position it comes when
    the board changes. All on one connection."""
    async with polling() as node:
        poller = await Poller.connect(node)
        for query in ("", "?since=", "?since=0-9", "?since=nonsense"):
            await poller.ask(query)
            status, fields, body = await poller.answer()
            assert (status, fields["content-type"], fields["cache-control"]) == (200, "application/json", "no-store")
            assert body["success"] is True
            assert set(body["data"]) == {"leaderboard", "position", "timestamp"}
            assert ([row["userId"] for row in body["data"]["leaderboard"]], body["data"]["position"]) == (
                ["a", "b", "c"],
                "1-1",
            )
        await poller.ask("?since=1-1")
        await waiting(node)
        await node.publish("bac")
        status, _, body = await poller.answer()
        assert (status, body["data"]["position"]) == (200, "1-2")
        await waiting(node, 0)


async def test_nothing_new_is_204_after_the_wait() -> None:
    """And at once with `wait=0`; the connection goes on."""
    async with polling() as node:
        poller = await Poller.connect(node)
        for wait in ("0", "0.2", "0.0"):
            await poller.ask(f"?since=1-1&wait={wait}")
            assert (await poller.answer())[::2] == (204, b"")
        await poller.ask("?since=1-0&wait=0")
        assert (await poller.answer())[0] == 200


async def test_a_wait_is_no_duration_of_the_server() -> None:
    """The durations in the metrics include a poll that is answered at once, and exclude one that waited."""

    def measured() -> float:
        return (
            metrics.REGISTRY.get_sample_value(
                "scoreboard_http_request_seconds_count", {"route": "/poll", "status": "2xx"}
            )
            or 0
        )

    name_routes(["/poll"])
    async with polling() as node:
        poller, before = await Poller.connect(node), measured()
        for query, more in (("", 1), ("?since=1-1&wait=0", 2), ("?since=1-1&wait=0.1", 2), ("?since=1-0", 3)):
            await poller.ask(query)
            await poller.answer()
            assert measured() - before == more


async def test_all_who_wait_share_one_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is encoded once a tick for all clients; each response has its own head."""
    encoded: list[Snapshot] = []
    encode = protocol.polled
    monkeypatch.setattr(protocol, "polled", lambda snapshot: encoded.append(snapshot) or encode(snapshot))
    async with polling() as node:
        pollers = [await Poller.connect(node) for _ in range(5)]
        for place, poller in enumerate(pollers):
            await poller.ask("?since=1-1", f"X-Request-ID: r{place}", f"Origin: https://{place}.example")
        await waiting(node, len(pollers))
        await node.publish("ba")
        answers = [await poller.answer() for poller in pollers]
        assert [fields["x-request-id"] for _, fields, _ in answers] == ["r0", "r1", "r2", "r3", "r4"]
        assert [fields["x-for"] for _, fields, _ in answers] == [f"https://{place}.example" for place in range(5)]
        assert all(body == answers[0][2] for _, _, body in answers)
        assert len(encoded) == 1


async def test_a_tick_wakes_everyone_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of many polls are answered, and other tasks run meanwhile."""
    monkeypatch.setattr("scoreboard.live.hub.WRITES_PER_CHECKPOINT", 2)
    left: set[int] = set()

    async def look(node: LiveServer) -> None:
        while True:
            left.add(node.hub.viewer_count() - len(node.hub.subscribers()))
            await trio.lowlevel.checkpoint()

    async with polling() as node, trio.open_nursery() as nursery:
        pollers = [await Poller.connect(node) for _ in range(9)]
        for poller in pollers:
            await poller.ask("?since=1-1")
        await waiting(node, len(pollers))
        nursery.start_soon(look, node)
        await node.publish("ba")
        assert [(await poller.answer())[0] for poller in pollers] == [200] * 9
        assert left & {1, 2, 3, 4, 5, 6, 7, 8}
        nursery.cancel_scope.cancel()


async def test_a_client_that_knows_more_than_this_node_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a newer position, from another node, the response is not an older board at once: it comes when this node has
    that position, or after a second."""
    async with polling() as node:
        poller = await Poller.connect(node)
        await poller.ask("?since=1-3")
        await waiting(node)
        await node.publish("ba")  # 1-2: still older than what the client has
        await node.publish("bac")  # 1-3: what it has
        await trio.testing.wait_all_tasks_blocked()
        await waiting(node)
        await node.publish("cab")
        assert (await poller.answer())[2]["data"]["position"] == "1-4"
        monkeypatch.setattr(module, "MAX_AHEAD_SECONDS", 0.1)
        await poller.ask("?since=7-7")
        assert (await poller.answer())[2]["data"]["position"] == "1-4"


def test_what_is_ahead() -> None:
    """Positions are compared as pairs. A text that is no position is never ahead, nor is any of a stale board."""
    shown: Snapshot = snapshot("ab", 5, epoch=2)
    ahead = {
        since: is_ahead(since, shown)
        for since in ("2-5", "2-6", "3-0", "1-9", "2-4", "", "x", "2-6-1", "stale-ab", "9" * 40 + "-1")
    }
    assert [since for since, is_newer in ahead.items() if is_newer] == ["2-6", "3-0"]
    assert not is_ahead("9-9", snapshot("ab", 5, stale_since_ms=7))


async def test_an_unwatched_board_is_read_first() -> None:
    """A board without viewers is read for a poll, as what was published may be old; a watched board is not."""
    async with serve_live() as node:
        await node.publish("ab")
        node.board, node.shown_version = "abcd", 9
        poller = await Poller.connect(node)
        await poller.ask()
        assert (await poller.answer())[2]["data"]["position"] == "1-9"
        FakeViewer(node.hub)
        await node.refresh(BOARD)
        before = node.refreshed
        await poller.ask()
        assert (await poller.answer())[0] == 200
        assert node.refreshed == before


async def test_no_store_is_503() -> None:
    """No board was read and none can be: the poll is answered and released."""
    async with serve_live() as node:
        node.away = True
        poller = await Poller.connect(node)
        await poller.ask()
        assert (await poller.answer())[0] == 503
        assert (node.hub.viewer_count(), node.admission.total) == (0, 0)


async def test_a_stale_board_says_so() -> None:
    """Under a position of its own, the same for the same rows on every node: it is answered when the rows change, and
    when it is over."""
    async with polling() as node:
        FakeViewer(node.hub)
        poller = await Poller.connect(node)
        await node.hub.publish(BOARD, snapshot("ab", 5, stale_since_ms=7))
        await poller.ask()
        first = (await poller.answer())[2]["data"]
        assert first["stale"] is True
        await poller.ask(f"?since={first['position']}&wait=0")
        assert (await poller.answer())[0] == 204
        await node.hub.publish(BOARD, snapshot("ba", 5, stale_since_ms=7))
        await poller.ask(f"?since={first['position']}&wait=0")
        second = (await poller.answer())[2]["data"]
        assert second["position"] != first["position"]
        await node.hub.publish(BOARD, snapshot("ba", 5))
        await poller.ask(f"?since={second['position']}")
        assert (await poller.answer())[2]["data"]["position"] == "1-5"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?wait=31", 400),
        ("?wait=-1", 400),
        ("?wait=x", 400),
        ("?wait=", 400),
        ("?wait=1e1", 400),
        ("?wait=nan", 400),
        ("?wait=1&wait=2", 400),
        ("?since=1&since=2", 400),
        ("?channel=nothing", 400),
        ("?token=nonsense", 401),
    ],
)
async def test_bad_values(query: str, status: int) -> None:
    """A problem, at once; the next request on the connection is answered."""
    async with polling() as node:
        poller = await Poller.connect(node)
        await poller.ask(query)
        assert (await poller.answer())[0] == status
        await poller.ask()
        assert (await poller.answer())[0] == 200
        assert node.admission.total == 0


async def test_who_may_wait_and_how_many() -> None:
    """A foreign page may not, nobody may without a token where one is needed, and waiting polls count as
    connections."""
    async with polling(LiveLimits(anonymous=False), Admission(per_user=1)) as node:
        node.tokens["t"] = FakeIdentity(ANN, 1, 9e9)
        one, two = await Poller.connect(node), await Poller.connect(node)
        await one.ask("", "Origin: https://evil.example")
        assert (await one.answer())[0] == 403
        await one.ask()
        assert (await one.answer())[0] == 401
        await one.ask("?since=1-1&token=t")
        await waiting(node)
        await two.ask("", "Authorization: Bearer t")
        status, fields, _ = await two.answer()
        assert (status, fields["retry-after"]) == (429, "5")
        await node.publish("ba")
        assert (await one.answer())[0] == 200
        await two.ask("", "Authorization: Bearer t")
        assert (await two.answer())[0] == 200


async def test_head_does_not_wait() -> None:
    """The head of what there is now."""
    async with polling() as node:
        poller = await Poller.connect(node)
        await poller.ask("?since=1-1", method="HEAD")
        assert (await poller.answer())[0] == 204
        await poller.ask(method="HEAD")
        status, fields, _ = await poller.answer(has_body=False)
        assert (status, int(fields["content-length"]) > 0) == (200, True)
        await poller.ask()
        assert (await poller.answer())[0] == 200


async def test_shutdown_answers_all_who_wait() -> None:
    """204 with `Retry-After: 1`, so that clients reconnect to another node. Polls after that do not wait."""
    async with polling() as node:
        poller = await Poller.connect(node)
        await poller.ask("?since=1-1")
        await waiting(node)
        await node.hub.shut_down()
        for _ in range(2):
            status, fields, _ = await poller.answer()
            assert (status, fields["retry-after"]) == (204, "1")
            await poller.ask("?since=1-1")


async def test_a_pipelined_request_waits_its_turn() -> None:
    """What comes behind a poll is answered after it."""
    async with polling() as node:
        poller = await Poller.connect(node)
        await poller.ask("?since=1-1")
        await waiting(node)
        await poller.ask("?wait=0")
        await node.publish("ba")
        assert [(await poller.answer())[2]["data"]["position"] for _ in range(2)] == ["1-2", "1-2"]


WAYS_TO_LEAVE = ["closes", "resets", "asks on and closes", "asked on and closes"]


async def leave(poller: Poller, how: str) -> None:
    """Ends the connection of a client that waits, in one of the ways in which clients do."""
    if how == "asks on and closes":
        await poller.ask()
    if how == "resets":
        poller.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await poller.stream.aclose()


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
async def test_the_poll_of_a_client_that_has_left_is_released(how: str) -> None:
    """At once, however it left, also if it had sent another request. Its connection ends."""
    async with polling(admission=Admission(per_address=1)) as node:
        poller = await Poller.connect(node)
        await poller.ask("?since=1-1")
        await waiting(node)
        if how == "asked on and closes":
            await poller.ask("?since=1-1")
            await trio.testing.wait_all_tasks_blocked(0.01)
        await leave(poller, how)
        await waiting(node, 0)
        while node.server.connections:
            await trio.sleep(0.005)
        assert (node.admission.total, node.admission.addresses) == (0, {})


async def test_polls_that_are_opened_and_aborted_hold_nothing() -> None:
    """400 from one address, of which 100 may wait: none is refused, and none is left."""
    async with polling(admission=Admission(per_address=100)) as node:
        for _ in range(4):
            pollers = [await Poller.connect(node) for _ in range(100)]
            for poller in pollers:
                await poller.ask("?since=1-1")
            await waiting(node, len(pollers))
            for place, poller in enumerate(pollers):
                await leave(poller, WAYS_TO_LEAVE[place % 3])
            await waiting(node, 0)
        assert node.admission.total == 0


@pytest.mark.parametrize("together", [False, True])
async def test_a_client_that_stops_sending_is_answered_at_once(together: bool) -> None:
    """A half-close ends the wait, whether it comes with the request or later: the response has what there is now, and
    the connection ends."""
    async with polling() as node:
        poller = await Poller.connect(node)
        await poller.ask("?since=1-1")
        if not together:
            await waiting(node)
        await poller.stream.send_eof()
        assert (await poller.answer())[::2] == (204, b"")
        assert await poller.stream.receive_some(1) == b""
        assert node.admission.total == 0


async def test_a_client_that_leaves_while_the_board_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its poll does not begin to wait."""
    asked, go_on, refresh = trio.Event(), trio.Event(), LiveServer.refresh

    async def slow(node: LiveServer, board: Board) -> None:
        asked.set()
        await go_on.wait()
        await refresh(node, board)

    monkeypatch.setattr(LiveServer, "refresh", slow)
    async with serve_live() as node:
        poller = await Poller.connect(node)
        await poller.ask("?since=1-1")
        await asked.wait()
        await poller.stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on.set()
        while node.server.connections:
            await trio.sleep(0.005)
        assert (node.hub.viewer_count(), node.admission.total) == (0, 0)
