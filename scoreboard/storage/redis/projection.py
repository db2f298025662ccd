"""The write side of a board in Redis: the one call that applies rows of the ledger.

Called by `storage.commit` with rows just committed, and by the projector with missed ones. A row is applied only if its
version is newer than the stored one. So repetition and reordering are harmless, and totals may fall. Never reads a
board for display (see `storage.board_cache`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import NEVER, TOP_SIZE, Board, BoardVersion, user_id
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.domain.ranking import order_key
from scoreboard.drivers.bridge import redis_errors
from scoreboard.drivers.namespace import SPECIFIED, BoardKeys, Namespace
from scoreboard.storage.redis.scripts import load_board_script

# In an entry, in place of the order key of a user who is not on the board. After the version comes the order key that
# a user with a shadow ban would have, and nothing for anybody else. Also in apply.lua and standing.lua.
REMOVED_KEY = b"\xff" * 16

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Applied:
    """The board after the call. `ranks` in the order of the rows, None for a user who is not on it. A user with a
    shadow ban has the rank that he would have.

    `sequence`: the writer's last batch that was applied without a gap before it. `is_complete`: the board has all that
    was committed before it replaced the last one; until then no rank is certain.
    """

    version: BoardVersion
    shown_version: int
    sequence: int
    is_complete: bool
    ranks: tuple[int | None, ...]


class Projection:
    """Applies rows to one board, by the epoch that it knows. Shared by the node's committers; coroutines run in
    asyncio.

    `request_repair` is called when the board was emptied, is damaged, or came back with an older content. The projector
    repairs it.
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
        """`target` and `channel` replace the board's own keys and channel, while it is built under staging keys.
        `installation` returns the installation's id."""
        self.board, self.request_repair, self.installation = board, request_repair, installation
        self._board_id = board.id
        self.keys = target or namespace.board(board)
        self.known = NEVER  # the newest version that a call returned
        self._apply = client.register_script(load_board_script("apply.lua"))
        self._prefix = [*self.keys, channel or namespace.updates]

    async def apply_aio(
        self, sequences: SequenceRange, rows: Sequence[LedgerRow], events: Sequence[ScoreEvent]
    ) -> Applied | None:
        """Applies rows of one writer's batches, and publishes the message if a row was newer. Returns the state of the
        board with the users' ranks.

        None: the board is missing or can't be trusted. Raises StorageUnavailable; then, and after a cancellation, it is
        unknown whether the rows were applied. In all these cases the same rows may be applied again.
        """
        before = self.known  # another committer may raise it during this call
        answer = await self.call_aio(before.epoch, sequences, rows, events)
        if isinstance(answer, int) and answer > before.epoch:  # a projector has rebuilt it: the new board is whole
            before = max(self.known, BoardVersion(answer, 0))
            answer = await self.call_aio(answer, sequences, rows, events)
        if isinstance(answer, int) or answer.version < before:
            self.request_repair()
            return None
        self.known = max(self.known, answer.version)
        return answer

    async def call_aio(
        self, epoch: int, sequences: SequenceRange, rows: Sequence[LedgerRow], events: Sequence[ScoreEvent]
    ) -> Applied | int:
        """One call of the script. Returns its outcome, or the board's epoch (0: there is no board) when that is another
        one and nothing was applied.

        Raises StorageUnavailable; then it is unknown whether the rows were applied.
        """
        args: list[Any] = [
            self.installation(),
            epoch,
            self._board_id,
            TOP_SIZE,
            sequences.writer,
            sequences.first,
            sequences.last,
            _encode(events),
        ]
        for row in rows:
            args += (
                user_id(row.subject),
                "" if row.total is None or row.ban else row.total,
                b"" if row.total is None or row.ban == Ban.FULL else order_key(row.total, row.reached),
                row.version.to_bytes(8, "big"),
                row.subject.bytes,
            )
        with redis_errors():
            answer = await self._apply(keys=self._prefix, args=args)
        if answer[0] == 0:
            return int(answer[1])
        _, version, shown_version, sequence, incomplete, *ranks = answer
        return Applied(
            BoardVersion(epoch, int(version)),
            int(shown_version),
            int(sequence),
            not incomplete,
            tuple(rank or None for rank in ranks),
        )
