"""Keeps evidence that users upload: a blob by its SHA-256, before or after the action that names it."""

import re
from hashlib import sha256
from uuid import UUID

from scoreboard.domain.actions import MAX_EVIDENCE_BYTES
from scoreboard.domain.errors import Code, Refusal, invalid_request
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import evidence

_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch

NOT_A_DIGEST = invalid_request("sha256", "must be 64 hexadecimal digits in lower case")
EMPTY = invalid_request("body", "must not be empty")
WRONG_DIGEST = invalid_request("sha256", "is not the SHA-256 of the body")
TOO_LARGE = Refusal(Code.PAYLOAD_TOO_LARGE, f"Evidence may have {MAX_EVIDENCE_BYTES} bytes.")


async def upload_evidence(stores: Stores, user: UUID, digest: str, content: bytes) -> Refusal | None:
    """Keeps the blob. None: it is there; a second upload changes nothing. A Refusal when the hash is wrong, the blob is
    empty or too large, or the user has uploaded too much today.

    Raises StorageUnavailable. Then, and after a cancellation, it may be there or not; the same upload may be repeated.
    """
    if not _DIGEST(digest):
        return NOT_A_DIGEST
    if not content:
        return EMPTY
    if len(content) > MAX_EVIDENCE_BYTES:
        return TOO_LARGE
    own = sha256(content).digest()
    if own.hex() != digest:
        return WRONG_DIGEST
    return await evidence.add(stores, user, own, content)
