"""A game's server: prepared answers on a clock that jumps, then a real node; on both loops."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import anyio.to_thread
import httpx
import pytest

from scoreboard.client import Credentials, Refused
from scoreboard.client.base_server import MAX_REQUEST_ACTIONS, MAX_REQUEST_BYTES, BulkAction, bodies
from scoreboard.domain.scopes import Scope
from tests.client.loops import on_both_loops
from tests.client.test_session import OUTCOME, Server, problem
from tests.e2e.server_processes import ServerProcess

StartNode = Callable[..., ServerProcess]


def outcomes(*each: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"success": True, "data": {"outcomes": list(each)}})


@contextmanager
def server_with(client: ModuleType, server: Server) -> Iterator[Any]:
    http = httpx.AsyncClient(base_url="http://scoreboard.test", transport=httpx.MockTransport(server))
    yield client.ServerClient(http, "sbk_key")


@on_both_loops(jumping=True)
async def test_outcomes_come_in_order(client: ModuleType) -> None:
    """What counts has its result, also when an earlier request recorded it; all else has a code and a reason."""
    server = Server(
        outcomes(
            {"status": 200, "data": OUTCOME},
            {"status": 409, "code": "DUPLICATE_ACTION", "detail": "Before.", "data": OUTCOME},
            {"status": 409, "code": "DUPLICATE_ACTION", "detail": "Another."},
            {"status": 404, "code": "NOT_FOUND", "detail": "Nobody."},
            {"status": 202, "data": {"status": "held"}},
        )
    )
    with server_with(client, server) as game:
        sent = [game.action("goal", {"a": n}, external_id=f"steam:{n}") for n in range(5)]
        found = await game.submit_many(sent)
    assert [(one.status, one.code) for one in found] == [
        (200, ""),
        (409, "DUPLICATE_ACTION"),
        (409, "DUPLICATE_ACTION"),
        (404, "NOT_FOUND"),
        (202, ""),
    ]
    assert [one.outcome and one.outcome.replayed for one in found] == [False, True, None, None, None]
    (asked,) = server.requests
    assert asked.headers["authorization"] == "Bearer sbk_key"
    (first, *_) = json.loads(asked.content)["actions"]
    assert (first["externalId"], first["metadata"], "userId" in first) == ("steam:0", {"a": 0}, False)


@on_both_loops(jumping=True)
async def test_a_request_without_an_answer_is_sent_again(client: ModuleType) -> None:
    """With the same bytes, so nothing counts twice; 429 is the caller's to wait for."""
    limited = problem(429, "RATE_LIMITED", layer="server_key", wait=7)
    server = Server(httpx.ReadError, problem(503, "SERVICE_UNAVAILABLE", wait=1), limited)
    with server_with(client, server) as game, pytest.raises(Refused) as raised:
        await game.submit_many([game.action("goal", user_id="u")])
    assert len({request.content for request in server.requests}) == 1
    assert (len(server.requests), raised.value.retry_after, raised.value.layer) == (3, 7, "server_key")


@pytest.mark.parametrize(
    ("count", "size", "requests"), [(0, 1, 0), (500, 1, 1), (501, 1, 2), (1200, 1, 3), (100, 5_000, 2)]
)
def test_a_long_list_is_divided(count: int, size: int, requests: int) -> None:
    """No request has more actions or bytes than the server takes, and none is lost."""
    actions = [BulkAction(str(n), "goal", "now", metadata={"a": "x" * size}) for n in range(count)]
    made = [json.loads(body)["actions"] for body in bodies(actions)]
    assert len(made) == requests
    assert [one["actionId"] for part in made for one in part] == [str(n) for n in range(count)]
    assert all(len(part) <= MAX_REQUEST_ACTIONS for part in made)
    assert all(len(body) <= MAX_REQUEST_BYTES for body in bodies(actions))


@on_both_loops
async def test_a_games_server_from_beginning_to_end(client: ModuleType, start_node: StartNode) -> None:
    """It makes users, submits for them, and opens a session with which a user sees the score."""
    node = start_node()
    scopes = [word for scope in Scope for word in ("--scope", scope)]
    key = await anyio.to_thread.run_sync(lambda: node.run_command("server-keys", "create", "game", *scopes))
    async with client.open_server(node.url, key.strip()) as game:
        users = [await game.put_user(f"steam:{n} ö", username=f"Player {n}") for n in range(2)]
        assert [user.username for user in users] == ["Player 0", "Player 1"]
        goals = [game.action("task_finish", external_id=users[n % 2].externalId) for n in range(600)]
        first = await game.submit_many(goals)
        assert {one.status for one in first} == {200}
        again = await game.submit_many(goals)
        assert all(one.outcome and one.outcome.replayed for one in again)
        assert [one.outcome.newScore for one in again] == [one.outcome.newScore for one in first]
        credentials = await game.open_session(external_id=users[0].externalId)
        assert isinstance(credentials, Credentials)
        assert (credentials.userId, credentials.username) == (users[0].userId, "Player 0")
        with pytest.raises(Refused) as raised:
            await game.open_session(user_id="028e1b3b-469e-4c98-9ca1-1ae0b5657e30")
        assert raised.value.status == httpx.codes.NOT_FOUND


@on_both_loops
async def test_an_id_that_has_no_path_is_refused(client: ModuleType) -> None:
    """A slash would lead to another path, and a proxy on the way may decode it."""
    with server_with(client, Server(outcomes())) as game:
        for external_id in ("a/b", "a\\b", "..", ""):
            with pytest.raises(ValueError, match="external id"):
                await game.put_user(external_id)
