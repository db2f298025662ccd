"""Tokens of outside issuers: what is accepted, and each way to forge one."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.security.key_sets import parse_key_set
from scoreboard.security.outside_tokens import (
    LEEWAY_SECONDS,
    MAX_TOKEN_CHARACTERS,
    Expected,
    TokenFault,
    UnverifiedToken,
    decode,
    verify,
)
from tests.outside_keys import SIGNERS, ec_key, ed_key, encode, joined, key_set, rsa_key, sign_with_secret

NOW = 1_800_000_000.0
ISSUER, CLIENT = "https://accounts.example", "scoreboard"
CLAIMS = {"iss": ISSUER, "aud": CLIENT, "sub": "u1", "exp": NOW + 300, "iat": NOW}
KEYS = parse_key_set(key_set(rsa_key(), ec_key(), ed_key()))
ALL = frozenset(("RS256", "PS256", "ES256", "EdDSA"))
EXCHANGE = Expected(ISSUER, frozenset((CLIENT, "game")), ALL)
LOG_IN = Expected(ISSUER, frozenset((CLIENT,)), ALL, frozenset((CLIENT,)))


def outcome(token: str, expected: Expected = EXCHANGE, *, now: float = NOW, nonce: str | None = None) -> object:
    """The user of an accepted token, or the fault."""
    decoded = decode(token)
    if isinstance(decoded, TokenFault):
        return decoded
    found = verify(decoded, KEYS, expected, now=now, nonce=nonce)
    return found if isinstance(found, TokenFault) else found["sub"]


def changed(expected: Expected = EXCHANGE, sent: str | None = None, /, **claims: Any) -> object:
    """The outcome of a token with other claims; one that is None is left out."""
    given = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return outcome(ed_key().sign(given), expected, nonce=sent)


@pytest.mark.parametrize(
    "key", [rsa_key(), rsa_key(algorithm="PS256"), ec_key(), ed_key()], ids=lambda key: key.algorithm
)
def test_a_valid_token_of_each_algorithm(key: Any) -> None:
    decoded = decode(key.sign(CLAIMS))
    assert isinstance(decoded, UnverifiedToken)
    assert verify(decoded, parse_key_set(key_set(key)), EXCHANGE, now=NOW) == CLAIMS


# ---- the algorithm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 5, ["EdDSA"]])
def test_a_token_without_a_signature_is_refused(algorithm: object) -> None:
    """`alg: none` in every spelling, with an empty signature and with some."""
    signed = joined({"alg": algorithm, "kid": "o1"}, CLAIMS)
    assert outcome(f"{signed}.") == TokenFault.MALFORMED
    assert outcome(f"{signed}.AAAA") == TokenFault.ALGORITHM


@pytest.mark.parametrize(
    "secret",
    [
        rsa_key().private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        rsa_key().private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(rsa_key().jwk).encode(),
        ed_key().private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        b"",
    ],
    ids=["PEM", "DER", "JWK", "raw", "empty"],
)
@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "EdDSA"])
def test_an_hmac_with_a_public_key_is_refused(secret: bytes, algorithm: str) -> None:
    """Key confusion: the public key as an HMAC's secret, under its own name or an allowed one."""
    kid = "o1" if algorithm == "EdDSA" else "r1"
    told = outcome(sign_with_secret(secret, CLAIMS, kid=kid, alg=algorithm))
    assert told == (TokenFault.ALGORITHM if algorithm == "HS256" else TokenFault.SIGNATURE)


def test_an_algorithm_that_is_not_allowed_is_refused() -> None:
    """The configuration's list counts, even if the key could verify it."""
    only_rsa = Expected(ISSUER, frozenset((CLIENT,)), frozenset(("RS256",)))
    assert outcome(ed_key().sign(CLAIMS), only_rsa) == TokenFault.ALGORITHM
    assert outcome(rsa_key().sign(CLAIMS), only_rsa) == "u1"
    signed = joined({"alg": "RS512", "kid": "r1"}, CLAIMS)
    strong = SIGNERS["RS512"].sign(signed.encode(), rsa_key().private)
    assert outcome(f"{signed}.{encode(strong)}") == TokenFault.ALGORITHM


