"""Work that takes a whole core runs beside the event loop, below its priority."""

import os
import sys
import threading

import pytest
import trio

from scoreboard.runtime.background_threads import NICENESS, BackgroundThreads


def priority() -> tuple[int, int]:
    """Of this thread, and of one that it starts, as argon2 does."""
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    found: list[int] = []
    child = threading.Thread(target=lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    child.start()
    child.join()
    return own, found[0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has its process' priority")
async def test_threads_have_a_lower_priority_than_the_loop() -> None:
    before, others = priority(), [await trio.to_thread.run_sync(priority) for _ in range(3)]
    threads = BackgroundThreads(1)
    lower = min(before[0] + NICENESS, 19)
    assert await threads.run(priority) == (lower, lower)
    assert priority() == before
    assert [await trio.to_thread.run_sync(priority) for _ in range(3)] == others  # Trio's own threads are as they were


async def test_no_more_at_once_than_were_asked_for() -> None:
    threads, running, most, lock = BackgroundThreads(2), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(threads.run, work)
    assert (running, most) == (0, 2)


async def test_what_the_function_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await BackgroundThreads(1).run(divmod, 1, 0)
