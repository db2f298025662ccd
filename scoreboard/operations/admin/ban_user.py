"""Bans a user, or lifts a ban: the ledger first, then every board at once.

A ban, put on or lifted, is one transaction with its audit event (storage.postgres.bans). A banned user may log in and
read, so that the user learns of the ban; actions are refused. Tested in tests/operations/admin/test_ban_user.py.
"""

from uuid import UUID

from scoreboard.domain.bans import Ban
from scoreboard.domain.errors import Refusal
from scoreboard.drivers.stores import Stores
from scoreboard.storage.board_refresh import BoardRefresh
from scoreboard.storage.postgres import bans


async def ban_user(
    stores: Stores, boards: BoardRefresh, user: UUID, kind: Ban, reason: str, actor: UUID, *, is_reason_shown: bool
) -> int | Refusal:
    """Bans the user; returns the ban's id. `is_reason_shown`: the user reads the reason when an action is refused.

    Raises StorageUnavailable when PostgreSQL can't be used. After that, and after a cancellation, it is unknown whether
    the user is banned; another try tells.
    """
    outcome = await bans.put_on(stores, user, kind, reason, actor, is_reason_shown=is_reason_shown)
    if not isinstance(outcome, Refusal):
        await boards.send(user)
    return outcome


async def lift_ban(
    stores: Stores, boards: BoardRefresh, user: UUID, actor: UUID, reason: str | None = None
) -> int | Refusal:
    """Lifts the ban in force; returns its id. All points come back. A reason becomes a note. Raises as `ban_user`."""
    outcome = await bans.lift(stores, user, actor, reason)
    if not isinstance(outcome, Refusal):
        await boards.send(user)
    return outcome
