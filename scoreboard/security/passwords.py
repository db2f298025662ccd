"""Passwords: argon2id hashes. Each call takes some 35 ms and 64 MiB, so callers run it in a thread, with a limiter.

Pure but for the salt. `verify` with no hash takes as long as with one: whether an account exists is not told by time.
"""

import unicodedata

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)  # argon2id, 3 passes over 64 MiB, 4 lanes
# The hash of random bytes that were thrown away, with the parameters above: what a log-in to no account is compared with.
NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$Xfs8jLTKVaQTcRQ3EXKnXQ$HHm+Qb8/B6yRoy1wkwCHHbgCefs8zEQooLprDlB6QZA"


def hash_password(password: str) -> str:
    """A salted hash in PHC form."""
    return _HASHER.hash(_bytes(password))


def verify(stored: str | None, password: str) -> bool:
    """Whether the password is the stored one; False, after the same time, when nothing is stored."""
    try:
        _HASHER.verify(stored or NOBODY, _bytes(password))
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def _bytes(password: str) -> bytes:
    """The same for the same characters, however a keyboard composes them (RFC 8265: NFC)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")  # a command line may bring what is no text


def is_outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's, and so should be replaced at the next log-in."""
    return extract_parameters(stored) != RFC_9106_LOW_MEMORY
