"""A board and what is applied to it."""

import pytest

from scoreboard.client.board import Board, Delta, Row, Update
from scoreboard.domain.boards import Entry

KNOWN = Board(
    "1-5",
    (Entry(1, "a", "A", 30, "https://pictures.example/a.png"), Entry(2, "b", "B", 20), Entry(3, "c", "C", 10)),
    "then",
)


def row(user: str, score: int, rank: int) -> Row:
    return Row(user, user.upper(), score, rank)


def test_an_update_replaces_everything() -> None:
    """An update replaces the board."""
    entries = (Entry(1, "x", "X", 1),)
    assert KNOWN.apply_update(Update(entries, "2-1", "now")) == Board("2-1", entries, "now")


def test_a_delta_moves_changes_and_removes_rows() -> None:
    """Rows are changed as a whole, a picture too, removed ones go, and the order is that of the ranks."""
    board = KNOWN.apply_delta(Delta("1-6", "1-5", (row("d", 40, 1), row("a", 30, 2), row("b", 20, 3)), ("c",), "now"))
    assert board == Board("1-6", (Entry(1, "d", "D", 40), Entry(2, "a", "A", 30), Entry(3, "b", "B", 20)), "now")


def test_a_delta_that_is_applied_already_changes_nothing() -> None:
    """A delta to the board's own position is late, and no gap."""
    assert KNOWN.apply_delta(Delta("1-5", "1-4", (row("a", 1, 1),))) is KNOWN


def test_a_delta_may_keep_the_position() -> None:
    """A delta with the same position may change a name, since a store may give a name later."""
    board = KNOWN.apply_delta(Delta("1-5", "1-5", (Row("a", "Ada", 30, 1),)))
    assert board is not None
    assert (board.position, board.entries[0]) == ("1-5", Entry(1, "a", "Ada", 30))


@pytest.mark.parametrize(
    "delta",
    [
        Delta("1-7", "1-6", (row("a", 31, 1),)),
        Delta("1-6", "1-5", removed=("x",)),
        Delta("1-6", "1-5", removed=("a",)),
        Delta("1-6", "1-5", (row("d", 5, 5),)),
        Delta("1-6", "1-5", (row("b", 31, 1),)),
    ],
    ids=["from elsewhere", "removes a stranger", "leaves a hole", "enters below a hole", "two of one rank"],
)
def test_a_delta_that_does_not_fit_gives_no_board(delta: Delta) -> None:
    """A delta that does not fit returns None, never a board that no server has shown."""
    assert KNOWN.apply_delta(delta) is None
