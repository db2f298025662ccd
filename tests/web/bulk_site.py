"""The whole web with committers on real stores, and server keys: what game servers speak to."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx
import trio

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.paths import BULK_PATH, SERVER_USERS_PREFIX
from scoreboard.domain.scopes import Scope
from scoreboard.operations import server_keys
from scoreboard.operations.admin.server_keys import NewKey, create_key
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage.board_writer import BoardWriter
from scoreboard.storage.commit import Commit
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.redis.projection import Projection
from scoreboard.storage.writer import Writer
from scoreboard.workers.committer import commit_batches, expire_task
from tests.storage.seeds import agreed, make_users, open_board
from tests.web.site import WebServer, serve_web

ACTIONS = """
[goal]
title = "A goal"
points = 10
cooldown = 3600

[win]
title = "A win"
points = 500
trusted = true
free_points = true

[hard]
title = "With a rule"
points = 10
time = { minimum = 30, maximum = 60, required = true }
"""


@dataclass
class GameServer:
    """A server with its committers, a key of every scope, and users."""

    web: WebServer
    key: NewKey
    users: list[UUID]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key.key}"}

    async def post(self, actions: Any, **fields: Any) -> httpx.Response:
        """Submits actions with the key, or with other `headers`."""
        headers = fields.pop("headers", self.headers)
        return await self.web.http.post(BULK_PATH, json={"actions": actions}, headers=headers, timeout=20, **fields)

    async def outcomes(self, *actions: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await self.post(list(actions))
        assert answer.status_code == httpx.codes.OK, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]["outcomes"]
        return found

    async def put_user(self, external_id: str, **body: Any) -> httpx.Response:
        return await self.web.http.put(SERVER_USERS_PREFIX + external_id, json=body, headers=self.headers)

    async def recorded(self) -> list[tuple[str, str, int, str]]:
        """What the log has: user, action id, points, signature."""
        rows = await self.web.people.stores.fetch(
            "SELECT user_id::text, action_id, points_awarded, signature FROM action_logs ORDER BY seq"
        )
        return [tuple(row) for row in rows]

    async def until_known(self, key: str, *, known: bool = True) -> None:
        """Returns when the node accepts the key, or when it does not any more."""
        assert self.web.server_keys is not None
        with trio.fail_after(10):
            while (self.web.server_keys.authenticate(key) is not None) is not known:
                await trio.sleep(0.01)

    async def key_with(self, *scopes: Scope) -> dict[str, str]:
        """The header of another key, which the node knows when this returns."""
        made = await create_key(self.web.people.stores, uuid4().hex, scopes)
        assert isinstance(made, NewKey)
        await self.until_known(made.key)
        return {"authorization": f"Bearer {made.key}"}


def action(user: UUID | str, action_id: str | None = None, **others: Any) -> dict[str, Any]:
    """A goal of that user now; a text is an external id."""
    named = {"userId": str(user)} if isinstance(user, UUID) else {"externalId": user}
    return {
        **named,
        "actionId": action_id or uuid4().hex,
        "actionType": "goal",
        "timestamp": datetime.now(UTC).isoformat(),
    } | others


def long_ago() -> str:
    return (datetime.now(UTC) - timedelta(minutes=6)).isoformat()


def codes(outcomes: Sequence[dict[str, Any]]) -> list[tuple[int, str | None]]:
    return [(outcome["status"], outcome.get("code")) for outcome in outcomes]


@asynccontextmanager
async def keys_read_often() -> AsyncIterator[None]:
    """Tests do not wait for the next read of the keys; tests/operations/test_server_keys.py has the real time."""
    with patch.object(server_keys, "REVOCATION_CHECK_SECONDS", 0.02):
        yield


@asynccontextmanager
async def game_server(
    database_url: str, redis_url: str, *, per_minute: int = 10, committers: int = 2, **options: Any
) -> AsyncIterator[GameServer]:
    """Serves until the block ends. `per_minute`: the limit of users, which must not matter."""
    async with (
        keys_read_often(),
        serve_web(database_url, redis_url, actions=ACTIONS, **options) as web,
        trio.open_nursery() as nursery,
    ):
        stores = web.people.stores
        await stores.execute("DELETE FROM server_keys")
        await open_board(stores)
        projection, agreement = Projection(stores.redis_direct, LEADERBOARD, lambda: None), agreed()
        commits = []
        for _ in range(committers):
            limits = UserLimits(stores.redis_direct, per_minute=per_minute, cooldowns=True)
            writer = Writer(stores, limits, [agreement])
            commits.append(Commit(writer, limits, [BoardWriter(projection, agreement)], Breaker("redis")))
            await nursery.start(commit_batches, web.queue, commits[-1], lambda *_: None)
        nursery.start_soon(expire_task, web.queue)
        key = await create_key(stores, "all", list(Scope))
        assert isinstance(key, NewKey)
        game = GameServer(web, key, await make_users(stores, 3))
        await game.until_known(key.key)
        yield game
        nursery.cancel_scope.cancel()
