"""What a crash of a background task costs: the task is started again, or the process ends. One of the two, on purpose,
and said in the log.

`app` starts every task that runs for ever through `supervised`; nothing else catches what such a task raises.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog
import trio

from scoreboard.domain.errors import StartError, StorageUnavailable
from scoreboard.telemetry.metrics import TASK_RESTARTS

FIRST_PAUSE = 0.1  # seconds before the first restart; doubles with each crash
LONGEST_PAUSE = 5.0  # seconds; a task that always crashes costs next to nothing
STEADY = 30.0  # seconds; a task that ran this long begins again at the first pause

log = structlog.get_logger("supervise")


class _StartedOnce:
    """Passes on the first `started`; later ones come from restarts that nobody waits for."""

    def __init__(self, status: trio.TaskStatus[Any]) -> None:
        self._status = status
        self.called = False

    def started(self, value: Any = None) -> None:
        if not self.called:
            self.called = True
            self._status.started(value)


async def supervised(
    name: str,
    function: Callable[..., Awaitable[None]],
    *args: Any,
    restart: bool,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs `function(*args, task_status=…)`; returns when it returns, passes its `started` on, and lets Cancelled
    through.

    What it raises is logged and counted; a store that can't be used is a warning without a traceback, and a start that
    can't go on no line: the command line has one for it. With `restart` it runs again after a pause; without, before it
    ever called `started`, and after a StartError, the exception goes on to the nursery, which ends the process: a start
    that fails should be seen at the start.
    """
    status, pause = _StartedOnce(task_status), FIRST_PAUSE
    while True:
        began = trio.current_time()
        try:
            await function(*args, task_status=status)
            return
        except Exception as exc:  # a group that holds a Cancelled is no Exception, so it passes
            known = _consists_of(exc, StorageUnavailable)
            if _consists_of(exc, StartError):
                raise
            if not restart or not status.called:
                log.critical("task failed", task=name, error=str(exc), exc_info=not known)
                raise
            if trio.current_time() - began >= STEADY:
                pause = FIRST_PAUSE
            TASK_RESTARTS.labels(name).inc()
            tell = log.warning if known else log.error
            tell("task restarts", task=name, pause=pause, error=str(exc), exc_info=not known)
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions that a group holds, at any depth, as nurseries make them; of one that is no group: itself."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc


def _consists_of(exc: Exception, kind: type[Exception]) -> bool:
    """Whether that is what went wrong, and nothing else."""
    return all(isinstance(leaf, kind) for leaf in leaves(exc))
