"""Access tokens: what is accepted is ours, live and meant for us; everything else is None, never an exception."""

import base64
import hashlib
import hmac
import json
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from scoreboard.security import tokens
from scoreboard.security.tokens import IAT_LEEWAY_SECONDS, Claims, TokenKeys

NOW = 1_800_000_000
USER, SID = UUID(int=1), UUID(int=2)
KEYS = TokenKeys.from_private({"old": b"o" * 32, "new": b"n" * 32}, "new")
ISSUER = "https://board.example"
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "scoreboard",
    "sub": str(USER),
    "sid": str(SID),
    "jti": "1",
    "iat": NOW,
    "exp": NOW + 900,
}


def verify(token: str, now: float = NOW) -> Claims | None:
    return tokens.verify(KEYS, token, issuer=ISSUER, now=now)


def signed(claims: dict[str, Any], kid: Any = "new", key: bytes = b"n" * 32) -> str:
    return jwt.encode(claims, Ed25519PrivateKey.from_private_bytes(key), algorithm="EdDSA", headers={"kid": kid})


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"


def test_an_issued_token_tells_user_session_and_expiry() -> None:
    """A token of ours is verified and gives what was put into it."""
    token = tokens.issue(KEYS, issuer=ISSUER, user=USER, sid=SID, jti="7", now=NOW + 0.9)
    assert verify(token) == Claims(USER, SID, NOW + 900)
    header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    assert (header["alg"], header["kid"], claims["jti"], claims["aud"], claims["iss"]) == (
        "EdDSA",
        "new",
        "7",
        "scoreboard",
        ISSUER,
    )


def test_a_token_of_a_key_that_no_longer_signs_is_accepted_until_the_key_is_gone() -> None:
    """Signing keys are rotated without logging anybody out."""
    token = signed(GOOD, "old", b"o" * 32)
    assert verify(token) is not None
    assert tokens.verify(TokenKeys.from_private({"new": b"n" * 32}, "new"), token, issuer=ISSUER, now=NOW) is None


@pytest.mark.parametrize(
    ("now", "accepted"),
    [(NOW + 899, True), (NOW + 900, False), (NOW - IAT_LEEWAY_SECONDS, True), (NOW - IAT_LEEWAY_SECONDS - 1, False)],
)
def test_a_token_is_valid_from_its_issue_to_its_expiry(now: int, accepted: bool) -> None:
    """Expired is refused to the second; issued in the future is refused beyond what clocks may differ."""
    assert (verify(signed(GOOD), now) is not None) is accepted


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"aud": ["other"]},
        {"sub": "nobody"},
        {"sid": 7},
        {"sid": "x" * 36},
        {"exp": True},
        {"exp": "soon"},
        {"exp": 1e300},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"iat": float("nan")},
        {"iat": [NOW]},
    ],
)
def test_a_claim_that_is_not_as_it_should_be_refuses_the_token(change: dict[str, Any]) -> None:
    """Properly signed is not enough."""
    # Signed by hand: PyJWT itself would not encode some of these.
    content = unsigned({"alg": "EdDSA", "kid": "new"}, GOOD | change)
    signature = Ed25519PrivateKey.from_private_bytes(b"n" * 32).sign(content.encode())
    assert verify(f"{content}.{b64(signature)}") is None


@pytest.mark.parametrize("claim", tokens.REQUIRED_CLAIMS)
def test_no_claim_may_be_missing(claim: str) -> None:
    """Each required claim is required."""
    assert verify(signed({name: value for name, value in GOOD.items() if name != claim})) is None


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
def test_an_unsigned_token_is_refused(alg: str) -> None:
    """`alg: none` in any spelling is no signature."""
    content = unsigned({"alg": alg, "kid": "new"}, GOOD)
    assert verify(f"{content}.") is None
    assert verify(f"{content}.{b64(b'x' * 64)}") is None


@pytest.mark.parametrize(
    "encoding", [(Encoding.Raw, PublicFormat.Raw), (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)]
)
@pytest.mark.parametrize("digest", ["256", "384", "512"])
def test_our_public_key_is_no_hmac_key(encoding: tuple[Encoding, PublicFormat], digest: str) -> None:
    """Key confusion: an HMAC made with what everybody may know is not a signature."""
    public = KEYS.verifying["new"].public_bytes(*encoding)
    content = unsigned({"alg": f"HS{digest}", "kid": "new"}, GOOD)
    forged = hmac.digest(public, content.encode(), f"sha{digest}")
    assert verify(f"{content}.{b64(forged)}") is None


@pytest.mark.parametrize("kid", ["", "other", "../new", None, 7, ["new"], {"new": 1}])
def test_a_token_of_an_unknown_key_is_refused(kid: Any) -> None:
    """Only a key that we know by that name is tried; a key in the token's own header is never used."""
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    header = {
        "alg": "EdDSA",
        "kid": kid,
        "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(stranger.public_key().public_bytes_raw())},
    }
    content = unsigned(header, GOOD)
    assert verify(f"{content}.{b64(stranger.sign(content.encode()))}") is None
    right = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
    assert verify(f"{content}.{b64(right.sign(content.encode()))}") is None


def test_a_token_of_100_kilobytes_is_refused_unread() -> None:
    """Even when properly signed."""
    assert verify(signed(GOOD | {"more": "x" * 100_000})) is None
    assert verify("a" * 100_000) is None


def test_a_header_nested_deeper_than_the_stack_is_refused() -> None:
    """The parser's RecursionError ends here."""
    assert verify(f"{b64(b'[' * 3000)}.e30.e30") is None


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.text(alphabet="abcXYZ019-_=.", max_size=200),
        st.binary().map(lambda raw: f"{b64(raw)}.{b64(raw)}.{b64(raw)}"),
    )
)
def test_no_text_at_all_raises(text: str) -> None:
    """Whatever is presented as a token, it is refused."""
    assert verify(text) is None


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.characters())
def test_a_token_with_any_one_character_changed_is_refused_or_is_the_same_token(place: int, character: str) -> None:
    """No bit of header, claims or signature is free."""
    token = signed(GOOD)
    place %= len(token)
    changed = token[:place] + character + token[place + 1 :]
    # The last base64 character of a signature of 64 bytes holds four bits that mean nothing: another spelling of the
    # same token.
    if changed[:-1] != token[:-1]:
        assert verify(changed) is None
    # Ed25519 is deterministic
    assert hashlib.sha256(token.encode()).digest() == hashlib.sha256(signed(GOOD).encode()).digest()
