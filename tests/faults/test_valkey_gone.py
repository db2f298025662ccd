"""Valkey is killed and comes back: empty, with an old AOF, or as another one behind the same address."""

import shutil
from pathlib import Path

import trio

from tests.faults.servers import Pair, Valkey, wait_until
from tests.faults.under_fault import lasting, under_fault

AWAY_SECONDS = 1.0
FOUND_SECONDS = 10.0  # until an old state is found and mended


async def test_valkey_comes_back_empty(pair: Pair) -> None:
    """Killed and back empty, with writes going on: ranks are right or null, and the board is rebuilt."""
    async with under_fault(pair) as run:
        run.valkey.kill()
        await run.expect_store("redis", "down")
        await trio.sleep(lasting(AWAY_SECONDS))
        run.valkey.forget()
        await trio.to_thread.run_sync(run.valkey.start)


async def test_valkey_comes_back_as_it_was(pair: Pair) -> None:
    """Killed and back with its data, of which the last second may be missing: what was written meanwhile is brought
    in."""
    async with under_fault(pair, bound=FOUND_SECONDS) as run:
        run.valkey.kill()
        await trio.sleep(lasting(AWAY_SECONDS))
        await trio.to_thread.run_sync(run.valkey.start)


async def test_valkey_comes_back_with_an_old_state(pair: Pair, tmp_path: Path) -> None:
    """Back with an AOF of some seconds ago: the drift is found and mended within 10 s, and nothing of it is shown
    unmarked."""
    async with under_fault(pair, bound=FOUND_SECONDS) as run:
        run.valkey.do("BGREWRITEAOF")
        await trio.sleep(0.5)
        old = await trio.to_thread.run_sync(lambda: shutil.copytree(run.valkey.folder, tmp_path / "old"))
        await trio.sleep(lasting(2.0))
        run.valkey.kill()
        run.valkey.forget()
        await trio.to_thread.run_sync(lambda: shutil.copytree(old, run.valkey.folder, dirs_exist_ok=True))
        await trio.sleep(0.3)
        await trio.to_thread.run_sync(run.valkey.start)


async def test_valkey_fails_over_behind_its_address(pair: Pair, tmp_path: Path) -> None:
    """The address leads to the new primary, the old one lives on as its replica and keeps its connections: all move
    over in 2 s.

    The promoted one lacks the last writes.
    """
    other = Valkey(tmp_path / "other").start()
    links = [pair.links[node, "redis"] for node in (0, 1)]
    old = pair.valkey
    try:
        async with under_fault(pair, bound=FOUND_SECONDS) as run:
            other.do(f"REPLICAOF 127.0.0.1 {old.port}")
            await trio.to_thread.run_sync(
                wait_until,
                lambda: other.say("EVAL \"return redis.call('DBSIZE')\" 0") == old.say("DBSIZE") != b":0",
                "it does not copy",
            )
            await trio.sleep(0.3)
            other.do("REPLICAOF NO ONE")
            await trio.sleep(0.3)  # these writes are lost
            for link in links:
                link.target = other.url
            old.do(f"REPLICAOF 127.0.0.1 {other.port}")
            pair.valkey = other
            await run.expect_store("redis", "up", within=3.0)
            await trio.sleep(lasting(2.0))
    finally:
        pair.valkey = old
        for link in links:
            link.target = old.url
        old.say("REPLICAOF NO ONE")
        other.kill()
        for link in links:
            link.end_all()
