"""Change a password: by the user, who gives the current one, or by the operator. Sessions end with it."""

from collections.abc import Awaitable, Callable

from scoreboard.domain.account_rules import MAX_PASSWORD_LENGTH
from scoreboard.domain.errors import Code, FieldError, LimitLayer, Refusal, rate_limited
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.login_admission import Client, LoginAdmission
from scoreboard.operations.password_rules import check_password, invalid
from scoreboard.operations.sessions import Sessions
from scoreboard.security import passwords
from scoreboard.storage.postgres import credentials, users
from scoreboard.storage.postgres.users import Profile

WRONG_CURRENT_PASSWORD = Refusal(
    Code.INVALID_REQUEST, "The current password is wrong.", (FieldError("currentPassword", "is not your password"),)
)


async def change_password(
    sessions: Sessions, admission: LoginAdmission, identity: Identity, current: str, new: str, client: Client
) -> Refusal | None:
    """Changes the password if the current one is right. All other sessions of the user end: on this node at once, on
    others within two seconds. Returns None, or the Refusal.

    A wrong current password counts like a wrong password at log-in. The new password is checked first; a bad one counts
    nothing. Raises StorageUnavailable.
    """
    stores, user = sessions.stores, identity.user
    profile = await users.profile(stores, user)
    if profile is None:
        return USER_DELETED
    secret = await check_password(new, profile.own_words, field="newPassword")
    if isinstance(secret, FieldError):
        return invalid([secret])
    with admission.admit(client) as admitted:
        if isinstance(admitted, Refusal):
            return admitted
        attempt, place = admitted
        if wait := attempt.count_account(user, None, admission.clock()):
            return rate_limited(LimitLayer.LOGIN, "Too many wrong passwords for this account.", wait)
        account = await users.by_id(stores, user)
        stored = account.password_hash if account else None
        if not await place.run(passwords.verify, stored, current[: MAX_PASSWORD_LENGTH + 1]):
            return WRONG_CURRENT_PASSWORD
        assert stored is not None  # `verify` is False without a hash
        hashed = await place.run(passwords.hash_password, secret)
        ended = await credentials.change(stores, user, stored, hashed, identity.sid)
        if ended is None:  # it was changed at the same moment
            return WRONG_CURRENT_PASSWORD
        attempt.succeed()
    await sessions.note_ended(ended)
    return None


async def set_password(
    sessions: Sessions, user: Profile, password: str, hash_password: Callable[[str], Awaitable[str]]
) -> int | Refusal:
    """Sets the user's password, and ends all sessions. Returns how many have ended. Raises StorageUnavailable."""
    secret = await check_password(password, user.own_words)
    if isinstance(secret, FieldError):
        return invalid([secret])
    ended = await credentials.replace(sessions.stores, user.user, await hash_password(secret))
    if ended is None:
        return USER_DELETED
    await sessions.note_ended(ended)
    return len(ended)
