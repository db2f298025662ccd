"""Public keys of outside issuers, from a JSON Web Key Set (RFC 7517). Pure.

`parse_key_set` keeps the keys that can verify signatures here, and leaves out all others, as RFC 7517 section 5 says:
a set may have keys of kinds that are not known yet. Which algorithm a key is for follows from the key, never from a
token. Secret parts of a key that was published by mistake are not read.
"""

from dataclasses import dataclass
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

MAX_KEY_SET_BYTES = 65_536  # the largest in use have some 10 kB
MAX_KEYS = 32  # issuers publish two to five; more are left out
MAX_KID_CHARACTERS = 256
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
MAX_RSA_BITS = 8192  # verifying takes a millisecond with it, and longer with more
MAX_RSA_EXPONENT_BITS = 33  # 65537 has 17; a long exponent makes verifying slow

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

# The members that make a public key, by its type; RFC 7518 section 6, RFC 8037 section 2.
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_READERS: dict[str, type[Algorithm]] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}


class KeySetError(ValueError):
    """The document has no key that can be used. The message says why."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key, and the algorithms that it verifies."""

    kid: str | None
    algorithms: frozenset[str]
    key: PublicKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer, in their order."""

    keys: tuple[VerificationKey, ...]

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The one key for this `kid` and algorithm. Without a `kid` (OpenID Connect Core, section 10.1): the one key of
        that algorithm. None when there is none, or more than one."""
        found = [key for key in self.keys if algorithm in key.algorithms and kid in (None, key.kid)]
        return found[0] if len(found) == 1 else None

    def has(self, kid: str | None) -> bool:
        """Whether there is a key with this `kid`, for whatever algorithm."""
        return kid is not None and any(key.kid == kid for key in self.keys)


def parse_key_set(content: bytes) -> KeySet:
    """The usable keys of a set. Raises KeySetError when there is none, or when it is no key set.

    Checking the keys of a set takes a few milliseconds: callers run it in a thread.
    """
    if len(content) > MAX_KEY_SET_BYTES:
        raise KeySetError(f"has more than {MAX_KEY_SET_BYTES} bytes")
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeySetError("is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeySetError("is no key set: it has no list of keys")
    read = (_read(entry) for entry in entries[:MAX_KEYS] if isinstance(entry, dict))
    keys = tuple(key for key in read if key is not None)
    if not keys:
        raise KeySetError("has no key that can be used")
    return KeySet(keys)


def _read(entry: dict[str, Any]) -> VerificationKey | None:
    """One key of a set; None if it is not for signatures, of an unknown kind, weak or damaged."""
    kind, kid, stated = entry.get("kty"), entry.get("kid"), entry.get("alg")
    if not isinstance(kind, str) or kind not in _READERS or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID_CHARACTERS):
        return None
    members = {name: entry.get(name) for name in _PUBLIC_MEMBERS[kind]}
    if not all(isinstance(value, str) for value in members.values()):
        return None
    try:
        key = _READERS[kind].from_jwk({"kty": kind, **members})
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    algorithms = _algorithms(key)
    if stated is not None:
        algorithms = frozenset(algorithms & {stated} if isinstance(stated, str) else ())
    return VerificationKey(kid, algorithms, key) if algorithms else None


def _algorithms(key: object) -> frozenset[str]:
    """The algorithms that a key is for; none for a key that is too weak or too slow."""
    match key:
        case RSAPublicKey():
            is_sound = (
                MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
                and key.public_numbers().e.bit_length() <= MAX_RSA_EXPONENT_BITS
            )
            return frozenset(("RS256", "PS256") if is_sound else ())
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return frozenset(("ES256",))
        case Ed25519PublicKey():
            return frozenset(("EdDSA",))
    return frozenset()
