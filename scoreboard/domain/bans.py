"""Bans: what they hide, and what a banned user is told. Pure.

Tested in tests/storage/postgres/test_bans.py and tests/storage/test_hidden_users.py.
"""

from enum import IntEnum

from scoreboard.domain.errors import Code, Refusal


class Ban(IntEnum):
    """The values of `users.ban`. Whoever has one is on no board that others see; the total stays in the ledger."""

    NONE = 0
    SHADOW = 1  # the user submits as always, and sees the rank that he would have
    FULL = 2  # the user submits nothing, and has no rank


def banned(reason: str | None) -> Refusal:
    """The refusal of a banned user's action. `reason`: as the moderator wrote it, if the user may read it."""
    return Refusal(Code.FORBIDDEN, f"This account is banned: {reason}" if reason else "This account is banned.")
