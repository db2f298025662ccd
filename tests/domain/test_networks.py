"""Networks that count an address: rising prefixes of IPv6, IPv4 however it is written."""

import pytest

from scoreboard.domain import networks
from scoreboard.domain.networks import LOCAL_DOMAINS, is_in_domain, networks_of, parse_address


@pytest.mark.parametrize(
    ("address", "counting"),
    [
        ("2001:db8:1:203::9", ("2001:db8:1:203::/64", "2001:db8:1:200::/56", "2001:db8:1::/48")),
        ("fe80::1%eth0", ("fe80::/64", "fe80::/56", "fe80::/48")),
        ("192.0.2.9", ("192.0.2.9", "192.0.2.0/24")),
        ("::ffff:192.0.2.9", ("192.0.2.9", "192.0.2.0/24")),
        ("no address", ("no address",)),
        ("", ("",)),
    ],
)
def test_the_smallest_network_comes_first(address: str, counting: tuple[str, ...]) -> None:
    """An IPv6 address is counted by what its owner has, an IPv4 one by itself first."""
    assert networks_of(address) == counting


def test_long_text_is_neither_parsed_nor_kept() -> None:
    """A header of 16 kB is no address, and 16,384 of them in a cache would be 256 MiB."""
    before = networks._parse.cache_info().currsize
    assert parse_address("2001:db8::" + "0" * 16_000) is None
    assert len(networks_of("1" * 16_000)[0]) == networks.MAX_ADDRESS_LENGTH
    assert networks._parse.cache_info().currsize == before


def test_a_domain_has_whole_labels() -> None:
    """Itself and what is below it; no name that only ends alike."""
    assert all(is_in_domain(host, LOCAL_DOMAINS) for host in ("localhost", "printer.local", "a.b.home.arpa"))
    assert not any(
        is_in_domain(host, LOCAL_DOMAINS)
        for host in ("", "mylocalhost", "local.example.org", "arpa", "home.arpa.example.org")
    )
