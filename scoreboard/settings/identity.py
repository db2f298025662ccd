"""The tables `[identity.NAME]`: outside issuers, whose tokens open sessions here, and by whom browsers may log in.

`IssuerSettings` is one table. `check_tables` compares the keys of all tables with each other and with the rest of the
settings; both raise ValueError, whose message follows or names the key. Nothing is fetched here: a wrong address shows
at the first log-in. Tested in tests/settings/test_identity.py.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from scoreboard.domain import identities
from scoreboard.settings.values import Section, as_list

MAX_TABLES = 20  # each is a button on the page, and a set of keys in memory
# providers of other identities (domain.identities): an issuer of such a name could log in as their users
RESERVED_NAMES = frozenset({identities.DEVICE, identities.SERVER})
# of a NAME: a part of paths, of names of variables and of accounts' identities
TABLE_NAME = r"^[a-z][a-z0-9-]{0,30}$"

Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "PS256", "ES256", "EdDSA")  # only asymmetric ones: issuers share no key
Role = Literal["viewer", "moderator", "admin"]

_VISIBLE = re.compile(r"[!-~]+").fullmatch
_SCOPE = re.compile(r"[!#-\[\]-~]+").fullmatch  # RFC 6749 section 3.3


def visible(value: str) -> str:
    if value and not _VISIBLE(value):
        raise ValueError("must be visible ASCII characters without spaces")
    return value


def claim_name(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be the name of a claim")
    return value


def lasting_claim(value: str) -> str:
    if value in {"email", "preferred_username", "name", "nickname"}:  # OpenID Connect Core, section 5.7
        raise ValueError('must not name a claim that may change, or pass to another person; "sub" never does')
    return claim_name(value)


def shown_title(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be text that can be printed, in one line")
    return value.strip()


def scope(value: str) -> str:
    if not _SCOPE(value):
        raise ValueError("must be a scope without spaces")
    return value


def address(value: str) -> str:
    """An address of a server. Whether http:// is allowed depends on other settings: see `check_tables`."""
    if not value:
        return value
    parts = urlsplit(visible(value))
    _ = parts.port  # raises ValueError when it is none
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.fragment or parts.username is not None:
        raise ValueError("must look like https://accounts.example/path")
    return value


Text = Annotated[str, Field(max_length=512), AfterValidator(visible)]
Address = Annotated[str, Field(max_length=2048), AfterValidator(address)]
Claim = Annotated[str, Field(max_length=255), AfterValidator(claim_name)]


class IssuerSettings(Section):
    """One outside issuer. With `audience` its tokens may be exchanged for sessions; with `client_id` browsers may log
    in by OpenID Connect."""

    issuer: Annotated[Text, Field(min_length=1)]  # `iss` of its tokens, exactly
    title: Annotated[str, Field(max_length=40), AfterValidator(shown_title)] = ""  # on the page; "": the table's name
    # of tokens that are exchanged; "aud" must be one of them. None: no token of this issuer is exchanged
    audience: Annotated[
        tuple[Annotated[Text, Field(min_length=1)], ...], BeforeValidator(as_list), Field(max_length=20)
    ] = ()
    jwks_url: Address = ""  # its public keys; "": as its discovery document says
    jwks_file: Annotated[str, Field(max_length=4096)] = ""  # the same from a file
    algorithms: Annotated[tuple[Algorithm, ...], BeforeValidator(as_list), Field(min_length=1)] = ALGORITHMS
    user_id_claim: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(lasting_claim)] = "sub"
    name_claim: Claim = "preferred_username"  # the first name of a new account; "": a made-up one
    picture_claim: Claim = ""  # the first picture of a new account; "": none
    role_claim: Claim = ""
    roles: Annotated[dict[str, Role], Field(max_length=100)] = Field(default_factory=dict)  # value of the claim → role
    client_id: Text = ""
    client_secret: SecretStr = SecretStr("")  # "": a public client
    authorization_endpoint: Address = ""  # "": as its discovery document says
    token_endpoint: Address = ""
    scopes: Annotated[tuple[Annotated[str, AfterValidator(scope)], ...], BeforeValidator(as_list)] = (
        "openid",
        "profile",
    )

    @property
    def needs_discovery(self) -> bool:
        """Whether its discovery document is asked for anything."""
        return not (self.jwks_url or self.jwks_file) or bool(self.client_id and not self.token_endpoint)


def check_tables(
    tables: Mapping[str, IssuerSettings], *, public_url: str, private_hosts: Collection[str]
) -> Mapping[str, IssuerSettings]:
    """The tables. Raises ValueError: the key of the first that is wrong, and why."""
    if len(tables) > MAX_TABLES:
        raise ValueError(f"must have at most {MAX_TABLES} tables")
    owners: dict[str, str] = {}
    for name, table in tables.items():
        if name in RESERVED_NAMES:
            raise ValueError(f"identity.{name} is a reserved name")
        for key, wrong in _faults(table, public_url, private_hosts):
            raise ValueError(f"identity.{name}.{key} {wrong}")
        if (other := owners.setdefault(table.issuer, name)) != name:
            raise ValueError(f"identity.{name}.issuer is that of identity.{other} too")
    return tables


def _faults(table: IssuerSettings, public_url: str, private_hosts: Collection[str]) -> Iterator[tuple[str, str]]:
    """Key and fault of what does not fit together."""
    if not table.audience and not table.client_id:
        yield "audience", "is missing: it, or client_id, says for whom the issuer's tokens are made"
    if table.jwks_url and table.jwks_file:
        yield "jwks_file", "must be empty where jwks_url is set"
    if table.roles and not table.role_claim:
        yield "role_claim", "must name the claim that has the values of roles"
    if table.role_claim and not table.roles:
        yield "roles", "must say which values of role_claim give which role"
    yield from _client_faults(table, public_url)
    yield from _address_faults(table, private_hosts)


def _client_faults(table: IssuerSettings, public_url: str) -> Iterator[tuple[str, str]]:
    """Of the keys for log-ins of browsers."""
    if bool(table.authorization_endpoint) != bool(table.token_endpoint):
        missing = "token_endpoint" if table.authorization_endpoint else "authorization_endpoint"
        yield missing, "must be set too, or neither of the two endpoints"
    if not table.client_id:
        if table.client_secret.get_secret_value():
            yield "client_id", "is missing for the client_secret"
        return
    if "openid" not in table.scopes:
        yield "scopes", 'must have "openid"'
    if not public_url:
        yield "client_id", "needs server.public_url, to which the issuer sends browsers back"


def _address_faults(table: IssuerSettings, private_hosts: Collection[str]) -> Iterator[tuple[str, str]]:
    """Of the addresses that a node asks, or sends browsers to."""
    addresses = ["jwks_url", "authorization_endpoint", "token_endpoint"]
    if table.needs_discovery:
        addresses.append("issuer")
        try:
            address(table.issuer)
        except ValueError:
            yield "issuer", "must look like https://accounts.example where jwks_url or the endpoints are not set"
    for key in addresses:
        parts = urlsplit(getattr(table, key))
        if parts.scheme == "http" and parts.hostname not in private_hosts:
            yield key, "must begin with https:// (http:// is for hosts of outgoing.private_hosts)"
