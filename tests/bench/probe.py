"""Asks every server the same questions before it is measured: a peer that skips a check would only look fast.

Each answer must have the expected status; an accepted action must show on the board, with its points, and must have
taken a slot of its user's window.
"""

from datetime import UTC, datetime, timedelta

import httpx
import trio

from tests.bench import stores
from tests.bench.load import ACTION_PATH, BOARD_PATH, POINTS, Actor, action_body, sign
from tests.bench.servers import Running

BOARD = 3.0  # seconds within which an accepted action must be on the board of the node that took it


class UnequalWorkError(Exception):
    """A server does not do the job that is compared."""


async def ask(running: Running) -> int:
    """Raises `UnequalWorkError` with the question that was answered wrong. Returns how many actions were accepted."""
    actor, other = running.actors[0], running.actors[1]
    now = datetime.now(UTC)
    plain = action_body("probe-1", now)
    foreign = plain[:-1] + f',"userId":"{other.user_id}"}}'.encode()
    forged = Actor(
        actor.user_id, actor.token[:-8] + ("A" * 8 if actor.token[-8:] != "A" * 8 else "B" * 8), actor.secret
    )
    wrong_secret = Actor(actor.user_id, actor.token, actor.secret[::-1] + "x")
    questions = [
        ("an action", actor, actor, plain, 200),
        ("the same action again", actor, actor, plain, 409),
        ("a forged token", forged, actor, action_body("probe-2", now), 401),
        ("a wrong signature", actor, wrong_secret, action_body("probe-3", now), 403),
        ("another user's id in the body", actor, actor, foreign, 403),
        ("a timestamp six minutes old", actor, actor, action_body("probe-4", now - timedelta(minutes=6)), 400),
        ("a timestamp two minutes ahead", actor, actor, action_body("probe-5", now + timedelta(minutes=2)), 400),
        ("an unknown type", actor, actor, action_body("probe-6", now, "nothing_of_the_kind"), 400),
        ("an unknown field", actor, actor, action_body("probe-7", now)[:-1] + b',"points":1000000}', 400),
        ("no JSON", actor, actor, b"nothing", 400),
    ]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.site.port}") as client:
        for question, bearer, signer, body, expected in questions:
            headers = {
                "Authorization": f"Bearer {bearer.token}",
                "X-Action-Signature": sign(signer, body),
                "Content-Type": "application/json",
            }
            answer = await client.post(ACTION_PATH, content=body, headers=headers)
            if answer.status_code != expected:
                raise UnequalWorkError(f"{question}: {expected} expected, got {answer.status_code} {answer.text}")
            if expected == 200 and (data := answer.json()["data"])["pointsAwarded"] != POINTS:
                raise UnequalWorkError(f"{question}: {POINTS} points expected, got {data}")
        if stores.window_size(running.site.redis_url, actor.user_id) < 1:
            raise UnequalWorkError("the accepted action took no slot of its user's sliding window")
        await until_on_board(client, actor)
    return 1


async def until_on_board(client: httpx.AsyncClient, actor: Actor) -> None:
    with trio.move_on_after(BOARD):
        while True:
            answer = await client.get(BOARD_PATH)
            rows = answer.json()["data"]["leaderboard"] if answer.status_code == 200 else []
            if (
                rows
                and (rows[0]["userId"], rows[0]["rank"], rows[0]["score"]) == (actor.user_id, 1, POINTS)
                and rows[0]["username"]
            ):
                return
            await trio.sleep(0.05)
    raise UnequalWorkError(f"the accepted action is not on the board after {BOARD:.0f} s")
