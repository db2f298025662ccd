"""The types of bodies, queries and responses of /admin, for its routes and the OpenAPI document.

Tested in tests/web/routes/admin/test_access.py.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from scoreboard.domain.admin_queries import DEFAULT_PAGE, MAX_PAGE, MAX_SEARCH_LENGTH
from scoreboard.domain.roles import Role

MAX_REASON_LENGTH = 1_000  # characters, as the columns
MAX_NOTE_LENGTH = 2_000

Reason = Annotated[str, Meta(min_length=1, max_length=MAX_REASON_LENGTH, examples=["Impossible times on 2026-01-10"])]
ShortReason = Annotated[str, Meta(min_length=1, max_length=500, examples=["The replay shows it"])]
BanName = Literal["ban", "shadow"]

Cursor = Annotated[str, Meta(max_length=64)]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE)]


# ---- bodies ---------------------------------------------------------------------------------------------------------


class BanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why, and how: with `shadow` only the user himself still sees himself. `showReason`: the user reads the reason."""

    reason: Reason
    shadow: bool = False
    showReason: bool = False


class ReasonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why."""

    reason: Reason


class WithdrawalBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a decision is taken back. It becomes a note about the user. The body may be left out."""

    may_be_absent: ClassVar[bool] = True
    reason: Reason


class NoteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A note for other moderators; the user never reads it."""

    note: Annotated[str, Meta(min_length=1, max_length=MAX_NOTE_LENGTH, examples=["Asked by mail; answers."])]


class RoleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The new role."""

    role: Literal["viewer", "moderator", "admin", "none"]


class FlagBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether what was done stands, and why."""

    verdict: Literal["approve", "revoke"]
    reason: ShortReason


class HeldBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the action counts, and why. The user reads the reason of a refusal."""

    verdict: Literal["approve", "refuse"]
    reason: ShortReason


# ---- queries --------------------------------------------------------------------------------------------------------


class UsersQuery(msgspec.Struct):
    """The beginning of a name, or a whole e-mail address, id or external id; and the page."""

    query: Annotated[str, Meta(max_length=MAX_SEARCH_LENGTH)] = ""
    cursor: Annotated[str, Meta(max_length=MAX_SEARCH_LENGTH)] = ""
    limit: Limit = DEFAULT_PAGE


class HistoryQuery(msgspec.Struct):
    """The page of the history."""

    cursor: Cursor = ""
    limit: Limit = DEFAULT_PAGE


class FlagsQuery(msgspec.Struct):
    """Flags of one state, of one user, and the page."""

    state: Literal["", "open", "approved", "revoked"] = ""
    user: Annotated[str, Meta(max_length=36)] = ""
    cursor: Cursor = ""
    limit: Limit = DEFAULT_PAGE


class ServerKeysQuery(msgspec.Struct):
    """The page of the list. `cursor`: the id of the last key of the page before."""

    cursor: Cursor = ""
    limit: Limit = DEFAULT_PAGE


class LogQuery(msgspec.Struct):
    """One kind of event, the user it is about, and the page."""

    kind: Annotated[str, Meta(max_length=50)] = ""
    subject: Annotated[str, Meta(max_length=36)] = ""
    cursor: Cursor = ""
    limit: Limit = DEFAULT_PAGE


# ---- responses ------------------------------------------------------------------------------------------------------


class OwnRole(msgspec.Struct):
    """Who asks, and with which role."""

    userId: str
    username: str
    role: Role


class OwnRoleAnswer(msgspec.Struct):
    """The user of the token has a role."""

    success: bool
    data: OwnRole


class AdminUser(msgspec.Struct):
    """A user in a list. `score` is null before the first action."""

    userId: str
    username: str
    avatarUrl: str | None
    role: Role | None
    ban: BanName | None
    score: int | None
    createdAt: str


class AdminUsers(msgspec.Struct):
    """Users by name. `next`: the cursor of the next page; null on the last one."""

    users: list[AdminUser]
    next: str | None


class AdminUsersAnswer(msgspec.Struct):
    """Users who match."""

    success: bool
    data: AdminUsers


class HistoryEntry(msgspec.Struct):
    """What happened. `kind` says what `details` has: of an action also whether it is reversed now."""

    kind: Literal["action", "ban", "reversal", "flag", "held", "note"]
    id: str
    at: str
    details: dict[str, Any]


