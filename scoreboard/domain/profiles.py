"""What a user may be called and look like: the rules for names, addresses, pictures and passwords.

Each function gives the value as it is to be stored, or a FieldError in words for people. Pure. Whether a name is still free is decided by
PostgreSQL alone; see storage.users.
"""

import re
import unicodedata
from urllib.parse import urlsplit

from scoreboard.domain.errors import FieldError

USERNAME_SHORTEST = 3  # characters; contract
USERNAME_LONGEST = 50  # characters; specification: VARCHAR(50)
USERNAME_RAW_LONGEST = 4 * USERNAME_LONGEST  # characters as they come: composing turns at most four into one
EMAIL_LONGEST = 255  # characters; specification: VARCHAR(255)
AVATAR_LONGEST = 500  # characters; specification: VARCHAR(500)
PASSWORD_SHORTEST = 10  # characters; contract
PASSWORD_LONGEST = 1024  # characters; a bound for the work, above any pass phrase

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(?:\.[^@\s.]+)*")  # only the form: whether it exists would need a letter
_URL = re.compile(r"[!#-;=?-\[\]_a-z~]+")  # RFC 3986's characters; others belong percent-encoded
# They turn the direction of what follows them: one such name would rearrange the whole row of the board.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REFUSED = frozenset({"Cc", "Cs", "Co", "Zl", "Zp"})  # control, surrogate, private, line and paragraph separators
# Letters, numbers, punctuation, symbols, and what this Python's Unicode does not know yet (a new emoji). The rest shows nothing by itself.
_VISIBLE = ("L", "N", "P", "S", "Cn")


def composed(text: str) -> str:
    """Unicode's composed form (NFC): the same text, whichever way its accents were typed."""
    return unicodedata.normalize("NFC", text)


def username(text: str) -> str | FieldError:
    """The name, composed."""
    name = composed(text)
    if not USERNAME_SHORTEST <= len(name) <= USERNAME_LONGEST:
        return FieldError("username", f"must have {USERNAME_SHORTEST} to {USERNAME_LONGEST} characters")
    if "@" in name:
        return FieldError("username", "must not contain @")
    categories = {unicodedata.category(character) for character in name}
    if categories & _REFUSED or _TURNING & set(name):
        return FieldError("username", "must not contain control characters")
    if not any(category.startswith(_VISIBLE) for category in categories):
        return FieldError("username", "must contain something that can be seen")
    if name != name.strip():
        return FieldError("username", "must not begin or end with a space")
    return name


def email(text: str) -> str | FieldError:
    """The address, composed; it is compared without regard to case."""
    address = composed(text.strip())
    if len(address) > EMAIL_LONGEST:
        return FieldError("email", f"must have at most {EMAIL_LONGEST} characters")
    if not _EMAIL.fullmatch(address) or any(unicodedata.category(character) in _REFUSED | {"Cf"} for character in address):
        return FieldError("email", "must be an e-mail address")
    return address


def avatar_url(text: str) -> str | FieldError:
    """The address of a picture, which browsers will load: https only."""
    if len(text) > AVATAR_LONGEST:
        return FieldError("avatarUrl", f"must have at most {AVATAR_LONGEST} characters")
    try:
        parts = urlsplit(text)
        whole = parts.scheme == "https" and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:  # a bracket without its pair, a port that is none
        whole = False
    if not whole or not _URL.fullmatch(text):
        return FieldError("avatarUrl", "must be an https:// address")
    return text


def password(text: str) -> str | FieldError:
    """The password as given: every character counts, none is forbidden."""
    if not PASSWORD_SHORTEST <= len(text) <= PASSWORD_LONGEST:
        return FieldError("password", f"must have {PASSWORD_SHORTEST} to {PASSWORD_LONGEST} characters")
    return text
