"""Device cookies (OWASP): they show that a browser has logged in to an account before. Pure: keys and nonces are
arguments.

A cookie gives no access. Because of it, wrong passwords from other browsers do not count against this browser. A cookie
is base64url(user ‖ nonce ‖ tag); the nonce is different for each log-in. The server accepts it until the master key is
retired; the browser drops it after a year.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 16  # 128 bits: different for each log-in
LIFETIME_SECONDS = 365 * 86_400  # a year
_TAG_BYTES = 16  # 128 bits: can't be guessed
_BYTES = 16 + NONCE_BYTES + _TAG_BYTES
_CHARACTERS = _BYTES * 4 // 3  # base64; 48 bytes need no padding
_INFO = b"scoreboard device cookie"  # so that other keys derived from the same master key are different


class Device(NamedTuple):
    """A browser that has logged in before."""

    user: UUID
    nonce: str  # hex


def make(master_key: bytes, user: UUID, nonce: bytes) -> str:
    """The cookie's value."""
    content = user.bytes + nonce
    return base64.urlsafe_b64encode(content + _tag(master_key, content)).decode()


def read(master_keys: Mapping[int, bytes], value: str) -> Device | None:
    """The browser that a cookie's value names; None unless it was made with a live master key. Never raises."""
    if len(value) != _CHARACTERS or not value.isascii():
        return None
    try:
        raw = base64.b64decode(value, altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    content, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    if not any(hmac.compare_digest(_tag(master_key, content), tag) for master_key in master_keys.values()):
        return None
    return Device(UUID(bytes=content[:16]), content[16:].hex())


def _tag(master_key: bytes, content: bytes) -> bytes:
    return hmac.digest(_key(master_key), content, "sha256")[:_TAG_BYTES]


@lru_cache(16)  # master keys: there are one or two; deriving takes ten times as long as the tag
def _key(master_key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(master_key)
