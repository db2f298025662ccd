"""Connections of redis-py that belong to a generation, and that a reply from the wrong server costs.

Every connection of the node to Redis is one of these, whoever holds it: the pool, the direct client, the subscription.
They see each reply first, so no caller can forget to close one. redis-py calls them in asyncio code.
"""

from typing import Any, TypeVar

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from scoreboard.storage.connections.conditions import costs_connection, reply_code
from scoreboard.storage.connections.generation import Generation

Pool = TypeVar("Pool", bound=redis.asyncio.ConnectionPool)


class _OfGeneration(AbstractConnection):
    """A connection that is opened anew before its next call when it is of an older generation."""

    def __init__(self, *, generation: Generation, **options: Any) -> None:
        self._generation, self._number = generation, generation.number
        self._is_logged_in = False
        super().__init__(**options)

    async def connect(self) -> None:
        """What a pool does before each call."""
        if self.is_connected and self._number != self._generation.number:
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Opens the connection, if it is not. All ways to connect lead here."""
        if self.is_connected:
            return
        number, was_open = self._generation.number, self._is_logged_in
        self._is_logged_in = False
        await super().connect_check_health(check_health, retry_socket_connect)
        self._number, self._is_logged_in = number, True
        self._generation.reconnects += was_open

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """The reply. One that means "not here" makes whoever holds the connection close it after the call, and replaces
        all others.

        A refused log-in replaces nothing: connections that were opened before still work when a password was changed.
        """
        try:
            return await super().read_response(*args, **options)
        except redis.exceptions.RedisError as exc:
            code = reply_code(exc)
            if code is not None and costs_connection(exc):
                self.mark_for_reconnect()  # type: ignore[no-untyped-call]  # not closed here: a pipeline reads the other replies first
                if self._is_logged_in and self._number == self._generation.number:
                    self._generation.replace(code)
            raise

    def pack_command(self, *args: Any) -> list[bytes]:
        """redis-py packs an asyncio command argument by argument in Python: 260 µs for a batch of 64 actions, 50 µs
        here."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*name.split(), *args[1:]))]


class _Plain(_OfGeneration, redis.asyncio.Connection):
    """For redis:// URLs."""


class _Encrypted(_OfGeneration, redis.asyncio.SSLConnection):
    """For rediss:// URLs."""


class _Local(_OfGeneration, redis.asyncio.UnixDomainSocketConnection):
    """For unix:// URLs."""


_KINDS = {
    redis.asyncio.Connection: _Plain,
    redis.asyncio.SSLConnection: _Encrypted,
    redis.asyncio.UnixDomainSocketConnection: _Local,
}


def make_pool(kind: type[Pool], redis_url: str, generation: Generation, **options: Any) -> Pool:
    """A pool of redis-py's with connections of `generation`, of the class that the URL's scheme asks for.

    (redis-py's `from_url` ignores a class that it is given.) What the URL sets wins over `options`.
    """
    settings: dict[str, Any] = {**_plain(), **options, **parse_url(redis_url)}
    settings["connection_class"] = _KINDS[settings.get("connection_class", redis.asyncio.Connection)]
    return kind(generation=generation, **settings)


def _plain() -> dict[str, Any]:
    """By default redis-py repeats commands, scripts too; and while it listens for a vendor's maintenance notices it
    hands out connections that have ended, as all have after a restart of Redis."""
    return {"retry": Retry(NoBackoff(), 0), "maint_notifications_config": MaintNotificationsConfig(enabled=False)}
