"""The fan-out's further figures, all of this server's: a quiet board, slow readers, everybody back at once, deltas on
the demo's load.

Each part starts a server of its own and returns what it found as expectations with their bounds.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from tests.bench import fanout_lag, fanout_servers, servers
from tests.bench.fanout_crowd import Crowd, crowd
from tests.bench.fanout_driver import Drive, driving
from tests.bench.fanout_lag import Lags
from tests.bench.fanout_report import LAG_MS
from tests.bench.fanout_servers import LIVE, OURS, Served
from tests.bench.report import Expectation
from tests.bench.servers import ServerPlace

WARM_UP = 2.0  # seconds of boards that do not count
# actions a second: five ticks between two changes; so many lags at least
QUIET_RATE, QUIET_VIEWERS, QUIET_SECONDS = 2.0, 100, 20.0
QUIET_LAG_MS = 15.0  # median
TURNS = 3  # without slow readers and with them: the machine's speed changes, and a p99 is one board's in a hundred
# readers of a byte a second, of so many in all; bytes of their SO_RCVBUF
SLOW, AMONG, RECEIVE_BUFFER = 50, 1_000, 4_096
CLOSED = "scoreboard_slow_readers_closed_total"
CLOSED_WITHIN, LOOK = 15.0, 1.0  # seconds until the slow ones must be gone, and between two looks
RATIO, GROWTH_MB = 1.2, 50.0  # the others' p99 with slow readers over that without; memory
RETURNING, BACK_WITHIN = 5_000, 6.0  # viewers, seconds
DEMO_OPENING = 5.0  # seconds in which every demo player acts at once, on a fresh board
# the demo moves the board once or twice a second; a delta's bytes of a whole board's
DELTA_SECONDS, DELTA_SHARE = 30.0, 0.2
LAST_ANSWERS = 1.0  # seconds for the answers of the last actions


class Place(msgspec.Struct, frozen=True):
    """Where a part is to run, and for how many seconds a figure is taken."""

    folder: Path
    site: Callable[[str], Awaitable[ServerPlace]]  # for a server of this name: a port, empty stores
    seconds: float


class Part(msgspec.Struct, frozen=True):
    text: str
    measure: Callable[[Place], Awaitable[list[Expectation]]]


@asynccontextmanager
async def ours(place: Place) -> AsyncIterator[Served]:
    site = await place.site(OURS.name)
    async with fanout_servers.started(OURS, site, 0) as served:
        yield served


# ---- a quiet board ---------------------------------------------------------------------------------------------------


async def quiet_board(place: Place) -> list[Expectation]:
    async with (
        ours(place) as served,
        crowd(served.site.port) as viewers,
        driving(served.site.port, served.actors, QUIET_RATE) as drive,
    ):
        await OURS.open(viewers, QUIET_VIEWERS)
        await trio.sleep(WARM_UP)
        await viewers.begin()
        await trio.sleep(max(QUIET_SECONDS, place.seconds))
        found = await lags_of(viewers, drive)
    text = f"{QUIET_RATE:g} actions a second, {QUIET_VIEWERS} viewers: lag, commit → viewer"
    return [
        Expectation(f"{text}, p50", QUIET_LAG_MS, found.percentile(0.5), "ms", most=True),
        Expectation(f"{text}, p99", LAG_MS, found.percentile(0.99), "ms", most=True),
    ]


# ---- slow readers ----------------------------------------------------------------------------------------------------


async def watch(served: Served, seconds: float) -> tuple[float, float, float]:
    """Looks on for so long: slow readers closed, seconds until the last of them was, the most memory seen (MB)."""
    begun, at, memory = trio.current_time(), 0.0, 0.0
    before = closed = await served.metric(CLOSED)
    while trio.current_time() - begun < seconds:
        await trio.sleep(LOOK)
        now = await served.metric(CLOSED)
        if now > closed:
            closed, at = now, trio.current_time() - begun
        memory = max(memory, served.memory_kib() / 1000)
    return closed - before, at, memory


async def lags_of(viewers: Crowd, drive: Drive) -> Lags:
    reports = await viewers.end()
    await trio.sleep(LAST_ANSWERS)
    if gone := sum(each.gone for each in reports):
        raise RuntimeError(f"{gone} viewers that read were closed")
    return fanout_lag.merged([fanout_lag.lags(each.shown, each.rows, drive.commits) for each in reports])


async def slow_readers(place: Place) -> list[Expectation]:
    without, beside = list[Lags](), list[Lags]()
    closed, at, grown = float(SLOW), 0.0, 0.0
    async with ours(place) as served, crowd(served.site.port) as others, fanout_servers.sending(served) as drive:
        await OURS.open(others, AMONG - SLOW)
        await trio.sleep(WARM_UP)
        for _ in range(TURNS):
            await others.begin()
            _, _, before = await watch(served, CLOSED_WITHIN)
            without.append(await lags_of(others, drive))
            async with crowd(served.site.port) as slow:
                await others.begin()
                await slow.open(SLOW, path=LIVE, mode="full", receive_buffer=RECEIVE_BUFFER, trickle=True)
                now_closed, last, memory = await watch(served, CLOSED_WITHIN)
                beside.append(await lags_of(others, drive))
            closed, at, grown = min(closed, now_closed), max(at, last), max(grown, memory - before)
    p99, p99_without = fanout_lag.merged(beside).percentile(0.99), fanout_lag.merged(without).percentile(0.99)
    text = f"{SLOW} readers of 1 byte/s among {AMONG:,}"
    return [
        Expectation(f"{text}: the others' p99 lag over that without them", RATIO, p99 / max(p99_without, 1), most=True),
        Expectation(f"{text}: the others' p99 lag", LAG_MS, p99, "ms", most=True),
        Expectation(f"{text}: closed and counted as 4413 within {CLOSED_WITHIN:.0f} s", SLOW, closed, "readers"),
        Expectation(f"{text}: seconds until the last was closed", CLOSED_WITHIN, at, "s", most=True),
        Expectation(f"{text}: memory more than before", GROWTH_MB, grown, "MB", most=True),
    ]


# ---- everybody back at once ------------------------------------------------------------------------------------------


async def reconnect(place: Place) -> list[Expectation]:
    async with ours(place) as served, crowd(served.site.port, RETURNING) as viewers, fanout_servers.sending(served):
        await OURS.open(viewers, RETURNING)
        await trio.sleep(WARM_UP)
        seconds = await viewers.again()
    return [
        Expectation(f"{RETURNING:,} viewers reconnect at once: all served again", BACK_WITHIN, seconds, "s", most=True)
    ]


# ---- deltas ----------------------------------------------------------------------------------------------------------


async def bytes_a_board(viewers: Crowd) -> float:
    (report,) = await viewers.end()
    if not (came := fanout_lag.deliveries(report.rows)):
        raise RuntimeError("no board came: the demo players did nothing")
    return report.bytes / came


async def deltas(place: Place) -> list[Expectation]:
    """On the demo's own load: `serve --demo`, on the stores that this run has started."""
    site = await place.site(OURS.name)  # empties the board; the demo has a database of its own
    arguments = [
        sys.executable,
        "-m",
        "scoreboard",
        "serve",
        "--demo",
        "--embedded",
        "--data-dir",
        str(place.folder / "stores"),
    ]
    environ = {"SCOREBOARD_SERVER__HOST": "127.0.0.1", "SCOREBOARD_SERVER__PORT": str(site.port)}
    async with servers.child("the demo", arguments, environ, site), crowd(site.port) as full, crowd(site.port) as delta:
        await full.open(1, path=LIVE, mode="full")
        await delta.open(1, path=LIVE, mode="delta")
        await trio.sleep(DEMO_OPENING)
        await full.begin()
        await delta.begin()
        await trio.sleep(max(DELTA_SECONDS, place.seconds))
        share = await bytes_a_board(delta) / await bytes_a_board(full)
    return [Expectation("bytes a tick in delta mode over full mode's, the demo's load", DELTA_SHARE, share, most=True)]


PARTS = {
    "quiet": Part("lag on a quiet board", quiet_board),
    "slow": Part(f"{SLOW} slow readers among {AMONG:,}", slow_readers),
    "reconnect": Part(f"{RETURNING:,} viewers back at once", reconnect),
    "delta": Part("bytes of deltas", deltas),
}
