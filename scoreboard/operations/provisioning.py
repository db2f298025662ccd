"""Many users at once, for the command line: an import from a file, and users with ready tokens for load tests.

Called by `scoreboard users import` and `scoreboard users tokens`; no route leads here.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID, uuid4

import trio

from scoreboard.domain import profiles
from scoreboard.domain.errors import Code, FieldError, Refusal
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.import_files import Person
from scoreboard.security import refresh_tokens, tokens
from scoreboard.security.signatures import action_secret
from scoreboard.security.tokens import TokenKeys
from scoreboard.storage import sessions, users
from scoreboard.storage.connections import Stores

BATCH = 500  # users a round trip


@dataclass(slots=True)
class Imported:
    """What an import did. `existing`: users of these names, in any case. `refused`: number and why, in the file's order."""

    created: int = 0
    existing: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


async def import_users(stores: Stores, accounts: Accounts, people: Iterable[tuple[int, Person | str]], done: Imported) -> None:
    """Creates whoever is not there yet; who is keeps everything as it is. `done` counts, also up to where this was cancelled.

    Cancelling leaves those created until then, so the same file can be imported again.
    """

    async def create(number: int, person: Person) -> None:
        created = await accounts.create(person.username, person.email, person.password, person.avatarUrl)
        if not isinstance(created, Refusal):
            done.created += 1
        elif created.code is Code.CONFLICT and await _known(stores, [person]):
            done.existing += 1  # made by another line or another process meanwhile
        else:
            done.refused.append((number, created.detail))

    lines = iter(people)
    while batch := list(islice(lines, BATCH)):
        done.refused += [(number, person) for number, person in batch if isinstance(person, str)]
        candidates = [(number, person) for number, person in batch if isinstance(person, Person)]
        # Asked first, since hashing a password that is not needed takes 35 ms.
        known = await _known(stores, [person for _, person in candidates])
        async with trio.open_nursery() as nursery:
            for number, person in candidates:
                if profiles.username(person.username) in known:
                    done.existing += 1
                else:
                    nursery.start_soon(create, number, person)
    done.refused.sort()


async def _known(stores: Stores, people: Sequence[Person]) -> set[str | FieldError]:
    """The names of these that users have, as they are stored. What is no name nobody has, and no database is asked for it."""
    names = [name for person in people if isinstance(name := profiles.username(person.username), str)]
    return {*await users.known(stores, names)} if names else set()


@dataclass(frozen=True, slots=True)
class DevelopmentToken:
    """A user of a load test, ready to act."""

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
    *,
    keys: TokenKeys,
    masters: Mapping[int, bytes],
    master: int,
    issuer: str,
    now: float,
    lifetime: int = tokens.LIFETIME,
) -> list[DevelopmentToken]:
    """Users `load-000001`… with a session each that ends with its access token. Never in production: the caller refuses it there."""
    made: list[DevelopmentToken] = []
    for start in range(1, count + 1, BATCH):
        names = [f"load-{number:06}" for number in range(start, min(start + BATCH, count + 1))]
        ids = await users.create_many(stores, names, [f"{name}@load.invalid" for name in names])
        found = [(ids[name], uuid4()) for name in names]
        digests = [secrets.token_bytes(refresh_tokens.VALUE_BYTES) for _ in found]  # of no token: these sessions are not refreshed
        await sessions.open_many(stores, [sid for _, sid in found], [user for user, _ in found], digests, lifetime)
        for user, sid in found:
            token = tokens.issue(keys, issuer=issuer, user=user, sid=sid, jti=uuid4().hex, now=now, lifetime=lifetime)
            made.append(DevelopmentToken(user, token, action_secret(masters[master], user, sid), master))
    return made
