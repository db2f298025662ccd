"""Query strings of API routes, read within bounds: what is longer or has more fields is refused before it is taken apart. Pure."""

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import parse_qs

QUERY_BYTES = 1024  # a token has some 430, a position 30
QUERY_FIELDS = 16  # the routes know six

SHORT_BYTES = 128  # of a query that others may send too, and that is remembered
NAME_LENGTH = 50  # characters of a parameter's name that are told

TOO_LONG = f"must have at most {QUERY_BYTES} bytes and {QUERY_FIELDS} fields"


def parse_query(query: bytes) -> dict[str, list[str]] | None:
    """The values of each name, in their order, blank ones included; None beyond the bounds."""
    if len(query) > QUERY_BYTES:
        return None
    try:
        return parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS)
    except ValueError:
        return None


def unknown_parameter(query: bytes, known: frozenset[str]) -> str | None:
    """The name of the first parameter that is none of these, as far as it may be told; None when there is none, or beyond the bounds."""
    if len(query) > SHORT_BYTES or b"token" in query:
        return _unknown_parameter(query, known)  # nobody else's
    return _same_unknown_parameter(query, known)


def _unknown_parameter(query: bytes, known: Collection[str]) -> str | None:
    name = next((name for name in parse_query(query) or () if name not in known), None)
    return None if name is None else "".join(letter if letter.isprintable() else "?" for letter in name[:NAME_LENGTH])


# Who wait for the same change ask alike, and reading costs as much as a write to a socket. At most 0.2 MB.
_same_unknown_parameter = lru_cache(maxsize=256)(_unknown_parameter)
