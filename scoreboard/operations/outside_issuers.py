"""Outside issuers: whose tokens are accepted, with which keys, and what their claims say about a user.

`OutsideIssuer` is one table `[identity.NAME]` at work. Where it asks for keys follows from the configuration: an
address of the table, or the one in the discovery document of the configured issuer. A token names neither keys nor
addresses; its `iss` only selects between the tables (`OutsideIssuers.of_token`). app.identity builds these.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scoreboard.domain import identities
from scoreboard.domain.errors import Code, FieldError, Refusal
from scoreboard.domain.roles import Role
from scoreboard.operations.cached_documents import CachedDocument
from scoreboard.operations.oidc_metadata import ProviderMetadata
from scoreboard.security import outside_tokens
from scoreboard.security.key_sets import KeySet
from scoreboard.security.outside_tokens import Expected, TokenFault, UnverifiedToken
from scoreboard.telemetry import metrics

ACCEPTED, KEYS_MISSING, UNKNOWN_ISSUER = "accepted", "keys_missing", "unknown_issuer"  # outcomes, beside TokenFault's
MAX_ROLE_VALUES = 1000  # of a role claim that are read; more are ignored

TOKEN_REFUSED = Refusal(Code.UNAUTHORIZED, "This token is not accepted here.")
ISSUER_AWAY = Refusal(
    Code.SERVICE_UNAVAILABLE, "The keys of this token's issuer cannot be reached at the moment.", retry_after=5
)


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Which claims say what about a user; "" for none. `roles`: value of the role claim → role."""

    user_id: str = "sub"
    name: str = ""
    picture: str = ""
    role: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)


class OutsideUser(NamedTuple):
    """A user as an issuer's token describes him. Only `external_id` is proven to be his for good."""

    external_id: str
    name: str | None
    picture: str | None
    role: Role | None

    def __repr__(self) -> str:
        return "OutsideUser()"  # personal


@dataclass(frozen=True, slots=True)
class OidcClient:
    """This installation as a client of an OpenID Provider."""

    client_id: str
    client_secret: str = field(repr=False)  # "": a public client
    redirect_uri: str
    scopes: tuple[str, ...]
    # where it sends browsers and codes; None when that is not known now
    metadata: Callable[[], Awaitable[ProviderMetadata | None]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutsideIssuer:
    """One issuer. `audiences`: of tokens that are exchanged; `client`: for log-ins of browsers, None for none."""

    name: str
    title: str
    issuer: str
    algorithms: frozenset[str]
    audiences: frozenset[str]
    claim_names: ClaimNames
    keys: CachedDocument[KeySet]
    client: OidcClient | None = None

    async def verify_for_exchange(self, token: UnverifiedToken, now: float) -> Mapping[str, Any] | Refusal:
        """The claims of a token that is to be exchanged. Raises nothing; cancelling has no effect on others."""
        return await self._verify(token, Expected(self.issuer, self.audiences, self.algorithms), now, None)

    async def verify_id_token(self, token: str, now: float, nonce: str) -> Mapping[str, Any] | Refusal:
        """The claims of the ID token of a log-in."""
        assert self.client is not None
        decoded = outside_tokens.decode(token)
        if isinstance(decoded, TokenFault):
            return self._refuse(decoded)
        us = frozenset((self.client.client_id,))
        return await self._verify(decoded, Expected(self.issuer, us, self.algorithms, us), now, nonce)

    async def _verify(
        self, token: UnverifiedToken, expected: Expected, now: float, nonce: str | None
    ) -> Mapping[str, Any] | Refusal:
        keys = await self.keys.current()
        if keys is not None:
            claims = outside_tokens.verify(token, keys, expected, now=now, nonce=nonce)
            # Asked again only for a kid that the set does not have: for any other fault new keys change nothing.
            if claims is TokenFault.UNKNOWN_KEY and not keys.has(token.kid):
                keys = await self.keys.newer() or keys
                claims = outside_tokens.verify(token, keys, expected, now=now, nonce=nonce)
        if keys is None:
            metrics.OUTSIDE_TOKENS.labels(self.name, KEYS_MISSING).inc()
            return ISSUER_AWAY
        if isinstance(claims, TokenFault):
            return self._refuse(claims)
        metrics.OUTSIDE_TOKENS.labels(self.name, ACCEPTED).inc()
        return claims

    def _refuse(self, fault: TokenFault) -> Refusal:
        metrics.OUTSIDE_TOKENS.labels(self.name, fault.value).inc()
        return TOKEN_REFUSED

    def read_user(self, claims: Mapping[str, Any]) -> OutsideUser | Refusal:
        """The user whom verified claims describe; a Refusal where they name none."""
        names = self.claim_names
        external_id = claim(claims, names.user_id)
        if isinstance(external_id, int) and not isinstance(external_id, bool):
            external_id = str(external_id)
        if not isinstance(external_id, str) or isinstance(identities.external_id(external_id), FieldError):
            return self._refuse(TokenFault.MALFORMED)
        name, picture = claim(claims, names.name), claim(claims, names.picture)
        return OutsideUser(
            external_id,
            name if isinstance(name, str) else None,
            picture if isinstance(picture, str) else None,
            highest_role(claim(claims, names.role), names.roles),
        )


class OutsideIssuers:
    """All issuers of this installation. Iterating yields those with log-in for browsers."""

    __slots__ = ("_by_issuer", "_by_name")

    def __init__(self, issuers: Sequence[OutsideIssuer] = ()) -> None:
        self._by_name = {issuer.name: issuer for issuer in issuers}
        self._by_issuer = {issuer.issuer: issuer for issuer in issuers if issuer.audiences}

    def __iter__(self) -> Iterator[OutsideIssuer]:
        return (issuer for issuer in self._by_name.values() if issuer.client is not None)

    def of_token(self, token: UnverifiedToken) -> OutsideIssuer | None:
        """The issuer that the token claims to be from, if its tokens may be exchanged."""
        stated = token.claims.get("iss")
        return self._by_issuer.get(stated) if isinstance(stated, str) else None

    def with_log_in(self, name: str) -> OutsideIssuer | None:
        """The issuer of that name, if browsers may log in by it."""
        found = self._by_name.get(name)
        return found if found is not None and found.client is not None else None


def claim(claims: Mapping[str, Any], name: str) -> object:
    """A claim by its name, or by its path: `realm_access.roles` is the member `roles` of the claim `realm_access`. A
    claim with exactly this name goes first, as names may be addresses. None when there is none."""
    if not name:
        return None
    if name in claims:
        return claims[name]
    found: object = claims
    for step in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return found


def highest_role(value: object, roles: Mapping[str, Role]) -> Role | None:
    """The highest role that the values of a role claim give: one text, or a list of texts."""
    values = value[:MAX_ROLE_VALUES] if isinstance(value, list) else [value]
    found = [roles[each] for each in values if isinstance(each, str) and each in roles]
    return max(found, key=list(Role).index, default=None)
