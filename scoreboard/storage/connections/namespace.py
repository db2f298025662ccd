"""Which part of a Redis is this installation's: the names of its keys and of its Pub/Sub channel. Pure.

Two installations may share a Redis: on databases of their own, or with prefixes of their own (`redis.prefix`). Channels
know no databases, so a channel names its database unless it is the first. Without a prefix, on database 0, the names
are the specification's.
"""

from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.boards import Board


class BoardKeys(NamedTuple):
    """Redis keys of one board, all in one cluster slot (the specification's `leaderboard` hashes to
    `{leaderboard}`'s)."""

    totals: str  # the specification's sorted set: user id → total
    order: str  # score 0, member = order key ‖ raw user id: ZRANK + 1 is the exact rank
    entry: str  # raw user id → order key ‖ version: the member to look up, and the version register
    # epoch, installation, version, top, top_at (ms), size, removed, writers, updated (ms), names, run_id, incomplete
    meta: str
    applied: str  # writer → last sequence that went in without a gap before it


class Namespace(NamedTuple):
    """`prefix` begins every key; `database` is the number of the Redis database."""

    prefix: str = ""
    database: int = 0

    @property
    def updates(self) -> str:
        """Channel of the specification: what has changed."""
        return f"{self.prefix}scoreboard:updates" + (f"@{self.database}" if self.database else "")

    @property
    def limits_since(self) -> str:
        """Since when the windows of the rate limits are complete (ms, Redis' clock)."""
        return f"{self.prefix}rate_limit:since"

    def board(self, board: Board) -> BoardKeys:
        return _board_keys(f"{self.prefix}{board.id}", f"{{{self.prefix}{board.id}}}")

    def next_board(self, board: Board, epoch: int) -> BoardKeys:
        """A board that is built aside, to become the one of that epoch."""
        tag = f"{{{self.prefix}{board.id}}}:next:{epoch}"
        return _board_keys(f"{tag}:totals", tag)

    def building(self, board: Board) -> str:
        """The epoch of the board that is being built aside."""
        return f"{{{self.prefix}{board.id}}}:next"

    def lease(self, board: Board) -> str:
        """Who repairs the board: one node at a time."""
        return f"{{{self.prefix}{board.id}}}:projector"

    def profile(self, user: UUID) -> str:
        return f"{self.prefix}profile:{user}"

    def window(self, user: str) -> str:
        """The specification's sliding window of a user: action id → when (ms)."""
        return f"{self.prefix}rate_limit:user:{user}"

    def cooldown(self, user: str, action_type: str) -> str:
        return f"{self.prefix}cooldown:{user}:{action_type}"


SPECIFIED = Namespace()
"""The names of the specification."""


def _board_keys(totals: str, tag: str) -> BoardKeys:
    return BoardKeys(totals, f"{tag}:order", f"{tag}:entry", f"{tag}:meta", f"{tag}:applied")
