"""`scripts/bench fanout`: this server and its peers send boards to 500, 2,000 and 8,000 viewers, in turn, in one run.

For each server and number of viewers: a fresh start, all viewers (raw sockets, fanout_viewers), a warm-up, then some
seconds in which a new board goes out every 100 ms. Our boards move by real actions through the public API, so our lag
begins at a commit and a tick's wait is in it; a peer's message carries the time of sending. `fanout_parts` has the
further figures: slow readers, everybody back at once, deltas. Everything is on 127.0.0.1, every child is ended by its
id, and the whole run has a deadline.
"""

import argparse
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx
import msgspec
import trio

from scoreboard.domain.errors import StartError
from scoreboard.embedded import stack as embedded
from scoreboard.embedded.stack import Endpoints
from tests.bench import fanout_lag, fanout_report, fanout_servers, machine, plot, report, servers, stores
from tests.bench.fanout_crowd import crowd
from tests.bench.fanout_parts import PARTS, Part, Place
from tests.bench.fanout_report import Figure
from tests.bench.fanout_servers import ALL, CONTENDERS, Contender, Served
from tests.bench.report import Expectation
from tests.bench.run import ROOT, own_folder, progress, until_stopped
from tests.bench.servers import ServerPlace

WARM_UP = 2.0  # seconds of boards that do not count
VIEWERS = ("scoreboard_websocket_connections", "scoreboard_stream_connections", "scoreboard_long_polls")
FRAME_HEAD = 4  # bytes before a WebSocket message of ours or a peer's
SETTLE = 1.0  # seconds after the last viewer has come, and for the last answers after the viewers' report
# with fewer boards (a server that sends one a second, or in two) it takes longer, so many times at most
FEW, STRETCH = 5, 4
SIZE = 1400  # bytes a message of the peers when ours is not measured before them: ten rows, their names, who moved
OVERHEAD = 200.0  # seconds a server for its start, its end, and thousands of handshakes of the slowest
BUSY_CORES = 0.2  # cores; with more than a tenth of the usual two gone to others, the table says so
FAILURES = (RuntimeError, StartError, OSError, httpx.HTTPError, trio.TooSlowError)


class Outcome(msgspec.Struct):
    figures: list[Figure]
    found: list[Expectation]
    failed: list[str]  # what could not be measured, and why


# ---- one server ------------------------------------------------------------------------------------------------------


async def cores_without_viewers(served: Served, seconds: float) -> float:
    """What the actions and the reads cost by themselves: no fan-out. 0 for peers, which do nothing else."""
    if not served.contender.is_ours:
        return 0.0
    while sum([await served.metric(name) for name in VIEWERS]):  # those before have left the server, too
        await trio.sleep(SETTLE / 4)
    async with fanout_servers.sending(served):
        await trio.sleep(SETTLE)
        begun, cpu = trio.current_time(), served.cpu_seconds()
        await trio.sleep(seconds)
        return (served.cpu_seconds() - cpu) / (trio.current_time() - begun)


