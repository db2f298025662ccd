"""Connections of redis-py that belong to a generation, and that close after a reply from the wrong server.

Every connection of the node to Redis is one of these: in the pool, in the direct client, and for the subscription. A
connection checks each reply itself, so no caller has to. redis-py calls it in asyncio.
"""

from typing import Any, TypeVar

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from scoreboard.drivers.conditions import costs_connection, reply_code
from scoreboard.drivers.generation import Generation

Pool = TypeVar("Pool", bound=redis.asyncio.ConnectionPool)


class GenerationConnection(AbstractConnection):
    """A connection that reconnects before its next call when it belongs to an older generation."""

    def __init__(self, *, generation: Generation, **options: Any) -> None:
        self._generation, self._number = generation, generation.number
        self._is_logged_in = False
        super().__init__(**options)

    async def connect(self) -> None:
        """Called by a pool before each call."""
        if self.is_connected and self._number != self._generation.number:
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Opens the connection, if it is not open. Every way to connect calls this."""
        if self.is_connected:
            return
        number, was_open = self._generation.number, self._is_logged_in
        self._is_logged_in = False
        await super().connect_check_health(check_health, retry_socket_connect)
        self._number, self._is_logged_in = number, True
        self._generation.reconnects += was_open

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """The reply. After one that means "not here", this connection reconnects after the call, and all others are
        replaced.

        A refused log-in replaces no other connection: after a change of the password open connections still work.
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
        """Packs a command with hiredis: 50 µs for a batch of 64 actions. redis-py's own Python code takes 260 µs."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*name.split(), *args[1:]))]


class TcpConnection(GenerationConnection, redis.asyncio.Connection):
    """For redis:// URLs."""


class TlsConnection(GenerationConnection, redis.asyncio.SSLConnection):
    """For rediss:// URLs."""


class UnixConnection(GenerationConnection, redis.asyncio.UnixDomainSocketConnection):
    """For unix:// URLs."""


_KINDS = {
    redis.asyncio.Connection: TcpConnection,
    redis.asyncio.SSLConnection: TlsConnection,
    redis.asyncio.UnixDomainSocketConnection: UnixConnection,
}


def make_pool(kind: type[Pool], redis_url: str, generation: Generation, **options: Any) -> Pool:
    """A pool of redis-py with connections of `generation`. The scheme of the URL decides on their class.

    redis-py's `from_url` ignores a given connection class, so it is not used. Options in the URL override `options`.
    """
    settings: dict[str, Any] = {**_plain(), **options, **parse_url(redis_url)}
    settings["connection_class"] = _KINDS[settings.get("connection_class", redis.asyncio.Connection)]
    return kind(generation=generation, **settings)


def _plain() -> dict[str, Any]:
    """Options that switch off two defaults of redis-py. It repeats commands, scripts too. And while it subscribes to a
    vendor's maintenance notices, its pool returns connections that have ended, as all have after a restart of Redis."""
    return {"retry": Retry(NoBackoff(), 0), "maint_notifications_config": MaintNotificationsConfig(enabled=False)}
