"""The order of every board: total descending, then the earlier one to reach it.

Used by the ledger's rows, by Redis (as the bytes of a sorted-set member) and by tests. Exact for every 63-bit total,
where a score held as a double would not be.
"""

import struct
from uuid import UUID

MAX_BIGINT = 2**63 - 1  # a PostgreSQL bigint
_KEY = struct.Struct(">QQ")


def order_key(total: int, reached: int) -> bytes:
    """16 bytes that sort bytewise as the board does: higher totals first, then the lower order number.

    `total` and `reached` are 0…2^63−1; anything else raises ValueError.
    """
    if not (0 <= total <= MAX_BIGINT and 0 <= reached <= MAX_BIGINT):
        raise ValueError(f"not on the board: {total=} {reached=}")
    return _KEY.pack(MAX_BIGINT - total, reached)


def member(total: int, reached: int, user: UUID) -> bytes:
    """The member of a board's order set: unique a user, sorted as the board."""
    return order_key(total, reached) + user.bytes


def read_member(raw: bytes) -> tuple[UUID, int, int]:
    """(user, total, reached) of a member."""
    inverted, reached = _KEY.unpack_from(raw)
    return UUID(bytes=raw[16:32]), MAX_BIGINT - inverted, reached
