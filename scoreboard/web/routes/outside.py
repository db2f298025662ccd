"""Log-in by outside issuers: a token that is exchanged for a session, and OpenID Connect for browsers.

A browser opens `/auth/oidc/{name}`, is sent to the issuer with a cookie of its attempt, and comes back to the callback.
That answers with a redirect in any case: to the page, or to the page of the failure. So no code stays in the address
bar or is sent as a referrer. No parameter says where the browser goes then, so nobody can send it elsewhere.

The attempt's cookie is `SameSite=Lax`, since the browser comes from another site. On https it has the prefix `__Host-`,
so that no other host can set it, and no sibling domain can have a browser finish an attempt of somebody else. The page
learns the user's id by a cookie of the same kind, which scripts can read; an address could be a link of anybody's.
"""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta

from scoreboard.domain.errors import NOT_FOUND, ORIGIN_NOT_ALLOWED, Refusal, StorageUnavailable
from scoreboard.domain.paths import (
    CALLBACK_SUFFIX,
    EXCHANGE_PATH,
    LOG_IN_FAILED_PATH,
    OIDC_PREFIX,
    PAGE_PATH,
    oidc_callback_path,
    oidc_path,
)
from scoreboard.domain.queries import parse_query
from scoreboard.http.request import Request, Response
from scoreboard.operations.authorization_answers import read_answer
from scoreboard.operations.login_admission import Client
from scoreboard.operations.outside_issuers import OutsideIssuer
from scoreboard.operations.outside_log_ins import FAULT_REFUSALS, LogInFault, OutsideLogIns
from scoreboard.operations.sessions import LoggedIn
from scoreboard.security.log_in_attempts import ATTEMPT_SECONDS
from scoreboard.security.outside_tokens import MAX_TOKEN_CHARACTERS
from scoreboard.web import json_body
from scoreboard.web.client_address import Addresses, agent_of
from scoreboard.web.cors import Origins
from scoreboard.web.problems import problem
from scoreboard.web.route import Route
from scoreboard.web.routes.auth import AuthRoutes
from scoreboard.web.schemas import AuthorizationQuery, LoggedInAnswer, LogInRedirect

ATTEMPT_COOKIE = "scoreboard_oidc"
HOST_PREFIX = "__Host-"  # RFC 6265bis: browsers accept it from this very host alone, on https, for all paths
USER_COOKIE = "scoreboard_user"  # the id of who has just logged in; static/page.js reads it and removes it
USER_COOKIE_SECONDS = 60  # until the page is loaded

_NAME = re.compile(rf"{re.escape(OIDC_PREFIX)}([a-z][a-z0-9-]*)(?:{re.escape(CALLBACK_SUFFIX)})?".encode()).fullmatch
_COOKIE = re.compile(rf"(?:^|;)[ \t]*((?:{HOST_PREFIX})?{ATTEMPT_COOKIE})=\"?([A-Za-z0-9_-]+)".encode()).finditer

