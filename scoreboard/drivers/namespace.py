"""The names of this installation's keys and of its Pub/Sub channel in Redis. Pure.

Two installations may share a Redis: with separate databases, or with separate prefixes (`redis.prefix`). Pub/Sub
channels do not belong to a database, so the channel's name contains the database's number unless that is 0. Without a
prefix, on database 0, the names are the specification's.
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
        """The channel on which the nodes publish changes (specification)."""
        return f"{self.prefix}scoreboard:updates" + (f"@{self.database}" if self.database else "")

    @property
    def limits_since(self) -> str:
        """The key of the time since which the windows of the rate limits are complete (ms, Redis' clock)."""
        return f"{self.prefix}rate_limit:since"

    def board(self, board: Board) -> BoardKeys:
        return _board_keys(f"{self.prefix}{board.id}", f"{{{self.prefix}{board.id}}}")

    def next_board(self, board: Board, epoch: int) -> BoardKeys:
        """The staging keys of a board that is being built for that epoch."""
        tag = f"{{{self.prefix}{board.id}}}:next:{epoch}"
        return _board_keys(f"{tag}:totals", tag)

    def building(self, board: Board) -> str:
        """The key that holds the epoch of the board under staging keys."""
        return f"{{{self.prefix}{board.id}}}:next"

    def lease(self, board: Board) -> str:
        """The key of the lease for repairing the board."""
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
