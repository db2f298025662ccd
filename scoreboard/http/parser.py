"""Requests from bytes: `RequestParser`.

The parser is llhttp (httptools). This module has its callbacks, and every rule by which a request is refused before a
handler is called: framing that two parsers could read differently (request smuggling, RFC 9112 sections 6 and 11.2),
versions, sizes. It does no I/O and has no clock: `http.connection` feeds it, reads `queue`, `refusal` and `progress`,
and answers.

Tested in tests/http/test_connection.py, tests/http/test_smuggling.py, tests/http/test_fuzz.py.
"""

import re
from typing import Protocol

import httptools

from scoreboard.domain.errors import Code, Refusal
from scoreboard.http.request import BODY_BYTES, Request, pack_fields, unpack_fields
from scoreboard.net.reading import READ_BYTES
from scoreboard.net.sockets import Socket

HEAD_BYTES = 16_384  # request line and fields
REQUEST_BYTES = 20_480  # head and body together: the most memory that one connection's request takes
MAX_FIELDS = 100  # in a head; browsers behind two proxies send about thirty
# An incomplete head with more fields is kept as one text, as a field of its own takes 230 bytes more.
PACK_FIELDS = 20
MAX_EMPTY_LINE_BYTES = 64  # before a request
# A chunked body as it was sent, with sizes, extensions and trailers: chunks of six bytes and more fit.
MAX_ENCODED_BODY_BYTES = 2 * BODY_BYTES
MAX_BODY_CHUNKS = 1_024  # of a body, mostly its chunks: each costs as much time as 500 bytes
# A head is parsed in slices, so that one with thousands of fields is refused after a few hundred.
HEAD_SLICE_BYTES = 2_048
assert READ_BYTES <= HEAD_BYTES  # so a head that came in one read needs no counting

# RFC 3986 section 3.2.2, without what no browser sends: a name of labels, an IPv4 address, an IPv6 address in brackets;
# then the port.
HOST = re.compile(
    rb"(?:[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9A-Fa-f:.]{2,45}\])?(?::[0-9]{0,5})?"
).fullmatch
HOST_BYTES = 262  # a name of 255 with its port
WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==").fullmatch  # 16 bytes in base64

END_OF_HEAD = b"\r\n\r\n"
CARRIAGE_RETURN = 13
SMALL_READ_BYTES = 288  # it holds sixteen requests at most: "GET / HTTP/1.0" with its two ends of lines has eighteen

# RFC 9110 section 5.3: of one that came twice, two parsers could take different values.
SINGLE_FIELDS = (b"host", b"content-length", b"transfer-encoding")


def _is_websocket_handshake(request: Request) -> bool:
    """Whether a request for an upgrade is a complete handshake, RFC 6455 section 4.2.1. With half of one trio-websocket
    waits for ever."""
    return (
        request.method == b"GET"
        and request.version == "1.1"
        and b"websocket" in [token.strip() for token in request.header(b"upgrade").lower().split(b",")]
        and request.header(b"sec-websocket-version") == b"13"
        and WEBSOCKET_KEY(request.header(b"sec-websocket-key")) is not None
    )


def _repeats_a_single_field(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(sum(name == single for name, _ in headers) > 1 for single in SINGLE_FIELDS)


def _head_bytes(request: Request) -> int:
    """The size of a head, without the few bytes of method and version."""
    return len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)


TOO_MANY_FIELDS = Refusal(Code.HEADERS_TOO_LARGE, f"a request's head may have {MAX_FIELDS} fields")


class RefusedError(Exception):
    """Raised in a callback to stop the parser; `RequestParser.refusal` says why."""


class LargeBodies(Protocol):
    """What decides on bodies of more than BODY_BYTES: `http.handlers.RequestHandlers`."""

    def reserve_large_body(self, request: Request, size: int, /) -> Refusal | None:
        """Why a body of `size` bytes is refused; None: it is accepted."""

    def release_large_body(self, request: Request, /) -> None:
        """The body has come, or never will."""


