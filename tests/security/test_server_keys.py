"""The form of server keys: what is one, and what its checksum finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.security.server_keys import MAX_KEY_LENGTH, SECRET_BYTES, digest, key_id_of, make_key

KEY = make_key("0123456789ab", bytes(range(SECRET_BYTES)))


def test_a_key_names_its_id() -> None:
    """It has the documented form, and its id is read without asking anybody."""
    assert "sbk_0123456789ab_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" + KEY[-6:] == KEY
    assert len(KEY) == MAX_KEY_LENGTH
    assert key_id_of(KEY) == "0123456789ab"


@pytest.mark.parametrize("place", range(len(KEY)))
def test_a_typo_is_found(place: int) -> None:
    """One wrong character anywhere is enough."""
    wrong = "1" if KEY[place] != "1" else "2"
    assert key_id_of(KEY[:place] + wrong + KEY[place + 1 :]) is None


@pytest.mark.parametrize(
    "text", ["", "sbk_", KEY[:-1], KEY + "x", KEY.upper(), f" {KEY[1:]}", KEY.replace("_", "-"), "é" * 66]
)
def test_what_is_no_key(text: str) -> None:
    """Nothing shorter, longer or written in another way."""
    assert key_id_of(text) is None


@given(st.text(max_size=80))
def test_no_text_raises(text: str) -> None:
    """Whatever a client sends in the place of a key."""
    assert key_id_of(text) is None


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_other_secrets_have_other_digests(one: bytes, other: bytes) -> None:
    """The stored digest depends on the secret, and its length shows nothing."""
    first, second = make_key("0" * 12, one), make_key("0" * 12, other)
    assert (digest(first) == digest(second)) == (one == other)
    assert key_id_of(first) == key_id_of(second) == "0" * 12
