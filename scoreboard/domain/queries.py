"""Query strings of API routes, read within bounds: a longer query, or one with more fields, is refused. Pure.

web.rate_limit calls `check_parameters` for every request with a query; the handlers read values with `parse_query`.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs

from scoreboard.domain.errors import Code, FieldError, Refusal, invalid_request

MAX_QUERY_BYTES = 1024  # a token has some 430, a position 30
MAX_QUERY_FIELDS = 16  # the routes know six

CACHED_QUERY_BYTES = 128  # a shorter query is probably sent by others too, so its result is cached
MAX_NAME_LENGTH = 50  # characters of an unknown parameter's name that the refusal repeats

PAGE_ROWS, MAX_PAGE_ROWS = 50, 100  # of a list that is read page by page
MAX_CURSOR_LENGTH = 64  # characters of a page's cursor, which is opaque to clients
BAD_CURSOR = invalid_request("cursor", "must be `next` of the page before")
_NUMBER = re.compile(r"[0-9]{1,4}").fullmatch

OUT_OF_BOUNDS = invalid_request("query", f"must have at most {MAX_QUERY_BYTES} bytes and {MAX_QUERY_FIELDS} fields")


class Page(NamedTuple):
    """Which part of a list is asked for. `cursor` is "" for the first page."""

    limit: int
    cursor: str


def page_of(query: bytes) -> Page | Refusal:
    """`limit` and `cursor` of a query whose names `check_parameters` has admitted. A name that comes twice is
    refused."""
    values = parse_query(query)
    if values is None:
        return OUT_OF_BOUNDS
    for name, given in values.items():
        if len(given) > 1:
            return invalid_request(name, "must be given once")
    limit, cursor = values.get("limit", [str(PAGE_ROWS)])[0], values.get("cursor", [""])[0]
    if not _NUMBER(limit) or not 1 <= int(limit) <= MAX_PAGE_ROWS:
        return invalid_request("limit", f"must be a number from 1 to {MAX_PAGE_ROWS}")
    if len(cursor) > MAX_CURSOR_LENGTH:
        return BAD_CURSOR
    return Page(int(limit), cursor)


def parse_query(query: bytes) -> dict[str, list[str]] | None:
    """The values of each name in their order, blank ones too; None when the query is beyond the bounds."""
    if len(query) > MAX_QUERY_BYTES:
        return None
    try:
        return parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        return None


def check_parameters(query: bytes, known: frozenset[str]) -> Refusal | None:
    """Why a query is refused before its values are read; None when it is not.

    A query beyond the bounds is refused, and one with a parameter that is not known. The first such one is named.
    """
    if len(query) > CACHED_QUERY_BYTES or b"token" in query:
        return _check_parameters(query, known)  # nobody else sends the same, and a token must not stay in memory
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


# Clients that wait for the same change send the same query, and parsing one takes as long as a write to a socket. At
# most 256 entries, 0.2 MB; full: the least recently used one is dropped.
_check_cached = lru_cache(maxsize=256)(_check_parameters)
