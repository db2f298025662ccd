"""`scripts/bench scale`: the same clients act on few users and on many, in turn, in one run.

Each size has a PostgreSQL, a Valkey and a server of its own, and users with scores made in SQL; the server builds the
board itself when it starts. Then wrk sends signed actions to one size after the other, round by round, so that whatever
else the machine does meets all sizes; the servers that are not measured stand idle. A figure is printed only if the
database holds what was accepted (as `actions`).

The actors are as many at each size and spread evenly over all ids: tokens and limits cost the same, and ten thousand of
a million users still touch nearly every page of the tables and their indexes. A round begins with a checkpoint, because
afterwards each page goes whole into the WAL when it is first written. With many users that is about a page an action,
and every round has it.
"""

import argparse
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import trio

from scoreboard.domain.errors import StartError
from scoreboard.embedded import stack as embedded
from scoreboard.security import tokens
from scoreboard.security.signatures import action_secret
from scoreboard.security.tokens import TokenKeys
from scoreboard.settings.model import load_settings
from tests.bench import load, machine, report, scale_report, scale_stores, servers, stores
from tests.bench.load import Actor
from tests.bench.report import UnequalCountError
from tests.bench.run import ROOT, own_folder, progress, until_stopped
from tests.bench.scale_report import Round
from tests.bench.servers import OURS, Running, ServerPlace

SIZES = (10_000, 1_000_000)
ACTORS = 10_000  # at each size; the server remembers 20,000 tokens
# seconds at most, for two actions an actor: tokens are verified, statements planned, pages read; not counted
WARM_UP = 20.0
FIRST_RATE = 4_000  # actions signed a second for the first round; a file at its end only ends the round
SPARE = 2.0  # times as many actions as the fastest rate so far asks for are signed
BUSY_CORES = 0.2  # cores; with more than a tenth of the usual two gone to others, the table says so
TOKEN_SECONDS = 3 * 3600  # longer than a run
# seconds a size until its users are made and its board is built; a million with one action each take about 90
FILL = 600.0
OVERHEAD = 20.0  # seconds a round for signing


class Stack(msgspec.Struct):
    """One size: its stores, its server, and what was accepted so far."""

    users: int
    history: int
    data_dir: Path
    running: Running
    accepted: int = 0
    rate: float = FIRST_RATE  # the highest so far, a second

    async def work(self) -> scale_stores.Work:
        return await scale_stores.work(self.data_dir, self.running.site.postgres_url, self.running.site.redis_url)


# ---- one size --------------------------------------------------------------------------------------------------------


def sessions(site: ServerPlace, users: Sequence[UUID]) -> list[Actor]:
    """A token and a secret for each of these users, made as the server makes them, with its development keys."""
    settings = load_settings(environ=servers.our_environ(site))
    keys = settings.security.keys(settings.embedded.data_dir)
    signing, now = TokenKeys.from_private(keys.signing, keys.current_signing), time.time()
    made = []
    for user in users:
        sid = uuid4()
        token = tokens.issue(
            signing, issuer=settings.issuer, user=user, sid=sid, jti=uuid4().hex, now=now, lifetime=TOKEN_SECONDS
        )
        made.append(Actor(str(user), token, action_secret(keys.master[keys.current_master], user, sid)))
    return made


@asynccontextmanager
async def stack(users: int, history: int, actors: int, settings: dict[str, str], folder: Path) -> AsyncIterator[Stack]:
    """Stores with so many users, and a server with its board in place; all of it ends on the way out."""
    folder.mkdir()
    data_dir = folder / "stores"
    async with embedded.running(data_dir, postgres_settings=settings) as endpoints:
        began = time.monotonic()
        url = await stores.fresh(endpoints.postgres_url, endpoints.redis_url, "bench_scale")
        site = ServerPlace(port=servers.free_port(), postgres_url=url, redis_url=endpoints.redis_url, folder=folder)
        await servers.our_command(site, "migrate")
        await scale_stores.fill(url, users, history)
        filled = time.monotonic()
        acting = sessions(site, await scale_stores.actors(url, users, actors))
        started = time.monotonic()
        async with servers.child(OURS.title, *servers.command(OURS, site, {}), site) as process:
            while scale_stores.board_size(site.redis_url) < users:
                await trio.sleep(0.5)
            progress(
                f"{users:,} users: made in {filled - began:.0f} s, board built in {time.monotonic() - started:.0f} s"
            )
            yield Stack(users, history, data_dir, Running(process.pid, site, acting))


async def send(one: Stack, run: str, count: int, connections: int, seconds: float) -> load.Load:
    wire = load.requests(one.running.actors, run, count, one.running.site.port, datetime.now(UTC))
    with load.in_memory(wire) as file:
        done = await load.send(one.running.site.port, connections, seconds, replay=file)
    one.accepted += done.accepted
    one.rate = max(one.rate, done.answered / done.seconds)
    return done


