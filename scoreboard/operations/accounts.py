"""Accounts: register, log in, refresh, log out, read and change a profile, change the password.

One method a route of `/auth` and `/users`; each returns what the client is told or a Refusal. Read `refresh` for how
stolen tokens are noticed, `login` for the order in which its limits are asked. Passwords are hashed in threads, two at
a time (hashing). Everything here may raise StorageUnavailable.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID, uuid4

import msgspec
import structlog
import trio

from scoreboard.domain import account_rules as profiles
from scoreboard.domain import email_addresses, names, skeletons
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Code, FieldError, Refusal, StorageUnavailable
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.domain.skeletons import fold_case
from scoreboard.operations.authenticator import Authenticator, Identity
from scoreboard.operations.hashing import HashingQueue, Place
from scoreboard.operations.login_limits import Attempt, LoginLimits
from scoreboard.security import device_cookies, passwords, refresh_tokens, tokens
from scoreboard.security.device_cookies import NONCE_BYTES
from scoreboard.security.refresh_tokens import VALUE_BYTES
from scoreboard.security.signatures import action_secret
from scoreboard.security.tokens import TokenKeys
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.postgres import credentials, sessions, users
from scoreboard.storage.postgres.sessions import Opened
from scoreboard.storage.postgres.users import Changed, Profile

REFRESH_DAYS = 30  # design: sessions live 30 days from their last use
COMPARED_TIMES = 2  # of a log-in: the hash may have been made anew by another log-in meanwhile
# ended sessions of one change that other nodes hear of at once; they read all of them within two seconds
PUBLISHED_AT_ONCE = 20
TOKENS_TRIED = 4  # refresh tokens of one request that are one user's, or lead to nobody: each costs a look-up or two

INVALID_CREDENTIALS = Refusal(Code.UNAUTHORIZED, "The user name or the password is wrong.")
SESSION_ENDED = Refusal(Code.UNAUTHORIZED, "This session has ended. Please log in again.")
WRONG_CURRENT = Refusal(
    Code.INVALID_REQUEST, "The current password is wrong.", (FieldError("currentPassword", "is not your password"),)
)
REGISTRATION_CLOSED = Refusal(Code.FORBIDDEN, "Registration is closed here.")
TOO_BUSY = Refusal(Code.SERVICE_UNAVAILABLE, "Too many people are logging in at the moment.", retry_after=2)

log = structlog.get_logger()


class LoggedIn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a log-in or a refresh gives, as clients read it. The web leaves the refresh token out for browsers: theirs
    is in a cookie."""

    userId: str
    username: str
    accessToken: str
    expiresIn: int  # seconds
    actionSecret: str
    actionKeyVersion: int
    actionSecretExpiresAt: str
    refreshToken: str = ""

    def __repr__(self) -> str:
        return f"LoggedIn({self.userId})"  # whatever prints it, the secrets stay


class Client(NamedTuple):
    """Who asks, as the web knows them: the address ("": this process), and the values of device cookies that came
    along."""

    address: str = ""
    devices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Client({self.address}, {len(self.devices)} device cookies)"


THIS_PROCESS = Client()


