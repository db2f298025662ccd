"""The types of responses, headers and queries that the routes name, for the OpenAPI document (web.openapi).

Most are never made into objects: the hot routes write bytes, and requests are decoded by the routes themselves. The
types of request bodies stand beside their decoders, in web.routes. `media_type` is that of a response that is not JSON,
"" for one without a body. Tested in tests/web/test_openapi.py.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from scoreboard.domain.actions import (
    MAX_ACTION_ID_LENGTH,
    MAX_ACTION_TYPE_LENGTH,
    MAX_START_ID_LENGTH,
    MAX_TIMESTAMP_LENGTH,
    MAX_USER_ID_LENGTH,
    EvidenceClaim,
)
from scoreboard.domain.boards import LEADERBOARD, READ_SIZE, TOP_SIZE, Entry
from scoreboard.domain.client_messages import MAX_CHANNEL_LENGTH
from scoreboard.domain.conditions import HeldStatus
from scoreboard.domain.queries import MAX_CURSOR_LENGTH, MAX_PAGE_ROWS, MAX_QUERY_BYTES, PAGE_ROWS
from scoreboard.operations.guests import GuestLoggedIn
from scoreboard.operations.sessions import LoggedIn

NO_BODY = ""


class NoContent(msgspec.Struct):
    """Done."""

    media_type: ClassVar[str] = NO_BODY


# ---- accounts -------------------------------------------------------------------------------------------------------


class LoggedInAnswer(msgspec.Struct):
    """Logged in. A browser finds the refresh token in a cookie instead."""

    success: bool
    data: LoggedIn


class GuestLoggedInAnswer(msgspec.Struct):
    """Logged in as a guest. `deviceKey` is there only when the server has made it: keep it, it is not shown again."""

    success: bool
    data: GuestLoggedIn


class LogInRedirect(msgspec.Struct):
    """The browser is sent on: to the issuer, to the page, or to a page that says why the log-in failed."""

    media_type: ClassVar[str] = NO_BODY


class AuthorizationQuery(msgspec.Struct):
    """What an OpenID Provider answers by the browser; other parameters are ignored."""

    code: str = ""
    state: str = ""
    error: str = ""
    error_description: str = ""
    iss: str = ""


Cursor = Annotated[str, Meta(max_length=MAX_CURSOR_LENGTH)]


class PageQuery(msgspec.Struct):
    """How many, and after which: `next` of the page before."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE_ROWS)] = PAGE_ROWS
    cursor: Cursor = ""


# ---- scores ---------------------------------------------------------------------------------------------------------


class Scored(msgspec.Struct, frozen=True):
    """The specification's answer to an action."""

    userId: str
    previousScore: int
    pointsAwarded: int
    newScore: int
    newRank: int | None
    timestamp: str


class ScoredAnswer(msgspec.Struct):
    """The points are recorded."""

    success: bool
    data: Scored


class HeldAction(msgspec.Struct, frozen=True):
    """An action of a type that somebody must approve. `points`: what it gives when it is approved; `expiresAt`: until
    when it waits; `reason`: of the decision."""

    actionId: str
    actionType: str
    status: HeldStatus
    points: int
    heldAt: str
    expiresAt: str
    reason: str | None


class HeldActionAnswer(msgspec.Struct):
    """The action waits for a decision. Sent again, its present state."""

    success: bool
    data: HeldAction


class Started(msgspec.Struct, frozen=True):
    """A start: the action names `startId`, once and before `expiresAt`."""

    startId: str
    expiresAt: str


class StartedAnswer(msgspec.Struct):
    """The action has begun."""

    success: bool
    data: Started


class HeldEvidence(msgspec.Struct, frozen=True):
    """The blob that an action names. `uploaded`: whether the server has it."""

    sha256: str
    size: int
    uploaded: bool


class OwnHeldAction(msgspec.Struct, frozen=True):
    """An own action that waits, or waited, for a decision."""

    actionId: str
    actionType: str
    status: HeldStatus
    points: int
    heldAt: str
    expiresAt: str
    reason: str | None
    decidedAt: str | None
    evidence: HeldEvidence | None