class RequestParser:
    """Makes requests from the bytes of one connection.

    1. `feed` takes bytes; complete requests are appended to `queue`.
    2. It parses no further than to the end of the next head. So `queue` holds two requests at most (one whose body
       ended, one without a body), or the requests of a few bytes. The bytes that follow wait in `unparsed`.
    3. The caller empties the queue, calls `resume` until nothing is unparsed, and only then reads and feeds again.
    4. Once `refusal` is set nothing more is parsed. The caller answers the queue, then the refusal, then closes.
    """

    __slots__ = (
        "_began_in_earlier_feed",
        "_body",
        "_body_bytes_left",
        "_chunked",
        "_empty",
        "_encoded_body_bytes",
        "_engine",
        "_head",
        "_headers",
        "_host",
        "_large_bodies",
        "_live_path",
        "_max_body_bytes",
        "_packed",
        "_packed_fields",
        "_pieces",
        "_reserved",
        "_socket",
        "_target",
        "awaits_continue",
        "begun",
        "in_body",
        "progress",
        "queue",
        "refusal",
        "request",
        "rest",
        "unparsed",
    )

    def __init__(self, socket: Socket, live_path: bytes, large_bodies: LargeBodies | None = None) -> None:
        """`large_bodies` says which bodies may be longer than BODY_BYTES; None: none may."""
        self._engine = httptools.HttpRequestParser(self)
        self._socket = socket
        self._live_path = live_path
        self._large_bodies = large_bodies
        self._reserved: Request | None = None  # the request whose large body comes
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._packed = b""  # fields of the present head that came with earlier feeds, and their number
        self._packed_fields = 0
        self._host = b""  # the last valid one: all requests of a connection mostly name the same
        self._began_in_earlier_feed = False  # the present message began in an earlier feed
        self._head = 0  # bytes of later feeds that lay wholly in its head
        self._encoded_body_bytes = 0  # the same of its body, as it was sent
        self._body: bytes | bytearray = b""  # bytes if it came in one piece, as most do
        self._max_body_bytes = BODY_BYTES  # bytes that the body may have
        self._body_bytes_left = 0  # bytes of the body that are still to come, where the length is known
        self._pieces = 0  # of the body that have come
        self._empty = 0  # bytes of empty lines since the last request
        self._chunked = False
        self.queue: list[Request] = []
        self.refusal: Refusal | None = None
        self.begun = False  # the first byte of a message is here, the last is not
        self.in_body = False  # its head is complete
        self.request: Request | None = None  # while `in_body`; then it is in the queue
        self.awaits_continue = False  # the client waits for "100 Continue" before it sends the body
        self.progress = 0  # rises when a message begins, when its head is complete, when it is complete
        self.rest = b""  # what followed the upgrade to a WebSocket
        self.unparsed = b""  # at most READ_BYTES that were fed and not parsed yet

    # ---- feeding ----------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Takes at most READ_BYTES, once nothing is `unparsed`. Never raises, whatever the bytes: a bad message sets
        `refusal`."""
        # True where empty lines or more than one message are possible. Costs a fiftieth of a small request.
        size = len(data)
        if (size > SMALL_READ_BYTES and (size > HEAD_SLICE_BYTES or data.count(END_OF_HEAD) > 1)) or (
            data[0] <= CARRIAGE_RETURN and not self.begun
        ):
            self.unparsed = data
            self.resume()
            return
        self._parse(data)

    def resume(self) -> None:
        """Parses what is `unparsed`, until a request is complete or nothing is left."""
        while self.unparsed and not self.queue and self.refusal is None:
            data = self.unparsed
            if not self.begun:
                data = self._without_empty_lines(data)
                if not data:
                    self.unparsed = b""
                    return
            end = min(max(self._body_bytes_left, 0), len(data))  # the present body, all at once
            if not end:
                end = data.find(END_OF_HEAD) + len(END_OF_HEAD)
                if end < len(END_OF_HEAD):
                    end = len(data)
                if not self.in_body:
                    end = min(end, HEAD_SLICE_BYTES)
            self.unparsed = data[end:]
            self._parse(data[:end])

    def _without_empty_lines(self, data: bytes) -> bytes:
        """What follows empty lines between requests. RFC 9112 section 2.2 wants one to be skipped."""
        rest = data.lstrip(b"\r\n")
        self._empty += len(data) - len(rest)
        if self._empty > MAX_EMPTY_LINE_BYTES:
            self.refusal = Refusal(Code.INVALID_REQUEST, "there are too many empty lines between requests")
            return b""
        if rest:
            self._empty = 0
        return rest

    def _parse(self, data: bytes) -> None:
        in_body = self.in_body
        self._began_in_earlier_feed = self.begun
        while True:
            try:
                self._engine.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                data = data[exc.args[0] :]
                if self.queue[-1].upgrade:
                    self.rest, self.unparsed = data + self.unparsed, b""
                    return
                # Another upgrade is ignored, RFC 9110 section 7.8: what follows is the next request.
                if data:
                    continue
            except httptools.HttpParserError:
                self.refusal = self.refusal or Refusal(Code.INVALID_REQUEST, "this is not a valid HTTP/1.1 request")
                return
            break
        if self.begun:
            if self._began_in_earlier_feed:
                self._count(len(data), in_body=in_body)
            self._compact()

    def _compact(self) -> None:
        """Makes an incomplete message small, as its rest may not come for a long time."""
        if self.in_body:
            request = self.request
            if request is not None and len(request.headers) > PACK_FIELDS:
                request.pack()
        elif len(self._headers) > PACK_FIELDS:
            self._packed_fields += len(self._headers)
            if self._packed_fields > MAX_FIELDS:
                self.refusal = self.refusal or TOO_MANY_FIELDS
            self._packed += pack_fields(self._headers)
            self._headers = []

    def _count(self, size: int, *, in_body: bool) -> None:
        """Bounds parts of a message for which there is no callback until they are complete (a field), or none at all
        (chunk extensions, trailers)."""
        if in_body:
            self._encoded_body_bytes += size
            if self._encoded_body_bytes > MAX_ENCODED_BODY_BYTES and self._reserved is None:  # it has its length
                self.refusal = Refusal(Code.PAYLOAD_TOO_LARGE, f"a body may have {BODY_BYTES} bytes")
        elif not self.in_body:
            self._head += size
            if self._head > HEAD_BYTES:
                self.refusal = Refusal(Code.HEADERS_TOO_LARGE, f"a request's head may have {HEAD_BYTES} bytes")

    def close(self) -> None:
        """Breaks the reference cycle between llhttp and this object, whose methods are its callbacks. After it nothing
        may be fed."""
        del self._engine
        self._release()

    def _reserve(self, request: Request, size: int) -> None:
        """Asks for room for a body that is longer than others may be."""
        if self._large_bodies is None:
            raise self._too_large()
        refusal = self._large_bodies.reserve_large_body(request, size)
        if refusal is not None:
            self.refusal = refusal
            raise RefusedError(refusal.detail)
        self._reserved = request
        self._max_body_bytes = self._body_bytes_left = size

    def _release(self) -> None:
        if self._reserved is not None and self._large_bodies is not None:
            self._large_bodies.release_large_body(self._reserved)
            self._reserved = None

    def _too_large(self) -> RefusedError:
        if self._max_body_bytes < BODY_BYTES:
            return self._refuse(f"head and body may have {REQUEST_BYTES} bytes together", Code.PAYLOAD_TOO_LARGE)
        return self._refuse(f"a body may have {BODY_BYTES} bytes", Code.PAYLOAD_TOO_LARGE)

    def _refuse(self, detail: str, code: Code = Code.INVALID_REQUEST) -> RefusedError:
        self.refusal = Refusal(code, detail)
        return RefusedError(detail)

    # ---- llhttp's callbacks -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.begun = True
        self.progress += 1

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        # Else it is a trailer, and dropped: nothing after the body may change what the head said.
        if not self.in_body:
            self._headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        engine = self._engine
        self.in_body = True
        self.progress += 1
        target, headers = self._target, self._headers
        self._target, self._headers = b"", []
        if self._packed:
            headers, self._packed, self._packed_fields = unpack_fields(self._packed) + headers, b"", 0
        if len(headers) > MAX_FIELDS:
            raise self._refuse(TOO_MANY_FIELDS.detail, TOO_MANY_FIELDS.code)
        fields = dict(headers)
        if len(fields) != len(headers):
            fields = dict(reversed(headers))  # the first of each
        method, version = engine.get_method(), engine.get_http_version()
        self.request = request = Request(self._socket, method, target, version, headers, fields)
        if len(fields) != len(headers) and _repeats_a_single_field(headers):
            raise self._refuse("Host, Content-Length and Transfer-Encoding may be there once")
        if self._began_in_earlier_feed and _head_bytes(request) > HEAD_BYTES:
            raise self._refuse(f"a request's head may have {HEAD_BYTES} bytes", Code.HEADERS_TOO_LARGE)
        if version != "1.1" and version != "1.0":  # noqa: PLR1714 - twice as fast as a set
            raise self._refuse("the version must be HTTP/1.1 or HTTP/1.0")
        if target[:1] != b"/" or b"#" in target:
            self._normalize_target(request)
        host = fields.get(b"host")
        if host != self._host:
            self._check_host(host, version)
        framed = b"content-length" in fields or b"transfer-encoding" in fields
        if engine.should_upgrade():
            self._check_upgrade(request, framed=framed)
        elif framed:
            self._expect_body(version, fields)

    def _check_host(self, host: bytes | None, version: str) -> None:
        """Notes a valid Host. It may be absent in HTTP/1.0 alone, RFC 9112 section 3.2."""
        if host is None:
            if version == "1.1":
                raise self._refuse("Host must be there")
        elif len(host) > HOST_BYTES or not HOST(host):
            raise self._refuse("Host must be a name or an address, and a port at most")
        else:
            self._host = host

    def _normalize_target(self, request: Request) -> None:
        """Path and query from the target; absolute form (a proxy's) becomes origin form, RFC 9112 section 3.2.2."""
        target = request.target
        if b"#" in target:
            raise self._refuse("a target has no fragment")
        if target[:7].lower() == b"http://" or target[:8].lower() == b"https://":
            place = target.partition(b"://")[2]
            # "http://host?query" has no path
            start = min(at for at in (place.find(b"/"), place.find(b"?"), len(place)) if at >= 0)
            request.target = place[start:] if place[start : start + 1] == b"/" else b"/" + place[start:]
            request.path, _, request.query = request.target.partition(b"?")
        elif target != b"*":
            raise self._refuse("the target must be a path")

    def _check_upgrade(self, request: Request, *, framed: bool) -> None:
        # llhttp skips the body of such a message and would parse it as the next request.
        if framed or request.method == b"CONNECT":
            raise self._refuse("an upgrade has no body, and there is no CONNECT here")
        request.upgrade = request.path == self._live_path and _is_websocket_handshake(request)

    def _expect_body(self, version: str, fields: dict[bytes, bytes]) -> None:
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        # llhttp refuses most of these by itself. They are checked again, as a wrong framing mixes the requests of
        # different people.
        if length is not None and (coding is not None or not length.isdigit()):
            raise self._refuse("Content-Length must be one number, without Transfer-Encoding")
        if coding is not None and (version != "1.1" or coding.lower() != b"chunked"):
            raise self._refuse("Transfer-Encoding must be chunked, in HTTP/1.1")
        self._chunked = coding is not None
        self._max_body_bytes = BODY_BYTES
        self._pieces = 0
        self._body_bytes_left = int(length) if length is not None and len(length) <= 5 else 0
        # Else it fits beside any head.
        if length is None or len(length) > 4 or int(length) > REQUEST_BYTES - HEAD_BYTES:
            request = self.request
            assert request is not None
            self._max_body_bytes = min(BODY_BYTES, REQUEST_BYTES - _head_bytes(request))
            # reading many digits takes quadratic time
            if length is not None and (len(length) > 9 or int(length) > self._max_body_bytes):
                if len(length) > 9 or int(length) <= BODY_BYTES:
                    raise self._too_large()
                self._reserve(request, int(length))
        self.awaits_continue = version == "1.1" and fields.get(b"expect", b"").lower() == b"100-continue"

    def on_body(self, part: bytes) -> None:
        body = self._body
        self._body_bytes_left -= len(part)
        self._pieces += 1
        if self._pieces > MAX_BODY_CHUNKS:
            raise self._refuse(f"a body may come in {MAX_BODY_CHUNKS} pieces", Code.PAYLOAD_TOO_LARGE)
        if len(body) + len(part) > self._max_body_bytes:
            raise self._too_large()
        if not body:
            self._body = part
        elif isinstance(body, bytearray):
            body += part
        else:
            self._body = bytearray(body) + part

    def on_message_complete(self) -> None:
        request = self.request
        assert request is not None
        if self._began_in_earlier_feed:
            request.unpack()
        if self._body:
            request.body, self._body = bytes(self._body), b""
        if self._chunked:  # the head now names the framing that the body has
            self._chunked = False
            self._body_bytes_left = 0
            request.set_content_length()
        request.keep_alive = self._engine.should_keep_alive() and not request.upgrade
        self.queue.append(request)
        if self._reserved is not None:
            self._release()
        self.request = None
        self._head = self._encoded_body_bytes = 0
        self._began_in_earlier_feed = self.begun = self.in_body = self.awaits_continue = False
        self.progress += 1
