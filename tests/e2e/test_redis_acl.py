"""The ACL user of the README is enough for all that nodes and commands ask of Redis, and it may do nothing else."""

import re
import secrets
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis
import trio

from scoreboard.drivers.namespace import Namespace
from tests.conftest import resp
from tests.e2e.server_processes import ServerProcess, provision
from tests.e2e.test_operating import command

README = Path(__file__).parents[2] / "README.md"
PASSWORD = secrets.token_hex(16)


@pytest.fixture
def restricted_url(redis_url: str) -> Iterator[str]:
    """The session's Valkey as the README's user."""
    (command_line,) = re.findall(
        r"^redis-cli (ACL SETUSER scoreboard (?:.*\\\n)*.*)$", README.read_text(), re.MULTILINE
    )
    rights = shlex.split(command_line.replace("\\\n", "").replace("PASSWORD", PASSWORD))
    assert resp(redis_url, " ".join(rights)) == b"+OK"
    assert resp(redis_url, "ACL LOG RESET") == b"+OK"
    parts = urlsplit(redis_url)
    yield parts._replace(netloc=f"scoreboard:{PASSWORD}@{parts.hostname}:{parts.port}").geturl()
    assert resp(redis_url, "ACL DELUSER scoreboard") == b":1"


async def test_the_user_is_enough(
    restricted_url: str, redis_url: str, database_url: str, start_node: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Actions, boards, a rename, viewers, a rebuild and a comparison: Valkey has refused nothing."""
    node = start_node(redis=restricted_url)
    async with httpx.AsyncClient(base_url=node.url) as http:
        users = await provision(node, http, 3)
        with trio.move_on_after(20):  # the board is built first
            while "stale" in (await http.get("/api/v1/scores/leaderboard")).json()["data"]:
                await trio.sleep(0.2)
        with redis.Redis.from_url(redis_url) as admin:
            refused = [
                f"{e['reason']} {e['context']} {e['object']} {e['username']} {e['client-info']}"
                for e in admin.acl_log()
            ]
            assert "; ".join(refused) == ""
        for user in users:
            assert (await user.act()).json()["data"]["newRank"] is not None
        token = {"authorization": f"Bearer {users[0].token}"}
        assert (await http.patch("/api/v1/users/me", json={"username": "Renamed"}, headers=token)).status_code == 200
        board = (await http.get("/api/v1/scores/leaderboard", headers=token)).json()["data"]
        assert "stale" not in board
        assert len(board["leaderboard"]) == 3
    stores = {"postgres__url": database_url, "redis__url": restricted_url, "embedded__data_dir": str(tmp_path)}
    for words in ("rebuild-board", "verify"):
        code, out, err = command(words, **stores)
        assert code == 0, out + err
    node.stop()
    assert resp(redis_url, "ACL LOG") == b"*0"


def test_the_user_may_do_nothing_else(restricted_url: str) -> None:
    """Neither other keys and channels nor what administers a server."""
    names = Namespace()
    with redis.Redis.from_url(restricted_url) as client:
        assert client.hget(f"{{leaderboard}}:{names.updates}", "x") is None
        for words in (
            ("GET", "somebody:else"),
            ("PUBLISH", "other", "x"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("KEYS", "*"),
            ("ACL", "LIST"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words)
