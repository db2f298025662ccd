"""The sliding window: never more than the limit in any 60 seconds, and a correct wait."""

from hypothesis import given, settings
from hypothesis import strategies as st

from scoreboard.domain import sliding_window
from scoreboard.domain.sliding_window import SlidingWindow


def test_the_limit_holds_for_each_key_alone() -> None:
    """One key's requests are none of another's."""
    window = SlidingWindow(2)
    assert [window.admit("a", 0.0), window.admit("a", 0.9)] == [0, 0]
    assert window.admit("a", 1.0) > 0
    assert window.admit("b", 1.0) == 0


def test_zero_is_no_limit() -> None:
    """And nothing is kept."""
    window = SlidingWindow(0)
    assert all(window.admit("a", 0.0) == 0 for _ in range(2000))
    assert not window._windows


def test_what_is_given_back_was_never_taken() -> None:
    """The limit counts without it, in whatever order; what left the window by itself can't be given back a second
    time."""
    window = SlidingWindow(2)
    for moment in (0.0, 5.0):
        window.count("a", moment)
    assert window.wait("a", 6.0) == 55
    assert window.wait("a", 6.0, times=2) == 0
    window.uncount("a", 0.0)
    assert window.wait("a", 6.0) == 0
    window.count("a", 6.0)
    assert window.wait("a", 6.0) == 60
    window.uncount("a", 0.0)
    window.uncount("b", 5.0)
    assert window.wait("a", 6.0) == 60
    for moment in (5.0, 6.0):
        window.uncount("a", moment)
    assert not window._windows  # nothing is kept of tries that came to nothing


def test_memory_is_bounded_and_the_key_not_seen_for_longest_goes() -> None:
    """A flood of addresses pushes out those that are silent, not those that are at work."""
    window = SlidingWindow(1)
    window.admit("busy", 0.0)
    for number in range(sliding_window.MAX_KEYS + 10):
        window.admit(f"other {number}", 1.0)
        if number % 1000 == 0:
            assert window.admit("busy", 1.0) > 0
    assert len(window._windows) == sliding_window.MAX_KEYS
    assert window.admit("busy", 2.0) > 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.lists(st.floats(0, 30), max_size=60))
def test_no_60_seconds_hold_more_than_the_limit(limit: int, pauses: list[float]) -> None:
    """Whatever the times; and who waits as told is admitted; nobody is refused who has not used the limit in 61 s."""
    window, now, admitted = SlidingWindow(limit), 1000.0, list[float]()
    for pause in pauses:
        now += pause
        wait = window.admit("a", now)
        recent = [moment for moment in admitted if now - moment <= 60]
        if wait:
            assert sum(now - moment <= 61 for moment in admitted) >= limit
            assert 1 <= wait <= 61
            now += wait
            assert window.admit("a", now) == 0
        else:
            assert len(recent) < limit
        admitted.append(now)
