"""Wakes the readers of sockets: one epoll for all sockets, each registered once, edge-triggered.

Trio's own `wait_readable` arms a descriptor with a system call at every wait, which is a tenth of what a small request
costs. Here Trio waits for the epoll's own descriptor alone, and the task `Poller.run` calls the `ReadinessWatcher` of
each descriptor that the kernel names. `Server.run` starts that task where the system has epoll. A socket without a
watcher waits by Trio. Only reading is watched, as writing rarely waits.

When many descriptors are readable, groups of addresses take turns (`RequestHandlers.peer_group`). So a hundred
connections of one network delay the only connection of another no more than one of them would.

Two callbacks of a watcher are bare callables, because they run once an edge: `on_readable` (http.connection answers
there without a task switch, a quarter less for a small request) and `on_eof` (live, for long polls).
"""

import select
from collections import OrderedDict
from collections.abc import Callable
from time import perf_counter

import trio

# Events dispatched before other tasks run. Each may be a request that is answered at once: one to five milliseconds.
MAX_EVENTS_A_TURN = 64
# The same when several groups wait. An action passes the loop about five times, so it is late by five turns at most.
MAX_TURN_SECONDS = 0.002
UNSORTED_EVENTS = 16  # so few events are dispatched in the order in which they came
MAX_POLLED_EVENTS = 1_024  # of one epoll_wait: they are sorted in a fraction of a millisecond
HAS_EPOLL = hasattr(select, "epoll")

# RDHUP: an end of file that arrives together with data makes no edge of its own. A reset sets it too.
_EOF = select.EPOLLRDHUP if HAS_EPOLL else 0
_EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET if HAS_EPOLL else 0


class ReadinessWatcher:
    """Readiness of one descriptor. One task at a time may wait for it.

    1. `wait` returns when a read is worth trying. A reader that found less than it asked for calls `mark_drained`;
       without that call the next `wait` returns at once.
    2. If `on_readable` is set and a task waits, `on_readable` is called before that task is woken. It returns True when
       it has done everything; the task then sleeps on, unless there may be more to read.
    3. `on_eof` is called once the peer has ended the connection, whether or not a task waits.
    4. What either callback raises is raised by `wait`, in the task of the connection. The poller goes on.
    """

    __slots__ = ("_failure", "_fd", "_poller", "_ready", "_waiter", "at_eof", "group", "on_eof", "on_readable")

    def __init__(self, poller: "Poller", fd: int, group: str) -> None:
        self._poller, self._fd, self.group = poller, fd, group
        self._ready = False  # the kernel may have something that has not been read
        self.at_eof = False  # no further edge comes, so a reader must read until it finds the end
        self._failure: Exception | None = None  # what a callback raised, for the waiter
        self._waiter: trio.lowlevel.Task | None = None
        self.on_readable: Callable[[], bool] | None = None
        self.on_eof: Callable[[], None] | None = None

    async def wait(self) -> None:
        """Returns when a read is worth trying or `reschedule_waiter` was called. It always yields to other tasks.

        Cancelling loses nothing. Raises BusyResourceError when another task waits, and what a callback raised.
        """
        if self._ready:
            await trio.lowlevel.checkpoint()
        else:
            if self._waiter is not None:
                raise trio.BusyResourceError("another task is reading")
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                del failure  # it refers to this frame: a reference cycle that only the collector would find

    def mark_drained(self) -> None:
        """A read found less than it asked for, so the next byte makes a new edge."""
        self._ready = self.at_eof

    def notify_readable(self) -> None:
        """The descriptor is readable, or it has ended: calls `on_readable` or wakes the waiter."""
        self._ready = True
        if self._waiter is not None and self.on_readable is not None:
            try:
                if self.on_readable() and not self._ready:
                    return
            except Exception as exc:  # noqa: BLE001 - raised by `wait`, under the guard of the connection
                self._failure = exc
        self.reschedule_waiter()

    def reschedule_waiter(self) -> None:
        """Wakes the waiter if there is one, whether or not there is something to read."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            trio.lowlevel.reschedule(waiter)

    def notify_eof(self) -> None:
        """The peer has ended the connection, or it broke."""
        self.at_eof = True
        if self.on_eof is not None:
            try:
                self.on_eof()
            except Exception as exc:  # noqa: BLE001 - as in `notify_readable`
                self._failure = exc
        self.notify_readable()

    def close(self) -> None:
        """Called before the descriptor is closed, as its number may be reused: no event is dispatched after it, and a
        waiter is woken."""
        self._poller.unwatch(self._fd)
        self.on_readable = self.on_eof = None
        self.notify_readable()

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED


class Poller:
    """The epoll, and the task that dispatches its events."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, ReadinessWatcher] = {}
        # events that are not dispatched yet, by group; the next group first
        self._pending: OrderedDict[str, OrderedDict[ReadinessWatcher, int]] = OrderedDict()

    def watch(self, fd: int, group: str = "") -> ReadinessWatcher:
        """A watcher of the descriptor, which must be closed before the descriptor is. Watchers of one `group` share
        turns.

        Raises OSError when the system watches too many.
        """
        self._epoll.register(fd, _EDGES)
        watcher = self._watchers[fd] = ReadinessWatcher(self, fd, group)
        return watcher

    def unwatch(self, fd: int) -> None:
        """Called by `ReadinessWatcher.close`. Closing the descriptor alone is not enough: a child process that is being
        started may hold the connection a moment longer, and its events would go to the next owner of the number."""
        watcher = self._watchers.pop(fd, None)
        if watcher is not None:
            self._epoll.unregister(fd)
            if (
                (pending := self._pending.get(watcher.group)) is not None
                and pending.pop(watcher, None) is not None
                and not pending
            ):
                del self._pending[watcher.group]

    async def run(self) -> None:
        """Dispatches events for ever. Once it is cancelled no waiter is woken any more."""
        while True:
            if self._pending:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            found = self._epoll.poll(0, MAX_POLLED_EVENTS)
            if len(found) > UNSORTED_EVENTS or self._pending:
                self._enqueue(found)
                self._dispatch_round_robin()
            else:
                for fd, events in found:
                    watcher = self._watchers.get(fd)
                    if watcher is not None:  # else a callback of an earlier one has closed it
                        _dispatch(watcher, events)

    def _enqueue(self, found: list[tuple[int, int]]) -> None:
        """Sorts events by group; two edges of one watcher become one."""
        for fd, events in found:
            watcher = self._watchers[fd]
            pending = self._pending.get(watcher.group)
            if pending is None:
                pending = self._pending[watcher.group] = OrderedDict()
            pending[watcher] = pending.get(watcher, 0) | events

    def _dispatch_round_robin(self) -> None:
        """Dispatches to one watcher of a group, then to one of the next, until none is left or the turn is over."""
        pending, end = self._pending, perf_counter() + MAX_TURN_SECONDS
        for _ in range(MAX_EVENTS_A_TURN):
            if not pending:
                return
            group, watchers = next(iter(pending.items()))
            watcher, events = watchers.popitem(last=False)
            if watchers:
                pending.move_to_end(group)
            else:
                del pending[group]
            _dispatch(watcher, events)
            if len(pending) > 1 and perf_counter() > end:
                return

    def close(self) -> None:
        """Called when `run` has ended."""
        self._watchers.clear()
        self._pending.clear()
        self._epoll.close()


def _dispatch(watcher: ReadinessWatcher, events: int) -> None:
    if events & _EOF:
        watcher.notify_eof()
    else:
        watcher.notify_readable()
