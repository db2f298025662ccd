"""`async with under_fault(pair) as run`: a load, viewers and readers run; the block is the fault; then everything is
checked.

When the block ends the load goes on for a moment, stops, and all must heal within the bound. One AssertionError tells
all that was found: lost, doubled, wrong and unmarked, not healed, logged as an error.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from random import Random
from typing import Any

import httpx
import trio

from scoreboard.drivers.stores import Stores, open_stores
from tests.e2e.server_processes import Client, provision
from tests.faults import ranks, reads
from tests.faults.converging import converged
from tests.faults.ledger import Ledger, Totals, act_for_ever, begin, wrong_in_log
from tests.faults.reads import Reads
from tests.faults.servers import Pair
from tests.faults.watching import KINDS, Watcher, greet_for_ever, read, read_for_ever

ACTORS = int(os.environ.get("FAULT_ACTORS", "12"))
NEWCOMERS = 8  # users who have not acted before a fault asks them to
PAUSE = 0.25  # seconds between two actions of one actor, on average
READ_PAUSE = 0.1  # seconds between two readings of one reader
GREET_PAUSE = 0.3  # the same for those who connect anew each time
CLIENT_SECONDS = 6.0  # for one answer; the server gives up after 3 s
CALM_SECONDS = 0.5  # of load before the fault, and after it
RECOVERY_SECONDS = 5.0  # after the fault until everything agrees
READY_SECONDS = 20.0  # for a pair to be in order before a test begins
OWN_READS = 0.5  # share of answers after which the same user reads at once


def lasting(seconds: float) -> float:
    """How long a fault lasts: short in the suite, FAULT_SECONDS by hand."""
    return float(os.environ.get("FAULT_SECONDS", seconds))


@dataclass
class Run:
    """What a fault may use, and what was seen. `bound`, `allowed` and `log_counts` may be changed by the fault."""

    pair: Pair
    stores: Stores
    clients: list[Client]
    newcomers: list[Client]
    ledger: Ledger
    reads: Reads
    watchers: list[Watcher]
    load: trio.Nursery
    over: trio.Event
    allowed: frozenset[int]
    bound: float
    log_counts: bool = True
    ignore: tuple[float, float] | None = None
    marks: list[tuple[float, str]] = field(default_factory=list)
    errors_allowed: bool = False  # in the nodes' logs
    began: float = inf
    ended: float = inf
    healed_after: float = inf
    found: list[str] = field(default_factory=list)

    @property
    def valkey(self) -> Any:
        return self.pair.valkey

    def newcomers_act(self) -> None:
        """From now on the newcomers act too."""
        self.pair.newcomers += len(self.newcomers)
        self.load.start_soon(self._act, self.newcomers, 7)

    def mark(self, name: str) -> None:
        """From here on another fault lasts; violations are reported under its name."""
        self.marks.append((trio.current_time() - self.began, name))

    async def stop_load(self) -> None:
        """Returns when every poster has had its last answer."""
        self.over.set()
        while self.load.child_tasks:
            await trio.sleep(0.02)

    async def _act(self, clients: list[Client], seed: int) -> None:
        random = Random(seed)

        async def after(client: Client, node: int) -> None:
            if random.random() < OWN_READS:
                await read(client, self.pair.nodes[node], node, self.reads)

        await act_for_ever(clients, self.pair.nodes, self.ledger, pause=PAUSE, until=self.over, seed=seed, after=after)

    async def readyz(self, node: int = 0) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.pair.nodes[node].url, timeout=5) as http:
            body: dict[str, Any] = (await http.get("/readyz")).json()
            return body

    async def expect_store(
        self, store: str, state: str, *, nodes: tuple[int, ...] = (0, 1), within: float = 2.0
    ) -> None:
        """Notes if `/readyz` of these nodes does not say so of a store in time."""
        for node in nodes:
            told = ""
            with trio.move_on_after(within + 1.0):  # one second for a busy machine
                while (told := (await self.readyz(node)).get("stores", {}).get(store, "")) != state:
                    await trio.sleep(0.1)
            if told != state:
                self.found.append(
                    f"/readyz of node {node} says {store}: {told!r}, expected {state!r} within {within:.0f} s"
                )


@asynccontextmanager
async def under_fault(
    pair: Pair,
    *,
    bound: float = RECOVERY_SECONDS,
    unavailable: bool = False,
    actors: int = ACTORS,
    viewers: bool = True,
) -> AsyncIterator[Run]:
    """`unavailable`: the fault keeps PostgreSQL or a node from answering, so 503, time-outs and resets are right."""
    if not pair.is_clean:
        await trio.to_thread.run_sync(pair.restart)
    pair.is_clean = False
    logged = [len(node.lines()) for node in pair.nodes]
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(pair.postgres, pair.valkey.url))
        _, wrong = await converged(stores, pair.nodes, (), READY_SECONDS, log_counts=False)
        assert not wrong, ["before the fault", *wrong]
        connections = httpx.Limits(max_connections=200, max_keepalive_connections=100)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=pair.nodes[0].url, timeout=CLIENT_SECONDS, limits=connections)
        )
        made = await provision(pair.nodes[0], http, actors + pair.newcomers + NEWCOMERS)
        ledger, seen = await begin(stores), Reads()
        async with trio.open_nursery() as lookers:
            watchers = [
                Watcher(kind, number, node, made[(place + 4 * number) % actors], seen)
                for number, node in enumerate(pair.nodes)
                for place, kind in enumerate(KINDS)
                if viewers
            ]
            for watcher in watchers:
                lookers.start_soon(watcher.run)
            async with trio.open_nursery() as readers, trio.open_nursery() as load:
                run = Run(
                    pair,
                    stores,
                    made[:actors],
                    made[-NEWCOMERS:],
                    ledger,
                    seen,
                    watchers,
                    load,
                    trio.Event(),
                    frozenset({200, 409} | ({0, 503} if unavailable else set())),
                    bound,
                )
                load.start_soon(run._act, run.clients, 1)
                for number, node in enumerate(pair.nodes):
                    readers.start_soon(partial(read_for_ever, run.clients, node, number, seen, pause=READ_PAUSE))
                    readers.start_soon(partial(greet_for_ever, run.clients, node, number, seen, pause=GREET_PAUSE))
                await trio.sleep(CALM_SECONDS)
                run.began = trio.current_time()
                yield run
                run.ended = trio.current_time()
                await trio.sleep(CALM_SECONDS)
                await run.stop_load()
                readers.cancel_scope.cancel()
            within = run.bound - (trio.current_time() - run.ended)
            # the fault may have put another Valkey in its place
            async with open_stores(pair.postgres, pair.valkey.url) as current:
                run.healed_after, wrong = await converged(
                    current, pair.nodes, watchers, within, log_counts=run.log_counts
                )
            for watcher in watchers:
                watcher.flush()
            for number, node in enumerate(pair.nodes):
                for client in run.clients[:3]:
                    await read(client, node, number, seen)
            lookers.cancel_scope.cancel()
        run.found += wrong
        await _judge(run)
        for number, node in enumerate(pair.nodes):
            errors = [line for line in node.lines()[logged[number] :] if line["level"] in {"error", "critical"}]
            if errors and not run.errors_allowed:
                run.found.append(f"node {number} logged {len(errors)} errors, {str(errors[0])[:300]}")
    assert not run.found, "\n".join(["", *run.found, _figures(run)])
    pair.is_clean = True


async def _judge(run: Run) -> None:
    """The record against the log, and everything that was shown against the record."""
    run.found += (await wrong_in_log(run.ledger, run.stores))[:5]
    lost: frozenset[str] = frozenset()
    if run.ledger.went_back is not None:
        rows = await run.stores.fetch("SELECT action_id FROM action_logs")
        lost = frozenset(run.ledger.actions) - {row["action_id"] for row in rows}
    totals = Totals(run.ledger, lost)
    for check in (reads.violations, ranks.violations):
        run.found += reads.summary(check(run.reads, run.ledger, totals, run.began, ignore=run.ignore), run.marks)
    if strange := set(run.ledger.statuses) - run.allowed:
        run.found.append(f"answers of {strange}: {dict(run.ledger.statuses)}")
    # 409: recorded at a try whose answer was lost
    if run.ledger.statuses[200] + run.ledger.statuses[409] < len(run.clients):
        run.found.append(f"the load was none: {dict(run.ledger.statuses)}")


def _figures(run: Run) -> str:
    stale = sum(shown.stale for shown in run.reads.shown)
    return (
        f"fault of {run.ended - run.began:.1f} s, healed {run.healed_after:.1f} s after its load; "
        f"answers {dict(run.ledger.statuses)}, {run.ledger.nulls} ranks null; "
        f"{len(run.reads.shown)} readings, {stale} stale, {run.reads.refused} refused, "
        f"{len(run.reads.personal)} personal"
    )
