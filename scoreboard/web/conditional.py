"""Conditional requests: ETag with If-None-Match, Last-Modified with If-Modified-Since (RFC 9110 section 13). Pure.

Every GET route whose answer can be kept ends with `conditional`, which gives 304 to a client that has the answer.
"""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from scoreboard.domain.etags import strong_etag
from scoreboard.http.request import Request, Response
from scoreboard.web.responses import JSON

DATE_BYTES = 64  # of an HTTP date; the longest form has 33

_LAST_MODIFIED = re.compile(rb"(?:^|\n)last-modified: ([^\r]+)\r").search


class TaggedResponse(NamedTuple):
    """A 200 with its ETag, which also stands in the response's fields."""

    response: Response
    etag: bytes


def tagged(body: bytes, fields: bytes) -> TaggedResponse:
    """A 200 with this body, these header lines, and the body's ETag."""
    etag = strong_etag(body)
    return TaggedResponse(Response(200, body, b"%betag: %b\r\n" % (fields, etag)), etag)


def conditional(request: Request, response: Response, etag: bytes) -> Response:
    """The response, or 304 when the client has it. The header lines about caching are the same in both."""
    if request.has(b"if-none-match"):
        is_current = matches_etag(request, etag)
    else:
        is_current = request.has(b"if-modified-since") and is_unmodified(request, response.fields)
    return Response(304, b"", response.fields.removeprefix(JSON)) if is_current else response


def matches_etag(request: Request, etag: bytes) -> bool:
    """Whether If-None-Match names this ETag: a list, weak ones too (RFC 9110 section 13.1.2), or `*`.

    The list is not parsed: an ETag of this server is a hash in quotes, and is searched for in the text.
    """
    return any(name == b"if-none-match" and (etag in value or value.strip() == b"*") for name, value in request.headers)


def is_unmodified(request: Request, fields: bytes) -> bool:
    """Whether If-Modified-Since names the response's Last-Modified or a later second (RFC 9110 section 13.1.3).

    An If-None-Match counts alone; other methods than GET and HEAD have no such condition.
    """
    modified = _LAST_MODIFIED(fields)
    if modified is None or request.has(b"if-none-match") or request.method not in {b"GET", b"HEAD"}:
        return False
    since = request.header(b"if-modified-since")
    if since == modified[1]:
        return True
    since_seconds, modified_seconds = _read_date(since), _read_date(modified[1])
    return since_seconds is not None and modified_seconds is not None and modified_seconds <= since_seconds


def _read_date(text: bytes) -> float | None:
    """Unix seconds of an HTTP date in any of its three forms; None for anything else."""
    if len(text) > DATE_BYTES:
        return None
    try:
        date = parsedate_to_datetime(text.decode("ascii"))
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()  # the form of asctime has no zone: UTC
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
