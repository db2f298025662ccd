"""Names and pictures on boards: a cache of the node's own, then Redis, then PostgreSQL.

Specification: user profile data, Redis hash, 5 minutes, invalidated on profile update.

1. A reader fills `profile:<user id>` with HSETNX, so it never overwrites what a change has written.
2. A change writes through (`write_through`). It also raises `names` in the meta of each board that the user is on. So
   every node drops its own cache. What else happens to the board is in profile_changed.lua.
3. PostgreSQL notes each change in the outbox. The projector announces what was not written through (`announce_aio`).

`storage.board_cache` reads; `operations.accounts` calls `write_through`.
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
from scoreboard.drivers.bridge import redis_errors, run_in_asyncio
from scoreboard.drivers.conditions import reply_code
from scoreboard.drivers.single_flight import SingleFlight
from scoreboard.drivers.stores import Stores
from scoreboard.storage.redis.scripts import load_script

PROFILE_TTL_SECONDS = 300  # specification: caching table
CACHE_SIZE = 4096  # profiles on this node, about 1 MiB; full: all are dropped, and the next read asks Redis again
# names of dropped caches, about 1 MiB; full: only those of the last cache are kept
LAST_KNOWN_SIZE = 4096
# how long a board's read waits for names from PostgreSQL, and for Redis to store them: as long as for Redis itself
POSTGRES_TIMEOUT_SECONDS = 0.25

ANNOUNCE_BATCH_USERS = 500  # users a pipeline and a script: a millisecond of Redis

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
        """Stored in Redis once every board was notified of exactly this profile."""
        return sha256(b"\n".join(self.fields)).digest()[:8]


def placeholder(user: UUID) -> Profile:
    """The profile of a user whose name this node never read and no store gives now, or who is just being deleted."""
    return Profile(f"user-{user.hex[:8]}", None)


class Profiles:
    """One for the process; shared by all boards."""

    __slots__ = (
        "_cache",
        "_cached_since",
        "_last_known",
        "_names",
        "_postgres_reads",
        "_profile_changed",
        "_redis_fills",
        "_stores",
    )

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._profile_changed = stores.redis.register_script(load_script("profile_changed.lua"))
        self._cache: dict[UUID, Profile] = {}
        self._cached_since = monotonic()
        self._names: dict[str, tuple[int, int]] = {}  # board → (epoch, names) as last read
        self._last_known: dict[UUID, Profile] = {}  # of dropped caches, for when no store gives a name
        self._postgres_reads: SingleFlight[dict[UUID, Profile]] = SingleFlight()
        self._redis_fills: SingleFlight[None] = SingleFlight()

    # ---- reading: within a board's read, in asyncio -----------------------------------------------------------------

    def drop_outdated(self, board: str, epoch: int, names: int) -> bool:
        """Empties the node's cache when a name changed somewhere or five minutes have passed; True when it did."""
        now = monotonic()
        outdated = self._names.get(board) != (epoch, names) or now - self._cached_since >= PROFILE_TTL_SECONDS
        if outdated:
            self._names[board] = (epoch, names)
            self._drop_cache()
            self._cached_since = now
        return outdated

    def last_known(self, user: UUID) -> Profile:
        """The profile as it was last read, else a placeholder. For when no store gives it; it may have changed."""
        return self._cache.get(user) or self._last_known.get(user) or placeholder(user)

    async def find_aio(self, users: Iterable[UUID]) -> Mapping[UUID, Profile]:
        """The profiles of these users. Those that no store gives in time are absent; the next call asks for them again.

        Raises StorageUnavailable when Redis can't be read. It does not raise when Redis refuses writes, or when
        PostgreSQL fails: the board is shown all the same.
        """
        cache = self._cache
        found, missing = {}, []
        for user in users:
            if (profile := cache.get(user)) is not None:
                found[user] = profile
            else:
                missing.append(user)
        if missing:
            fresh = await self._from_redis_aio(missing)
            if unknown := [user for user in missing if user not in fresh]:
                fresh |= await self._from_postgres_aio(unknown)
            if cache is self._cache:  # else a name changed meanwhile, and what was read before is not kept
                if len(cache) + len(fresh) > CACHE_SIZE:
                    self._drop_cache()
                self._cache |= fresh
            found |= fresh
        return found

    def _drop_cache(self) -> None:
        known = self._last_known | self._cache
        self._last_known = known if len(known) <= LAST_KNOWN_SIZE else self._cache
        self._cache = {}

    async def _from_redis_aio(self, users: list[UUID]) -> dict[UUID, Profile]:
        pipe = self._stores.redis.pipeline(transaction=False)  # the keys lie in different slots
        for user in users:
            pipe.hmget(self._stores.namespace.profile(user), "username", "avatarUrl")
        found = {}
        with redis_errors():
            for user, answer in zip(users, await pipe.execute(raise_on_error=False), strict=True):
                if isinstance(answer, Exception):
                    if reply_code(answer) == "WRONGTYPE":  # another program's key has this name: there is no profile
                        continue
                    raise answer
                username, avatar_url = answer
                if username is not None:
                    found[user] = Profile(username.decode(), avatar_url.decode() if avatar_url else None)
        return found

    async def _from_postgres_aio(self, users: list[UUID]) -> dict[UUID, Profile]:
        """The profiles from PostgreSQL; none when it fails or is late. Fills Redis with them. When Redis refuses
        writes, the next call asks PostgreSQL again."""

        async def select_aio() -> dict[UUID, Profile]:
            rows = await self._stores.pool.fetch_aio(NAMES_SQL, users)
            return {UUID(bytes=row["id"].bytes): Profile(row["username"], row["avatar_url"]) for row in rows}

        found: dict[UUID, Profile] = {}
        with suppress(StorageUnavailable):
            found = await self._postgres_reads.run_aio(POSTGRES_TIMEOUT_SECONDS, select_aio) or {}
            if found:
                await self._redis_fills.run_aio(POSTGRES_TIMEOUT_SECONDS, lambda: self._fill_aio(found))
        return found

    async def _fill_aio(self, found: Mapping[UUID, Profile]) -> None:
        pipe = self._stores.redis.pipeline(transaction=False)
        for user, profile in found.items():
            key = self._stores.namespace.profile(user)
            pipe.hsetnx(key, "username", profile.username)
            pipe.hsetnx(key, "avatarUrl", profile.avatar_url or "")
            pipe.expire(key, PROFILE_TTL_SECONDS, nx=True)
        with redis_errors():
            await pipe.execute()

    # ---- changing ---------------------------------------------------------------------------------------------------

    async def write_through(self, user: UUID, username: str, avatar_url: str | None) -> None:
        """Writes a profile that PostgreSQL has just committed to Redis, and notifies all boards.

        Never raises because Redis is away, and may be cancelled. In both cases the projector announces the profile
        later, and the boards are stale meanwhile.
        """
        with suppress(StorageUnavailable):
            await run_in_asyncio(self._write_through_aio, user, Profile(username, avatar_url))

    async def _write_through_aio(self, user: UUID, profile: Profile) -> None:
        names = self._stores.namespace
        with redis_errors():
            async with self._stores.redis.pipeline(transaction=False) as pipe:
                username, avatar_url = profile.fields
                pipe.hset(names.profile(user), mapping={"username": username, "avatarUrl": avatar_url, "announced": ""})
                pipe.expire(names.profile(user), PROFILE_TTL_SECONDS)
                await pipe.execute()
            for board in BOARDS:
                await _notify_board_aio(self._stores, self._profile_changed, board, [user])
            # last: else the projector does it all once more
            async with self._stores.redis.pipeline(transaction=False) as pipe:
                pipe.hset(names.profile(user), "announced", profile.digest)
                pipe.expire(names.profile(user), PROFILE_TTL_SECONDS)
                await pipe.execute()


