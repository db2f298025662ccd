"""`scripts/bench bulk`: a game's server submits actions in bulk; in turn PostgreSQL alone records the same batches.

The ceiling is the statement that records a batch (storage/postgres/record.sql), driven by one asyncpg connection that
does nothing else: no HTTP, no Redis, no board. What this server reaches of it is the ratio; the machine may be shared,
so trust that more than either figure. Requests are made before the clock starts. Every accepted outcome must be in the
database and on the board, else no figure is printed.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import trio

from scoreboard.domain.bulk_actions import MAX_BULK_ACTIONS
from scoreboard.domain.errors import StartError
from scoreboard.domain.paths import BULK_PATH
from scoreboard.drivers.postgres_connector import COMMITTER
from scoreboard.embedded import stack as embedded
from scoreboard.storage.postgres.ledger import RECORD_SQL
from tests.bench import bulk_report, load, machine, report, scale_stores, servers, stores
from tests.bench.bulk_report import Figure
from tests.bench.report import UnequalCountError
from tests.bench.run import ROOT, own_folder, progress, until_stopped
from tests.bench.servers import OURS, Running, ServerPlace

WARM_UP = 1.0  # seconds
FIRST_RATE = 20_000  # actions prepared a second; a list at its end only ends the round
SPARE = 1.5  # times as many as the fastest rate so far asks for
OVERHEAD = 60.0  # seconds for starts, users and the end, and a round's preparation
KEY_NAME = "bench"


class Sent(msgspec.Struct):
    """What was answered: outcomes by their status, and seconds of each request."""

    statuses: dict[int, int] = {}
    seconds: float = 0.0
    latencies: list[float] = []

    @property
    def accepted(self) -> int:
        return self.statuses.get(200, 0)


class _Outcome(msgspec.Struct):
    status: int


class _Outcomes(msgspec.Struct):
    outcomes: list[_Outcome]


class _Answer(msgspec.Struct):
    data: _Outcomes


_decode = msgspec.json.Decoder(_Answer).decode


# ---- pure: what is sent ----------------------------------------------------------------------------------------------


def bodies(users: Sequence[str], run: str, count: int, size: int, now: datetime) -> Iterator[bytes]:
    """So many requests of `size` actions, for users that are drawn by lot."""
    lot, numbers = random.Random(run), iter(range(count * size))
    for _ in range(count):
        actions = [
            json.loads(load.action_body(f"{run}-{next(numbers)}", now)) | {"userId": user}
            for user in lot.choices(users, k=size)
        ]
        yield json.dumps({"actions": actions}, separators=(",", ":")).encode()


def batches(users: Sequence[UUID], run: str, count: int, size: int) -> Iterator[tuple[Any, ...]]:
    """The same as arguments of the statement, without writer and turn."""
    lot, numbers = random.Random(run), iter(range(count * size))
    metadata, signature = json.dumps(load.METADATA), "server-key:0123456789ab"
    for _ in range(count):
        ids = [f"{run}-{next(numbers)}" for _ in range(size)]
        yield (
            lot.choices(users, k=size),
            ids,
            [load.ACTION_TYPE] * size,
            [load.POINTS] * size,
            [signature] * size,
            [metadata] * size,
            [sha256(one.encode()).digest() for one in ids],
        )


# ---- PostgreSQL alone ------------------------------------------------------------------------------------------------


async def record(url: str, prepared: Sequence[tuple[Any, ...]], writer: int, seconds: float) -> tuple[int, float]:
    """Records batches for so many seconds, one after the other. Returns how many actions in how many seconds."""

    async def run(connection: "asyncpg.Connection[Any]") -> tuple[int, float]:
        await connection.execute(f"SET application_name = '{COMMITTER}'")
        done, began = 0, time.perf_counter()
        for turn, arguments in enumerate(prepared, 1):
            rows = await connection.fetch(RECORD_SQL, *arguments, writer, turn, False)
            done += sum(row["new_score"] is not None for row in rows)
            if time.perf_counter() - began > seconds:
                break
        return done, time.perf_counter() - began

    return await stores.asked(url, run)


# ---- this server -----------------------------------------------------------------------------------------------------


async def make_key(site: ServerPlace) -> str:
    """A server key of the server's installation."""
    done = await trio.run_process(
        [sys.executable, "-m", "scoreboard", "server-keys", "create", KEY_NAME, "--scope", "scores"],
        cwd=ROOT,
        env=os.environ | servers.our_environ(site),
        capture_stdout=True,
        capture_stderr=True,
    )
    return done.stdout.decode().strip()


