"""The order key: one order for every store, exact for every total that PostgreSQL can hold."""

from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scoreboard.domain.ranking import MAX_BIGINT, member, order_key, read_member

numbers = st.integers(0, MAX_BIGINT) | st.integers(2**53 - 3, 2**53 + 3)
standings = st.tuples(numbers, numbers, st.uuids())


@given(st.lists(standings, unique_by=lambda standing: standing[2]))
def test_members_sort_as_the_board_does(people: list[tuple[int, int, UUID]]) -> None:
    """Sorting the bytes gives total descending, then the lower order number."""
    by_bytes = [read_member(raw) for raw in sorted(member(total, reached, user) for total, reached, user in people)]
    by_rule = sorted(people, key=lambda standing: (-standing[0], standing[1], standing[2].bytes))
    assert [(total, reached, user) for user, total, reached in by_bytes] == by_rule


@given(standings)
@example((0, 0, UUID(int=0)))
@example((MAX_BIGINT, MAX_BIGINT, UUID(int=2**128 - 1)))
def test_a_member_tells_what_it_was_made_of(standing: tuple[int, int, UUID]) -> None:
    """Nothing is lost in 32 bytes, not even of totals that a double can't hold."""
    total, reached, user = standing
    raw = member(total, reached, user)
    assert len(raw) == 32
    assert read_member(raw) == (user, total, reached)


@pytest.mark.parametrize(("total", "reached"), [(-1, 0), (0, -1), (MAX_BIGINT + 1, 0), (0, MAX_BIGINT + 1)])
def test_what_no_board_holds_has_no_key(total: int, reached: int) -> None:
    """Numbers out of bounds are a bug, never a wrong rank."""
    with pytest.raises(ValueError, match="not on the board"):
        order_key(total, reached)
