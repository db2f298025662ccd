"""Builds what a node asks of other servers, and the log-ins by outside issuers that depend on it.

Tested with whole nodes in tests/e2e/test_oidc.py.
"""

from functools import partial
from pathlib import Path

import trio

from scoreboard.app.accounts import AccountParts, own_host
from scoreboard.domain.errors import StartError
from scoreboard.domain.paths import oidc_callback_path
from scoreboard.domain.roles import Role
from scoreboard.drivers.https_client import HttpsClient, RequestFailure, check_url, make_ssl_context
from scoreboard.operations.cached_documents import CachedDocument, FetchFailedError
from scoreboard.operations.oidc_metadata import MAX_METADATA_BYTES, ProviderMetadata, discovery_url, parse_metadata
from scoreboard.operations.outside_issuers import ClaimNames, OidcClient, OutsideIssuer, OutsideIssuers
from scoreboard.operations.outside_log_ins import OutsideLogIns
from scoreboard.security.key_sets import MAX_KEY_SET_BYTES, KeySet, KeySetError, parse_key_set
from scoreboard.settings.identity import IssuerSettings
from scoreboard.settings.model import Outgoing, Settings


def build_https_client(outgoing: Outgoing) -> HttpsClient:
    """The client for requests to servers that the settings name. Raises SettingsError for a file of certificates that
    can't be read; without one the public authorities are read with the first request."""
    context = make_ssl_context(outgoing.ca_file) if outgoing.ca_file else None
    return HttpsClient(private_hosts=outgoing.private_hosts, ssl_context=context)


def check_files(settings: Settings) -> None:
    """Reads the files that the settings of outside issuers and of outgoing requests name. Raises SettingsError and
    StartError, as the start of a node does."""
    build_https_client(settings.outgoing)
    for name, table in settings.identity.items():
        _check_key_file(name, table.jwks_file)


def build_outside_log_ins(settings: Settings, accounts: AccountParts, https: HttpsClient) -> OutsideLogIns:
    """The log-ins by the issuers of the settings. Asks none of them yet. Raises StartError for a file of keys that has
    none."""
    issuers = [
        _build_issuer(name, table, https, settings.server.public_url, settings.outgoing)
        for name, table in settings.identity.items()
    ]
    return OutsideLogIns(
        OutsideIssuers(issuers),
        accounts.accounts.sessions,
        accounts.accounts.admission,
        https,
        clock=accounts.authenticator.clock.now,
        own_host=own_host(settings),
    )


def _build_issuer(
    name: str, table: IssuerSettings, https: HttpsClient, public_url: str, outgoing: Outgoing
) -> OutsideIssuer:
    check = partial(check_url, private_hosts=outgoing.private_hosts)
    discovery = CachedDocument(
        f"identity.{name}: discovery document",
        partial(_fetch, https, discovery_url(table.issuer), MAX_METADATA_BYTES),
        partial(parse_metadata, issuer=table.issuer, check_url=check),
    )
    client = None
    if table.client_id:
        stated = ProviderMetadata(table.authorization_endpoint, table.token_endpoint, "")
        client = OidcClient(
            table.client_id,
            table.client_secret.get_secret_value(),
            public_url + oidc_callback_path(name),
            table.scopes,
            partial(_stated_metadata, stated) if table.token_endpoint else partial(_log_in_metadata, discovery),
        )
    return OutsideIssuer(
        name,
        table.title or name,
        table.issuer,
        frozenset(table.algorithms),
        frozenset(table.audience),
        ClaimNames(
            table.user_id_claim,
            table.name_claim,
            table.picture_claim,
            table.role_claim,
            {value: Role(role) for value, role in table.roles.items()},
        ),
        _build_keys(name, table, https, discovery),
        client,
    )


def _build_keys(
    name: str, table: IssuerSettings, https: HttpsClient, discovery: CachedDocument[ProviderMetadata]
) -> CachedDocument[KeySet]:
    """The issuer's keys, from where the table says. A file is read now, so that a bad one stops the start."""
    if table.jwks_file:
        _check_key_file(name, table.jwks_file)
        fetch = partial(_fetch_file, Path(table.jwks_file))
    elif table.jwks_url:
        fetch = partial(_fetch, https, table.jwks_url, MAX_KEY_SET_BYTES)
    else:
        fetch = partial(_fetch_discovered_keys, https, discovery)
    return CachedDocument(f"identity.{name}: keys", fetch, parse_key_set)


def _check_key_file(name: str, file: str) -> None:
    """Raises StartError for a file that has no key; "" is none."""
    try:
        if file:
            parse_key_set(_read_file(Path(file)))
    except (KeySetError, OSError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise StartError(f"identity.{name}.jwks_file: {file} {reason}") from None


async def _fetch(https: HttpsClient, url: str, max_bytes: int) -> bytes:
    """The document at an address. Raises FetchFailedError; a redirect is a failure."""
    answer = await https.request("GET", url, headers={"accept": "application/json"}, max_answer_bytes=max_bytes)
    if isinstance(answer, RequestFailure):
        raise FetchFailedError(answer.why)
    if answer.status != 200:
        raise FetchFailedError(f"status {answer.status}")
    return answer.content


async def _fetch_discovered_keys(https: HttpsClient, discovery: CachedDocument[ProviderMetadata]) -> bytes:
    """The keys at the address that the discovery document names."""
    metadata = await discovery.current()
    if metadata is None or not metadata.jwks_uri:
        raise FetchFailedError("the discovery document is missing, or names no jwks_uri")
    return await _fetch(https, metadata.jwks_uri, MAX_KEY_SET_BYTES)


async def _fetch_file(file: Path) -> bytes:
    try:
        return await trio.to_thread.run_sync(_read_file, file)
    except OSError as exc:
        raise FetchFailedError(f"{file}: {exc.strerror}") from exc


def _read_file(file: Path) -> bytes:
    """The file, up to one byte more than a set of keys may have."""
    with file.open("rb") as opened:
        return opened.read(MAX_KEY_SET_BYTES + 1)


async def _stated_metadata(metadata: ProviderMetadata) -> ProviderMetadata:
    return metadata


async def _log_in_metadata(discovery: CachedDocument[ProviderMetadata]) -> ProviderMetadata | None:
    """The discovered endpoints; None when one of them is not known."""
    metadata = await discovery.current()
    return metadata if metadata and metadata.authorization_endpoint and metadata.token_endpoint else None
