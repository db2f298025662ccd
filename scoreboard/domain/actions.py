"""The body of `POST /scores/action`, decoded strictly.

`parse_action` returns an Action or a Refusal and never raises. `scoring` decides what an action is worth. Its age is
compared with the stores' clock in `storage.redis.limits`, with the bounds named here.
"""

import json
import re
from datetime import UTC, datetime
from math import isinf
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from scoreboard.domain.errors import Code, FieldError, Refusal

MAX_ACTION_ID_LENGTH = 100  # characters; specification: action_logs.action_id is VARCHAR(100)
MAX_ACTION_TYPE_LENGTH = 50  # characters; specification: VARCHAR(50)
MAX_TIMESTAMP_LENGTH = 40  # characters; with nanoseconds and a zone it has 35
MAX_USER_ID_LENGTH = 100  # characters; a UUID has 36, and other ids are refused as not the user's own
MAX_ACTION_AGE_MS = 5 * 60 * 1000  # specification: reject a timestamp more than 5 minutes old
# levels of nesting in metadata; without a limit of its own, the size of Python's stack would decide
MAX_METADATA_DEPTH = 32
MAX_ACTION_AHEAD_MS = 60 * 1000  # contract: or more than 60 s ahead (clocks of phones differ)

MAX_START_ID_LENGTH = 36  # characters; a UUID
MAX_EVIDENCE_BYTES = 262_144  # of one blob; a replay has some kilobytes

# What decoding untrusted JSON can raise: malformed or badly typed, not UTF-8, nested deeper than the stack allows.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class EvidenceClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names the blob that proves an action, by its hash and its size in bytes."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Meta(ge=1, le=MAX_EVIDENCE_BYTES)]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    actionId: Annotated[str, Meta(min_length=1, max_length=MAX_ACTION_ID_LENGTH)]
    actionType: Annotated[str, Meta(min_length=1, max_length=MAX_ACTION_TYPE_LENGTH)]
    timestamp: Annotated[str, Meta(max_length=MAX_TIMESTAMP_LENGTH)]
    metadata: dict[str, Any] | None = None
    userId: Annotated[str, Meta(max_length=MAX_USER_ID_LENGTH)] | None = None
    startId: Annotated[str, Meta(max_length=MAX_START_ID_LENGTH)] | None = None
    evidence: EvidenceClaim | None = None


class Action(msgspec.Struct, frozen=True):
    """One action as its user claims it. `timestamp_ms` is in Unix milliseconds."""

    id: str
    type: str
    timestamp_ms: int
    metadata: dict[str, Any] | None
    # the JSON text that is stored; encoded here, so that a value that can't be encoded never reaches a batch
    metadata_json: str | None
    user: str | None = None  # the body's userId, to be compared with the token's subject
    start: str | None = None  # the body's startId
    evidence: EvidenceClaim | None = None


def read_float(text: str) -> float:
    """The same number as msgspec's own, in a tenth of the time in the worst case.

    msgspec takes 6 µs for `1e-320`, and a body can hold 2,300 of these.
    """
    number = float(text)
    if isinf(number):
        raise ValueError("Number out of range")
    return number


_encode = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(_Body, float_hook=read_float).decode
_LENGTH = re.compile(r"Expected `str` of length ([<>])= ([0-9]+)").fullmatch
_NUL = b"\\u0000"


def parse_action(body: bytes) -> Action | Refusal:
    """The action in a request's raw body, or the refusal (400 INVALID_ACTION)."""
    if (
        _NUL in body
    ):  # PostgreSQL's text and jsonb can't hold it; a text with an escaped backslash before it is refused as well
        return invalid("body", "must not contain \\u0000")
    try:
        raw = _decode_body(body)
        if (
            body.count(b"[") + body.count(b"{") > MAX_METADATA_DEPTH
            and nesting_depth(raw.metadata) > MAX_METADATA_DEPTH
        ):
            return invalid("metadata", f"must not be nested deeper than {MAX_METADATA_DEPTH} levels")
        metadata_json = None if raw.metadata is None else _encode(raw.metadata).decode()
        if _may_repeat(body, raw, metadata_json):
            refuse_repeated_names(body)
    except msgspec.ValidationError as exc:
        return invalid(*field_and_message(exc))
    except (*DECODE_ERRORS, ValueError) as exc:
        return invalid("body", f"is not JSON that can be read: {str(exc)[:100]}")
    timestamp = parse_timestamp(raw.timestamp)
    if timestamp is None:
        return invalid("timestamp", "must be an ISO 8601 date and time with a zone, such as 2026-01-10T10:30:00Z")
    return Action(
        raw.actionId, raw.actionType, timestamp, raw.metadata, metadata_json, raw.userId, raw.startId, raw.evidence
    )


def field_and_message(error: msgspec.ValidationError) -> tuple[str, str]:
    """The field with the fault, and the fault, from msgspec's "message - at `$.field`"."""
    message, _, path = str(error).partition(" - at `$.")
    if found := _LENGTH(message):
        bound, plural = "most" if found[1] == "<" else "least", "" if found[2] == "1" else "s"
        message = f"must have at {bound} {found[2]} character{plural}"
    return path.rstrip("`").split(".")[0].split("[")[0] or "body", message[:200]


def nesting_depth(value: object) -> int:
    """How many levels of containers there are, counted without recursion."""
    depth, level = 0, [value]
    while level := [
        inner
        for one in level
        if isinstance(one, dict | list)
        for inner in (one.values() if isinstance(one, dict) else one)
    ]:
        depth += 1
    return depth


def _may_repeat(body: bytes, raw: _Body, metadata_json: str | None) -> bool:
    """Whether an object may have a name twice; False is certain.

    Without a repetition every string of the body is there after decoding, so both have the same number of quotes.
    """
    strings = 6 + 2 * (raw.userId is not None) + (metadata_json is not None)  # names and texts outside of the metadata
    strings += 2 * (raw.startId is not None) + 4 * (raw.evidence is not None)
    return b"\\" in body or body.count(b'"') != 2 * strings + (metadata_json.count('"') if metadata_json else 0)


def refuse_repeated_names(body: bytes) -> None:
    """Raises ValueError when an object has a name twice.

    msgspec takes the last one, and another reader of the same body could take the first.
    """
    json.loads(body, object_pairs_hook=_once_each)


def _once_each(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in one object")


def parse_timestamp(text: str) -> int | None:
    """Unix milliseconds of an ISO 8601 time; None when the text is none, or has no zone."""
    if len(text) > MAX_TIMESTAMP_LENGTH:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return None
        return round(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def invalid(field: str, message: str) -> Refusal:
    """400 INVALID_ACTION that names the field."""
    return Refusal(Code.INVALID_ACTION, f"{field} {message}", (FieldError(field, message),))


def is_timely(timestamp_ms: int, now_ms: int) -> bool:
    """Whether an action of that time may be submitted now."""
    return now_ms - MAX_ACTION_AGE_MS <= timestamp_ms <= now_ms + MAX_ACTION_AHEAD_MS


TOO_OLD_OR_AHEAD = invalid("timestamp", "must be at most 5 minutes old and at most 60 seconds ahead")


def is_own_action(action: Action, user: UUID) -> bool:
    """Whether the body's userId, if there is one, is the token's subject."""
    return action.user is None or action.user.lower() == str(user)
