"""Names and pictures on boards: a cache of the node's own, then Redis, then PostgreSQL.

Specification: user profile data, Redis hash, 5 minutes, invalidated on profile update. Readers fill `profile:<user id>`
with HSETNX and so never overwrite what a change has written; a change writes through and raises `names` of the meta of
each board that the user is on, which drops the nodes' own caches (profile_changed.lua says what else it does to a
board). PostgreSQL notes each change in the outbox; the projector does what was not written through (`announce`).
`storage.board_cache` asks while it reads; `operations.accounts` calls `changed`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.boards import BOARDS, READ_SIZE, TOP_SIZE, Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage.connections.bridge import redis_errors, run_in_asyncio
from scoreboard.storage.connections.conditions import reply_code
from scoreboard.storage.connections.single_flight import SingleFlight
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.redis.scripts import load_script

TTL = 300  # seconds; specification: caching table
CACHED = 4096  # profiles on this node, about 1 MiB; full: all dropped, the next read asks Redis for its hundred again
# names that were known before a cache was dropped, about 1 MiB; full: only those of the last cache are kept
KNOWN = 4096
# seconds that a board's read waits for PostgreSQL's names, and for Redis to keep them: as long as for Redis itself
PATIENCE = 0.25

ANNOUNCED_AT_ONCE = 500  # users a pipeline and a script: a millisecond of Redis

NAMES_SQL = "SELECT id, username, avatar_url FROM users WHERE id = ANY($1::uuid[])"


class Profile(NamedTuple):
    username: str
    avatar_url: str | None

    @property
    def fields(self) -> tuple[bytes, bytes]:
        """As Redis has it: name and picture."""
        return self.username.encode(), (self.avatar_url or "").encode()

    @property
    def digest(self) -> bytes:
        """Says in Redis that boards were told of this very profile."""
        return sha256(b"\n".join(self.fields)).digest()[:8]


def unnamed(user: UUID) -> Profile:
    """Stands in for a user whose name this node never knew and no store tells now, or who is just being deleted."""
    return Profile(f"user-{user.hex[:8]}", None)


class Profiles:
    """One for the process; shared by all boards."""

    __slots__ = ("_asking", "_bump", "_cache", "_cached_since", "_filling", "_known", "_names", "_stores")

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._bump = stores.redis.register_script(load_script("profile_changed.lua"))
        self._cache: dict[UUID, Profile] = {}
        self._cached_since = monotonic()
        self._names: dict[str, tuple[int, int]] = {}  # board → (epoch, names) as last read
        self._known: dict[UUID, Profile] = {}  # of the caches before, for when nobody tells a name
        self._asking: SingleFlight[dict[UUID, Profile]] = SingleFlight()
        self._filling: SingleFlight[None] = SingleFlight()

    # ---- reading: asyncio-flavoured, within a board's read ----------------------------------------------------------

    def drop_outdated(self, board: str, epoch: int, names: int) -> bool:
        """Empties the node's cache when a name changed somewhere or five minutes have passed; True when it did."""
        now = monotonic()
        outdated = self._names.get(board) != (epoch, names) or now - self._cached_since >= TTL
        if outdated:
            self._names[board] = (epoch, names)
            self._drop_cache()
            self._cached_since = now
        return outdated

    def last_known(self, user: UUID) -> Profile:
        """The name that was known last, for when no store tells it; it may have changed."""
        return self._cache.get(user) or self._known.get(user) or unnamed(user)

    async def find(self, whom: Iterable[UUID]) -> Mapping[UUID, Profile]:
        """The profiles of these users; those that no store tells in time are missing, and are asked for again by the
        next call.

        Raises StorageUnavailable when Redis can't be read; that it takes no writes, or that PostgreSQL fails, costs no
        board.
        """
        cache = self._cache
        found, missing = {}, []
        for user in whom:
            if (profile := cache.get(user)) is not None:
                found[user] = profile
            else:
                missing.append(user)
        if missing:
            fresh = await self._from_redis(missing)
            if unknown := [user for user in missing if user not in fresh]:
                fresh |= await self._from_postgres(unknown)
            if cache is self._cache:  # else a name changed meanwhile, and what was read before is not kept
                if len(cache) + len(fresh) > CACHED:
                    self._drop_cache()
                self._cache |= fresh
            found |= fresh
        return found

    def _drop_cache(self) -> None:
        known = self._known | self._cache
        self._known = known if len(known) <= KNOWN else self._cache
        self._cache = {}

    async def _from_redis(self, whom: list[UUID]) -> dict[UUID, Profile]:
        pipe = self._stores.redis.pipeline(transaction=False)  # the keys lie in different slots
        for user in whom:
            pipe.hmget(self._stores.namespace.profile(user), "username", "avatarUrl")
        found = {}
        with redis_errors():
            for user, answer in zip(whom, await pipe.execute(raise_on_error=False), strict=True):
                if isinstance(answer, Exception):
                    if reply_code(answer) == "WRONGTYPE":  # somebody else's key has the name: as good as none
                        continue
                    raise answer
                username, avatar_url = answer
                if username is not None:
                    found[user] = Profile(username.decode(), avatar_url.decode() if avatar_url else None)
        return found

    async def _from_postgres(self, whom: list[UUID]) -> dict[UUID, Profile]:
        """Nothing where PostgreSQL can't be asked, or not in time. Fills Redis; one that takes no writes costs a query
        again."""

        async def select() -> dict[UUID, Profile]:
            rows = await self._stores.pool.fetch(NAMES_SQL, whom)
            return {UUID(bytes=row["id"].bytes): Profile(row["username"], row["avatar_url"]) for row in rows}

        found: dict[UUID, Profile] = {}
        with suppress(StorageUnavailable):
            found = await self._asking(PATIENCE, select) or {}
            if found:
                await self._filling(PATIENCE, lambda: self._fill(found))
        return found

    async def _fill(self, found: Mapping[UUID, Profile]) -> None:
        pipe = self._stores.redis.pipeline(transaction=False)
        for user, profile in found.items():
            key = self._stores.namespace.profile(user)
            pipe.hsetnx(key, "username", profile.username)
            pipe.hsetnx(key, "avatarUrl", profile.avatar_url or "")
            pipe.expire(key, TTL, nx=True)
        with redis_errors():
            await pipe.execute()

    # ---- changing ---------------------------------------------------------------------------------------------------

    async def changed(self, user: UUID, username: str, avatar_url: str | None) -> None:
        """Brings a profile that PostgreSQL has just committed to every node's boards. Trio-flavoured, one crossing.

        Returns also when Redis is out of reach, and may be cancelled: the projector brings it then, and boards are
        stale meanwhile.
        """
        with suppress(StorageUnavailable):
            await run_in_asyncio(self._write_through, user, Profile(username, avatar_url))

    async def _write_through(self, user: UUID, profile: Profile) -> None:
        names = self._stores.namespace
        with redis_errors():
            async with self._stores.redis.pipeline(transaction=False) as pipe:
                username, avatar_url = profile.fields
                pipe.hset(names.profile(user), mapping={"username": username, "avatarUrl": avatar_url, "announced": ""})
                pipe.expire(names.profile(user), TTL)
                await pipe.execute()
            for board in BOARDS:
                await _notify_board(self._stores, self._bump, board, [user])
            # last: else the projector does it all once more
            async with self._stores.redis.pipeline(transaction=False) as pipe:
                pipe.hset(names.profile(user), "announced", profile.digest)
                pipe.expire(names.profile(user), TTL)
                await pipe.execute()


