"""Register: creates a user and logs in. `create_user`, which opens no session, is used by commands too."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple
from uuid import UUID

from scoreboard.domain import account_rules
from scoreboard.domain.errors import Code, FieldError, Refusal
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.drivers.stores import Stores
from scoreboard.operations.login_admission import Client, LoginAdmission
from scoreboard.operations.password_rules import check_password, invalid
from scoreboard.operations.sessions import LoggedIn, Sessions
from scoreboard.security import passwords
from scoreboard.storage.postgres import users

REGISTRATION_CLOSED = Refusal(Code.FORBIDDEN, "Registration is closed here.")


class Created(NamedTuple):
    """A new user, as stored."""

    user: UUID
    username: str
    password_hash: str

    def __repr__(self) -> str:
        return f"Created({self.user}, {self.username!r})"  # never the hash


async def register(
    sessions: Sessions,
    admission: LoginAdmission,
    username: str,
    email: str,
    password: str,
    avatar_url: str | None,
    client: Client,
    *,
    own_host: str,
) -> LoggedIn | Refusal:
    """Creates a user and opens a session. The session is opened only while the user still has this password."""
    with admission.admit(client) as admitted:
        if isinstance(admitted, Refusal):
            return admitted
        _, place = admitted
        hash_password = partial(place.run, passwords.hash_password)
        created = await create_user(
            sessions.stores, username, email, password, avatar_url, hash_password, own_host=own_host
        )
        if isinstance(created, Refusal):
            return created
        return await sessions.open(created.user, created.username, created.password_hash, client.agent) or USER_DELETED


async def create_user(
    stores: Stores,
    username: str,
    email: str,
    password: str,
    avatar_url: str | None,
    hash_password: Callable[[str], Awaitable[str]],
    *,
    own_host: str,
) -> Created | Refusal:
    """Creates a user, without a session. `own_host`: a picture's address must not have this host."""
    name, address = account_rules.username(username), account_rules.email(email)
    own_words = [own for own in (name, address) if not isinstance(own, FieldError)]
    secret = await check_password(password, own_words)
    picture = None if avatar_url is None else account_rules.avatar_url(avatar_url, own_host)
    if errors := [value for value in (name, address, secret, picture) if isinstance(value, FieldError)]:
        return invalid(errors)
    assert not isinstance(name, FieldError)
    assert not isinstance(address, FieldError)
    assert not isinstance(secret, FieldError)
    assert not isinstance(picture, FieldError)
    password_hash = await hash_password(secret)
    user = await users.create(stores, name, address, picture, password_hash)
    return user if isinstance(user, Refusal) else Created(user, name, password_hash)
