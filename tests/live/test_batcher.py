"""Frames: at once on a quiet board, at most one a tick, only when something is due, fewer under overload."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.boards import Snapshot
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.live.batcher import (
    MAX_LATENESS,
    OVERLOAD_STRETCH,
    TICK_SECONDS,
    Batcher,
    next_frame,
    next_tick,
    tick_interval,
)
from scoreboard.live.hub import Hub
from tests.live.boards import BOARD, OTHER, snapshot
from tests.live.messages import names
from tests.live.viewers import FakeViewer


class FakeBoard:
    """A board whose content and dueness a test sets; counts its reads."""

    def __init__(self) -> None:
        self.content, self.due, self.reads, self.fails = snapshot("", 0), True, 0, False
        self.reading: Callable[[], None] = lambda: None

    def is_due(self, shown: Snapshot | None) -> bool:
        return self.due

    def oldest_change_at(self, shown: Snapshot) -> float | None:
        return None

    async def read(self) -> Snapshot:
        self.reads += 1
        self.reading()
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise StorageUnavailable("redis", "away")
        return self.content


@pytest.fixture
def hub() -> Hub:
    return Hub((BOARD,))


@pytest.fixture
def board() -> FakeBoard:
    return FakeBoard()


@pytest.fixture
async def batcher(hub: Hub, board: FakeBoard, nursery: trio.Nursery) -> Batcher:
    made = Batcher({BOARD.id: board}, hub)  # type: ignore[dict-item]
    await nursery.start(made.run)
    return made


async def test_many_changes_in_a_tick_are_one_frame(
    hub: Hub, board: FakeBoard, batcher: Batcher, autojump_clock: trio.testing.MockClock
) -> None:
    """However often a board changes, its viewers get at most ten frames a second, the newest each time."""
    viewer = FakeViewer(hub)
    for top in range(1, 200):
        board.content = snapshot("ab" if top % 2 else "ba", top)
        await trio.sleep(0.005)
    await trio.sleep(0.1)
    assert len(viewer.events) <= 11
    assert viewer.events[-1]["data"]["position"] == "1-199"


async def test_boards_that_nobody_watches_or_that_are_not_due_are_not_read(
    hub: Hub, board: FakeBoard, batcher: Batcher, autojump_clock: trio.testing.MockClock
) -> None:
    """No viewer, no read; nothing due, no read."""
    await trio.sleep(1)
    assert board.reads == 0
    FakeViewer(hub)
    board.due = False
    await trio.sleep(1)
    assert board.reads == 0
    board.due = True
    await trio.sleep(1)
    assert 9 <= board.reads <= 11


async def frame_times(viewer: FakeViewer, board: FakeBoard, batcher: Batcher, moments: list[float]) -> list[float]:
    """The board changes at these moments, and is no longer due once it was read. When its viewer had a frame, in
    seconds from now."""
    begun, seen = trio.current_time(), list[float]()
    board.reading = lambda: setattr(board, "due", False)
    for top, moment in enumerate(moments, 1):
        while (now := trio.current_time() - begun) < moment:
            await trio.sleep(min(0.005, moment - now))
            seen += [trio.current_time() - begun] * (len(viewer.events) - len(seen))
        board.content, board.due = snapshot("ab" if top % 2 else "ba", top), True
        batcher.notify(BOARD)
    while trio.current_time() - begun < moments[-1] + 0.5:
        await trio.sleep(0.005)
        seen += [trio.current_time() - begun] * (len(viewer.events) - len(seen))
    return seen


@pytest.mark.parametrize("phase", [0.0, 0.013, 0.05, 0.099])
async def test_a_quiet_boards_change_is_sent_at_once(
    hub: Hub, board: FakeBoard, batcher: Batcher, phase: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Wherever it falls between two ticks; the next one waits until a tick has passed, and then no longer."""
    board.due = False
    viewer = FakeViewer(hub)
    await trio.sleep(1 + phase)
    first, second, third = await frame_times(viewer, board, batcher, [0.0, 0.03, 0.3])
    assert first < 0.01
    assert TICK_SECONDS - 1e-6 <= second - first < TICK_SECONDS + 0.01
    assert third == pytest.approx(0.3, abs=0.01)


async def test_a_busy_board_has_a_frame_a_tick(
    hub: Hub, board: FakeBoard, batcher: Batcher, autojump_clock: trio.testing.MockClock
) -> None:
    """Changes every 7 ms, each notified at once, make ten frames a second at even distances, and the last change is
    shown."""
    board.due = False
    viewer = FakeViewer(hub)
    seen = await frame_times(viewer, board, batcher, [number * 0.007 for number in range(300)])
    assert 21 <= len(seen) <= 23
    assert all(later - sooner >= TICK_SECONDS * (1 - MAX_LATENESS) - 0.006 for sooner, later in pairwise(seen))
    assert viewer.events[-1]["data"]["position"] == "1-300"


async def test_notified_while_nobody_watches(
    hub: Hub, board: FakeBoard, batcher: Batcher, autojump_clock: trio.testing.MockClock
) -> None:
    """Such a board is not read, and the first change after a viewer has subscribed is sent at once."""
    board.due = False
    for _ in range(3):
        batcher.notify(BOARD)
        await trio.sleep(0.25)
    assert board.reads == 0
    batcher.notify(BOARD)
    await trio.sleep(0.01)
    viewer = FakeViewer(hub)
    assert (await frame_times(viewer, board, batcher, [0.02]))[0] < 0.03


