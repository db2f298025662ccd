"""When a message is tried again."""

from scoreboard.domain.outgoing_messages import FIRST_WAIT_SECONDS, MAX_TRIES, MAX_WAIT_SECONDS, wait_seconds


def test_waits_double_and_are_bounded() -> None:
    """From ten seconds to an hour; all tries together take about four hours."""
    waits = [wait_seconds(tries) for tries in range(1, MAX_TRIES)]
    assert waits[:3] == [FIRST_WAIT_SECONDS, 2 * FIRST_WAIT_SECONDS, 4 * FIRST_WAIT_SECONDS]
    assert max(waits) == MAX_WAIT_SECONDS == wait_seconds(10**6)
    assert 3 * 3600 < sum(waits) < 5 * 3600


def test_a_receiver_may_ask_for_more_time_within_the_bound() -> None:
    """Its Retry-After never shortens the wait."""
    assert wait_seconds(1, 120.0) == 120.0
    assert wait_seconds(1, 0.0) == FIRST_WAIT_SECONDS
    assert wait_seconds(1, 1e9) == MAX_WAIT_SECONDS
