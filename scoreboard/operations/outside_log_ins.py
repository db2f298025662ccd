"""Log-ins by outside issuers: a token that is exchanged for a session, and a browser's log-in by OpenID Connect.

`exchange` takes a token that the client has already. `begin` sends a browser to its provider, and `finish` redeems the
code with which it comes back. In all cases the account is made at first sight. The name of the table in the settings is
part of the account's identity, so two issuers never share one.

Nothing of a log-in is kept on the server. Its cookie is cleared when the browser comes back; a code is good for one use
at its provider, and for the one attempt whose verifier and nonce it was made for. A record of used attempts in Redis
would protect only from somebody who has the browser's cookies, and would stop log-ins while Redis is away.

Every function may raise StorageUnavailable. After a cancellation a new user, or a session that nobody knows, may be
there.
"""

import base64
import secrets
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec
import structlog

from scoreboard.domain import account_rules
from scoreboard.domain.audit import SYSTEM
from scoreboard.domain.errors import Code, LimitLayer, Refusal, rate_limited
from scoreboard.domain.identities import ExternalIdentity
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.drivers.https_client import Answer, HttpsClient, RequestFailure
from scoreboard.operations.authorization_answers import (
    MAX_CODE_LENGTH,
    AuthorizationAnswer,
    authorization_url,
    is_answer_to,
    is_from,
)
from scoreboard.operations.identified_users import find_or_create
from scoreboard.operations.login_admission import Client, LoginAdmission
from scoreboard.operations.oidc_metadata import ProviderMetadata
from scoreboard.operations.outside_issuers import (
    TOKEN_REFUSED,
    UNKNOWN_ISSUER,
    OidcClient,
    OutsideIssuer,
    OutsideIssuers,
    OutsideUser,
)
from scoreboard.operations.sessions import LoggedIn, Sessions
from scoreboard.security import outside_tokens
from scoreboard.security.log_in_attempts import SEED_BYTES, LogInAttempt
from scoreboard.security.outside_tokens import TokenFault
from scoreboard.storage.postgres import staff
from scoreboard.telemetry import metrics

MAX_REDEMPTIONS = 16  # codes that are redeemed at a time; one more is refused
REDEEM_TIMEOUT_SECONDS = 4.0  # for a code; a person waits for it
MAX_TOKEN_ANSWER_BYTES = 65_536  # of a token endpoint; ID tokens have 16 kB at most
LOGGED_IN = "logged_in"  # an outcome, beside LogInFault's
LOG_INTERVAL_SECONDS = 60.0  # between two log lines with the same reason
MAX_REASONS = 100  # that are remembered for it; full: all are forgotten

# RFC 6749 sections 4.1.2.1 and 5.2, OpenID Connect Core section 3.1.2.6. Any other text stays out of the log: a browser
# brings it, from an address that anybody may have made.
ERROR_CODES = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant", "invalid_scope", "access_denied", "server_error"),
        *("unauthorized_client", "unsupported_grant_type", "unsupported_response_type", "temporarily_unavailable"),
        *("interaction_required", "login_required", "account_selection_required", "consent_required"),
        *("request_not_supported", "request_uri_not_supported", "registration_not_supported"),
    }
)

log = structlog.get_logger()


class LogInFault(StrEnum):
    """Why a browser's log-in failed, as the address of the error page says it."""

    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"  # the issuer
    OUTAGE = "outage"  # our own stores
    LIMITED = "limited"


FAULT_REFUSALS: dict[LogInFault, Refusal] = {
    LogInFault.EXPIRED: Refusal(
        Code.UNAUTHORIZED,
        "This log-in has expired, or it was begun in another browser or window. Please log in again.",
    ),
    LogInFault.CANCELLED: Refusal(Code.UNAUTHORIZED, "The log-in was cancelled."),
    LogInFault.REFUSED: Refusal(
        Code.UNAUTHORIZED, "What the other site said about you could not be verified, so you were not logged in."
    ),
    LogInFault.UNAVAILABLE: Refusal(
        Code.SERVICE_UNAVAILABLE, "The site that you log in with cannot be reached at the moment.", retry_after=5
    ),
    LogInFault.OUTAGE: Refusal(
        Code.SERVICE_UNAVAILABLE, "Nobody can log in at the moment. Please try again soon.", retry_after=5
    ),
    LogInFault.LIMITED: rate_limited(LimitLayer.LOGIN, "Too many log-ins from this address.", 60, names_wait=False),
}


class BegunLogIn(NamedTuple):
    """Where the browser goes, and the cookie that it must come back with."""

    url: str
    cookie: str

    def __repr__(self) -> str:
        return "BegunLogIn()"


