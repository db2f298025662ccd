"""What requests to /admin name: users, actions, pages of lists, and texts. Read strictly; anything else is a Refusal.

An action id may have characters that no URL path can hold: a slash, a control character, or nothing but dots. Such an
id is written as `~` and its UTF-8 bytes in base64url without padding; so is one that begins with `~`. Without that form
a cheat could choose ids that nobody can name.

Tested in tests/domain/test_admin_queries.py.
"""

import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes
from uuid import UUID

from scoreboard.domain.actions import MAX_ACTION_ID_LENGTH
from scoreboard.domain.errors import NOT_FOUND, Refusal, invalid_request

MAX_PAGE = 100  # rows of a page
DEFAULT_PAGE = 50
MAX_SEARCH_LENGTH = 255  # characters, of an e-mail address
MAX_CURSOR = 2**63 - 1  # a PostgreSQL bigint
ENCODED = "~"  # an action id in base64url follows

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_NUMBER = re.compile(r"[0-9]{1,19}").fullmatch
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+").fullmatch

BAD_CURSOR = invalid_request("cursor", "is not one of this list")

Values = Mapping[str, Sequence[str]]  # of a query, see domain.queries


def read_user_id(text: str) -> UUID | Refusal:
    """A user's id in a path."""
    return UUID(text) if _UUID(text) else NOT_FOUND


def read_number(text: str) -> int | Refusal:
    """The number of a flag or of a held action in a path."""
    return int(text) if _NUMBER(text) and int(text) <= MAX_CURSOR else NOT_FOUND


def read_action_id(segment: bytes) -> str | Refusal:
    """An action id from its raw segment of a path."""
    try:
        text = unquote_to_bytes(segment).decode()
        if text.startswith(ENCODED):
            encoded = text.removeprefix(ENCODED)
            if not _BASE64URL(encoded):
                return NOT_FOUND
            text = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (UnicodeDecodeError, binascii.Error):
        return NOT_FOUND
    return text if 1 <= len(text) <= MAX_ACTION_ID_LENGTH and "\0" not in text else NOT_FOUND


def read_text(field: str, text: str, longest: int) -> str | Refusal:
    """A reason or a note, without spaces around it: 1 to `longest` characters that can be printed, and line ends."""
    text = text.strip()
    if not 1 <= len(text) <= longest or not all(part.isprintable() for part in text.splitlines()):
        return invalid_request(field, f"must have 1 to {longest} characters that can be printed")
    return text


def read_limit(values: Values) -> int | Refusal:
    """How many rows a page has."""
    text = values.get("limit", (str(DEFAULT_PAGE),))[-1]
    if not _NUMBER(text) or not 1 <= int(text) <= MAX_PAGE:
        return invalid_request("limit", f"must be a number from 1 to {MAX_PAGE}")
    return int(text)


def read_search(values: Values) -> str | Refusal:
    """The text that is searched for; "" when there is none."""
    text = values.get("query", ("",))[-1].strip()
    if len(text) > MAX_SEARCH_LENGTH or "\0" in text:
        return invalid_request("query", f"must have at most {MAX_SEARCH_LENGTH} characters")
    return text


def read_numbers(values: Values, count: int) -> tuple[int, ...] | Refusal | None:
    """A cursor of `count` numbers with `-` between them; None when there is none."""
    text = values.get("cursor", ("",))[-1]
    if not text:
        return None
    parts = text.split("-")
    if len(parts) != count or not all(_NUMBER(part) and int(part) <= MAX_CURSOR for part in parts):
        return BAD_CURSOR
    return tuple(int(part) for part in parts)


def read_text_cursor(values: Values) -> str | Refusal | None:
    """A cursor that is a text; None when there is none."""
    text = values.get("cursor", ("",))[-1]
    return (BAD_CURSOR if len(text) > MAX_SEARCH_LENGTH or "\0" in text else text) or None
