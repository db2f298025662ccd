"""What requests to /admin name: every action id can be written in a path, and nothing else is read as one."""

from base64 import urlsafe_b64encode
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.actions import MAX_ACTION_ID_LENGTH
from scoreboard.domain.admin_queries import (
    BAD_CURSOR,
    DEFAULT_PAGE,
    MAX_PAGE,
    read_action_id,
    read_limit,
    read_number,
    read_numbers,
    read_search,
    read_text,
    read_text_cursor,
    read_user_id,
)
from scoreboard.domain.errors import NOT_FOUND, Refusal

ids = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=MAX_ACTION_ID_LENGTH
)


def encoded(action_id: str) -> bytes:
    return b"~" + urlsafe_b64encode(action_id.encode()).rstrip(b"=")


@given(ids)
def test_every_action_id_can_be_named(action_id: str) -> None:
    """In base64url always, and by its escapes unless it begins with `~`."""
    assert read_action_id(encoded(action_id)) == action_id
    if not action_id.startswith("~"):
        assert read_action_id(quote(action_id, safe="").encode()) == action_id


@given(st.binary(max_size=300))
def test_any_segment_is_an_id_or_not_found(segment: bytes) -> None:
    found = read_action_id(segment)
    assert found == NOT_FOUND or (isinstance(found, str) and 1 <= len(found) <= MAX_ACTION_ID_LENGTH)


@pytest.mark.parametrize(
    "segment", [b"", b"~", b"~!", b"~A", b"~_w", b"%ff", b"~" + b"YQ" * 200, b"a" * 101, b"~AA", b"a%00", b"~Y Q"]
)
def test_what_is_no_action_id(segment: bytes) -> None:
    assert read_action_id(segment) == NOT_FOUND


def test_user_ids_are_uuids_as_clients_have_them() -> None:
    """No other form that Python reads: braces, a prefix, without hyphens."""
    user = UUID(int=7)
    assert read_user_id(str(user)) == read_user_id(str(user).upper()) == user
    for text in ("", "7", user.hex, f"{{{user}}}", user.urn, f"{user}\n", "me"):
        assert read_user_id(text) == NOT_FOUND


def test_numbers_of_flags_and_held_actions() -> None:
    assert read_number("7") == 7
    for text in ("", "-1", "1.0", "x", "9223372036854775808", "9" * 30, "\u0661"):
        assert read_number(text) == NOT_FOUND


def test_a_reason_is_text_that_can_be_shown() -> None:
    """Several lines too; no control characters, no text direction, nothing but spaces."""
    assert read_text("reason", "  Zu schnell\nam 1. Mai ", 100) == "Zu schnell\nam 1. Mai"
    for text in ("", " \n ", "a\x1b[31m", "a\u202eb", "a\tb\x07", "a" * 101):
        refused = read_text("reason", text, 100)
        assert isinstance(refused, Refusal)
        assert refused.errors[0].field == "reason"


def test_limits_and_searches() -> None:
    assert read_limit({}) == DEFAULT_PAGE
    assert read_limit({"limit": ["1", str(MAX_PAGE)]}) == MAX_PAGE
    for text in ("0", "101", "-1", "1.0", "", "abc", "9" * 30, "١"):
        assert isinstance(read_limit({"limit": [text]}), Refusal)
    assert (read_search({}), read_search({"query": [" Ada "]})) == ("", "Ada")
    for text in ("x" * 256, "a\0b"):
        assert isinstance(read_search({"query": [text]}), Refusal)


def test_cursors() -> None:
    assert read_numbers({}, 2) is None
    assert read_numbers({"cursor": ["12-34"]}, 2) == (12, 34)
    for text in ("12", "1-2-3", "a-1", "-1-2", "9223372036854775808-1", "1-" + "9" * 40):
        assert read_numbers({"cursor": [text]}, 2) == BAD_CURSOR
    assert (read_text_cursor({}), read_text_cursor({"cursor": ["ada"]})) == (None, "ada")
    for text in ("x" * 256, "a\0"):
        assert read_text_cursor({"cursor": [text]}) == BAD_CURSOR
