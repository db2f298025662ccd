"""The action on the write path and its outcomes: values only.

`operations.submit_action` makes and queues the actions; `storage.commit` returns their outcomes, which the web sends.
"""

from uuid import UUID

import msgspec

from scoreboard.domain.errors import Code, FieldError, LimitLayer, Refusal, rate_limited


class SubmittedAction(msgspec.Struct, frozen=True):
    """A verified user's signed action, on which the stores have not decided yet."""

    user: UUID
    action_id: str
    action_type: str
    timestamp_ms: int
    metadata: str | None  # JSON text
    signature: str
    body_sha256: bytes
    request_id: str
    points_or_refusal: int | Refusal  # points, or the refusal by the rule of its type
    cooldown_ms: int  # 0: none


class Recorded(msgspec.Struct, frozen=True):
    """The action was recorded. `rank` is None while Redis is out of reach or its board is being rebuilt."""

    user: UUID
    previous: int
    points: int
    new: int
    rank: int | None
    at_ms: int  # when PostgreSQL recorded it, Unix milliseconds


class Duplicate(msgspec.Struct, frozen=True):
    """This user's actionId was processed before. `original` is that outcome with the current rank; None if the body was
    different."""

    original: Recorded | None


Outcome = Recorded | Duplicate | Refusal

USER_DELETED = Refusal(Code.UNAUTHORIZED, "This account no longer exists.")
UNSTORABLE_ACTION = Refusal(
    Code.INVALID_ACTION,
    "The action holds a value that cannot be stored.",
    (FieldError("metadata", "holds a value that cannot be stored"),),
)


def out_of_service(detail: str) -> Refusal:
    """503: nothing was recorded, or it is unknown whether it was, and a retry of the same actionId shows it."""
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


def _seconds(wait_ms: int) -> int:
    """Rounded up, so that a client that waits as long is not refused again."""
    return max(1, -(-wait_ms // 1000))
