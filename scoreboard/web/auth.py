"""Register, log in, refresh, log out.

A browser (a request with `Origin`) is given its refresh token in a cookie that scripts can't read and that is sent to the refresh route
alone; everybody else in the JSON. Pages of foreign origins are refused. Log-ins are limited by address and by account name.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import TypeVar

import msgspec
import trio

from scoreboard.domain.errors import Refusal
from scoreboard.operations.accounts import SPENT, Accounts, LoggedIn
from scoreboard.runtime.messages import Request, Response
from scoreboard.web import bodies
from scoreboard.web.addresses import Addresses
from scoreboard.web.answers import PRIVATE, nothing, success
from scoreboard.web.bearer import Bearer
from scoreboard.web.gate import limited
from scoreboard.web.limits import SlidingWindow
from scoreboard.web.origins import FOREIGN, Origins
from scoreboard.web.problems import problem

REFRESH_PATH = "/api/v1/auth/refresh"
COOKIE = "scoreboard_refresh"
KEY_CHARACTERS = 255  # of an account name, as the key that its log-ins are counted under: the longest that exists is an address of 255

_COOKIE = re.compile(rf"(?:^|;)\s*{COOKIE}=\"?([A-Za-z0-9_-]*)".encode())


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new account."""

    username: str
    email: str
    password: str
    avatarUrl: str | None = None


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user name, or an e-mail address, and the password."""

    username: str
    password: str


class Refresh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The refresh token, unless it is in the cookie."""

    refreshToken: str | None = None


Named = TypeVar("Named", Registration, Credentials)

_registration = msgspec.json.Decoder(Registration)
_credentials = msgspec.json.Decoder(Credentials)
_refresh = msgspec.json.Decoder(Refresh)


class AuthRoutes:
    """`per_minute`: log-ins and registrations of one address, and of one account name; 0 for no limit. `clock` never goes back."""

    def __init__(
        self,
        accounts: Accounts,
        bearer: Bearer,
        origins: Origins,
        addresses: Addresses,
        *,
        per_minute: int,
        refresh_days: int,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._accounts, self._bearer, self._origins, self._addresses, self._clock = accounts, bearer, origins, addresses, clock
        self._by_address, self._by_name = SlidingWindow(per_minute), SlidingWindow(per_minute)
        self._cookie_seconds = refresh_days * 86_400

    async def register(self, request: Request) -> Response:
        """Create an account and log in."""
        body = self._admitted(request, _registration)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        return self._answer(request, await self._accounts.register(body.username, body.email, body.password, body.avatarUrl), 201)

    async def login(self, request: Request) -> Response:
        """Log in."""
        body = self._admitted(request, _credentials)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        return self._answer(request, await self._accounts.login(body.username, body.password))

    async def refresh(self, request: Request) -> Response:
        """Exchange a refresh token for a new pair of tokens."""
        if not self._origins.allows(request):
            return problem(FOREIGN, request.request_id)
        body: Refresh | Refusal = Refresh()
        if request.body:
            body = bodies.read(request, _refresh)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        token = body.refreshToken or _cookie(request)
        return self._answer(request, await self._accounts.refresh(token) if token else SPENT)

    async def logout(self, request: Request) -> Response:
        """End the session."""
        if not self._origins.allows(request):
            return problem(FOREIGN, request.request_id)
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        await self._accounts.logout(identity)
        return nothing(self._cookie(request, "", 0) if request.header(b"origin") else b"")

    def _admitted(self, request: Request, decoder: "msgspec.json.Decoder[Named]") -> Named | Refusal:
        """The body, once neither its origin nor the limits are against it."""
        if not self._origins.allows(request):
            return FOREIGN
        now = self._clock()
        if wait := self._by_address.admit(self._addresses.counted(request), now):
            return limited("login", "Too many log-ins from this address.", wait)
        body = bodies.read(request, decoder)
        if not isinstance(body, Refusal) and (wait := self._by_name.admit(_key(body.username), now)):
            return limited("login", "Too many log-ins to this account.", wait)
        return body

    def _answer(self, request: Request, outcome: LoggedIn | Refusal, status: int = 200) -> Response:
        if isinstance(outcome, Refusal):
            return problem(outcome, request.request_id)
        if not request.header(b"origin"):
            return success(outcome, status=status)
        cookie = self._cookie(request, outcome.refreshToken, self._cookie_seconds)
        return success(msgspec.structs.replace(outcome, refreshToken=""), status=status, fields=PRIVATE + cookie)

    def _cookie(self, request: Request, token: str, seconds: int) -> bytes:
        secure = "; Secure" if self._origins.is_secure(request) else ""
        return f"set-cookie: {COOKIE}={token}; Path={REFRESH_PATH}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}\r\n".encode()


def _cookie(request: Request) -> str:
    for name, value in request.headers:
        if name == b"cookie" and (found := _COOKIE.search(value)):
            return found[1].decode()
    return ""


def _key(username: str) -> str:
    return unicodedata.normalize("NFC", username[:KEY_CHARACTERS]).casefold()