async def measure(served: Served, clients: int, seconds: float) -> Figure:
    contender = served.contender
    idle = await cores_without_viewers(served, seconds)
    empty = served.memory_kib()
    async with crowd(served.site.port, clients) as viewers:
        opening = await contender.open(viewers, clients)
        await trio.sleep(SETTLE)
        waiting = served.memory_kib()
        async with fanout_servers.sending(served) as drive:
            await trio.sleep(WARM_UP)
            await viewers.begin()
            drive.clear()
            begun, others = trio.current_time(), machine.usage()
            cpu, viewers_cpu = served.cpu_seconds(), viewers.cpu_seconds()
            for _ in range(STRETCH):
                await trio.sleep(seconds)
                took, used, viewers_used = (
                    trio.current_time() - begun,
                    served.cpu_seconds() - cpu,
                    viewers.cpu_seconds() - viewers_cpu,
                )
                reports = await viewers.end()
                if (boards := max(fanout_lag.boards(each.rows) for each in reports)) >= FEW:
                    break
            busy = machine.usage().others_since(others)
            full = waiting if contender.transport == "poll" else served.memory_kib()
            await trio.sleep(SETTLE)  # for the answers of the last actions
    # before and after: the machine's speed changes within seconds
    idle = (idle + await cores_without_viewers(served, seconds)) / 2
    delivered = sum(fanout_lag.deliveries(each.rows) for each in reports)
    if not delivered:
        raise RuntimeError("no board came to any viewer")
    lags = fanout_lag.merged([fanout_lag.lags(each.shown, each.rows, drive.commits) for each in reports])
    return Figure(
        name=contender.name,
        title=contender.title,
        clients=clients,
        cpu_us=(used - idle * took) / delivered * 1e6,
        idle_us=idle * took / delivered * 1e6,
        memory_kib=(full - empty) / clients,
        lag_p50_ms=lags.percentile(0.5),
        lag_p99_ms=lags.percentile(0.99),
        lag_max_ms=lags.percentile(1),
        read_p99_ms=drive.read_percentile(0.99) if contender.is_ours else None,
        ticks=boards / took,
        messages=delivered / took,
        size=sum(each.bytes for each in reports) / delivered,
        opening=opening,
        gone=sum(each.gone for each in reports),
        refused=drive.refused,
        viewers_cores=viewers_used / took,
        others=busy,
    )


# ---- the run ---------------------------------------------------------------------------------------------------------


async def place_of(endpoints: Endpoints, folder: Path, numbers: Iterator[int], name: str) -> ServerPlace:
    own = folder / f"{name}-{next(numbers)}"
    own.mkdir()
    own.chmod(0o755)  # nginx' worker may run as another account
    url = (
        await stores.fresh(endpoints.postgres_url, endpoints.redis_url, "bench_fanout")
        if name.startswith("ours")
        else ""
    )
    return ServerPlace(port=servers.free_port(), postgres_url=url, redis_url=endpoints.redis_url, folder=own)


async def run(
    contenders: Sequence[Contender],
    clients: Sequence[int],
    parts: Sequence[Part],
    seconds: float,
    rounds: int,
    folder: Path,
) -> Outcome:
    done, numbers, size = Outcome([], [], []), itertools.count(), SIZE
    turns = list(itertools.product(range(rounds), clients, contenders))
    each = (2 + STRETCH) * seconds + WARM_UP + OVERHEAD

    async def attempt(what: str, work: Callable[[], Awaitable[None]]) -> None:
        """One that fails must not cost the others their figures."""
        try:
            with trio.fail_after(each):
                await work()
        except* FAILURES as group:
            done.failed.append(f"{what}: {first_of(group)}")
            progress(f"no figure: {done.failed[-1]}")

    with trio.fail_after(OVERHEAD + (len(turns) + len(parts)) * each):
        async with embedded.running(folder / "stores") as endpoints:
            place = Place(folder, partial(place_of, endpoints, folder, numbers), seconds)

            async def compare(contender: Contender, count: int) -> None:
                nonlocal size
                async with fanout_servers.started(contender, await place.site(contender.name), size) as served:
                    figure = await measure(served, count, seconds)
                done.figures.append(figure)
                if contender is fanout_servers.OURS:
                    size = round(figure.size) - FRAME_HEAD
                progress(
                    f"{figure.title}, {count:,} viewers: {figure.cpu_us:.2f} µs CPU a message, "
                    f"{figure.memory_kib:.1f} KiB a viewer, "
                    f"lag p50 {figure.lag_p50_ms:.0f}, p99 {figure.lag_p99_ms:.0f} ms, {figure.ticks:.1f} boards/s"
                )

            async def find(part: Part) -> None:
                found = await part.measure(place)
                done.found += found
                for one in found:
                    progress(f"{one.text}: {one.value:.2f} {one.unit}")

            for _, count, contender in turns:
                await attempt(f"{contender.title}, {count:,} viewers", partial(compare, contender, count))
            for part in parts:
                await attempt(part.text, partial(find, part))
    return done


