"""What an installation issues, and what it accepts after a rotation of the master key."""

from uuid import UUID

from scoreboard.security import refresh_tokens
from scoreboard.security.issuer import Issuer
from scoreboard.security.tokens import TokenKeys

USER, SID = UUID(int=1), UUID(int=2)
OLD, NEW = b"1" * 32, b"2" * 32
TOKEN_KEYS = TokenKeys.from_private({"k1": b"k" * 32}, "k1")
BEFORE = Issuer("http://127.0.0.1:8000", TOKEN_KEYS, {1: OLD}, 1)
ROTATED = Issuer("http://127.0.0.1:8000", TOKEN_KEYS, {1: OLD, 2: NEW}, 2)
RETIRED = Issuer("http://127.0.0.1:8000", TOKEN_KEYS, {2: NEW}, 2)


def test_an_access_token_is_accepted_until_it_expires() -> None:
    """It names the user and the session, for `lifetime_seconds`."""
    token = BEFORE.access_token(USER, SID, jti="j", now=1000.5)
    claims = BEFORE.verify_access_token(token, now=1000.5)
    assert claims is not None
    assert (claims.user, claims.sid, claims.expires) == (USER, SID, 1000 + BEFORE.lifetime_seconds)
    assert BEFORE.verify_access_token(token, now=claims.expires) is None


def test_an_installation_accepts_no_token_of_another() -> None:
    """With the same keys, but under another name."""
    other = Issuer("https://elsewhere.example", TOKEN_KEYS, {1: OLD}, 1)
    assert BEFORE.verify_access_token(other.access_token(USER, SID, jti="j", now=1000.0), now=1000.0) is None


def test_the_action_secret_is_of_the_current_version() -> None:
    """After a rotation the secret of the old version stays valid as long as that key does."""
    before = BEFORE.action_secret(USER, SID)
    assert ROTATED.action_secret(USER, SID) != before
    secrets = {1: before.encode(), 2: ROTATED.action_secret(USER, SID).encode()}
    assert ROTATED.action_secrets(USER, SID) == secrets
    assert 1 not in RETIRED.action_secrets(USER, SID)


def test_a_next_token_can_be_made_again_after_a_rotation() -> None:
    """One of the possible next tokens is the one that was made before it."""
    first = BEFORE.first_refresh_token(SID, b"v" * refresh_tokens.VALUE_BYTES)
    following = BEFORE.next_refresh_token(first)
    assert following in set(ROTATED.possible_next_refresh_tokens(first))
    assert ROTATED.next_refresh_token(first) != following
    assert refresh_tokens.session_of(following) == SID


def test_what_a_retired_key_made_is_not_ours() -> None:
    """Refresh tokens and device cookies count while their master key is live."""
    token = BEFORE.first_refresh_token(SID, b"v" * refresh_tokens.VALUE_BYTES)
    cookie = BEFORE.device_cookie(USER, b"n" * 16)
    assert ROTATED.issued_refresh_token(token)
    assert not RETIRED.issued_refresh_token(token)
    device = ROTATED.read_device_cookie(cookie)
    assert device is not None
    assert (device.user, device.nonce) == (USER, (b"n" * 16).hex())
    assert RETIRED.read_device_cookie(cookie) is None


def test_no_key_shows_in_a_repr() -> None:
    """Whatever prints an issuer, the keys stay."""
    assert str(OLD) not in repr(ROTATED)
    assert str(b"k" * 32) not in repr(ROTATED)
