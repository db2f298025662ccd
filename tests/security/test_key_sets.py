"""Key sets: which keys are taken, and which are left out."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.security.key_sets import MAX_KEY_SET_BYTES, MAX_KEYS, KeySetError, parse_key_set
from tests.outside_keys import SigningKey, ec_key, ed_key, encode, key_set, rsa_key


def parsed(*entries: Any) -> list[tuple[str | None, set[str]]]:
    """kid and algorithms of each key that is taken, beside one that always is."""
    found = parse_key_set(json.dumps({"keys": [*entries, ed_key("always").jwk]}).encode())
    assert found.keys[-1].kid == "always"
    return [(key.kid, set(key.algorithms)) for key in found.keys[:-1]]


def test_the_algorithms_follow_from_the_key() -> None:
    """An RSA key is for both RSA algorithms, a P-256 key for ES256, an Ed25519 key for EdDSA."""
    assert parsed(rsa_key().jwk, ec_key().jwk, ed_key().jwk) == [
        ("r1", {"RS256", "PS256"}),
        ("e1", {"ES256"}),
        ("o1", {"EdDSA"}),
    ]


def test_a_stated_algorithm_narrows_them() -> None:
    """`alg` of a key takes algorithms away and never adds one."""
    assert parsed(rsa_key().jwk | {"alg": "RS256"}) == [("r1", {"RS256"})]
    for other in ("HS256", "none", "ES256", 5, ["RS256"], ""):
        assert parsed(rsa_key().jwk | {"alg": other}) == []


@pytest.mark.parametrize(
    "entry",
    [
        rsa_key("weak", 1024).jwk,
        SigningKey("p384", "ES384", ec.generate_private_key(ec.SECP384R1())).jwk,
        SigningKey("ed448", "EdDSA", ed448.Ed448PrivateKey.generate()).jwk,
        rsa_key().jwk | {"use": "enc"},
        rsa_key().jwk | {"key_ops": ["encrypt"]},
        rsa_key().jwk | {"key_ops": "verify"},
        rsa_key().jwk | {"kid": 5},
        rsa_key().jwk | {"kid": "x" * 257},
        rsa_key().jwk | {"n": 5},
        rsa_key().jwk | {"n": "AQAB"},
        rsa_key().jwk | {"n": "!!"},
        rsa_key().jwk | {"e": "AA"},
        rsa_key().jwk | {"e": encode(((1 << 40) + 1).to_bytes(6))},
        rsa_key().jwk | {"kty": "EC"},
        rsa_key().jwk | {"kty": ["RSA"]},
        ec_key().jwk | {"y": ec_key().jwk["x"]},
        ec_key().jwk | {"crv": "secp256k1"},
        ed_key().jwk | {"x": "AA"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "hmac"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"},
        {},
        "a key",
        None,
    ],
)
def test_other_keys_are_left_out(entry: object) -> None:
    """Weak, damaged or unknown keys are left out, and the others stay."""
    assert parsed(entry) == []


def test_a_long_rsa_key_is_left_out() -> None:
    """A key beyond the bound would make each verification slow."""
    assert parsed(rsa_key().jwk | {"n": encode(((1 << 8200) + 1).to_bytes(1026))}) == []


def test_a_published_private_key_is_read_as_its_public_part() -> None:
    """A secret part of a key is ignored, whatever it is."""
    assert parsed(ed_key().jwk | {"d": "nonsense"}, rsa_key().jwk | {"d": "AA", "p": 5}) == [
        ("o1", {"EdDSA"}),
        ("r1", {"RS256", "PS256"}),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "AA"}]}',
        b"\xff",
        b"<html>",
        b"[" * 60_000,
        key_set(ed_key()) + b" " * MAX_KEY_SET_BYTES,
    ],
)
def test_a_document_without_a_usable_key_is_refused(content: bytes) -> None:
    with pytest.raises(KeySetError):
        parse_key_set(content)


def test_a_set_is_bounded() -> None:
    """Of more keys than the bound the first are taken."""
    assert len(parse_key_set(key_set(*(replace(ed_key(), kid=str(n)) for n in range(MAX_KEYS + 5)))).keys) == MAX_KEYS


def test_a_key_is_found_by_kid_and_algorithm() -> None:
    """Without a kid there must be one key alone of the algorithm; two keys of one kid are ambiguous."""
    keys = parse_key_set(key_set(rsa_key(), ec_key(), ed_key(), ed_key("o2")))
    assert keys.find("e1", "ES256") == keys.keys[1]
    assert keys.find("e1", "EdDSA") is None
    assert keys.find("unknown", "ES256") is None
    assert keys.find(None, "ES256") == keys.keys[1]
    assert keys.find(None, "EdDSA") is None
    twice = parse_key_set(key_set(ed_key(), replace(ed_key("o2"), kid="o1")))
    assert twice.find("o1", "EdDSA") is None
    assert keys.has("e1")
    assert not keys.has(None)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["keys", "kty", "kid", "alg", "n", "e", "x", "y", "crv"]), inner)
        ),
    )
)
def test_no_document_raises_anything_else(document: object) -> None:
    """Whatever JSON it is, the result is a set or a KeySetError."""
    try:
        parse_key_set(json.dumps({"keys": [document]}).encode())
    except KeySetError:
        pass
