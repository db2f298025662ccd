"""What every benchmark's run needs: progress on stderr, a folder of its own, and an end, with every child, when it is
asked to stop."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import trio

ROOT = Path(__file__).parents[2]

T = TypeVar("T")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def own_folder() -> Iterator[Path]:
    """Beside the ordinary data, not in a folder of the system's that may be memory: a commit must reach a disk. Removed
    at the end."""
    (ROOT / ".data").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / ".data"))
    folder.chmod(0o755)  # PostgreSQL may run as another account
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def until_stopped(work: Callable[[], Awaitable[T]]) -> T | None:
    """What `work` returns; None when SIGINT or SIGTERM ended it, and with it every child."""
    result = None
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    progress("stopping")
                    nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        result = await work()
        nursery.cancel_scope.cancel()
    return result
