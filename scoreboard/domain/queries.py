"""Query strings of API routes, read within bounds: what is longer or has more fields is refused before it is taken
apart. Pure."""

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import parse_qs

from scoreboard.domain.errors import Code, FieldError, Refusal

QUERY_BYTES = 1024  # a token has some 430, a position 30
QUERY_FIELDS = 16  # the routes know six

SHORT_BYTES = 128  # of a query that others may send too, and that is remembered
NAME_LENGTH = 50  # characters of a parameter's name that are told

TOO_LONG = f"must have at most {QUERY_BYTES} bytes and {QUERY_FIELDS} fields"
OUT_OF_BOUNDS = Refusal(Code.INVALID_REQUEST, f"query {TOO_LONG}", (FieldError("query", TOO_LONG),))


def parse_query(query: bytes) -> dict[str, list[str]] | None:
    """The values of each name, in their order, blank ones included; None beyond the bounds."""
    if len(query) > QUERY_BYTES:
        return None
    try:
        return parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS)
    except ValueError:
        return None


def check_parameters(query: bytes, known: frozenset[str]) -> Refusal | None:
    """Why a query is refused before its values are looked at; None: it is not.

    It is beyond the bounds, or has a parameter that is none of these: the first one is named, as far as it may be told.
    """
    if len(query) > SHORT_BYTES or b"token" in query:
        return _check_parameters(query, known)  # nobody else's
    return _check_same(query, known)


def _check_parameters(query: bytes, known: Collection[str]) -> Refusal | None:
    values = parse_query(query)
    if values is None:
        return OUT_OF_BOUNDS
    unknown = next((name for name in values if name not in known), None)
    if unknown is None:
        return None
    name = "".join(letter if letter.isprintable() else "?" for letter in unknown[:NAME_LENGTH])
    return Refusal(
        Code.INVALID_REQUEST, f"query has an unknown parameter: {name}", (FieldError(name, "is not known here"),)
    )


# Who wait for the same change ask alike, and reading costs as much as a write to a socket. At most 0.2 MB.
_check_same = lru_cache(maxsize=256)(_check_parameters)
