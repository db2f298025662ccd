"""Wrapped master keys: what was wrapped is read again, and nothing else is."""

import pytest

from scoreboard.security.key_wrapping import NONCE_BYTES, unwrap, wrap

MASTER, OTHER, KEY, NONCE = b"m" * 32, b"o" * 32, b"k" * 32, b"n" * NONCE_BYTES


def test_a_wrapped_key_is_read_again() -> None:
    """With the same master key and version; the stored bytes do not contain the key."""
    wrapped = wrap(MASTER, 2, KEY, NONCE)
    assert unwrap(MASTER, 2, wrapped) == KEY
    assert KEY not in wrapped


@pytest.mark.parametrize(
    ("master", "version", "change"),
    [
        (OTHER, 2, lambda wrapped: wrapped),
        (MASTER, 3, lambda wrapped: wrapped),
        (MASTER, 2, lambda wrapped: wrapped[:-1] + bytes([wrapped[-1] ^ 1])),
        (MASTER, 2, lambda wrapped: wrapped[:20]),
        (MASTER, 2, lambda wrapped: b""),
    ],
)
def test_anything_else_is_refused(master: bytes, version: int, change: object) -> None:
    """Another master key, the key of another version put in its place, changed or cut bytes."""
    assert callable(change)
    assert unwrap(master, version, change(wrap(MASTER, 2, KEY, NONCE))) is None
