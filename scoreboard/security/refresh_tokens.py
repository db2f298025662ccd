"""Refresh tokens: opaque and spent by use. The next token can be computed again, so it need not be stored. Pure.

1. A token is base64url(sid ‖ value ‖ tag).
2. The first value is random. Each next one is HMAC(master key, spent token). So two tabs that refresh at once, or a
   client whose answer was lost, get the same next token.
3. The tag proves that this installation made the token. Only the reuse of such a token counts as theft, so nobody can
   end a session by knowing its id.
4. Only the SHA-256 of the live and of the last spent token is stored.
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
    """The session that a token names; None when the text has not the form of a token. It is not verified."""
    raw = _decode(token)
    return None if raw is None else UUID(bytes=raw[:16])


def is_ours(master_keys: Mapping[int, bytes], token: str) -> bool:
    """Whether this installation made the token, with any live master key."""
    raw = _decode(token)
    if raw is None:
        return False
    content, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    return any(hmac.compare_digest(_tag(master_key, content), tag) for master_key in master_keys.values())


def digest(token: str) -> bytes:
    """The SHA-256 that is stored of a token. It needs no salt: the value has 256 random bits."""
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
