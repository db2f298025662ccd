"""Responses that are compressed once and then served from memory: plain or gzip, as the client accepts (RFC 9110
section 12.5.3).

For public content that is requested often: the page, its files, the OpenAPI document. NoContent in it is secret, so its
compressed length reveals nothing (BREACH).
"""

import gzip
from typing import NamedTuple

from scoreboard.http.request import Request, Response
from scoreboard.web.conditional import TaggedResponse, conditional, tagged

MAX_CODINGS = 16  # of one Accept-Encoding that are read: browsers name four
BEST_LEVEL = 9  # of gzip, for what is compressed once

_GZIPPED = b"content-encoding: gzip\r\n"


class CompressedResponse(NamedTuple):
    """One content, plain and gzipped, each with an ETag of its own."""

    plain: TaggedResponse
    gzipped: TaggedResponse

    def respond(self, request: Request) -> Response:
        """The form that the client accepts, or 304 when the client has it."""
        return conditional(request, *(self.gzipped if accepts_gzip(request) else self.plain))


def compressed(content: bytes, fields: bytes, level: int = BEST_LEVEL) -> CompressedResponse:
    """Both forms. `fields` are the header lines of both; a `vary: accept-encoding` must be among them."""
    packed = gzip.compress(content, level, mtime=0)
    return CompressedResponse(tagged(content, fields), tagged(packed, fields + _GZIPPED))


def accepts_gzip(request: Request) -> bool:
    """Whether the client accepts gzip; `q=0` says that it does not."""
    for name, value in request.headers:
        if name == b"accept-encoding" and b"gzip" in value.lower():
            for offer in value.lower().split(b",", MAX_CODINGS)[:MAX_CODINGS]:
                coding, _, weight = offer.replace(b" ", b"").partition(b";q=")
                if coding == b"gzip":
                    return not weight or bool(weight.strip(b"0."))
    return False
