"""The body of `POST /scores/actions`, with which a server key submits up to 500 actions, decoded strictly. Pure.

`split_actions` divides the body, and `parse_bulk_action` decodes one action: a bad one does no harm to the others.
Neither raises. `bulk_points` decides what an action is worth when a server key submits it.

Two actions are the same when their canonical forms are: the JSON array of type, timestamp and points as they came,
then the metadata with its names in order. So white space, the order of names, and by which id a user is named do not
matter to a retry. The user and the actionId are not in it, since they find what was recorded before.
"""

from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from scoreboard.domain.action_rules import MAX_POINTS
from scoreboard.domain.actions import (
    DECODE_ERRORS,
    MAX_ACTION_ID_LENGTH,
    MAX_ACTION_TYPE_LENGTH,
    MAX_METADATA_DEPTH,
    MAX_TIMESTAMP_LENGTH,
    TOO_OLD_OR_AHEAD,
    Action,
    field_and_message,
    invalid,
    is_timely,
    nesting_depth,
    parse_timestamp,
    read_float,
    refuse_repeated_names,
)
from scoreboard.domain.errors import Refusal, invalid_request
from scoreboard.domain.identities import MAX_EXTERNAL_ID_LENGTH
from scoreboard.domain.scoring import Rules, award

MAX_BULK_ACTIONS = 500  # in one request: they are one transaction
MAX_BULK_BODY_BYTES = 262_144  # 500 actions of 500 bytes


class BulkItem(msgspec.Struct, forbid_unknown_fields=True):
    """One action of a user, who is named by `userId` or by `externalId`. `points`: only for types that say so."""

    actionId: Annotated[str, Meta(min_length=1, max_length=MAX_ACTION_ID_LENGTH)]
    actionType: Annotated[str, Meta(min_length=1, max_length=MAX_ACTION_TYPE_LENGTH)]
    timestamp: Annotated[str, Meta(max_length=MAX_TIMESTAMP_LENGTH)]
    metadata: dict[str, Any] | None = None
    userId: UUID | None = None
    externalId: Annotated[str, Meta(min_length=1, max_length=MAX_EXTERNAL_ID_LENGTH)] | None = None
    points: Annotated[int, Meta(ge=1, le=MAX_POINTS)] | None = None


class BulkBody(msgspec.Struct, forbid_unknown_fields=True):
    """Actions for any users. They are answered in their order."""

    actions: Annotated[list[BulkItem], Meta(max_length=MAX_BULK_ACTIONS)]


class BulkAction(msgspec.Struct, frozen=True):
    """One action as the game's server claims it. Either `user` or `external_id` is given."""

    action: Action
    user: UUID | None
    external_id: str | None
    points: int | None
    body_sha256: bytes


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    actions: list[msgspec.Raw]


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_item = msgspec.json.Decoder(BulkItem, float_hook=read_float).decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_NUL = b"\\u0000"
_QUOTES_AROUND = 2  # of the body outside its actions: those of "actions"


def split_actions(body: bytes) -> list[bytes] | Refusal:
    """The JSON text of each action, or the refusal of the whole body (400 INVALID_REQUEST)."""
    try:
        parts = [bytes(part) for part in _decode_body(body).actions]
    except msgspec.ValidationError as exc:
        return invalid_request(*field_and_message(exc))
    except DECODE_ERRORS as exc:
        return invalid_request("body", f"is not JSON that can be read: {str(exc)[:100]}")
    if len(parts) > MAX_BULK_ACTIONS:
        return invalid_request("actions", f"may have {MAX_BULK_ACTIONS} entries")
    if body.count(b'"') != _QUOTES_AROUND + sum(part.count(b'"') for part in parts):
        return invalid_request("body", "has a name twice")  # msgspec would take the last, and another reader the first
    return parts


def parse_bulk_action(text: bytes) -> BulkAction | Refusal:
    """The action in its JSON text, or the refusal (400 INVALID_ACTION)."""
    if _NUL in text:  # PostgreSQL's text and jsonb can't hold it
        return invalid("body", "must not contain \\u0000")
    try:
        item = _decode_item(text)
        if (
            text.count(b"[") + text.count(b"{") > MAX_METADATA_DEPTH
            and nesting_depth(item.metadata) > MAX_METADATA_DEPTH
        ):
            return invalid("metadata", f"must not be nested deeper than {MAX_METADATA_DEPTH} levels")
        metadata = b"" if item.metadata is None else _encode(item.metadata)
        if _may_repeat(text, item, metadata):
            refuse_repeated_names(text)
    except msgspec.ValidationError as exc:
        return invalid(*field_and_message(exc))
    except (*DECODE_ERRORS, ValueError) as exc:
        return invalid("body", f"is not JSON that can be read: {str(exc)[:100]}")
    if (item.userId is None) == (item.externalId is None):
        return invalid("userId", "or externalId must be given, and not both")
    timestamp = parse_timestamp(item.timestamp)
    if timestamp is None:
        return invalid("timestamp", "must be an ISO 8601 date and time with a zone, such as 2026-01-10T10:30:00Z")
    canonical = _encode((item.actionType, item.timestamp, item.points)) + metadata
    return BulkAction(
        Action(item.actionId, item.actionType, timestamp, item.metadata, metadata.decode() or None),
        item.userId,
        item.externalId,
        item.points,
        sha256(canonical).digest(),
    )


def bulk_points(submitted: BulkAction, rules: Rules, now_ms: int) -> int | Refusal:
    """The points of an action that a server key submits, or why it is refused: its time, or its type's rule."""
    action, points = submitted.action, submitted.points
    if not is_timely(action.timestamp_ms, now_ms):
        return TOO_OLD_OR_AHEAD
    rule = rules.get(action.type)
    if rule is None or not rule.free_points:
        return award(action, rules) if points is None else invalid("points", "are given by the rule of this type")
    if points is None:
        return invalid("points", f"are required for this type, 1 to {rule.points}")
    return points if points <= rule.points else invalid("points", f"must be 1 to {rule.points} for this type")


def _may_repeat(text: bytes, item: BulkItem, metadata: bytes) -> bool:
    """Whether an object may have a name twice; False is certain, as in domain.actions."""
    strings = 8 + bool(metadata) + (item.points is not None)  # names, and texts outside of the metadata
    return b"\\" in text or text.count(b'"') != 2 * strings + metadata.count(b'"')
