"""Accounts on real stores, with keys, a clock and hooks that tests can hold in their hands."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

import pytest
from argon2 import PasswordHasher

from scoreboard.domain.errors import Code, Refusal
from scoreboard.drivers.clock import DatabaseClock
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.embedded.stack import Endpoints
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.authenticator import Authenticator
from scoreboard.operations.login_limits import LoginLimits
from scoreboard.operations.sessions import LoggedIn, Sessions
from scoreboard.security import passwords
from scoreboard.security.issuer import Issuer
from scoreboard.security.tokens import TokenKeys
from scoreboard.storage.bus import Bus
from scoreboard.storage.profiles import Profiles
from tests.conftest import database

KEYS = TokenKeys.from_private({"k1": b"k" * 32}, "k1")
MASTERS = {1: b"1" * 32, 2: b"2" * 32}
ISSUER = "http://127.0.0.1:8000"
PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass
class Node:
    """One node's accounts and sessions, and what they published."""

    stores: Stores
    master_keys: dict[int, bytes] = field(default_factory=lambda: dict(MASTERS))
    current_version: int = 2
    registration: bool = True
    guests: bool = True
    guests_per_hour: int = 0
    login_per_minute: int = 0
    profile_changes_per_hour: int = 0
    own_host: str = ""
    ahead: float = 0.0  # seconds that this node's clock is ahead
    revoked: list[UUID] = field(default_factory=list)
    changed: list[tuple[UUID, str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        issuer = Issuer(ISSUER, KEYS, self.master_keys, self.current_version)
        self.sessions = Authenticator(self.stores, issuer, DatabaseClock(self.clock))
        self.accounts = Accounts(
            Sessions(self.stores, self.sessions, issuer, cast("Bus", self), clock=self.sessions.clock.now),
            LoginLimits(self.login_per_minute, guests_per_hour=self.guests_per_hour),
            cast("Profiles", self),
            registration=self.registration,
            guests=self.guests,
            own_host=self.own_host,
            profile_changes_per_hour=self.profile_changes_per_hour,
        )

    def clock(self) -> float:
        return time() + self.ahead

    async def write_through(self, user: UUID, username: str, avatar_url: str | None) -> None:
        self.changed.append((user, username, avatar_url))

    async def publish_revoked(self, sid: UUID) -> None:
        self.revoked.append(sid)

    async def register(self, username: str = "Ada", **others: Any) -> LoggedIn:
        email = others.get("email", f"{username.lower()}@example.org")
        outcome = await self.accounts.register(
            username, email, others.get("password", PASSWORD), others.get("avatar_url")
        )
        assert isinstance(outcome, LoggedIn), outcome
        return outcome


async def refreshed(someone: Node, token: str) -> LoggedIn:
    outcome = await someone.accounts.refresh_session(token)
    assert isinstance(outcome, LoggedIn), outcome
    return outcome


async def logged_in(someone: Node, name: str, password: str = PASSWORD) -> LoggedIn:
    outcome = await someone.accounts.log_in(name, password)
    assert isinstance(outcome, LoggedIn), outcome
    return outcome


def code(outcome: object) -> Code:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code


def fields(outcome: object) -> set[str]:
    assert isinstance(outcome, Refusal), outcome
    return {error.field for error in outcome.errors}


@pytest.fixture(scope="module")
def database_url(embedded_servers: Endpoints, migrated_template: str) -> Iterator[str]:
    """One database a test module: `node` empties it."""
    with database(embedded_servers.postgres_url, migrated_template) as url:
        yield url


@asynccontextmanager
async def node(
    database_url: str, redis_url: str, *, hasher: PasswordHasher = CHEAP, **settings: Any
) -> AsyncIterator[Node]:
    """A node on stores of its own connections, and nobody there. Passwords cost next to nothing, unless `hasher` says
    otherwise."""
    with patch.object(passwords, "_HASHER", hasher):
        async with open_stores(database_url, redis_url) as stores:
            await stores.execute("DELETE FROM users")
            await stores.execute("DELETE FROM username_skeletons")  # names that rest
            await stores.execute("DELETE FROM sessions")  # whose users are gone
            yield Node(stores, **settings)
