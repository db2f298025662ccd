"""Names and pictures on boards: a cache of the node's own, then Redis, then PostgreSQL.

Specification: user profile data, Redis hash, 5 minutes, invalidated on profile update. Readers fill `profile:<user id>` with HSETNX and so
never overwrite what a change has written; a change writes through and raises `names` of every board's meta, which drops the nodes' own
caches. `storage.board` asks while it reads; `operations.accounts` calls `changed`.
"""

from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

from scoreboard.domain.boards import BOARDS
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage.bridge import crossing, postgres_errors, redis_errors
from scoreboard.storage.connections import Stores
from scoreboard.storage.projection import script
from scoreboard.storage.unhurried import Unhurried

TTL = 300  # seconds; specification: caching table
CACHED = 4096  # profiles on this node, about 1 MiB; full: all dropped, the next read asks Redis for its hundred again
OWED = 1024  # changes that Redis has not taken; full: the oldest is dropped and seen when its hash expires
PATIENCE = 0.25  # seconds that a board's read waits for PostgreSQL's names: as long as for Redis itself

NAMES_SQL = "SELECT id, username, avatar_url FROM users WHERE id = ANY($1::uuid[])"


class Profile(NamedTuple):
    username: str
    avatar_url: str | None


def unnamed(user: UUID) -> Profile:
    """Stands in for a user whose name no store tells now, or who is just being deleted."""
    return Profile(f"user-{user.hex[:8]}", None)


class Profiles:
    """One for the process; shared by all boards."""

    __slots__ = ("_bump", "_cache", "_cached_since", "_filling", "_names", "_owed", "_stores")

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._bump = stores.redis.register_script(script("profile_changed.lua"))
        self._cache: dict[UUID, Profile] = {}
        self._cached_since = monotonic()
        self._names: dict[str, tuple[int, int]] = {}  # board → (epoch, names) as last read
        self._owed: dict[UUID, Profile] = {}
        self._filling: Unhurried[dict[UUID, Profile]] = Unhurried()

    # ---- reading: asyncio-flavoured, within a board's read ----------------------------------------------------------

    def drop_outdated(self, board: str, epoch: int, names: int) -> bool:
        """Empties the node's cache when a name changed somewhere or five minutes have passed; True when it did."""
        now = monotonic()
        outdated = self._names.get(board) != (epoch, names) or now - self._cached_since >= TTL
        if outdated:
            self._names[board] = (epoch, names)
            self._cache = {}
            self._cached_since = now
        return outdated

    async def find(self, whom: Iterable[UUID]) -> Mapping[UUID, Profile]:
        """The profiles of these users; those that no store tells in time are missing.

        Raises StorageUnavailable when Redis fails; PostgreSQL's failing costs names, not the board.
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
                    cache.clear()
                cache |= fresh
            found |= fresh
        return found

    async def _from_redis(self, whom: list[UUID]) -> dict[UUID, Profile]:
        pipe = self._stores.redis.pipeline(transaction=False)  # the keys lie in different slots
        for user in whom:
            pipe.hmget(self._stores.namespace.profile(user), "username", "avatarUrl")
        with redis_errors():
            answers = await pipe.execute()
        return {
            user: Profile(username.decode(), avatar_url.decode() if avatar_url else None)
            for user, (username, avatar_url) in zip(whom, answers, strict=True)
            if username is not None
        }

    async def _from_postgres(self, whom: list[UUID]) -> dict[UUID, Profile]:
        """Raises StorageUnavailable only of Redis, which is filled along."""

        async def select() -> dict[UUID, Profile]:
            with postgres_errors():
                rows = await self._stores.pool.fetch(NAMES_SQL, whom)
            found = {UUID(bytes=row["id"].bytes): Profile(row["username"], row["avatar_url"]) for row in rows}
            await self._fill(found)
            return found

        try:
            return await self._filling(PATIENCE, select) or {}
        except StorageUnavailable as exc:
            if exc.store == "redis":
                raise
            return {}

    async def _fill(self, found: Mapping[UUID, Profile]) -> None:
        if not found:
            return
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

        Returns also when Redis is out of reach: then the change is owed and goes out with a later read. Cancelling leaves it owed.
        """
        self._owed.pop(user, None)
        if len(self._owed) >= OWED:
            self._owed.pop(next(iter(self._owed)))
        self._owed[user] = Profile(username, avatar_url)
        try:
            await crossing(self.settle)
        except StorageUnavailable:
            pass  # boards come from PostgreSQL meanwhile, with the new name

    async def settle(self) -> None:
        """asyncio-flavoured: writes through what is owed. Raises StorageUnavailable; then it stays owed."""
        if not self._owed:
            return
        owed = dict(self._owed)
        pipe: Any = self._stores.redis.pipeline(transaction=False)
        for user, profile in owed.items():
            pipe.hset(self._stores.namespace.profile(user), mapping={"username": profile.username, "avatarUrl": profile.avatar_url or ""})
            pipe.expire(self._stores.namespace.profile(user), TTL)
        with redis_errors():
            await pipe.execute()
            for board in BOARDS.values():
                names = self._stores.namespace
                await self._bump(keys=[names.board(board).meta, names.updates], args=[self._stores.installation, board.id])
        for user, profile in owed.items():
            if self._owed.get(user) is profile:
                del self._owed[user]