class Accounts:
    """The accounts of one installation, as one node serves them."""

    def __init__(
        self,
        stores: Stores,
        active: Authenticator,
        *,
        keys: TokenKeys,
        masters: Mapping[int, bytes],
        master: int,
        issuer: str,
        on_profile_change: Callable[[UUID, str, str | None], Awaitable[None]],
        publish_revoked: Callable[[UUID], Awaitable[None]],
        registration: bool = True,
        login_per_minute: int = 0,
        login_ip_per_minute: int | None = None,
        own_host: str = "",
        profile_changes_per_hour: int = 0,
        lifetime: int = tokens.LIFETIME,
        refresh_days: int = REFRESH_DAYS,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = trio.current_time,
    ) -> None:
        """`master`: the version of `masters` in use. `on_profile_change` brings a profile to the boards,
        `publish_revoked` tells others.

        The first never raises because Redis is away, the second may: what it carries is a hint, PostgreSQL has it.
        `login_per_minute`, `login_ip_per_minute`: of an account, of an address; see login_limits, 0 for no limit.
        `own_host`: no picture comes from there. `profile_changes_per_hour`: of a user, on all nodes together; 0 for no
        limit. `clock` gives Unix seconds, `steady` seconds that never go back.
        """
        self._stores, self._active = stores, active
        self._keys, self._masters, self._master, self._issuer = keys, masters, master, issuer
        self._on_profile_change, self._publish_revoked = on_profile_change, publish_revoked
        self._registration, self._lifetime, self._refresh_days, self._clock = (
            registration,
            lifetime,
            refresh_days,
            clock,
        )
        self._limits, self._steady = LoginLimits(login_per_minute, login_ip_per_minute), steady
        self._own_host, self._profile_changes_per_hour = own_host, profile_changes_per_hour
        skeletons.table()  # now, not within a request
        self._hashing = HashingQueue()
        # an import of thousands goes on beside those who log in, not before them
        self._provisioning = trio.CapacityLimiter(1)

    # ---- logging in -------------------------------------------------------------------------------------------------

    async def register(
        self, username: str, email: str, password: str, avatar_url: str | None, client: Client = THIS_PROCESS
    ) -> LoggedIn | Refusal:
        """A new user, logged in."""
        if not self._registration:
            return REGISTRATION_CLOSED
        with self._admit(client) as admitted:
            if isinstance(admitted, Refusal):
                return admitted
            _, place = admitted
            created = await self._create(
                username, email, password, avatar_url, partial(place.run, passwords.hash_password)
            )
            if isinstance(created, Refusal):
                return created
            logged_in = await self._log_in(*created)
            assert logged_in is not None
            return logged_in

    async def create(
        self, username: str, email: str, password: str, avatar_url: str | None
    ) -> tuple[UUID, str] | Refusal:
        """A new user, whether registration is open or not: the id, and the name as stored. Nobody who logs in waits for
        it."""
        return await self._create(username, email, password, avatar_url, self._hash_unhurried)

    async def _hash_unhurried(self, secret: str) -> str:
        return await trio.to_thread.run_sync(passwords.hash_password, secret, limiter=self._provisioning)

    async def _create(
        self,
        username: str,
        email: str,
        password: str,
        avatar_url: str | None,
        hash_password: Callable[[str], Awaitable[str]],
    ) -> tuple[UUID, str] | Refusal:
        name, address = profiles.username(username), profiles.email(email)
        secret = await self._password(password, [own for own in (name, address) if not isinstance(own, FieldError)])
        picture = None if avatar_url is None else profiles.avatar_url(avatar_url, self._own_host)
        if errors := [value for value in (name, address, secret, picture) if isinstance(value, FieldError)]:
            return invalid(errors)
        assert not isinstance(name, FieldError)
        assert not isinstance(address, FieldError)
        assert not isinstance(secret, FieldError)
        assert not isinstance(picture, FieldError)
        hashed = await hash_password(secret)
        user = await users.create(self._stores, name, address, picture, hashed)
        return user if isinstance(user, Refusal) else (user, name)

    async def login(self, name: str, password: str, client: Client = THIS_PROCESS) -> LoggedIn | Refusal:
        """A new session for whoever knows the password. That there is no such account shows neither in the answer nor
        in its time.

        1. The address has tries left, and there is a place in the hashing queue: decided at once, nothing is awaited
           before.
        2. The account is found. A device cookie counts only if it is of this account.
        3. The account has failures left for this network or browser; this one is counted until the password turns out
           to be right.
        4. The password is hashed and compared.
        5. The session is opened, unless the stored hash is another one by now: then it is compared again.
        """
        devices = self._devices(client)
        with self._admit(client, has_device=bool(devices)) as admitted:
            if isinstance(admitted, Refusal):
                return admitted
            attempt, place = admitted
            account = await users.find(self._stores, name)
            user = account.user if account else None
            device = next((device.nonce for device in devices if device.user == user), None)
            if not place.confirm(user if device else None):
                attempt.withdraw()
                return TOO_BUSY
            if devices:
                now = self._steady()
                if wait := attempt.count_browser(user, now) if user and device else attempt.count_address(now):
                    return _limited("Too many log-ins from this address.", wait)
            if wait := attempt.against(user or _stand_in(name), device, self._steady(), by_address="@" in name):
                return _limited("Too many log-ins to this account.", wait)
            for _ in range(COMPARED_TIMES):
                stored = account.password_hash if account else None
                if not await place.run(passwords.verify, stored, password[: profiles.PASSWORD_LONGEST + 1]):
                    return INVALID_CREDENTIALS
                assert account is not None
                assert stored is not None  # `verify` is False without a hash
                if passwords.is_outdated(stored):
                    hashed = await place.run(passwords.hash_password, password)
                    if await users.replace_hash(self._stores, account.user, stored, hashed):
                        stored = hashed
                if (logged_in := await self._log_in(account.user, account.username, stored)) is not None:
                    attempt.succeed()
                    return logged_in
                account = await users.by_id(self._stores, account.user)
            return INVALID_CREDENTIALS

    def device_cookie(self, logged_in: LoggedIn) -> str:
        """What the browser that has just logged in shows the next time, so that it is known."""
        return device_cookies.make(
            self._masters[self._master], UUID(logged_in.userId), secrets.token_bytes(NONCE_BYTES)
        )

    async def refresh(self, *presented: str, user: UUID | None = None) -> LoggedIn | Refusal:
        """Spends a refresh token for a new pair: of several, since a browser may have been given others, the first that
        is live.

        A sibling domain can plant cookies, a live token of its own account among them. So only tokens of `user` count,
        whom the page takes itself for; when it does not say so, tokens of different users log in nobody.

        The token spent last gives the same successor again for REFRESH_GRACE_SECONDS: two tabs, or a lost answer. Any
        other spent token of ours is somebody's copy, and whose copy is not known: the session ends for both. This is
        asked only when none is live.
        """
        found = [(token, sid) for token in presented if (sid := refresh_tokens.session_of(token)) is not None]
        if len(found) > 1:
            owners = await sessions.owners(self._stores, [(sid, refresh_tokens.digest(token)) for token, sid in found])
            places = [place for place, owner in owners.items() if user in {None, owner}]
            if len({owners[place] for place in places}) > 1:
                log.warning("refresh_tokens_of_several_users", users=sorted({str(owner) for owner in owners.values()}))
                return SESSION_ENDED
            found = [found[place] for place in sorted(places)] or found
        if len(found) > TOKENS_TRIED:  # those that we made come first; one of a retired master key does not show that
            found = sorted(found, key=lambda each: not refresh_tokens.is_ours(self._masters, each[0]))[:TOKENS_TRIED]
        for token, sid in found:
            following = refresh_tokens.successor(self._masters[self._master], token)
            next_sha256 = refresh_tokens.digest(following)
            opened = await sessions.rotate(
                self._stores, sid, refresh_tokens.digest(token), next_sha256, self._refresh_days, user
            )
            if opened is not None:
                return self._logged_in(opened, sid, following)
        for token, sid in found:
            outcome = await self._refresh_spent(token, sid, user)
            if isinstance(outcome, LoggedIn):
                return outcome
        return SESSION_ENDED

    async def _refresh_spent(self, token: str, sid: UUID, user: UUID | None) -> LoggedIn | Refusal:
        """The successor of a token that was spent just now; of one that was spent before, the end of its session,
        whoever's it is."""
        presented = refresh_tokens.digest(token)
        judged = await sessions.inspect_token(self._stores, sid, presented)
        # the last: not spent, but another user's
        if judged is None or not judged.live or judged.token_sha256 == presented:
            return SESSION_ENDED
        if judged.within_reuse_grace and user not in {None, judged.opened.user}:
            return SESSION_ENDED
        if judged.within_reuse_grace:
            for master in self._masters.values():  # a rotation of the master key may have happened in between
                following = refresh_tokens.successor(master, token)
                if refresh_tokens.digest(following) == judged.token_sha256:
                    return self._logged_in(judged.opened, sid, following)
        if refresh_tokens.is_ours(self._masters, token):
            log.warning("refresh_token_reused", user=str(judged.opened.user), sid=str(sid))
            await self._revoke(sid)
        return SESSION_ENDED

    async def logout(self, identity: Identity) -> None:
        """Ends the session: its refresh token, and every access token of it, here at once and elsewhere within two
        seconds."""
        await self._revoke(identity.sid)

    async def change_password(
        self, identity: Identity, current: str, new: str, client: Client = THIS_PROCESS
    ) -> Refusal | None:
        """Another password, for whoever knows the current one. All other sessions end, here at once, elsewhere within
        two seconds.

        A wrong current password counts as a wrong one at log-in does; what the new one breaks is told first, and counts
        for nothing.
        """
        account = await users.profile(self._stores, identity.user)
        if account is None:
            return USER_DELETED
        secret = await self._password(new, (account.username, account.email), field="newPassword")
        if isinstance(secret, FieldError):
            return invalid([secret])
        with self._admit(client) as admitted:
            if isinstance(admitted, Refusal):
                return admitted
            attempt, place = admitted
            if wait := attempt.against(identity.user, None, self._steady()):
                return _limited("Too many wrong passwords for this account.", wait)
            found = await users.by_id(self._stores, identity.user)
            stored = found.password_hash if found else None
            if not await place.run(passwords.verify, stored, current[: profiles.PASSWORD_LONGEST + 1]):
                return WRONG_CURRENT
            assert stored is not None  # `verify` is False without a hash
            hashed = await place.run(passwords.hash_password, secret)
            ended = await credentials.change(self._stores, identity.user, stored, hashed, identity.sid)
            if ended is None:  # it was changed at the same moment
                return WRONG_CURRENT
            attempt.succeed()
        await self.note_ended(ended)
        return None

    # ---- profiles ---------------------------------------------------------------------------------------------------

    async def profile(self, identity: Identity) -> Profile | Refusal:
        return await users.profile(self._stores, identity.user) or USER_DELETED

    async def change_profile(
        self,
        identity: Identity,
        *,
        username: str | None = None,
        avatar_url: str | None = None,
        set_avatar: bool = False,
    ) -> Profile | Refusal:
        """Changes the name unless it is None, and the picture if `set_avatar` (None removes it). Every board shows it
        within a second.

        What is the same as before is told to nobody, and counts for no limit.
        """
        limit = self._profile_changes_per_hour
        return await self._change_profile(identity.user, username, avatar_url, set_avatar=set_avatar, per_hour=limit)

    async def _change_profile(
        self, user: UUID, username: str | None, avatar_url: str | None, *, set_avatar: bool, per_hour: int | None
    ) -> Profile | Refusal:
        name = None if username is None else profiles.username(username)
        if username is not None and name != username:  # a name from before today's rules stays as it is
            present = await users.profile(self._stores, user)
            if present is not None and present.username == names.nfc(username):
                name = present.username
        picture = None if avatar_url is None else profiles.avatar_url(avatar_url, self._own_host)
        if errors := [value for value in (name, picture) if isinstance(value, FieldError)]:
            return invalid(errors)
        assert not isinstance(name, FieldError)
        assert not isinstance(picture, FieldError)
        changed = await users.change(self._stores, user, name, picture, set_avatar=set_avatar, per_hour=per_hour)
        if not isinstance(changed, Changed):
            return changed or USER_DELETED
        profile = changed.profile
        if changed.is_new:
            await self._on_profile_change(profile.user, profile.username, profile.avatar_url)
        return profile

    # ---- what only whoever runs the server may do --------------------------------------------------------------------

    async def set_password(self, user: Profile, password: str) -> int | Refusal:
        """Another password of the user, or a first one; how many sessions it has ended: all. Nobody who logs in waits
        for it."""
        secret = await self._password(password, (user.username, user.email))
        if isinstance(secret, FieldError):
            return invalid([secret])
        ended = await credentials.replace(self._stores, user.user, await self._hash_unhurried(secret))
        if ended is None:
            return USER_DELETED
        await self.note_ended(ended)
        return len(ended)

    async def rename(self, user: Profile, username: str) -> Profile | Refusal:
        """As `change_profile`, however often the user's profile was changed, and whatever names the user has given
        up."""
        return await self._change_profile(user.user, username, None, set_avatar=False, per_hour=None)

    async def delete(self, user: Profile) -> bool:
        """Ends the user's sessions, and deletes all that there is of the user; False when there is no such user any
        more.

        The password goes with the sessions, before the rest: no log-in opens another one while a long history is
        deleted. Interrupted in between, the user is left without a password, and the same call again goes on.
        """
        await self.note_ended(await credentials.remove(self._stores, user.user))
        return await users.delete(self._stores, user.user)

    # ---- steps ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _admit(self, client: Client, *, has_device: bool = False) -> Iterator[tuple[Attempt, Place] | Refusal]:
        """A try and a place in the hashing queue, both taken in this step; or what is lacking, and neither is taken."""
        attempt = self._limits.begin(client.address, self._steady(), has_device=has_device)
        if isinstance(attempt, int):
            yield _limited("Too many log-ins from this address.", attempt)
            return
        place = self._hashing.reserve(known=has_device)
        if place is None:
            attempt.withdraw()
            yield TOO_BUSY
            return
        with attempt, place:
            yield attempt, place

    def _devices(self, client: Client) -> list[device_cookies.Device]:
        """The device cookies that we made."""
        read = (device_cookies.read(self._masters, value) for value in client.devices)
        return [device for device in read if device is not None]

    async def _password(self, password: str, own: Iterable[str], *, field: str = "password") -> str | FieldError:
        """The rules for passwords. `own`: the user's name and e-mail address."""
        own = [name for one in own for name in (one, one.partition("@")[0])]
        secret = profiles.password(password, own, field=field)
        if not isinstance(secret, FieldError) and await trio.to_thread.run_sync(passwords.is_common, secret):
            return FieldError(field, "must not be one of the most used passwords")
        return secret

    async def _log_in(self, user: UUID, username: str, password_hash: str | None = None) -> LoggedIn | None:
        """A new session; None when `password_hash` is given and no longer the user's."""
        sid = uuid4()
        token = refresh_tokens.make(self._masters[self._master], sid, secrets.token_bytes(VALUE_BYTES))
        digest = refresh_tokens.digest(token)
        expires_ms = await sessions.open_session(self._stores, sid, user, digest, self._refresh_days, password_hash)
        if expires_ms is None:
            return None
        return self._logged_in(Opened(user, username, expires_ms), sid, token)

    def _logged_in(self, opened: Opened, sid: UUID, refresh_token: str) -> LoggedIn:
        user, lifetime = opened.user, self._lifetime
        access = tokens.issue(
            self._keys, issuer=self._issuer, user=user, sid=sid, jti=uuid4().hex, now=self._clock(), lifetime=lifetime
        )
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
        await self.note_ended([sid])

    async def note_ended(self, sids: Sequence[UUID]) -> None:
        """Sessions that PostgreSQL has as ended: this node takes no token of them from now on, and the others are
        told."""
        for sid in sids:
            self._active.mark_revoked(sid)
        try:
            for sid in sids[:PUBLISHED_AT_ONCE]:
                await self._publish_revoked(sid)
        except StorageUnavailable as exc:
            log.warning("revocation_untold", error=str(exc))  # other nodes read it from PostgreSQL within two seconds


def invalid(errors: list[FieldError]) -> Refusal:
    """400 INVALID_REQUEST that names the fields."""
    return Refusal(Code.INVALID_REQUEST, "; ".join(f"{error.field} {error.message}" for error in errors), tuple(errors))


def _stand_in(name: str) -> UUID:
    """Under which wrong tries for a name that no account has are counted. It guards nothing.

    It folds as `users.find` does, so that the limits do not tell which names there are.
    """
    folded = email_addresses.fold(name) if email_addresses.is_address(name) else names.fold(name)
    return UUID(bytes=sha256(fold_case(folded).encode(errors="replace")).digest()[:16])


def _limited(what: str, seconds: int) -> Refusal:
    """429 of the layer "login"."""
    return Refusal(Code.RATE_LIMITED, f"{what} Next in {seconds} s.", retry_after=seconds, layer="login")