async def measure(one: Stack, turn: int, connections: int, seconds: float, checkpoint: bool) -> Round:
    if checkpoint:
        await scale_stores.checkpoint(one.running.site.postgres_url)
    pid = one.running.pid
    before, cpu, work, (size, commits) = (
        machine.usage(),
        machine.cpu_seconds(pid),
        await one.work(),
        await one.running.batches(),
    )
    done = await send(one, f"round-{turn}", int(one.rate * seconds * SPARE), connections, seconds)
    after, cpu, (size_after, commits_after) = (
        machine.usage(),
        machine.cpu_seconds(pid) - cpu,
        await one.running.batches(),
    )
    work = (await one.work()).since(work)
    each = 1e6 / done.accepted
    figure = Round(
        users=one.users,
        actions=done.per_second,
        p99_ms=done.p99_us / 1e3,
        server_us=cpu * each,
        postgres_us=work.postgres_cpu * each,
        valkey_us=work.valkey_cpu * each,
        script_us=work.script_us / done.accepted,
        wal_bytes=work.wal_bytes / done.accepted,
        full_pages=work.full_pages / done.accepted,
        checkpoints=work.checkpoints,
        batch=(size_after - size) / max(1, commits_after - commits),
        not_ok=done.refused,
        others=after.others_since(before),
    )
    progress(
        f"  {one.users:,} users: {figure.actions:,.0f} actions/s, p99 {figure.p99_ms:.1f} ms; "
        f"µs an action: server {figure.server_us:.0f}, PostgreSQL {figure.postgres_us:.0f}, "
        f"Valkey {figure.valkey_us:.0f}; {figure.wal_bytes / 1e3:.1f} kB of WAL an action, "
        f"{figure.full_pages:.1f} page images, {figure.checkpoints:g} checkpoints, batch {figure.batch:.1f}, "
        f"others {figure.others:.2f}"
    )
    return figure


async def check(one: Stack) -> None:
    """Raises `UnequalCountError` unless the stores hold the actions that were made in SQL and exactly the accepted
    ones."""
    wanted = one.users * one.history + one.accepted
    if why := report.disagreement(wanted, await stores.kept(one.running.site.postgres_url, one.running.site.redis_url)):
        raise UnequalCountError(why)


# ---- the run ---------------------------------------------------------------------------------------------------------


async def run(options: argparse.Namespace, folder: Path) -> list[Round]:
    each = options.seconds + 2 * load.DRAIN + OVERHEAD
    figures: list[Round] = []
    with trio.fail_after(len(options.sizes) * (FILL * options.history + WARM_UP + OVERHEAD + options.rounds * each)):
        async with AsyncExitStack() as opened:
            stacks = []
            for users in options.sizes:
                made = stack(users, options.history, options.actors, options.postgres, folder / str(users))
                stacks.append(await opened.enter_async_context(made))
            for one in stacks:
                await send(one, "warm", 2 * len(one.running.actors), options.connections, WARM_UP)
            for turn in range(1, options.rounds + 1):
                progress(f"round {turn} of {options.rounds}")
                in_turn = stacks if turn % 2 else stacks[::-1]
                figures += [
                    await measure(one, turn, options.connections, options.seconds, options.checkpoint)
                    for one in in_turn
                ]
            for one in stacks:
                await check(one)
    return figures


def summary(figures: Sequence[Round], options: argparse.Namespace) -> str:
    given = [f"{name} = {value}" for name, value in options.postgres.items()]
    conditions = [
        f"Actions for {options.seconds:g} s by {options.connections} connections",
        f"{options.actors:,} actors spread over all users",
        f"{options.history} earlier actions a user",
        f"{options.rounds} rounds in turn (medians; the ratio is the median of the rounds' own)",
        "a checkpoint before each" if options.checkpoint else "checkpoints as they come",
        *([f"PostgreSQL with {' and '.join(given)}"] if given else []),
        f"sent by {load.sender()}",
        "all on one machine; each accepted action was found in the database.",
    ]
    parts = [", ".join(conditions), scale_report.table(figures)]
    if found := scale_report.expectations(figures):
        parts.append(report.verdicts(found))
    if (busiest := max(figure.others for figure in figures)) > BUSY_CORES:
        parts.append(
            f"The machine was busy: other processes took up to {busiest:.1f} cores, so the figures are low; compare "
            "the ratio only."
        )
    return "\n\n".join(parts) + "\n"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench scale", description="This server under signed actions, with few and with many users."
    )
    sizes = ",".join(map(str, SIZES))
    parser.add_argument(
        "--sizes",
        default=sizes,
        help=f"numbers of users; the smallest is what the others are compared with (default: {sizes})",
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of actions at each size in each round (default: 20)"
    )
    parser.add_argument("--connections", type=int, default=128, help="of the clients (default: 128)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="all sizes in turn so many times; medians count (default: 3)"
    )
    parser.add_argument("--history", type=int, default=1, help="actions that each user has already (default: 1)")
    parser.add_argument(
        "--actors",
        type=int,
        default=ACTORS,
        help=f"users that act, as many at each size; above 20,000 a server verifies tokens anew (default: {ACTORS})",
    )
    parser.add_argument(
        "--postgres",
        default="",
        help="settings of PostgreSQL to compare: NAME=VALUE,… (default: the embedded server's own)",
    )
    parser.add_argument(
        "--no-checkpoint",
        dest="checkpoint",
        action="store_false",
        help="begin no round with a checkpoint (long rounds meet PostgreSQL's own)",
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / ".data" / "bench", help="folder for scale.md (default: .data/bench)"
    )
    options = parser.parse_args(argv)
    try:
        options.sizes = sorted({int(number) for number in options.sizes.split(",")})
        options.postgres = dict(pair.split("=", 1) for pair in options.postgres.split(",") if pair)
    except ValueError:
        parser.error("--sizes takes numbers, --postgres NAME=VALUE, both with commas between them")
    if min(*options.sizes, options.rounds, options.history, options.actors, options.connections) < 1:
        parser.error("nothing here may be less than 1")
    options.actors = min(options.actors, *options.sizes)
    return options


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    figures = None
    try:
        with own_folder() as folder:
            figures = trio.run(until_stopped, partial(run, options, folder))
    except* (RuntimeError, StartError, UnequalCountError, trio.TooSlowError) as group:
        for error in group.exceptions:
            progress(f"no result: {type(error).__name__}: {error}")
    if figures is None:
        return 1
    text = summary(figures, options)
    (options.output / "scale.md").write_text(text)
    print(text)
    progress(f"written: {options.output}/scale.md")
    return 0
