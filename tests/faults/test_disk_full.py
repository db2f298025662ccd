"""PostgreSQL's disk is full: no 200 without a commit, `/readyz` says so, and nodes go on without a restart when there
is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.faults.servers import Pair, Postgres, Valkey, pair_on, postgres_of_ones_own
from tests.faults.under_fault import under_fault

DISK = "160m"  # a new data folder takes 70 MB, and grows by WAL segments of 16


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def cramped(small_disk: Path, tmp_path: Path) -> Iterator[tuple[Pair, Postgres]]:
    valkey = Valkey(tmp_path / "valkey").start()
    try:
        with postgres_of_ones_own(small_disk / "data") as postgres, pair_on(tmp_path, postgres.url, valkey) as pair:
            yield pair, postgres
    finally:
        valkey.kill()


async def test_the_disk_is_full(cramped: tuple[Pair, Postgres], small_disk: Path) -> None:
    """Filled to the last byte under load, and emptied again."""
    pair, _ = cramped
    ballast = small_disk / "ballast"

    def fill() -> None:
        with ballast.open("ab", buffering=0) as file:
            try:
                while file.write(b"\0" * 65536):
                    pass
            except OSError:
                pass  # it is full

    async with under_fault(pair, unavailable=True, bound=10.0) as run:
        await trio.to_thread.run_sync(fill)
        # What PostgreSQL has at hand still takes writes; when its own next piece finds no room, it is full.
        with trio.move_on_after(20):
            run.newcomers_act()
            await trio.to_thread.run_sync(grow, pair)
        await run.expect_store("postgresql", "full", within=3.0)
        await trio.sleep(1.0)
        ballast.unlink()
        await trio.sleep(2.0)


def grow(pair: Pair) -> None:
    """Another client writes until there is no room for it either."""
    import asyncpg

    try:
        more = "INSERT INTO filler SELECT repeat(md5(g::text), 200) FROM generate_series(1, 5000) g"
        pair.sql("CREATE TABLE IF NOT EXISTS filler (x text)", *[more] * 50)
    except (asyncpg.PostgresError, OSError):
        pass  # it is full
