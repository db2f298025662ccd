"""Users of a game's own server: made and changed by their external id, and logged in by a server key.

The caller has verified the key and its scope. Every function may raise StorageUnavailable.

Tested in tests/web/routes/test_server.py.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.identities import SERVER, ExternalIdentity
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.domain.sessions import SERVER_CLIENT
from scoreboard.operations.identified_users import find_or_create
from scoreboard.operations.sessions import LoggedIn, Sessions
from scoreboard.operations.submit_bulk import NO_SUCH_USER
from scoreboard.storage.postgres import identities, staff, users
from scoreboard.storage.postgres.identities import IdentifiedUser
from scoreboard.storage.postgres.users import Profile

MAX_TRIES = 2  # a user who is deleted between two steps is made anew

NO_SESSION_FOR_STAFF = Refusal(Code.FORBIDDEN, "This user has a role, so no server key opens a session.")

ChangeProfile = Callable[[UUID, str | None], Awaitable[Profile | Refusal]]
"""Changes the name of a user, unless it is None, and the picture as the caller wants it."""


async def put_user(
    sessions: Sessions, external_id: str, username: str | None, avatar_url: str | None, change_profile: ChangeProfile
) -> IdentifiedUser | Refusal:
    """The user of this external id, made if there is none, with that name as far as it is free. Idempotent; two calls
    at once give one user.

    A name that is taken, or that the rules refuse, is no failure: a new user gets another one like it, and a user who
    is there keeps the present one. The result has the name that the user has now. `avatar_url` has passed the rules; it
    is for a new user, and `change_profile` sets it for a user who is there. After a cancellation the user may be there,
    changed or not.
    """
    identity, user = ExternalIdentity(SERVER, external_id), None
    for _ in range(MAX_TRIES):
        user = await find_or_create(sessions.stores, identity, username, avatar_url)
        if isinstance(user, Refusal) or user.is_new:
            return user
        changed = await change_profile(user.user, username)
        if isinstance(changed, Refusal) and changed is not USER_DELETED and username is not None:
            changed = await change_profile(user.user, None)
        if isinstance(changed, Profile):
            return IdentifiedUser(user.user, changed.username)
        if changed is not USER_DELETED:
            return changed
    return NO_SUCH_USER


async def open_session(sessions: Sessions, user: UUID | None, external_id: str | None) -> LoggedIn | Refusal:
    """A session for the user with that id, or else with that external id. Nobody is made.

    Users with a role are refused: a key of a game's server must not become a moderator.
    """
    stores = sessions.stores
    if user is None:
        found = await identities.find(stores, ExternalIdentity(SERVER, external_id or ""))
        name = None if found is None else found.username
        user = None if found is None else found.user
    else:
        profile = await users.profile(stores, user)
        name = None if profile is None else profile.username
    if user is None or name is None:
        return NO_SUCH_USER
    if await staff.role_of(stores, user) is not None:
        return NO_SESSION_FOR_STAFF
    return await sessions.open_identified(user, name, SERVER_CLIENT) or NO_SUCH_USER
