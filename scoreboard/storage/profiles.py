"""Names and pictures on boards: a cache of the node's own, then Redis, then PostgreSQL.

Specification: user profile data, Redis hash, 5 minutes, invalidated on profile update. Readers fill `profile:<user id>` with HSETNX and so
never overwrite what a change has written; a change writes through and raises `names` of every board's meta, which drops the nodes' own
caches. What can't be written through is done by the projector: PostgreSQL notes each change in the outbox. `storage.board` asks while it
reads; `operations.accounts` calls `changed`.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.boards import BOARDS
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage.bridge import crossing, redis_errors
from scoreboard.storage.conditions import reply_code
from scoreboard.storage.connections import Stores
from scoreboard.storage.projection import script
from scoreboard.storage.unhurried import Unhurried

TTL = 300  # seconds; specification: caching table
CACHED = 4096  # profiles on this node, about 1 MiB; full: all dropped, the next read asks Redis for its hundred again
KNOWN = 4096  # names that were known before a cache was dropped, about 1 MiB; full: only those of the last cache are kept
PATIENCE = 0.25  # seconds that a board's read waits for PostgreSQL's names, and for Redis to keep them: as long as for Redis itself

NAMES_SQL = "SELECT id, username, avatar_url FROM users WHERE id = ANY($1::uuid[])"


class Profile(NamedTuple):
    username: str
    avatar_url: str | None


def unnamed(user: UUID) -> Profile:
    """Stands in for a user whose name this node never knew and no store tells now, or who is just being deleted."""
    return Profile(f"user-{user.hex[:8]}", None)


class Profiles:
    """One for the process; shared by all boards."""

    __slots__ = ("_asking", "_bump", "_cache", "_cached_since", "_filling", "_known", "_names", "_stores")

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._bump = stores.redis.register_script(script("profile_changed.lua"))
        self._cache: dict[UUID, Profile] = {}
        self._cached_since = monotonic()
        self._names: dict[str, tuple[int, int]] = {}  # board → (epoch, names) as last read
        self._known: dict[UUID, Profile] = {}  # of the caches before, for when nobody tells a name
        self._asking: Unhurried[dict[UUID, Profile]] = Unhurried()
        self._filling: Unhurried[None] = Unhurried()

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
        """The profiles of these users; those that no store tells in time are missing, and are asked for again by the next call.

        Raises StorageUnavailable when Redis can't be read; that it takes no writes, or that PostgreSQL fails, costs no board.
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
        """Nothing where PostgreSQL can't be asked, or not in time. Fills Redis; one that takes no writes costs a query again."""

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

        Returns also when Redis is out of reach, and may be cancelled: the projector brings it then, and boards are stale meanwhile.
        """
        with suppress(StorageUnavailable):
            await crossing(self._write_through, user, Profile(username, avatar_url))

    async def _write_through(self, user: UUID, profile: Profile) -> None:
        names = self._stores.namespace
        with redis_errors():
            async with self._stores.redis.pipeline(transaction=False) as pipe:
                pipe.hset(names.profile(user), mapping={"username": profile.username, "avatarUrl": profile.avatar_url or ""})
                pipe.expire(names.profile(user), TTL)
                await pipe.execute()
            for board in BOARDS.values():
                await self._bump(keys=[names.board(board).meta, names.updates], args=[self._stores.installation, board.id])
