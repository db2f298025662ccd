"""Many users at once, for the command line: an import from a file, and users with ready tokens for load tests.

Called by `scoreboard users import` and `scoreboard users tokens`; no route leads here.
"""

import csv
import io
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import msgspec
import trio

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.profiles import composed
from scoreboard.operations.accounts import Accounts
from scoreboard.security import refresh_tokens, tokens
from scoreboard.security.signatures import action_secret
from scoreboard.security.tokens import TokenKeys
from scoreboard.storage import sessions, users
from scoreboard.storage.connections import Stores

BATCH = 500  # users a round trip


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of an import file: a JSON object, or a row under a CSV header of these names."""

    username: str
    email: str
    password: str
    avatarUrl: str | None = None

    def __repr__(self) -> str:
        return f"Person({self.username!r})"  # never the password


@dataclass(slots=True)
class Imported:
    """What an import did. `existing`: users of these names, in any case. `refused`: line number and why."""

    created: int = 0
    existing: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


def read_people(text: str, *, is_csv: bool) -> Iterator[tuple[int, Person | str]]:
    """Line number and person, or what is wrong with the line. `is_csv`: a header and rows; else JSON Lines."""
    if is_csv:
        reader = csv.DictReader(io.StringIO(text))
        for row in reader:
            yield reader.line_num, _person({name: value for name, value in row.items() if value or name != "avatarUrl"})
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, _person(msgspec.json.decode(line))
            except (msgspec.MsgspecError, RecursionError) as exc:
                yield number, f"is not JSON: {exc}"


def _person(raw: object) -> Person | str:
    try:
        return msgspec.convert(raw, Person)
    except msgspec.ValidationError as exc:
        return str(exc)


async def import_users(stores: Stores, accounts: Accounts, text: str, *, is_csv: bool) -> Imported:
    """Creates whoever is not there yet; who is keeps everything as it is. Cancelling leaves those created until then."""
    done = Imported()

    async def create(number: int, person: Person) -> None:
        created = await accounts.create(person.username, person.email, person.password, person.avatarUrl)
        if not isinstance(created, Refusal):
            done.created += 1
        elif created.code is Code.CONFLICT and await users.known(stores, [composed(person.username)]):
            done.existing += 1  # made by another line or another process meanwhile
        else:
            done.refused.append((number, created.detail))

    batch: list[tuple[int, Person]] = []
    lines = list(read_people(text, is_csv=is_csv))
    for place, (number, person) in enumerate(lines, start=1):
        if isinstance(person, str):
            done.refused.append((number, person))
        else:
            batch.append((number, person))
        if len(batch) == BATCH or place == len(lines):
            # Asked first, since hashing a password that is not needed takes 35 ms.
            known = await users.known(stores, [composed(person.username) for _, person in batch])
            async with trio.open_nursery() as nursery:
                for line, candidate in batch:
                    if composed(candidate.username) in known:
                        done.existing += 1
                    else:
                        nursery.start_soon(create, line, candidate)
            batch.clear()
    done.refused.sort()
    return done


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
        nobody_knows = [
            refresh_tokens.digest(secrets.token_hex(refresh_tokens.VALUE_BYTES)) for _ in found
        ]  # these sessions are not refreshed
        await sessions.open_many(stores, [sid for _, sid in found], [user for user, _ in found], nobody_knows, lifetime)
        for user, sid in found:
            token = tokens.issue(keys, issuer=issuer, user=user, sid=sid, jti=uuid4().hex, now=now, lifetime=lifetime)
            made.append(DevelopmentToken(user, token, action_secret(masters[master], user, sid), master))
    return made
