"""Whether a board in Redis agrees with PostgreSQL, as far as this node knows. Until that is proven, the board is stale.

1. A writer gives its batches the sequence numbers 1, 2, 3 … A committer notes that of each batch that PostgreSQL has
   recorded, after its call to the board and before its actions are answered (`acknowledge`).
2. Each answer of the board contains the last applied sequence of each writer. A failed call leaves its batch
   `unprojected` until an answer covers it.
3. The projector compares all writers' sequences in both stores several times a second, and stores the reasons that it
   found (`set_stale_reasons`).
4. The board agrees when there is no unprojected batch and no reason. It never stops being stale because time has
   passed.

Synchronous, so every method is atomic on one loop.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from math import inf
from time import monotonic

import structlog

from scoreboard.domain.boards import Board
from scoreboard.telemetry import metrics

# The board is stale when the last comparison is older than this: other nodes may have committed meanwhile.
UNCHECKED_SECONDS = 3.0
# Writers whose last sequence is stored. Full: the oldest writer is dropped, and the board is stale until the next
# comparison.
MAX_WRITERS = 64

log = structlog.get_logger()


class StaleReason(StrEnum):
    """Why a board is not known to agree with PostgreSQL."""

    UNPROJECTED = "unprojected"  # batches of this node that the board has not confirmed
    BEHIND = "behind"  # batches of any node that are committed and not on the board
    DETACHED = "detached"  # another node can't reach Redis: its actions reach the board late
    HISTORY_LOST = "history_lost"  # the board has batches that PostgreSQL does not know: an older database was restored
    INCOMPLETE = "incomplete"  # the board was just put in place and lacks what was committed meanwhile
    MISSING = "missing"  # there is no board, a part of it is missing, or it is another installation's
    OLD = "old"  # Redis came back with an older content
    UNCHECKED = "unchecked"  # the stores could not be compared


class DetachedWriters:
    """This node's writers that PostgreSQL lists as unable to reach Redis. One object for the process. A writer stays
    listed until every board has what it committed."""

    __slots__ = ("_lacking", "boards")

    def __init__(self, boards: Iterable[Board]) -> None:
        self.boards = tuple(boards)
        self._lacking: dict[int, set[Board]] = {}  # writer → boards that may lack what it committed

    @property
    def writers(self) -> list[int]:
        return list(self._lacking)

    def add(self, writer: int) -> None:
        """A call to Redis failed, or will not be made: every board may lack what this writer committed."""
        self._lacking[writer] = set(self.boards)

    def confirm(self, board: Board) -> list[int]:
        """The board has all that this node's writers committed. Returns the writers of which that is true for all
        boards: they need not be detached any longer."""
        for lacking in self._lacking.values():
            lacking.discard(board)
        return [writer for writer, lacking in self._lacking.items() if not lacking]

    def remove(self, writers: Iterable[int]) -> None:
        """These writers are attached again in PostgreSQL. A writer that was added again meanwhile stays."""
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
        """`on_stale` is called when a reason is found outside of a comparison. It should request a comparison and must
        not wait. `unchecked_seconds`: how long a comparison is valid. `detached` is shared by the boards of a node."""
        self.board, self.on_stale, self.unchecked_seconds = board, on_stale, unchecked_seconds
        self.detached = detached or DetachedWriters((board,))  # shared with the node's other boards
        self._acknowledged: dict[int, int] = {}  # writer → last sequence that PostgreSQL has recorded
        self._unprojected: dict[int, int] = {}  # writer → last sequence that the board may lack
        self._reasons: frozenset[StaleReason] = frozenset({StaleReason.UNCHECKED})  # found by the last comparison
        # found outside of the running comparison, since it began
        self._new_reasons: frozenset[StaleReason] = frozenset()
        self._checked_at = monotonic()
        self._logged_reasons: frozenset[StaleReason] = self._reasons
        self.agrees_until = -inf  # monotonic seconds; the board agrees until then, unless a reason is added
        self.agreed_at = inf  # monotonic seconds, when it last became current; earlier reads may lack something

    @property
    def is_stale(self) -> bool:
        return monotonic() >= self.agrees_until

    def stale_reasons(self) -> frozenset[StaleReason]:
        """Every reason that holds now; empty when the board agrees."""
        found = self._reasons | {StaleReason.UNPROJECTED} if self._unprojected else self._reasons
        return found | {StaleReason.UNCHECKED} if monotonic() - self._checked_at > self.unchecked_seconds else found

    # ---- batches of this node ----------------------------------------------------------------------------------------

    def acknowledge(self, writer: int, sequence: int) -> None:
        """PostgreSQL has recorded that batch. Called before its actions are answered."""
        if writer not in self._acknowledged and len(self._acknowledged) >= MAX_WRITERS:
            oldest = next(iter(self._acknowledged))
            del self._acknowledged[oldest]
            self._unprojected.pop(oldest, None)
            self.mark_stale(StaleReason.BEHIND)  # until the next comparison
        self._acknowledged[writer] = sequence

    def mark_unprojected(self, writer: int, sequence: int) -> None:
        """The board refused that batch or did not answer, so it may lack the batch."""
        self._unprojected[writer] = sequence
        self.refresh()
        self.on_stale()

    def mark_projected(self, writer: int, sequence: int) -> None:
        """The board has all batches of that writer up to this one."""
        if self._unprojected and self._unprojected.get(writer, sequence + 1) <= sequence:
            del self._unprojected[writer]
            self.refresh()

    def acknowledged(self) -> dict[int, int]:
        """The last sequence of each writer that any answer of the board from now on must have."""
        return dict(self._acknowledged)

    def confirm(self, acknowledged: Mapping[int, int], applied: Iterable[int]) -> bool:
        """Compares an answer of the board with what was `acknowledged` before the call. False: the board lacks
        something."""
        whole = True
        for (writer, sequence), done in zip(acknowledged.items(), applied, strict=True):
            if done >= sequence:
                self.mark_projected(writer, done)
            else:
                whole = False
                if writer in self._acknowledged:  # else its batches were found to be lost since the call began
                    self._unprojected.setdefault(writer, sequence)
        if not whole:
            self.refresh()
            self.on_stale()
        return whole

    def drop_writers(self, lost: Iterable[int], alive: Iterable[int]) -> None:
        """Drops writers. Those in `lost` have batches that PostgreSQL no longer has, so no board can confirm them. Of
        the others, a writer is dropped unless it is in `alive` or has an unprojected batch."""
        lost, alive = set(lost), set(alive)
        for writer in list(self._acknowledged):
            if writer in lost or not (writer in alive or writer in self._unprojected):
                del self._acknowledged[writer]
                self._unprojected.pop(writer, None)
        self.refresh()

    # ---- comparisons -------------------------------------------------------------------------------------------------

    def mark_stale(self, reason: StaleReason) -> None:
        """Adds a reason that was found outside of a comparison. The next comparison confirms or removes it."""
        self._reasons |= {reason}
        self._new_reasons |= {reason}
        self.refresh()
        self.on_stale()

    def mark_unchecked(self) -> None:
        """Redis could not be compared. The board is stale until a comparison succeeds."""
        self._reasons |= {StaleReason.UNCHECKED}
        self.refresh()

    def begin_comparison(self) -> None:
        """A comparison begins. Reasons that `mark_stale` adds from now on outlive it, since its reads may be older."""
        self._new_reasons = frozenset()

    def set_stale_reasons(self, found: Iterable[StaleReason]) -> None:
        """Stores the result of a comparison of both stores. Empty: nothing but an unprojected batch of this node can
        make the board stale now."""
        self._reasons, self._checked_at = frozenset(found) | self._new_reasons, monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Recomputes `agrees_until` after each change. Writes one log line for each change of the reasons, and counts
        each new reason."""
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
            metrics.BOARD_STALE_REASONS.labels(self.board.id, reason).inc()
        if found:
            log.warning("board_became_stale", board=self.board.id, store="redis", reasons=sorted(found))
        else:
            log.info("board_confirmed", board=self.board.id)
        self._logged_reasons = found