class RedeemFailure(NamedTuple):
    """Why a code was not redeemed; `why` is for the log."""

    fault: LogInFault
    why: str


class _TokenAnswer(msgspec.Struct):
    """What a token endpoint answers. The provider's access token is not read: it is of no use here."""

    id_token: str = ""
    error: str = ""  # an error code, such as invalid_grant

    def __repr__(self) -> str:
        return "_TokenAnswer()"


_decode_answer = msgspec.json.Decoder(_TokenAnswer).decode


class OutsideLogIns:
    """The log-ins of one node. `clock` returns PostgreSQL's time in Unix seconds. `own_host`: a picture's address must
    not have this host."""

    def __init__(
        self,
        issuers: OutsideIssuers,
        sessions: Sessions,
        admission: LoginAdmission,
        https: HttpsClient,
        *,
        clock: Callable[[], float],
        own_host: str = "",
    ) -> None:
        self.issuers = issuers
        self._sessions, self._admission, self._https = sessions, admission, https
        self._clock, self._own_host = clock, own_host
        self._redeeming = 0
        self._logged_at: dict[tuple[str, str], float] = {}

    async def exchange(self, token: str, client: Client) -> LoggedIn | Refusal:
        """A session for the user of an outside issuer's token. It may be exchanged again until it expires."""
        attempt = self._admission.limits.begin(client.address, self._admission.clock())
        if isinstance(attempt, int):
            return rate_limited(LimitLayer.LOGIN, "Too many log-ins from this address.", attempt)
        with attempt:
            decoded = outside_tokens.decode(token)
            issuer = None if isinstance(decoded, TokenFault) else self.issuers.of_token(decoded)
            if issuer is None or isinstance(decoded, TokenFault):
                metrics.OUTSIDE_TOKENS.labels("", UNKNOWN_ISSUER).inc()
                return TOKEN_REFUSED
            claims = await issuer.verify_for_exchange(decoded, self._clock())
            return claims if isinstance(claims, Refusal) else await self._open_session(issuer, claims, client.agent)

    # ---- a browser --------------------------------------------------------------------------------------------------

    async def begin(self, issuer: OutsideIssuer) -> BegunLogIn | LogInFault:
        """A log-in of a browser with this issuer, which has a client."""
        client = _client_of(issuer)
        metadata = await client.metadata()
        if metadata is None:
            return LogInFault.UNAVAILABLE
        keys, now = self._sessions.issuer, self._clock()
        cookie = keys.log_in_cookie(issuer.name, secrets.token_bytes(SEED_BYTES), now=now)
        attempt = keys.read_log_in_cookie(issuer.name, cookie, now=now)
        assert attempt is not None  # made just now
        url = authorization_url(
            metadata.authorization_endpoint,
            attempt,
            client_id=client.client_id,
            redirect_uri=client.redirect_uri,
            scopes=client.scopes,
        )
        return BegunLogIn(url, cookie)

    async def finish(
        self, issuer: OutsideIssuer, answer: AuthorizationAnswer | None, cookie: str, client: Client
    ) -> LoggedIn | LogInFault:
        """The session of a browser that has come back with `answer` and with the cookie of its log-in ("": without).

        None as `answer`: it can't be read. EXPIRED says that it is not known to be the answer to this log-in, which may
        still be under way.
        """
        outcome = await self._finish(issuer, answer, cookie, client)
        label = outcome.value if isinstance(outcome, LogInFault) else LOGGED_IN
        metrics.OUTSIDE_LOG_INS.labels(issuer.name, label).inc()
        return outcome

    async def _finish(
        self, issuer: OutsideIssuer, answer: AuthorizationAnswer | None, cookie: str, client: Client
    ) -> LoggedIn | LogInFault:
        attempt = self._sessions.issuer.read_log_in_cookie(issuer.name, cookie, now=self._clock())
        if answer is None or attempt is None or not is_answer_to(answer, attempt):
            return LogInFault.EXPIRED
        metadata = await _client_of(issuer).metadata()
        if metadata is None:
            return LogInFault.UNAVAILABLE
        if not is_from(answer, issuer.issuer, names_issuer=metadata.names_issuer):
            return LogInFault.REFUSED
        if answer.error is not None:
            if answer.error == "access_denied":
                return LogInFault.CANCELLED
            self._log_failure(issuer.name, _error_code(answer.error))
            return LogInFault.REFUSED
        if not answer.code or len(answer.code) > MAX_CODE_LENGTH:
            return LogInFault.REFUSED
        counted = self._admission.limits.begin(client.address, self._admission.clock())
        if isinstance(counted, int):
            return LogInFault.LIMITED
        with counted:
            outcome = await self._log_in_with_code(issuer, metadata, answer.code, attempt, client.agent)
        if isinstance(outcome, Refusal):
            is_away = outcome.code is Code.SERVICE_UNAVAILABLE
            return LogInFault.UNAVAILABLE if is_away else LogInFault.REFUSED
        return outcome

    async def _log_in_with_code(
        self, issuer: OutsideIssuer, metadata: ProviderMetadata, code: str, attempt: LogInAttempt, agent: str
    ) -> LoggedIn | Refusal | LogInFault:
        if self._redeeming >= MAX_REDEMPTIONS:
            return LogInFault.UNAVAILABLE
        self._redeeming += 1
        try:
            answered = await self._https.request(
                "POST",
                metadata.token_endpoint,
                timeout_seconds=REDEEM_TIMEOUT_SECONDS,
                max_answer_bytes=MAX_TOKEN_ANSWER_BYTES,
                **token_request(_client_of(issuer), metadata, code, attempt.verifier),
            )
        finally:
            self._redeeming -= 1
        id_token = read_id_token(answered)
        if isinstance(id_token, RedeemFailure):
            self._log_failure(issuer.name, id_token.why)
            return id_token.fault
        claims = await issuer.verify_id_token(id_token, self._clock(), attempt.nonce)
        return claims if isinstance(claims, Refusal) else await self._open_session(issuer, claims, agent)

    def _log_failure(self, issuer: str, why: str) -> None:
        """Logs a failure that an operator may have to act on, unless the same one was logged just before."""
        now = self._admission.clock()
        if now - self._logged_at.get((issuer, why), float("-inf")) < LOG_INTERVAL_SECONDS:
            return
        if len(self._logged_at) >= MAX_REASONS:
            self._logged_at.clear()
        self._logged_at[issuer, why] = now
        log.warning("outside_log_in_failed", issuer=issuer, why=why)

    # ---- the user ---------------------------------------------------------------------------------------------------

    async def _open_session(self, issuer: OutsideIssuer, claims: Mapping[str, Any], agent: str) -> LoggedIn | Refusal:
        """A session for the user whom verified claims describe."""
        described = issuer.read_user(claims)
        if isinstance(described, Refusal):
            return described
        picture = described.picture and account_rules.avatar_url(described.picture, self._own_host)
        identity = ExternalIdentity(issuer.name, described.external_id)
        user = await find_or_create(
            self._sessions.stores, identity, described.name, picture if isinstance(picture, str) else None
        )
        if isinstance(user, Refusal):
            return user
        await self._set_role(issuer, user.user, described)
        return await self._sessions.open_identified(user.user, user.username, agent) or USER_DELETED

    async def _set_role(self, issuer: OutsideIssuer, user: UUID, described: OutsideUser) -> None:
        """Where the table maps a claim to roles, the claim decides at each log-in: also that a role is taken."""
        if not issuer.claim_names.role:
            return
        stores = self._sessions.stores
        if await staff.role_of(stores, user) is not described.role:  # changing it locks the rows of all admins
            await staff.set_role(stores, user, described.role, SYSTEM)