async def announce_aio(
    stores: Stores, conn: asyncpg.Connection, script: Any, board: Board, users: Sequence[UUID]
) -> None:
    """Notifies a board of changed profiles in the outbox. Those that `write_through` has announced are skipped.

    `script`: profile_changed.lua. Every node then reads these users' profiles again. Raises StorageUnavailable, and
    what asyncpg raises.
    """
    for start in range(0, len(users), ANNOUNCE_BATCH_USERS):
        portion = users[start : start + ANNOUNCE_BATCH_USERS]
        rows = {row["id"]: Profile(row["username"], row["avatar_url"]) for row in await conn.fetch(NAMES_SQL, portion)}
        with redis_errors():
            pipe = stores.redis_bulk.pipeline(transaction=False)
            for user in portion:
                pipe.hmget(stores.namespace.profile(user), "username", "avatarUrl", "announced")
            found = await pipe.execute(raise_on_error=False)  # an error: the key holds something else, so announce
            announced = {
                user
                for user, answer in zip(portion, found, strict=True)
                if user in rows and answer == [*rows[user].fields, rows[user].digest]
            }
            if unknown := [user for user in portion if user not in announced]:
                await stores.redis_bulk.unlink(*(stores.namespace.profile(user) for user in unknown))
                await _notify_board_aio(stores, script, board, unknown)


async def _notify_board_aio(stores: Stores, notify: Any, board: Board, users: Iterable[UUID]) -> None:
    names = stores.namespace.board(board)
    keys = [names.order, names.entry, names.meta, stores.namespace.updates]
    await notify(keys=keys, args=[stores.installation, board.id, TOP_SIZE, READ_SIZE, *(user.bytes for user in users)])
