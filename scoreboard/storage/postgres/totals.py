"""The table of a board's totals: `scores` or `board_scores`, read with the same columns.

A statement about a board's totals is written once, with `{totals}` in the place of a table, or `{shown}` for the rows
that others see: those of users without a ban. `for_board` inserts the board's own table there, under the name `s` and
with the columns of `scores`. Tested by the boards in tests/storage/test_two_boards.py, by
tests/storage/test_hidden_users.py, and by everything that reads the leaderboard.
"""

from functools import lru_cache
from typing import NamedTuple

from scoreboard.domain.boards import Board, Totals

_BOARD_SCORES = """(
    SELECT subject AS user_id, total AS total_score, reached, version, updated_at FROM board_scores
    WHERE board = ${} AND period = ${} AND segment = ${}
) AS s"""

# An anti-join, which keeps the order of an index on totals, and probes a hash of the few banned users.
_SHOWN = """(
    SELECT * FROM {totals}
    WHERE NOT EXISTS (SELECT FROM users AS hidden WHERE hidden.id = s.user_id AND hidden.ban <> 0)
) AS s"""


class Statement(NamedTuple):
    """SQL, and the arguments that follow the caller's own."""

    sql: str
    args: tuple[str, ...]


@lru_cache(256)  # statements of a board; there are about ten
def for_board(template: str, board: Board, own_args: int = 0) -> Statement:
    """The statement for that board; `own_args` is the number of arguments that precede the board's."""
    template = template.replace("{shown}", _SHOWN)
    if board.totals is Totals.SCORES:
        return Statement(template.replace("{totals}", "scores AS s"), ())
    numbers = range(own_args + 1, own_args + 4)
    return Statement(template.replace("{totals}", _BOARD_SCORES.format(*numbers)), tuple(board[:3]))
