"""Roles of those who look after a scoreboard, and who may give them. Pure.

A role is a column of its user, is read at each request that needs one, and so ends at once when it is taken.
"""

from enum import StrEnum

from scoreboard.domain.errors import Code, Refusal

NO_ROLE = "none"  # how commands and the API write that a user has no role


class Role(StrEnum):
    """In their order: each may do what those before it may."""

    VIEWER = "viewer"  # reads users, their history and the log
    MODERATOR = "moderator"  # decides: bans, reversals, notes, flags, held actions
    ADMIN = "admin"  # gives roles

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what the other may."""
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER = tuple(Role)

OWN_ROLE = Refusal(Code.FORBIDDEN, "Nobody gives himself a role.")
LAST_ADMIN = Refusal(Code.CONFLICT, "The last admin keeps the role. Make another user admin first.")


def read_role(text: str | None) -> Role | None:
    """The role with that name; None for NO_ROLE and for a user without one. Raises ValueError for any other text."""
    return None if text in {None, NO_ROLE} else Role(str(text))


def missing_role(needed: Role) -> Refusal:
    """The refusal of a route for which the user's role is not enough."""
    return Refusal(Code.FORBIDDEN, f"This needs the role {needed}.")


def refuse_own_change(before: Role | None, after: Role | None, admins: int) -> Refusal | None:
    """Why a user may not change his own role so; None when he may. `admins`: how many there are, himself included."""
    if after is not None and (before is None or not before.includes(after)):
        return OWN_ROLE
    return LAST_ADMIN if before is Role.ADMIN and after is not Role.ADMIN and admins <= 1 else None


def refuse_moderation(actor: Role, subject: Role | None) -> Refusal | None:
    """Why somebody with the role `actor` may not ban or correct a user with the role `subject`; None when he may."""
    if subject is Role.ADMIN and actor is not Role.ADMIN:
        return Refusal(Code.FORBIDDEN, "Only an admin decides about an admin.")
    return None
