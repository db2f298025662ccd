"""Register, log in, play as a guest, become an account, refresh, log out.

A browser (a request with `Origin`) gets its refresh token in a cookie that scripts can't read and that is sent to the
refresh route alone, and a device cookie by which its next log-in is recognized. Any other client gets the refresh token
in the JSON. Pages of foreign origins are refused. operations.login_limits decides how often one may log in.

How the cookies are protected:

1. On https their names begin with `__Secure-`. A page on plain http can't set such a cookie.
2. `__Host-` would also stop sibling domains, but it demands `Path=/`. The token, valid for a month, would then be sent
   with every request, and could end up in logs.
3. So all cookies of the name are read, and the page sends the id of the user that it shows. A token that a sibling
   domain has set is another user's, and is refused.
"""

import re
from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from scoreboard.domain.account_rules import (
    MAX_AVATAR_URL_LENGTH,
    MAX_EMAIL_LENGTH,
    MAX_PASSWORD_LENGTH,
    MAX_RAW_USERNAME_LENGTH,
)
from scoreboard.domain.errors import ORIGIN_NOT_ALLOWED, LimitLayer, Refusal
from scoreboard.domain.identities import MAX_DEVICE_KEY_LENGTH
from scoreboard.domain.paths import GUEST_PATH, LINK_PATH, LOGIN_PATH, LOGOUT_PATH, REFRESH_PATH, REGISTER_PATH
from scoreboard.domain.sliding_window import WINDOW_SECONDS
from scoreboard.http.request import Request, Response
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.log_in_networks import LogInNetworks
from scoreboard.operations.login_admission import Client
from scoreboard.operations.sessions import SESSION_ENDED, LoggedIn
from scoreboard.security.device_cookies import LIFETIME_SECONDS
from scoreboard.web import json_body
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses, agent_of
from scoreboard.web.cors import Origins
from scoreboard.web.problems import problem
from scoreboard.web.rate_limit_fields import policy
from scoreboard.web.responses import PRIVATE, no_content, success
from scoreboard.web.route import Route
from scoreboard.web.schemas import GuestLoggedInAnswer, LoggedInAnswer, NoContent

REFRESH_COOKIE = "scoreboard_refresh"
DEVICE_COOKIE = "scoreboard_device"
COOKIES_READ = 64  # of one name: a head has room for some hundred; one that this server did not make costs no query
SECURE_PREFIX = "__Secure-"  # RFC 6265bis: browsers accept a cookie of such a name from https alone
# Characters. Our tokens have 86. A longer one in a body, up to this, gets 401 like any unknown token; beyond this 400.
REFRESH_TOKEN_LONGEST = 1024


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new account."""

    username: Annotated[str, Meta(max_length=MAX_RAW_USERNAME_LENGTH)]
    email: Annotated[str, Meta(max_length=MAX_EMAIL_LENGTH)]
    password: Annotated[str, Meta(max_length=MAX_PASSWORD_LENGTH)]
    avatarUrl: Annotated[str, Meta(max_length=MAX_AVATAR_URL_LENGTH)] | None = None

    def __repr__(self) -> str:
        return f"Registration({self.username!r})"


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user name, or an e-mail address, and the password."""

    username: Annotated[str, Meta(max_length=MAX_EMAIL_LENGTH)]
    password: Annotated[str, Meta(max_length=MAX_PASSWORD_LENGTH)]

    def __repr__(self) -> str:
        return f"Credentials({self.username!r})"


class GuestLogin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guest. `deviceKey`: 32 to 128 random characters of base64url, which the device keeps; without one the server
    makes one. `username`: for a new guest; one that is taken gets a number."""

    deviceKey: Annotated[str, Meta(max_length=MAX_DEVICE_KEY_LENGTH)] | None = None
    username: Annotated[str, Meta(max_length=MAX_RAW_USERNAME_LENGTH)] | None = None

    def __repr__(self) -> str:
        return "GuestLogin()"


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a guest becomes an account with. Without `username` the name stays."""

    email: Annotated[str, Meta(max_length=MAX_EMAIL_LENGTH)]
    password: Annotated[str, Meta(max_length=MAX_PASSWORD_LENGTH)]
    username: Annotated[str, Meta(max_length=MAX_RAW_USERNAME_LENGTH)] | None = None

    def __repr__(self) -> str:
        return "Link()"


