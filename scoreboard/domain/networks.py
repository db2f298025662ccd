"""Internet addresses and their networks as text, the keys of rate limits; and the names of local domains. Pure."""

from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# bits; the usual prefixes of a device, a household and a site. Whoever has a prefix has all its addresses
IPV6_PREFIXES = (64, 56, 48)
IPV4_PREFIX = 24  # bits; the smallest block that is routed by itself, and that one can rent
# Domains that nobody can own in the public DNS. Local ones are of a machine or its network (RFC 6761, 6762, 8375,
# ICANN's .internal). Reserved ones are for tests and documentation (RFC 6761), unless a network's own resolver knows
# them.
LOCAL_DOMAINS = ("localhost", "local", "internal", "home.arpa")
RESERVED_DOMAINS = ("test", "example", "invalid")
MAX_ADDRESS_LENGTH = 64  # characters; no address has more, with a usual zone
ADDRESS_CACHE_SIZE = 16_384  # parsed addresses, about 3 MB


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address; None when the text is none. IPv4 that is written as IPv6 (`::ffff:192.0.2.1`) is IPv4."""
    # checked before the cache, which must not hold long texts
    return _parse(text) if len(text) <= MAX_ADDRESS_LENGTH else None


def networks_of(address: str) -> tuple[str, ...]:
    """The networks that count an address, the smallest first: IPv6 /64, /56, /48; IPv4 the address itself, then its
    /24."""
    parsed = parse_address(address)
    if parsed is None:
        return (address[:MAX_ADDRESS_LENGTH],)
    if isinstance(parsed, IPv6Address):
        return tuple(str(ip_network((parsed, prefix), strict=False)) for prefix in IPV6_PREFIXES)
    return str(parsed), str(ip_network((parsed, IPV4_PREFIX), strict=False))


def is_in_domain(host: str, domains: Collection[str]) -> bool:
    """Whether a host's name, in lower case, is one of these domains, or in one."""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


@lru_cache(ADDRESS_CACHE_SIZE)
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text.partition("%")[0])  # a zone ("fe80::1%eth0") is the reader's business
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
