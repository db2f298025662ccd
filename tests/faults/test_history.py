"""A backup of some seconds ago is restored: what it took back is on no board, in no rank and under no position any
more.

As operators do it: pg_dump, then pg_restore into a new database of the same name, or into the one that is there, in one
transaction with the removal of what it holds. (pg_restore --clean can't drop the keys of partitions.)
"""

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from scoreboard.embedded.servers import find_binaries
from tests.conftest import drop_database, execute
from tests.faults.servers import Pair
from tests.faults.under_fault import Run, lasting, under_fault

RECOVERY_SECONDS = 10.0  # until boards, Redis and viewers agree with the new history
EMPTIED = (
    "SET lock_timeout = 0; SET statement_timeout = 0; SET transaction_timeout = 0; "
    "DROP OWNED BY CURRENT_USER CASCADE;\n"
)


def dump(pair: Pair, file: Path) -> None:
    _run("pg_dump", "--format=custom", f"--file={file}", pair.postgres)


def restore(pair: Pair, file: Path, *, into_new: bool) -> None:
    """Blocking. `into_new`: the database is dropped and created first."""
    parts = urlsplit(pair.postgres)
    name, admin = parts.path[1:], parts._replace(path="/scoreboard").geturl()
    if into_new:
        drop_database(admin, name)
        execute(admin, f"CREATE DATABASE {name}")
        _run("pg_restore", "--no-owner", "--single-transaction", f"--dbname={pair.postgres}", str(file))
    else:
        script = file.with_suffix(".sql")
        _run("pg_restore", "--no-owner", f"--file={script}", str(file))
        script.write_text(EMPTIED + script.read_text())
        _run(
            "psql",
            "--quiet",
            "--no-psqlrc",
            "--single-transaction",
            "--set=ON_ERROR_STOP=1",
            f"--file={script}",
            pair.postgres,
        )


def _run(program: str, *arguments: str) -> None:
    """Again when it was the victim of a deadlock with the nodes, as an operator would."""
    for _ in range(5):
        done = subprocess.run(
            [find_binaries().postgres / program, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        if "deadlock detected" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-2000:]


async def go_back(run: Run, file: Path, *, into_new: bool) -> None:
    """Restores, and tells the ledger what that takes back."""
    begun = trio.current_time()
    await trio.to_thread.run_sync(lambda: restore(run.pair, file, into_new=into_new))
    ended = trio.current_time()
    run.ledger.went_back = (begun, ended)
    run.errors_allowed = True  # what was acknowledged is lost: no less than an error
    run.ignore = (begun, ended + RECOVERY_SECONDS)


@pytest.mark.parametrize("into_new", [False, True], ids=["in place", "created anew"])
async def test_a_backup_is_restored_while_nodes_run(pair: Pair, tmp_path: Path, into_new: bool) -> None:
    """A dump of seconds ago is restored under load: within 10 s all agree with it, and what is acknowledged after it
    stays."""
    async with under_fault(pair, unavailable=True, bound=RECOVERY_SECONDS) as run:
        await trio.to_thread.run_sync(dump, pair, tmp_path / "dump")
        await trio.sleep(lasting(2.0))
        await go_back(run, tmp_path / "dump", into_new=into_new)
        await trio.sleep(lasting(1.0))


async def test_a_backup_is_restored_while_nobody_acts(pair: Pair, tmp_path: Path) -> None:
    """It is found out without anybody's action, and no position and no ETag of the lost future is honoured
    afterwards."""
    async with (
        under_fault(pair, unavailable=True, bound=RECOVERY_SECONDS) as run,
        httpx.AsyncClient(timeout=10) as http,
    ):
        await trio.to_thread.run_sync(dump, pair, tmp_path / "dump")
        await trio.sleep(lasting(2.0))
        run.over.set()
        await trio.sleep(1.0)
        board = pair.nodes[0].url + "/api/v1/scores/leaderboard"
        etag = (await http.get(board)).headers["etag"]
        position = (await http.get(pair.nodes[0].url + "/api/v1/scores/poll", params={"wait": 0})).json()["data"][
            "position"
        ]
        await go_back(run, tmp_path / "dump", into_new=False)
    for node in pair.nodes:
        async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
            assert (
                await http.get("/api/v1/scores/leaderboard", headers={"If-None-Match": etag})
            ).status_code == httpx.codes.OK
            again = await http.get("/api/v1/scores/poll", params={"since": position, "wait": 2})
            assert again.status_code == httpx.codes.OK
            assert again.json()["data"]["position"] != position


async def test_a_backup_is_restored_while_the_nodes_are_down(pair: Pair, tmp_path: Path) -> None:
    """Nodes stopped, dump restored, nodes started, with the Valkey that knows the lost future: the board is
    PostgreSQL's."""
    async with under_fault(pair, unavailable=True, bound=RECOVERY_SECONDS) as run:
        await trio.to_thread.run_sync(dump, pair, tmp_path / "dump")
        await trio.sleep(lasting(2.0))
        pair.kill_nodes()
        await go_back(run, tmp_path / "dump", into_new=False)
        await trio.to_thread.run_sync(pair.start_nodes)
