"""Boards and their snapshots: ids, positions and dates."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.boards import LEADERBOARD, Board, BoardVersion, Entry, Snapshot, last_modified, rfc3339

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
def test_the_date_is_the_second_after_the_change_once_it_has_begun(changed_ms: int, now_ms: int, expected: int) -> None:
    """Before that second, and for a board that never changed, there is no date."""
    assert last_modified(changed_ms, now_ms) == expected


@given(TIMES, st.integers(0, 5_000), st.integers(0, 5_000), st.integers(0, 5_000))
def test_no_change_hides_behind_a_date(first: int, asked_after: int, changed_after: int, later: int) -> None:
    """A client with an answer from between two changes names that second, or the date of the answer. Either is older
    than the date of the second change."""
    asked = first + asked_after
    second = asked + changed_after
    date = last_modified(first, asked) or asked // 1000
    newest = last_modified(second, second + later)
    assert newest == 0 or newest > date or asked == second


def test_an_id_is_made_of_the_parts_that_are_there() -> None:
    """Name, period and segment, joined by colons."""
    assert LEADERBOARD.id == "leaderboard"
    assert Board("daily", "2026-11-25").id == "daily:2026-11-25"
    assert Board("daily", "2026-11-25", "de").id == "daily:2026-11-25:de"


def test_a_board_counts_the_types_that_it_names() -> None:
    """Without a set of types every action counts."""
    assert LEADERBOARD.counts("quiz")
    quizzes = Board("quizzes", action_types=frozenset({"quiz"}))
    assert quizzes.counts("quiz")
    assert not quizzes.counts("essay")


def test_a_position_names_the_shown_rows_alone() -> None:
    """A change below the shown rows makes a newer version at the same position."""
    rows = tuple(Entry(rank, f"u{rank}", f"Name {rank}", 100 - rank) for rank in range(1, 13))
    older, newer = Snapshot("leaderboard", 3, 9, 8, 0, rows), Snapshot("leaderboard", 3, 10, 8, 0, rows)
    assert older.position == newer.position == "3-8"
    assert older.board_version < newer.board_version == BoardVersion(3, 10)
    assert older.shown == rows[:10]


@given(TIMES)
def test_times_have_milliseconds_and_utc(milliseconds: int) -> None:
    """Other readers of RFC 3339 find the same moment."""
    text = rfc3339(milliseconds)
    assert len(text) == len("2026-01-10T10:30:00.000Z")
    assert datetime.fromisoformat(text) - datetime.fromtimestamp(0, UTC) == timedelta(milliseconds=milliseconds)
