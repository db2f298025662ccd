"""Log in: opens a session if the password is right.

Neither the answer nor its time shows whether the account exists.

1. The address must have tries left, and there must be a place in the hashing queue. Both are decided synchronously.
2. The account is looked up. A device cookie counts only if it belongs to this account.
3. The account must have failures left for this network or browser. The try counts as a failure until the password is
   found to be right.
4. The password is hashed and compared.
5. The session is opened, unless the stored hash has changed meanwhile: then the password is compared again.
"""

from hashlib import sha256
from uuid import UUID

from scoreboard.domain import email_addresses, names
from scoreboard.domain.account_rules import MAX_PASSWORD_LENGTH
from scoreboard.domain.errors import Code, LimitLayer, Refusal, rate_limited
from scoreboard.domain.skeletons import fold_case
from scoreboard.drivers.stores import Stores
from scoreboard.operations.hashing import Place
from scoreboard.operations.login_admission import TOO_BUSY, Client, LoginAdmission
from scoreboard.operations.login_limits import Attempt
from scoreboard.operations.sessions import LoggedIn, Sessions
from scoreboard.security import passwords
from scoreboard.storage.postgres import users
from scoreboard.storage.postgres.users import Account

MAX_COMPARISONS = 2  # of one log-in: another log-in may have replaced the hash meanwhile

INVALID_CREDENTIALS = Refusal(Code.UNAUTHORIZED, "The user name or the password is wrong.")


async def log_in(
    sessions: Sessions, admission: LoginAdmission, name: str, password: str, client: Client
) -> LoggedIn | Refusal:
    """Opens a session, or returns the Refusal. `name`: the user's name or e-mail address.

    Raises StorageUnavailable. A try that raises or is cancelled is not counted.
    """
    read = (sessions.issuer.read_device_cookie(value) for value in client.devices)
    devices = [device for device in read if device is not None]
    with admission.admit(client, has_device=bool(devices)) as admitted:
        if isinstance(admitted, Refusal):
            return admitted
        attempt, place = admitted
        account = await users.find(sessions.stores, name)
        user = account.user if account else None
        browser = next((device.nonce for device in devices if device.user == user), None)
        if not place.confirm(user if browser else None):
            attempt.withdraw()
            return TOO_BUSY
        if devices:
            now = admission.clock()
            if wait := attempt.count_browser(user, now) if user and browser else attempt.count_address(now):
                return rate_limited(LimitLayer.LOGIN, "Too many log-ins from this address.", wait)
        counted = user or _stand_in(name)
        if wait := attempt.count_account(counted, browser, admission.clock(), by_address="@" in name):
            return rate_limited(LimitLayer.LOGIN, "Too many log-ins to this account.", wait)
        return await _compare_and_open(sessions, attempt, place, account, password, client.agent)


async def _compare_and_open(
    sessions: Sessions, attempt: Attempt, place: Place, account: Account | None, password: str, agent: str
) -> LoggedIn | Refusal:
    """Steps 4 and 5."""
    for _ in range(MAX_COMPARISONS):
        stored = account.password_hash if account else None
        if not await place.run(passwords.verify, stored, password[: MAX_PASSWORD_LENGTH + 1]):
            return INVALID_CREDENTIALS
        assert account is not None
        assert stored is not None  # `verify` is False without a hash
        stored = await _renew_hash(sessions.stores, place, account.user, stored, password)
        if (logged_in := await sessions.open(account.user, account.username, stored, agent)) is not None:
            attempt.succeed()
            return logged_in
        account = await users.by_id(sessions.stores, account.user)
    return INVALID_CREDENTIALS


async def _renew_hash(stores: Stores, place: Place, user: UUID, stored: str, password: str) -> str:
    """The stored hash; first replaced by a new one if it was made with other parameters than today's."""
    if passwords.is_outdated(stored):
        renewed = await place.run(passwords.hash_password, password)
        if await users.replace_hash(stores, user, stored, renewed):
            return renewed
    return stored


def _stand_in(name: str) -> UUID:
    """An id under which tries for a name without an account are counted.

    It folds the name as `users.find` does, so that the limits do not show which names exist.
    """
    folded = email_addresses.fold(name) if email_addresses.is_address(name) else names.fold(name)
    return UUID(bytes=sha256(fold_case(folded).encode(errors="replace")).digest()[:16])
