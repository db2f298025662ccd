"""Do the stores answer? For /readyz; bounded, since orchestrators ask with time-outs of their own."""

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.storage.bridge import crossing, postgres_errors, redis_errors
from scoreboard.storage.connections import Stores
from scoreboard.storage.unhurried import Unhurried

PATIENCE = 0.5  # seconds for each store


class Probe:
    """Asks both stores. One for the process: a question that hangs is not asked twice."""

    __slots__ = ("_postgres", "_stores")

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._postgres: Unhurried[bool] = Unhurried()

    async def __call__(self) -> dict[str, bool]:
        """By store: whether it answered within PATIENCE. A PostgreSQL that takes no writes (a standby) counts as down."""
        return await crossing(self._ask)

    async def _ask(self) -> dict[str, bool]:
        answers = {"postgresql": False, "redis": False}
        try:
            answers["postgresql"] = bool(await self._postgres(PATIENCE, self._takes_writes))
        except StorageUnavailable:
            pass
        try:
            with redis_errors():
                answers["redis"] = bool(await self._stores.redis.ping())
        except StorageUnavailable:
            pass
        return answers

    async def _takes_writes(self) -> bool:
        with postgres_errors():
            return bool(await self._stores.pool.fetchval("SELECT NOT pg_is_in_recovery()"))
