"""Rules for pictures from other servers: which addresses may be connected to, and their paths on this server. Pure.

The formats of pictures are in picture_formats.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from scoreboard.domain.paths import AVATAR_PREFIX

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits, for hosts that have IPv6 alone
UNICAST = IPv6Network("2000::/3")  # RFC 4291: all addresses that are assigned for the Internet
PROTOCOL = IPv4Network("192.0.0.0/24")  # RFC 6890: some versions of Python treat parts of it as global
TEREDO = IPv6Network("2001::/32")  # RFC 4380: tunnels to an IPv4 address behind a router

_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193  # FNV-1a, 32 bits


def is_public(address: str) -> bool:
    """Whether an IP address is public: not of a local network, not loopback, and not reserved for a special purpose."""
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
    """The name of the host in an address, in lower case; "" when there is none, or when it is no address. Never
    raises."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        # an unpaired bracket, or a letter that normalises to / or ?, for example; plain SQL may have stored it
        return ""


def path(user: str, url: str) -> str:
    """The path on this server of a user's picture, whose address is `url`. static/drawing.js computes the same."""
    return f"{AVATAR_PREFIX}{user}?v={version(url)}"


def version(url: str) -> str:
    """A hash of a picture's address. It is part of the path, so that browsers load the picture again when it
    changes."""
    number = _FNV_OFFSET
    for character in url:
        number = (number ^ ord(character)) * _FNV_PRIME & 0xFFFFFFFF
    return f"{number:08x}"
