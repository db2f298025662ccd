"""The client's address: a client can't forge one by X-Forwarded-For, and a proxy's address never counts for its
clients."""

from ipaddress import ip_network

import pytest

from scoreboard.http.request import Request
from scoreboard.web.client_address import Addresses, group
from tests.web.requests import request

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8:f::/48"))


def forwarded_by(peer: str, *forwarded: str) -> Request:
    return request((b"host", b"x"), *((b"x-forwarded-for", value.encode("latin-1")) for value in forwarded), peer=peer)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),  # the peer is no trusted proxy: its field is ignored
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),  # the left one was sent by the client
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # all are trusted: the farthest
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["\xe9\xff"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("2001:db8:f::1", ["[2001:db8:1::9]:4711"], "2001:db8:1::9"),
        ("2001:db8:f::1", ["2001:db8:1::9"], "2001:db8:1::9"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_the_client_is_the_right_most_hop_that_is_no_proxy(peer: str, forwarded: list[str], client: str) -> None:
    """Read from the right, as far as we trust."""
    assert Addresses(PROXIES).client(forwarded_by(peer, *forwarded)) == client


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    """X-Forwarded-For is ignored."""
    assert Addresses().client(forwarded_by("10.0.0.1", "198.51.100.1")) == "10.0.0.1"


def test_ipv6_is_counted_by_network() -> None:
    """A /64 is one key; an IPv4 address is its own key, however it is written."""
    assert group("2001:db8::1") == group("2001:db8::ffff:1") != group("2001:db8:0:1::1")
    assert group("203.0.113.7") == group("::ffff:203.0.113.7") == "203.0.113.7"
    assert group("203.0.113.7") != group("203.0.113.8")
    assert group("fe80::1%eth0") == group("fe80::2")
    assert group("") == ""
