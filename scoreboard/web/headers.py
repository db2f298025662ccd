"""The head of every response, of any handler: status line, Date, request id, security fields, CORS.

`ResponseHeaders.write` is called for each response, so the part that is the same within a second is made once a second.
Bodies are shared between clients, heads never are.
"""

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from scoreboard.http.request import Request, Response
from scoreboard.web.cors import API, PUBLIC_PREFIXES, Origins

# The page and all that it loads come from this server. {live}: the public URL as a WebSocket's; 'self' includes it, but
# older browsers don't know that. Forms are sent by script. No text becomes markup ("trusted types"); browsers that
# don't know this directive ignore it.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{live}; img-src 'self' data:; "
    "manifest-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# A response that is no page may load nothing, even if a browser shows it as one.
DATA_POLICY = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"

SHARED = (
    "x-content-type-options: nosniff\r\n"
    "referrer-policy: strict-origin-when-cross-origin\r\n"  # never our paths and queries to other sites
    "cross-origin-opener-policy: same-origin\r\n"
)
# Other sites may not load it as a picture or a script. Requests that CORS allows are not affected.
SAME_ORIGIN = "cross-origin-resource-policy: same-origin\r\n"
CROSS_ORIGIN = "cross-origin-resource-policy: cross-origin\r\n"  # of files that are for anybody
TRANSPORT = "strict-transport-security: max-age=31536000\r\n"  # a year; only where the public URL is https

PAGE = b"content-type: text/html"

# What a script of another origin may read. Date: the client signs actions with the server's time, whatever its own
# clock says.
EXPOSED = (
    b"access-control-expose-headers: Date, ETag, Last-Modified, Retry-After, RateLimit, RateLimit-Policy, "
    b"X-Request-ID, Idempotency-Replayed\r\n"
)
METHODS = b"access-control-allow-methods: GET, POST, PUT, PATCH, DELETE\r\n"
MAX_AGE = b"access-control-max-age: 600\r\n"  # seconds; Chromium believes at most two hours
ALLOWED_FIELDS = (
    b"authorization",
    b"content-type",
    b"x-action-signature",
    b"x-request-id",
    b"if-none-match",
    b"last-event-id",
)
# Other fields that a preflight asks for are allowed too: tracing libraries add fields to all requests (traceparent,
# baggage, sentry-trace, …). A field that is not known here does nothing.
ECHOED_FIELDS = 32  # names
ECHOED_BYTES = 64  # of one name

_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+").fullmatch  # a token of RFC 9110, section 5.6.2, in lower case


class ResponseHeaders:
    """Writes heads. `clock` gives Unix seconds."""

    __slots__ = ("_clock", "_files", "_origins", "_page_policy", "_pages", "_second", "_shared", "_starts")

    def __init__(self, origins: Origins, *, public_url: str = "", clock: Callable[[], float] = time.time) -> None:
        self._origins, self._clock = origins, clock
        self._shared = (
            SHARED
            + (TRANSPORT if public_url.startswith("https:") else "")
            + ("vary: origin\r\n" if origins.others else "")
        )
        live = " ws" + public_url.removeprefix("http") if public_url else ""  # of http: ws:, of https: wss:
        self._page_policy = PAGE_POLICY.format(live=live)
        self._second = 0
        # status → what this second's answers begin with, up to the request id; data
        self._starts: dict[int, bytes] = {}
        self._pages: dict[int, bytes] = {}  # the same for HTML
        self._files: dict[int, bytes] = {}  # the same for what other sites may load

    def write(self, request: Request, status: int, fields: bytes, length: int | None) -> bytes:
        """The whole head with its blank line. `fields`: ready lines of this answer; no Content-Length when `length` is
        None."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._starts.clear()
            self._pages.clear()
            self._files.clear()
        if request.path.startswith(API):  # most are; each test costs half a percent of a read
            starts = self._starts
        elif request.path.startswith(PUBLIC_PREFIXES) and not fields.startswith(
            PAGE
        ):  # a page there is an error, as 404
            starts = self._files
        else:  # a page has its content type as the first field: a search costs more
            starts = self._pages if fields.startswith(PAGE) else self._starts
        start = starts.get(status) or starts.setdefault(status, self._start(status, starts))
        # Public files have the field already, with "*".
        if self._origins.others and b"access-control-allow-origin:" not in fields:
            fields += self._cors(request)
        if length is None:
            return b"%b%b\r\n%b\r\n" % (start, request.request_id, fields)
        return b"%b%b\r\n%bcontent-length: %d\r\n\r\n" % (start, request.request_id, fields, length)

    def preflight(self, request: Request) -> Response | None:
        """The response to a preflight (CORS); None for every other request. An origin that is not allowed gets a 204
        without permissions."""
        if request.method != b"OPTIONS" or not request.header(b"access-control-request-method"):
            return None
        if not self._origins.is_other(request.header(b"origin").lower()):
            return Response(204, b"")
        return Response(
            204,
            b"",
            b"%baccess-control-allow-headers: %b\r\n%b" % (METHODS, b", ".join(_allowed_fields(request)), MAX_AGE),
        )

    def _start(self, status: int, starts: dict[int, bytes]) -> bytes:
        reason = HTTPStatus(status).phrase
        date = formatdate(self._second, usegmt=True)
        policy = self._page_policy if starts is self._pages else DATA_POLICY
        shared = self._shared + (CROSS_ORIGIN if starts is self._files else SAME_ORIGIN)
        fields = f"date: {date}\r\n{shared}content-security-policy: {policy}\r\nx-request-id: "
        return f"HTTP/1.1 {status} {reason}\r\n{fields}".encode()

    def _cors(self, request: Request) -> bytes:
        origin = request.header(b"origin")
        if origin.lower() not in self._origins.others:
            return b""
        return b"access-control-allow-origin: %b\r\naccess-control-allow-credentials: true\r\n%b" % (origin, EXPOSED)


def _allowed_fields(request: Request) -> list[bytes]:
    """The names of fields that a page may send: ALLOWED_FIELDS, and each that it asks for that is a valid name, within
    the bounds."""
    asked = request.header(b"access-control-request-headers").lower().split(b",", ECHOED_FIELDS)[:ECHOED_FIELDS]
    names = [name.strip() for name in asked]
    return list(
        dict.fromkeys((*ALLOWED_FIELDS, *(name for name in names if len(name) <= ECHOED_BYTES and _NAME(name))))
    )
