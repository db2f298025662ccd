"""PostgreSQL's time on a node: measured, and steady."""

from scoreboard.drivers.clock import MAX_ROUND_TRIP_SECONDS, DatabaseClock, steady_clock


def test_a_clock_that_is_set_changes_nothing() -> None:
    """The clock continues evenly when the node's own clock is set."""
    walls, ticks = [1000.0, 5000.0], iter([10.0, 13.0])
    clock = steady_clock(lambda: walls.pop(0), lambda: next(ticks))
    assert clock() == 1003.0


def test_a_quick_answer_is_taken_from_the_middle() -> None:
    """The offset is half the round trip's uncertainty exact."""
    clock = DatabaseClock(lambda: 100.0)
    clock.measure(100.0, 107.1, 100.2)
    assert round(clock.now(), 6) == 107.0
    assert clock.node_now() == 100.0


def test_a_slow_answer_moves_the_offset_only_as_far_as_it_proves() -> None:
    """A slow answer changes the offset only when the offset is outside of the bounds that the answer proves."""
    clock = DatabaseClock(lambda: 0.0)
    clock.measure(0.0, 5.05, 0.1)
    slow = 4 * MAX_ROUND_TRIP_SECONDS
    clock.measure(0.0, 5.5, slow)  # the offset is between 3.5 and 5.5
    assert clock.offset == 5.0
    clock.measure(0.0, 4.5, slow)  # it is between 2.5 and 4.5
    assert clock.offset == 4.5


def test_a_first_answer_counts_however_slow() -> None:
    """Nothing better is known."""
    clock = DatabaseClock(lambda: 0.0)
    clock.measure(0.0, 10.0, 2.0)
    assert clock.offset == 9.0


def test_a_node_clock_that_was_set_back_meanwhile_measures_nothing() -> None:
    """The answer would be before the question."""
    clock = DatabaseClock(lambda: 0.0)
    clock.measure(10.0, 50.0, 9.0)
    assert clock.offset == 0.0
