"""Outside ids, device keys, and names for users who have not chosen a free one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain import account_rules
from scoreboard.domain.errors import FieldError
from scoreboard.domain.identities import (
    DIGITS_AFTER_NEUTRAL,
    DIGITS_AFTER_WANTED,
    ExternalIdentity,
    device_identity,
    external_id,
    usernames_like,
)

KEY = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi"


def smallest(_: int) -> int:
    return 0


def test_a_taken_name_gets_a_number_and_then_a_neutral_name_follows() -> None:
    names = list(usernames_like("Ada", smallest))
    assert names == [
        *("Ada", "Ada-1000", "Ada-1000", "Ada-100000"),
        *("Player-100000", "Player-100000", "Player-100000000", "Player-100000000"),
    ]


@pytest.mark.parametrize("wanted", [None, "", " ", "ada@example.org", "a\u202eb", "a\nb", "\u2800\u2800\u2800"])
def test_what_can_not_be_a_name_leads_to_a_neutral_one(wanted: str | None) -> None:
    """An address above all: it must not be shown on a board."""
    assert next(usernames_like(wanted, smallest)) == "Player-100000"


@pytest.mark.parametrize("wanted", ["user-1a2b3c4d", "0b9f2f44-7d5c-4d3e-9f33-5d8a3f0f2b11", "A"])
def test_a_stand_in_or_a_short_name_is_followed_by_a_number(wanted: str) -> None:
    """By itself the rules for names refuse it."""
    assert isinstance(account_rules.username(wanted), FieldError)
    assert next(usernames_like(wanted, smallest)) == f"{wanted}-1000"


@given(st.none() | st.text(max_size=300), st.randoms(use_true_random=False))
def test_every_name_obeys_the_rules(wanted: str | None, chance: random.Random) -> None:
    names = list(usernames_like(wanted, chance.randrange))
    assert len(names) <= 1 + len(DIGITS_AFTER_WANTED) + len(DIGITS_AFTER_NEUTRAL)
    assert names
    for name in names:
        assert account_rules.username(name) == name


def test_a_device_key_is_known_by_its_hash() -> None:
    identity = device_identity(KEY)
    assert isinstance(identity, ExternalIdentity)
    assert identity.provider == "device"
    assert len(identity.external_id) == 64
    assert KEY not in identity.external_id
    assert device_identity(KEY.lower()) != identity


@pytest.mark.parametrize("key", ["", KEY[:31], "x" * 129, "a" * 32, "ab" * 16, KEY + "=", KEY[:-1] + "é", KEY + "\n"])
def test_a_key_that_is_short_or_guessable_is_none(key: str) -> None:
    refused = device_identity(key)
    assert isinstance(refused, FieldError)
    assert key not in refused.message or not key


@pytest.mark.parametrize("text", ["", "x" * 256, "a\x00b", "a\nb", "\ud800", "\u2028"])
def test_an_outside_id_that_can_not_be_stored_is_refused(text: str) -> None:
    assert isinstance(external_id(text), FieldError)


@pytest.mark.parametrize("text", ["1", "x" * 255, "auth0|5f7c", "Ünïcode ☂", "a b"])
def test_any_other_outside_id_stays_as_it_is(text: str) -> None:
    assert external_id(text) == text
