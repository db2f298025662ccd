"""How late boards came: from the commits that the driver made and the times that viewers noted to percentiles. Pure.

Our server: from an action's commit (PostgreSQL's time, as the action's answer tells it) to the viewer that was shown
its score. A board carries every change since the one that the viewer had before; the oldest of them counts. Peers: from
the time in the message, taken just before it was sent to the first viewer.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.bench.fanout_wire import Shown

Row = tuple[int, int, int, int]  # index of what a viewer had, of what it got, Unix milliseconds, how many viewers


class Commit(NamedTuple):
    user_id: str
    new_score: int
    at_ms: float


class Lags(NamedTuple):
    """Milliseconds → deliveries."""

    counts: "Counter[int]"

    @property
    def total(self) -> int:
        return self.counts.total()

    def percentile(self, share: float) -> float:
        """The smallest lag that at least this share of all deliveries kept within; 0 without any."""
        wanted, seen = share * self.total, 0
        for lag, many in sorted(self.counts.items()):
            seen += many
            if seen >= wanted:
                return lag
        return 0.0


def oldest_changes(shown: Sequence[Shown], commits: Sequence[Commit]) -> list[float | None]:
    """Of each board: when its oldest news happened, Unix milliseconds. None: nothing in it is news, or it is not known
    how old it is."""
    mine: dict[str, list[Commit]] = {}
    for commit in sorted(commits, key=lambda commit: commit.new_score):
        mine.setdefault(commit.user_id, []).append(commit)
    found: list[float | None] = []
    for number, board in enumerate(shown):
        news = [] if board.sent_ms is None else [board.sent_ms]
        for user, score in board.scores.items():
            waiting = mine.get(user, [])
            while waiting and waiting[0].new_score <= score:
                news.append(waiting.pop(0).at_ms)
        found.append(min(news) if news and (number or board.sent_ms is not None) else None)
    return found


def lags(shown: Sequence[Shown], rows: Sequence[Row], commits: Sequence[Commit] = ()) -> Lags:
    """Of every delivery. One whose news is of unknown age does not count."""
    oldest, counts = oldest_changes(shown, commits), Counter[int]()
    for had, got, at, many in rows:
        news = [when for when in oldest[had + 1 : got + 1] if when is not None]
        if news:
            counts[max(0, round(at - min(news)))] += many
    return Lags(counts)


def merged(all_lags: Sequence[Lags]) -> Lags:
    return Lags(sum((each.counts for each in all_lags), Counter[int]()))


def boards(rows: Sequence[Row]) -> int:
    """How many different ones came."""
    return len({got for _, got, _, _ in rows})


def deliveries(rows: Sequence[Row]) -> int:
    return sum(many for _, _, _, many in rows)
