"""The server's time, from the `Date` of its answers."""

import pytest

from scoreboard.client.clock import TOLERANCE_SECONDS, ServerClock

MACHINE = 1_768_041_000.0  # 2026-01-10 10:30:00 UTC


@pytest.mark.parametrize(
    ("date", "offset"),
    [
        ("Sat, 10 Jan 2026 10:40:00 GMT", 600.5),
        ("Sat, 10 Jan 2026 09:30:00 GMT", -3599.5),
        ("Sat, 10 Jan 2026 10:30:03 GMT", 0.0),
        (None, 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("Sat, 99 Jan 2026 10:40:00 GMT", 0.0),
        ("Sat, 10 Jan 99999 10:40:00 GMT", 0.0),
    ],
)
def test_a_date_corrects_the_machine(date: str | None, offset: float) -> None:
    """By the difference, unless that is within what a `Date` can't tell; what is no date changes nothing."""
    clock = ServerClock(lambda: MACHINE)
    clock.measure(date)
    assert clock.offset == offset
    assert clock.now() == MACHINE + offset


def test_a_machine_that_is_set_right_is_believed_again() -> None:
    """Each answer is measured, so the correction ends with the error."""
    times = [MACHINE - 600, MACHINE, MACHINE]
    clock = ServerClock(lambda: times.pop(0))
    clock.measure("Sat, 10 Jan 2026 10:30:00 GMT")
    assert clock.offset > TOLERANCE_SECONDS
    clock.measure("Sat, 10 Jan 2026 10:30:00 GMT")
    assert clock.now() == MACHINE
