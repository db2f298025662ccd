"""Builds the parts for accounts: log-in, access tokens, sessions, profiles.

The only part that `scoreboard users …` builds: it needs the stores and the keys, and no board, listener or task.
Tested by tests/cli/test_users.py, and with a whole node in tests/e2e.
"""

from typing import NamedTuple
from urllib.parse import urlsplit

from scoreboard.drivers.clock import DatabaseClock
from scoreboard.drivers.stores import Stores
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.authenticator import Authenticator
from scoreboard.operations.log_in_networks import LogInNetworks
from scoreboard.operations.login_limits import LoginLimits
from scoreboard.operations.server_keys import ServerKeys
from scoreboard.operations.sessions import Sessions
from scoreboard.security.checkpoints import LogSigner, VerifierKey
from scoreboard.security.issuer import Issuer
from scoreboard.security.tokens import TokenKeys
from scoreboard.settings.keys import Keys
from scoreboard.settings.model import Settings
from scoreboard.storage.bus import Bus
from scoreboard.storage.profiles import Profiles
from scoreboard.workers.anomalies import count_opened


class AccountParts(NamedTuple):
    """What accounts consist of. A node runs `authenticator.watch`; a command has no need to."""

    authenticator: Authenticator
    server_keys: ServerKeys  # a node runs its `watch` too
    accounts: Accounts
    profiles: Profiles  # shared with the boards that show them
    bus: Bus  # shared with the subscription
    networks: LogInNetworks | None = None  # told of each log-in; None: no rule asks for it


def build_accounts(settings: Settings, keys: Keys, stores: Stores) -> AccountParts:
    """The accounts of this installation, on open stores."""
    issuer = build_issuer(settings, keys)
    profiles, bus = Profiles(stores), Bus(stores)
    authenticator = Authenticator(stores, issuer, DatabaseClock())
    sessions = Sessions(
        stores,
        authenticator,
        issuer,
        bus,
        refresh_days=settings.security.refresh_days,
        clock=authenticator.clock.now,
    )
    accounts = Accounts(
        sessions,
        LoginLimits(
            settings.limits.login_per_minute, settings.limits.login_ip, guests_per_hour=settings.limits.guests_per_hour
        ),
        profiles,
        registration=settings.accounts.registration,
        guests=settings.accounts.guests,
        own_host=own_host(settings),
        profile_changes_per_hour=settings.limits.profile_changes_per_hour,
    )
    server_keys = ServerKeys(stores, authenticator.clock)
    networks = _build_networks(settings, keys, stores, authenticator)
    return AccountParts(authenticator, server_keys, accounts, profiles, bus, networks)


def _build_networks(
    settings: Settings, keys: Keys, stores: Stores, authenticator: Authenticator
) -> LogInNetworks | None:
    if not settings.anomalies.shared_address:
        return None
    return LogInNetworks(
        stores,
        keys.master[keys.current_master],
        settings.anomalies.shared_address,
        alerts=bool(settings.alerts.url.get_secret_value()),
        clock=authenticator.clock.now,
        count_opened=count_opened,
    )


def build_issuer(settings: Settings, keys: Keys) -> Issuer:
    """The issuer of this installation's tokens and secrets."""
    return Issuer(
        settings.issuer,
        TokenKeys.from_private(keys.signing, keys.current_signing),
        keys.master,
        keys.current_master,
        settings.security.access_token_seconds,
    )


def build_log_signer(settings: Settings, keys: Keys) -> LogSigner | None:
    """Who signs the transparency log; None without a key."""
    return LogSigner(settings.log_name, keys.log[keys.current_log]) if keys.log else None


def log_verifiers(settings: Settings) -> list[VerifierKey]:
    """The public keys whose checkpoints are this log's: the present one and former ones. Makes no development keys,
    since new ones have signed nothing. Raises StartError."""
    keys = settings.security.known_log_keys(settings.embedded.data_dir)
    return [LogSigner(settings.log_name, private).verifier for private in keys.values()]


def own_host(settings: Settings) -> str:
    """The host of the setting `server.public_url`; "" when that is not set."""
    return urlsplit(settings.server.public_url).hostname or ""
