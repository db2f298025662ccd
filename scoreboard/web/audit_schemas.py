"""The types of the transparency log's routes, for the OpenAPI document; as web.schemas.

Tested in tests/web/test_openapi.py.
"""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from scoreboard.domain.actions import MAX_ACTION_ID_LENGTH, MAX_USER_ID_LENGTH

LogNumber = Annotated[int, Meta(ge=0, lt=10**18, extra_json_schema={"required": True})]


class ProofQuery(msgspec.Struct):
    """Whose action, and which."""

    userId: Annotated[str, Meta(max_length=MAX_USER_ID_LENGTH, extra_json_schema={"required": True})]
    actionId: Annotated[str, Meta(min_length=1, max_length=MAX_ACTION_ID_LENGTH, extra_json_schema={"required": True})]


class SizesQuery(msgspec.Struct, rename={"first": "from", "second": "to"}):
    """Two sizes of the log, in leaves, from 1 on."""

    first: LogNumber
    second: LogNumber


class LeavesQuery(msgspec.Struct, rename={"start": "from", "end": "to"}):
    """Indexes of leaves: from the first up to, without, the second; at most 1000."""

    start: LogNumber
    end: LogNumber


class AuditProof(msgspec.Struct, frozen=True):
    """That an action is a leaf of the log. SHA-256 over a zero byte and the record's UTF-8 bytes is leaf `index` of the
    tree of `size` leaves, whose root the checkpoint names; `path` is RFC 6962's. `action` in the record is the hex of
    SHA-256 over the salt's bytes, `action:` and the action's id."""

    record: str
    salt: str
    index: int
    size: int
    path: list[str]
    checkpoint: str


class AuditProofAnswer(msgspec.Struct):
    """The proof."""

    success: bool
    data: AuditProof


class ConsistencyProof(msgspec.Struct, frozen=True):
    """RFC 6962's consistency proof, in hex."""

    path: list[str]


class ConsistencyAnswer(msgspec.Struct):
    """The proof."""

    success: bool
    data: ConsistencyProof


class CheckpointText(msgspec.Struct):
    """A signed note: C2SP tlog-checkpoint."""

    media_type: ClassVar[str] = "text/plain"


class VerifierKeyText(msgspec.Struct):
    """The public key, as a vkey of C2SP signed-note."""

    media_type: ClassVar[str] = "text/plain"


class LeafLines(msgspec.Struct):
    """`{"index": …, "hash": …}` a line."""

    media_type: ClassVar[str] = "application/jsonl"
