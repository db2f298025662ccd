"""A user's own data: read the history, export everything, be erased.

1. The history is a page of logged actions, the newest first. A cursor names the last one.
2. An export is one JSON document with all that is stored about the user. It is written piece by piece, so that a long
   history takes no memory. Hashes of secrets are not in it, nor what would help cheats: flags, moderators' notes,
   shadow bans (storage.postgres.personal_data has the list).
3. Whoever wants to be erased gives the password. A user without one shows a log-in of the last FRESH_SECONDS: a token
   that was stolen earlier is not enough. Wrong passwords count as at a log-in.

Tested in tests/operations/test_personal_data.py, and over HTTP in tests/web/routes/test_personal_data.py.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from scoreboard.domain.account_rules import MAX_PASSWORD_LENGTH
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Code, FieldError, LimitLayer, Refusal, StorageUnavailable, rate_limited
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.drivers.stores import Stores
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.login_admission import Client, LoginAdmission
from scoreboard.operations.sessions import Sessions
from scoreboard.security import passwords
from scoreboard.storage.postgres import erasure, personal_data, users
from scoreboard.storage.postgres import sessions as session_store
from scoreboard.storage.postgres.personal_data import FIRST_PLACE, LISTS_SQL, LoggedAction, Place, milliseconds

FRESH_SECONDS = 300  # the log-in of a user without a password who wants to be erased is no older
EXPORT_ROWS = 100  # of one query of an export; an action has 16 KiB at most, so a piece has 1.6 MiB at most
EXPORT_EVIDENCE = 4  # the same of evidence, which has 256 KiB at most

WRONG_PASSWORD = Refusal(
    Code.INVALID_REQUEST, "The password is wrong.", (FieldError("password", "is not your password"),)
)
PASSWORD_NEEDED = Refusal(Code.INVALID_REQUEST, "password is required", (FieldError("password", "is required"),))
NOT_FRESH = Refusal(Code.FORBIDDEN, f"Please log in again first: this needs a log-in of the last {FRESH_SECONDS} s.")

_PLACE = re.compile(r"([0-9]{1,18})-([0-9]{1,19})").fullmatch
_WORD_START = re.compile(r"_([a-z])")


# ---- the history ----------------------------------------------------------------------------------------------------


def read_place(cursor: str) -> Place | None:
    """The place that a cursor names, "" for the beginning; None for any other text."""
    if not cursor:
        return FIRST_PLACE
    found = _PLACE(cursor)
    place = Place(int(found[1]), int(found[2])) if found else None
    return place if place is not None and place <= FIRST_PLACE and place.seq <= FIRST_PLACE.seq else None


def cursor_of(action: LoggedAction) -> str:
    """The cursor after this action."""
    return f"{action.place.at_us}-{action.place.seq}"


def action_fields(action: LoggedAction) -> dict[str, Any]:
    """An action as its user reads it."""
    return {
        "actionId": action.action_id,
        "actionType": action.action_type,
        "pointsAwarded": action.points,
        "newScore": action.new_score,
        "timestamp": rfc3339(action.at_ms),
        "metadata": action.metadata,
        "reversed": action.is_reversed,
    }


# ---- the export -----------------------------------------------------------------------------------------------------


async def write_export(stores: Stores, user: UUID, now_ms: int, write: Callable[[bytes], Awaitable[None]]) -> bool:
    """Calls `write` with one piece of the document after the other. False, and no call: there is no such user.

    `now_ms`: the time that the document names, Unix milliseconds. Raises StorageUnavailable and what `write` raises;
    then the document is not complete. Cancelling ends it there.
    """
    account = await personal_data.profile(stores, user)
    if account is None:
        return False
    await write(b'{"success":true,"data":{"exportedAt":%b,"profile":%b' % (_json(rfc3339(now_ms)), _fields(account)))
    for name in LISTS_SQL:
        await write(b',"%b":[' % name.encode())
        key, separator, size = "", b"", EXPORT_EVIDENCE if name == "evidence" else EXPORT_ROWS
        while True:
            page = await personal_data.page_of(stores, name, user, key, size)
            if page.rows:
                await write(separator + b",".join(_fields(row) for row in page.rows))
            if len(page.rows) < size:
                break
            key, separator = page.key, b","
        await write(b"]")
    await write(b',"actions":[')
    place, separator = FIRST_PLACE, b""
    while True:
        actions = await personal_data.history(stores, user, place, EXPORT_ROWS)
        if actions:
            await write(separator + b",".join(_json(action_fields(action)) for action in actions))
        if len(actions) < EXPORT_ROWS:
            break
        place, separator = actions[-1].place, b","
    await write(b"]}}")
    return True


def _fields(row: Mapping[str, Any]) -> bytes:
    """A row as a JSON object: names as in the API, times in RFC 3339."""
    return _json(
        {
            _WORD_START.sub(lambda found: found[1].upper(), name): (
                rfc3339(milliseconds(value)) if isinstance(value, datetime) else value
            )
            for name, value in row.items()
        }
    )


_json = msgspec.json.Encoder().encode


# ---- the erasure ----------------------------------------------------------------------------------------------------


async def erase(
    sessions: Sessions, admission: LoginAdmission, identity: Identity, password: str | None, client: Client
) -> Refusal | None:
    """Deletes the user and everything stored about them. Boards follow within a second; sessions end on this node at
    once, on others within two seconds. Returns None, or the Refusal, and then nothing has changed.

    Raises StorageUnavailable; then, and when it is cancelled, nothing has changed or everything is deleted.
    """
    stores = sessions.stores
    account = await users.by_id(stores, identity.user)
    if account is None:
        return USER_DELETED
    if account.password_hash is None:
        if not await session_store.is_younger(stores, identity.sid, FRESH_SECONDS):
            return NOT_FRESH
    elif password is None:
        return PASSWORD_NEEDED
    else:
        with admission.admit(client) as admitted:
            if isinstance(admitted, Refusal):
                return admitted
            attempt, place = admitted
            if wait := attempt.count_account(identity.user, None, admission.clock()):
                return rate_limited(LimitLayer.LOGIN, "Too many wrong passwords for this account.", wait)
            if not await place.run(passwords.verify, account.password_hash, password[: MAX_PASSWORD_LENGTH + 1]):
                return WRONG_PASSWORD
            attempt.succeed()
    ended = await erasure.erase(stores, identity.user)
    if ended is None:
        return USER_DELETED
    await sessions.note_ended(ended)
    with suppress(StorageUnavailable):  # it expires in five minutes by itself
        await stores.command("UNLINK", stores.namespace.profile(identity.user))
    return None
