"""`Request`, which `http.parser` makes from bytes, and `Response`, which `http.response_writer` turns into bytes."""

import re

import msgspec
import uuid_utils

from scoreboard.net.sockets import Socket

BODY_BYTES = 16_384  # contract: 413 above it

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch  # contract: a caller's ID that matches is used
# RFC 3986 section 6.2.2: no empty, "." or ".." segment, no escape of what needs none, escapes in capitals. Nor an
# escape of a slash, a backslash or a control character, which others may have decoded before us.
NORMAL_PATH = re.compile(
    rb"(?:/(?!\.\.?(?:/|\Z))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]"
    rb"|%(?![01]|2[DEF]|3[0-9]|4[1-9A-F]|5[0-9ACF]|6[1-9A-F]|7[0-9AEF])[0-9A-F]{2})+)*/?"
).fullmatch


class Response(msgspec.Struct, frozen=True):
    """What a handler returns. `fields` are complete lines, each "name: value\\r\\n". `RequestHandlers.write_head` adds
    the head's other fields (length, Date, …)."""

    status: int
    body: bytes
    fields: bytes = b""


class Request:
    """One request, complete. Field names are in lower case, in order, as often as they came; a chunked body is
    decoded."""

    __slots__ = (
        "_fields",
        "_packed",
        "_request_id",
        "admitted",
        "began",
        "body",
        "client_address",
        "headers",
        "is_timed",
        "keep_alive",
        "method",
        "path",
        "query",
        "socket",
        "target",
        "upgrade",
        "user",
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
        self.admitted = False  # `run_middleware` was called and let it pass
        self.began = 0.0  # when it was complete, as time.perf_counter says
        # False for WebSockets and polls that wait: their client chooses how long they last.
        self.is_timed = True
        # The client's, behind trusted proxies. `run_middleware` sets it; "": not yet.
        self.client_address = ""
        self.user: object = None  # the user of a valid token; None until one was verified
        self.upgrade = False  # a WebSocket is asked for on the live path; what follows the head is no HTTP
        self._packed = b""  # the fields, while the body comes
        self._request_id = b""  # until `request_id` is first read

    def header(self, name: bytes) -> bytes:
        """The first field of that (lower-case) name, b"" when absent."""
        return self._fields.get(name, b"")

    def has(self, name: bytes) -> bool:
        """Whether there is a field of that (lower-case) name."""
        return name in self._fields

    def drop_headers(self, *kept: bytes) -> None:
        """Drops the target and every field but those `kept`: thousands of viewers outlast their requests by hours."""
        _ = self.request_id  # may be one of the fields
        self.headers, self.target, self.query = [], b"", b""
        self._fields = {name: self._fields[name] for name in kept if name in self._fields}

    def pack(self) -> None:
        """Keeps the fields as one text until `unpack`. Meanwhile none is found."""
        self._packed, self.headers, self._fields = pack_fields(self.headers), [], {}

    def unpack(self) -> None:
        """Undoes `pack`. Does nothing without one."""
        if self._packed:
            self.headers, self._packed = unpack_fields(self._packed), b""
            self._fields = dict(reversed(self.headers))

    def set_content_length(self) -> None:
        """The body has been decoded: its framing in the head is the length that it has now."""
        length = b"%d" % len(self.body)
        self.headers = [field for field in self.headers if field[0] != b"transfer-encoding"]
        self.headers.append((b"content-length", length))
        del self._fields[b"transfer-encoding"]
        self._fields[b"content-length"] = length

    @property
    def request_id(self) -> bytes:
        """The caller's X-Request-ID if it is a valid one, else a new UUIDv7 in hex; the same for the request's whole
        life."""
        if not self._request_id:
            given = self._fields.get(b"x-request-id")
            self._request_id = given if given and REQUEST_ID(given) else uuid_utils.uuid7().hex.encode()
        return self._request_id


def pack_fields(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Parsed fields as one text: no name holds a colon, and neither names nor values hold a line feed."""
    return b"".join(b"%b:%b\n" % field for field in fields)


def unpack_fields(packed: bytes) -> list[tuple[bytes, bytes]]:
    """The fields that `pack_fields` was given."""
    return [(name, value) for name, _, value in (line.partition(b":") for line in packed.split(b"\n")[:-1])]