def test_the_key_must_be_for_the_algorithm() -> None:
    """A key of another type under the right kid is no key."""
    assert outcome(ec_key().sign(CLAIMS, kid="o1")) == TokenFault.UNKNOWN_KEY
    assert outcome(ed_key().sign(CLAIMS, kid="r1")) == TokenFault.UNKNOWN_KEY
    assert outcome(ed_key().sign(CLAIMS, alg="RS256", kid="o1")) == TokenFault.UNKNOWN_KEY


@pytest.mark.parametrize("header", [{"jwk": ed_key("own").jwk}, {"jku": "https://evil.example"}, {"x5c": ["AA"]}])
def test_a_key_in_the_token_is_not_used(header: dict[str, Any]) -> None:
    """Neither a key that the token brings, nor one that it points to."""
    assert outcome(ed_key("own").sign(CLAIMS, kid="o1", **header)) == TokenFault.SIGNATURE
    assert outcome(ed_key("own").sign(CLAIMS, **header)) == TokenFault.UNKNOWN_KEY


def test_an_unknown_key_and_a_missing_kid() -> None:
    """An unknown kid is a fault of its own, for which the keys are asked again. Without a kid one key must fit."""
    assert outcome(ed_key("new").sign(CLAIMS)) == TokenFault.UNKNOWN_KEY
    assert outcome(ed_key().sign(CLAIMS, kid=None)) == "u1"
    assert outcome(ed_key("new").sign(CLAIMS, kid=None)) == TokenFault.SIGNATURE


@pytest.mark.parametrize("header", [{"crit": ["b64"]}, {"crit": []}, {"b64": False}, {"kid": 5}, {"kid": ["o1"]}])
def test_extensions_that_are_not_understood_are_refused(header: dict[str, Any]) -> None:
    assert outcome(ed_key().sign(CLAIMS, **header)) == TokenFault.MALFORMED


# ---- the form -------------------------------------------------------------------------------------------------------


def test_every_changed_byte_is_noticed() -> None:
    """No other text than the signed one is accepted, also none that decodes to the same bytes."""
    token = ed_key().sign(CLAIMS)
    for index in range(0, len(token), 7):
        other = token[:index] + ("A" if token[index] != "A" else "B") + token[index + 1 :]
        assert isinstance(outcome(other), TokenFault), index
    for suffix in ("=", "A", ".", " ", "\n", ".AAAA", "\x00"):
        assert isinstance(outcome(token + suffix), TokenFault)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(token[-1])
    twin = token[:-1] + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ 1]
    assert outcome(twin) == TokenFault.MALFORMED


def test_what_is_no_token() -> None:
    assert outcome("") == TokenFault.MALFORMED
    assert outcome("a.b") == TokenFault.MALFORMED
    assert outcome("a.b.c.d.e") == TokenFault.MALFORMED
    assert outcome("e30.e30.AA") == TokenFault.ALGORITHM
    assert outcome("W10.e30.AA") == TokenFault.MALFORMED  # a list as its header
    assert outcome("ä.b.c") == TokenFault.MALFORMED
    assert outcome("a" * (MAX_TOKEN_CHARACTERS + 1)) == TokenFault.TOO_LARGE
    deep = encode(b"[" * 6000)
    assert outcome(f"{deep}.{deep}.AA") == TokenFault.MALFORMED


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{1,80}\.[A-Za-z0-9_-]{1,80}\.[A-Za-z0-9_-]{1,80}"))
def test_no_text_raises(text: str) -> None:
    assert isinstance(outcome(text), TokenFault)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["iss", "aud", "azp", "exp", "iat", "nbf", "nonce", "sub", "events"]), JSON))
