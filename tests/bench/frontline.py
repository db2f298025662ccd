"""`scripts/bench front-line`: a node under attack from one address, and honest clients beside it; memory of hostile
connections.

For each attack (frontline_attacks) there are two phases in turn: honest clients alone (frontline_honest), then beside
the attack. So whatever else the machine does meets both. The node has the limits that it has by default, embedded
stores with fsync, and 1,024 descriptors. Attacker and honest clients come from loopback addresses of their own; each
attack has a new one, since an address may be refused for a while after an attack. Then a fresh node for each shape of a
hostile connection (frontline_memory).

`--markdown` writes the tables into .github/SECURITY.md. Everything is on 127.0.0.1, every child is ended by its id, and
the run has an end.
"""

import argparse
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from scoreboard.domain.errors import StartError
from scoreboard.embedded import stack as embedded
from tests.bench import frontline_honest, frontline_report, machine, servers, stores
from tests.bench.frontline_attacks import ATTACKS, Spoils, Target
from tests.bench.frontline_honest import Crowd, addresses, crowd, register
from tests.bench.frontline_memory import SHAPES, measure
from tests.bench.frontline_report import Phase, Run, Shape, Trial
from tests.bench.frontline_wire import Client
from tests.bench.load import Actor
from tests.bench.run import ROOT, own_folder, progress, until_stopped
from tests.bench.servers import OURS, ServerPlace

SECURITY = ROOT / ".github" / "SECURITY.md"
DESCRIPTORS = 1_024  # of the node: what many systems give a process
ACTORS = 300  # honest users; each acts a few times in a run
BOARD_SIZE = 100  # users with points before the first phase
START_SECONDS = 0.5  # until the interpreter of an attack has started
CHECK_SECONDS = 1.2  # in which everybody asks, and one logs in
REST_SECONDS = 0.5  # after an attack, until the node has let go of it
CALM_SECONDS = 70.0  # at most, until everybody is served again after an attack: limits are of a minute
LIMIT_SECONDS = 900.0  # for the whole run, however slow the machine is
BUSY_CORES = 0.2  # cores; with more gone to others, the report says so
FAILURES = (RuntimeError, StartError, OSError, trio.TooSlowError)


# ---- the node --------------------------------------------------------------------------------------------------------


def environ(site: ServerPlace) -> dict[str, str]:
    """The settings of a node as it is by default; only where it listens and its stores are given."""
    return {
        name: value for name, value in servers.our_environ(site).items() if not name.startswith("SCOREBOARD_LIMITS__")
    }


def command(descriptors: int) -> list[str]:
    """The node, with so many descriptors at most."""
    return ["sh", "-c", f'ulimit -n {descriptors} && exec "$0" -m scoreboard serve', sys.executable]


@asynccontextmanager
async def node(site: ServerPlace, descriptors: int) -> AsyncIterator[int]:
    """Runs one, and yields its process id."""
    async with servers.child(OURS.title, command(descriptors), environ(site), site) as process:
        yield process.pid


async def fill_board(one: Crowd) -> None:
    """Gives the board its users: an action each."""
    clients = [Client(one.port, address) for address in addresses()]
    for number in range(BOARD_SIZE):
        status, answer = await clients[number % len(clients)].ask(one.request("action"))
        if status != 200:
            raise RuntimeError(f"an honest action was refused: {status} {answer.decode(errors='replace')}")
    for client in clients:
        client.close()


# ---- attacks ---------------------------------------------------------------------------------------------------------


async def phase(one: Crowd, pid: int, seconds: float) -> Phase:
    """What honest clients see for so long from now on."""
    begun, cpu = trio.current_time(), machine.cpu_seconds(pid)
    samples = await one.during(seconds)
    return frontline_report.phase(samples, (machine.cpu_seconds(pid) - cpu) / (trio.current_time() - begun))


async def beside(name: str, target: Target, one: Crowd, pid: int, seconds: float) -> tuple[Phase, Spoils]:
    """The phase beside an attack, and what that got. Cancelling ends the attack."""
    arguments = [sys.executable, "-m", "tests.bench.frontline_attacks", name]
    found: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def attack() -> None:
            done = await trio.run_process(
                arguments, stdin=msgspec.json.encode(target), capture_stdout=True, stderr=subprocess.STDOUT, cwd=ROOT
            )
            found.append(done.stdout)

        nursery.start_soon(attack)
        # from the first: some attacks do their harm before they are limited
        seen = await phase(one, pid, seconds + START_SECONDS)
    return seen, msgspec.json.decode(found[0], type=Spoils)


async def calm(one: Crowd) -> None:
    """Returns when everybody is served again, log-ins too, or after CALM_SECONDS."""
    await trio.sleep(REST_SECONDS)
    with trio.move_on_after(CALM_SECONDS):
        while not all(sample.served for sample in await one.during(CHECK_SECONDS)):
            pass


