"""Whose request it is: the client's address behind any proxies that we trust, and the key under which an address is counted.

The address is the right-most hop of X-Forwarded-For that is no trusted proxy: what stands further left anybody may have written. Pure.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from scoreboard.runtime.messages import Request

IPV6_PREFIX = 64  # bits; a household or a server is given at least a /64, so an address of it says nothing of who
CACHED = 16_384  # addresses whose parsing is remembered, about 3 MB

Network = IPv4Network | IPv6Network


class Addresses:
    """Knows the trusted proxies. Tells addresses as text, in one spelling each."""

    __slots__ = ("_is_trusted", "_trusts")

    def __init__(self, trusted_proxies: Sequence[Network] = ()) -> None:
        self._trusts = bool(trusted_proxies)

        @lru_cache(CACHED)
        def is_trusted(address: str) -> bool:
            parsed = _parse(address)
            return parsed is not None and any(parsed in network for network in trusted_proxies)

        self._is_trusted = is_trusted

    def trusts(self, address: str) -> bool:
        """Whether it is a trusted proxy's."""
        return self._trusts and self._is_trusted(address)

    def client(self, request: Request) -> str:
        """The client's address. A hop that is no address ends the search: the proxy that wrote it is answered for."""
        address = request.socket.peer[0]
        if not self._trusts or not self._is_trusted(address):
            return address
        forwarded = b",".join(value for name, value in request.headers if name == b"x-forwarded-for")
        for hop in reversed(forwarded.decode("latin-1").split(",")):
            cleaned = _without_port(hop.strip())
            if _parse(cleaned) is None:
                return address
            address = cleaned
            if not self._is_trusted(address):
                return address
        return address

    def counted(self, request: Request) -> str:
        """The key that this request's client is counted under."""
        return group(self.client(request))


@lru_cache(CACHED)
def group(address: str) -> str:
    """IPv4 addresses stand for themselves, IPv6 ones for their /64."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, IPV6_PREFIX), strict=False))
    return address if parsed is None else str(parsed)


@lru_cache(CACHED)
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text.partition("%")[0])  # a zone ("fe80::1%eth0") is the reader's business
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed


def _without_port(hop: str) -> str:
    """Some proxies write 192.0.2.1:4711 or [2001:db8::1]:4711."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
