"""The form of server keys: `sbk_<id>_<secret><checksum>`. Pure.

1. The id (12 hexadecimal digits) finds the key. It is no secret: it stands in logs, lists and audit events.
2. The secret is 32 random bytes in base64url.
3. The checksum is the CRC-32 of all before it, as 6 characters of base 62. It shows that a text is a whole key of ours:
   scanners of repositories find keys without asking the server, and a typo is told apart from a revoked key. It
   protects nothing.
4. Only the SHA-256 of the whole key is stored. A slow hash would add nothing: nobody can try 2^256 secrets.
"""

import base64
import hashlib
import re
from zlib import crc32

PREFIX = "sbk_"
ID_BYTES = 6
SECRET_BYTES = 32  # 256 bits
MAX_KEY_LENGTH = 66  # characters; every key has as many

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECKSUM_LENGTH = 6  # 62^6 is more than 2^32
_KEY = re.compile(r"sbk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}[0-9A-Za-z]{6}").fullmatch


def make_key(key_id: str, secret: bytes) -> str:
    """The key of that id with that secret, which has SECRET_BYTES random bytes."""
    begin = f"{PREFIX}{key_id}_{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"
    return begin + _checksum(begin)


def key_id_of(text: str) -> str | None:
    """The id in a text that has the form of a key and the right checksum, else None. The secret is not verified."""
    if len(text) != MAX_KEY_LENGTH or not (found := _KEY(text)):
        return None
    return found[1] if _checksum(text[:-_CHECKSUM_LENGTH]) == text[-_CHECKSUM_LENGTH:] else None


def digest(key: str) -> bytes:
    """The SHA-256 that is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


def _checksum(text: str) -> str:
    rest, digits = crc32(text.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
