"""Accounts: the use cases of `/auth`, `/users` and `scoreboard users …`, one method each.

Each method calls a use case with the parts of this node that it needs, and returns its result or a Refusal. The use
cases have a file each: register, log_in, refresh_session, change_password, change_profile. Every method that awaits may
raise StorageUnavailable. Tested with the use cases: tests/operations/test_log_in.py and those beside it.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

import trio

from scoreboard.domain import account_rules, skeletons
from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.errors import FieldError, Refusal
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.change_password import change_password, set_password
from scoreboard.operations.change_profile import change_profile
from scoreboard.operations.guests import NO_GUESTS, GuestLoggedIn, link_guest, log_in_guest
from scoreboard.operations.log_in import log_in
from scoreboard.operations.login_admission import THIS_PROCESS, Client, LoginAdmission
from scoreboard.operations.login_limits import LoginLimits
from scoreboard.operations.password_rules import invalid
from scoreboard.operations.personal_data import erase, write_export
from scoreboard.operations.refresh_session import refresh_session
from scoreboard.operations.register import REGISTRATION_CLOSED, Created, create_user, register
from scoreboard.operations.server_users import open_session, put_user
from scoreboard.operations.sessions import LoggedIn, Sessions
from scoreboard.security import passwords
from scoreboard.storage.postgres import credentials, personal_data, users
from scoreboard.storage.postgres import sessions as session_store
from scoreboard.storage.postgres.identities import IdentifiedUser
from scoreboard.storage.postgres.personal_data import LoggedAction, Place
from scoreboard.storage.postgres.sessions import LiveSession
from scoreboard.storage.postgres.users import Profile
from scoreboard.storage.profiles import Profiles


class Accounts:
    """The accounts of one installation, as one node serves them."""

    def __init__(
        self,
        sessions: Sessions,
        limits: LoginLimits,
        profiles: Profiles,
        *,
        registration: bool = True,
        guests: bool = False,
        own_host: str = "",
        profile_changes_per_hour: int = 0,
        steady_clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """`registration`: whether anybody may register. `guests`: whether anybody may play without an account.
        `own_host`: a picture's address must not have this host.
        `profile_changes_per_hour`: for each user, on all nodes together; 0: no limit. `steady_clock` returns seconds
        that never go back."""
        self.sessions, self.admission = sessions, LoginAdmission(limits, steady_clock)
        self._profiles = profiles
        self._registration, self._guests, self._own_host = registration, guests, own_host
        self._profile_changes_per_hour = profile_changes_per_hour
        skeletons.table()  # loaded now, not within a request
        # one thread of its own, so that an import of thousands does not delay log-ins
        self._provisioning = trio.CapacityLimiter(1)

    # ---- sessions ---------------------------------------------------------------------------------------------------

    async def register(
        self, username: str, email: str, password: str, avatar_url: str | None, client: Client = THIS_PROCESS
    ) -> LoggedIn | Refusal:
        """Creates a user and logs in. Cancelling may leave the user without a session."""
        if not self._registration:
            return REGISTRATION_CLOSED
        return await register(
            self.sessions, self.admission, username, email, password, avatar_url, client, own_host=self._own_host
        )

    async def log_in(self, name: str, password: str, client: Client = THIS_PROCESS) -> LoggedIn | Refusal:
        """Opens a session if the password is right. `name`: the user's name or e-mail address."""
        return await log_in(self.sessions, self.admission, name, password, client)

    async def log_in_guest(
        self, device_key: str | None, username: str | None, client: Client = THIS_PROCESS
    ) -> GuestLoggedIn | Refusal:
        """Opens a session for the guest of this device key, who is created at first sight. Without a key a new one is
        made, and returned this once."""
        if not self._guests:
            return NO_GUESTS
        return await log_in_guest(self.sessions, self.admission, device_key, username, client)

    async def link_guest(
        self, identity: Identity, username: str | None, email: str, password: str, client: Client = THIS_PROCESS
    ) -> LoggedIn | Refusal:
        """Makes an account of a guest, and opens its first session. All earlier ones end."""
        return await link_guest(
            self.sessions, self.admission, self._profiles, identity, username, email, password, client
        )

    async def refresh_session(self, *presented: str, user: UUID | None = None) -> LoggedIn | Refusal:
        """Exchanges a refresh token for a new pair of tokens. `user`: if several are presented, only this user's
        count."""
        return await refresh_session(self.sessions, presented, user)

    async def log_out(self, identity: Identity) -> None:
        """Ends the session. Its refresh token and access tokens are invalid on this node at once, and on others within
        two seconds."""
        await self.sessions.revoke(identity.sid)

    async def live_sessions(self, identity: Identity, after: UUID | None, size: int) -> list[LiveSession]:
        """The next `size` of the user's sessions that have not ended, the newest first."""
        return await session_store.live(self.sessions.stores, identity.user, after, size)

    async def end_session(self, identity: Identity, sid: UUID) -> bool:
        """Ends one of the user's sessions. False: the user has no such session, whoever else may have it."""
        if not await session_store.revoke_own(self.sessions.stores, sid, identity.user):
            return False
        await self.sessions.note_ended([sid])
        return True

    async def end_sessions(self, identity: Identity, *, keep_current: bool) -> None:
        """Ends all sessions of the user, or all but this one: on this node at once, on others within two seconds."""
        keep = identity.sid if keep_current else None
        await self.sessions.note_ended(await session_store.revoke_all(self.sessions.stores, identity.user, keep))

    def device_cookie(self, logged_in: LoggedIn) -> str:
        """A device cookie for the browser that has just logged in. With it the browser is known at the next log-in."""
        return self.sessions.device_cookie(logged_in)

    # ---- a user's own account ---------------------------------------------------------------------------------------

    async def profile(self, identity: Identity) -> Profile | Refusal:
        """The user's own profile."""
        return await users.profile(self.sessions.stores, identity.user) or USER_DELETED

    async def change_profile(
        self,
        identity: Identity,
        *,
        username: str | None = None,
        avatar_url: str | None = None,
        set_avatar: bool = False,
    ) -> Profile | Refusal:
        """Changes the name unless it is None, and the picture if `set_avatar` (None removes it)."""
        limit = self._profile_changes_per_hour
        return await self._change_profile(identity.user, username, avatar_url, set_avatar=set_avatar, per_hour=limit)

    async def change_password(
        self, identity: Identity, current: str, new: str, client: Client = THIS_PROCESS
    ) -> Refusal | None:
        """Changes the password if the current one is right. All other sessions of the user end."""
        return await change_password(self.sessions, self.admission, identity, current, new, client)

    async def history(self, identity: Identity, after: Place, size: int) -> list[LoggedAction]:
        """The next `size` actions of the user, the newest first."""
        return await personal_data.history(self.sessions.stores, identity.user, after, size)

    async def export(self, identity: Identity, now_ms: int, write: Callable[[bytes], Awaitable[None]]) -> bool:
        """Writes all that is stored about the user, piece by piece. False: there is no such user."""
        return await write_export(self.sessions.stores, identity.user, now_ms, write)

    async def erase(self, identity: Identity, password: str | None, client: Client = THIS_PROCESS) -> Refusal | None:
        """Deletes the user for good, at the user's own wish."""
        return await erase(self.sessions, self.admission, identity, password, client)

    # ---- for game servers -------------------------------------------------------------------------------------------

    async def put_server_user(
        self, external_id: str, *, username: str | None, avatar_url: str | None, set_avatar: bool
    ) -> IdentifiedUser | Refusal:
        """Makes the user of an external id, or changes the name unless it is None, and the picture if `set_avatar`."""
        picture = None if avatar_url is None else account_rules.avatar_url(avatar_url, self._own_host)
        if isinstance(picture, FieldError):
            return invalid([picture])

        async def change(user: UUID, name: str | None) -> Profile | Refusal:
            return await self._change_profile(user, name, picture, set_avatar=set_avatar, per_hour=None)

        return await put_user(self.sessions, external_id, username, picture, change)

    async def open_server_session(self, user: UUID | None, external_id: str | None) -> LoggedIn | Refusal:
        """Opens a session for the user with that id, or else with that external id."""
        return await open_session(self.sessions, user, external_id)

    # ---- for the operator, from the command line ---------------------------------------------------------------------

    async def create(self, username: str, email: str, password: str, avatar_url: str | None) -> Created | Refusal:
        """Creates a user, also when registration is closed. Uses no place of the hashing queue."""
        return await create_user(
            self.sessions.stores,
            username,
            email,
            password,
            avatar_url,
            self._hash_in_background,
            own_host=self._own_host,
        )

    async def set_password(self, user: Profile, password: str) -> int | Refusal:
        """Sets the user's password, and ends all sessions. Returns how many have ended. Uses no place of the hashing
        queue."""
        return await set_password(self.sessions, user, password, self._hash_in_background)

    async def rename(self, user: Profile, username: str) -> Profile | Refusal:
        """Changes the name, without the limits of `change_profile`."""
        return await self._change_profile(user.user, username, None, set_avatar=False, per_hour=None)

    async def delete(self, user: Profile) -> bool:
        """Ends the user's sessions, and deletes all data of the user. False when there is no such user any more.

        The password is removed first, together with the sessions. So no log-in opens a session while a long history is
        deleted. When it is interrupted in between, the user has no password, and a second call deletes the rest.
        """
        stores = self.sessions.stores
        await self.sessions.note_ended(await credentials.remove(stores, user.user))
        return await users.delete(stores, user.user, OPERATOR)

    # ---- shared -----------------------------------------------------------------------------------------------------

    async def _change_profile(
        self, user: UUID, username: str | None, avatar_url: str | None, *, set_avatar: bool, per_hour: int | None
    ) -> Profile | Refusal:
        return await change_profile(
            self.sessions.stores,
            self._profiles,
            user,
            username,
            avatar_url,
            set_avatar=set_avatar,
            own_host=self._own_host,
            per_hour=per_hour,
        )

    async def _hash_in_background(self, secret: str) -> str:
        return await trio.to_thread.run_sync(passwords.hash_password, secret, limiter=self._provisioning)
