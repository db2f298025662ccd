"""Valkey is there and not what it seems: read-only, full, slow, emptied, interrupted. Actions go on, and no read is old
and unmarked.

The times are short here. By hand, longer: DEFAULT_FAULT_SECONDS=30 FAULT_ACTORS=200 scripts/test tests/faults
"""

import signal
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.faults.servers import Pair
from tests.faults.under_fault import Run, lasting, under_fault

DEFAULT_FAULT_SECONDS = 1.5  # seconds of most faults
BETWEEN_SECONDS = 0.7  # from the end of a fault to the next one of its kind
INTERRUPTION_SECONDS = 0.15  # between two blows of a fault that is repeated


async def again_and_again(
    run: Run, *commands: str, seconds: float = DEFAULT_FAULT_SECONDS, pause: float = INTERRUPTION_SECONDS
) -> None:
    with trio.move_on_after(lasting(seconds)):
        while True:
            for command in commands:
                await trio.to_thread.run_sync(run.valkey.do, command)
            await trio.sleep(pause)


async def becomes_a_replica(run: Run) -> None:
    run.valkey.do("REPLICAOF 127.0.0.1 1")
    await run.expect_store("redis", "read_only")
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
    run.valkey.do("REPLICAOF NO ONE")


async def is_full(run: Run) -> None:
    run.valkey.do("CONFIG SET maxmemory 1")
    run.newcomers_act()
    await run.expect_store("redis", "full")
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
    run.valkey.do("CONFIG SET maxmemory 0")


async def is_paused(run: Run) -> None:
    run.valkey.do(f"CLIENT PAUSE {round(lasting(3.0) * 1000)}")
    await trio.sleep(lasting(3.0))


async def pauses_its_writes(run: Run) -> None:
    run.valkey.do(f"CLIENT PAUSE {round(lasting(DEFAULT_FAULT_SECONDS) * 1000)} WRITE")
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))


async def ends_its_clients(run: Run) -> None:
    await again_and_again(run, "CLIENT KILL TYPE normal")


async def ends_its_subscribers(run: Run) -> None:
    await again_and_again(run, "CLIENT KILL TYPE pubsub")


async def is_emptied(run: Run) -> None:
    await again_and_again(run, "FLUSHALL", pause=lasting(DEFAULT_FAULT_SECONDS) / 2)


async def forgets_its_scripts(run: Run) -> None:
    await again_and_again(run, "SCRIPT FLUSH")


async def sleeps(run: Run) -> None:
    await trio.to_thread.run_sync(run.valkey.do, f"DEBUG SLEEP {lasting(DEFAULT_FAULT_SECONDS)}")


async def stands_still(run: Run) -> None:
    run.valkey.signal(signal.SIGSTOP)
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
    run.valkey.signal(signal.SIGCONT)


async def changes_its_password(run: Run) -> None:
    run.valkey.do("CONFIG SET requirepass another")
    kill = "AUTH another\r\nCLIENT KILL TYPE normal\r\nCLIENT KILL TYPE pubsub"
    run.valkey.say(kill)  # whoever comes back is not let in
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
    run.valkey.say("AUTH another\r\nCONFIG SET requirepass secret")
    await trio.sleep(0.1)
    assert run.valkey.is_up


async def loads_its_data(run: Run) -> None:
    await trio.to_thread.run_sync(run.valkey.do, "DEBUG LOADAOF")


async def has_a_jittery_line(run: Run) -> None:
    links = [run.pair.links[node, "redis"] for node in (0, 1)]
    for link in links:
        link.jitter = 0.4
    await trio.sleep(lasting(3.0))
    for link in links:
        link.restore()


async def has_a_slow_line(run: Run) -> None:
    links = [run.pair.links[node, "redis"] for node in (0, 1)]
    for link in links:
        link.latency = 2.0
    await trio.sleep(lasting(3.0))
    for link in links:
        link.restore()


async def is_cut_off_from_one_node(run: Run) -> None:
    link = run.pair.links[1, "redis"]
    link.cut()
    await run.expect_store("redis", "down", nodes=(1,))
    await trio.sleep(lasting(DEFAULT_FAULT_SECONDS))
    link.restore()


FAULTS: dict[str, list[Callable[[Run], Awaitable[None]]]] = {
    "refuses writes": [becomes_a_replica, is_full],
    "is silent": [is_paused, pauses_its_writes, sleeps, stands_still],
    "ends connections": [ends_its_clients, ends_its_subscribers, changes_its_password],
    "forgets": [is_emptied, forgets_its_scripts, loads_its_data],
    "is far away": [has_a_jittery_line, has_a_slow_line],
    "is cut off from one node": [is_cut_off_from_one_node],
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_valkey(pair: Pair, kind: str) -> None:
    """Meanwhile every action is accepted; what is shown is right or stale, ranks are right or null; afterwards all
    agrees in 5 s."""
    async with under_fault(pair) as run:
        for fault in FAULTS[kind]:
            run.mark(fault.__name__)
            await fault(run)
            await trio.sleep(BETWEEN_SECONDS)
