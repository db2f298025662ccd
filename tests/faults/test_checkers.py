"""The judges of the fault tests, each shown one fault that it must find and the like of it that it must let pass."""

from dataclasses import replace
from math import inf

import pytest

from tests.faults import ranks, reads
from tests.faults.ledger import Acknowledged, Action, Ledger, Totals
from tests.faults.reads import Personal, Reads, Shown

A, B = "user-a", "user-b"


def ledger() -> Ledger:
    """At 10 s A has 100, acknowledged by node 0 at 11 s; at 20 s B has 150, by node 1 at 21 s; one action of B at 30 s
    is unknown."""
    return Ledger(
        base={},
        actions={
            "1": Action(A, 10.0, 100, 11.0),
            "2": Action(B, 20.0, 150, 21.0),
            "3": Action(B, 30.0, 50, inf),
        },
        acknowledged=[Acknowledged(A, 0, 10.0, 10.0, 11.0, 100, 1), Acknowledged(B, 1, 20.0, 20.0, 21.0, 150, 1)],
    )


BOARD = ((1, B, 150), (2, A, 100))
GET = Shown("get", 0, 25.0, 25.1, BOARD, 100, user=A, score=100, rank=2)


def kinds(*shown: Shown, personal: tuple[Personal, ...] = (), made: Ledger | None = None) -> list[str]:
    book = made or ledger()
    seen, totals = Reads(list(shown), list(personal)), Totals(book)
    return [one.kind for check in (reads.violations, ranks.violations) for one in check(seen, book, totals, 0.0)]


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        (replace(GET, score=0, rank=None), "own score old"),
        (replace(GET, score=101), "own score of no history"),
        (replace(GET, rows=((1, B, 150), (2, A, 60))), "row old"),
        (replace(GET, rows=((1, B, 150),)), "missing"),
        (replace(GET, rows=((1, B, 150), (2, A, 100), (3, A, 100))), "stands there twice"),
        (replace(GET, rows=((1, A, 100), (2, B, 150))), "out of order"),
        (replace(GET, rows=((1, B, 300), (2, A, 100))), "row of no history"),
        (replace(GET, rank=1), "rank that no state had"),
        (replace(GET, rank=3), "rank that no state had"),
        (replace(GET, how="websocket", user=""), ""),
        (replace(GET, how="websocket", user="", rows=((1, B, 150),)), "missing"),
        (GET, ""),
        (replace(GET, since=40.0, until=40.1, rows=((1, B, 200), (2, A, 100))), ""),
        (replace(GET, rows=((1, B, 150),), stale=True), ""),
        (replace(GET, since=21.5, until=21.6, rows=((1, A, 100),), rank=1), ""),
        (replace(GET, node=1, since=21.5, until=21.6, rows=((1, A, 100),), rank=1), "missing"),
        (replace(GET, rank=None), ""),
    ],
)
def test_a_reading_is_judged(shown: Shown, kind: str) -> None:
    """An old, impossible, incomplete or disordered reading is found; a stale one, a late one of another node and an
    honest one pass."""
    assert kinds(shown) == ([kind] if kind else [])


def test_told_ranks_are_judged() -> None:
    """A newRank and a score:personal that no state had are found."""
    wrong = ledger()
    wrong.acknowledged[1] = replace(wrong.acknowledged[1], rank=2)
    assert kinds(made=wrong) == ["rank that no state had"]
    assert kinds(personal=(Personal(A, 0, 11.0, 100, 2),)) == ["rank that no state had"]
    assert kinds(personal=(Personal(A, 0, 11.0, 100, 1),)) == []


def test_an_excused_user_is_not_judged() -> None:
    """Whose rows were taken away by somebody else may be missing from then on, and not before."""
    book = ledger()
    book.excused[A] = 24.0
    assert kinds(replace(GET, rows=((1, B, 150),), user="", score=None, rank=None), made=book) == []
    book.excused[A] = 26.0
    assert kinds(replace(GET, rows=((1, B, 150),), user="", score=None, rank=None), made=book) == ["missing"]
