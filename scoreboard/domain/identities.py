"""Who a user is to others than this installation, and names for users who have not chosen a free one. Pure.

An outside id is a guest's device key, an id of the game's own server, or the subject of an outside issuer's token.
storage.postgres.identities keeps which user has which.

Tested in tests/domain/test_identities.py.
"""

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple

import unicodedata2 as unicodedata

from scoreboard.domain import account_rules, names
from scoreboard.domain.account_rules import MAX_RAW_USERNAME_LENGTH, MAX_USERNAME_LENGTH
from scoreboard.domain.errors import FieldError

DEVICE = "device"  # provider of guests; `external_id` is the hex SHA-256 of the device key
SERVER = "server"  # provider of users whom server keys create
MAX_EXTERNAL_ID_LENGTH = 255  # characters; the column's

MIN_DEVICE_KEY_LENGTH = 32  # characters of base64url: 192 random bits
MAX_DEVICE_KEY_LENGTH = 128
_DEVICE_KEY = re.compile(rf"[A-Za-z0-9_-]{{{MIN_DEVICE_KEY_LENGTH},{MAX_DEVICE_KEY_LENGTH}}}")
MIN_DIFFERENT_CHARACTERS = 8  # of a device key: 32 random ones have fewer once in 10²⁰ times; "aaaa…" has one

# control characters, surrogates, what Unicode does not define, line and paragraph separators
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})

NEUTRAL_NAME = "Player"
# How many digits follow a name that is taken, one try each. 9 digits are free but for a flood of a billion users.
DIGITS_AFTER_WANTED = (4, 4, 6)
DIGITS_AFTER_NEUTRAL = (6, 6, 9, 9)


class ExternalIdentity(NamedTuple):
    """Names one user: `external_id` is unique with its provider, case counts."""

    provider: str
    external_id: str

    def __repr__(self) -> str:
        return f"ExternalIdentity({self.provider!r})"  # the id may be personal, or the hash of a key


def external_id(text: str, field: str = "externalId") -> str | FieldError:
    """An id that an outside system gave, unchanged, or why it is refused."""
    if not 1 <= len(text) <= MAX_EXTERNAL_ID_LENGTH:
        return FieldError(field, f"must have 1 to {MAX_EXTERNAL_ID_LENGTH} characters")
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in text):
        return FieldError(field, "must not contain control characters or line breaks")
    return text


def device_identity(key: str) -> ExternalIdentity | FieldError:
    """The identity of a device key, or why it is none. The key needs no salt: it has at least 192 random bits."""
    if not _DEVICE_KEY.fullmatch(key):
        return FieldError(
            "deviceKey",
            f"must have {MIN_DEVICE_KEY_LENGTH} to {MAX_DEVICE_KEY_LENGTH} characters of base64url, made at random",
        )
    if len(set(key)) < MIN_DIFFERENT_CHARACTERS:
        return FieldError("deviceKey", "must be made at random")
    return ExternalIdentity(DEVICE, sha256(key.encode()).hexdigest())


def usernames_like(wanted: str | None, draw: Callable[[int], int]) -> Iterator[str]:
    """Names to try for a new user, the best first; all obey account_rules.username. The last ones are neutral.

    `wanted` is any text, of any length; a text with an @ is taken for an address, which must not become a name. `draw`
    returns a random number below its argument.
    """
    base = None if wanted is None else _base(wanted)
    if base is not None:
        if isinstance(name := account_rules.username(base), str):
            yield name
        for digits in DIGITS_AFTER_WANTED:
            numbered = f"{base[: MAX_USERNAME_LENGTH - digits - 1].rstrip()}-{_number(digits, draw)}"
            if isinstance(name := account_rules.username(numbered), str):
                yield name
    for digits in DIGITS_AFTER_NEUTRAL:
        yield f"{NEUTRAL_NAME}-{_number(digits, draw)}"


def _base(wanted: str) -> str | None:
    """The part of a wanted name that can be used; None: nothing of it."""
    text = names.fold(wanted[:MAX_RAW_USERNAME_LENGTH])
    if not text or "@" in text or names.fault(text) is not None:
        return None
    return text[:MAX_USERNAME_LENGTH].rstrip()


def _number(digits: int, draw: Callable[[int], int]) -> int:
    """A number of so many digits, which begins with no 0."""
    least: int = 10 ** (digits - 1)
    return least + draw(9 * least)
