"""Two nodes, whose master keys are rotated and revoked by commands while clients act: no action is lost."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import trio

from scoreboard.client import log_in
from scoreboard.domain.key_versions import ACTIVATION_SECONDS
from tests.e2e.server_processes import Client, ServerProcess, register
from tests.e2e.test_client_node import HANG_SECONDS, NODE, STATIC, with_node

PASSWORD = "a long password"
EFFECT_SECONDS = 20.0  # of a revocation on every node: two on a calm machine
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


async def until_refused(client: Client) -> None:
    """Acts until the client's secret is no longer accepted: it has no refresh of its own."""
    with trio.fail_after(EFFECT_SECONDS):
        while (answer := await client.act()).status_code != httpx.codes.FORBIDDEN:
            assert answer.status_code == httpx.codes.OK
            await trio.sleep(0.1)
        assert answer.json()["code"] == "INVALID_SIGNATURE"


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
            with trio.fail_after(EFFECT_SECONDS):
                while versions != {1}:
                    versions.clear()
                    await trio.sleep(1)
            stopping.set()
        outcome = await first.submit("task_finish", {"difficulty": "easy", "timeSpent": 1})
        assert outcome.previousScore == submitted * outcome.pointsAwarded


@with_node
async def test_the_javascript_client_takes_another_secret(
    start_node: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Its key is revoked between two actions: it renews its session, and the second one counts once."""
    node = start_node(limits__cooldowns="false", limits__user_per_minute="0")
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

    async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
        witness = await register(http)
        with subprocess.Popen([NODE, "--no-warnings", str(file)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert await trio.to_thread.run_sync(process.stdout.readline) == "acted\n"
            await trio.to_thread.run_sync(keys, node, "revoke", "1")
            await until_refused(witness)
            flag.touch()
            out, _ = await trio.to_thread.run_sync(partial(process.communicate, timeout=HANG_SECONDS))
    report = json.loads(out)
    assert report["versions"] == [1, 2]
    assert report["scores"][1] == 2 * report["scores"][0]


async def test_a_client_without_a_refresh_token_is_told(start_node: Callable[..., ServerProcess]) -> None:
    """It has nothing to renew its secret with: 403, and the code that says why."""
    node = start_node(limits__user_per_minute="0")
    async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
        client = await register(http, "eve")
        await trio.to_thread.run_sync(keys, node, "revoke", "1")
        await until_refused(client)
