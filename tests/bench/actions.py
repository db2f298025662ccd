"""`scripts/bench actions`: this server and its peers take signed actions and leaderboard reads, in turn, in one run.

For each server: fresh stores, the same questions (probe), a warm-up, then at each number of connections actions for
some seconds, the count of what the database holds, and reads. A figure is printed only if accepted answers = rows in
action_logs, and points, totals and board agree. Progress goes to stderr, the table to stdout and, with the plot, to a
folder. Everything listens on 127.0.0.1, every child is ended by its id, and the whole run has a deadline.
"""

import argparse
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from scoreboard.domain.errors import StartError
from scoreboard.embedded import stack as embedded
from tests.bench import load, machine, plot, probe, report, servers, stores
from tests.bench.report import Figure, UnequalCountError
from tests.bench.run import ROOT, own_folder, progress, until_stopped
from tests.bench.servers import CONTENDERS, Contender, Running, ServerPlace

WARM_UP = 2.0  # seconds: statements are prepared, pools filled, code compiled; not counted
# actions signed a second of warm-up; more than anybody takes here, and a file at its end only ends the warm-up
WARM_UP_RATE = 15_000
# times as many actions as the fastest rate so far asks for are signed: warm code and more connections may double it
SPARE = 3.0
BUSY_CORES = 0.2  # cores; with more than a tenth of the usual two gone to others, the table says so
OVERHEAD = 60.0  # seconds a server for its start, its users, the probe, signing and its end


# ---- one server ------------------------------------------------------------------------------------------------------


async def replay(running: Running, run: str, count: int, connections: int, seconds: float) -> load.Load:
    """Signs `count` actions, right now because their timestamps last five minutes, and sends them."""
    with load.in_memory(load.requests(running.actors, run, count, running.site.port, datetime.now(UTC))) as file:
        return await load.send(running.site.port, connections, seconds, replay=file)


async def check(running: Running, accepted: int) -> None:
    """Raises `UnequalCountError` unless the stores hold exactly the accepted actions."""
    if why := report.disagreement(accepted, await stores.kept(running.site.postgres_url, running.site.redis_url)):
        raise UnequalCountError(why)


async def measure(
    contender: Contender, running: Running, connection_counts: Sequence[int], seconds: float
) -> list[Figure]:
    accepted = await probe.ask(running)
    warm = await replay(running, "warm", int(WARM_UP * WARM_UP_RATE), connection_counts[0], WARM_UP)
    await load.send(running.site.port, connection_counts[0], WARM_UP / 2, replay=None)
    accepted += warm.accepted
    await check(running, accepted)
    figures: list[Figure] = []
    rate = warm.answered / warm.seconds
    for connections in connection_counts:
        count = int(rate * seconds * SPARE)
        (size, commits), before, cpu = await running.batches(), machine.usage(), machine.cpu_seconds(running.pid)
        actions = await replay(running, f"c{connections}", count, connections, seconds)
        cpu, after, (size_after, commits_after) = (
            machine.cpu_seconds(running.pid) - cpu,
            machine.usage(),
            await running.batches(),
        )
        accepted += actions.accepted
        await check(running, accepted)
        read_cpu = machine.cpu_seconds(running.pid)
        reads = await load.send(running.site.port, connections, seconds / 2, replay=None)
        read_cpu = machine.cpu_seconds(running.pid) - read_cpu
        figure = Figure(
            name=contender.name,
            title=contender.title,
            connections=connections,
            actions=actions.per_second,
            p50_ms=actions.p50_us / 1e3,
            p99_ms=actions.p99_us / 1e3,
            reads=reads.per_second,
            cpu_us=cpu / actions.accepted * 1e6,
            read_cpu_us=read_cpu / reads.accepted * 1e6,
            batch=(size_after - size) / (commits_after - commits) if commits_after > commits else None,
            not_ok=actions.refused + reads.refused,
            others=after.others_since(before),
        )
        rate = max(rate, actions.answered / actions.seconds)
        figures.append(figure)
        progress(
            f"  {connections} connections: {figure.actions:,.0f} actions/s over {actions.seconds:.1f} s, "
            f"p50 {figure.p50_ms:.1f} ms, p99 {figure.p99_ms:.1f} ms, {figure.cpu_us:.0f} µs CPU an action; "
            f"{figure.reads:,.0f} reads/s; {accepted} actions in the database"
        )
    return figures


