"""Two nodes and a moderator: what is decided on one is seen on the other, live."""

from collections.abc import Callable

import httpx
import trio

from tests.conftest import execute
from tests.e2e.server_processes import ServerProcess, register, viewer

FOLLOW_SECONDS = 3.0  # a second, and what a busy machine adds

StartNode = Callable[..., ServerProcess]


async def test_decisions_reach_every_node_and_viewer(start_node: StartNode, database_url: str) -> None:
    """A reversal, a ban and its end: the boards of both nodes follow within a second, the user's own connection on the
    other node gets the points that were taken, and the open session submits no more."""
    first, second = start_node(), start_node()
    async with httpx.AsyncClient(base_url=first.url) as http:
        mia, ann, bob = [await register(http) for _ in range(3)]
        await trio.to_thread.run_sync(
            execute, database_url, f"UPDATE users SET role = 'moderator' WHERE id = '{mia.user}'"
        )
        for user in (ann, bob):
            assert (await user.act()).status_code == httpx.codes.OK
        body = ann.body()
        recorded = (await ann.act(body)).json()["data"]
        assert recorded["newRank"] == 1
        path = f"/api/v1/admin/users/{ann.user}"
        history = (await http.get(path, headers=mia.authorization)).json()["data"]["history"]
        newest = history[0]["details"]["actionId"]

        async def order(base: str) -> list[str]:
            return [entry["userId"] for entry in (await bob.leaderboard(base))["leaderboard"]]

        async def both_show(*expected: str) -> None:
            with trio.fail_after(FOLLOW_SECONDS):
                for node in (first, second):
                    while await order(node.url) != list(expected):
                        await trio.sleep(0.02)

        async with viewer(second, token=ann.token, subscribe=False) as hers:
            await hers.next_event("authenticated")
            answer = await http.post(
                f"{path}/actions/{newest}/reverse", json={"reason": "not played"}, headers=mia.authorization
            )
            assert answer.status_code == httpx.codes.OK, answer.text
            personal = await hers.next_event("score:personal")
            assert personal["pointsAwarded"] == -recorded["pointsAwarded"]
            assert personal["newScore"] == recorded["previousScore"]
        again = await ann.act(body, base=second.url)
        assert (again.status_code, again.json()["data"]["newScore"]) == (409, recorded["newScore"])
        await both_show(ann.user, bob.user)  # she was first with as many points
        banned = {"reason": "a bot", "showReason": True}
        assert (await http.post(f"{path}/ban", json=banned, headers=mia.authorization)).status_code == httpx.codes.OK
        await both_show(bob.user)
        refused = await ann.act(base=second.url)
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
        assert refused.json()["detail"] == "This account is banned: a bot"
        assert (await ann.leaderboard(second.url))["currentUser"] == {"rank": None, "score": 0}
        assert (await http.delete(f"{path}/ban", headers=mia.authorization)).status_code == httpx.codes.NO_CONTENT
        await both_show(ann.user, bob.user)
