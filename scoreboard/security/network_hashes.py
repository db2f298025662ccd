"""Hashes of networks: whether two log-ins came from one network can be seen, but not from which.

The key is derived from a master key and the month, so hashes of two months can't be compared, and a table of all
networks can't be made without the master key. Pure.
"""

import hmac
from datetime import UTC, datetime

_PURPOSE = b"scoreboard network"  # so that other keys derived from the same master key are different
HASH_BYTES = 16  # 128 bits: two networks never have one hash


def network_hash(master_key: bytes, network: str, now: float) -> bytes:
    """The hash of a network (domain.networks) at a time in Unix seconds."""
    month = datetime.fromtimestamp(now, UTC).strftime("%Y-%m").encode()
    key = hmac.digest(master_key, _PURPOSE + month, "sha256")
    return hmac.digest(key, network.encode(errors="replace"), "sha256")[:HASH_BYTES]
