"""What HTTP/1.1 is about: `Request`, `Response`, and `RequestParser`, which makes the one from bytes.

The parser is llhttp (httptools); here are its callbacks and every rule about what is refused before anybody is asked: framing that two
parsers could read differently (request smuggling, RFC 9112 sections 6 and 11.2), versions, sizes. It does no I/O and knows no clock: http1
feeds it, asks `queue`, `refusal` and `stage`, and answers.
"""

import re

import httptools
import msgspec
import uuid_utils

from scoreboard.domain.errors import Code, Refusal
from scoreboard.runtime.reading import READ_BYTES
from scoreboard.runtime.sockets import Socket

HEAD_BYTES = 16_384  # request line and fields
BODY_BYTES = 16_384  # contract: 413 above it
CODED_BYTES = 8 * BODY_BYTES  # a chunked body as it travels: chunks of one byte take six; the rest is for extensions and trailers
assert READ_BYTES <= HEAD_BYTES  # so a head that came in one read needs no counting

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch  # contract: the caller's is kept if it looks like this
WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==").fullmatch  # 16 bytes in base64

_ONCE = (b"host", b"content-length", b"transfer-encoding")  # twice, and two parsers could disagree on which one counts


class Response(msgspec.Struct, frozen=True):
    """What a handler answers. `fields` are ready lines, each "name: value\\r\\n"; length, Date and the like are added by the front."""

    status: int
    body: bytes
    fields: bytes = b""


class Request:
    """One request, complete. Field names are in lower case, in order, as often as they came; a chunked body is decoded."""

    __slots__ = (
        "_fields",
        "_request_id",
        "admitted",
        "body",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "socket",
        "target",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        socket: Socket,
        method: bytes = b"",
        target: bytes = b"",
        version: str = "1.1",
        headers: list[tuple[bytes, bytes]] | None = None,
        fields: dict[bytes, bytes] | None = None,
    ) -> None:
        """`fields` are the first of each name in `headers`."""
        self.socket = socket
        self.method = method
        self.target = target  # origin form: path and query
        self.path, _, self.query = target.partition(b"?")
        self.version = version
        self.headers = [] if headers is None else headers
        self._fields = {} if fields is None else fields
        self.body = b""
        self.keep_alive = False
        self.admitted = False  # `Front.before` was asked and let it pass
        self.upgrade = False  # a WebSocket is asked for on the live path; what follows the head is no HTTP
        self._request_id = b""  # until somebody asks

    def header(self, name: bytes) -> bytes:
        """The first field of that (lower-case) name, b"" when absent."""
        return self._fields.get(name, b"")

    def has(self, name: bytes) -> bool:
        """Whether there is a field of that (lower-case) name."""
        return name in self._fields

    def forget(self, *kept: bytes) -> None:
        """Lets go of the target and of every field but those `kept`: a viewer's connection outlasts its request by hours, in thousands."""
        _ = self.request_id  # which the fields may tell
        self.headers, self.target, self.query = [], b"", b""
        self._fields = {name: self._fields[name] for name in kept if name in self._fields}

    def reframe(self) -> None:
        """The body has been decoded: its framing in the head is the length that it has now."""
        length = b"%d" % len(self.body)
        self.headers = [field for field in self.headers if field[0] != b"transfer-encoding"]
        self.headers.append((b"content-length", length))
        del self._fields[b"transfer-encoding"]
        self._fields[b"content-length"] = length

    @property
    def request_id(self) -> bytes:
        """The caller's X-Request-ID if it is a valid one, else a new UUIDv7 in hex; the same for the request's whole life."""
        if not self._request_id:
            given = self._fields.get(b"x-request-id")
            self._request_id = given if given and REQUEST_ID(given) else uuid_utils.uuid7().hex.encode()
        return self._request_id


