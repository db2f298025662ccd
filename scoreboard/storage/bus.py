"""Pub/Sub between the nodes: hints that something is newer, never data that anything depends on.

There is one channel. A payload consists of lines: the kind, the installation, and what the kind needs.

- `board`: a Lua script has changed a board.
- `beat`: sent by each node once a second, with its number of viewers. Without it a half-open subscription is not
  noticed.
- `revoked`: a session has ended.
- `rejected`: an action that waited for a decision was refused. A node of a version without this kind ignores it.

`decode` is pure; `Bus.listen` receives payloads and does not decode them.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

import msgspec

from scoreboard.domain.actions import DECODE_ERRORS
from scoreboard.domain.boards import BoardVersion
from scoreboard.domain.ledger_rows import ScoreEvent
from scoreboard.drivers.bridge import redis_errors, run_in_asyncio
from scoreboard.drivers.stores import Stores

# from connecting to the confirmation; a silent address is tried again soon, since it may lead to another server then
SUBSCRIBE_TIMEOUT_SECONDS = 0.5


class Personal(msgspec.Struct, frozen=True):
    """One recorded action, for its user's connections. `rank` as of the call that applied it."""

    user: UUID
    previous: int
    new: int
    points: int
    rank: int | None
    at_ms: int
    request_id: str


class Update(msgspec.Struct, frozen=True):
    """A board has a newer version. `shown_version` is the version at which its shown rows last changed."""

    board: str
    version: BoardVersion
    shown_version: int
    personal: tuple[Personal, ...]

    @property
    def position(self) -> str:
        return f"{self.version.epoch}-{self.shown_version}"

    def without_ranks(self) -> "Update":
        """The same message with every rank None."""
        return msgspec.structs.replace(
            self, personal=tuple(msgspec.structs.replace(one, rank=None) for one in self.personal)
        )


class Heartbeat(msgspec.Struct, frozen=True):
    node: str
    viewers: int = 0  # connected to this node


class Revoked(msgspec.Struct, frozen=True):
    sid: UUID


class Rejected(msgspec.Struct, frozen=True):
    """An action of that user was refused after it had waited, for the reason."""

    user: UUID
    action_id: str
    action_type: str
    reason: str


BusMessage = Update | Heartbeat | Revoked | Rejected

_encode = msgspec.json.Encoder().encode
_decode_rejected = msgspec.json.Decoder(Rejected).decode
_decode_events = msgspec.json.Decoder(list[ScoreEvent]).decode


def decode(payload: bytes, installation: str) -> BusMessage | None:
    """The message in a payload; None when this version can't read it, or when it is another installation's."""
    kind, _, rest = payload.partition(b"\n")
    sender, _, rest = rest.partition(b"\n")
    if sender != installation.encode():
        return None
    try:
        match kind:
            case b"board":
                return _update(rest)
            case b"beat":
                node, _, viewers = rest.decode().partition("\n")
                return Heartbeat(node, max(0, int(viewers))) if viewers else Heartbeat(node)
            case b"revoked":
                return Revoked(UUID(rest.decode()))
            case b"rejected":
                return _decode_rejected(rest)
    except (ValueError, IndexError, *DECODE_ERRORS):
        return None
    return None


def _update(rest: bytes) -> Update:
    board, epoch, version, shown_version, csv, events = rest.split(b"\n", 5)
    ranks = [int(rank) or None for rank in csv.split(b",")] if csv else []
    personal = tuple(
        Personal(UUID(one.subject), one.previous, one.new, one.points, ranks[one.place], one.at_ms, one.request_id)
        for one in _decode_events(events)
    )
    return Update(board.decode(), BoardVersion(int(epoch), int(version)), int(shown_version), personal)


class Bus:
    """Publishes and listens. Trio-flavoured; one for the process."""

    __slots__ = ("_stores",)

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def decode(self, payload: bytes) -> BusMessage | None:
        """The message in a payload; None when it can't be read or is another installation's."""
        return decode(payload, self._stores.installation)

    async def publish_beat(self, node: str, viewers: int = 0) -> None:
        """Publishes a heartbeat to all nodes, this one included, with this node's number of viewers.

        Raises StorageUnavailable.
        """
        await self._publish(f"beat\n{self._stores.installation}\n{node}\n{viewers}")

    async def publish_revoked(self, sid: UUID) -> None:
        """Publishes to all nodes that a session has ended. Raises StorageUnavailable; the nodes then read it from
        PostgreSQL within 2 s."""
        await self._publish(f"revoked\n{self._stores.installation}\n{sid}")

    async def publish_rejected(self, user: UUID, action_id: str, action_type: str, reason: str) -> None:
        """Publishes to all nodes that an action of the user was refused. Raises StorageUnavailable; then the user's own
        list has it."""
        rejected = _encode(Rejected(user, action_id, action_type, reason)).decode()
        await self._publish(f"rejected\n{self._stores.installation}\n{rejected}")

    async def _publish(self, payload: str) -> None:
        await self._stores.command("PUBLISH", self._stores.namespace.updates, payload)

    async def listen(self, subscribed: Callable[[], None], deliver: Callable[[bytes], None]) -> None:
        """Calls `subscribed` after each confirmed subscription, and `deliver` with every payload after it. Runs for
        ever. Neither callback may wait.

        When all connections to Redis are replaced, it subscribes again. Raises StorageUnavailable when the connection
        ends. It does not notice a half-open connection; heartbeats are for that. Cancelling closes the subscription.
        """
        await run_in_asyncio(self._listen_aio, subscribed, deliver)

    async def _listen_aio(self, subscribed: Callable[[], None], deliver: Callable[[bytes], None]) -> None:
        while True:
            replaced = asyncio.ensure_future(self._stores.redis_generation.wait_ended_aio())
            receiving = asyncio.ensure_future(self._receive_aio(subscribed, deliver))
            try:
                await asyncio.wait({receiving, replaced}, return_when=asyncio.FIRST_COMPLETED)
                if receiving.done():
                    receiving.result()
            finally:
                replaced.cancel()
                receiving.cancel()
                await asyncio.gather(receiving, replaced, return_exceptions=True)

    async def _receive_aio(self, subscribed: Callable[[], None], deliver: Callable[[bytes], None]) -> None:
        client = self._stores.subscriber()
        pubsub = client.pubsub()
        try:
            with redis_errors():
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_SECONDS):
                    await pubsub.subscribe(self._stores.namespace.updates)
                    message = await pubsub.get_message(timeout=None)
                while True:
                    if message is not None and message["type"] == "subscribe":
                        subscribed()  # again after a reconnection that redis-py made by itself
                    elif message is not None:
                        deliver(message["data"])
                    message = await pubsub.get_message(timeout=None)
        finally:
            await pubsub.aclose()
            await client.aclose()
