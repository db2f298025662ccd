"""A node leaves while users post and watch, over every transport, through nginx, then HAProxy, as shipped: it costs no
action."""

import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import h11
import httpx
import trio
from trio_websocket import ConnectionClosed

from tests.e2e.balanced_nodes import SPREAD, NodePair, balancer, pair, playing
from tests.e2e.balancers import Balancer
from tests.e2e.server_processes import Client, ServerProcess, register

__all__ = ["balancer", "pair"]  # fixtures

POINTS = 50  # of the action that Client.body tells of
POSTERS = 4


async def score_of(client: Client) -> int:
    return int((await client.leaderboard())["currentUser"]["score"])


@dataclass
class Load:
    """What happened while users posted and watched."""

    actions: int = 0  # that were posted
    failed: list[str] = field(default_factory=list)  # what posters were told when not that their action counts
    others: int = 0  # board reads, changes of a profile, refreshes
    others_failed: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)  # with which viewers were closed; 1006: without a word
    # viewer → the best score that it was shown last, over whatever transport
    boards: dict[int, int] = field(default_factory=dict)


async def failure(request: Awaitable[httpx.Response]) -> str:
    """What went wrong with a request; "" when nothing has. To a duplicate's poster a 409 tells that the first one
    counts."""
    try:
        answer = await request
    except httpx.TransportError as exc:
        return repr(exc)
    is_well = answer.status_code == httpx.codes.OK or "idempotency-replayed" in answer.headers
    return "" if is_well else f"{answer.status_code} {answer.text}"


async def under_load(
    pair: NodePair, balancer: Balancer, leave: Callable[[], Awaitable[None]], left: Callable[[], bool]
) -> Load:
    """Posts, reads and watches through the balancer while `leave` ends a node, until some time after `left` says that
    it has.

    Returns when every viewer shows what the last action gave. Whoever failed to post asks once more, with the same
    body.
    """
    load, stop = Load(), trio.Event()
    async with playing(pair, balancer) as user, trio.open_nursery() as watchers:
        before = await score_of(user)

        async def post() -> None:
            async with balancer.client(pair.address()) as http:
                client = Client(http, pair.player)
                while not stop.is_set():
                    body = client.body()
                    load.actions += 1
                    if why := await failure(client.act(body)):
                        load.failed.append(why)
                        assert not await failure(client.act(body))
                    await trio.sleep(0.02)  # 50 a second and less: the limit of an address is 1000 a minute

        async def do_else() -> None:
            async with balancer.client(pair.address()) as http:
                other = await register(http)
                token = {"refreshToken": other.session["refreshToken"]}
                while not stop.is_set():
                    picture = {"avatarUrl": f"https://pictures.test/{load.others}"}
                    for why in (
                        await failure(http.get("/api/v1/scores/leaderboard")),
                        await failure(http.patch("/api/v1/users/me", json=picture, headers=other.authorization)),
                        await failure(refresh(http, token)),
                    ):
                        load.others += 1
                        if why:
                            load.others_failed.append(why)
                    await trio.sleep(0.05)

        async def watch(number: int) -> None:
            while True:
                async with balancer.viewer() as watching:
                    try:
                        while True:
                            load.boards[number] = (await watching.next_event("leaderboard:update"))["leaderboard"][0][
                                "score"
                            ]
                    except ConnectionClosed as closed:
                        load.codes.append(closed.reason.code if closed.reason else 1006)

        async def stream(number: int) -> None:
            """A stream that ends is opened again where it was."""
            since: dict[str, str] = {}
            while True:
                try:
                    async with balancer.streaming(**since) as events:
                        while True:
                            event = await events.next("leaderboard:update")
                            since = {"last_event_id": event["id"]}
                            load.boards[number] = json.loads(event["data"])["data"]["leaderboard"][0]["score"]
                except (AssertionError, h11.RemoteProtocolError, trio.BrokenResourceError):
                    await trio.sleep(0.1)  # it has ended, or the node is not known to be gone yet

        async def poll(number: int) -> None:
            """Asks again, wherever that leads, with the position that it has."""
            since = ""
            async with balancer.client(pair.address()) as http:
                while True:
                    answer = await http.get("/api/v1/scores/poll", params={"since": since, "wait": "2"})
                    if answer.status_code == httpx.codes.OK:
                        board = answer.json()["data"]
                        since, load.boards[number] = board["position"], board["leaderboard"][0]["score"]
                    elif answer.status_code != httpx.codes.NO_CONTENT:
                        load.others_failed.append(f"poll: {answer.status_code} {answer.text}")
                    await trio.sleep(0.2)

        for number in range(SPREAD):
            watchers.start_soon(watch, number)
        watchers.start_soon(stream, SPREAD)
        watchers.start_soon(poll, SPREAD + 1)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(POSTERS):
                    nursery.start_soon(post)
                nursery.start_soon(do_else)
                while load.actions < 50 or len(load.boards) < SPREAD + 2:
                    await trio.sleep(0.01)
                await leave()
                while not left():
                    await trio.sleep(0.01)
                enough = load.actions + 100
                while load.actions < enough:
                    await trio.sleep(0.01)
                stop.set()
        expected = before + POINTS * load.actions
        assert await score_of(user) == expected
        with trio.fail_after(10):
            while set(load.boards.values()) != {expected}:
                await trio.sleep(0.01)
        watchers.cancel_scope.cancel()
    return load


async def refresh(http: httpx.AsyncClient, token: dict[str, str]) -> httpx.Response:
    """Spends the refresh token, and keeps its successor in its place."""
    answer = await http.post("/api/v1/auth/refresh", json=token)
    if answer.status_code == httpx.codes.OK:
        token["refreshToken"] = answer.json()["data"]["refreshToken"]
    return answer


async def back_again(pair: NodePair, balancer: Balancer, node: ServerProcess) -> None:
    """Starts the node, and returns when it is given requests."""
    node.start()
    async with balancer.client(pair.address()) as http:
        await balancer.balances(http)


async def test_a_node_that_is_stopped_is_not_missed(pair: NodePair, balancer: Balancer) -> None:
    """SIGTERM under load: every request is answered well, each action counts once, viewers are told 1012 and are back
    on the other node."""
    node = pair.nodes[0]
    process = node.process
    assert process is not None

    async def stop() -> None:
        node.signal()

    load = await under_load(pair, balancer, stop, lambda: process.poll() is not None)
    assert node.stop() == 0
    assert not load.failed
    assert not load.others_failed
    assert set(load.codes) == {1012}
    assert len(load.codes) <= SPREAD  # each of them once
    assert not [line for line in node.lines() if line["level"] in {"error", "critical"}]
    await back_again(pair, balancer, node)


async def test_a_node_that_is_killed_costs_no_action(pair: NodePair, balancer: Balancer) -> None:
    """kill -9 of a node that has requests in hand: the balancer repeats what may be repeated, so that each action is
    answered and counts once; of other requests at most the one in hand fails; viewers are back on the other node."""
    node = pair.nodes[1]
    process = node.process
    assert process is not None

    async def kill() -> None:
        node.signal(signal.SIGSTOP)
        await trio.sleep(0.2)  # requests come to be in its hands; the test holds without any, too
        node.signal(signal.SIGKILL)

    load = await under_load(pair, balancer, kill, lambda: process.poll() is not None)
    assert not load.failed
    assert len(load.others_failed) <= 1
    assert set(load.codes) == {1006}
    assert len(load.codes) <= SPREAD
    await back_again(pair, balancer, node)
