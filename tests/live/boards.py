"""Boards for the tests of live: two boards of a hub, snapshots of them, and the bus' message of a change."""

from uuid import UUID

from scoreboard.domain.boards import LEADERBOARD, Board, BoardVersion, Entry, Snapshot
from scoreboard.storage.bus import Personal, Update

BOARD, OTHER = LEADERBOARD, Board("other")


def snapshot(
    users: str, shown_version: int, *, epoch: int = 1, stale_since_ms: int = 0, board: Board = BOARD
) -> Snapshot:
    """The board of these users, one letter each, in this order."""
    rows = tuple(Entry(rank, user, user.upper(), 100 - rank) for rank, user in enumerate(users, 1))
    return Snapshot(
        board.id, epoch, shown_version, shown_version, 1_768_041_000_000, rows, stale_since_ms > 0, stale_since_ms
    )


def update_for(*users: UUID, board: Board = BOARD) -> Update:
    """The message after one action of each of these users, who then have this order."""
    personal = tuple(Personal(user, 0, 10, 10, place, 1, "r") for place, user in enumerate(users, 1))
    return Update(board.id, BoardVersion(1, 2), 2, personal)