class AdminUserDetails(msgspec.Struct):
    """A user, with a page of the history, the newest first. `sessions`: how many are open."""

    userId: str
    username: str
    avatarUrl: str | None
    role: Role | None
    ban: BanName | None
    score: int | None
    createdAt: str
    sessions: int
    history: list[HistoryEntry]
    next: str | None


class AdminUserAnswer(msgspec.Struct):
    """One user."""

    success: bool
    data: AdminUserDetails


class Banned(msgspec.Struct):
    """The ban in force."""

    userId: str
    ban: BanName
    banId: str


class BannedAnswer(msgspec.Struct):
    """The user is banned."""

    success: bool
    data: Banned


class Corrected(msgspec.Struct):
    """The user's total on the leaderboard before and after. `pointsAwarded` is negative for a reversal."""

    userId: str
    actionId: str
    previousScore: int
    pointsAwarded: int
    newScore: int
    timestamp: str


class CorrectedAnswer(msgspec.Struct):
    """The action counts no more, or again."""

    success: bool
    data: Corrected


class Noted(msgspec.Struct):
    """The new note."""

    noteId: str


class NotedAnswer(msgspec.Struct):
    """The note is there."""

    success: bool
    data: Noted


class UserRole(msgspec.Struct):
    """A user's role; null: none."""

    userId: str
    role: Role | None


class UserRoleAnswer(msgspec.Struct):
    """The role is set."""

    success: bool
    data: UserRole


class LogEntry(msgspec.Struct):
    """Who did what about whom. `actor`: a user's id, or another name; names are of users who are not deleted."""

    id: str
    kind: str
    actor: str
    actorName: str | None
    subject: str | None
    subjectName: str | None
    details: dict[str, Any]
    at: str


class Log(msgspec.Struct):
    """Events, the newest first. `next`: the cursor of the next page; null on the last one."""

    events: list[LogEntry]
    next: str | None


class LogAnswer(msgspec.Struct):
    """The audit log."""

    success: bool
    data: Log


class AdminFlag(msgspec.Struct):
    """What a rule found about a user. `hits`: how often, while it was open. `decidedByName`: of a moderator who is not
    deleted."""

    flagId: str
    rule: str
    userId: str
    username: str | None
    evidence: dict[str, Any]
    hits: int
    createdAt: str
    lastHitAt: str
    state: Literal["open", "approved", "revoked"]
    decidedBy: str | None
    decidedByName: str | None
    decidedAt: str | None
    reason: str | None


class AdminFlags(msgspec.Struct):
    """Flags, the newest first."""

    flags: list[AdminFlag]
    next: str | None


class AdminFlagsAnswer(msgspec.Struct):
    """A page of flags."""

    success: bool
    data: AdminFlags


class AdminFlagAnswer(msgspec.Struct):
    """The flag as it is now."""

    success: bool
    data: AdminFlag


class AdminHeld(msgspec.Struct):
    """An action that waits, or waited, for a decision. `evidenceSize`: bytes; 0 where the type wants none.
    `isUploaded`: the evidence can be read."""

    heldId: str
    userId: str
    username: str | None
    actionId: str
    actionType: str
    points: int
    status: Literal["held", "approved", "refused"]
    metadata: Any
    evidenceSize: int
    isUploaded: bool
    heldAt: str
    expiresAt: str
    undecided: Literal["approve", "refuse"]
    decidedBy: str | None
    decidedByName: str | None
    decidedAt: str | None
    reason: str | None


class AdminHeldActions(msgspec.Struct):
    """Actions that wait, the oldest first."""

    held: list[AdminHeld]
    next: str | None


class AdminHeldActionsAnswer(msgspec.Struct):
    """A page of actions that wait."""

    success: bool
    data: AdminHeldActions


class AdminHeldAnswer(msgspec.Struct):
    """The action as it is now."""

    success: bool
    data: AdminHeld


class AdminServerKey(msgspec.Struct):
    """A server key without its secret. `overlaps`: the secret before the last rotation is valid too."""

    keyId: str
    name: str
    scopes: list[str]
    createdAt: str
    lastUsedAt: str | None
    expiresAt: str | None
    revokedAt: str | None
    overlaps: bool


class AdminServerKeys(msgspec.Struct):
    """Server keys by their creation, at most as many as a server may have."""

    keys: list[AdminServerKey]
    next: str | None


class AdminServerKeysAnswer(msgspec.Struct):
    """A page of server keys."""

    success: bool
    data: AdminServerKeys


class Evidence(msgspec.Struct):
    """What the user uploaded, as it came."""

    media_type: ClassVar[str] = "application/octet-stream"
