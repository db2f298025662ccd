"""Server keys for the operator: make, rotate, revoke, list. Called by `scoreboard server-keys …`, and by no route.

A key is returned once, to be printed; nothing keeps it. Every function may raise StorageUnavailable.

Tested in tests/cli/test_server_keys.py.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.names import is_visible
from scoreboard.domain.scopes import Scope
from scoreboard.drivers.stores import Stores
from scoreboard.security.server_keys import ID_BYTES, SECRET_BYTES, digest, make_key
from scoreboard.storage.postgres import server_keys
from scoreboard.storage.postgres.server_keys import MAX_LIVE_KEYS, ListedKey

MAX_NAME_LENGTH = 80  # characters
MAX_OVERLAP_SECONDS = 30 * 24 * 3600.0  # for which a replaced secret may stay valid
MAX_EXPIRY_DAYS = 3650

BAD_NAME = Refusal(
    Code.INVALID_REQUEST,
    f"A key's name has 1 to {MAX_NAME_LENGTH} characters that can be printed, and shows something.",
)
NO_SCOPE = Refusal(Code.INVALID_REQUEST, f"A key needs a scope: {', '.join(Scope)}.")


class NewKey(NamedTuple):
    """A key to be shown once."""

    id: str
    key: str

    def __repr__(self) -> str:
        return f"NewKey({self.id})"  # never the key, whatever prints it


async def create_key(stores: Stores, name: str, scopes: Sequence[Scope], days: float | None = None) -> NewKey | Refusal:
    """Makes a key with these scopes. It expires after so many days; None: never."""
    if not (1 <= len(name) <= MAX_NAME_LENGTH and name.isprintable() and name == name.strip() and is_visible(name)):
        return BAD_NAME
    if not scopes:
        return NO_SCOPE
    key_id = secrets.token_hex(ID_BYTES)
    key = make_key(key_id, secrets.token_bytes(SECRET_BYTES))
    seconds = None if days is None else days * 24 * 3600
    wanted = [scope for scope in Scope if scope in scopes]
    if await server_keys.create(stores, key_id, name, wanted, digest(key), seconds, OPERATOR):
        return NewKey(key_id, key)
    if await server_keys.is_name_taken(stores, name):
        return Refusal(Code.CONFLICT, f"There is a key {name}: choose another name, or rotate that one.")
    return Refusal(Code.CONFLICT, f"There are {MAX_LIVE_KEYS} keys: revoke some that are not used.")


async def rotate_key(stores: Stores, named: str, overlap_seconds: float) -> NewKey | Refusal:
    """Gives the key of that id or name another secret. The old one stays valid for so many seconds."""
    key_id = await server_keys.find(stores, named)
    if key_id is None:
        return _no_such_key(named)
    key = make_key(key_id, secrets.token_bytes(SECRET_BYTES))
    is_done = await server_keys.rotate(stores, key_id, digest(key), overlap_seconds, OPERATOR)
    return NewKey(key_id, key) if is_done else _no_such_key(named)


async def revoke_key(stores: Stores, named: str) -> str | Refusal:
    """Ends the key of that id or name for good. Returns its id."""
    key_id = await server_keys.find(stores, named)
    if key_id is None or not await server_keys.revoke(stores, key_id, OPERATOR):
        return _no_such_key(named)
    return key_id


async def list_keys(stores: Stores, *, revoked: bool = False) -> AsyncIterator[ListedKey]:
    """All live keys by their creation; `revoked`: also those that were revoked. One page is in memory at a time."""
    last: ListedKey | None = None
    while keys := await server_keys.page(stores, last, revoked=revoked):
        for key in keys:
            yield key
        last = keys[-1]


def _no_such_key(named: str) -> Refusal:
    return Refusal(Code.NOT_FOUND, f"There is no live key {named}.")
