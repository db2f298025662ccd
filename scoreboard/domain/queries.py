"""Query strings of API routes, parsed within bounds. A query that is longer, or has more fields, is refused. Pure.

web.rate_limit calls `check_parameters` for every request with a query. Routes that need a value call `parse_query`.
"""

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import parse_qs

from scoreboard.domain.errors import Code, FieldError, Refusal, invalid_request

MAX_QUERY_BYTES = 1024  # a token has some 430, a position 30
MAX_QUERY_FIELDS = 16  # the routes know six

CACHED_QUERY_BYTES = 128  # other clients are likely to send the same short query, so its check is cached
MAX_NAME_LENGTH = 50  # characters of an unknown parameter's name that the refusal repeats

OUT_OF_BOUNDS = invalid_request("query", f"must have at most {MAX_QUERY_BYTES} bytes and {MAX_QUERY_FIELDS} fields")


def parse_query(query: bytes) -> dict[str, list[str]] | None:
    """The values of each name, in their order, blank ones included; None beyond the bounds."""
    if len(query) > MAX_QUERY_BYTES:
        return None
    try:
        return parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        return None


def check_parameters(query: bytes, known: frozenset[str]) -> Refusal | None:
    """The refusal of a query, before its values are used; None when it is accepted.

    A query beyond the bounds is refused, and one with an unknown parameter. The refusal names the first such one.
    """
    if len(query) > CACHED_QUERY_BYTES or b"token" in query:
        return _check_parameters(query, known)  # no other client sends the same, and a token must not stay in memory
    return _check_cached(query, known)


def _check_parameters(query: bytes, known: Collection[str]) -> Refusal | None:
    values = parse_query(query)
    if values is None:
        return OUT_OF_BOUNDS
    unknown = next((name for name in values if name not in known), None)
    if unknown is None:
        return None
    name = "".join(letter if letter.isprintable() else "?" for letter in unknown[:MAX_NAME_LENGTH])
    return Refusal(
        Code.INVALID_REQUEST, f"query has an unknown parameter: {name}", (FieldError(name, "is not known here"),)
    )


# Clients that wait for the same change send the same query, and parsing one costs as much as a write to a socket. At
# most 256 entries, 0.2 MB; full: the least recently used is dropped.
_check_cached = lru_cache(maxsize=256)(_check_parameters)
