"""Nodes that die, stand still, leave, start at once or have a wrong clock; clients and connections that end at the
worst moment."""

import os
import signal
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import httpx
import redis
import trio

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.drivers.namespace import SPECIFIED
from tests.conftest import execute
from tests.e2e.server_processes import ServerProcess, register
from tests.faults.ledger import Action, act
from tests.faults.servers import Pair, Valkey, node_on
from tests.faults.under_fault import Run, lasting, under_fault
from tests.storage.proxy import Fault

KILLS = int(os.environ.get("FAULT_KILLS", "3"))
ERRORS = {"error", "critical"}
DROP_PARTITIONS = """
DO $$ DECLARE part text; BEGIN
    FOR part IN SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'action_logs'::regclass LOOP
        IF part NOT LIKE '%default' THEN EXECUTE 'DROP TABLE ' || part; END IF;
    END LOOP;
END $$"""


@asynccontextmanager
async def still(run: Run, number: int) -> AsyncIterator[None]:
    """A node stands still as long as the block lasts."""
    run.pair.nodes[number].signal(signal.SIGSTOP)
    begun = trio.current_time()
    try:
        yield
    finally:
        run.pair.nodes[number].signal(signal.SIGCONT)
        run.reads.pauses.append((number, begun, trio.current_time()))


async def test_a_node_is_killed_again_and_again(pair: Pair) -> None:
    """kill -9 in the middle of the load: nothing acknowledged is missing or doubled; viewers are up to date 5 s after
    they come back."""
    async with under_fault(pair, unavailable=True):
        for turn in range(KILLS):
            node = pair.nodes[turn % 2]
            node.kill()
            await trio.sleep(0.2)
            await trio.to_thread.run_sync(node.start)
            await trio.sleep(0.3)


async def test_nodes_are_restarted_in_turn(pair: Pair) -> None:
    """SIGTERM and a new start of one node after the other: both end with 0, and no answer is a 5xx."""
    async with under_fault(pair, unavailable=True) as run:
        for node in pair.nodes:
            if (code := await trio.to_thread.run_sync(node.stop)) != 0:
                run.found.append(f"a node ended with {code}")
            await trio.to_thread.run_sync(node.start)
    assert not [status for status in run.ledger.statuses if status >= 500]


async def test_a_node_stands_still(pair: Pair) -> None:
    """SIGSTOP and SIGCONT of one node and then the other: the woken one applies nothing old, and the other one goes on
    meanwhile."""
    async with under_fault(pair, unavailable=True) as run:
        for number in (0, 1):
            async with still(run, number):
                await trio.sleep(lasting(2.0))
            await trio.sleep(0.5)


async def test_a_node_stands_still_while_it_rebuilds(pair: Pair) -> None:
    """A node stops while it builds the board anew: the other one goes on accepting actions, and finishes the board when
    the lease is over.

    Asked by users who act nowhere else: the stopped node may hold the rows of those whose actions it was recording.
    """
    async with under_fault(pair, unavailable=True, bound=10.0) as run:
        pair.newcomers += len(run.newcomers)
        rebuilds = 0
        for turn in range(4):  # a node that stood still has lost the lease to the other, which is the next one to stop
            number, other = turn % 2, 1 - turn % 2
            rebuilds += await trio.to_thread.run_sync(_rebuild_begins, pair.valkey)
            async with still(run, number):
                await trio.sleep(2.0)
                with trio.move_on_after(2.0):
                    await act(run.newcomers[turn], [pair.nodes[other]], run.ledger, Random(turn))
                if not any(
                    answer.user == run.newcomers[turn].user and answer.status in {200, 409}
                    for answer in run.ledger.answers
                ):
                    run.found.append(f"node {other} commits nothing while node {number} stands still")
            await trio.sleep(0.3)
        if rebuilds < 3:
            run.found.append(f"only {rebuilds} of 4 rebuilds were seen")


def _rebuild_begins(valkey: Valkey) -> bool:
    """Drops the board, and returns as soon as a new one is being built; whether that was within two seconds."""
    with redis.Redis.from_url(valkey.url) as client:
        building = SPECIFIED.building(LEADERBOARD)
        before = client.get(building)
        client.delete(SPECIFIED.board(LEADERBOARD).meta)
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            if client.get(building) != before:
                return True
    return False


