"""Boards for the tests of live: two that a hub may have, snapshots of them, what the bus says of one."""

from uuid import UUID

from scoreboard.domain.boards import LEADERBOARD, Board, BoardVersion, Entry, Snapshot
from scoreboard.storage.bus import Personal, Update

BOARD, OTHER = LEADERBOARD, Board("other")


def snapshot(users: str, top: int, *, epoch: int = 1, stale_since_ms: int = 0, board: Board = BOARD) -> Snapshot:
    """The board of these users, one letter each, in this order."""
    rows = tuple(Entry(rank, user, user.upper(), 100 - rank) for rank, user in enumerate(users, 1))
    return Snapshot(board.id, epoch, top, top, 1_768_041_000_000, rows, stale_since_ms > 0, stale_since_ms)


def update_for(*users: UUID, board: Board = BOARD) -> Update:
    """One action of each of these users, who then stand in this order."""
    personal = tuple(Personal(user, 0, 10, 10, place, 1, "r") for place, user in enumerate(users, 1))
    return Update(board.id, BoardVersion(1, 2), 2, personal)
