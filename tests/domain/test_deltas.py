"""What changed between two shown boards."""

from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.boards import Entry
from scoreboard.domain.deltas import (
    POSITION_HISTORY_SIZE,
    ChangedPosition,
    Comparison,
    PositionHistory,
    changed_positions,
    compare,
)

NAMES = "abcdefgh"


def board(users: list[str], scores: dict[str, int], pictures: frozenset[str] = frozenset()) -> tuple[Entry, ...]:
    return tuple(
        Entry(rank, user, user.upper(), scores.get(user, 0), "https://example.org/p" if user in pictures else None)
        for rank, user in enumerate(users, 1)
    )


boards = st.builds(
    board,
    st.permutations(NAMES).flatmap(lambda order: st.integers(0, len(NAMES)).map(lambda count: order[:count])),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3)),
    st.frozensets(st.sampled_from(NAMES)),
)


def applied(before: tuple[Entry, ...], comparison: Comparison) -> tuple[Entry, ...]:
    """The rows of a viewer who has `before` and applies the comparison."""
    rows = {entry.userId: entry for entry in before}
    for entry in comparison.removed:
        del rows[entry.userId]
    for row in comparison.changed:
        rows[row.entry.userId] = row.entry
    return tuple(sorted(rows.values(), key=lambda entry: entry.rank))


@given(boards, boards)
def test_applying_a_comparison_gives_the_later_board(before: tuple[Entry, ...], after: tuple[Entry, ...]) -> None:
    """Whatever happens between two boards, their comparison turns the one into the other."""
    assert applied(before, compare(before, after)) == after


@given(boards, boards)
def test_a_comparison_tells_nothing_twice_and_nothing_known(
    before: tuple[Entry, ...], after: tuple[Entry, ...]
) -> None:
    """Each changed row is one that the viewer does not have, with the rank that it had for him."""
    comparison = compare(before, after)
    ranks = {entry.userId: entry.rank for entry in before}
    assert all(
        row.entry not in before and row.previous_rank == ranks.get(row.entry.userId) for row in comparison.changed
    )
    assert comparison.same == (before == after)


@given(boards, boards)
def test_changed_positions_are_exactly_the_ranks_that_differ(
    before: tuple[Entry, ...], after: tuple[Entry, ...]
) -> None:
    """Every user whose rank differs is listed once, entering and leaving included, and no other user."""
    old, new = ({entry.userId: entry.rank for entry in rows} for rows in (before, after))
    expected = {(user, old.get(user), new.get(user)) for user in old | new if old.get(user) != new.get(user)}
    told = [(one.userId, one.previousRank, one.newRank) for one in changed_positions(compare(before, after))]
    assert len(told) == len(set(told))
    assert set(told) == expected


def test_a_score_that_changes_in_place_moves_nobody() -> None:
    """A higher score at the same rank is a changed row and no changed position; a user who leaves has the score that
    was shown last."""
    before = board(["a", "b", "c"], {"a": 9, "b": 5, "c": 1})
    after = board(["a", "b"], {"a": 10, "b": 5})
    comparison = compare(before, after)
    assert [row.entry.userId for row in comparison.changed] == ["a"]
    assert changed_positions(comparison) == (ChangedPosition("c", 3, None, 1),)


def test_what_is_remembered_is_bounded() -> None:
    """The oldest position goes first; one that is shown again is new again."""
    recent = PositionHistory()
    rows = [board(["a"], {"a": turn}) for turn in range(POSITION_HISTORY_SIZE + 2)]
    for turn in range(POSITION_HISTORY_SIZE):
        recent.remember(f"1-{turn}", rows[turn])
    recent.remember("1-0", rows[0])
    recent.remember("1-x", rows[-1])
    recent.remember("1-y", rows[-2])
    found = [turn for turn in range(POSITION_HISTORY_SIZE) if recent.find(f"1-{turn}") is None]
    assert found == [1, 2]
    assert recent.find("1-0") == rows[0]


def test_a_position_that_stood_for_two_boards_stands_for_none() -> None:
    """A position that had two different boards has no rows any more; the same rows again change nothing."""
    recent = PositionHistory()
    recent.remember("1-1", board(["a"], {}))
    recent.remember("1-1", board(["a"], {}))
    assert recent.find("1-1") == board(["a"], {})
    recent.remember("1-1", board(["a"], {"a": 5}))
    assert recent.find("1-1") is None
    recent.remember("1-1", board(["a"], {"a": 5}))
    assert recent.find("1-1") is None