async def test_clients_leave_at_any_moment(pair: Pair) -> None:
    """Posts whose client hangs up: each is recorded once or not at all, and the log has no error."""
    random = Random(5)
    async with under_fault(pair) as run:

        async def leave(number: int) -> None:
            client, node = run.clients[number % len(run.clients)], pair.nodes[number % 2]
            body = client.body()
            run.ledger.actions[httpx.Response(200, content=body).json()["actionId"]] = Action(
                client.user, trio.current_time()
            )
            async with httpx.AsyncClient(timeout=5, verify=False) as http:
                with trio.move_on_after(random.uniform(0.001, 0.05)):
                    await http.post(
                        f"{node.url}/api/v1/scores/action", content=body, headers=client.signing.headers(body)
                    )

        for _ in range(round(lasting(2.0) * 5)):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(leave, number)
            await trio.sleep(0.05)


async def test_connections_end_after_the_commit(pair: Pair) -> None:
    """PostgreSQL's connection ends in place of an answer; the same action is sent five times to both nodes at once: it
    counts once."""
    async with under_fault(pair, unavailable=True) as run:
        for turn in range(round(lasting(3.0) * 3)):
            pair.links[turn % 2, "postgres"].fault = Fault.CUT_ANSWER
            client = run.clients[turn % len(run.clients)]
            body = client.body()
            action = Action(client.user, trio.current_time())
            run.ledger.actions[httpx.Response(200, content=body).json()["actionId"]] = action

            async def post(number: int, body: bytes = body, action: Action = action, client=client) -> None:  # type: ignore[no-untyped-def]
                try:
                    answer = await client.act(body, base=pair.nodes[number % 2].url)
                except httpx.HTTPError:
                    return
                if answer.status_code in {200, 409}:
                    action.points = answer.json()["data"]["pointsAwarded"]
                    action.acknowledged = min(action.acknowledged, trio.current_time())

            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(post, number)
            await trio.sleep(0.3)
        for link in pair.links.values():
            link.restore()


async def test_three_nodes_start_at_once(empty_database_url: str, tmp_path: Path) -> None:
    """On an empty database, and again when the coming months' partitions are missing: all three are ready and log no
    error."""
    valkey = Valkey(tmp_path / "valkey").start()
    nodes: list[ServerProcess] = [node_on(tmp_path, empty_database_url, valkey.url) for _ in range(3)]

    def start_all() -> None:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(ServerProcess.start, nodes))

    try:
        await trio.to_thread.run_sync(start_all)
        for node in nodes:
            node.kill()
        await trio.to_thread.run_sync(execute, empty_database_url, DROP_PARTITIONS)
        await trio.to_thread.run_sync(start_all)
        assert [line for node in nodes for line in node.lines() if line["level"] in ERRORS] == []
    finally:
        for node in nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()
        valkey.kill()


SKEW = "import os, time\nreal = time.time\ntime.time = lambda: real() + float(os.environ['CLOCK_SKEW'])\n"


async def test_nodes_whose_clocks_differ(database_url: str, tmp_path: Path) -> None:
    """A clock 90 s ahead or behind: tokens are good here and there, and the stores' clock judges an action's age."""
    valkey = Valkey(tmp_path / "valkey").start()
    (tmp_path / "skew").mkdir()
    (tmp_path / "skew" / "sitecustomize.py").write_text(SKEW)
    nodes = [node_on(tmp_path, database_url, valkey.url) for _ in range(3)]
    for node, skew in zip(nodes, ("0", "90", "-90"), strict=True):
        node._environment |= {"PYTHONPATH": str(tmp_path / "skew"), "CLOCK_SKEW": skew}
    try:
        for node in nodes:
            await trio.to_thread.run_sync(node.start)
        right, ahead, behind = nodes
        for node, others in ((right, [right, ahead, behind]), (ahead, [ahead, right]), (behind, [behind, right])):
            async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
                user = await register(http)
                old = (datetime.now(UTC) - timedelta(seconds=301)).isoformat(timespec="milliseconds")
                for other in others:
                    assert (await user.act(base=other.url)).status_code == httpx.codes.OK
                    assert (await user.leaderboard(other.url))["currentUser"]["score"] > 0
                    assert (
                        await user.act(user.body(timestamp=old), base=other.url)
                    ).status_code == httpx.codes.BAD_REQUEST
    finally:
        for node in nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()
        valkey.kill()
