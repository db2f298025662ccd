"""Device cookies: they name the browser's account, and nobody but us can make one."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from scoreboard.security import device_cookies, refresh_tokens
from scoreboard.security.device_cookies import NONCE_BYTES, Device

ADA = UUID(int=7)
OLD, NEW = b"1" * 32, b"2" * 32
COOKIE = device_cookies.make(OLD, ADA, b"n" * NONCE_BYTES)


def test_a_cookie_is_read_under_any_live_master_key() -> None:
    """A rotation forgets no browser; a key that was retired makes strangers of those that have its cookies."""
    assert device_cookies.read({1: OLD, 2: NEW}, COOKIE) == Device(ADA, (b"n" * NONCE_BYTES).hex())
    assert device_cookies.read({2: NEW}, COOKIE) is None


def test_what_is_changed_is_none_of_ours() -> None:
    """Every single character counts, and a refresh token is no device cookie."""
    for place in range(len(COOKIE)):
        other = "A" if COOKIE[place] != "A" else "B"
        assert device_cookies.read({1: OLD}, COOKIE[:place] + other + COOKIE[place + 1 :]) is None
    assert device_cookies.read({1: OLD}, refresh_tokens.make(OLD, ADA, b"v" * 32)) is None
    assert device_cookies.read({1: OLD}, refresh_tokens.make(OLD, ADA, b"v" * 32)[: len(COOKIE)]) is None


@given(st.text(max_size=80) | st.text("Aa0-_=+/", min_size=60, max_size=66))
def test_no_text_raises(text: str) -> None:
    """Whatever a browser sends is a device or nobody's."""
    assert device_cookies.read({1: OLD}, text) is None
