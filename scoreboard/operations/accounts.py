"""Accounts: register, log in, refresh, log out, read and change a profile.

One method a route of `/auth` and `/users`; each returns what the client is told or a Refusal. Read `refresh` for how stolen tokens are
noticed. Passwords are hashed in threads, two at a time. Everything here may raise StorageUnavailable.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID, uuid4

import msgspec
import structlog
import trio

from scoreboard.domain import profiles, skeletons
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Code, FieldError, Refusal, StorageUnavailable
from scoreboard.domain.outcomes import GONE
from scoreboard.operations.sessions import Identity, Sessions
from scoreboard.security import passwords, refresh_tokens, tokens
from scoreboard.security.refresh_tokens import VALUE_BYTES
from scoreboard.security.signatures import action_secret
from scoreboard.security.tokens import TokenKeys
from scoreboard.storage import sessions, users
from scoreboard.storage.connections import Stores
from scoreboard.storage.sessions import Opened
from scoreboard.storage.users import Changed, Profile

REFRESH_DAYS = 30  # design: sessions live 30 days from their last use
HASHING = 2  # passwords hashed at once: each takes 64 MiB, and four threads of its own
WAITING = 64  # more than these in line, about a second of work: refused with 503

WRONG = Refusal(Code.UNAUTHORIZED, "The user name or the password is wrong.")
SPENT = Refusal(Code.UNAUTHORIZED, "This session has ended. Please log in again.")
CLOSED = Refusal(Code.FORBIDDEN, "Registration is closed here.")
BUSY = Refusal(Code.SERVICE_UNAVAILABLE, "Too many people are logging in at the moment.", retry_after=2)

log = structlog.get_logger()


class LoggedIn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a log-in or a refresh gives, as clients read it. The web leaves the refresh token out for browsers: theirs is in a cookie."""

    userId: str
    username: str
    accessToken: str
    expiresIn: int  # seconds
    actionSecret: str
    actionKeyVersion: int
    actionSecretExpiresAt: str
    refreshToken: str = ""