# ---- the run ---------------------------------------------------------------------------------------------------------


async def run(
    contenders: Sequence[Contender], connection_counts: Sequence[int], seconds: float, rounds: int, folder: Path
) -> list[Figure]:
    each = (
        2 * WARM_UP
        + len(connection_counts) * 1.5 * seconds
        + (2 + 2 * len(connection_counts)) * (load.DRAIN + 2)
        + OVERHEAD
    )
    figures: list[Figure] = []
    with trio.fail_after(OVERHEAD + rounds * len(contenders) * each):
        async with embedded.running(folder / "stores") as endpoints:
            for turn, contender in itertools.product(range(1, rounds + 1), contenders):
                progress(f"{contender.title}, round {turn} of {rounds}")
                own = folder / f"{contender.name}-{turn}"
                own.mkdir()
                url = await stores.fresh(endpoints.postgres_url, endpoints.redis_url, f"bench_{contender.name}")
                site = ServerPlace(
                    port=servers.free_port(), postgres_url=url, redis_url=endpoints.redis_url, folder=own
                )
                async with servers.running(contender, site) as running:
                    figures += await measure(contender, running, connection_counts, seconds)
    return report.middle(figures)


def summary(figures: Sequence[Figure], seconds: float, rounds: int) -> str:
    found = report.expectations(figures)
    parts = [
        f"Actions for {seconds:g} s, reads for {seconds / 2:g} s, {servers.USERS:,} users, one process a server, "
        f"{f'the middle one of {rounds} rounds, ' if rounds > 1 else ''}sent by {load.sender()}, "
        "all on one machine; each accepted action was found in the database.",
        report.table(figures),
    ]
    if found:
        parts.append(report.verdicts(found))
    if (busiest := max(figure.others for figure in figures)) > BUSY_CORES:
        parts.append(
            f"The machine was busy: other processes took up to {busiest:.1f} cores, so the figures are low and not "
            "comparable."
        )
    return "\n\n".join(parts) + "\n"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench actions",
        description="This server and its peers under signed actions and leaderboard reads.",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="of actions at each number of connections; reads take half (default: 10)",
    )
    parser.add_argument("--connections", default="32,128", help="numbers of connections (default: 32,128)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="all servers in turn so many times; the middle one counts (default: 1)"
    )
    parser.add_argument(
        "--only",
        default="",
        help=f"which servers, of {','.join(CONTENDERS)} (default: all; bun only where one is found)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / ".data" / "bench",
        help="folder for actions.md and actions.svg (default: .data/bench)",
    )
    options = parser.parse_args(argv)
    try:
        options.connections = [int(number) for number in options.connections.split(",")]
    except ValueError:
        parser.error("--connections takes numbers with commas between them")
    names = options.only.split(",") if options.only else list(CONTENDERS)
    if unknown := [name for name in names if name not in CONTENDERS]:
        parser.error(f"--only knows {', '.join(CONTENDERS)}, not {', '.join(unknown)}")
    if "bun" in names and servers.find_bun() is None:
        if options.only:
            parser.error("no Bun: set BUN to its binary, or install the npm package bun here")
        progress("no Bun found (BUN, node_modules/bun): left out")
        names.remove("bun")
    options.contenders = [CONTENDERS[name] for name in names]
    return options


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    figures = None
    try:
        with own_folder() as folder:
            work = partial(run, options.contenders, options.connections, options.seconds, options.rounds, folder)
            figures = trio.run(until_stopped, work)
    except* (RuntimeError, StartError, probe.UnequalWorkError, UnequalCountError, trio.TooSlowError) as group:
        for error in group.exceptions:
            progress(f"no result: {type(error).__name__}: {error}")
    if figures is None:
        return 1
    text = summary(figures, options.seconds, options.rounds)
    (options.output / "actions.md").write_text(text)
    plot.draw_actions(figures, options.output / "actions.svg")
    print(text)
    progress(f"written: {options.output}/actions.md and actions.svg")
    return 0
