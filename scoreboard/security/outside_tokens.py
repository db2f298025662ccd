"""Verifies tokens of outside issuers: JWTs (RFC 7519, RFC 8725) and ID tokens (OpenID Connect Core). Pure: keys, time
and what is expected are arguments.

`verify` accepts an algorithm only if the configuration allows it and the key is for it; the token chooses between keys
of one issuer, and nothing else. So `none`, and an HMAC keyed with a public key, are refused. The token is decoded once,
so that no two decoders can read it differently. The result is the claims or a `TokenFault`, which is for metrics: a
client learns no reason.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

from scoreboard.security.key_sets import KeySet

MAX_TOKEN_CHARACTERS = 16_384  # as much as a request's body; ID tokens with hundreds of groups have some 10 kB
LEEWAY_SECONDS = 60  # how far the issuer's clock may be wrong; RFC 7519 section 4.1.4: no more than a few minutes
MAX_TIME = 2**53  # of a NumericDate; JSON's numbers may be longer than any arithmetic wants

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)").fullmatch

_VERIFIERS: Mapping[str, Algorithm] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
}


class TokenFault(StrEnum):
    """Why a token is refused."""

    MALFORMED = "malformed"  # no JWT, or a claim of a wrong type
    TOO_LARGE = "too_large"
    ALGORITHM = "algorithm"  # not allowed for this issuer
    UNKNOWN_KEY = "unknown_key"  # no key of the set is for its kid and algorithm
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    AUTHORIZED_PARTY = "authorized_party"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    NONCE = "nonce"
    EVENT = "event"  # a security event or a log-out token: no proof that anybody is there


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token of one issuer must be."""

    issuer: str
    audiences: frozenset[str]  # "aud" is one of them
    algorithms: frozenset[str]
    # "azp", if the token has one that must be compared, is one of them
    authorized_parties: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token whose form is right and whose signature is not verified yet."""

    algorithm: object
    kid: str | None
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes

    def __repr__(self) -> str:
        return "UnverifiedToken()"  # whoever reads the claims in a log could use the token


def decode(token: str) -> UnverifiedToken | TokenFault:
    """The parts of a token. Nothing in them may be believed. Never raises."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        return TokenFault.TOO_LARGE
    if not (parts := _PARTS(token)):
        return TokenFault.MALFORMED
    try:
        header, claims = (msgspec.json.decode(_decode_base64(part)) for part in parts.group(1, 2))
        signature = _decode_base64(parts[3])
    except (ValueError, RecursionError):  # msgspec's and binascii's errors are ValueErrors
        return TokenFault.MALFORMED
    if not isinstance(header, dict) or not isinstance(claims, dict):
        return TokenFault.MALFORMED
    kid = header.get("kid")
    # `crit` and `b64` name extensions that a verifier must understand (RFC 7515 section 4.1.11, RFC 7797)
    if not (kid is None or isinstance(kid, str)) or "crit" in header or "b64" in header:
        return TokenFault.MALFORMED
    return UnverifiedToken(header.get("alg"), kid, claims, token.rpartition(".")[0].encode(), signature)


def verify(
    token: UnverifiedToken, keys: KeySet, expected: Expected, *, now: float, nonce: str | None = None
) -> Mapping[str, Any] | TokenFault:
    """The claims of a token that is valid at `now` (Unix seconds), else the first fault. Never raises.

    `nonce`: the token is an ID token, and must have exactly this one.
    """
    algorithm = token.algorithm
    if not isinstance(algorithm, str) or algorithm not in expected.algorithms or algorithm not in _VERIFIERS:
        return TokenFault.ALGORITHM
    key = keys.find(token.kid, algorithm)
    if key is None:
        return TokenFault.UNKNOWN_KEY
    if not _VERIFIERS[algorithm].verify(token.signed, key.key, token.signature):
        return TokenFault.SIGNATURE
    claims = token.claims
    return _check_parties(claims, expected) or _check_times(claims, now) or _check_nonce(claims, nonce) or claims


def _check_parties(claims: Mapping[str, Any], expected: Expected) -> TokenFault | None:
    """By whom the token was made, and for whom."""
    if claims.get("iss") != expected.issuer:
        return TokenFault.ISSUER
    if "events" in claims:  # RFC 8417; of log-out tokens too
        return TokenFault.EVENT
    stated = claims.get("aud")
    audiences = [stated] if isinstance(stated, str) else stated
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        return TokenFault.AUDIENCE
    if not expected.audiences.intersection(audiences):
        return TokenFault.AUDIENCE
    party = claims.get("azp")
    # With several audiences any of them could have passed the token on: it must say whom it was made for.
    if len(set(audiences)) > 1 and not _is_one_of(party, expected.audiences | expected.authorized_parties):
        return TokenFault.AUTHORIZED_PARTY
    if expected.authorized_parties and party is not None and not _is_one_of(party, expected.authorized_parties):
        return TokenFault.AUTHORIZED_PARTY
    return None


def _is_one_of(party: object, parties: Collection[str]) -> bool:
    return isinstance(party, str) and party in parties


def _check_times(claims: Mapping[str, Any], now: float) -> TokenFault | None:
    expires = claims.get("exp")
    if not _is_time(expires) or any(name in claims and not _is_time(claims[name]) for name in ("iat", "nbf")):
        return TokenFault.MALFORMED
    if claims["exp"] <= now - LEEWAY_SECONDS:
        return TokenFault.EXPIRED
    if max(claims.get("iat", 0), claims.get("nbf", 0)) > now + LEEWAY_SECONDS:
        return TokenFault.NOT_YET_VALID
    return None


def _check_nonce(claims: Mapping[str, Any], nonce: str | None) -> TokenFault | None:
    if nonce is None:
        return None
    stated = claims.get("nonce")
    if not isinstance(stated, str) or not hmac.compare_digest(stated.encode(errors="replace"), nonce.encode()):
        return TokenFault.NONCE
    return None if "iat" in claims else TokenFault.MALFORMED  # OpenID Connect Core, section 2: required


def _is_time(value: object) -> bool:
    """A NumericDate: a number of seconds, which may have a fraction."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_TIME


def _decode_base64(text: str) -> bytes:
    """base64url without padding. Raises ValueError, also for one that another text stands for too."""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != text.encode():
        raise binascii.Error("not the canonical form")
    return raw
