"""Supervision: what a crash of a background task costs."""

import itertools

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.runtime.supervise import FIRST_RESTART_SECONDS, MAX_RESTART_SECONDS, STABLE_SECONDS, supervised
from scoreboard.telemetry.metrics import REGISTRY


def restarts(task: str) -> float:
    return REGISTRY.get_sample_value("scoreboard_task_restarts_total", {"task": task}) or 0.0


async def test_restarts_with_growing_pauses(autojump_clock: trio.testing.MockClock) -> None:
    """A crashing task is started again after 0.1 s, 0.2 s, … 5 s, and counted; after a steady run the pauses begin
    anew."""
    starts: list[float] = []

    async def crashing(*, task_status: trio.TaskStatus[str]) -> None:
        starts.append(trio.current_time())
        task_status.started("ready")
        if len(starts) == 10:
            await trio.sleep(STABLE_SECONDS + 1)
        if len(starts) == 12:
            return
        raise StorageUnavailable("redis", "gone") if len(starts) % 2 else ExceptionGroup("several", [ValueError("x")])

    async with trio.open_nursery() as nursery:
        assert (
            await nursery.start(
                lambda task_status: supervised("crashing", crashing, restart=True, task_status=task_status)
            )
            == "ready"
        )
    pauses = [round(later - earlier, 3) for earlier, later in itertools.pairwise(starts)]
    assert pauses == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        MAX_RESTART_SECONDS,
        MAX_RESTART_SECONDS,
        MAX_RESTART_SECONDS,
        STABLE_SECONDS + 1 + FIRST_RESTART_SECONDS,
        2 * FIRST_RESTART_SECONDS,
    ]
    assert restarts("crashing") == 11


async def test_without_restart_the_crash_goes_on() -> None:
    """A task that is not restarted hands its exception to the nursery."""

    async def crashing(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await supervised("once", crashing, restart=False)
    assert restarts("once") == 0


async def test_a_start_that_fails_is_not_repeated() -> None:
    """What fails before `started` fails the start."""

    async def unready(*, task_status: trio.TaskStatus[None]) -> None:
        raise StorageUnavailable("redis", "not there")

    with pytest.raises(StorageUnavailable):
        await supervised("unready", unready, restart=True)


UNAVAILABLE = StorageUnavailable("postgresql", "gone")


@pytest.mark.parametrize(
    ("raised", "level", "has_traceback"),
    [
        (UNAVAILABLE, "warning", False),
        (ExceptionGroup("of a nursery", [UNAVAILABLE, ExceptionGroup("inner", [UNAVAILABLE])]), "warning", False),
        (ExceptionGroup("of a nursery", [UNAVAILABLE, ValueError("a bug")]), "error", True),
        (ValueError("a bug"), "error", True),
    ],
)
async def test_what_is_expected_is_no_error(
    autojump_clock: trio.testing.MockClock, raised: Exception, level: str, has_traceback: bool
) -> None:
    """A store that can't be used is a warning without a traceback, alone or out of a nursery; anything else is an error
    with one."""

    async def once(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        if not lines:
            raise raised

    with capture_logs() as lines:
        await supervised("expected", once, restart=True)
    assert [(line["log_level"], line["exc_info"]) for line in lines] == [(level, has_traceback)]


@pytest.mark.parametrize("after", [0.5, 1.05, 1.5])
async def test_cancelled_passes(autojump_clock: trio.testing.MockClock, after: float) -> None:
    """Cancelling ends a supervised task while it runs, while it waits to run again, and even if its cleanup crashes."""

    async def crashing(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep(1)
        finally:
            raise ValueError("crash")  # in the middle of being cancelled, too

    with trio.move_on_after(after) as scope:
        await supervised("cancelled", crashing, restart=True)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(after)