async def test_notified_of_a_board_that_cannot_be_read(
    hub: Hub, board: FakeBoard, batcher: Batcher, autojump_clock: trio.testing.MockClock
) -> None:
    """It is read again at each tick, and not more often."""
    viewer = FakeViewer(hub)
    await trio.sleep(0.25)
    board.fails, board.reads = True, 0
    batcher.notify(BOARD)
    await trio.sleep(1)
    assert 10 <= board.reads <= 12
    board.fails = False
    board.content = snapshot("a", 1)
    await trio.sleep(0.11)
    assert names(viewer.events[-1]) == "a"


async def test_an_unreadable_board_is_tried_again(
    hub: Hub, board: FakeBoard, batcher: Batcher, autojump_clock: trio.testing.MockClock
) -> None:
    """After a failed read the next tick reads again."""
    viewer = FakeViewer(hub)
    board.fails = True
    await trio.sleep(0.5)
    assert viewer.events == []
    board.fails, board.content = False, snapshot("a", 1)
    await trio.sleep(0.15)
    assert [names(event) for event in viewer.events] == ["a"]


async def test_refresh_publishes_at_once(
    hub: Hub, board: FakeBoard, batcher: Batcher, autojump_clock: trio.testing.MockClock
) -> None:
    """A first viewer need not wait for the tick; two at once do not get it twice."""
    viewer = FakeViewer(hub)
    board.content = snapshot("a", 1)
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batcher.refresh, BOARD)
        nursery.start_soon(batcher.refresh, BOARD)
    assert trio.current_time() == before
    assert [names(event) for event in viewer.events] == ["a"]


async def test_refresh_raises_when_no_store_answers(board: FakeBoard, batcher: Batcher) -> None:
    """The caller learns that no store gives the board."""
    board.fails = True
    with pytest.raises(StorageUnavailable):
        await batcher.refresh(BOARD)


async def test_each_board_has_its_own_ticks(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """A busy board does not delay a quiet one, whose change is sent at once; viewers get only their own boards."""
    hub, busy, quiet = Hub((BOARD, OTHER)), FakeBoard(), FakeBoard()
    batcher = Batcher({BOARD.id: busy, OTHER.id: quiet}, hub)  # type: ignore[dict-item]
    await nursery.start(batcher.run)
    of_busy, of_quiet = FakeViewer(hub), FakeViewer(hub, subscribed=False)
    hub.subscribe(of_quiet, OTHER)
    busy.due = quiet.due = False
    await trio.sleep(1)
    for top in range(1, 4):
        busy.content, busy.due = snapshot("ab" if top % 2 else "ba", top), True
        batcher.notify(BOARD)
        await trio.sleep(0.01)
    assert len(of_busy.events) == 1
    assert quiet.reads == 0
    quiet.content, quiet.due = snapshot("xy", 1, board=OTHER), True
    batcher.notify(OTHER)
    await trio.sleep(0.01)
    assert [names(event) for event in of_quiet.events] == ["xy"]
    await trio.sleep(TICK_SECONDS)
    assert [names(event) for event in of_busy.events] == ["ab", "ab"]


async def test_a_board_that_cannot_be_read_holds_up_no_other(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Its viewers keep what they have."""
    hub, good, bad = Hub((BOARD, OTHER)), FakeBoard(), FakeBoard()
    await nursery.start(Batcher({BOARD.id: good, OTHER.id: bad}, hub).run)  # type: ignore[dict-item]
    viewer = FakeViewer(hub)
    hub.subscribe(viewer, OTHER)
    bad.fails, good.content = True, snapshot("ab", 1)
    await trio.sleep(0.25)
    assert [names(event) for event in viewer.events] == ["ab"]
    bad.fails, bad.content = False, snapshot("xy", 1, board=OTHER)
    await trio.sleep(0.25)
    assert [names(event) for event in viewer.events] == ["ab", "xy"]


times = st.floats(0, 1e6, allow_nan=False)


@given(times, times, st.floats(0.01, 10))
def test_ticks_lie_on_the_grid_and_not_in_the_past(last: float, passed: float, every: float) -> None:
    """The next tick is a whole number of intervals after the last one, and the first that is not in the past."""
    now = last + passed
    due = next_tick(now, last, every)
    steps = (due - last) / every
    assert abs(steps - round(steps)) < 1e-3
    assert due >= now - 1e-6 * max(1, now)
    assert due <= now + every * 1.001 + 1e-6 * max(1, now)
    assert due > last or every < 1e-9 * last


@given(times, st.floats(0, 1), st.floats(0.01, 10))
def test_frames_are_a_tick_apart(now: float, late: float, every: float) -> None:
    """The frame after a late one is on time, so the two are a little closer; over any length of time there is at most
    one a tick."""
    due = now - late * every
    following = next_frame(now, due, every)
    assert following >= due + every - 1e-6
    assert following - now >= every * (1 - MAX_LATENESS) - 1e-6


def test_an_overlong_fan_out_stretches_the_interval() -> None:
    """Below a tick nothing changes; above it, a part of the time is left to other tasks."""
    assert tick_interval(0.1, 0.05) == 0.1
    assert tick_interval(0.1, 0.4) == pytest.approx(0.4 * OVERLOAD_STRETCH)
