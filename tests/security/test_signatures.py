"""Action signatures: exactly the session's secrets, exactly the body's bytes, exactly the form of the contract."""

import hashlib
import hmac
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoreboard.security.signatures import action_secret, action_secrets, matches, sign

USER, SID = UUID(int=1), UUID(int=2)
MASTERS = {1: b"1" * 32, 2: b"2" * 32}
BODY = b'{"actionId":"a","actionType":"quiz_complete"}'
SECRETS = action_secrets(MASTERS, USER, SID)
ONE = {2: SECRETS[2]}


def test_a_client_needs_only_the_text_of_the_secret() -> None:
    """The HMAC key is the UTF-8 bytes of the secret's text: nothing to decode."""
    secret = action_secret(MASTERS[2], USER, SID)
    assert matches(hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest(), BODY, ONE)
    assert len(secret) == 43
    assert set(secret) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_secret_is_of_one_user_one_session_and_one_key() -> None:
    """The same for the same three, another one as soon as one of them differs."""
    made = {
        action_secret(MASTERS[1], USER, SID),
        action_secret(MASTERS[1], SID, USER),
        action_secret(MASTERS[1], USER, UUID(int=3)),
        action_secret(MASTERS[2], USER, SID),
    }
    assert len(made) == 4
    assert action_secret(MASTERS[1], USER, SID) == action_secret(MASTERS[1], USER, SID)


@pytest.mark.parametrize("version", [1, 2])
def test_a_bare_signature_is_tried_with_every_live_key(version: int) -> None:
    """A rotation breaks no action in flight."""
    assert matches(sign(SECRETS[version], BODY), BODY, SECRETS)


def test_a_versioned_signature_is_tried_with_its_key_alone() -> None:
    """`v1.` with the hex of key 2 is wrong, and so is a version that is not live."""
    assert matches(f"v1.{sign(SECRETS[1], BODY)}", BODY, SECRETS)
    assert matches(f"v2.{sign(SECRETS[2], BODY)}", BODY, ONE)
    assert not matches(f"v1.{sign(SECRETS[2], BODY)}", BODY, SECRETS)
    assert not matches(f"v1.{sign(SECRETS[1], BODY)}", BODY, ONE)
    assert not matches(sign(SECRETS[1], BODY), BODY, ONE)


@pytest.mark.parametrize("secrets", [SECRETS, ONE])
def test_only_the_form_of_the_contract_is_accepted(secrets: dict[int, bytes]) -> None:
    """Upper case, truncated, padded, prefixed or empty: wrong."""
    right = sign(secrets[2], BODY)
    wrong = [
        "",
        right.upper(),
        right[:-1],
        right + "0",
        f" {right}",
        f"{right}\n",
        f"v.{right}",
        f"v02.{right}",
        f"v+2.{right}",
        f"V2.{right}",
    ]
    wrong += [f"v２.{right}", f"v2:{right}", f"sha256={right}", f"v2.{right}\n", f"v{'9' * 30}.{right}", "é" * 64]
    assert [given for given in wrong if matches(given, BODY, secrets)] == []


def test_a_body_written_anew_has_another_signature() -> None:
    """The raw bytes are signed: one space more is another body. Another user's signature is none of mine."""
    right = sign(SECRETS[2], BODY)
    assert not matches(right, BODY.replace(b",", b", "), SECRETS)
    assert not matches(sign(action_secret(MASTERS[2], UUID(int=9), SID).encode(), BODY), BODY, SECRETS)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.text("0123456789abcdefv.", max_size=80)), st.binary())
def test_no_signature_raises_and_none_is_guessed(signature: str, body: bytes) -> None:
    """Whatever stands in the header, it is refused."""
    assert not matches(signature, body, SECRETS)
    assert not matches(signature, body, ONE)
