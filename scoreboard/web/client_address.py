"""The client's address behind trusted proxies, and the key under which an address is counted.

The address is the right-most hop of X-Forwarded-For that is no trusted proxy. A client may have written anything
further left. Pure.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network

from scoreboard.domain import user_agents
from scoreboard.domain.networks import ADDRESS_CACHE_SIZE, MAX_ADDRESS_LENGTH, networks_of, parse_address
from scoreboard.http.request import Request

MAX_HOPS = 16  # hops of X-Forwarded-For that are read, from the right: no installation has more proxies in a row

Network = IPv4Network | IPv6Network


def agent_of(request: Request) -> str:
    """The client's browser and system in words; "" when they are not known."""
    return user_agents.describe(request.header(b"user-agent").decode("latin-1"))


class Addresses:
    """Finds clients' addresses. `trusted_proxies`: networks whose X-Forwarded-For counts."""

    __slots__ = ("_is_trusted", "_trusts")

    def __init__(self, trusted_proxies: Sequence[Network] = ()) -> None:
        self._trusts = bool(trusted_proxies)

        @lru_cache(ADDRESS_CACHE_SIZE)
        def is_trusted(address: str) -> bool:
            parsed = parse_address(address)
            return parsed is not None and any(parsed in network for network in trusted_proxies)

        self._is_trusted = is_trusted

    def trusts(self, address: str) -> bool:
        """Whether the address is a trusted proxy's."""
        return self._trusts and self._is_trusted(address)

    def client(self, request: Request) -> str:
        """The client's address. A hop that is no address ends the search: the result is the proxy that wrote it.

        The fields are read once: web.rate_limit stores the result as `request.client_address`.
        """
        if request.client_address:
            return request.client_address
        address = request.socket.peer[0]
        if not self._trusts or not self._is_trusted(address):
            return address
        forwarded = b",".join(value for name, value in request.headers if name == b"x-forwarded-for")
        for hop in reversed(forwarded.decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            cleaned = _without_port(hop.strip())
            if parse_address(cleaned) is None:
                return address
            address = cleaned
            if not self._is_trusted(address):
                return address
        return address

    def rate_limit_key(self, request: Request) -> str:
        """The key under which rate limits count this request's client: its address, or the /64 of an IPv6 one."""
        return group(self.client(request)) if self._trusts else _group(request.socket.peer[0])


def group(address: str) -> str:
    """The key of an address: an IPv4 address itself, the /64 of an IPv6 address."""
    return _group(address) if len(address) <= MAX_ADDRESS_LENGTH else address[:MAX_ADDRESS_LENGTH]


@lru_cache(ADDRESS_CACHE_SIZE)
def _group(address: str) -> str:
    return networks_of(address)[0]


def _without_port(hop: str) -> str:
    """Some proxies write 192.0.2.1:4711 or [2001:db8::1]:4711."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
