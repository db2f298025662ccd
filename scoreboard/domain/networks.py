"""IP addresses and their networks as text, which are the keys of rate limits; and local domains. Pure."""

from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# bits; a device, a household and a site usually get a network of these sizes, and can use all its addresses
IPV6_PREFIXES = (64, 56, 48)
IPV4_PREFIX = 24  # bits; the smallest block that is routed by itself, so an attacker can rent one
# Domains that nobody can register: names of the local machine or network (RFC 6761, 6762, 8375, ICANN's .internal), and
# names reserved for tests and documentation (RFC 6761), which exist only if a network's own resolver defines them.
LOCAL_DOMAINS = ("localhost", "local", "internal", "home.arpa")
RESERVED_DOMAINS = ("test", "example", "invalid")
MAX_ADDRESS_LENGTH = 64  # characters; the longest address with a zone has fewer. Longer text is no address
ADDRESS_CACHE_SIZE = 16_384  # parsed addresses, about 3 MB


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address; None when the text is no address. An IPv4 address written as IPv6 (`::ffff:192.0.2.1`) becomes
    IPv4."""
    # checked before the cache, which must not store long headers
    return _parse(text) if len(text) <= MAX_ADDRESS_LENGTH else None


def networks_of(address: str) -> tuple[str, ...]:
    """The networks under which an address is counted, the smallest first: /64, /56 and /48 for IPv6, the address itself
    and its /24 for IPv4. Other text: itself, cut to MAX_ADDRESS_LENGTH."""
    parsed = parse_address(address)
    if parsed is None:
        return (address[:MAX_ADDRESS_LENGTH],)
    if isinstance(parsed, IPv6Address):
        return tuple(str(ip_network((parsed, prefix), strict=False)) for prefix in IPV6_PREFIXES)
    return str(parsed), str(ip_network((parsed, IPV4_PREFIX), strict=False))


def is_in_domain(host: str, domains: Collection[str]) -> bool:
    """Whether a host's name, in lower case, is one of these domains or a name below one."""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


@lru_cache(ADDRESS_CACHE_SIZE)
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        # without the zone of "fe80::1%eth0", which is valid on one machine only
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
