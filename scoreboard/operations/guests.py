"""Guests: they play without an account, and may become one.

A guest is known by a device key, which the client keeps. It is a secret like a password, but random: it is stored as
SHA-256, looked up by that hash, and never logged. No password is hashed, so a guest's log-in needs no place in the
queue; the limits of log-ins hold all the same, and new guests of an address have one of their own.

A guest who becomes an account keeps the user, and with it score, rank and history. All sessions of the guest end with
it, also the one that asked: whoever planted a device key or a session in somebody's browser (session fixation) would
be in the account otherwise. From then on the device key opens no session.

Tested in tests/operations/test_guests.py, and over HTTP in tests/web/routes/test_guests.py.
"""

import secrets
from uuid import UUID

from scoreboard.domain import account_rules
from scoreboard.domain.errors import Code, FieldError, LimitLayer, Refusal, rate_limited
from scoreboard.domain.identities import ExternalIdentity, device_identity
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.identified_users import find_or_create
from scoreboard.operations.login_admission import Client, LoginAdmission
from scoreboard.operations.login_limits import Attempt
from scoreboard.operations.password_rules import check_password, invalid
from scoreboard.operations.sessions import LoggedIn, Sessions
from scoreboard.security import passwords
from scoreboard.storage.postgres import identities, linking, users
from scoreboard.storage.postgres.identities import IdentifiedUser
from scoreboard.storage.postgres.linking import NOT_A_GUEST
from scoreboard.storage.profiles import Profiles

DEVICE_KEY_BYTES = 32  # of a key that the server makes: 43 characters, 256 random bits

NO_GUESTS = Refusal(Code.FORBIDDEN, "This server has no guests. Please log in or create an account.")
KEY_REFUSED = Refusal(
    Code.UNAUTHORIZED, "This device key opens no session any more: its guest has an account now. Please log in to it."
)


class GuestLoggedIn(LoggedIn, frozen=True, omit_defaults=True):
    """A guest's log-in. `deviceKey` only when the server has made it."""

    deviceKey: str = ""

    def __repr__(self) -> str:
        return f"GuestLoggedIn({self.userId})"  # never the secrets, whatever prints it


async def log_in_guest(
    sessions: Sessions, admission: LoginAdmission, device_key: str | None, username: str | None, client: Client
) -> GuestLoggedIn | Refusal:
    """Opens a session for the guest of the key. `username`: for a guest who is new; one that is taken gets a number.

    Raises StorageUnavailable; then, and when it is cancelled, the guest may be there, and the same key leads to it.
    """
    made = secrets.token_urlsafe(DEVICE_KEY_BYTES) if device_key is None else ""
    identity = device_identity(device_key or made)
    name = None if username is None else account_rules.username(username)
    if errors := [value for value in (identity, name) if isinstance(value, FieldError)]:
        return invalid(errors)
    assert not isinstance(identity, FieldError)
    assert not isinstance(name, FieldError)
    attempt = admission.limits.begin(client.address, admission.clock())
    if isinstance(attempt, int):
        return rate_limited(LimitLayer.LOGIN, "Too many log-ins from this address.", attempt)
    with attempt:
        guest = await _guest(sessions, admission, attempt, identity, name)
        if isinstance(guest, Refusal):
            return guest
        logged_in = await sessions.open_identified(guest.user, guest.username, client.agent, only_guest=True)
        if logged_in is None:
            return KEY_REFUSED
        attempt.succeed()
    return GuestLoggedIn(
        userId=logged_in.userId,
        username=logged_in.username,
        accessToken=logged_in.accessToken,
        expiresIn=logged_in.expiresIn,
        actionSecret=logged_in.actionSecret,
        actionKeyVersion=logged_in.actionKeyVersion,
        actionSecretExpiresAt=logged_in.actionSecretExpiresAt,
        refreshToken=logged_in.refreshToken,
        deviceKey=made,
    )


async def _guest(
    sessions: Sessions, admission: LoginAdmission, attempt: Attempt, identity: ExternalIdentity, name: str | None
) -> IdentifiedUser | Refusal:
    """The guest, within the limits of the device and of new guests."""
    stand_in = UUID(hex=identity.external_id[:32])  # tries of a device are counted as those of an account
    if wait := attempt.count_account(stand_in, None, admission.clock()):
        return rate_limited(LimitLayer.LOGIN, "Too many log-ins of this device.", wait)
    found = await identities.find(sessions.stores, identity)
    if found is not None:
        return found
    if wait := attempt.count_new_guest(admission.clock()):
        return rate_limited(LimitLayer.LOGIN, "Too many new guests from this address.", wait)
    return await find_or_create(sessions.stores, identity, name)


async def link_guest(
    sessions: Sessions,
    admission: LoginAdmission,
    profiles: Profiles,
    identity: Identity,
    username: str | None,
    email: str,
    password: str,
    client: Client,
) -> LoggedIn | Refusal:
    """Gives a guest an address and a password, and another name unless it is None. Opens a new session; all others end:
    on this node at once, on others within two seconds.

    Refused with 409 for whoever is no guest, and when name or address is taken: then nothing has changed. Raises
    StorageUnavailable. After a cancellation the account may be there; a log-in with the password tells.
    """
    profile = await users.profile(sessions.stores, identity.user)
    if profile is None:
        return USER_DELETED
    if profile.email is not None:  # before a hash is made
        return NOT_A_GUEST
    name = None if username is None else account_rules.username(username)
    address = account_rules.email(email)
    own = (name if isinstance(name, str) else profile.username, address)
    secret = await check_password(password, [word for word in own if isinstance(word, str)])
    if errors := [value for value in (name, address, secret) if isinstance(value, FieldError)]:
        return invalid(errors)
    assert not isinstance(name, FieldError)
    assert not isinstance(address, FieldError)
    assert not isinstance(secret, FieldError)
    with admission.admit(client) as admitted:
        if isinstance(admitted, Refusal):
            return admitted
        _, place = admitted
        password_hash = await place.run(passwords.hash_password, secret)
        linked = await linking.link(sessions.stores, identity.user, name, address, password_hash)
    if linked is None:
        return USER_DELETED
    if isinstance(linked, Refusal):
        return linked
    await sessions.note_ended(linked.ended)
    if linked.username != profile.username:
        await profiles.write_through(identity.user, linked.username, linked.avatar_url)
    return await sessions.open(identity.user, linked.username, password_hash, client.agent) or USER_DELETED
