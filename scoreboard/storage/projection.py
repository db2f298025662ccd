"""The write side of a board in Redis: its keys, and the one call that applies rows of the ledger.

Called by `storage.commit` with what was just committed and by the projector with what was missed. A row goes in only if its version is
newer than the one registered, so repetition and reordering are harmless and totals may fall. Never reads a board for display (see
`storage.board`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from scoreboard.domain.boards import NEVER, Board, Mark, user_id
from scoreboard.domain.ranking import order_key
from scoreboard.storage.bridge import redis_errors

UPDATES = "scoreboard:updates"  # Pub/Sub channel of the specification
_encode = msgspec.json.Encoder().encode


class BoardKeys(NamedTuple):
    """Redis keys of one board, all in one cluster slot (the specification's `leaderboard` hashes to `{leaderboard}`'s)."""

    totals: str  # the specification's sorted set: user id → total
    order: str  # score 0, member = order key ‖ raw user id: ZRANK + 1 is the exact rank
    entry: str  # raw user id → order key ‖ version: the member to look up, and the version register
    meta: str  # epoch, version, top, updated (ms), names, run_id
    applied: str  # writer → last turn that went in without a gap before it


def keys(board: Board) -> BoardKeys:
    tag = f"{{{board.id}}}"
    return BoardKeys(board.id, f"{tag}:order", f"{tag}:entry", f"{tag}:meta", f"{tag}:applied")


class Row(NamedTuple):
    """A user's standing in the ledger; `total` None: no row there any more, the entry goes."""

    user: UUID
    total: int | None
    reached: int
    version: int


class Told(NamedTuple):
    """One action, as the message tells every node (for `score:personal`). `place` is the user's among the call's rows."""

    user: str
    previous: int
    new: int
    points: int
    at_ms: int
    request_id: str
    place: int


class Span(NamedTuple):
    """Which of a writer's turns a call covers: `first`…`last`, all of them."""

    writer: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The board after the call. `ranks` in the order of the rows, None for a user who is not on it."""

    mark: Mark
    top: int
    ranks: tuple[int | None, ...]


def script(name: str) -> str:
    """The text of a Lua script beside this file."""
    return files("scoreboard.storage").joinpath(name).read_text("utf-8")


class Projection:
    """Applies rows to one board, by the epoch it knows. asyncio-flavoured; shared by the node's committers.

    `suspect` is called when the board is not what it was: emptied, or back with an older content. The projector mends it.
    """

    __slots__ = ("_apply", "_prefix", "_ranks", "board", "keys", "known", "suspect")

    def __init__(
        self, client: Any, board: Board, suspect: Callable[[], None], *, target: BoardKeys | None = None, channel: str = UPDATES
    ) -> None:
        """`target` and `channel` are the board's own unless it is being built aside."""
        self.board, self.suspect = board, suspect
        self.keys = target or keys(board)
        self.known = NEVER  # the newest mark that a call returned
        self._apply = client.register_script(script("apply.lua"))
        self._ranks = client.register_script(script("ranks.lua"))
        self._prefix = [*self.keys, channel]

    async def apply(self, span: Span, rows: Sequence[Row], told: Sequence[Told]) -> Applied | None:
        """Applies rows of one writer's turns, has the message published if any was news, and tells the users' ranks.

        None: the board is not there or not to be trusted, nothing is known of ranks. Raises StorageUnavailable; then it is unknown whether
        the call went through. In both cases the same rows may be handed in again.
        """
        before = self.known  # a second committer may learn of more while this call is under way
        answer = await self.call(before.epoch, span, rows, told)
        if isinstance(answer, int) and answer > before.epoch:  # rebuilt by a projector: the new board is whole
            before = max(self.known, Mark(answer, 0))
            answer = await self.call(answer, span, rows, told)
        if isinstance(answer, int) or answer.mark < before:
            self.suspect()
            return None
        self.known = max(self.known, answer.mark)
        return answer

    async def ranks(self, users: Sequence[UUID]) -> list[int | None]:
        """The exact ranks of users, None for who is not on the board or while it is not there. Raises StorageUnavailable."""
        with redis_errors():
            epoch, *ranks = await self._ranks(keys=[self.keys.order, self.keys.entry, self.keys.meta], args=[user.bytes for user in users])
        return [rank or None if epoch >= self.known.epoch else None for rank in ranks]

    async def call(self, epoch: int, span: Span, rows: Sequence[Row], told: Sequence[Told]) -> Applied | int:
        """The one call, judged by nobody: the outcome, or the epoch found (0: none) when it is another one and nothing was done.

        Raises StorageUnavailable; then it is unknown whether the call went through.
        """
        args: list[Any] = [epoch, self.board.id, span.writer, span.first, span.last, _encode(told)]
        for row in rows:
            args += (
                user_id(row.user),
                "" if row.total is None else row.total,
                b"" if row.total is None else order_key(row.total, row.reached),
                row.version.to_bytes(8, "big"),
                row.user.bytes,
            )
        with redis_errors():
            answer = await self._apply(keys=self._prefix, args=args)
        if answer[0] == 0:
            return int(answer[1])
        _, version, top, *ranks = answer
        return Applied(Mark(epoch, int(version)), int(top), tuple(rank or None for rank in ranks))
