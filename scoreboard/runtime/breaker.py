"""A circuit breaker: after some failures in a row no call is made, and one call an interval probes the store.

`Breaker` is a pure state machine: the caller passes the time and must end every allowed call with exactly one of
`succeeded`, `failed`, `abandoned`. Synchronous, so atomic on one loop; no lock. `guard` does that for a block of code.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from time import monotonic

from scoreboard.domain.errors import StorageUnavailable, Store

# In a row. With a deadline of 250 ms a call, a dead store costs its callers 750 ms before the circuit opens.
FAILURES_TO_OPEN = 3
PROBE_INTERVAL_SECONDS = 0.5  # the longest time until a store that is back is used again (2 s are promised)


class State(StrEnum):
    CLOSED = "closed"  # calls go through
    HALF_OPEN = "half_open"  # one call is under way to find out
    OPEN = "open"  # calls are refused at once


class Breaker:
    """The state of one store, or (`store` None) of another server. `on_state_change` is called with every new state,
    for metrics and logs; it must not raise."""

    __slots__ = ("_failures", "_interval", "_limit", "_next_probe", "_on_state_change", "_state", "store")

    def __init__(
        self,
        store: Store | None,
        *,
        failures: int = FAILURES_TO_OPEN,
        interval: float = PROBE_INTERVAL_SECONDS,
        on_state_change: Callable[[State], None] = lambda _: None,
    ) -> None:
        self.store: Store | None = store
        self._limit, self._interval, self._on_state_change = failures, interval, on_state_change
        self._state, self._failures, self._next_probe = State.CLOSED, 0, 0.0

    @property
    def state(self) -> State:
        return self._state

    def allow(self, now: float) -> bool:
        """Whether a call may be made. Unless closed: one probe an interval, even if the last one has not ended."""
        if self._state is State.CLOSED:
            return True
        if now < self._next_probe:
            return False
        self._next_probe = now + self._interval
        self._set_state(State.HALF_OPEN)
        return True

    def succeeded(self, now: float) -> None:
        """The store answered. While open this has no effect: the call is older than the failures, and only a probe
        closes."""
        if self._state is not State.OPEN:
            self._failures = 0
            self._set_state(State.CLOSED)

    def failed(self, now: float) -> None:
        """The store did not answer, or not in time."""
        self._failures += 1
        if self._state is State.HALF_OPEN or (self._state is State.CLOSED and self._failures >= self._limit):
            self._next_probe = now + self._interval
            self._set_state(State.OPEN)

    def abandoned(self, now: float) -> None:
        """The call ended for another reason (cancelled, a bug of ours), which says nothing about the store. The next
        call may probe at once."""
        if self._state is State.HALF_OPEN:
            self._next_probe = now
            self._set_state(State.OPEN)

    def _set_state(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self._on_state_change(state)


@contextmanager
def guard(breaker: Breaker, clock: Callable[[], float] = monotonic) -> Iterator[None]:
    """Reports the outcome of the block to the breaker. StorageUnavailable is a failure. Any other exception, Cancelled
    too, is `abandoned`. All are raised again.

    Raises StorageUnavailable at once, without entering the block, while the breaker is open.
    """
    assert breaker.store is not None
    if not breaker.allow(clock()):
        raise StorageUnavailable(breaker.store, "circuit open after failures in a row")
    try:
        yield
    except StorageUnavailable:
        breaker.failed(clock())
        raise
    except BaseException:
        breaker.abandoned(clock())
        raise
    breaker.succeeded(clock())
