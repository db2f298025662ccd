"""A log-in with an outside issuer that a browser has begun: state, nonce and PKCE verifier (RFC 9700, RFC 7636). Pure.

Nothing is kept on the server, so the browser may come back to another node. A cookie carries 32 random bytes, the end
of its time and a tag; `state`, `nonce` and verifier are derived from them with a key that only servers have:

1. The tag and what is derived depend on the issuer's name. A cookie for one issuer fits no other (mix-up).
2. Who reads the cookie, or the address that the browser is sent to, knows no verifier: a stolen code can't be redeemed.
3. All three values of an attempt belong together. A code of another attempt has another nonce.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SEED_BYTES = 32  # random, of one attempt
ATTEMPT_SECONDS = 600  # a person may have to find a second factor
_TIME_BYTES = 8
_TAG_BYTES = 32
_BYTES = _TIME_BYTES + SEED_BYTES + _TAG_BYTES
_CHARACTERS = _BYTES * 4 // 3  # base64; 72 bytes need no padding
_INFO = b"scoreboard log-in attempt"  # so that other keys derived from the same master key are different


class LogInAttempt(NamedTuple):
    """The values of one attempt, as text for addresses and forms."""

    state: str
    nonce: str
    verifier: str

    @property
    def challenge(self) -> str:
        """The verifier's hash (PKCE S256)."""
        return _text(sha256(self.verifier.encode()).digest())

    def __repr__(self) -> str:
        return "LogInAttempt()"  # never the values, whatever prints it


def make_cookie(master_key: bytes, issuer: str, seed: bytes, *, now: float) -> str:
    """The cookie of a new attempt. `seed`: SEED_BYTES random bytes; `now` in Unix seconds."""
    content = int(now + ATTEMPT_SECONDS).to_bytes(_TIME_BYTES) + seed
    return _text(content + _derive(master_key, b"tag", issuer, content))


def read_cookie(master_keys: Mapping[int, bytes], issuer: str, value: str, *, now: float) -> LogInAttempt | None:
    """The attempt of a cookie; None unless it was made for this issuer with a live master key, and its time is not
    over. Never raises."""
    if len(value) != _CHARACTERS or not value.isascii():
        return None
    try:
        raw = base64.b64decode(value, altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    content, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    for master_key in master_keys.values():
        if hmac.compare_digest(_derive(master_key, b"tag", issuer, content), tag):
            break
    else:
        return None
    if int.from_bytes(content[:_TIME_BYTES]) <= now:
        return None
    state, nonce, verifier = (_text(_derive(master_key, use, issuer, content)) for use in (b"state", b"nonce", b"pkce"))
    return LogInAttempt(state, nonce, verifier)


def _derive(master_key: bytes, use: bytes, issuer: str, content: bytes) -> bytes:
    return hmac.digest(_key(master_key), b"%b\0%b\0%b" % (use, issuer.encode(), content), "sha256")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@lru_cache(16)  # master keys: there are one or two; deriving takes ten times as long as the tag
def _key(master_key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(master_key)
