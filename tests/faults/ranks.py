"""Checks that every rank in an answer was the rank of a state that existed. Uses intervals, so there is no false alarm.

At the moment of a rank each other user's total lies between what was acknowledged before the request was sent and what
was submitted before its answer came. So the rank lies between 1 + those surely above and 1 + those possibly above;
whoever has the same total may be either. null is always right.
"""

from collections.abc import Iterator

from tests.faults.ledger import Ledger, Totals
from tests.faults.reads import OTHER_NODE_LAG_SECONDS, Reads, Violation


def bounds(totals: Totals, user: str, least: int, most: int, begin: float, end: float) -> tuple[int, int]:
    """The lowest and the highest rank that a user with a total of `least` to `most` can have had between the two
    times."""
    others = [other for other in totals.users if other != user]
    surely = sum(totals.lower(other, begin, end) > most for other in others)
    possibly = sum(totals.upper(other, end) >= max(least, 1) for other in others)
    return 1 + surely, 1 + possibly


def violations(
    reads: Reads, ledger: Ledger, totals: Totals, began: float, *, ignore: tuple[float, float] | None = None
) -> list[Violation]:
    """Every told rank that no state had. `ignore` as for `reads.violations`."""
    return [
        found
        for found, begin, end in _all(reads, ledger, totals, began)
        if ignore is None or not (begin < ignore[1] and end > ignore[0])
    ]


def _all(reads: Reads, ledger: Ledger, totals: Totals, began: float) -> Iterator[tuple[Violation, float, float]]:
    def judge(
        how: str, node: int, user: str, rank: int | None, least: int, most: int, begin: float, end: float
    ) -> Iterator[Violation]:
        if rank is None or ledger.is_excused(user, end):
            return
        low, high = bounds(totals, user, least, most, begin, end)
        if not low <= rank <= high:
            yield Violation(
                "rank that no state had", how, node, user, f"{low} to {high} with {least}", str(rank), "", end - began
            )

    sent_at: dict[tuple[str, int], tuple[float, float]] = {}
    for told in ledger.acknowledged:
        most = max(told.score, totals.upper(told.user, told.answered))
        for found in judge("newRank", told.node, told.user, told.rank, told.score, most, told.sent, told.answered):
            yield found, told.sent, told.answered
        begin, end = sent_at.get((told.user, told.score), (told.first, told.answered))
        sent_at[told.user, told.score] = min(begin, told.first), max(end, told.answered)
    for shown in reads.shown:
        if not shown.stale and shown.user and shown.score is not None:
            begin = shown.since - OTHER_NODE_LAG_SECONDS
            for found in judge(
                shown.how, shown.node, shown.user, shown.rank, shown.score, shown.score, begin, shown.until
            ):
                yield found, begin, shown.until
    for one in reads.personal:
        if (one.user, one.score) in sent_at:
            begin, _ = sent_at[one.user, one.score]
            for found in judge("score:personal", one.node, one.user, one.rank, one.score, one.score, begin, one.heard):
                yield found, begin, one.heard