def first_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def summary(done: Outcome, seconds: float, rounds: int) -> str:
    figures = fanout_report.middle(done.figures)
    parts = []
    if figures:
        parts += [
            f"A new board every 100 ms to all viewers, for {seconds:g} s, "
            f"{f'the middle one of {rounds} rounds, ' if rounds > 1 else ''}"
            "viewers and servers on one machine. CPU is user and system time of the server's processes; of ours, what "
            "the actions and the reads cost with nobody watching is taken off and stands beside it. Our lag begins at "
            "the commit, so the wait for the next tick is in it; a peer's begins when it sends. Memory is the server's "
            "own (PSS), without the kernel's buffers, at the end; of a long poll while it waits.",
            fanout_report.table(figures),
        ]
    if found := fanout_report.expectations(figures) + done.found:
        parts.append(report.verdicts(found))
    parts += [f"No figure: {failure.splitlines()[0]}" for failure in done.failed]
    if figures and (busiest := max(figure.others for figure in figures)) > BUSY_CORES:
        parts.append(
            f"The machine was busy: other processes took up to {busiest:.1f} cores, so the figures are not comparable."
        )
    return "\n\n".join(parts) + "\n"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench fanout", description="This server and its peers with thousands of viewers."
    )
    parser.add_argument("--clients", default="500,2000,8000", help="numbers of viewers (default: 500,2000,8000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of boards at each number of viewers (default: 10)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="all servers in turn so many times; the middle one counts (default: 1)"
    )
    parser.add_argument(
        "--only", default="", help=f"which servers, of {','.join(CONTENDERS)} (default: all that are installed)"
    )
    more = ", ".join(f"{name} ({part.text})" for name, part in PARTS.items())
    parser.add_argument(
        "--parts", default=f"sizes,{','.join(PARTS)}", help=f"sizes (the table of all servers), {more} (default: all)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / ".data" / "bench",
        help="folder for fanout.md and fanout.svg (default: .data/bench)",
    )
    options = parser.parse_args(argv)
    try:
        options.clients = [int(number) for number in options.clients.split(",")]
    except ValueError:
        parser.error("--clients takes numbers with commas between them")
    names, parts = options.only.split(",") if options.only else list(CONTENDERS), options.parts.split(",")
    for given, known, option in ((names, CONTENDERS, "--only"), (parts, {"sizes", *PARTS}, "--parts")):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"{option} knows {', '.join(known)}, not {', '.join(unknown)}")
    for contender in [contender for contender in ALL if contender.name in names]:
        if lacking := fanout_servers.missing(contender):
            if options.only:
                parser.error(f"{contender.name}: not found: {lacking}")
            progress(f"left out: {contender.title}: not found: {lacking}")
            names.remove(contender.name)
    options.contenders = [contender for contender in ALL if contender.name in names] if "sizes" in parts else []
    options.parts = [PARTS[name] for name in parts if name in PARTS]
    return options


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    done = None
    try:
        with own_folder() as folder:
            done = trio.run(
                until_stopped,
                partial(
                    run, options.contenders, options.clients, options.parts, options.seconds, options.rounds, folder
                ),
            )
    except* FAILURES as group:
        for error in group.exceptions:
            progress(f"no result: {type(error).__name__}: {error}")
    if done is None:
        return 1
    text = summary(done, options.seconds, options.rounds)
    (options.output / "fanout.md").write_text(text)
    if done.figures:
        plot.draw_fanout(fanout_report.middle(done.figures), options.output / "fanout.svg")
    print(text)
    progress(f"written: {options.output}/fanout.md" + (" and fanout.svg" if done.figures else ""))
    return 1 if done.failed else 0
