"""Server keys on two whole nodes: a command's change holds on both when it ends, and both record one list once."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import trio

from scoreboard.domain.paths import BULK_PATH, LEADERBOARD_PATH, SERVER_USERS_PREFIX
from tests.e2e.server_processes import ServerProcess

StartNode = Callable[..., ServerProcess]
CREATE = ("server-keys", "create", "game", "--scope", "scores", "--scope", "users")


async def command(node: ServerProcess, *words: str) -> str:
    """What the command prints."""
    printed = await trio.to_thread.run_sync(node.run_command, *words)
    return printed.strip()


def statuses(answer: httpx.Response) -> list[int]:
    return [outcome["status"] for outcome in answer.json()["data"]["outcomes"]]


async def test_a_key_is_known_and_ended_on_every_node(start_node: StartNode) -> None:
    """When `create`, `rotate` and `revoke` end, each node has read the change. The first request with a new key may be
    as large as any."""
    nodes = [start_node(), start_node()]
    body = b'{"actions": [' + b" " * 250_000 + b"]}"
    async with httpx.AsyncClient(timeout=20) as http:

        async def answers(key: str) -> list[int]:
            fields = {"authorization": f"Bearer {key}"}
            found = [await http.post(node.url + BULK_PATH, content=body, headers=fields) for node in nodes]
            return [answer.status_code for answer in found]

        old = await command(nodes[0], *CREATE)
        assert await answers(old) == [200, 200]
        new = await command(nodes[0], "server-keys", "rotate", "game", "--overlap", "3600")
        assert await answers(new) == [200, 200]
        assert await answers(old) == [200, 200]
        newest = await command(nodes[0], "server-keys", "rotate", "game", "--overlap", "0")
        assert await answers(newest) == [200, 200]
        assert await answers(new) == await answers(old) == [401, 401]
        await command(nodes[0], "server-keys", "revoke", "game")
        assert await answers(newest) == [401, 401]


async def test_two_nodes_record_one_list_once(start_node: StartNode) -> None:
    """The same 500 actions at both nodes at once: each counts once, and totals and ranks are the ledger's on both."""
    nodes = [start_node(), start_node()]
    key = await command(nodes[0], *CREATE)
    fields = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(timeout=20, headers=fields) as http:
        for number in range(3):
            made = await http.put(nodes[number % 2].url + SERVER_USERS_PREFIX + str(number), json={})
            assert made.status_code == httpx.codes.OK
        now = datetime.now(UTC).isoformat()
        actions: list[dict[str, Any]] = [
            {"externalId": str(number % 3), "actionId": str(number), "actionType": "task_finish", "timestamp": now}
            for number in range(500)
        ]
        answers: list[list[int]] = []

        async def send(node: ServerProcess) -> None:
            answers.append(statuses(await http.post(node.url + BULK_PATH, json={"actions": actions})))

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(send, node)
        assert [sorted(pair) for pair in zip(*answers, strict=True)] == [[200, 409]] * 500
        async with httpx.AsyncClient() as anybody:
            boards = [(await anybody.get(node.url + LEADERBOARD_PATH)).json()["data"]["leaderboard"] for node in nodes]
    assert [row["score"] for row in boards[0]] == [8350, 8350, 8300]
    assert boards[0] == boards[1]
