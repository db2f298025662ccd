"""The values of a board: ids, versions and dates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.boards import last_modified

TIMES = st.integers(1, 4_102_444_800_000)


@pytest.mark.parametrize(
    ("changed_ms", "now_ms", "expected"),
    [
        (0, 5_000, 0),
        (1_000, 1_000, 0),
        (1_000, 1_999, 0),
        (1_000, 2_000, 2),
        (1_999, 2_000, 2),
        (1_500, 90_000, 2),
        (5_000, 4_000, 0),
    ],
)
def test_the_second_after_a_change_is_told_when_it_is_over(changed_ms: int, now_ms: int, expected: int) -> None:
    assert last_modified(changed_ms, now_ms) == expected


@given(TIMES, st.integers(0, 5_000), st.integers(0, 5_000), st.integers(0, 5_000))
def test_no_change_hides_behind_a_date(first: int, asked_after: int, changed_after: int, later: int) -> None:
    """Whoever was answered between two changes, and names that second or the date he was told, is never told that
    nothing has changed."""
    asked = first + asked_after
    second = asked + changed_after
    told = last_modified(first, asked) or asked // 1000
    newest = last_modified(second, second + later)
    assert newest == 0 or newest > told or asked == second