class OwnHeldActions(msgspec.Struct, frozen=True):
    """A page, newest first. `next`: the cursor of the next one, null on the last."""

    held: list[OwnHeldAction]
    next: str | None


class OwnHeldActionsAnswer(msgspec.Struct):
    """One's own actions that wait, or waited, for a decision."""

    success: bool
    data: OwnHeldActions


class OwnPlace(msgspec.Struct):
    """The caller's rank (null before the first action) and score."""

    rank: int | None
    score: int


class Leaderboard(msgspec.Struct, omit_defaults=True):
    """The best players, in order. `stale` while the board cannot be read from Redis."""

    leaderboard: list[Entry]
    lastUpdated: str
    currentUser: OwnPlace | msgspec.UnsetType = msgspec.UNSET
    stale: bool = False


class LeaderboardAnswer(msgspec.Struct):
    """The board."""

    success: bool
    data: Leaderboard


class ActionBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a user did. The raw bytes are what is signed."""

    actionId: Annotated[str, Meta(min_length=1, max_length=MAX_ACTION_ID_LENGTH)]
    actionType: Annotated[str, Meta(min_length=1, max_length=MAX_ACTION_TYPE_LENGTH)]
    timestamp: Annotated[str, Meta(max_length=MAX_TIMESTAMP_LENGTH, extra_json_schema={"format": "date-time"})]
    metadata: dict[str, Any] | None = None
    userId: Annotated[str, Meta(max_length=MAX_USER_ID_LENGTH)] | None = None
    startId: Annotated[str, Meta(max_length=MAX_START_ID_LENGTH)] | None = None
    evidence: EvidenceClaim | None = None


class ActionHeaders(msgspec.Struct):
    """Lower-case hex of HMAC-SHA256(actionSecret, body), by any live key or by the one named."""

    x_action_signature: Annotated[
        str, Meta(pattern=r"^(v[1-9][0-9]{0,8}\.)?[0-9a-f]{64}$", extra_json_schema={"required": True})
    ]


class LeaderboardQuery(msgspec.Struct):
    """How many entries."""

    limit: Annotated[int, Meta(ge=1, le=READ_SIZE)] = TOP_SIZE


# ---- live transports ------------------------------------------------------------------------------------------------

Channel = Annotated[str, Meta(max_length=MAX_CHANNEL_LENGTH)]
InQuery = Annotated[str, Meta(max_length=MAX_QUERY_BYTES)]  # the whole query has no more


class LiveQuery(msgspec.Struct):
    """A token, for clients that can't set headers."""

    token: InQuery = ""


class StreamQuery(msgspec.Struct):
    """Which board, how, from which position on; a token for those who can't set headers."""

    channel: Channel = LEADERBOARD.id
    mode: Literal["full", "delta"] = "full"
    since: InQuery = ""
    token: InQuery = ""


class StreamHeaders(msgspec.Struct):
    """The position of the last event, as browsers send it when they reconnect."""

    last_event_id: str = ""


class EventStream(msgspec.Struct):
    """Server-Sent Events: those of the WebSocket, `id` is the position. It ends when the token expires, or when the
    server shuts down."""

    media_type: ClassVar[str] = "text/event-stream"


class PollQuery(msgspec.Struct):
    """Which board, the position that the client has, and how long to wait for another, in seconds."""

    channel: Channel = LEADERBOARD.id
    since: InQuery = ""
    wait: Annotated[float, Meta(ge=0, le=30)] = 25.0
    token: InQuery = ""


class Polled(msgspec.Struct, omit_defaults=True):
    """The board, when it is not the one of `since`. `stale` while it cannot be read from Redis."""

    leaderboard: list[Entry]
    position: str
    timestamp: str
    stale: bool = False


class PolledAnswer(msgspec.Struct):
    """The board is another."""

    success: bool
    data: Polled


class Unchanged(msgspec.Struct):
    """The board is still that of `since`."""

    media_type: ClassVar[str] = NO_BODY


# ---- operation ------------------------------------------------------------------------------------------------------


class Alive(msgspec.Struct):
    """The process is alive."""

    alive: bool


class MetricsText(msgspec.Struct):
    """Prometheus' text format."""

    media_type: ClassVar[str] = "text/plain"
