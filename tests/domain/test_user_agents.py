"""A User-Agent in a few words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.user_agents import MAX_DESCRIPTION_LENGTH, describe

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "described"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/140.0.0.0 Safari/537.36", "Chrome on Windows"),
        (f"Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        (f"Mozilla/5.0 (Linux; Android 15; K) {WEBKIT} Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Version/18.0 Safari/605.1.15", "Safari on macOS"),
        (f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) {WEBKIT} Version/18.0 Safari/604.1", "Safari on iOS"),
        ("curl/8.14.1", "curl"),
        ("Android", "Android"),
        ("", ""),
        ("<script>alert(1)</script>", ""),
        ("x" * 600 + "Firefox/140.0", ""),
    ],
)
def test_families_are_named(user_agent: str, described: str) -> None:
    """What a client makes up is not repeated."""
    assert describe(user_agent) == described


@given(st.text(max_size=600))
def test_any_text_fits_the_column(user_agent: str) -> None:
    assert len(describe(user_agent)) <= MAX_DESCRIPTION_LENGTH