async def send(site: ServerPlace, key: str, prepared: Sequence[bytes], connections: int, seconds: float) -> Sent:
    """Sends the requests on so many connections for so many seconds, each waiting for its answer."""
    sent, waiting = Sent(), iter(prepared)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    began = time.perf_counter()
    answers: list[bytes] = []

    async def one() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}", trust_env=False) as client:
            for body in waiting:
                asked = time.perf_counter()
                if asked - began > seconds:
                    return
                answer = await client.post(BULK_PATH, content=body, headers=headers, timeout=30)
                if answer.status_code != httpx.codes.OK:
                    raise RuntimeError(f"{answer.status_code} {answer.text[:300]}")
                sent.latencies.append(time.perf_counter() - asked)
                answers.append(answer.content)

    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(one)
    sent.seconds = time.perf_counter() - began
    for answer in answers:  # decoded after the clock has stopped
        for outcome in _decode(answer).data.outcomes:
            sent.statuses[outcome.status] = sent.statuses.get(outcome.status, 0) + 1
    return sent


@asynccontextmanager
async def serving(endpoints: Any, folder: Path) -> Any:
    """This server with its users and a server key."""
    url = await stores.fresh(endpoints.postgres_url, endpoints.redis_url, "bench_bulk")
    site = ServerPlace(port=servers.free_port(), postgres_url=url, redis_url=endpoints.redis_url, folder=folder)
    async with servers.running(OURS, site) as running:
        yield running, await make_key(site)


async def measure(
    endpoints: Any, running: Running, key: str, size: int, connections: int, seconds: float, rounds: int, folder: Path
) -> list[Figure]:
    site, users = running.site, [actor.user_id for actor in running.actors]
    ids = [UUID(user) for user in users]
    pids = scale_stores.pids(folder / "stores")
    accepted, rate, figures = 0, float(FIRST_RATE), list[Figure]()
    for turn in range(rounds + 1):  # the first one is the warm-up
        length = seconds if turn else WARM_UP
        count = max(connections, int(rate * length * SPARE / size))
        prepared = list(batches(ids, f"alone-{turn}", count, size))
        alone, alone_seconds = await record(site.postgres_url, prepared, 1_000 + turn, length)
        del prepared
        wire = list(bodies(users, f"bulk-{turn}", count, size, datetime.now(UTC)))
        before, cpu = machine.usage(), [machine.cpu_seconds(running.pid), *map(machine.tree_cpu_seconds, pids)]
        sent = await send(site, key, wire, connections, length)
        after = machine.usage()
        used = [
            now - then
            for now, then in zip(
                [machine.cpu_seconds(running.pid), *map(machine.tree_cpu_seconds, pids)], cpu, strict=True
            )
        ]
        accepted += sent.accepted + alone
        await until_equal(running, accepted)
        figure = bulk_report.figure(
            size=size,
            connections=connections,
            alone=alone / alone_seconds,
            actions=sent.accepted / sent.seconds,
            latencies=sent.latencies,
            cpu_us=(used[0] / sent.accepted * 1e6, used[1] / sent.accepted * 1e6, used[2] / sent.accepted * 1e6),
            not_ok=sum(sent.statuses.values()) - sent.accepted,
            others=after.others_since(before),
        )
        rate = max(rate, figure.actions, figure.alone)
        progress(
            f"  {'round' if turn else 'warm-up'}: {figure.actions:,.0f} actions/s, PostgreSQL alone "
            f"{figure.alone:,.0f}, ratio {figure.ratio:.2f}, p99 {figure.p99_ms:.0f} ms, CPU {figure.server_us:.0f} + "
            f"{figure.postgres_us:.0f} + {figure.valkey_us:.0f} µs an action"
        )
        if turn:
            figures.append(figure)
    return figures


async def until_equal(running: Running, accepted: int) -> None:
    """Raises UnequalCountError unless the stores hold what was accepted. What was recorded without the server comes to
    the board a little later, by the projector."""
    with trio.move_on_after(10):
        while report.disagreement(accepted, await stores.kept(running.site.postgres_url, running.site.redis_url)):
            await trio.sleep(0.5)
        return
    if why := report.disagreement(accepted, await stores.kept(running.site.postgres_url, running.site.redis_url)):
        raise UnequalCountError(why)


async def run(size: int, connections: int, seconds: float, rounds: int, folder: Path) -> list[Figure]:
    with trio.fail_after(2 * OVERHEAD + (rounds + 1) * (2 * seconds + OVERHEAD)):
        async with embedded.running(folder / "stores") as endpoints:
            own = folder / "server"
            own.mkdir()
            async with serving(endpoints, own) as (running, key):
                return await measure(endpoints, running, key, size, connections, seconds, rounds, folder)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench bulk", description="Actions in bulk, beside PostgreSQL alone with the same batches."
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each half of a round (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default: 3)")
    parser.add_argument("--connections", type=int, default=6, help="requests at once (default: 6)")
    parser.add_argument("--size", type=int, default=MAX_BULK_ACTIONS, help="actions a request (default: 500)")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    figures = None
    try:
        with own_folder() as folder:
            work = partial(run, options.size, options.connections, options.seconds, options.rounds, folder)
            figures = trio.run(until_stopped, work)
    except* (RuntimeError, StartError, UnequalCountError, trio.TooSlowError) as group:
        for error in group.exceptions:
            progress(f"no result: {type(error).__name__}: {error}")
    if not figures:
        return 1
    print(bulk_report.summary(figures, options.seconds))
    return 0
