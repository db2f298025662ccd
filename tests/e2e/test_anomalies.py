"""Whole nodes flag what their rules find, and tell a webhook: once, also with two nodes and when one is killed."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import trio

from tests.conftest import in_asyncio
from tests.e2e.server_processes import ServerProcess, register
from tests.https_server import Reply, https_server

HOOK = "/hook"
EFFECT_SECONDS = 20.0  # of a finding on every node: three seconds on a calm machine


def rows(node: ServerProcess, sql: str) -> list[tuple[object, ...]]:
    async def run() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(node.settings.postgres.url.get_secret_value())
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return in_asyncio(run)


async def test_a_jump_is_flagged_counted_and_told_once(
    start_node: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """By two nodes that share the work. One of them is killed; what is done afterwards is found as well."""
    async with https_server(tmp_path) as receiver:
        receiver.replies[HOOK] = Reply()
        settings = {
            "limits__user_per_minute": "0",
            "alerts__url": receiver.url + HOOK,
            "alerts__secret": "shared",
            "outgoing__private_hosts": "localhost",
            "outgoing__ca_file": str(receiver.ca_file),
            "anomalies__points_jump": "150",
            "anomalies__shared_address": "2",
        }
        nodes = [await trio.to_thread.run_sync(lambda: start_node(**settings)) for _ in range(2)]
        async with httpx.AsyncClient(timeout=10) as http:
            http.base_url = httpx.URL(nodes[1].url)
            players = [await register(http) for _ in range(2)]

            async def act_and_wait(number: int) -> None:
                for _ in range(4):
                    answer = await players[number].act()
                    assert answer.status_code == httpx.codes.OK, answer.text
                with trio.fail_after(20):
                    while not any(players[number].user in asked.body.decode() for asked in receiver.asked):
                        await trio.sleep(0.05)

            await act_and_wait(0)
            nodes[0].kill()
            await act_and_wait(1)
            third = await register(http)
            with trio.fail_after(20):
                while not any("shared_address" in asked.body.decode() for asked in receiver.asked):
                    await trio.sleep(0.05)
            exported = (await http.get("/metrics")).text
        found = await trio.to_thread.run_sync(rows, nodes[1], "SELECT rule, user_id::text FROM flags ORDER BY id")
        assert found == [
            ("points_jump", players[0].user),
            ("points_jump", players[1].user),
            ("shared_address", third.user),
        ]
        told = [json.loads(asked.body) for asked in receiver.asked]
        assert sorted(message["data"]["rule"] for message in told) == ["points_jump", "points_jump", "shared_address"]
        assert {asked.headers["x-scoreboard-signature"][:2] for asked in receiver.asked} == {"t="}
        assert 'scoreboard_anomalies_total{rule="shared_address"} 1.0' in exported
        assert urlsplit(receiver.url).hostname == "localhost"


@pytest.mark.parametrize(("policy", "status"), [("hold", httpx.codes.ACCEPTED), ("block", httpx.codes.FORBIDDEN)])
async def test_a_policy_takes_effect_on_every_node(
    start_node: Callable[..., ServerProcess], policy: str, status: int
) -> None:
    """Further actions of who is held wait, with 202; who is banned is refused, and is on no board."""
    settings = {
        "limits__user_per_minute": "0",
        "anomalies__action_rate": "3",
        "anomalies__action_rate_policy": policy,
        "anomalies__points_jump": "0",
    }
    nodes = [await trio.to_thread.run_sync(lambda: start_node(**settings)) for _ in range(2)]
    async with httpx.AsyncClient(timeout=10, base_url=nodes[0].url) as http:
        honest, bot = await register(http), await register(http)
        assert (await honest.act()).status_code == httpx.codes.OK
        for node in nodes:
            with trio.fail_after(EFFECT_SECONDS):
                while (await bot.act(base=node.url)).status_code != status:
                    await trio.sleep(0.2)
        assert (await honest.act(base=nodes[1].url)).status_code == httpx.codes.OK
        shown = {honest.user} if policy == "block" else {honest.user, bot.user}
        with trio.fail_after(EFFECT_SECONDS):
            while {row["userId"] for row in (await honest.leaderboard(nodes[1].url))["leaderboard"]} != shown:
                await trio.sleep(0.1)
