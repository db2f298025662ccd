"""The order of every board: total descending, then the earlier one to reach it.

Redis has it as the bytes of a sorted-set member. It is exact for every 63-bit total; a score, which is a double, is
exact to 53 bits only.
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
    """The member of a board's order set: one for each user, sorted as the board."""
    return order_key(total, reached) + user.bytes


def read_member(raw: bytes) -> tuple[UUID, int, int]:
    """(user, total, reached) of a member."""
    inverted, reached = _KEY.unpack_from(raw)
    return UUID(bytes=raw[16:32]), MAX_BIGINT - inverted, reached
