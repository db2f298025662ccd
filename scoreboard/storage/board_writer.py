"""One committer's calls to one board: a recorded batch is sent together with earlier rows that the board lacks.

1. `prepare` picks the board's rows of a batch, and adds the rows of earlier batches that the board has not confirmed.
   The call then covers those batches too. So a gap closes with the next batch that reaches the board.
2. `send_aio` makes the call. When it raises, `note_failure` marks the batch as unprojected at once.
3. `note_result` is called after each call, failed ones included, and before the actions are answered. It notes in the
   agreement that the batch is recorded. It drops the rows when the board has them, else it keeps them for the next
   call.
4. At most MAX_GAP_ROWS rows are kept. Above that, all are dropped, and the projector replays their batches.

Called by `storage.commit`. asyncio-flavoured.

Tested in tests/storage/test_commit.py.
"""

from typing import NamedTuple

from scoreboard.domain.boards import LEADERBOARD, Board
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.storage.agreement import Agreement
from scoreboard.storage.redis.projection import Applied, Projection
from scoreboard.storage.writer import RecordedBatch

# Rows kept for the next call, one a user. Full: all are dropped, and the projector reads them from `commits`.
MAX_GAP_ROWS = 4_096


class BoardCall(NamedTuple):
    """The content of one call: the batch's rows by raw user id, earlier rows that the board lacks, and the message."""

    sequences: SequenceRange
    rows: dict[bytes, LedgerRow]
    missed: list[LedgerRow]
    events: list[ScoreEvent]


class BoardWriter:
    """Not shared: each committer has its own for each board."""

    __slots__ = ("_gap_sequences", "_unprojected", "agreement", "board", "projection")

    def __init__(self, projection: Projection, agreement: Agreement) -> None:
        self.board: Board = projection.board
        self.projection, self.agreement = projection, agreement
        self._unprojected: dict[bytes, LedgerRow] = {}  # rows that the board may lack, the newest of each user
        # of the batches of these rows; the projector replays those of an earlier writer id
        self._gap_sequences: SequenceRange | None = None

    def prepare(self, batch: RecordedBatch) -> BoardCall:
        """The call that brings the batch to the board. A batch that did not touch the board has no rows there."""
        board, sequences = self.board, batch.sequences
        rows = {row.subject.bytes: row for row in batch.recording.rows if row.board == board}
        missed = [row for raw, row in self._unprojected.items() if raw not in rows]
        if self._gap_sequences is not None and self._gap_sequences.writer == sequences.writer:
            sequences = sequences._replace(first=self._gap_sequences.first)
        # score:personal is about the leaderboard's totals
        return BoardCall(sequences, rows, missed, batch.recording.events if board == LEADERBOARD else [])

    async def send_aio(self, call: BoardCall) -> Applied | None:
        """Makes the call. None: the board is missing or can't be trusted. Raises StorageUnavailable."""
        return await self.projection.apply_aio(call.sequences, [*call.rows.values(), *call.missed], call.events)

    def note_failure(self, call: BoardCall) -> None:
        """The call raised, so it is unknown whether the board has the batch."""
        self.agreement.mark_unprojected(call.sequences.writer, call.sequences.last)

    def note_result(self, call: BoardCall, applied: Applied | None) -> dict[bytes, int | None]:
        """Notes the result of the call; `applied` is None when it failed. Returns ranks by raw user id; none unless the
        board is known to have all that was committed."""
        sequences = call.sequences
        # not earlier: a read that is under way may be older than the call
        self.agreement.acknowledge(sequences.writer, sequences.last)
        if applied is not None and applied.sequence >= sequences.last:
            self._clear_gap()
            self.agreement.mark_projected(sequences.writer, applied.sequence)
        else:  # earlier batches are missing; the projector replays those that are not in the gap
            self.agreement.mark_unprojected(sequences.writer, sequences.last)
            self._add_to_gap(call)
        if applied is None or not applied.is_complete or self.agreement.is_stale:
            return {}
        # the ranks of the missed rows come last and are not needed
        return dict(zip(call.rows, applied.ranks, strict=False))

    async def send_current_rows_aio(self, writer: int, rows: list[LedgerRow]) -> dict[bytes, int | None] | None:
        """Sends rows to the board that belong to no batch. Returns their ranks by raw user id; none when they are not
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
        self._gap_sequences = call.sequences
        if len(self._unprojected) > MAX_GAP_ROWS:
            self._clear_gap()

    def _clear_gap(self) -> None:
        self._unprojected, self._gap_sequences = {}, None