def _client_of(issuer: OutsideIssuer) -> OidcClient:
    assert issuer.client is not None  # `with_log_in` gives no other
    return issuer.client


def token_request(client: OidcClient, metadata: ProviderMetadata, code: str, verifier: str) -> dict[str, Any]:
    """Header fields and body of the request that redeems a code (RFC 6749 sections 2.3.1 and 4.1.3)."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": client.redirect_uri,
        "code_verifier": verifier,
    }
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    if client.client_secret and not metadata.takes_secret_in_body:
        name_and_secret = f"{quote(client.client_id, safe='')}:{quote(client.client_secret, safe='')}"
        headers["authorization"] = f"Basic {base64.b64encode(name_and_secret.encode()).decode()}"
    else:
        form["client_id"] = client.client_id
        if client.client_secret:
            form["client_secret"] = client.client_secret
    return {"headers": headers, "content": urlencode(form).encode()}


def read_id_token(answered: Answer | RequestFailure) -> str | RedeemFailure:
    """The ID token of a token endpoint's answer."""
    if isinstance(answered, RequestFailure):
        return RedeemFailure(LogInFault.UNAVAILABLE, answered.why)
    try:
        read = _decode_answer(answered.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        read = _TokenAnswer()
    if answered.status == 200 and read.id_token:
        return read.id_token
    why = f"status {answered.status}, {_error_code(read.error) if read.error else 'no ID token'}"
    return RedeemFailure(LogInFault.UNAVAILABLE if answered.status >= 500 else LogInFault.REFUSED, why)


def _error_code(error: str) -> str:
    """A provider's error code, for the log."""
    return error if error in ERROR_CODES else "an error code that is not known"