def _asks_for_a_websocket(fields: dict[bytes, bytes]) -> bool:
    """A handshake that is complete, RFC 6455 section 4.2.1: on half a one trio-websocket waits for ever."""
    return (
        b"websocket" in [token.strip() for token in fields[b"upgrade"].lower().split(b",")]
        and fields.get(b"sec-websocket-version") == b"13"
        and WEBSOCKET_KEY(fields.get(b"sec-websocket-key", b"")) is not None
    )


class RefusedError(Exception):
    """Raised in a callback to stop the parser; `RequestParser.refusal` says why."""


class RequestParser:
    """Feed it; take finished requests from `queue`. Once `refusal` is set it takes nothing more: answer the queue, then that, then close.

    `queue` is bounded by what one `feed` of READ_BYTES can hold (about 900 of the shortest requests): http1 empties it before it reads on.
    """

    __slots__ = (
        "_chunked",
        "_coded",
        "_decoded",
        "_engine",
        "_head",
        "_headers",
        "_live_path",
        "_parts",
        "_socket",
        "_spanned",
        "_target",
        "begun",
        "expects",
        "in_body",
        "queue",
        "refusal",
        "request",
        "rest",
        "stage",
    )

    def __init__(self, socket: Socket, live_path: bytes) -> None:
        self._engine = httptools.HttpRequestParser(self)
        self._socket = socket
        self._live_path = live_path
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._spanned = False  # the message at hand began in an earlier feed
        self._head = 0  # bytes of later feeds that lay wholly in its head
        self._coded = 0  # the same of its body, as it travels
        self._decoded = 0  # bytes of its body
        self._parts: list[bytes] = []
        self._chunked = False
        self.queue: list[Request] = []
        self.refusal: Refusal | None = None
        self.begun = False  # the first byte of a message is here, the last is not
        self.in_body = False  # its head is complete
        self.request: Request | None = None  # while in_body; afterwards it is in the queue
        self.expects = False  # it waits for "100 Continue" before it sends the body
        self.stage = 0  # rises whenever a message begins, its head is complete, it is complete: what buys time
        self.rest = b""  # what followed the upgrade to a WebSocket

    # ---- feeding ----------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Takes at most READ_BYTES. Never raises, whatever the bytes: a bad message ends up in `refusal`."""
        in_body = self.in_body
        self._spanned = self.begun
        while True:
            try:
                self._engine.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                data = data[exc.args[0] :]
                if self.queue[-1].upgrade:
                    self.rest = data
                    return
                if data:  # an upgrade that nobody here offers is ignored, RFC 9110 section 7.8: what follows is the next request
                    continue
            except httptools.HttpParserError:
                self.refusal = self.refusal or Refusal(Code.INVALID_REQUEST, "this is not a valid HTTP/1.1 request")
                return
            break
        if self._spanned and self.begun:
            self._count(len(data), in_body=in_body)

    def _count(self, size: int, *, in_body: bool) -> None:
        """Bounds what callbacks don't see until it is complete: half a field, chunk extensions, trailers."""
        if in_body:
            self._coded += size
            if self._coded > CODED_BYTES:
                self.refusal = Refusal(Code.PAYLOAD_TOO_LARGE, f"a body may have {BODY_BYTES} bytes")
        elif not self.in_body:
            self._head += size
            if self._head > HEAD_BYTES:
                self.refusal = Refusal(Code.HEADERS_TOO_LARGE, f"a request's head may have {HEAD_BYTES} bytes")

    def forget(self) -> None:
        """Lets go of llhttp and of the ring of callbacks through which it holds this object. Nothing may be fed from here on."""
        del self._engine

    def _refuse(self, detail: str, code: Code = Code.INVALID_REQUEST) -> RefusedError:
        self.refusal = Refusal(code, detail)
        return RefusedError(detail)

    # ---- llhttp's callbacks -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.begun = True
        self.stage += 1

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:  # else it is a trailer: dropped, nothing that came after the body may change what the head said
            self._headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        engine = self._engine
        self.in_body = True
        self.stage += 1
        target, headers = self._target, self._headers
        self._target, self._headers = b"", []
        fields = dict(reversed(headers))  # the first of each
        method, version = engine.get_method(), engine.get_http_version()
        self.request = request = Request(self._socket, method, target, version, headers, fields)
        if len(fields) != len(headers) and any(sum(name == once for name, _ in headers) > 1 for once in _ONCE):
            raise self._refuse("Host, Content-Length and Transfer-Encoding may be there once")
        if self._spanned and len(target) + sum(len(name) + len(value) + 4 for name, value in headers) > HEAD_BYTES:
            raise self._refuse(f"a request's head may have {HEAD_BYTES} bytes", Code.HEADERS_TOO_LARGE)
        if version != "1.1" and version != "1.0":  # noqa: PLR1714 - twice as fast as a set
            raise self._refuse("the version must be HTTP/1.1 or HTTP/1.0")
        if target[:1] != b"/" or b"#" in target:
            self._locate(request)
        if version == "1.1" and b"host" not in fields:
            raise self._refuse("Host must be there")
        framed = b"content-length" in fields or b"transfer-encoding" in fields
        if engine.should_upgrade():
            # llhttp skips the body of such a message, and the body would come back as the next request.
            if framed or method == b"CONNECT":
                raise self._refuse("an upgrade has no body, and there is no CONNECT here")
            request.upgrade = method == b"GET" and version == "1.1" and request.path == self._live_path and _asks_for_a_websocket(fields)
        elif framed:
            self._expect_body(version, fields)

    def _locate(self, request: Request) -> None:
        """Path and query from the target; absolute form (a proxy's) becomes origin form, RFC 9112 section 3.2.2."""
        target = request.target
        if b"#" in target:
            raise self._refuse("a target has no fragment")
        if target[:7].lower() == b"http://" or target[:8].lower() == b"https://":
            place = target.partition(b"://")[2]
            start = min(at for at in (place.find(b"/"), place.find(b"?"), len(place)) if at >= 0)  # "http://host?query" has no path
            request.target = place[start:] if place[start : start + 1] == b"/" else b"/" + place[start:]
            request.path, _, request.query = request.target.partition(b"?")
        elif target != b"*":
            raise self._refuse("the target must be a path")

    def _expect_body(self, version: str, fields: dict[bytes, bytes]) -> None:
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        # llhttp refuses most of these by itself; they are asked again because a framing that slips through costs other people's requests.
        if length is not None and (coding is not None or not length.isdigit()):
            raise self._refuse("Content-Length must be one number, without Transfer-Encoding")
        if coding is not None and (version != "1.1" or coding.lower() != b"chunked"):
            raise self._refuse("Transfer-Encoding must be chunked, in HTTP/1.1")
        if length is not None and int(length) > BODY_BYTES:
            raise self._refuse(f"a body may have {BODY_BYTES} bytes", Code.PAYLOAD_TOO_LARGE)
        self._chunked = coding is not None
        self.expects = version == "1.1" and fields.get(b"expect", b"").lower() == b"100-continue"

    def on_body(self, part: bytes) -> None:
        self._decoded += len(part)
        if self._decoded > BODY_BYTES:
            raise self._refuse(f"a body may have {BODY_BYTES} bytes", Code.PAYLOAD_TOO_LARGE)
        self._parts.append(part)

    def on_message_complete(self) -> None:
        request = self.request
        assert request is not None
        if self._parts:
            request.body = b"".join(self._parts)
            self._parts.clear()
        if self._chunked:  # whoever reads the head next finds the framing that the body has now
            self._chunked = False
            request.reframe()
        request.keep_alive = self._engine.should_keep_alive() and not request.upgrade
        self.queue.append(request)
        self.request = None
        self._head = self._coded = self._decoded = 0
        self._spanned = self.begun = self.in_body = self.expects = False
        self.stage += 1
