"""Refresh tokens: opaque, spent by use, and followed by a successor that can be made again without being kept.

A token is base64url(sid ‖ value ‖ tag). The first value is random; each next one is HMAC(master key, spent token), so
two tabs that refresh at once, or a client whose answer was lost, are given the same one. The tag shows that we made a
token: only then does its reuse say that it was stolen, and nobody can end a session by knowing its id. Only SHA-256 of
the live and the last spent token is stored. Pure.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from uuid import UUID

VALUE_BYTES = 32  # 256 bits, and what SHA-256 gives back
_TAG_BYTES = 16  # 128 bits: only to be unforgeable within a session's life
_BYTES = 16 + VALUE_BYTES + _TAG_BYTES
_CHARACTERS = -(-_BYTES * 4 // 3)  # base64 without padding


def make(master_key: bytes, sid: UUID, value: bytes) -> str:
    """The token of a session with that value."""
    content = sid.bytes + value
    return base64.urlsafe_b64encode(content + _tag(master_key, content)).rstrip(b"=").decode()


def next_token(master_key: bytes, previous: str) -> str:
    """The token that follows `previous`, which must have the form of one (`session_of` is not None)."""
    sid = session_of(previous)
    assert sid is not None
    value = hmac.digest(master_key, b"scoreboard refresh successor" + previous.encode(), "sha256")
    return make(master_key, sid, value)


def session_of(token: str) -> UUID | None:
    """The session that a token speaks of; None when it does not have the form of one. Proves nothing."""
    raw = _decode(token)
    return None if raw is None else UUID(bytes=raw[:16])


def is_ours(master_keys: Mapping[int, bytes], token: str) -> bool:
    """Whether we made this token, under any live master key."""
    raw = _decode(token)
    if raw is None:
        return False
    content, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    return any(hmac.compare_digest(_tag(master_key, content), tag) for master_key in master_keys.values())


def digest(token: str) -> bytes:
    """What is stored of a token. No salt: the value has 256 bits of its own."""
    return hashlib.sha256(token.encode()).digest()


def _tag(master_key: bytes, content: bytes) -> bytes:
    return hmac.digest(master_key, b"scoreboard refresh tag" + content, "sha256")[:_TAG_BYTES]


def _decode(token: str) -> bytes | None:
    if len(token) != _CHARACTERS or not token.isascii():
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return raw if len(raw) == _BYTES and base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == token else None