class Accounts:
    """The accounts of one installation, as one node serves them."""

    def __init__(
        self,
        stores: Stores,
        active: Sessions,
        *,
        keys: TokenKeys,
        masters: Mapping[int, bytes],
        master: int,
        issuer: str,
        on_profile_change: Callable[[UUID, str, str | None], Awaitable[None]],
        publish_revoked: Callable[[UUID], Awaitable[None]],
        registration: bool = True,
        own_host: str = "",
        profile_changes_per_hour: int = 0,
        lifetime: int = tokens.LIFETIME,
        refresh_days: int = REFRESH_DAYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`master`: the version of `masters` in use. `on_profile_change` brings a profile to the boards, `publish_revoked` tells others.

        The first never raises because Redis is away, the second may: what it carries is a hint, PostgreSQL has it. `own_host`: no picture
        comes from there. `profile_changes_per_hour`: of a user, on all nodes together; 0: no limit.
        """
        self._stores, self._active = stores, active
        self._keys, self._masters, self._master, self._issuer = keys, masters, master, issuer
        self._on_profile_change, self._publish_revoked = on_profile_change, publish_revoked
        self._registration, self._lifetime, self._refresh_days, self._clock = registration, lifetime, refresh_days, clock
        self._own_host, self._profile_changes_per_hour = own_host, profile_changes_per_hour
        skeletons.table()  # now, not within a request
        self._hashing = trio.CapacityLimiter(HASHING)
        self._provisioning = trio.CapacityLimiter(1)  # an import of thousands goes on beside those who log in, not before them

    # ---- logging in -------------------------------------------------------------------------------------------------

    async def register(self, username: str, email: str, password: str, avatar_url: str | None) -> LoggedIn | Refusal:
        """A new user, logged in."""
        if not self._registration:
            return CLOSED
        if self._is_busy():
            return BUSY
        created = await self._create(username, email, password, avatar_url, self._hashing)
        if isinstance(created, Refusal):
            return created
        user, name = created
        return await self._log_in(user, name)

    async def create(self, username: str, email: str, password: str, avatar_url: str | None) -> tuple[UUID, str] | Refusal:
        """A new user, whether registration is open or not: the id, and the name as stored. Nobody who logs in waits for it."""
        return await self._create(username, email, password, avatar_url, self._provisioning)

    async def _create(
        self, username: str, email: str, password: str, avatar_url: str | None, limiter: trio.CapacityLimiter
    ) -> tuple[UUID, str] | Refusal:
        name, address = profiles.username(username), profiles.email(email)
        own = [] if isinstance(name, FieldError) else [name]
        own += [] if isinstance(address, FieldError) else [address, address.partition("@")[0]]
        secret = profiles.password(password, own)
        picture = None if avatar_url is None else profiles.avatar_url(avatar_url, self._own_host)
        if not isinstance(secret, FieldError) and await trio.to_thread.run_sync(passwords.is_common, secret):
            secret = FieldError("password", "must not be one of the most used passwords")
        if errors := [value for value in (name, address, secret, picture) if isinstance(value, FieldError)]:
            return invalid(errors)
        assert not isinstance(name, FieldError)
        assert not isinstance(address, FieldError)
        assert not isinstance(secret, FieldError)
        assert not isinstance(picture, FieldError)
        hashed = await trio.to_thread.run_sync(passwords.hash_password, secret, limiter=limiter)
        user = await users.create(self._stores, name, address, picture, hashed)
        return user if isinstance(user, Refusal) else (user, name)

    async def login(self, name: str, password: str) -> LoggedIn | Refusal:
        """A new session for whoever knows the password. That there is no such account shows neither in the answer nor in its time."""
        if self._is_busy():
            return BUSY
        account = await users.find(self._stores, profiles.composed(name))
        stored = account.password_hash if account else None
        if not await trio.to_thread.run_sync(passwords.verify, stored, password[: profiles.PASSWORD_LONGEST + 1], limiter=self._hashing):
            return WRONG
        assert account is not None
        assert stored is not None  # `verify` is False without a hash
        if passwords.is_outdated(stored):
            hashed = await trio.to_thread.run_sync(passwords.hash_password, password, limiter=self._hashing)
            await users.replace_hash(self._stores, account.user, stored, hashed)
        return await self._log_in(account.user, account.username)

    async def refresh(self, token: str) -> LoggedIn | Refusal:
        """Spends a refresh token for a new pair.

        The token spent last gives the same successor again for ten seconds: two tabs, or an answer that was lost. Any other spent token of
        ours is somebody's copy, and whose copy is not known: the session ends for both.
        """
        sid = refresh_tokens.session_of(token)
        if sid is None:
            return SPENT
        presented, following = refresh_tokens.digest(token), refresh_tokens.successor(self._masters[self._master], token)
        opened = await sessions.rotate(self._stores, sid, presented, refresh_tokens.digest(following), self._refresh_days)
        if opened is not None:
            return self._logged_in(opened, sid, following)
        judged = await sessions.judge(self._stores, sid, presented)
        if judged is None or not judged.live:
            return SPENT
        if judged.just_spent:
            for master in self._masters.values():  # a rotation of the master key may have happened in these ten seconds
                following = refresh_tokens.successor(master, token)
                if refresh_tokens.digest(following) == judged.token_sha256:
                    return self._logged_in(judged.opened, sid, following)
        if refresh_tokens.is_ours(self._masters, token):
            log.warning("refresh_token_reused", user=str(judged.opened.user), sid=str(sid))
            await self._revoke(sid)
        return SPENT

    async def logout(self, identity: Identity) -> None:
        """Ends the session: its refresh token, and every access token of it, here at once and elsewhere within two seconds."""
        await self._revoke(identity.sid)

    # ---- profiles ---------------------------------------------------------------------------------------------------

    async def profile(self, identity: Identity) -> Profile | Refusal:
        return await users.profile(self._stores, identity.user) or GONE

    async def change_profile(
        self, identity: Identity, *, username: str | None = None, avatar_url: str | None = None, set_avatar: bool = False
    ) -> Profile | Refusal:
        """Changes the name unless it is None, and the picture if `set_avatar` (None removes it). Every board shows it within a second.

        What is the same as before is told to nobody, and counts for no limit.
        """
        name = None if username is None else profiles.username(username)
        picture = None if avatar_url is None else profiles.avatar_url(avatar_url, self._own_host)
        if errors := [value for value in (name, picture) if isinstance(value, FieldError)]:
            return invalid(errors)
        assert not isinstance(name, FieldError)
        assert not isinstance(picture, FieldError)
        limit = self._profile_changes_per_hour
        changed = await users.change(self._stores, identity.user, name, picture, set_avatar=set_avatar, per_hour=limit)
        if not isinstance(changed, Changed):
            return changed or GONE
        profile = changed.profile
        if changed.is_new:
            await self._on_profile_change(profile.user, profile.username, profile.avatar_url)
        return profile

    # ---- steps ------------------------------------------------------------------------------------------------------

    async def _log_in(self, user: UUID, username: str) -> LoggedIn:
        sid = uuid4()
        token = refresh_tokens.make(self._masters[self._master], sid, secrets.token_bytes(VALUE_BYTES))
        expires_ms = await sessions.open_session(self._stores, sid, user, refresh_tokens.digest(token), self._refresh_days)
        return self._logged_in(Opened(user, username, expires_ms), sid, token)

    def _logged_in(self, opened: Opened, sid: UUID, refresh_token: str) -> LoggedIn:
        user, lifetime = opened.user, self._lifetime
        access = tokens.issue(self._keys, issuer=self._issuer, user=user, sid=sid, jti=uuid4().hex, now=self._clock(), lifetime=lifetime)
        return LoggedIn(
            userId=str(user),
            username=opened.username,
            accessToken=access,
            expiresIn=lifetime,
            actionSecret=action_secret(self._masters[self._master], user, sid),
            actionKeyVersion=self._master,
            actionSecretExpiresAt=rfc3339(opened.expires_ms),
            refreshToken=refresh_token,
        )

    async def _revoke(self, sid: UUID) -> None:
        await sessions.revoke(self._stores, sid)
        self._active.revoke_seen(sid)
        try:
            await self._publish_revoked(sid)
        except StorageUnavailable as exc:
            log.warning("revocation_untold", error=str(exc))  # other nodes read it from PostgreSQL within two seconds

    def _is_busy(self) -> bool:
        return self._hashing.statistics().tasks_waiting >= WAITING


def invalid(errors: list[FieldError]) -> Refusal:
    """400 INVALID_REQUEST that names the fields."""
    return Refusal(Code.INVALID_REQUEST, "; ".join(f"{error.field} {error.message}" for error in errors), tuple(errors))
