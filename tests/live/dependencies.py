"""Fakes of what live calls in operations and web, which a test controls."""

from time import time
from uuid import UUID

from scoreboard.domain.errors import STATUS, Code, Refusal
from scoreboard.http.request import Request, Response
from scoreboard.live.dependencies import WebDependencies


class FakeIdentity:
    """The user and the session of a token."""

    def __init__(self, user: UUID, sid: int, expires: float) -> None:
        self.user, self.sid, self.expires = user, UUID(int=sid), expires


class FakeAuthenticator:
    """Knows the tokens that a test gives it, and the sessions that were marked as revoked."""

    def __init__(self) -> None:
        self.tokens, self.revoked = dict[str, FakeIdentity](), list[UUID]()

    def authenticate(self, token: str) -> FakeIdentity | None:
        return self.tokens.get(token)

    def is_revoked(self, sid: UUID) -> bool:
        return sid in self.revoked

    def mark_revoked(self, sid: UUID) -> None:
        self.revoked.append(sid)


class SystemClock:
    def now(self) -> float:
        return time()


class FakeWeb:
    """Every part of the web that the transports call. Only https://evil.example is a foreign origin."""

    def __init__(self, authenticator: FakeAuthenticator) -> None:
        self._authenticator = authenticator

    def dependencies(self) -> WebDependencies:
        return WebDependencies(origins=self, addresses=self, bearer=self, heads=self, problems=self)

    def allows(self, request: Request) -> bool:
        return request.header(b"origin") != b"https://evil.example"

    def rate_limit_key(self, request: Request) -> str:
        return request.header(b"x-address").decode() or request.socket.peer[0]

    def identify(self, request: Request) -> FakeIdentity | Refusal | None:
        token = request.header(b"authorization").removeprefix(b"Bearer ").decode()
        return (self._authenticator.authenticate(token) or Refusal(Code.UNAUTHORIZED, "no")) if token else None

    def write(self, request: Request, status: int, fields: bytes, length: int | None) -> bytes:
        length_field = b"" if length is None else b"content-length: %d\r\n" % length
        start = b"HTTP/1.1 %d X\r\nx-request-id: %b\r\nx-for: %b\r\n"
        return start % (status, request.request_id, request.header(b"origin")) + fields + length_field + b"\r\n"

    def problem(self, refusal: Refusal, request_id: bytes) -> Response:
        retry = b"" if refusal.retry_after is None else b"retry-after: %d\r\n" % refusal.retry_after
        return Response(STATUS[refusal.code], refusal.code.encode(), retry)
