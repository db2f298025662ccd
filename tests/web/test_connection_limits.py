"""Which addresses may open connections, and when an address is blocked."""

from ipaddress import ip_network

import pytest

from scoreboard.web import connection_limits
from scoreboard.web.client_address import Addresses
from scoreboard.web.connection_limits import (
    BLOCKED_SECONDS,
    FLOOD_REFUSALS,
    FLOOD_SECONDS,
    MALFORMED_COST,
    PROBES_PER_MINUTE,
    ConnectionLimits,
)
from scoreboard.web.rate_limit import USERS_LIMIT_FACTOR


class Clock:
    """A time that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_so_many_of_one_address() -> None:
    """One more than the limit is refused, another address is not; a connection that ends makes room."""
    limits = ConnectionLimits(Addresses(), 2)
    assert [limits.admit("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert limits.admit("192.0.2.2")
    limits.release("192.0.2.1")
    assert limits.admit("192.0.2.1")


def test_a_household_is_one_address() -> None:
    """IPv6 addresses count by their network, and an IPv4 address is the same in either notation."""
    limits = ConnectionLimits(Addresses(), 1)
    assert limits.admit(limits.peer_group("2001:db8::1"))
    assert not limits.admit(limits.peer_group("2001:db8::2"))
    assert limits.admit(limits.peer_group("2001:db8:0:1::1"))
    assert limits.admit(limits.peer_group("192.0.2.1"))
    assert not limits.admit(limits.peer_group("::ffff:192.0.2.1"))


def test_zero_is_no_limit() -> None:
    """And a trusted proxy has none in any case."""
    assert all(ConnectionLimits(Addresses(), 0).admit("192.0.2.1") for _ in range(1000))
    proxied = ConnectionLimits(Addresses([ip_network("10.0.0.0/8")]), 1)
    assert all(proxied.admit(proxied.peer_group("10.0.0.1")) for _ in range(1000))
    proxied.release("10.0.0.1")
    assert not proxied._open


def test_an_ipv6_proxy_is_known_by_its_address() -> None:
    """It is exempt; its neighbours in the same /64 are one group."""
    limits = ConnectionLimits(Addresses([ip_network("2001:db8::5/128")]), 1)
    assert all(limits.admit(limits.peer_group("2001:db8::5")) for _ in range(10))
    assert limits.peer_group("2001:db8::6") == limits.peer_group("2001:db8::7")
    assert [limits.admit(limits.peer_group(f"2001:db8::{last}")) for last in (6, 7)] == [True, False]


def test_connections_come_no_faster_than_requests_may() -> None:
    """An address that opens and closes connections may first open as many as may be open at once, then one for each
    allowed request."""
    clock = Clock()
    # 64 a second: a float has no error
    limits = ConnectionLimits(Addresses(), 100, 60 * 64 - PROBES_PER_MINUTE, clock=clock)

    def opened(address: str, times: int) -> int:
        admitted = 0
        for _ in range(times):
            if limits.admit(address):
                limits.release(address)
                admitted += 1
        return admitted

    assert opened("192.0.2.1", 1000) == 100
    assert opened("192.0.2.2", 10) == 10
    clock.now += 1
    assert opened("192.0.2.1", 1000) == 64
    clock.now += 10
    assert opened("192.0.2.1", 1000) == 100


@pytest.mark.parametrize("most", [1, 2, 2000])
def test_rounding_refuses_nobody(most: int) -> None:
    """Exactly the allowed number may come at once, whatever the clock says, even if no float has the exact interval."""
    clock, rate = Clock(), USERS_LIMIT_FACTOR * 1000  # limits.ip_per_minute
    for hours in range(0, 2000, 97):
        clock.now = 3600 * hours + hours / 7
        limits = ConnectionLimits(Addresses(), most, rate, clock=clock)
        for turn in range(most + 1):
            assert limits.admit("192.0.2.1") is (turn < most)
            limits.release("192.0.2.1")


def test_who_asks_as_often_as_allowed_has_a_connection_for_each() -> None:
    """Requests without keep-alive and a balancer's probes, all day long."""
    clock = Clock()
    limits = ConnectionLimits(Addresses(), 10, 1000, clock=clock)
    for _ in range(5_000):
        clock.now += 60 / (1000 + PROBES_PER_MINUTE)
        assert limits.admit("192.0.2.1")
        limits.release("192.0.2.1")