async def announce(stores: Stores, conn: asyncpg.Connection, script: Any, board: Board, users: Sequence[UUID]) -> None:
    """Brings changed profiles that stand in the outbox to the board, unless `changed` has done so: then nothing is sent
    twice.

    asyncio-flavoured. `script`: profile_changed.lua. What Redis has of them is read anew by all nodes. Raises
    StorageUnavailable, and what asyncpg raises.
    """
    for start in range(0, len(users), ANNOUNCED_AT_ONCE):
        portion = users[start : start + ANNOUNCED_AT_ONCE]
        rows = {row["id"]: Profile(row["username"], row["avatar_url"]) for row in await conn.fetch(NAMES_SQL, portion)}
        with redis_errors():
            pipe = stores.redis_bulk.pipeline(transaction=False)
            for user in portion:
                pipe.hmget(stores.namespace.profile(user), "username", "avatarUrl", "announced")
            found = await pipe.execute(raise_on_error=False)  # a key of somebody else is no profile that was announced
            announced = {
                user
                for user, answer in zip(portion, found, strict=True)
                if user in rows and answer == [*rows[user].fields, rows[user].digest]
            }
            if unknown := [user for user in portion if user not in announced]:
                await stores.redis_bulk.unlink(*(stores.namespace.profile(user) for user in unknown))
                await _notify_board(stores, script, board, unknown)


async def _notify_board(stores: Stores, notify: Any, board: Board, users: Iterable[UUID]) -> None:
    names = stores.namespace.board(board)
    keys = [names.order, names.entry, names.meta, stores.namespace.updates]
    await notify(keys=keys, args=[stores.installation, board.id, TOP_SIZE, READ_SIZE, *(user.bytes for user in users)])
