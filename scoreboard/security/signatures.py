"""Action signatures: the HMAC that shows an action's body is what the session's client sent.

Each session has an action secret for each master key version: HKDF(master key, user ‖ sid). It is derived and never
stored. The client has it as text (base64url), and the UTF-8 bytes of that text are the HMAC key, so that no client has
to decode it. Pure.
"""

import base64
import hmac
import re
from collections.abc import Mapping
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from scoreboard.security.signing import sign

__all__ = ["action_secret", "action_secrets", "matches", "sign"]

SECRET_BYTES = 32  # as many as SHA-256 gives back
HEX_LENGTH = 64  # characters of an HMAC-SHA256 in hex
_INFO = b"scoreboard action secret"  # so that other keys derived from the same master key are different
_FORM = re.compile(r"(?:v([1-9][0-9]{0,8})\.)?([0-9a-f]{64})")


def action_secret(master_key: bytes, user: UUID, sid: UUID) -> str:
    """A session's secret under one master key. It is always the same for the same key."""
    derived = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=_INFO + user.bytes + sid.bytes).derive(
        master_key
    )
    return base64.urlsafe_b64encode(derived).rstrip(b"=").decode()


def action_secrets(master_keys: Mapping[int, bytes], user: UUID, sid: UUID) -> dict[int, bytes]:
    """The HMAC keys of a session, one a live master key version."""
    return {version: action_secret(master_key, user, sid).encode() for version, master_key in master_keys.items()}


def matches(signature: str, body: bytes, secrets: Mapping[int, bytes]) -> bool:
    """Whether the signature is this body's. Lower-case hex alone is compared under every live key, `v<n>.<hex>` under
    the named version only."""
    if len(signature) == HEX_LENGTH and len(secrets) == 1 and signature.isascii():  # nearly every request
        (secret,) = secrets.values()
        return hmac.compare_digest(sign(secret, body), signature)
    found = _FORM.fullmatch(signature)
    if found is None:
        return False
    version, given = found.groups()
    tried = (
        secrets.values() if version is None else [secret for known, secret in secrets.items() if known == int(version)]
    )
    matched = False
    for secret in tried:  # all of them, so that the time does not show which key matched
        matched |= hmac.compare_digest(sign(secret, body), given)
    return matched
