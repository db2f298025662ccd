"""Hashes of networks."""

from scoreboard.security.network_hashes import network_hash

NOVEMBER, END_OF_NOVEMBER, DECEMBER = 1_793_491_200.0, 1_796_083_199.0, 1_796_083_200.0  # 2026, UTC


def test_a_network_has_one_hash_a_month() -> None:
    """Another one the next month, with another key, and for another network."""
    known = network_hash(b"k" * 32, "192.0.2.1", NOVEMBER)
    assert known == network_hash(b"k" * 32, "192.0.2.1", END_OF_NOVEMBER)
    others = {
        network_hash(b"k" * 32, "192.0.2.1", DECEMBER),
        network_hash(b"o" * 32, "192.0.2.1", NOVEMBER),
        network_hash(b"k" * 32, "192.0.2.2", NOVEMBER),
    }
    assert len(others | {known}) == 4
    assert b"192" not in known
