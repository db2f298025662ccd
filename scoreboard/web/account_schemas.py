"""The types of responses about one's own account, for the OpenAPI document; see web.schemas for the others.

Tested in tests/web/test_openapi.py.
"""

from typing import Any, Literal

import msgspec


class Me(msgspec.Struct, frozen=True):
    """An account as its owner sees it."""

    userId: str
    username: str
    email: str | None  # null: a user without an address, such as a guest
    avatarUrl: str | None
    createdAt: str
    guest: bool  # whether it may become an account by /auth/link


class MeAnswer(msgspec.Struct):
    """One's own profile."""

    success: bool
    data: Me


class OwnSession(msgspec.Struct, frozen=True):
    """One of the user's log-ins. `lastUsedAt` is its last refresh: a client in use refreshes every 15 minutes."""

    id: str
    createdAt: str
    lastUsedAt: str
    client: str  # browser and system, such as "Firefox on Linux"; "" when they are not known
    current: bool  # whether this request belongs to it


class OwnSessions(msgspec.Struct, frozen=True):
    """Sessions that have not ended, the newest first. `next` is the cursor of the next page, null on the last one."""

    sessions: list[OwnSession]
    next: str | None


class OwnSessionsAnswer(msgspec.Struct):
    """One's own sessions."""

    success: bool
    data: OwnSessions


class EndSessionsQuery(msgspec.Struct):
    """`current`: this session goes on."""

    keep: Literal["", "current"] = ""


class LoggedAction(msgspec.Struct, frozen=True):
    """An action that counted. `timestamp` is when it was recorded; `reversed`: its points were taken back since."""

    actionId: str
    actionType: str
    pointsAwarded: int
    newScore: int
    timestamp: str
    metadata: dict[str, Any] | None
    reversed: bool


class History(msgspec.Struct):
    """Actions, the newest first. `next` is the cursor of the next page, null on the last one."""

    actions: list[LoggedAction]
    next: str | None


class HistoryAnswer(msgspec.Struct):
    """One's own actions."""

    success: bool
    data: History


class Export(msgspec.Struct):
    """All that is stored about a user, but hashes of secrets and what moderators keep to themselves. More members may
    come."""

    exportedAt: str
    profile: dict[str, Any]
    formerNames: list[dict[str, Any]]
    identities: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    startedActions: list[dict[str, Any]]
    heldActions: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    reversals: list[dict[str, Any]]
    bans: list[dict[str, Any]]
    auditEvents: list[dict[str, Any]]
    actions: list[LoggedAction]


class ExportAnswer(msgspec.Struct):
    """A file to download. It is sent in pieces; one that was cut off is no JSON."""

    success: bool
    data: Export


class PublicKey(msgspec.Struct, omit_defaults=True):
    """A JSON Web Key (RFC 7517) of an Ed25519 key (RFC 8037)."""

    kty: str
    crv: str
    use: str
    alg: str
    kid: str
    x: str


class PublicKeys(msgspec.Struct):
    """The keys that verify access tokens, the one that signs now first."""

    keys: list[PublicKey]
