"""How long to wait, and for whom not to."""

import pytest

from scoreboard.client.backoff import MAX_SECONDS, Backoff, may_reconnect, seconds


def test_waits_have_full_jitter_under_a_bound_that_doubles() -> None:
    """Each wait is drawn from nothing to a bound that doubles up to the longest, and begins anew after a success."""
    bounds: list[float] = []

    def draw(low: float, high: float) -> float:
        assert low == 0.0
        bounds.append(high)
        return high / 2

    backoff = Backoff(draw)
    assert [backoff.next() for _ in range(3)] == [0.25, 0.5, 1.0]
    for _ in range(100):
        backoff.next()
    assert bounds[-1] == MAX_SECONDS
    backoff.reset()
    assert backoff.next() == 0.25


def test_the_server_is_not_asked_before_it_wants_to_be() -> None:
    """The random part is added to `Retry-After`, so that clients with the same Retry-After do not come together."""
    assert Backoff(lambda _low, high: high).next(4.0) == 4.5


@pytest.mark.parametrize(
    ("text", "expected"), [("3", 3.0), ("0", 0.0), (None, None), ("", None), ("-1", None), ("soon", None), ("²", None)]
)
def test_retry_after_is_read_in_seconds(text: str | None, expected: float | None) -> None:
    """Whole seconds, or nothing."""
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, True), (1000, True), (1006, True), (1012, True), (4413, True), (1008, False), (4401, False), (4999, True)],
)
def test_close_codes_say_whether_to_come_back(code: int | None, expected: bool) -> None:
    """The catalogue decides; a code that is not in it, or none, is an accident of the network."""
    assert may_reconnect(code) is expected
