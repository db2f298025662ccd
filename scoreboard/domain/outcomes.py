"""A submitted action and its outcomes: the values that go down the write path and come back.

`operations.submit_action` makes submitted actions and gives their outcomes to the web. `storage.commit` turns the one
into the other.
"""

from uuid import UUID

import msgspec

from scoreboard.domain.conditions import Conditions, HeldStatus
from scoreboard.domain.errors import Code, FieldError, LimitLayer, Refusal, rate_limited


class SubmittedAction(msgspec.Struct, frozen=True):
    """A verified user's signed action, or one that a server key submits for a user. The stores have not decided about
    it yet."""

    user: UUID
    action_id: str
    action_type: str
    timestamp_ms: int
    metadata: str | None  # JSON text
    signature: str
    body_sha256: bytes
    request_id: str
    points_or_refusal: int | Refusal  # points, or why the type's rule refuses it
    cooldown_ms: int  # 0: none
    conditions: Conditions | None = None
    is_limited: bool = True  # False: of a server key; the limits and cooldowns of users do not apply


class Recorded(msgspec.Struct, frozen=True):
    """The action counts. `rank` is None while Redis is out of reach or its board is being rebuilt."""

    user: UUID
    previous: int
    points: int
    new: int
    rank: int | None
    at_ms: int  # when PostgreSQL recorded it, Unix milliseconds
    left: int | None = None  # actions that the user's minute has room for after it; None: not known, or no limit


class Duplicate(msgspec.Struct, frozen=True):
    """This user's actionId was processed before.

    `original` is its outcome with the present rank; None if the body was another one.
    """

    original: Recorded | None


class Held(msgspec.Struct, frozen=True):
    """The action waits for a decision, or waited for one: it was sent again, and this is its present state."""

    user: UUID
    action_id: str
    action_type: str
    points: int
    status: HeldStatus
    held_ms: int  # Unix milliseconds
    expires_ms: int  # until when it waits
    reason: str | None = None  # of the decision


Outcome = Recorded | Duplicate | Held | Refusal

USER_DELETED = Refusal(Code.UNAUTHORIZED, "This account no longer exists.")
UNSTORABLE_ACTION = Refusal(
    Code.INVALID_ACTION,
    "The action holds a value that cannot be stored.",
    (FieldError("metadata", "holds a value that cannot be stored"),),
)


def out_of_service(detail: str) -> Refusal:
    """503: nothing was recorded, or a retry with the same actionId learns the outcome."""
    return Refusal(Code.SERVICE_UNAVAILABLE, detail, retry_after=1)


OUTCOME_UNKNOWN = out_of_service(
    "The database went away. Send the same actionId again to learn whether it was recorded."
)

LOCKED = out_of_service("Another session of the database holds this account's rows. Nothing was recorded.")


def too_many_actions(wait_ms: int) -> Refusal:
    """429: the user's sliding window is full."""
    return rate_limited(LimitLayer.USER, "You have used all your actions of this minute.", _seconds(wait_ms))


def cooling_down(wait_ms: int) -> Refusal:
    """429: the user's last action of this type is too recent."""
    return rate_limited(LimitLayer.COOLDOWN, "This action is cooling down.", _seconds(wait_ms))


def daily_cap_reached(wait_ms: int) -> Refusal:
    """429: the user has what actions of this type give in a day."""
    return rate_limited(LimitLayer.DAILY, "You have all that this action gives in a day.", _seconds(wait_ms))


def too_many_starts(wait_ms: int) -> Refusal:
    """429: the user began too many actions in the last minute."""
    return rate_limited(LimitLayer.USER, "You have started too many actions in this minute.", _seconds(wait_ms))


def too_much_evidence(wait_ms: int) -> Refusal:
    """429: the user has uploaded what a day allows."""
    return rate_limited(LimitLayer.DAILY, "You have uploaded as much evidence as a day allows.", _seconds(wait_ms))


TOO_MANY_HELD = rate_limited(LimitLayer.USER, "Too many of your actions wait for a decision.", 3600, names_wait=False)


def _seconds(wait_ms: int) -> int:
    """Rounded up, so that a client that waits as long is not refused again."""
    return max(1, -(-wait_ms // 1000))
