"""Which addresses may open connections: a limit at once, a limit per minute, and none for some seconds after a flood of
refused requests.

`http.server` calls `admit` as connections are accepted, before a byte is read. web.rate_limit reports every request
that it refused. A trusted proxy opens connections for everybody behind it and is exempt. No I/O; refused connections
are counted for /metrics. The clock is a parameter.
"""

from collections import OrderedDict
from collections.abc import Callable

import trio

from scoreboard.telemetry import metrics
from scoreboard.web.client_address import Addresses, group

# Refused requests of one address, or user, within FLOOD_SECONDS. A client that waits for Retry-After has far fewer.
FLOOD_REFUSALS = 200
FLOOD_SECONDS = 10.0
FLOODING_USERS = 20  # of one address, which is blocked then: so many floods at once are no accident
BLOCKED_SECONDS = 5.0  # short: an orchestrator may share the address, and three missed probes restart a node
# Addresses and users whose refusals are counted, about 4 MB. Full: the one that was refused first is dropped.
MAX_ADDRESSES = 20_000
# Connections that a malformed request counts as. No client sends one, and it may cost a millisecond to refuse.
MALFORMED_COST = 50
PROBES_PER_MINUTE = 1200  # of one address: twenty a second, for every balancer that shares it


class ConnectionLimits:
    """`per_address`: connections of one address at once, 0 for no limit.

    `requests_per_minute`: the limit of an address' requests, 0 for no limit. An address may open as many connections a
    minute, and PROBES_PER_MINUTE more, in bursts of `per_address` (GCRA). `clock` gives seconds and never goes back.
    """

    __slots__ = (
        "_addresses",
        "_blocked",
        "_burst",
        "_clock",
        "_due",
        "_interval",
        "_open",
        "_per_address",
        "_refusals",
    )

    def __init__(
        self,
        addresses: Addresses,
        per_address: int,
        requests_per_minute: int = 0,
        *,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._addresses, self._per_address, self._clock = addresses, per_address, clock
        self._interval = 60 / (requests_per_minute + PROBES_PER_MINUTE) if requests_per_minute and per_address else 0.0
        self._burst = per_address * self._interval  # seconds that an address may be ahead
        # by the key of an address: when it is no longer ahead; the newest last
        self._due: OrderedDict[str, float] = OrderedDict()
        self._open: dict[str, int] = {}  # by the key of an address; bounded by the descriptors of the process
        self._refusals: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, how many
        self._blocked: dict[str, float] = {}  # until when

    def peer_group(self, address: str) -> str:
        """The key under which connections of this address are counted: a trusted proxy's own address, else
        `client_address.group`."""
        return address if self._addresses.trusts(address) else group(address)

    def admit(self, key: str) -> bool:
        """Whether one more connection of that `peer_group` is accepted. If so, `release` must be called once when it
        has ended."""
        if self._addresses.trusts(key):
            return True
        if self._blocked and self._is_blocked(key):
            metrics.CONNECTIONS_REFUSED.labels("flood").inc()
            return False
        count = self._open.get(key, 0)
        if 0 < self._per_address <= count:
            metrics.CONNECTIONS_REFUSED.labels("address").inc()
            return False
        if self._interval and not self._is_in_time(key):
            metrics.CONNECTIONS_REFUSED.labels("rate").inc()
            return False
        self._open[key] = count + 1
        return True

    def _is_in_time(self, key: str) -> bool:
        """Counts one more connection of that address. False: it has opened too many, and this one is not counted."""
        now = self._clock()
        due = max(self._due.get(key, now), now) + self._interval
        # Half an interval of tolerance: rounding errors are smaller, and one connection too many is a whole interval.
        if due - now > self._burst + self._interval / 2:
            return False
        self._set_due(key, due, now)
        return True

    def _set_due(self, key: str, due: float, now: float) -> None:
        self._due[key] = due
        self._due.move_to_end(key)
        while len(self._due) > MAX_ADDRESSES or next(iter(self._due.values())) <= now:
            self._due.popitem(last=False)

    def release(self, key: str) -> None:
        """A connection that was admitted has ended."""
        if self._addresses.trusts(key):
            return
        left = self._open.get(key, 0) - 1
        if left > 0:
            self._open[key] = left
        else:
            self._open.pop(key, None)

    def count_malformed(self, key: str) -> None:
        """Counts a malformed request of that address as MALFORMED_COST connections. So an address that sends nothing
        else may open few connections."""
        if self._interval:
            now = self._clock()
            ahead = max(self._due.get(key, now) - now, 0.0)
            self._set_due(key, now + min(ahead + MALFORMED_COST * self._interval, self._burst), now)

    def count_refusal(self, key: str) -> bool:
        """Counts a request that was refused because of its address' limit, under the address' key.

        True: this is a flood. The address is blocked, and the caller closes the connection.
        """
        if not self._is_flood(key, FLOOD_REFUSALS):
            return False
        self._block(key)
        return True

    def count_user_refusal(self, user: str, key: str) -> bool:
        """Counts a request that was refused because of its user's limit; `key` is its address'. True: this is a flood,
        and the caller closes the connection.

        One user's flood does not block the address, which others may share. The address is blocked when its users'
        refusals, those in a flood left out, are as many as FLOODING_USERS floods.
        """
        if self._is_flood(user, FLOOD_REFUSALS):
            return True
        if not self._is_flood(f"users of {key}", FLOODING_USERS * FLOOD_REFUSALS):
            return False
        self._block(key)
        return True

    def _is_flood(self, key: str, allowed: int) -> bool:
        """Counts one more refusal under that key; True when there were more than `allowed` within FLOOD_SECONDS."""
        now = self._clock()
        since, count = self._refusals.get(key, (now, 0))
        if now - since > FLOOD_SECONDS:
            since, count = now, 0
        if key not in self._refusals and len(self._refusals) >= MAX_ADDRESSES:
            self._refusals.popitem(last=False)
        self._refusals[key] = (since, count + 1)
        return count >= allowed

    def _block(self, key: str) -> None:
        """Blocks the address for BLOCKED_SECONDS."""
        now = self._clock()
        if len(self._blocked) >= MAX_ADDRESSES:
            self._blocked = {each: until for each, until in self._blocked.items() if until > now}
        if len(self._blocked) < MAX_ADDRESSES:
            self._blocked[key] = now + BLOCKED_SECONDS

    def _is_blocked(self, key: str) -> bool:
        until = self._blocked.get(key)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._blocked[key]
        return False
