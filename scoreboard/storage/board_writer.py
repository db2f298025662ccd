"""One committer's calls to one board: a recorded turn is sent together with earlier rows that the board lacks.

1. `prepare` picks the board's rows of a turn, and adds the rows of earlier turns that the board has not confirmed. The
   call then covers those turns too. So a gap closes with the next turn that reaches the board.
2. `send_aio` makes the call. When it raises, `note_failure` marks the turn as unprojected at once.
3. `register` is called after each call, failed ones included, and before the actions are answered. It notes in the
   agreement that the turn is recorded. It drops the rows when the board has them, else it keeps them for the next call.
4. At most MAX_GAP_ROWS rows are kept. Above that, all are dropped, and the projector replays their turns.

Called by `storage.commit`. asyncio-flavoured.

Tested in tests/storage/test_commit.py.
"""

from typing import NamedTuple

from scoreboard.domain.boards import LEADERBOARD, Board
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.storage.agreement import Agreement
from scoreboard.storage.redis.projection import Applied, Projection
from scoreboard.storage.writer import RecordedTurn

# Rows kept for the next call, one a user. Full: all are dropped, and the projector reads them from `commits`.
MAX_GAP_ROWS = 4_096


class BoardCall(NamedTuple):
    """The content of one call: the turn's rows by raw user id, earlier rows that the board lacks, and the message."""

    span: SequenceRange
    rows: dict[bytes, LedgerRow]
    missed: list[LedgerRow]
    events: list[ScoreEvent]


class BoardWriter:
    """Not shared: each committer has its own for each board."""

    __slots__ = ("_gap_span", "_unprojected", "agreement", "board", "projection")

    def __init__(self, projection: Projection, agreement: Agreement) -> None:
        self.board: Board = projection.board
        self.projection, self.agreement = projection, agreement
        self._unprojected: dict[bytes, LedgerRow] = {}  # rows that the board may lack, the newest of each user
        # the turns of these rows; the projector replays those of an earlier writer id
        self._gap_span: SequenceRange | None = None

    def prepare(self, turn: RecordedTurn) -> BoardCall:
        """The call that brings the turn to the board. A turn that did not touch the board has no rows there."""
        board, span = self.board, turn.span
        rows = {row.subject.bytes: row for row in turn.recording.rows if row.board == board}
        missed = [row for raw, row in self._unprojected.items() if raw not in rows]
        if self._gap_span is not None and self._gap_span.writer == span.writer:
            span = span._replace(first=self._gap_span.first)
        # score:personal is about the leaderboard's totals
        return BoardCall(span, rows, missed, turn.recording.events if board == LEADERBOARD else [])

    async def send_aio(self, call: BoardCall) -> Applied | None:
        """Makes the call. None: the board is missing or can't be trusted. Raises StorageUnavailable."""
        return await self.projection.apply_aio(call.span, [*call.rows.values(), *call.missed], call.events)

    def note_failure(self, call: BoardCall) -> None:
        """The call raised, so it is unknown whether the board has the turn."""
        self.agreement.mark_unprojected(call.span.writer, call.span.last)

    def register(self, call: BoardCall, applied: Applied | None) -> dict[bytes, int | None]:
        """Notes the result of the call; `applied` is None when it failed. Returns ranks by raw user id; none unless the
        board is known to have all that was committed."""
        span = call.span
        # not earlier: a read that is under way may be older than the call
        self.agreement.acknowledge(span.writer, span.last)
        if applied is not None and applied.sequence >= span.last:
            self._clear_gap()
            self.agreement.mark_projected(span.writer, applied.sequence)
        else:  # earlier turns are missing; the projector replays those that are not in the gap
            self.agreement.mark_unprojected(span.writer, span.last)
            self._add_to_gap(call)
        if applied is None or not applied.is_complete or self.agreement.is_stale:
            return {}
        # the ranks of the missed rows come last and are not needed
        return dict(zip(call.rows, applied.ranks, strict=False))

    async def send_current_rows_aio(self, writer: int, rows: list[LedgerRow]) -> dict[bytes, int | None] | None:
        """Sends rows to the board that belong to no turn. Returns their ranks by raw user id; none when they are not
        certain. None: the board is missing or can't be trusted.

        Raises StorageUnavailable.
        """
        applied = await self.projection.apply_aio(SequenceRange(writer, 1, 0), rows, [])
        if applied is None:
            return None
        if not applied.is_complete or self.agreement.is_stale:
            return {}
        return {row.subject.bytes: rank for row, rank in zip(rows, applied.ranks, strict=True)}

    def _add_to_gap(self, call: BoardCall) -> None:
        self._unprojected.update(call.rows)
        self._gap_span = call.span
        if len(self._unprojected) > MAX_GAP_ROWS:
            self._clear_gap()

    def _clear_gap(self) -> None:
        self._unprojected, self._gap_span = {}, None