async def trial(name: str, target: Target, one: Crowd, pid: int, options: argparse.Namespace) -> Trial:
    names = list(one.names)
    usual = await phase(one, pid, options.seconds)
    if name == "wrong-logins":
        one.names = [target.name]  # the owner, from elsewhere
    seen, spoils = await beside(name, target, one, pid, options.seconds)
    one.names = names
    await calm(one)
    made = Trial(name, ATTACKS[name][0], usual, seen, spoils.connections, spoils.refused, spoils.statuses)
    progress(
        f"  {made.title}: p99 {usual.p99_ms:.1f} → {seen.p99_ms:.1f} ms, "
        f"not served {seen.failed} of {seen.requests}, log-ins {seen.log_ins_failed} of {seen.log_ins} "
        f"(slowest {seen.log_in_max_ms:.0f} ms), node {seen.server_cores:.2f} cores; "
        f"the attacker had {spoils.connections} connections, {spoils.refused} refused, answers {spoils.statuses}"
    )
    return made


async def attacks(site: ServerPlace, actors: Sequence[Actor], options: argparse.Namespace) -> list[Trial]:
    """All attacks on one node."""
    names = [f"honest-{number}" for number in range(len(addresses()))]
    found = []
    async with node(site, DESCRIPTORS) as pid:
        for name, address in zip(names, addresses(), strict=True):
            await register(site.port, name, address)
        owner = await register(site.port, "the-owner", "127.0.2.1")  # whose password is guessed
        async with crowd(site.port, actors, names) as one:
            await fill_board(one)
            for number, name in enumerate(options.attacks, 1):
                position = await frontline_honest.position(site.port)
                address = addresses()[0] if name == "img-polls" else f"127.0.{10 + number}.1"
                seconds = options.seconds
                token = actors[0].token if name == "profile" else owner  # on the board, so that its viewers are told
                found.append(
                    await trial(
                        name, Target(site.port, address, seconds, token, "the-owner", position), one, pid, options
                    )
                )
    return found


# ---- memory ----------------------------------------------------------------------------------------------------------


async def memory(site: ServerPlace, actors: Sequence[Actor], options: argparse.Namespace) -> list[Shape]:
    """All shapes, each on a node that was just started."""
    found = []
    moves = Crowd(site.port, actors[BOARD_SIZE:], [])
    places = itertools.cycle(addresses())

    async def move() -> None:
        client = Client(site.port, next(places))
        for _ in range(5):
            await client.ask(moves.request("action"))
            await trio.sleep(0.15)  # more than a tick, so that each is a frame of its own
        client.close()

    for name in options.shapes:
        async with node(site, DESCRIPTORS * 2) as pid:
            found.append(shape := await measure(name, site.port, pid, move))
        progress(f"  {shape.title}: {shape.kib:.1f} KiB a connection, {shape.open} of {shape.opened} still open")
    return found


# ---- the run ---------------------------------------------------------------------------------------------------------


async def run(options: argparse.Namespace, folder: Path) -> Run:
    with trio.fail_after(LIMIT_SECONDS):
        async with embedded.running(folder / "stores") as endpoints:
            url = await stores.fresh(endpoints.postgres_url, endpoints.redis_url, "bench_front_line")
            site = ServerPlace(servers.free_port(), url, endpoints.redis_url, folder)
            await servers.our_command(site, "migrate")
            actors = await servers.our_actors(site, ACTORS)
            before = machine.usage()
            trials = await attacks(site, actors, options) if options.attacks else []
            shapes = await memory(site, actors, options) if options.shapes else []
            return Run(trials, shapes, machine.usage().others_since(before))


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench front-line", description="A node under attack, and honest clients beside it."
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase, two for an attack (default: 3)")
    parser.add_argument(
        "--attacks", default=",".join(ATTACKS), help=f"some of {', '.join(ATTACKS)}, or none (default: all)"
    )
    parser.add_argument(
        "--shapes", default=",".join(SHAPES), help=f"some of {', '.join(SHAPES)}, or none (default: all)"
    )
    parser.add_argument("--markdown", action="store_true", help=f"write the tables into {SECURITY.relative_to(ROOT)}")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / ".data" / "bench",
        help="folder for front-line.json (default: .data/bench)",
    )
    options = parser.parse_args(argv)
    for given, known in (("attacks", ATTACKS), ("shapes", SHAPES)):
        names = [name for name in getattr(options, given).split(",") if name not in {"", "none"}]
        if unknown := set(names) - set(known):
            parser.error(f"--{given}: unknown {', '.join(sorted(unknown))}")
        setattr(options, given, names)
    return options


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    done = None
    try:
        with own_folder() as folder:
            done = trio.run(until_stopped, partial(run, options, folder))
    except* FAILURES as group:
        for error in group.exceptions:
            progress(f"no result: {type(error).__name__}: {error}")
    if done is None:
        return 1
    (options.output / "front-line.json").write_bytes(msgspec.json.format(msgspec.json.encode(done)))
    text = frontline_report.summary(done)
    print(text)
    if done.others > BUSY_CORES:
        progress(
            f"The machine was busy: other processes took {done.others:.1f} cores, so honest clients waited for them, "
            "too."
        )
    if options.markdown:
        SECURITY.write_text(frontline_report.put_into(SECURITY.read_text(), text))
        progress(f"written: {SECURITY}")
    progress(f"written: {options.output}/front-line.json")
    return 0
