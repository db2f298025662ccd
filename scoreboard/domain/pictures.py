"""Rules for pictures that are fetched from other servers: allowed addresses, and their paths on this server. Pure.

For formats and sizes see picture_formats.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from scoreboard.domain.paths import AVATAR_PREFIX

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits, for hosts that have IPv6 alone
UNICAST = IPv6Network("2000::/3")  # RFC 4291: all addresses that are assigned for the Internet
PROTOCOL = IPv4Network("192.0.0.0/24")  # RFC 6890: parts of it count as global in some versions of Python
TEREDO = IPv6Network("2001::/32")  # RFC 4380: leads to an IPv4 address behind somebody's router

_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193  # FNV-1a, 32 bits


def is_public(address: str) -> bool:
    """Whether an IP address is a public one: not of a local network, of a machine itself or for a special purpose."""
    try:
        found = ip_address(address)
    except ValueError:  # a zone: link-local
        return False
    return _is_public(found)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address in NAT64:
            return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None:
            return _is_public(address.sixtofour)
        if address.scope_id or address not in UNICAST or address in TEREDO:
            return False
    elif address in PROTOCOL:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def host_of(url: str) -> str:
    """The host of a URL, in lower case; "" when it has none, or is no URL. Never raises."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        # a bracket without its pair, or a letter that NFKC makes a / or ? of: plain SQL may have written it
        return ""


def path(user: str, url: str) -> str:
    """The path on this server of a user's picture, which is at `url`. static/drawing.js does the same."""
    return f"{AVATAR_PREFIX}{user}?v={version(url)}"


def version(url: str) -> str:
    """A hash of the picture's URL. It stands in the path, so browsers fetch a new picture when the URL changes."""
    number = _FNV_OFFSET
    for character in url:
        number = (number ^ ord(character)) * _FNV_PRIME & 0xFFFFFFFF
    return f"{number:08x}"
