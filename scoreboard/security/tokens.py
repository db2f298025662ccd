"""Access tokens: JWTs signed with Ed25519. No other algorithm is accepted. Pure: keys, ids and time are arguments.

`issue` signs with one key. `verify` accepts a token of any live key, named by its `kid`, and returns its claims or
None. It gives no reason, so that a client with a bad token learns none. Revoked sessions are checked in
operations.authenticator.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "EdDSA"
AUDIENCE = "scoreboard"  # a token of the same issuer for another audience is refused
ACCESS_TOKEN_SECONDS = 15 * 60  # specification P0: short-lived access tokens (15 min)
IAT_LEEWAY_SECONDS = 120  # how far the issuing node's clock may be ahead of the verifying node's
MAX_TOKEN_CHARACTERS = 4096  # this server's tokens have about 430; longer ones are refused unparsed
REQUIRED_CLAIMS = ["exp", "iat", "iss", "aud", "sub", "sid", "jti"]

# `exp` and `iat` are compared below with the caller's `now`; PyJWT would read the clock.
_OPTIONS: Any = {"require": REQUIRED_CLAIMS, "verify_exp": False, "verify_iat": False, "verify_nbf": False}


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The signing key, and every key that still verifies, by kid."""

    kid: str
    signing: Ed25519PrivateKey = field(repr=False)
    verifying: Mapping[str, Ed25519PublicKey] = field(repr=False)

    @classmethod
    def from_private(cls, private: Mapping[str, bytes], current: str) -> "TokenKeys":
        """From the 32 private bytes of each key, by kid. `current` signs."""
        keys = {kid: Ed25519PrivateKey.from_private_bytes(raw) for kid, raw in private.items()}
        return cls(current, keys[current], {kid: key.public_key() for kid, key in keys.items()})


def public_jwks(keys: TokenKeys) -> list[dict[str, str]]:
    """The public keys of every key that still verifies, as JSON Web Keys (RFC 7517, RFC 8037), the signing one first.
    Nothing of a private key is in them."""
    kids = [keys.kid, *(kid for kid in keys.verifying if kid != keys.kid)]
    return [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "alg": ALGORITHM,
            "kid": kid,
            "x": base64.urlsafe_b64encode(keys.verifying[kid].public_bytes_raw()).rstrip(b"=").decode(),
        }
        for kid in kids
    ]


class Claims(msgspec.Struct, frozen=True):
    """The claims of a valid token. `expires` in Unix seconds."""

    user: UUID
    sid: UUID  # the session that a log-in opened
    expires: int


def issue(
    keys: TokenKeys, *, issuer: str, user: UUID, sid: UUID, jti: str, now: float, lifetime: int = ACCESS_TOKEN_SECONDS
) -> str:
    """A token for one session, valid for `lifetime` seconds from now."""
    issued = int(now)
    claims = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": str(user),
        "sid": str(sid),
        "jti": jti,
        "iat": issued,
        "exp": issued + lifetime,
    }
    return jwt.encode(claims, keys.signing, algorithm=ALGORITHM, headers={"kid": keys.kid})


def verify(keys: TokenKeys, token: str, *, issuer: str, now: float) -> Claims | None:
    """The claims of a token that `issuer` issued and that is valid at `now` (Unix seconds); None for any other text.
    Never raises."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        return None
    try:
        key = keys.verifying.get(jwt.get_unverified_header(token).get("kid", ""))
        if key is None:
            return None
        # The algorithm is fixed, never the token's. So "none", and an HMAC keyed with the public key, are refused here.
        claims = jwt.decode(token, key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=issuer, options=_OPTIONS)
        if not (_is_whole(claims["exp"]) and _is_whole(claims["iat"])):
            return None
        if claims["exp"] <= now or claims["iat"] > now + IAT_LEEWAY_SECONDS:
            return None
        return Claims(UUID(claims["sub"]), UUID(claims["sid"]), claims["exp"])
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, RecursionError):
        # PyJWT's own errors. The others are raised for headers and claims of a wrong JSON type (a list as `kid`, a
        # number as `sid`).
        return None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
