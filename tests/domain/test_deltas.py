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
    """The rows of a viewer who had `before` and applied the comparison."""
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
def test_changed_rows_are_new_to_the_viewer(before: tuple[Entry, ...], after: tuple[Entry, ...]) -> None:
    """Each changed row differs from what the viewer has, and carries the rank that it had there."""
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
    """Each user whose rank differs is named once, users who enter or leave too, and nobody else."""
    old, new = ({entry.userId: entry.rank for entry in rows} for rows in (before, after))
    expected = {(user, old.get(user), new.get(user)) for user in old | new if old.get(user) != new.get(user)}
    named = [(one.userId, one.previousRank, one.newRank) for one in changed_positions(compare(before, after))]
    assert len(named) == len(set(named))
    assert set(named) == expected


def test_a_score_that_changes_in_place_moves_nobody() -> None:
    """A higher score at the same rank is a changed row and no changed position. A user who leaves has the score last
    shown."""
    before = board(["a", "b", "c"], {"a": 9, "b": 5, "c": 1})
    after = board(["a", "b"], {"a": 10, "b": 5})
    comparison = compare(before, after)
    assert [row.entry.userId for row in comparison.changed] == ["a"]
    assert changed_positions(comparison) == (ChangedPosition("c", 3, None, 1),)


def test_the_history_drops_the_oldest_position() -> None:
    """A position that is shown again counts as new."""
    history = PositionHistory()
    rows = [board(["a"], {"a": turn}) for turn in range(POSITION_HISTORY_SIZE + 2)]
    for turn in range(POSITION_HISTORY_SIZE):
        history.remember(f"1-{turn}", rows[turn])
    history.remember("1-0", rows[0])
    history.remember("1-x", rows[-1])
    history.remember("1-y", rows[-2])
    found = [turn for turn in range(POSITION_HISTORY_SIZE) if history.find(f"1-{turn}") is None]
    assert found == [1, 2]
    assert history.find("1-0") == rows[0]


def test_a_position_with_two_contents_has_no_rows() -> None:
    """A viewer of it may have either content. The same rows again are no other content."""
    history = PositionHistory()
    history.remember("1-1", board(["a"], {}))
    history.remember("1-1", board(["a"], {}))
    assert history.find("1-1") == board(["a"], {})
    history.remember("1-1", board(["a"], {"a": 5}))
    assert history.find("1-1") is None
    history.remember("1-1", board(["a"], {"a": 5}))
    assert history.find("1-1") is None
