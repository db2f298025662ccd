"""Two nodes, whose master keys are rotated and revoked by commands while clients act: no action is lost."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import trio

from scoreboard.client import log_in
from scoreboard.domain.key_versions import ACTIVATION_SECONDS
from tests.e2e.server_processes import ServerProcess, register
from tests.e2e.test_client_node import HANG_SECONDS, NODE, STATIC, with_node

PASSWORD = "a long password"
PROGRAM = """
import { login } from %(module)s;
import { existsSync } from 'node:fs';
const session = await login({ url: %(url)s, username: %(name)s, password: %(password)s });
const versions = [(await session.credentials()).keyVersion];
const act = async () => (await session.submitAction('task_finish', { difficulty: 'easy', timeSpent: 1 })).newScore;
const scores = [await act()];
console.log('acted');
while (!existsSync(%(flag)s)) await new Promise((done) => setTimeout(done, 50));
scores.push(await act());
versions.push((await session.credentials()).keyVersion);
console.log(JSON.stringify({ scores, versions }));
await session.logout();
"""


def keys(node: ServerProcess, *words: str) -> str:
    """Runs `scoreboard keys …` with the settings of a node."""
    command = [sys.executable, "-m", "scoreboard", "keys", *words]
    done = subprocess.run(command, env=node._environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


async def new_user(node: ServerProcess, name: str) -> None:
    async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
        await register(http, name)


async def test_actions_go_on_through_rotation_and_revocation(start_node: Callable[..., ServerProcess]) -> None:
    """A client that acts all the time, on two nodes in turn, never sees an error but by the key that is revoked, which
    its session outlives."""
    nodes = [start_node(limits__user_per_minute="0", limits__cooldowns="false") for _ in range(2)]
    await new_user(nodes[0], "ada")
    submitted = 0
    async with log_in(nodes[0].url, "ada", PASSWORD) as first, log_in(nodes[1].url, "ada", PASSWORD) as second:
        versions, stopping = set[int](), trio.Event()

        async def act() -> None:
            nonlocal submitted
            while not stopping.is_set():
                for each in (first, second):
                    await each.submit("task_finish", {"difficulty": "easy", "timeSpent": 1})
                    submitted += 1
                    versions.add(each.credentials.actionKeyVersion)
                    await each.refresh()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            assert (await trio.to_thread.run_sync(keys, nodes[0], "rotate")).startswith("version 2 is used")
            with trio.fail_after(ACTIVATION_SECONDS + 10):
                while 2 not in versions:
                    await trio.sleep(0.1)
            assert "revoked" in await trio.to_thread.run_sync(keys, nodes[1], "revoke", "2")
            versions.clear()
            await trio.sleep(2)
            versions.clear()
            await trio.sleep(1)
            stopping.set()
        assert versions == {1}
        outcome = await first.submit("task_finish", {"difficulty": "easy", "timeSpent": 1})
        assert outcome.previousScore == submitted * outcome.pointsAwarded


@with_node
async def test_the_javascript_client_takes_another_secret(
    start_node: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Its key is revoked between two actions: it renews its session, and the second one counts once."""
    node = start_node(limits__cooldowns="false")
    await new_user(node, "bob")
    flag, file = tmp_path / "revoked", tmp_path / "program.mjs"
    values = {
        "module": (STATIC / "scoreboard.js").as_uri(),
        "url": node.url,
        "name": "bob",
        "password": PASSWORD,
        "flag": str(flag),
    }
    file.write_text(PROGRAM % {name: json.dumps(value) for name, value in values.items()})
    assert NODE is not None

    def run() -> dict[str, list[int]]:
        with subprocess.Popen([NODE or "", "--no-warnings", str(file)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "acted\n"
            keys(node, "revoke", "1")
            threading.Event().wait(2)
            flag.touch()
            out, _ = process.communicate(timeout=HANG_SECONDS)
        report: dict[str, list[int]] = json.loads(out)
        return report

    report = await trio.to_thread.run_sync(run)
    assert report["versions"] == [1, 2]
    assert report["scores"][1] == 2 * report["scores"][0]


async def test_a_client_without_a_refresh_token_is_told(start_node: Callable[..., ServerProcess]) -> None:
    """It has nothing to renew its secret with: 403, and the code that says why."""
    node = start_node()
    async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
        client = await register(http, "eve")
        await trio.to_thread.run_sync(keys, node, "revoke", "1")
        await trio.sleep(2)
        answer = await client.act()
        assert (answer.status_code, answer.json()["code"]) == (403, "INVALID_SIGNATURE")
