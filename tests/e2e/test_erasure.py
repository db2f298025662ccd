"""Whoever leaves is gone: from the board of every node within a second, from every session within two."""

import json
from collections.abc import Callable
from time import monotonic

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.e2e.server_processes import ServerProcess, register, viewer

StartNode = Callable[..., ServerProcess]
PASSWORD = "a long password"
BOARD_SECONDS, SESSION_SECONDS = 1.0, 2.0  # promised
SLACK_SECONDS = 3.0  # for a machine that other tests keep busy


async def test_an_erased_user_leaves_boards_and_connections_of_all_nodes(start_node: StartNode) -> None:
    """Erased on one node; watched on the other by the user and by a stranger. No log line of either node has the name
    or the address."""
    first, second = start_node(), start_node()
    async with httpx.AsyncClient(base_url=first.url, timeout=20) as http:
        name, address = "Zuse Konrad", "konrad.zuse@example.org"
        body = {"username": name, "email": address, "password": PASSWORD}
        session = (await http.post("/api/v1/auth/register", json=body)).json()["data"]
        other = await register(http)
        authorization = {"authorization": f"Bearer {session['accessToken']}"}
        user = type(other)(http, session)
        await user.act()
        await other.act()
        async with viewer(second) as stranger, viewer(second, token=session["accessToken"], subscribe=False) as own:
            assert (await own.next_event("authenticated"))["userId"] == user.user
            with trio.fail_after(20):
                while len((await stranger.next_event("leaderboard:update"))["leaderboard"]) < 2:
                    pass
            content = json.dumps({"password": PASSWORD}).encode()
            answer = await http.request("DELETE", "/api/v1/users/me", content=content, headers=authorization)
            assert answer.status_code == 204, answer.text
            began = monotonic()
            assert (await http.get("/api/v1/users/me", headers=authorization)).status_code == 401
            with trio.fail_after(20):
                rows = (await stranger.next_event("leaderboard:update"))["leaderboard"]
                assert monotonic() - began < BOARD_SECONDS + SLACK_SECONDS
                assert [row["userId"] for row in rows] == [other.user]
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await own.socket.get_message()
                assert closed.value.reason is not None
                assert closed.value.reason.code == 4401
                while (await http.get(f"{second.url}/api/v1/users/me", headers=authorization)).status_code != 401:
                    await trio.sleep(0.05)
            assert monotonic() - began < SESSION_SECONDS + SLACK_SECONDS
        for node in (first, second):
            board = (await http.get(f"{node.url}/api/v1/scores/leaderboard")).json()["data"]["leaderboard"]
            assert [row["userId"] for row in board] == [other.user]
            log = node.log.read_text()
            assert name not in log
            assert address not in log
