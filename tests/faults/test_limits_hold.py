"""Exactly ten a minute and exactly one a cooldown, whatever happens to Valkey: the action log has what was accepted."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from scoreboard.drivers.stores import open_stores
from scoreboard.embedded.stack import Endpoints
from tests.conftest import database
from tests.e2e.server_processes import Client, provision
from tests.faults.servers import Pair, Valkey, pair_on
from tests.faults.under_fault import lasting

PER_MINUTE = 10
COOLDOWN: dict[str, object] = {
    "actionType": "quiz_complete",
    "metadata": {"difficulty": "easy", "timeSpent": 120},
}  # 30 s, as config/actions.toml has it
COOLDOWN_SECONDS = 30.0
WINDOW_SQL = """
SELECT max(n) FROM (SELECT count(*) OVER (PARTITION BY user_id ORDER BY processed_at
                                          RANGE interval '59.999 seconds' PRECEDING) AS n
                    FROM action_logs WHERE user_id = $1) w"""
DEFAULT_FAULT_SECONDS = 1.0  # seconds of a fault

Act = Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def limited(
    embedded_servers: Endpoints, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Two nodes with the limits of the specification."""
    folder = tmp_path_factory.mktemp("limited")
    valkey = Valkey(folder / "valkey").start()
    try:
        with (
            database(embedded_servers.postgres_url, migrated_template) as url,
            pair_on(folder, url, valkey, limits__user_per_minute=str(PER_MINUTE)) as made,
        ):
            yield made
    finally:
        valkey.kill()


async def is_emptied(pair: Pair) -> None:
    pair.valkey.do("FLUSHALL")


async def comes_back_empty(pair: Pair) -> None:
    pair.valkey.kill()
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
    pair.valkey.forget()
    await trio.to_thread.run_sync(pair.valkey.start)


async def is_paused(pair: Pair) -> None:
    pair.valkey.do(f"CLIENT PAUSE {round(lasting(DEFAULT_FAULT_SECONDS) * 1000)}")
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))


async def is_cut_off_from_one_node(pair: Pair) -> None:
    pair.links[1, "redis"].cut()
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
    pair.links[1, "redis"].restore()


async def has_a_dead_line_to_one_node(pair: Pair) -> None:
    pair.links[0, "redis"].latency = 2.0
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
    pair.links[0, "redis"].restore()


FAULTS = [is_emptied, comes_back_empty, is_paused, is_cut_off_from_one_node, has_a_dead_line_to_one_node]


@asynccontextmanager
async def two_users(pair: Pair) -> AsyncIterator[list[Client]]:
    """One for the window and one for the cooldown, who have not acted yet."""
    if not pair.is_clean:
        await trio.to_thread.run_sync(pair.restart)
    pair.is_clean = False
    pair.newcomers += 2
    async with httpx.AsyncClient(base_url=pair.nodes[0].url, timeout=10) as http:
        yield (await provision(pair.nodes[0], http, pair.newcomers))[-2:]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_limits_hold_while_valkey(limited: Pair, fault: Callable[[Pair], Awaitable[None]]) -> None:
    """Bursts over both nodes before, during and after: ten of all are accepted within a minute, and one within the
    cooldown."""
    answers: dict[str, list[int]] = {"window": [], "cooldown": []}
    async with two_users(limited) as (one, other):

        async def burst(window: int) -> None:
            async with trio.open_nursery() as nursery:
                for turn in range(window):
                    nursery.start_soon(post, one, "window", limited.nodes[turn % 2].url, {})
                for turn in range(4):
                    nursery.start_soon(post, other, "cooldown", limited.nodes[turn % 2].url, COOLDOWN)

        async def post(client: Client, what: str, base: str, changes: dict[str, object]) -> None:
            answers[what].append((await client.act(client.body(**changes), base=base)).status_code)

        await burst(6)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fault, limited)
            for _ in range(4):
                await trio.sleep(0.2)
                await burst(6)
        await burst(12)
        await trio.sleep(0.5)
        await burst(12)
        async with open_stores(limited.postgres, limited.valkey.url) as stores:
            accepted = await stores.fetchval(WINDOW_SQL, one.user)
            quizzes = await stores.fetchval("SELECT count(*) FROM action_logs WHERE user_id = $1", other.user)
    assert (accepted, quizzes) == (PER_MINUTE, 1)
    assert answers["window"].count(200) == PER_MINUTE
    assert answers["cooldown"].count(200) == 1
    assert {*answers["window"], *answers["cooldown"]} == {200, 429}
    limited.is_clean = True


async def test_limits_are_exact_without_a_fault(limited: Pair) -> None:
    """200 parallel posts of one user over both nodes: ten are accepted; of a pair within a cooldown one; Retry-After is
    true."""
    async with two_users(limited) as (one, other):
        answers: list[httpx.Response] = []

        async def post(client: Client, base: str, changes: dict[str, object]) -> None:
            answers.append(await client.act(client.body(**changes), base=base))

        async with trio.open_nursery() as nursery:
            for turn in range(200):
                nursery.start_soon(post, one, limited.nodes[turn % 2].url, {})
        assert sorted(answer.status_code for answer in answers) == [200] * PER_MINUTE + [429] * 190
        answers.clear()
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for node in limited.nodes:
                nursery.start_soon(post, other, node.url, COOLDOWN)
        assert sorted(answer.status_code for answer in answers) == [200, 429]
        await trio.sleep(1.5)
        refused = await other.act(other.body(**COOLDOWN))
        left = COOLDOWN_SECONDS - (trio.current_time() - begun)
        assert abs(int(refused.headers["retry-after"]) - left) <= 1.5  # whole seconds, and the answers' own time
    limited.is_clean = True
