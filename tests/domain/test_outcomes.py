"""Refusals of the write path, and their Retry-After."""

from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.errors import LimitLayer
from scoreboard.domain.outcomes import cooling_down, out_of_service, too_many_actions


@given(st.integers(-60_000, 7 * 24 * 3_600_000))
def test_waits_are_rounded_up(wait_ms: int) -> None:
    """A client that waits for Retry-After is not refused again; the value is whole seconds, at least one."""
    for refusal in (too_many_actions(wait_ms), cooling_down(wait_ms)):
        seconds = refusal.retry_after
        assert seconds is not None
        assert seconds >= 1
        assert wait_ms <= seconds * 1000 < max(wait_ms, 1) + 1000


def test_each_limit_has_its_layer() -> None:
    """A full window is the user's limit, a recent action of the type is the cooldown."""
    assert (too_many_actions(1).layer, cooling_down(1).layer) == (LimitLayer.USER, LimitLayer.COOLDOWN)


def test_out_of_service_asks_for_a_retry() -> None:
    """503 comes with the second after which a client tries again."""
    assert out_of_service("Busy.").retry_after == 1
