"""Many users at once, for the command line: an import from a file, and users with ready tokens for load tests.

Called by `scoreboard users import` and `scoreboard users tokens`, and by no route.

Tested in tests/cli/test_users.py.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID, uuid4

import trio

from scoreboard.domain import account_rules as profiles
from scoreboard.domain import email_addresses
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.skeletons import fold_case, skeletons
from scoreboard.drivers.stores import Stores
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.admin.import_files import UserRecord
from scoreboard.security import refresh_tokens
from scoreboard.security.issuer import Issuer
from scoreboard.storage.postgres import load_test_users, sessions, users

MAX_BATCH_USERS = 500  # users a round trip


NAME_TAKEN = "username is taken, by a user with another e-mail address"


@dataclass(slots=True)
class Imported:
    """The result of an import. `existing`: how many users with this name and address, case ignored, existed already.
    `refused`: line number and reason, in the file's order."""

    created: int = 0
    existing: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


async def import_users(
    stores: Stores, accounts: Accounts, people: Iterable[tuple[int, UserRecord | str]], done: Imported
) -> None:
    """Creates the users that do not exist yet; existing ones are not changed. Of two lines with one name or address the
    first is imported.

    `done` counts what was done, also until a cancellation. Users who were created before it stay; the same file can be
    imported again. Raises StorageUnavailable.
    """

    async def create(number: int, person: UserRecord) -> None:
        created = await accounts.create(person.username, person.email, person.password, person.avatarUrl)
        if not isinstance(created, Refusal):
            done.created += 1
        elif created.code is Code.CONFLICT and await _is_there(stores, person):
            done.existing += 1  # made by another process meanwhile, or the name is from before today's rules
        else:
            done.refused.append((number, created.detail))

    lines = iter(people)
    while batch := list(islice(lines, MAX_BATCH_USERS)):
        done.refused += [(number, person) for number, person in batch if isinstance(person, str)]
        waiting = [(number, person) for number, person in batch if isinstance(person, UserRecord)]
        while waiting:
            # Looked up first: hashing a password that is not needed would take a tenth of a second.
            known = await _emails_by_name(stores, [person for _, person in waiting])
            free: list[tuple[int, UserRecord]] = []
            for number, person in waiting:
                name = profiles.username(person.username)
                if not isinstance(name, str) or name not in known:
                    free.append((number, person))
                elif _is_address_of(person, known[name]):
                    done.existing += 1
                else:
                    done.refused.append((number, NAME_TAKEN))
            first, waiting = _without_rivals(free)
            async with trio.open_nursery() as nursery:
                for number, person in first:
                    nursery.start_soon(create, number, person)
    done.refused.sort()


def _without_rivals(
    people: Sequence[tuple[int, UserRecord]],
) -> tuple[list[tuple[int, UserRecord]], list[tuple[int, UserRecord]]]:
    """The lines that may be created at once, and their rivals: lines with a name, a skeleton or an address that an
    earlier line has too.

    The rivals wait until the earlier lines are created or refused.
    """
    first: list[tuple[int, UserRecord]] = []
    rivals: list[tuple[int, UserRecord]] = []
    claimed: set[str] = set()
    for number, person in people:
        name, address = profiles.username(person.username), profiles.email(person.email)
        claims = {*skeletons(name)} if isinstance(name, str) else set()
        claims |= {fold_case(address)} if isinstance(address, str) else set()  # has an @, which no name has
        (rivals if claims & claimed else first).append((number, person))
        claimed |= claims
    return first, rivals


async def _emails_by_name(stores: Stores, people: Sequence[UserRecord]) -> dict[str, str | None]:
    """Which of these people's names are in use: name → the user's address, if any. A name that breaks the rules is not
    looked up."""
    names = [name for person in people if isinstance(name := profiles.username(person.username), str)]
    return await users.emails_by_name(stores, names) if names else {}


async def _is_there(stores: Stores, person: UserRecord) -> bool:
    account = await users.find(stores, person.username)
    found = await users.profile(stores, account.user) if account else None
    return found is not None and _is_address_of(person, found.email)


def _is_address_of(person: UserRecord, stored: str | None) -> bool:
    """Whether the stored address is this person's, whatever its case, and also in a form that is older than today's
    rules."""
    return stored is not None and fold_case(email_addresses.fold(stored)) == fold_case(
        email_addresses.fold(person.email)
    )


@dataclass(frozen=True, slots=True)
class DevelopmentToken:
    """A user of a load test, with the tokens to submit actions."""

    user: UUID
    access_token: str = field(repr=False)
    action_secret: str = field(repr=False)
    key_version: int

    @property
    def line(self) -> str:
        return f"{self.user}\t{self.access_token}\t{self.action_secret}\t{self.key_version}\n"


async def development_tokens(
    stores: Stores,
    count: int,
    issuer: Issuer,
    *,
    now: float,
) -> list[DevelopmentToken]:
    """Creates users `load-000001`…, each with a session that expires with its access token. The caller must refuse it
    in production. `now`: Unix seconds."""
    made: list[DevelopmentToken] = []
    for start in range(1, count + 1, MAX_BATCH_USERS):
        names = [f"load-{number:06}" for number in range(start, min(start + MAX_BATCH_USERS, count + 1))]
        ids = await load_test_users.create_many(stores, names, [f"{name}@load.invalid" for name in names])
        found = [(ids[name], uuid4()) for name in names]
        # of no token: these sessions are not refreshed
        digests = [secrets.token_bytes(refresh_tokens.VALUE_BYTES) for _ in found]
        sids, users_of_sids = [sid for _, sid in found], [user for user, _ in found]
        await sessions.open_many(stores, sids, users_of_sids, digests, issuer.lifetime_seconds)
        for user, sid in found:
            token = issuer.access_token(user, sid, jti=uuid4().hex, now=now)
            made.append(DevelopmentToken(user, token, issuer.action_secret(user, sid), issuer.action_key_version))
    return made
