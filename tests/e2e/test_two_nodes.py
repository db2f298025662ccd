"""Two nodes on the same stores: one board, one truth, personal events wherever their user is."""

import json
from collections.abc import Callable
from uuid import uuid4

import httpx
import trio

from tests.e2e.server_processes import Client, ServerProcess, register, viewer

StartNode = Callable[..., ServerProcess]
UNLIMITED = {"limits__user_per_minute": "0"}


async def test_both_nodes_show_the_same_board(start_node: StartNode) -> None:
    """What is recorded on one node is on the other's board within a tick, under the same position, with the same
    changes."""
    first, second = start_node(), start_node()
    async with httpx.AsyncClient(base_url=first.url) as http, viewer(first) as here, viewer(second) as there:
        user = await register(http)
        before = [await watching.next_event("leaderboard:update") for watching in (here, there)]
        assert before[0]["leaderboard"] == before[1]["leaderboard"] == []
        recorded = (await user.act()).json()["data"]
        after = [await watching.next_event("leaderboard:update") for watching in (here, there)]
        assert after[0]["position"] == after[1]["position"] != before[0]["position"]
        assert after[0]["leaderboard"] == after[1]["leaderboard"]
        assert after[0]["leaderboard"][0] == {
            "rank": 1,
            "userId": user.user,
            "username": user.session["username"],
            "score": recorded["newScore"],
        }
        assert after[0]["changedPositions"] == [
            {"userId": user.user, "previousRank": None, "newRank": 1, "score": recorded["newScore"]}
        ]
        boards = [await user.leaderboard(node.url) for node in (first, second)]
        assert boards[0] == boards[1]
        assert boards[0]["currentUser"] == {"rank": 1, "score": recorded["newScore"]}


async def test_personal_events_reach_the_user_alone_on_any_node(start_node: StartNode) -> None:
    """`score:personal` goes to every connection of the user who scored, on whatever node, subscribed or not, and to
    nobody else."""
    first, second = start_node(), start_node()
    async with httpx.AsyncClient(base_url=first.url) as http:
        user, other = await register(http), await register(http)
        async with (
            viewer(second, token=user.token, subscribe=False) as mine,
            viewer(second, token=other.token) as theirs,
        ):
            assert (await mine.next_event("authenticated"))["userId"] == user.user
            await theirs.next_event("leaderboard:update")
            recorded = (await user.act()).json()["data"]
            personal = await mine.next_event("score:personal")
            assert (
                personal.items()
                >= {
                    "previousScore": 0,
                    "newScore": recorded["newScore"],
                    "pointsAwarded": recorded["pointsAwarded"],
                    "rank": 1,
                }.items()
            )
            await theirs.next_event("leaderboard:update")
            await theirs.send(action="ping")
            while (event := json.loads(await theirs.socket.get_message())["event"]) != "pong":
                assert event != "score:personal"


async def test_the_same_action_on_both_nodes_counts_once(start_node: StartNode) -> None:
    """400 concurrent posts of ten action ids over two nodes: ten are recorded, 390 are duplicates, the total is ten
    times the points."""
    first, second = start_node(**UNLIMITED), start_node(**UNLIMITED)
    async with httpx.AsyncClient(base_url=first.url, timeout=30, limits=httpx.Limits(max_connections=100)) as http:
        user = await register(http)
        bodies = [user.body(actionId=str(uuid4())) for _ in range(10)]
        answers: list[httpx.Response] = []

        async def post(body: bytes, base: str) -> None:
            answers.append(await user.act(body, base=base))

        async with trio.open_nursery() as nursery:
            for turn in range(40):
                for body in bodies:
                    nursery.start_soon(post, body, (first, second)[turn % 2].url)
        assert sorted(answer.status_code for answer in answers) == [200] * 10 + [409] * 390
        points = {answer.json()["data"]["pointsAwarded"] for answer in answers}
        assert len(points) == 1
        assert all(
            answer.headers["idempotency-replayed"] == "true"
            for answer in answers
            if answer.status_code == httpx.codes.CONFLICT
        )
        assert (await user.leaderboard())["currentUser"]["score"] == 10 * points.pop()


async def test_the_window_is_exact_over_both_nodes(start_node: StartNode) -> None:
    """Of 60 parallel posts of one user over two nodes exactly ten are admitted; the rest are told when to come back."""
    first, second = start_node(), start_node()
    async with httpx.AsyncClient(base_url=first.url, timeout=30) as http:
        user = await register(http)
        answers: list[httpx.Response] = []

        async def post(base: str) -> None:
            answers.append(await user.act(base=base))

        async with trio.open_nursery() as nursery:
            for turn in range(60):
                nursery.start_soon(post, (first, second)[turn % 2].url)
    refused = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
    assert len(answers) - len(refused) == sum(answer.status_code == httpx.codes.OK for answer in answers) == 10
    assert {answer.json()["layer"] for answer in refused} == {"user"}
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)


async def test_a_log_out_is_heard_everywhere(start_node: StartNode) -> None:
    """A logged-out session's token is refused on the other node within two seconds, and its WebSocket there is
    closed."""
    first, second = start_node(), start_node()
    async with httpx.AsyncClient(base_url=first.url) as http:
        user = await register(http)
        async with viewer(second, token=user.token) as watching:
            await watching.next_event("authenticated")
            assert (
                await http.post("/api/v1/auth/logout", headers=user.authorization)
            ).status_code == httpx.codes.NO_CONTENT
            with trio.fail_after(10):
                while (await user.act(base=second.url)).status_code != httpx.codes.UNAUTHORIZED:
                    await trio.sleep(0.1)
            assert await watching.close_code() == 4401


async def test_a_new_name_is_on_every_board(start_node: StartNode) -> None:
    """A changed user name is pushed to viewers of both nodes without anybody scoring."""
    first, second = start_node(), start_node()
    async with httpx.AsyncClient(base_url=first.url) as http, viewer(first) as here, viewer(second) as there:
        user = await register(http)
        await user.act()
        answer = await http.patch("/api/v1/users/me", json={"username": "Renamed"}, headers=user.authorization)
        assert answer.status_code == httpx.codes.OK, answer.text
        for watching in (here, there):
            while True:
                board = (await watching.next_event("leaderboard:update"))["leaderboard"]
                if board and board[0]["username"] == "Renamed":
                    break


async def test_a_node_leaves_in_order(start_node: StartNode) -> None:
    """SIGTERM: viewers are told to reconnect (1012), the request at hand is answered, the exit code is 0."""
    node = start_node(**UNLIMITED)
    async with httpx.AsyncClient(base_url=node.url, timeout=30) as http, viewer(node) as watching:
        user = await register(http)
        await watching.next_event("leaderboard:update")
        statuses: list[int] = []

        async def keep_posting(client: Client) -> None:
            while True:
                try:
                    statuses.append((await client.act()).status_code)
                except httpx.ConnectError:
                    return  # it listens no more

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_posting, user)
                while len(statuses) < 20:
                    await trio.sleep(0.01)
                node.signal()
                assert await watching.close_code() == 1012
        assert set(statuses) == {200}
    assert node.stop() == 0
    assert not [line for line in node.lines() if line["level"] in {"error", "critical"}]