log = structlog.get_logger()


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token of a configured outside issuer: an ID token or an access token that is a JWT."""

    token: Annotated[str, Meta(min_length=1, max_length=MAX_TOKEN_CHARACTERS)]

    def __repr__(self) -> str:
        return "Exchange()"


_exchange = msgspec.json.Decoder(Exchange)


class OutsideRoutes:
    """The routes of outside issuers. `auth` makes the answers and cookies of a log-in."""

    def __init__(self, log_ins: OutsideLogIns, auth: AuthRoutes, origins: Origins, addresses: Addresses) -> None:
        self._log_ins, self._auth, self._origins, self._addresses = log_ins, auth, origins, addresses

    def routes(self) -> Iterator[Route]:
        """All of them, also where no issuer is configured: then no token is accepted, and no name is known."""
        yield Route(
            method="POST",
            path=EXCHANGE_PATH,
            handler=self.exchange,
            request_type=Exchange,
            response_type=LoggedInAnswer,
            errors=(401, 403, 415),
        )
        yield Route(
            method="GET",
            path=oidc_path("<name>"),
            handler=self.begin,
            name="oidc_begin",
            response_type=LogInRedirect,
            status=303,
            errors=(404,),
        )
        yield Route(
            method="GET",
            path=oidc_callback_path("<name>"),
            handler=self.finish,
            name="oidc_callback",
            query_type=AuthorizationQuery,
            response_type=LogInRedirect,
            status=303,
            errors=(404,),
        )
        yield Route(method="GET", path=LOG_IN_FAILED_PATH, handler=self.show_fault, direct=True, name="log_in_failed")

    def buttons(self) -> list[tuple[str, str]]:
        """Title and path of each issuer by whom browsers may log in."""
        return [(issuer.title, oidc_path(issuer.name)) for issuer in self._log_ins.issuers]

    async def exchange(self, request: Request) -> Response:
        """Exchange a token of an outside issuer for a session."""
        if not self._origins.allows(request):
            return problem(ORIGIN_NOT_ALLOWED, request.request_id)
        body = json_body.read(request, _exchange)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        outcome = await self._log_ins.exchange(body.token, self._client(request))
        return self._auth.log_in_answer(request, outcome)

    async def begin(self, request: Request) -> Response:
        """Log in by an outside issuer; for browsers, which are sent there."""
        issuer = self._issuer(request)
        if issuer is None:
            return problem(NOT_FOUND, request.request_id)
        begun = await self._log_ins.begin(issuer)
        if isinstance(begun, LogInFault):
            return _to_fault(begun)
        return _redirect(begun.url, self._cookie(request, begun.cookie, ATTEMPT_SECONDS))

    async def finish(self, request: Request) -> Response:
        """Where an outside issuer sends a browser back to."""
        issuer = self._issuer(request)
        if issuer is None:
            return problem(NOT_FOUND, request.request_id)
        outcome: LoggedIn | LogInFault
        try:
            outcome = await self._log_ins.finish(
                issuer, read_answer(request.query), self._read_cookie(request), self._client(request)
            )
        except StorageUnavailable as exc:  # a person sees a page; programs do not come here
            log.info("request_unserved", request_id=request.request_id.decode(), store=exc.store, why=exc.why)
            outcome = LogInFault.OUTAGE
        # An answer to another attempt leaves this one as it is: it may be under way in another window.
        cleared = b"" if outcome is LogInFault.EXPIRED else self._cookie(request, "", 0)
        if isinstance(outcome, LogInFault):
            return _to_fault(outcome, cleared)
        return _redirect(
            PAGE_PATH, cleared + self._user_cookie(request, outcome) + self._auth.session_cookies(request, outcome)
        )

    async def show_fault(self, request: Request) -> Response:
        """Why a log-in failed, in one sentence."""
        stated = (parse_query(request.query) or {}).get("reason", [""])[0]
        fault = LogInFault(stated) if stated in set(LogInFault) else LogInFault.REFUSED
        return problem(FAULT_REFUSALS[fault], request.request_id)

    def _client(self, request: Request) -> Client:
        return Client(self._addresses.client(request), (), agent_of(request))

    def _issuer(self, request: Request) -> OutsideIssuer | None:
        found = _NAME(request.path)
        return self._log_ins.issuers.with_log_in(found[1].decode()) if found else None

    def _cookie_name(self, request: Request, name: str = ATTEMPT_COOKIE) -> str:
        return HOST_PREFIX + name if self._origins.is_secure(request) else name

    def _read_cookie(self, request: Request) -> str:
        """The attempt's cookie; "" without one. Of several the browser sends the one with the longest path first."""
        name = self._cookie_name(request).encode()
        fields = (text for field, text in request.headers if field == b"cookie")
        return next((found[2].decode() for text in fields for found in _COOKIE(text) if found[1] == name), "")

    def _cookie(self, request: Request, value: str, seconds: int) -> bytes:
        name, is_secure = self._cookie_name(request), self._origins.is_secure(request)
        place = "Path=/; Secure" if is_secure else f"Path={OIDC_PREFIX}"
        return f"set-cookie: {name}={value}; {place}; Max-Age={seconds}; HttpOnly; SameSite=Lax\r\n".encode()

    def _user_cookie(self, request: Request, outcome: LoggedIn) -> bytes:
        secure = "; Secure" if self._origins.is_secure(request) else ""
        attributes = f"Path=/; Max-Age={USER_COOKIE_SECONDS}; SameSite=Lax{secure}"
        return f"set-cookie: {self._cookie_name(request, USER_COOKIE)}={outcome.userId}; {attributes}\r\n".encode()


def _redirect(place: str, fields: bytes = b"") -> Response:
    """303, which a browser follows with GET."""
    return Response(303, b"", b"location: %b\r\ncache-control: no-store\r\n%b" % (place.encode(), fields))


def _to_fault(fault: LogInFault, fields: bytes = b"") -> Response:
    return _redirect(f"{LOG_IN_FAILED_PATH}?reason={fault}", fields)
