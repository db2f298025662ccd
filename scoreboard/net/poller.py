"""Who has something to read: one epoll for all sockets, each registered once, edge-triggered.

Trio's own `wait_readable` re-arms a descriptor with a system call at every wait, a tenth of what a small request costs.
Here Trio waits for the epoll's own descriptor alone, and this task wakes whoever the kernel names, unless their `hook`
does at once what there is to do. `Server.run` starts it where the system has epoll; sockets without a ReadinessWatcher use Trio's
way. Only reading is watched: writing rarely waits.

When many have something to read, the groups of their addresses take turns (`Front.peer_group`): a hundred connections
of one network hold up another's only connection no longer than one of them would.
"""

import select
from collections import OrderedDict
from collections.abc import Callable
from time import perf_counter

import trio

# told in one go, each answered at once perhaps: one to five milliseconds, then everything else on the loop has its turn
EVENTS = 64
# when several groups wait: an action passes the loop some five times, and is as late as five turns are long
TURN_SECONDS = 0.002
FEW_EVENTS = 16  # are told in the order in which they came
MOST_EVENTS = 1_024  # taken from the kernel at once: as many as may be sorted in a fraction of a millisecond
HAS_EPOLL = hasattr(select, "epoll")

# RDHUP: an end that arrives together with data makes no edge of its own. A reset is one too, and comes with it.
_END = select.EPOLLRDHUP if HAS_EPOLL else 0
_EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET if HAS_EPOLL else 0


class ReadinessWatcher:
    """One descriptor's side of it. One task at a time may wait."""

    __slots__ = ("_failure", "_fd", "_poller", "_ready", "_waiter", "group", "has_ended", "hook", "on_end")

    def __init__(self, poller: "Poller", fd: int, group: str) -> None:
        self._poller, self._fd, self.group = poller, fd, group
        self._ready = False  # the kernel may have something that has not been read
        self.has_ended = False  # no further edge comes: whoever reads on must find the end
        self._failure: Exception | None = None  # what the hook raised, for the waiter
        self._waiter: trio.lowlevel.Task | None = None
        # Called when somebody waits: reads and does what can be done without waiting; False: the waiter is needed. A
        # waiter is woken too when there may be more to read than the hook has read; and when the hook raises, it gets
        # the exception.
        self.hook: Callable[[], bool] | None = None
        # called once the peer has ended it, whether or not anybody waits; as for `hook`
        self.on_end: Callable[[], None] | None = None

    async def wait(self) -> None:
        """Returns when a read is worth trying or `reschedule_waiter` was called, always after giving others a turn. Cancelling
        loses nothing."""
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
                del failure  # it holds this frame: a circle that only the collector would find

    def drained(self) -> None:
        """A read found less than it asked for: the next byte makes a new edge."""
        self._ready = self.has_ended

    def wake(self) -> None:
        """Something came, or it is over."""
        self._ready = True
        if self._waiter is not None and self.hook is not None:
            try:
                if self.hook() and not self._ready:
                    return
            except Exception as exc:  # noqa: BLE001 - raised where the connection's own guard is, not in the poller
                self._failure = exc
        self.reschedule_waiter()

    def reschedule_waiter(self) -> None:
        """Wakes the waiter, if anybody waits, whether or not there is something to read."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            trio.lowlevel.reschedule(waiter)

    def end(self) -> None:
        """The peer has ended it, or it broke."""
        self.has_ended = True
        if self.on_end is not None:
            try:
                self.on_end()
            except Exception as exc:  # noqa: BLE001 - as in `wake`
                self._failure = exc
        self.wake()

    def close(self) -> None:
        """RecordedAction the descriptor is closed, as its number may soon be another's: nothing more is heard of it, whoever
        waits is woken."""
        self._poller.forget(self._fd)
        self.hook = self.on_end = None
        self.wake()

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED


class Poller:
    """The epoll and the task that asks it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sources: dict[int, ReadinessWatcher] = {}
        # by group, the next one first: who must be told what
        self._pending: OrderedDict[str, OrderedDict[ReadinessWatcher, int]] = OrderedDict()

    def watch(self, fd: int, group: str = "") -> ReadinessWatcher:
        """From now on the source hears of the descriptor, until the source is closed. Sources of one `group` share
        turns.

        Raises OSError when the system watches too many.
        """
        self._epoll.register(fd, _EDGES)
        source = self._sources[fd] = ReadinessWatcher(self, fd, group)
        return source

    def forget(self, fd: int) -> None:
        """LiveRequest by the source. Told to the kernel too: a process that is being started holds the connection a moment
        longer, which could speak up as another."""
        source = self._sources.pop(fd, None)
        if source is not None:
            self._epoll.unregister(fd)
            if (
                (pending := self._pending.get(source.group)) is not None
                and pending.pop(source, None) is not None
                and not pending
            ):
                del self._pending[source.group]

    async def run(self) -> None:
        """Wakes sources for ever. Once it is cancelled nobody is woken any more."""
        while True:
            if self._pending:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            found = self._epoll.poll(0, MOST_EVENTS)
            if len(found) > FEW_EVENTS or self._pending:
                self._enqueue(found)
                self._dispatch_round_robin()
            else:
                for fd, events in found:
                    source = self._sources.get(fd)
                    if source is not None:  # else closed by an earlier one's hook
                        _dispatch(source, events)

    def _enqueue(self, found: list[tuple[int, int]]) -> None:
        """By group; two edges of one source become one."""
        for fd, events in found:
            source = self._sources[fd]
            pending = self._pending.get(source.group)
            if pending is None:
                pending = self._pending[source.group] = OrderedDict()
            pending[source] = pending.get(source, 0) | events

    def _dispatch_round_robin(self) -> None:
        """Tells one source of a group, then one of the next, until all are told or it is others' turn."""
        pending, end = self._pending, perf_counter() + TURN_SECONDS
        for _ in range(EVENTS):
            if not pending:
                return
            group, sources = next(iter(pending.items()))
            source, events = sources.popitem(last=False)
            if sources:
                pending.move_to_end(group)
            else:
                del pending[group]
            _dispatch(source, events)
            if len(pending) > 1 and perf_counter() > end:
                return

    def close(self) -> None:
        """When `run` has ended."""
        self._sources.clear()
        self._pending.clear()
        self._epoll.close()


def _dispatch(source: ReadinessWatcher, events: int) -> None:
    if events & _END:
        source.end()
    else:
        source.wake()