def test_no_claims_raise(claims: dict[str, Any]) -> None:
    """Signed by the issuer, but of wrong types: the result is a fault or the claims."""
    decoded = decode(ed_key().sign(CLAIMS | claims))
    if isinstance(decoded, UnverifiedToken):
        verify(decoded, KEYS, LOG_IN, now=NOW, nonce="n")


def test_a_token_does_not_show_its_claims() -> None:
    assert "u1" not in repr(decode(ed_key().sign(CLAIMS)))


# ---- the claims -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer", ["https://accounts.example/", "HTTPS://accounts.example", "https://evil.example", "", None, [ISSUER]]
)
def test_another_issuer_is_refused(issuer: object) -> None:
    """The issuer is compared exactly, also when the signature is right."""
    assert changed(iss=issuer) == TokenFault.ISSUER


@pytest.mark.parametrize("audience", ["other", "", None, [], ["other"], [5], 5, {"a": 1}, [CLIENT, 5], "scoreboard "])
def test_another_audience_is_refused(audience: object) -> None:
    assert changed(aud=audience) == TokenFault.AUDIENCE


def test_several_audiences_need_an_authorized_party() -> None:
    """A token for us and for others must say that it was made for us: any of the others may have passed it on."""
    both = [CLIENT, "https://other.example"]
    assert changed(aud=[CLIENT, CLIENT]) == "u1"
    assert changed(aud=both) == TokenFault.AUTHORIZED_PARTY
    assert changed(aud=both, azp="https://other.example") == TokenFault.AUTHORIZED_PARTY
    assert changed(aud=both, azp=[CLIENT]) == TokenFault.AUTHORIZED_PARTY
    assert changed(aud=both, azp="game") == "u1"
    assert changed(LOG_IN, aud=both, azp=CLIENT) == "u1"


def test_an_id_token_made_for_another_client_is_refused() -> None:
    """In a log-in the authorized party must be this client, if it is named."""
    assert changed(LOG_IN, azp="other") == TokenFault.AUTHORIZED_PARTY
    assert changed(LOG_IN, azp=CLIENT) == "u1"
    assert changed(EXCHANGE, azp="other") == "u1"  # an access token names the app that has it


@pytest.mark.parametrize(
    ("claims", "fault"),
    [
        ({"exp": NOW - LEEWAY_SECONDS}, TokenFault.EXPIRED),
        ({"exp": NOW - LEEWAY_SECONDS + 1}, "u1"),
        ({"exp": None}, TokenFault.MALFORMED),
        ({"exp": "1900000000"}, TokenFault.MALFORMED),
        ({"exp": True}, TokenFault.MALFORMED),
        ({"exp": -1}, TokenFault.MALFORMED),
        ({"exp": 10**400}, TokenFault.MALFORMED),
        ({"exp": NOW + 0.5}, "u1"),
        ({"iat": NOW + LEEWAY_SECONDS + 1}, TokenFault.NOT_YET_VALID),
        ({"iat": NOW + LEEWAY_SECONDS}, "u1"),
        ({"iat": "now"}, TokenFault.MALFORMED),
        ({"iat": None}, "u1"),
        ({"nbf": NOW + LEEWAY_SECONDS + 1}, TokenFault.NOT_YET_VALID),
        ({"nbf": [NOW]}, TokenFault.MALFORMED),
        ({"nbf": NOW}, "u1"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, TokenFault.EVENT),
    ],
)
def test_times(claims: dict[str, Any], fault: object) -> None:
    """Times are compared with the caller's clock, with a leeway."""
    assert changed(**claims) == fault


@pytest.mark.parametrize("nonce", ["other", "", None, 5, ["n-1"], "n-1 ", "N-1"])
def test_a_log_in_needs_its_own_nonce(nonce: object) -> None:
    """An ID token of another log-in, or one without a nonce, is refused."""
    assert changed(LOG_IN, "n-1", nonce=nonce) == TokenFault.NONCE
    assert changed(LOG_IN, "n-1", nonce="n-1") == "u1"
    assert changed(LOG_IN, "n-1", nonce="n-1", iat=None) == TokenFault.MALFORMED
