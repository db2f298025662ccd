"""Restarts background tasks that crash, or lets the crash end the process.

`app` starts every task that runs for ever through `supervised`. Nothing else catches what such a task raises.

Log events: `task_restarted`, `task_failed`.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog
import trio

from scoreboard.domain.errors import StartError, StorageUnavailable
from scoreboard.telemetry.metrics import TASK_RESTARTS

FIRST_RESTART_SECONDS = 0.1  # pause before the first restart; it doubles with each crash
MAX_RESTART_SECONDS = 5.0  # the longest pause: a task that always crashes then costs little
STABLE_SECONDS = 30.0  # a task that ran so long starts again with the first pause

log = structlog.get_logger("supervise")


class _StartedOnce:
    """Passes on the first `started` only: Trio allows one, and a restart calls it again."""

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
    """Runs `function(*args, task_status=…)`, passes its `started` on, and returns when it returns.

    1. With `restart`, the function is called again after a pause when it raises. The exception is logged and counted;
       one of a store that cannot be used is a warning without a traceback.
    2. Without `restart`, or before it has called `started`, the exception is logged and raised. That ends the process.
    3. A StartError is raised without a log line: the command line prints it.
    4. Cancelled is raised, and so is a group that holds one.
    """
    status, pause = _StartedOnce(task_status), FIRST_RESTART_SECONDS
    while True:
        began = trio.current_time()
        try:
            await function(*args, task_status=status)
            return
        except Exception as exc:  # a group that holds a Cancelled is no Exception, and is raised
            known = _consists_of(exc, StorageUnavailable)
            if _consists_of(exc, StartError):
                raise
            if not restart or not status.called:
                log.critical("task_failed", task=name, error=str(exc), exc_info=not known)
                raise
            if trio.current_time() - began >= STABLE_SECONDS:
                pause = FIRST_RESTART_SECONDS
            TASK_RESTARTS.labels(name).inc()
            log_crash = log.warning if known else log.error
            log_crash("task_restarted", task=name, pause=pause, error=str(exc), exc_info=not known)
        await trio.sleep(pause)
        pause = min(2 * pause, MAX_RESTART_SECONDS)


def flatten_exceptions(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, at any depth. For an exception that is no group, the exception itself."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from flatten_exceptions(inner)
    else:
        yield exc


def _consists_of(exc: Exception, kind: type[Exception]) -> bool:
    """Whether all exceptions in it are of that kind."""
    return all(isinstance(leaf, kind) for leaf in flatten_exceptions(exc))
