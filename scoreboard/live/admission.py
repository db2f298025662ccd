"""How many connections there may be: of one address, of one user, of this node. WebSockets, streams and waiting polls
count alike.

Counts are this node's and in memory. A WebSocket that is refused is told why in an error event before its close code,
since a script can't read the answer to a handshake that failed; a stream, a poll, and a plain GET of the WebSocket's
path are told in a problem.
"""

from enum import Enum
from typing import TypeVar
from uuid import UUID

from scoreboard.domain import protocol as wire
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.protocol import LiveErrorCode

RETRY_AFTER = 5  # seconds; a place is free when somebody has left

Key = TypeVar("Key")


class LimitReached(Enum):
    """Which limit is reached."""

    NODE = "node"
    ADDRESS = "ip"
    USER = "user"


REFUSALS = {
    LimitReached.NODE: Refusal(
        Code.SERVICE_UNAVAILABLE, "There are too many connections here.", retry_after=RETRY_AFTER
    ),
    LimitReached.ADDRESS: Refusal(
        Code.RATE_LIMITED, "Too many connections from this address.", retry_after=RETRY_AFTER, layer="ip"
    ),
    LimitReached.USER: Refusal(
        Code.RATE_LIMITED, "Too many connections of this user.", retry_after=RETRY_AFTER, layer="user"
    ),
}


def refusal_event(full: LimitReached) -> bytes:
    """Why, by which limit, and when to try again, for whoever gets no problem: an error event's JSON."""
    refusal = REFUSALS[full]
    return wire.error(
        LiveErrorCode.TOO_MANY_CONNECTIONS, f"{refusal.detail} Next try in {RETRY_AFTER} s.", refusal.layer or ""
    )


class Admission:
    """0 switches a limit off. Whoever enters leaves, whatever happened between."""

    __slots__ = ("_per_address", "_per_node", "_per_user", "addresses", "total", "users")

    def __init__(self, *, per_address: int = 0, per_user: int = 0, per_node: int = 0) -> None:
        self._per_address, self._per_user, self._per_node = per_address, per_user, per_node
        self.total = 0
        # open ones by client address; both are bounded by the descriptors of the process
        self.addresses: dict[str, int] = {}
        self.users: dict[UUID, int] = {}

    def refuses(self, address: str) -> LimitReached | None:
        """Why one more from this address may not come."""
        if 0 < self._per_node <= self.total:
            return LimitReached.NODE
        if 0 < self._per_address <= self.addresses.get(address, 0):
            return LimitReached.ADDRESS
        return None

    def refuses_user(self, user: UUID) -> LimitReached | None:
        """Why one more of this user may not come."""
        return LimitReached.USER if 0 < self._per_user <= self.users.get(user, 0) else None

    def enter(self, address: str) -> None:
        self.total += 1
        self.addresses[address] = self.addresses.get(address, 0) + 1

    def identify(self, user: UUID) -> None:
        """One that has entered is this user's."""
        self.users[user] = self.users.get(user, 0) + 1

    def leave(self, address: str, user: UUID | None) -> None:
        self.total -= 1
        _count_down(self.addresses, address)
        if user is not None:
            _count_down(self.users, user)


def _count_down(counts: dict[Key, int], key: Key) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
