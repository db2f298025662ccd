"""Accounts: who may log in, whom a token speaks for, and what becomes of sessions and profiles.

The only part that `scoreboard users …` builds: it needs the stores and the keys, and no board, listener or task.
"""

from typing import NamedTuple
from urllib.parse import urlsplit

from scoreboard.operations.accounts import Accounts
from scoreboard.operations.authenticator import Authenticator
from scoreboard.security.tokens import TokenKeys
from scoreboard.settings.keys import Keys
from scoreboard.settings.model import Settings
from scoreboard.storage.bus import Bus
from scoreboard.storage.connections.clock import DatabaseClock
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.profiles import Profiles


class AccountParts(NamedTuple):
    """What accounts consist of. A node runs `authenticator.watch`; a command has no need to."""

    authenticator: Authenticator
    accounts: Accounts
    profiles: Profiles  # shared with the boards that show them
    bus: Bus  # shared with the subscription


def build_accounts(settings: Settings, keys: Keys, stores: Stores) -> AccountParts:
    """The accounts of this installation, on open stores."""
    token_keys = TokenKeys.from_private(keys.signing, keys.current_signing)
    profiles, bus = Profiles(stores), Bus(stores)
    authenticator = Authenticator(
        stores,
        token_keys,
        keys.master,
        issuer=settings.issuer,
        lifetime=settings.security.access_token_seconds,
        clock=DatabaseClock(),
    )
    accounts = Accounts(
        stores,
        authenticator,
        keys=token_keys,
        masters=keys.master,
        master=keys.current_master,
        issuer=settings.issuer,
        on_profile_change=profiles.changed,
        publish_revoked=bus.publish_revoked,
        registration=settings.accounts.registration,
        login_per_minute=settings.limits.login_per_minute,
        login_ip_per_minute=settings.limits.login_ip,
        own_host=own_host(settings),
        profile_changes_per_hour=settings.limits.profile_changes_per_hour,
        lifetime=settings.security.access_token_seconds,
        refresh_days=settings.security.refresh_days,
        clock=authenticator.clock.now,
    )
    return AccountParts(authenticator, accounts, profiles, bus)


def own_host(settings: Settings) -> str:
    """The host that the world knows this server by; "" when the settings do not say."""
    return urlsplit(settings.server.public_url).hostname or ""
