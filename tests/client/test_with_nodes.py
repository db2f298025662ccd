"""The client with real nodes: a session from log-in to log-out, and a board that outlives its server."""

from collections.abc import Callable

import httpx
import pytest
import trio

from scoreboard.client import LiveBoard, Refused, Session, backoff, connect, log_in
from tests.e2e.nodes import ServerProcess, provision

StartNode = Callable[..., ServerProcess]
NAME, PASSWORD = "somebody", "a long password"


async def score_of(board: LiveBoard, user: str, score: int) -> None:
    """Returns when the board shows it."""
    with trio.fail_after(20):
        while score not in {entry.score for entry in board.entries if entry.userId == user}:
            await board.changed()


async def test_a_session_from_beginning_to_end(start_node: StartNode) -> None:
    """Log in, act, see it on the board and as a personal event, renew the tokens, act with the new ones, and log out."""
    node = start_node()
    body = {"username": NAME, "email": "somebody@example.org", "password": PASSWORD}
    async with httpx.AsyncClient(base_url=node.url) as http:
        assert (await http.post("/api/v1/auth/register", json=body)).status_code == httpx.codes.CREATED
    with pytest.raises(Refused) as raised:
        async with log_in(node.url, NAME, "another password"):
            raise AssertionError("not logged in")
    assert raised.value.status == httpx.codes.UNAUTHORIZED
    async with log_in(node.url, NAME, PASSWORD) as session, connect(node.url, session=session) as board:
        outcome = await board.submit("task_finish", {"difficulty": "hard", "timeSpent": 120}, action_id="first")
        assert (outcome.previousScore, outcome.newScore, outcome.newRank, outcome.replayed) == (0, 100, 1, False)
        await score_of(board, session.user, 100)
        with trio.fail_after(10):
            personal = await anext(board.personal)
            assert (personal.newScore, personal.rank) == (100, 1)
        before = session.credentials
        await session.refresh()
        assert {session.credentials.accessToken, session.credentials.refreshToken}.isdisjoint({before.accessToken, before.refreshToken})
        assert board.state == "live"
        assert (await board.submit("task_finish", {"difficulty": "easy"})).newScore == 130
        with pytest.raises(Refused) as refused:
            await board.submit("task_finish", {"difficulty": "easy"}, action_id="first")
        assert (refused.value.status, refused.value.code) == (409, "DUPLICATE_ACTION")
        last = session.headers()
    async with httpx.AsyncClient(base_url=node.url) as http:
        assert (await http.get("/api/v1/users/me", headers=last)).status_code == httpx.codes.UNAUTHORIZED


async def test_boards_outlive_their_node(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is shot and comes back while an action is under way: the action counts once, and boards of either mode are what it shows."""
    monkeypatch.setattr(backoff, "LONGEST", 0.5)
    node = start_node(limits__user_per_minute="0")
    async with httpx.AsyncClient(base_url=node.url, timeout=5) as http:
        users = await provision(node, http, 3)
        first, second, third = [Session(http, user.signing.credentials) for user in users]
        async with connect(node.url, session=first, mode="delta") as delta, connect(node.url, mode="full") as full:
            for session in (first, second, third):
                await session.submit("task_finish", {"difficulty": "medium"})
            for board in (delta, full):
                await score_of(board, third.user, 50)
            node.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second.submit, "task_finish", {"difficulty": "hard"})
                with trio.fail_after(10):
                    while (delta.state, full.state) != ("connecting", "connecting"):
                        await delta.changed()
                await trio.to_thread.run_sync(node.start)
            for board in (delta, full):
                await score_of(board, second.user, 150)
            assert delta.entries == full.entries
            shown = (await users[0].leaderboard())["leaderboard"]
            assert [(row["userId"], row["score"], row["rank"]) for row in shown] == [(e.userId, e.score, e.rank) for e in full.entries]