def test_malformed_requests_count_as_many_connections() -> None:
    """An address that sends nothing else is refused for a while, others are not. That time is limited, however many
    there were."""
    clock = Clock()
    limits = ConnectionLimits(Addresses(), 10 * MALFORMED_COST, 60 * 64 - PROBES_PER_MINUTE, clock=clock)
    for _ in range(9):
        limits.count_malformed("192.0.2.1")
    assert limits.admit("192.0.2.1")
    for _ in range(1000):
        limits.count_malformed("192.0.2.1")
    assert not limits.admit("192.0.2.1")
    assert limits.admit("192.0.2.2")
    clock.now += 10 * MALFORMED_COST / 64
    assert limits.admit("192.0.2.1")


def test_without_a_limit_of_requests_or_connections_there_is_no_rate() -> None:
    """Either limit that is off switches the rate off."""
    for limits in (ConnectionLimits(Addresses(), 0, 1000), ConnectionLimits(Addresses(), 10, 0)):
        for _ in range(1000):
            assert limits.admit("192.0.2.1")
            limits.release("192.0.2.1")


def test_an_address_without_connections_is_dropped() -> None:
    """An address without a connection takes no memory."""
    limits = ConnectionLimits(Addresses(), 5)
    for number in range(100):
        assert limits.admit(f"192.0.2.{number}")
        limits.release(f"192.0.2.{number}")
    assert not limits._open


def test_a_flood_blocks_its_address_for_a_while() -> None:
    """After so many refusals an address is not accepted for some seconds; then it is again."""
    clock = Clock()
    limits = ConnectionLimits(Addresses(), 0, clock=clock)
    assert not any(limits.count_refusal("192.0.2.1") for _ in range(FLOOD_REFUSALS))
    assert limits.admit("192.0.2.1")
    assert limits.count_refusal("192.0.2.1")
    assert not limits.admit("192.0.2.1")
    assert limits.admit("192.0.2.2")
    clock.now += BLOCKED_SECONDS
    assert limits.admit("192.0.2.1")
    assert not limits._blocked


def test_refusals_now_and_then_are_no_flood() -> None:
    """A client that obeys Retry-After each time is never blocked."""
    clock = Clock()
    limits = ConnectionLimits(Addresses(), 0, clock=clock)
    for _ in range(20 * FLOOD_REFUSALS):
        clock.now += 2 * FLOOD_SECONDS / FLOOD_REFUSALS
        assert not limits.count_refusal("192.0.2.1")


def test_memory_of_rates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most MAX_ADDRESSES are stored for the rate, and none that is within its rate again."""
    monkeypatch.setattr(connection_limits, "MAX_ADDRESSES", 10)
    clock = Clock()
    limits = ConnectionLimits(Addresses(), 10, 1000, clock=clock)
    for number in range(100):
        limits.admit(f"192.0.2.{number}")
    assert len(limits._due) == 10
    clock.now += 60
    limits.admit("192.0.2.1")
    assert len(limits._due) == 1


def test_memory_is_bounded() -> None:
    """In a flood from many addresses the oldest refusals are dropped, and at most MAX_ADDRESSES are blocked."""
    clock = Clock()
    limits = ConnectionLimits(Addresses(), 0, clock=clock)
    for number in range(connection_limits.MAX_ADDRESSES + 10):
        limits.count_refusal(str(number))
    assert len(limits._refusals) == connection_limits.MAX_ADDRESSES
