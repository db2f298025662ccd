"""Register: a new user's session, and the refusals. On a real PostgreSQL."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.drivers.stores import Stores
from scoreboard.operations.sessions import LoggedIn
from scoreboard.security.signatures import action_secret
from scoreboard.storage.postgres import users
from tests.operations.people import (
    CHEAP,
    MASTERS,
    PASSWORD,
    code,
    database_url,
    fields,
    node,
)

__all__ = ["database_url"]  # the module's own fixture


async def test_registering_logs_in(database_url: str, redis_url: str) -> None:
    """The answer holds a token of 15 minutes, the session's action secret, and a refresh token for 30 days."""
    async with node(database_url, redis_url) as one:
        given = await one.register("Ada", avatar_url="https://example.org/ada.png")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        assert str(identity.user) == given.userId
        assert given.expiresIn == 900
        assert given.actionKeyVersion == 2
        assert given.actionSecret == action_secret(MASTERS[2], identity.user, identity.sid)
        assert identity.secrets[2] == given.actionSecret.encode()
        left = datetime.fromisoformat(given.actionSecretExpiresAt) - datetime.now(UTC)
        assert timedelta(days=29, hours=23) < left <= timedelta(days=30, minutes=1)
        claims = jwt.decode(given.accessToken, options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == 900
        profile = await one.accounts.profile(identity)
        assert not isinstance(profile, Refusal)
        assert (profile.username, profile.email, profile.avatar_url) == (
            "Ada",
            "ada@example.org",
            "https://example.org/ada.png",
        )


async def test_nothing_secret_is_stored_in_the_clear(database_url: str, redis_url: str) -> None:
    """Of the password there is an argon2id hash, of the refresh token a SHA-256, of the action secret nothing."""
    async with node(database_url, redis_url) as one:
        given = await one.register()
        rows = [*await one.stores.fetch("SELECT * FROM credentials"), *await one.stores.fetch("SELECT * FROM sessions")]
        stored = " ".join(
            str(value.hex() if isinstance(value, bytes) else value) for row in rows for value in row.values()
        )
        raw = base64.urlsafe_b64decode(given.refreshToken + "==")
        for secret in (
            PASSWORD,
            given.refreshToken,
            raw.hex(),
            raw[16:48].hex(),
            given.actionSecret,
            given.accessToken,
        ):
            assert secret not in stored
        assert "$argon2id$" in stored
        assert hashlib.sha256(given.refreshToken.encode()).hexdigest() in stored


async def test_what_is_taken_is_named(database_url: str, redis_url: str) -> None:
    """409 names the field; names and addresses are compared without case."""
    async with node(database_url, redis_url) as one:
        await one.register("Ada")
        for username, email, field in [
            ("Ada", "other@example.org", "username"),
            ("aDA", "other@example.org", "username"),
            ("Other", "ada@example.org", "email"),
            ("Other", "ADA@example.org", "email"),
        ]:
            outcome = await one.accounts.register(username, email, PASSWORD, None)
            assert (code(outcome), fields(outcome)) == (Code.CONFLICT, {field})


async def test_a_registration_that_breaks_rules_names_all_fields(database_url: str, redis_url: str) -> None:
    """400 names each bad field, and no user is created."""
    async with node(database_url, redis_url) as one:
        outcome = await one.accounts.register("a@b", "nowhere", "short", "http://example.org/a.png")
        assert (code(outcome), fields(outcome)) == (
            Code.INVALID_REQUEST,
            {"username", "email", "password", "avatarUrl"},
        )
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 0


@pytest.mark.parametrize(
    "password", ["1234567890", "Password123", "LovelaceAda", "LOVELACE1815", "lovelace1815@Example.org"]
)
async def test_passwords_that_are_tried_first_are_refused(database_url: str, redis_url: str, password: str) -> None:
    """The most used ones, the name, the address and what is before its @: for a registration and for the command line,
    not for a log-in."""
    async with node(database_url, redis_url) as one:
        for create in (one.accounts.register, one.accounts.create):
            outcome = await create("LovelaceAda", "lovelace1815@example.org", password, None)
            assert (code(outcome), fields(outcome)) == (Code.INVALID_REQUEST, {"password"})
        await one.register("LovelaceAda", email="lovelace1815@example.org")
        await one.stores.execute("UPDATE credentials SET password_hash = $1", CHEAP.hash(password))
        assert isinstance(await one.accounts.log_in("LovelaceAda", password), LoggedIn)


async def test_people_may_be_called_what_they_are_called(database_url: str, redis_url: str) -> None:
    """Names of any script, with spaces, joined emoji and marks, are stored as they are."""
    async with node(database_url, redis_url) as one:
        for number, name in enumerate(["x" * 50, "李小龍", "Ж_ж", "👩\u200d👩\u200d👧 fam", "O'Neil <b>", "a b c"]):
            assert (await one.register(name, email=f"{number}@example.org")).username == name


async def test_registration_can_be_closed(database_url: str, redis_url: str) -> None:
    """Then only the command line creates users."""
    async with node(database_url, redis_url, registration=False) as one:
        assert code(await one.accounts.register("Ada", "ada@example.org", PASSWORD, None)) is Code.FORBIDDEN
        assert not isinstance(await one.accounts.create("Ada", "ada@example.org", PASSWORD, None), Refusal)


async def test_a_user_who_is_deleted_while_registering_has_no_session(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the user's row and the session's: the answer is 401, and no session is left."""
    create = users.create

    async def create_and_delete(
        stores: Stores, username: str, email: str, avatar_url: str | None, password_hash: str
    ) -> UUID | Refusal:
        created = await create(stores, username, email, avatar_url, password_hash)
        assert isinstance(created, UUID)
        await users.delete(stores, created, OPERATOR)
        return created

    monkeypatch.setattr(users, "create", create_and_delete)
    async with node(database_url, redis_url) as one:
        assert await one.accounts.register("Ada", "ada@example.org", PASSWORD, None) == USER_DELETED
        assert await one.stores.fetchval("SELECT count(*) FROM sessions") == 0