class Refresh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The refresh token, unless it is in the cookie, and whose session it must be: a page names the user that it
    shows."""

    refreshToken: Annotated[str, Meta(max_length=REFRESH_TOKEN_LONGEST)] | None = None
    userId: UUID | None = None

    def __repr__(self) -> str:
        return "Refresh()"


_registration = msgspec.json.Decoder(Registration)
_credentials = msgspec.json.Decoder(Credentials)
_guest = msgspec.json.Decoder(GuestLogin)
_link = msgspec.json.Decoder(Link)
_refresh = msgspec.json.Decoder(Refresh)


class AuthRoutes:
    """The routes of `/auth`."""

    def __init__(
        self,
        accounts: Accounts,
        bearer: Bearer,
        origins: Origins,
        addresses: Addresses,
        *,
        refresh_days: int,
        networks: LogInNetworks | None = None,
        login_per_minute: int = 0,
    ) -> None:
        """`networks` is told of each log-in. `login_per_minute`: tries of an account, as answers tell; 0: no limit."""
        self._policy = policy(LimitLayer.LOGIN, login_per_minute, WINDOW_SECONDS)
        self._accounts, self._bearer, self._origins, self._addresses = accounts, bearer, origins, addresses
        self._refresh_seconds = refresh_days * 86_400
        self._networks = networks

    def routes(self) -> Iterator[Route]:
        """All six."""
        yield Route(
            method="POST",
            path=REGISTER_PATH,
            handler=self.register,
            request_type=Registration,
            response_type=LoggedInAnswer,
            status=201,
            errors=(403, 409, 415),
        )
        yield Route(
            method="POST",
            path=LOGIN_PATH,
            handler=self.login,
            request_type=Credentials,
            response_type=LoggedInAnswer,
            errors=(401, 403, 415),
        )
        yield Route(
            method="POST",
            path=GUEST_PATH,
            handler=self.guest,
            request_type=GuestLogin,
            response_type=GuestLoggedInAnswer,
            errors=(401, 403, 415),
        )
        yield Route(
            method="POST",
            path=LINK_PATH,
            handler=self.link,
            auth="required",
            request_type=Link,
            response_type=LoggedInAnswer,
            errors=(401, 403, 409, 415),
        )
        yield Route(
            method="POST",
            path=REFRESH_PATH,
            handler=self.refresh,
            request_type=Refresh,
            response_type=LoggedInAnswer,
            errors=(401, 403, 415),
        )
        yield Route(
            method="POST",
            path=LOGOUT_PATH,
            handler=self.logout,
            auth="required",
            response_type=NoContent,
            status=204,
            errors=(401, 403),
        )

    async def register(self, request: Request) -> Response:
        """Create an account and log in."""
        if not self._origins.allows(request):
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        body = json_body.read(request, _registration)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        client = self._client(request)
        outcome = await self._accounts.register(body.username, body.email, body.password, body.avatarUrl, client)
        return self._answer(request, outcome, 201, is_log_in=True)

    async def login(self, request: Request) -> Response:
        """Log in."""
        if not self._origins.allows(request):
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        body = json_body.read(request, _credentials)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        client = self._client(request, read_cookies(request, self._name(request, DEVICE_COOKIE)))
        return self._answer(request, await self._accounts.log_in(body.username, body.password, client), is_log_in=True)

    async def guest(self, request: Request) -> Response:
        """Play without an account; the same device key comes back to the same guest."""
        if not self._origins.allows(request):
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        body: GuestLogin | Refusal = GuestLogin()
        if request.body:
            body = json_body.read(request, _guest)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        outcome = await self._accounts.log_in_guest(body.deviceKey, body.username, self._client(request))
        if not isinstance(outcome, Refusal):  # no device cookie: it is of browsers that know a password
            self._note_network(request, outcome)
        return self._answer(request, outcome)

    async def link(self, request: Request) -> Response:
        """Make an account of a guest; score, rank and history stay."""
        if not self._origins.allows(request):
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        body = json_body.read(request, _link)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        outcome = await self._accounts.link_guest(
            identity, body.username, body.email, body.password, self._client(request)
        )
        return self._answer(request, outcome, is_log_in=True)

    async def refresh(self, request: Request) -> Response:
        """Exchange a refresh token for a new pair of tokens."""
        if not self._origins.allows(request):
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        body: Refresh | Refusal = Refresh()
        if request.body:
            body = json_body.read(request, _refresh)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        presented = (body.refreshToken,) if body.refreshToken else self._refresh_cookies(request)
        return self._answer(
            request, await self._accounts.refresh_session(*presented, user=body.userId) if presented else SESSION_ENDED
        )

    async def logout(self, request: Request) -> Response:
        """End the session."""
        if not self._origins.allows(request):
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        await self._accounts.log_out(identity)
        return no_content(self._refresh_cookie(request, "", 0) if request.header(b"origin") else b"")

    def _client(self, request: Request, devices: tuple[str, ...] = ()) -> Client:
        return Client(self._addresses.client(request), devices, agent_of(request))

    def _answer(
        self, request: Request, outcome: LoggedIn | Refusal, status: int = 200, *, is_log_in: bool = False
    ) -> Response:
        if isinstance(outcome, Refusal):
            return problem(outcome, request.request_id, fields=self._policy)
        if is_log_in:
            self._note_network(request, outcome)
        if not request.header(b"origin"):
            return success(outcome, status=status, fields=PRIVATE + self._policy)
        fields = PRIVATE + self._policy + self._refresh_cookie(request, outcome.refreshToken, self._refresh_seconds)
        if is_log_in:
            fields += self._device_cookie(request, outcome)
        return success(msgspec.structs.replace(outcome, refreshToken=""), status=status, fields=fields)

    def log_in_answer(self, request: Request, outcome: LoggedIn | Refusal) -> Response:
        """The answer to a log-in of another kind than by password."""
        return self._answer(request, outcome, is_log_in=True)

    def session_cookies(self, request: Request, outcome: LoggedIn) -> bytes:
        """The cookies of a log-in whose answer is no JSON."""
        self._note_network(request, outcome)
        refresh = self._refresh_cookie(request, outcome.refreshToken, self._refresh_seconds)
        return refresh + self._device_cookie(request, outcome)

    def _note_network(self, request: Request, outcome: LoggedIn) -> None:
        if self._networks is not None:
            self._networks.note(self._addresses.client(request), UUID(outcome.userId))

    def _device_cookie(self, request: Request, outcome: LoggedIn) -> bytes:
        device = self._accounts.device_cookie(outcome)
        return self._cookie(request, self._name(request, DEVICE_COOKIE), device, LOGIN_PATH, LIFETIME_SECONDS)

    def _refresh_cookies(self, request: Request) -> tuple[str, ...]:
        """The refresh tokens in cookies. On https only those with the prefix: any page on plain http may have planted
        the others."""
        return read_cookies(request, self._name(request, REFRESH_COOKIE))

    def _refresh_cookie(self, request: Request, token: str, seconds: int) -> bytes:
        """Sets the refresh cookie."""
        return self._cookie(request, self._name(request, REFRESH_COOKIE), token, REFRESH_PATH, seconds)

    def _name(self, request: Request, name: str) -> str:
        return SECURE_PREFIX + name if self._origins.is_secure(request) else name

    def _cookie(self, request: Request, name: str, value: str, path: str, seconds: int) -> bytes:
        secure = "; Secure" if self._origins.is_secure(request) else ""
        attributes = f"Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
        return f"set-cookie: {name}={value}; {attributes}\r\n".encode()


def read_cookies(request: Request, name: str) -> tuple[str, ...]:
    """The values of the cookies of that name: at most COOKIES_READ, each once, in the browser's order."""
    find = _COOKIES[name]
    values: dict[str, None] = {}
    for field, text in request.headers:
        if field == b"cookie":
            for found in find(text):
                values.setdefault(found[1].decode())
                if len(values) == COOKIES_READ:
                    return tuple(values)
    return tuple(values)


_COOKIES = {
    name: re.compile(rf"(?:^|;)[ \t]*{name}=\"?([A-Za-z0-9_-]+)".encode()).finditer
    for name in (REFRESH_COOKIE, DEVICE_COOKIE, SECURE_PREFIX + REFRESH_COOKIE, SECURE_PREFIX + DEVICE_COOKIE)
}
