"""What this node knows of whether a board in Redis agrees with PostgreSQL. While that is not known,
the board is shown as stale.

1. A committer notes each turn that PostgreSQL has recorded, after its call to the board and before its actions are
   answered (`acknowledge`).
2. The board's own answers tell up to which turn each writer's actions are on it. A call that failed leaves its turn
   `unprojected`, until an answer covers it.
3. The projector compares all writers' turns in both stores several times a second, and says what it found
   (`set_stale_reasons`).
4. The board agrees when nothing of this is open. So it stays stale until agreement
   is proven, never until some time has passed.

Synchronous, so every method is atomic on one loop.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from math import inf
from time import monotonic

import structlog

from scoreboard.domain.boards import Board
from scoreboard.telemetry import metrics

# without a comparison of the two stores for so long, the board is stale: others may have committed meanwhile
UNCHECKED_SECONDS = 3.0
# whose turns are remembered; more were given up without an answer: all of them stay open until a comparison finds
# them
MAX_WRITERS = 64

log = structlog.get_logger()


class StaleReason(StrEnum):
    """Why a board is not known to agree with PostgreSQL."""

    UNPROJECTED = "unprojected"  # turns of this node that the board has not confirmed
    BEHIND = "behind"  # turns of any node that are committed and not on the board
    DETACHED = "detached"  # another node can't reach Redis: its actions reach the board late
    HISTORY = "history_lost"  # the board has turns that PostgreSQL does not know: an older database was restored
    INCOMPLETE = "incomplete"  # the board was just put in place and lacks what was committed meanwhile
    MISSING = "missing"  # there is no board, a part of it is missing, or it is another installation's
    OLD = "old"  # Redis came back with an older content
    UNCHECKED = "unchecked"  # the stores could not be compared


class DetachedWriters:
    """This node's writers of which all others were told that they can't reach Redis. One for the process: a writer
    stays until every board has what it committed."""

    __slots__ = ("_lacking", "boards")

    def __init__(self, boards: Iterable[Board]) -> None:
        self.boards = tuple(boards)
        self._lacking: dict[int, set[Board]] = {}  # writer → boards that may lack what it committed

    @property
    def writers(self) -> list[int]:
        return list(self._lacking)

    def add(self, writer: int) -> None:
        """A call to Redis failed, or will not be made: every board may lack something."""
        self._lacking[writer] = set(self.boards)

    def confirm(self, board: Board) -> list[int]:
        """The board has all that this node's writers committed. Returns the writers of which that is true for all
        boards: they need not be detached any longer."""
        for lacking in self._lacking.values():
            lacking.discard(board)
        return [writer for writer, lacking in self._lacking.items() if not lacking]

    def remove(self, writers: Iterable[int]) -> None:
        """All others were told that they reach Redis again. Those that were added again meanwhile stay."""
        for writer in writers:
            if not self._lacking.get(writer):
                self._lacking.pop(writer, None)


class Agreement:
    """One for each board of the process."""

    __slots__ = (
        "_acknowledged",
        "_checked_at",
        "_logged_reasons",
        "_new_reasons",
        "_reasons",
        "_unprojected",
        "agreed_at",
        "agrees_until",
        "board",
        "detached",
        "on_stale",
        "unchecked_seconds",
    )

    def __init__(
        self,
        board: Board,
        on_stale: Callable[[], None] = lambda: None,
        unchecked_seconds: float = UNCHECKED_SECONDS,
        detached: DetachedWriters | None = None,
    ) -> None:
        """`on_stale` is called when something else than a comparison finds a reason: it should have the stores compared
        soon."""
        self.board, self.on_stale, self.unchecked_seconds = board, on_stale, unchecked_seconds
        self.detached = detached or DetachedWriters((board,))  # shared with the node's other boards
        self._acknowledged: dict[int, int] = {}  # writer → last turn that PostgreSQL has recorded
        self._unprojected: dict[int, int] = {}  # writer → last turn that the board may lack
        self._reasons: frozenset[StaleReason] = frozenset({StaleReason.UNCHECKED})  # found by the last comparison
        self._new_reasons: frozenset[StaleReason] = (
            frozenset()
        )  # found by others since the comparison that is under way began
        self._checked_at = monotonic()
        self._logged_reasons: frozenset[StaleReason] = self._reasons
        self.agrees_until = -inf  # monotonic seconds; until then the board agrees, unless something happens
        self.agreed_at = inf  # monotonic seconds, when it last became current: what was read before may lack something

    @property
    def is_stale(self) -> bool:
        return monotonic() >= self.agrees_until

    def stale_reasons(self) -> frozenset[StaleReason]:
        """All that is open now."""
        found = self._reasons | {StaleReason.UNPROJECTED} if self._unprojected else self._reasons
        return found | {StaleReason.UNCHECKED} if monotonic() - self._checked_at > self.unchecked_seconds else found

    # ---- turns of this node ------------------------------------------------------------------------------------------

    def acknowledge(self, writer: int, turn: int) -> None:
        """PostgreSQL has recorded that turn. Called before its actions are answered."""
        if writer not in self._acknowledged and len(self._acknowledged) >= MAX_WRITERS:
            oldest = next(iter(self._acknowledged))
            del self._acknowledged[oldest]
            self._unprojected.pop(oldest, None)
            self.mark_stale(StaleReason.BEHIND)  # the next comparison tells
        self._acknowledged[writer] = turn

    def mark_unprojected(self, writer: int, turn: int) -> None:
        """The board refused that turn, or did not answer: it may lack it."""
        self._unprojected[writer] = turn
        self.report()
        self.on_stale()

    def mark_projected(self, writer: int, turn: int) -> None:
        """The board has all turns of that writer up to this one."""
        if self._unprojected and self._unprojected.get(writer, turn + 1) <= turn:
            del self._unprojected[writer]
            self.report()

    def expected(self) -> dict[int, int]:
        """The turns that any answer of the board from now on must have, by writer."""
        return dict(self._acknowledged)

    def confirm(self, expected: Mapping[int, int], applied: Iterable[int]) -> bool:
        """Compares an answer of the board with what was `expected` before the call. False: the board lacks
        something."""
        whole = True
        for (writer, turn), done in zip(expected.items(), applied, strict=True):
            if done >= turn:
                self.mark_projected(writer, done)
            else:
                whole = False
                if writer in self._acknowledged:  # else its turns were found to be lost since the call began
                    self._unprojected.setdefault(writer, turn)
        if not whole:
            self.report()
            self.on_stale()
        return whole

    def forget(self, lost: Iterable[int], alive: Iterable[int]) -> None:
        """`lost`: writers whose turns PostgreSQL does not know any more; no board will ever confirm them. Of all
        others, only `alive` ones and those that the board may lack are remembered."""
        lost, alive = set(lost), set(alive)
        for writer in list(self._acknowledged):
            if writer in lost or not (writer in alive or writer in self._unprojected):
                del self._acknowledged[writer]
                self._unprojected.pop(writer, None)
        self.report()

    # ---- comparisons -------------------------------------------------------------------------------------------------

    def mark_stale(self, reason: StaleReason) -> None:
        """Something other than a comparison says so; the next comparison tells."""
        self._reasons |= {reason}
        self._new_reasons |= {reason}
        self.report()
        self.on_stale()

    def mark_unchecked(self) -> None:
        """Redis could not be compared: whatever it says when it is back, only a comparison proves it."""
        self._reasons |= {StaleReason.UNCHECKED}
        self.report()

    def begin_comparison(self) -> None:
        """What is found from now on by others is not ended by this comparison: it may have asked the stores before."""
        self._new_reasons = frozenset()

    def set_stale_reasons(self, found: Iterable[StaleReason]) -> None:
        """What a comparison of both stores has found; nothing: the board agrees, as far as others' turns are
        concerned."""
        self._reasons, self._checked_at = frozenset(found) | self._new_reasons, monotonic()
        self.report()

    def report(self) -> None:
        """Called after each change. One log line for each change of the reasons, and a count for each new
        reason."""
        was_stale = self.is_stale
        self.agrees_until = -inf if self._unprojected or self._reasons else self._checked_at + self.unchecked_seconds
        if self.is_stale:
            self.agreed_at = inf
        elif was_stale:
            self.agreed_at = monotonic()
        found = self.stale_reasons()
        if found == self._logged_reasons:
            return
        for reason in found - self._logged_reasons:
            metrics.BOARD_DOUBTS.labels(self.board.id, reason).inc()
        if found:
            log.warning("board_doubted", board=self.board.id, store="redis", reasons=sorted(found))
        else:
            log.info("board_confirmed", board=self.board.id)
        self._logged_reasons = found
