"""The cookie of a log-in that a browser has begun."""

import base64
from hashlib import sha256

import pytest

from scoreboard.security.log_in_attempts import ATTEMPT_SECONDS, SEED_BYTES, make_cookie, read_cookie

KEYS = {1: b"1" * 32, 2: b"2" * 32}
NOW = 1_800_000_000.0
SEED = b"s" * SEED_BYTES
COOKIE = make_cookie(KEYS[2], "school", SEED, now=NOW)


def test_an_attempt_is_read_back() -> None:
    """On any node, and with each live master key, the same cookie gives the same three values."""
    attempt = read_cookie(KEYS, "school", COOKIE, now=NOW)
    assert attempt is not None
    assert attempt == read_cookie({2: KEYS[2], 3: b"3" * 32}, "school", COOKIE, now=NOW + ATTEMPT_SECONDS - 1)
    assert len({attempt.state, attempt.nonce, attempt.verifier, COOKIE}) == 4
    assert 43 <= len(attempt.verifier) <= 128  # RFC 7636 section 4.1
    challenge = base64.urlsafe_b64encode(sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
    assert attempt.challenge == challenge


def test_an_attempt_ends() -> None:
    assert read_cookie(KEYS, "school", COOKIE, now=NOW + ATTEMPT_SECONDS) is None


def test_an_attempt_is_for_one_issuer() -> None:
    """A cookie for one issuer is none for another, whose state and nonce would be others (mix-up)."""
    assert read_cookie(KEYS, "other", COOKIE, now=NOW) is None
    other = read_cookie(KEYS, "other", make_cookie(KEYS[2], "other", SEED, now=NOW), now=NOW)
    mine = read_cookie(KEYS, "school", COOKIE, now=NOW)
    assert other is not None
    assert mine is not None
    assert not set(other) & set(mine)


def test_every_attempt_is_another() -> None:
    mine = read_cookie(KEYS, "school", COOKIE, now=NOW)
    next_one = read_cookie(KEYS, "school", make_cookie(KEYS[2], "school", b"t" * SEED_BYTES, now=NOW), now=NOW)
    assert mine is not None
    assert next_one is not None
    assert not set(mine) & set(next_one)


@pytest.mark.parametrize("index", range(0, len(COOKIE), 5))
def test_a_changed_cookie_is_refused(index: int) -> None:
    """Every character counts: nobody lengthens an attempt, or chooses its values."""
    other = COOKIE[:index] + ("A" if COOKIE[index] != "A" else "B") + COOKIE[index + 1 :]
    assert read_cookie(KEYS, "school", other, now=NOW) is None


@pytest.mark.parametrize("value", ["", "x", COOKIE[:-1], COOKIE + "A", "ä" * len(COOKIE), "*" * len(COOKIE)])
def test_what_is_no_cookie(value: str) -> None:
    assert read_cookie(KEYS, "school", value, now=NOW) is None


def test_a_retired_master_key_ends_attempts() -> None:
    assert read_cookie({3: b"3" * 32}, "school", COOKIE, now=NOW) is None
    assert read_cookie({}, "school", COOKIE, now=NOW) is None


def test_an_attempt_hides_its_values() -> None:
    attempt = read_cookie(KEYS, "school", COOKIE, now=NOW)
    assert attempt is not None
    assert repr(attempt) == "LogInAttempt()"
