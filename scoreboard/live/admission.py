"""How many connections there may be: of one address, of one user, of this node. WebSockets, streams and waiting polls
count alike.

The counts are this node's and in memory. A WebSocket that is refused gets an error event before its close code, since a
script can't read the answer to a handshake that failed. A stream, a poll, and a plain GET of the WebSocket's path get a
problem.
"""

from enum import Enum
from typing import TypeVar
from uuid import UUID

from scoreboard.domain import protocol
from scoreboard.domain.errors import Code, LimitLayer, Refusal, rate_limited
from scoreboard.domain.protocol import LiveErrorCode

RETRY_AFTER_SECONDS = 5  # a guess: there is room as soon as one connection has ended

Key = TypeVar("Key")


class LimitReached(Enum):
    """Which limit is reached."""

    NODE = "node"
    ADDRESS = LimitLayer.IP
    USER = LimitLayer.USER


REFUSALS = {
    LimitReached.NODE: Refusal(
        Code.SERVICE_UNAVAILABLE, "There are too many connections here.", retry_after=RETRY_AFTER_SECONDS
    ),
    LimitReached.ADDRESS: rate_limited(
        LimitLayer.IP, "Too many connections from this address.", RETRY_AFTER_SECONDS, names_wait=False
    ),
    LimitReached.USER: rate_limited(
        LimitLayer.USER, "Too many connections of this user.", RETRY_AFTER_SECONDS, names_wait=False
    ),
}


def refusal_event(limit: LimitReached) -> bytes:
    """An error event's JSON, for a WebSocket that cannot get a problem: which limit is reached, when to try again."""
    refusal = REFUSALS[limit]
    return protocol.error(
        LiveErrorCode.TOO_MANY_CONNECTIONS,
        f"{refusal.detail} Next try in {RETRY_AFTER_SECONDS} s.",
        refusal.layer,
    )


class Admission:
    """Counts connections. 0 switches a limit off. Each `admit` has its `release`, whatever happens between.

    Bound: each count belongs to an open connection, and the process has so many descriptors.
    """

    __slots__ = ("_per_address", "_per_node", "_per_user", "addresses", "total", "users")

    def __init__(self, *, per_address: int = 0, per_user: int = 0, per_node: int = 0) -> None:
        self._per_address, self._per_user, self._per_node = per_address, per_user, per_node
        self.total = 0
        self.addresses: dict[str, int] = {}  # key of a client's address → its open connections
        self.users: dict[UUID, int] = {}

    def limit_reached(self, address: str) -> LimitReached | None:
        """The limit that one more connection from this address would exceed; None: it may be admitted."""
        if 0 < self._per_node <= self.total:
            return LimitReached.NODE
        if 0 < self._per_address <= self.addresses.get(address, 0):
            return LimitReached.ADDRESS
        return None

    def user_limit_reached(self, user: UUID) -> LimitReached | None:
        """The same for one more connection of this user."""
        return LimitReached.USER if 0 < self._per_user <= self.users.get(user, 0) else None

    def admit(self, address: str) -> None:
        self.total += 1
        self.addresses[address] = self.addresses.get(address, 0) + 1

    def identify(self, user: UUID) -> None:
        """A connection that was admitted is this user's. `release` must then be given the user too."""
        self.users[user] = self.users.get(user, 0) + 1

    def release(self, address: str, user: UUID | None) -> None:
        self.total -= 1
        _decrement(self.addresses, address)
        if user is not None:
            _decrement(self.users, user)


def _decrement(counts: dict[Key, int], key: Key) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
