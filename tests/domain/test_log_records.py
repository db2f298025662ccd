"""Records of the log: what a stranger can check with a record and its salt, and what he can't be told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.log_records import leaf_salt, read_action, salted_hash

SECRET = bytes(range(32))
SALT = leaf_salt(SECRET, 4097)
USER = "00000000-0000-4000-8000-00000000000a"


def record(**changes: object) -> str:
    fields = {"action": salted_hash(SALT, "action", "level-1"), "kind": "action", "points": 10, "user": USER}
    return json.dumps(fields | changes, sort_keys=True, separators=(",", ":"))


def test_the_record_of_the_action_is_read() -> None:
    fields = read_action(record(), SALT, USER.upper(), "level-1")
    assert isinstance(fields, dict)
    assert fields["points"] == 10


@pytest.mark.parametrize(
    ("text", "salt", "action", "why"),
    [
        (record(), SALT, "level-2", "another action"),
        (record(), leaf_salt(SECRET, 4098), "level-1", "another action"),
        (record(user=USER[:-1] + "b"), SALT, "level-1", "another user"),
        (record(kind="event"), SALT, "level-1", "not about an action"),
        ("{", SALT, "level-1", "not JSON"),
        ("[]", SALT, "level-1", "not JSON"),
        ("\ud800", SALT, "level-1", "not JSON"),
        (record(note="x" * 5000), SALT, "level-1", "too long"),
    ],
)
def test_a_record_about_something_else_is_refused(text: str, salt: bytes, action: str, why: str) -> None:
    answer = read_action(text, salt, USER, action)
    assert isinstance(answer, str)
    assert why in answer


def test_a_salt_does_not_tell_the_next_one() -> None:
    assert leaf_salt(SECRET, 1) != leaf_salt(SECRET, 2) != leaf_salt(bytes(32), 2)
    assert len(SALT) == 16


def test_the_same_text_in_two_fields_has_two_hashes() -> None:
    assert salted_hash(SALT, "action", "x") != salted_hash(SALT, "metadata", "x")


@given(st.text(max_size=100))
def test_any_text_is_refused_without_an_exception(text: str) -> None:
    assert isinstance(read_action(text, SALT, USER, "level-1"), str)
