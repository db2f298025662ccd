"""The circuit breaker, without a clock: time is an argument."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.runtime.breaker import FAILURES_TO_OPEN, PROBE_INTERVAL_SECONDS, Breaker, State, guard


def opened(seen: list[State] | None = None) -> Breaker:
    breaker = Breaker("redis", on_state_change=(seen if seen is not None else []).append)
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.allow(0.0)
        breaker.failed(0.0)
    return breaker


def test_opens_after_failures_in_a_row() -> None:
    """It opens at the last of the failures in a row, and a success in between begins the count anew."""
    breaker = Breaker("redis")
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed(0.0)
    breaker.succeeded(0.0)
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed(0.0)
    assert breaker.allow(0.0)
    breaker.failed(0.0)
    assert not breaker.allow(0.0)
    assert breaker.state is State.OPEN


def test_one_probe_an_interval() -> None:
    """While a probe is under way nobody else is let through; one that never reports back holds up a single interval."""
    breaker = opened()
    assert not breaker.allow(PROBE_INTERVAL_SECONDS * 0.99)
    assert [breaker.allow(PROBE_INTERVAL_SECONDS) for _ in range(3)] == [True, False, False]
    assert breaker.state is State.HALF_OPEN
    assert [breaker.allow(PROBE_INTERVAL_SECONDS * 2) for _ in range(3)] == [True, False, False]


def test_what_a_probe_tells() -> None:
    """A probe that succeeds closes, one that fails opens for another interval, one that is abandoned lets the next call
    probe at once."""
    seen: list[State] = []
    breaker = opened(seen)
    assert breaker.allow(1.0)
    breaker.failed(1.0)
    assert not breaker.allow(1.0 + PROBE_INTERVAL_SECONDS * 0.99)
    assert breaker.allow(2.0)
    breaker.abandoned(2.0)
    assert breaker.allow(2.0)
    breaker.succeeded(2.0)
    assert breaker.allow(2.0)
    assert breaker.allow(2.0)
    assert seen == [State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_late_success_does_not_close() -> None:
    """The answer to a call from before the failures says nothing of now."""
    breaker = opened()
    breaker.succeeded(0.1)
    assert breaker.state is State.OPEN


@given(st.lists(st.tuples(st.sampled_from(["allow", "succeeded", "failed", "abandoned"]), st.floats(0, 0.4))))
def test_never_more_than_one_probe_an_interval(steps: list[tuple[str, float]]) -> None:
    """Whatever happens, two probes lie an interval apart (unless one was abandoned), and one is always let through in
    the end."""
    breaker, now, probed = Breaker("redis"), 0.0, float("-inf")
    for step, pause in steps:
        now += pause
        if step != "allow":
            getattr(breaker, step)(now)
            if step == "abandoned":
                probed = float("-inf")
        elif breaker.state is not State.CLOSED and breaker.allow(now):
            assert now >= probed + PROBE_INTERVAL_SECONDS
            probed = now
    assert breaker.allow(now + PROBE_INTERVAL_SECONDS)


async def test_guard_tells_failures_from_the_rest() -> None:
    """StorageUnavailable is a failure; a bug and a cancellation are not; an open breaker refuses without entering the
    block."""
    breaker = Breaker("redis", failures=1)
    with pytest.raises(ZeroDivisionError), guard(breaker, lambda: 0.0):
        _ = 1 / 0
    with trio.move_on_after(0), guard(breaker, lambda: 0.0):
        await trio.sleep_forever()
    assert breaker.state is State.CLOSED
    with pytest.raises(StorageUnavailable, match="gone"), guard(breaker, lambda: 0.0):
        raise StorageUnavailable("redis", "gone")
    entered = False
    with pytest.raises(StorageUnavailable, match="circuit open"), guard(breaker, lambda: 0.1):
        entered = True
    assert not entered
    with guard(breaker, lambda: PROBE_INTERVAL_SECONDS):
        pass
    assert breaker.state is State.CLOSED
