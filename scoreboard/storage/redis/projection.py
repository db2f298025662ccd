"""The write side of a board in Redis: the one call that applies rows of the ledger.

Called by `storage.commit` with what was just committed and by the projector with what was missed. A row goes in only if
its version is newer than the one registered, so repetition and reordering are harmless and totals may fall. Never reads
a board for display (see `storage.board_cache`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from scoreboard.domain.boards import NEVER, TOP_SIZE, Board, BoardVersion, user_id
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.domain.ranking import order_key
from scoreboard.storage.connections.bridge import redis_errors
from scoreboard.storage.connections.namespace import SPECIFIED, BoardKeys, Namespace
from scoreboard.storage.redis.scripts import load_board_script

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Applied:
    """The board after the call. `ranks` in the order of the rows, None for a user who is not on it.

    `sequence`: up to which the writer's turns are in without a gap. `is_complete`: nothing that was committed before
    the board was put in place is missing; until then no rank is certain.
    """

    version: BoardVersion
    top: int
    sequence: int
    is_complete: bool
    ranks: tuple[int | None, ...]


class Projection:
    """Applies rows to one board, by the epoch it knows. asyncio-flavoured; shared by the node's committers.

    `request_repair` is called when the board is not what it was: emptied, damaged, or back with an older content. The
    projector repairs it.
    """

    __slots__ = ("_apply", "_board_id", "_prefix", "board", "installation", "keys", "known", "request_repair")

    def __init__(
        self,
        client: Any,
        board: Board,
        request_repair: Callable[[], None],
        *,
        namespace: Namespace = SPECIFIED,
        installation: Callable[[], str] = str,
        target: BoardKeys | None = None,
        channel: str = "",
    ) -> None:
        """`target` and `channel` are the board's own unless it is built under staging keys. `installation` tells whose
        boards these are."""
        self.board, self.request_repair, self.installation = board, request_repair, installation
        self._board_id = board.id
        self.keys = target or namespace.board(board)
        self.known = NEVER  # the newest version that a call returned
        self._apply = client.register_script(load_board_script("apply.lua"))
        self._prefix = [*self.keys, channel or namespace.updates]

    async def apply_aio(
        self, span: SequenceRange, rows: Sequence[LedgerRow], events: Sequence[ScoreEvent]
    ) -> Applied | None:
        """Applies rows of one writer's turns, has the message published if any was news, and tells the users' ranks.

        None: the board is not there or not to be trusted, nothing is known of ranks. Raises StorageUnavailable; then it
        is unknown whether the call went through. In both cases the same rows may be handed in again.
        """
        before = self.known  # a second committer may learn of more while this call is under way
        answer = await self.call_aio(before.epoch, span, rows, events)
        if isinstance(answer, int) and answer > before.epoch:  # rebuilt by a projector: the new board is whole
            before = max(self.known, BoardVersion(answer, 0))
            answer = await self.call_aio(answer, span, rows, events)
        if isinstance(answer, int) or answer.version < before:
            self.request_repair()
            return None
        self.known = max(self.known, answer.version)
        return answer

    async def call_aio(
        self, epoch: int, span: SequenceRange, rows: Sequence[LedgerRow], events: Sequence[ScoreEvent]
    ) -> Applied | int:
        """The one call, judged by nobody: the outcome, or the epoch found (0: none) when it is another one and nothing
        was done.

        Raises StorageUnavailable; then it is unknown whether the call went through.
        """
        args: list[Any] = [
            self.installation(),
            epoch,
            self._board_id,
            TOP_SIZE,
            span.writer,
            span.first,
            span.last,
            _encode(events),
        ]
        for row in rows:
            args += (
                user_id(row.subject),
                "" if row.total is None else row.total,
                b"" if row.total is None else order_key(row.total, row.reached),
                row.version.to_bytes(8, "big"),
                row.subject.bytes,
            )
        with redis_errors():
            answer = await self._apply(keys=self._prefix, args=args)
        if answer[0] == 0:
            return int(answer[1])
        _, version, top, sequence, incomplete, *ranks = answer
        return Applied(
            BoardVersion(epoch, int(version)),
            int(top),
            int(sequence),
            not incomplete,
            tuple(rank or None for rank in ranks),
        )
