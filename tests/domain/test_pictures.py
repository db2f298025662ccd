"""Which addresses are of the Internet, and how ours names a picture."""

import pytest

from scoreboard.domain.pictures import host_of, is_public, path, version


@pytest.mark.parametrize(
    ("url", "host"),
    [
        *(("https://Pictures.example.org:443/a.png", "pictures.example.org"), ("//[::1]:80", "::1")),
        *(
            (text, "")
            for text in (
                "https://[bad",
                "https://\u2100.example/a.png",
                "a.png",
                "",
                "https://",
                "mailto:a@b",
                "\x00",
                "]",
            )
        ),
    ],
)
def test_the_host_of_an_address(url: str, host: str) -> None:
    """In lower case, without the port; none of what is no address, whatever it is."""
    assert host_of(url) == host


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"]
)
def test_addresses_of_the_internet(address: str) -> None:
    """IPv4, IPv6, and IPv4 within IPv6: mapped, NAT64, 6to4."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "192.0.0.8"),
        *(
            "::",
            "::1",
            "::127.0.0.1",
            "fe80::1",
            "fe80::1%eth0",
            "fc00::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "5f00::1",
        ),
        *(
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
        ),
        *("2002:7f00:1::1", "2002:a00:1::", "nonsense", ""),
    ],
)
def test_addresses_of_anything_else(address: str) -> None:
    """The machine's own, local networks, special purposes, in any form."""
    assert not is_public(address)


def test_a_picture_has_another_address_when_it_is_another() -> None:
    """FNV-1a's published values; the browser computes the same."""
    assert (version(""), version("a"), version("foobar")) == ("811c9dc5", "e40c292c", "bf9cf968")
    assert path("u", "a") == "/avatars/u?v=e40c292c"
