"""What was shown to whom and when, and the judgement of it: at least what was acknowledged, at most what was submitted,
or marked stale.

`Reads` collects while a load runs; `violations` judges afterwards, when the ledger is complete. On the node that
acknowledged an action a GET that is sent later shows it without any delay; a frame may take its tick. Other nodes have
a second more.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.ledger import Acknowledged, Ledger, Totals

# Seconds that a frame may lag behind an answer of the same node: a tick of 0.1, one Redis call's deadline of 0.25, one
# read of PostgreSQL, and a machine whose two cores are busy with both nodes, both stores and this test.
FRAME_LAG_SECONDS = 1.0
# Seconds that anything may lag behind another node's answer: a watched board is read once a second whatever is heard,
# and then the same.
OTHER_NODE_LAG_SECONDS = 2.0
# a state that lasted less is the first half of two messages that belong together (a board, then "stale")
SETTLING_SECONDS = 0.05
EXAMPLES = 4  # violations of a kind that are printed

Row = tuple[int, str, int]  # rank, user, score


@dataclass(frozen=True, slots=True)
class Shown:
    """One thing that was shown. `until`: the time by which it must have been right; `lag`: by so much it may have been
    older."""

    how: str  # get, authenticated, websocket, delta, sse, poll
    node: int
    since: float  # a GET's sending; when a frame came
    until: float  # the answer; when a frame was replaced by the next
    rows: tuple[Row, ...] | None  # None: no board was shown
    limit: int  # rows that a full board has
    user: str = ""  # whose own place was shown
    score: int | None = None
    rank: int | None = None
    stale: bool = False
    position: str = ""


@dataclass(frozen=True, slots=True)
class Personal:
    """A score:personal."""

    user: str
    node: int
    heard: float
    score: int
    rank: int | None


@dataclass
class Reads:
    shown: list[Shown] = field(default_factory=list)
    personal: list[Personal] = field(default_factory=list)
    refused: int = 0  # reads that were answered with an error: never wrong
    # node, from, to: it stood still, so its viewers could not be told
    pauses: list[tuple[int, float, float]] = field(default_factory=list)

    def still_at(self, node: int, at: float) -> float:
        """The time itself, or the moment when the node stopped, if it stood still then or has only just woken."""
        for stopped, begin, end in self.pauses:
            if stopped == node and begin <= at <= end + 2 * FRAME_LAG_SECONDS:
                return begin
        return at


@dataclass(frozen=True, slots=True)
class Violation:
    """Something wrong and unmarked. `after`: seconds since the fault began."""

    kind: str
    how: str
    node: int
    user: str
    expected: str
    shown: str
    position: str
    after: float

    def __str__(self) -> str:
        where = f"{self.kind} ({self.how}, node {self.node}, {self.after:+.2f} s)"
        return f"{where}: {self.user[:8]} {self.expected}, shown {self.shown} {self.position}"


class Floors:
    """The highest score that each node has acknowledged, by time."""

    def __init__(self, acknowledged: Sequence[Acknowledged]) -> None:
        self._steps: dict[tuple[int | None, str], tuple[list[float], list[int]]] = defaultdict(lambda: ([], []))
        for one in sorted(acknowledged, key=lambda one: one.answered):
            for node in (one.node, None):
                times, scores = self._steps[node, one.user]
                times.append(one.answered)
                scores.append(max(one.score, scores[-1] if scores else 0))
        self.users = sorted({one.user for one in acknowledged})

    def at(self, node: int | None, user: str, at: float) -> int:
        """`node` None: of whatever node."""
        if (node, user) not in self._steps:
            return 0
        times, scores = self._steps[node, user]
        place = bisect_right(times, at)
        return scores[place - 1] if place else 0


def violations(
    reads: Reads, ledger: Ledger, totals: Totals, began: float, *, ignore: tuple[float, float] | None = None
) -> list[Violation]:
    """Every read that was wrong and did not say so. `ignore`: a time in which a history went back and was not found out
    yet."""
    floors = Floors(
        [told for told in ledger.acknowledged if ledger.went_back is None or told.sent > ledger.went_back[1]]
    )
    found: list[Violation] = []
    for shown in reads.shown:
        if shown.stale or (ignore is not None and shown.since < ignore[1] and shown.until > ignore[0]):
            continue
        found += _judge(shown, reads, ledger, floors, totals, began)
    return found


def _judge(
    shown: Shown, reads: Reads, ledger: Ledger, floors: Floors, totals: Totals, began: float
) -> Iterator[Violation]:
    if shown.how in {"get", "authenticated"}:
        own_by, other_by = shown.since, shown.since - OTHER_NODE_LAG_SECONDS
    else:
        right_by = reads.still_at(shown.node, shown.until)
        own_by, other_by = right_by - FRAME_LAG_SECONDS, right_by - FRAME_LAG_SECONDS - OTHER_NODE_LAG_SECONDS

    def least(user: str) -> int:
        if ledger.is_excused(user, shown.until):
            return 0
        return max(floors.at(shown.node, user, own_by), floors.at(None, user, other_by))

    def violation(kind: str, user: str, expected: str, got: object) -> Violation:
        return Violation(kind, shown.how, shown.node, user, expected, str(got), shown.position, shown.until - began)

    if shown.user and shown.score is not None:
        if shown.score < least(shown.user):
            yield violation("own score old", shown.user, f"acknowledged {least(shown.user)}", shown.score)
        if shown.score > totals.upper(shown.user, shown.until):
            yield violation(
                "own score of no history", shown.user, f"submitted {totals.upper(shown.user, shown.until)}", shown.score
            )
    if shown.rows is None:
        return
    there = {user: score for _, user, score in shown.rows}
    if len(there) != len(shown.rows):
        yield violation("stands there twice", "", "once", [user for _, user, _ in shown.rows])
    scores = [score for _, _, score in shown.rows]
    if [rank for rank, _, _ in shown.rows] != list(range(1, len(shown.rows) + 1)) or scores != sorted(
        scores, reverse=True
    ):
        yield violation("out of order", "", "ranks 1, 2, 3 …", shown.rows)
    for user, score in there.items():
        if score < least(user):
            yield violation("row old", user, f"acknowledged {least(user)}", score)
        elif score > totals.upper(user, shown.until):
            yield violation("row of no history", user, f"submitted {totals.upper(user, shown.until)}", score)
    lowest = scores[-1] if len(scores) >= shown.limit else -1
    for user in floors.users:
        if user not in there and least(user) > max(lowest, 0):
            yield violation("missing", user, f"acknowledged {least(user)}", f"{len(scores)} rows down to {lowest}")


def summary(found: Sequence[Violation], marks: Sequence[tuple[float, str]] = ()) -> list[str]:
    """How many of each kind, with examples. `marks`: what began how many seconds after the first fault, in order."""
    kinds: dict[str, list[Violation]] = defaultdict(list)
    for one in found:
        begun = [name for after, name in marks if after <= one.after]
        kinds[f"{one.kind}{f', {begun[-1]}' if begun else ''}"].append(one)
    lines = []
    for kind, several in kinds.items():
        lines.append(
            f"{len(several)} × {kind}, "
            f"from {several[0].after:+.2f} s to {several[-1].after:+.2f} s after the fault began"
        )
        step = max(1, len(several) // EXAMPLES)
        lines += [f"    {one}" for one in several[::step][:EXAMPLES]]
    return lines
