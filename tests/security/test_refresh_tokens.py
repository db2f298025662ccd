"""Refresh tokens: a chain that only the server can continue, and can continue twice alike."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.security import refresh_tokens

MASTER, OTHER = b"m" * 32, b"o" * 32
SID = UUID(int=5)
FIRST = refresh_tokens.make(MASTER, SID, b"v" * 32)


def test_a_token_names_its_session_and_shows_who_made_it() -> None:
    """The session can be looked up; a token of another key is not ours."""
    assert refresh_tokens.session_of(FIRST) == SID
    assert refresh_tokens.is_ours({1: OTHER, 2: MASTER}, FIRST)
    assert not refresh_tokens.is_ours({1: OTHER}, FIRST)


def test_the_successor_is_the_same_each_time_and_of_the_same_session() -> None:
    """Two tabs, or a client that lost the answer, are given one token; it is another one than the spent one, and than
    under another key."""
    second = refresh_tokens.next_token(MASTER, FIRST)
    assert second == refresh_tokens.next_token(MASTER, FIRST)
    assert refresh_tokens.session_of(second) == SID
    assert refresh_tokens.is_ours({1: MASTER}, second)
    third = refresh_tokens.next_token(MASTER, second)
    assert len({FIRST, second, third, refresh_tokens.next_token(OTHER, FIRST)}) == 4
    assert len({refresh_tokens.digest(token) for token in (FIRST, second, third)}) == 3


def test_a_token_with_any_character_changed_is_not_ours() -> None:
    """Knowing a session's id makes nobody able to make its tokens, and one token has one spelling."""
    for place in range(len(FIRST)):
        changed = FIRST[:place] + ("A" if FIRST[place] != "A" else "B") + FIRST[place + 1 :]
        assert not refresh_tokens.is_ours({1: MASTER}, changed)


@pytest.mark.parametrize(
    "text", ["", "x", FIRST + "=", FIRST[:-1], FIRST + "A", "é" * len(FIRST), " " + FIRST[1:], FIRST[:-1] + "\n"]
)
def test_what_has_another_form_is_no_token(text: str) -> None:
    """It names no session and is not ours."""
    assert refresh_tokens.session_of(text) is None
    assert not refresh_tokens.is_ours({1: MASTER}, text)


@given(st.text(), st.text("abcXYZ019-_=", min_size=len(FIRST), max_size=len(FIRST)))
def test_no_text_raises(text: str, similar: str) -> None:
    """Whatever is sent as a refresh token, it is not ours."""
    assert refresh_tokens.session_of(text) is None
    assert not refresh_tokens.is_ours({1: MASTER}, similar)
