"""The Merkle tree of the transparency log (RFC 6962 section 2.1): hashes, which subtrees a proof needs, verification.

A *node* is a complete subtree: (level, number) has the leaves from number * 2**level up to (number + 1) * 2**level.
Only these are stored, and they never change. Any other root is computed from them. Callers fetch
the hashes of the nodes that `inclusion_ranges` and `consistency_ranges` name. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

HASH_BYTES = 32  # of SHA-256
EMPTY_ROOT = sha256(b"").digest()  # of the tree without a leaf
MAX_PROOF_HASHES = 128  # in a path of any tree with fewer than 2**63 leaves


class Node(NamedTuple):
    """A complete subtree."""

    level: int
    number: int


class Range(NamedTuple):
    """Leaves from `start` up to, without, `end`: a subtree of RFC 6962, complete or at the right edge."""

    start: int
    end: int


def leaf_hash(record: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return sha256(b"\x01" + left + right).digest()


# ---- the stored nodes -----------------------------------------------------------------------------------------------


def nodes_of(leaves: Range) -> list[Node]:
    """The complete subtrees that a range consists of, from left to right, the largest first."""
    start, count, found = leaves.start, leaves.end - leaves.start, []
    for level in range(count.bit_length() - 1, -1, -1):
        if count >> level & 1:
            found.append(Node(level, start >> level))
            start += 1 << level
    return found


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over the complete subtrees of a range, as `nodes_of` lists them."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def append(size: int, edge: Mapping[Node, bytes], leaves: Sequence[bytes]) -> dict[int, tuple[int, list[bytes]]]:
    """The nodes that become complete when `leaves` follow the first `size` leaves: level → (first index, hashes).

    `edge`: hashes of the nodes of `nodes_of(Range(0, size))`.
    """
    made: dict[int, tuple[int, list[bytes]]] = {}
    level, first, hashes = 0, size, list(leaves)
    while hashes:
        made[level] = (first, hashes)
        if first & 1:  # its left neighbour is complete already
            hashes = [edge[Node(level, first - 1)], *hashes]
        pairs = zip(hashes[::2], hashes[1::2], strict=False)
        level, first, hashes = level + 1, first >> 1, [node_hash(left, right) for left, right in pairs]
    return made


def edge_after(
    size: int, edge: Mapping[Node, bytes], made: Mapping[int, tuple[int, Sequence[bytes]]]
) -> dict[Node, bytes]:
    """`edge` of the tree with `size` leaves, from the one before and what `append` made."""
    found = {}
    for node in nodes_of(Range(0, size)):
        first, hashes = made.get(node.level, (0, ()))
        at = node.number - first
        found[node] = hashes[at] if 0 <= at < len(hashes) else edge[node]
    return found


# ---- proofs ---------------------------------------------------------------------------------------------------------


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose hashes are the audit path of a leaf (RFC 6962 section 2.1.1), from the leaf up.

    0 ≤ index < size.
    """
    return list(_inclusion(index, Range(0, size)))


def _inclusion(index: int, tree: Range) -> Iterator[Range]:
    if tree.end - tree.start > 1:
        middle = _split(tree)
        if index < middle:
            yield from _inclusion(index, Range(tree.start, middle))
            yield Range(middle, tree.end)
        else:
            yield from _inclusion(index, Range(middle, tree.end))
            yield Range(tree.start, middle)


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The subtrees of a consistency proof between two sizes (RFC 6962 section 2.1.2). 0 < first ≤ second."""
    return list(_consistency(first, Range(0, second), is_known=True)) if first < second else []


def _consistency(first: int, tree: Range, *, is_known: bool) -> Iterator[Range]:
    if first == tree.end:
        if not is_known:
            yield tree
        return
    middle = _split(tree)
    if first <= middle:
        yield from _consistency(first, Range(tree.start, middle), is_known=is_known)
        yield Range(middle, tree.end)
    else:
        yield from _consistency(first, Range(middle, tree.end), is_known=False)
        yield Range(tree.start, middle)


def _split(tree: Range) -> int:
    """Where the right subtree begins: after the largest power of two that is smaller than the number of leaves."""
    return tree.start + (1 << ((tree.end - tree.start - 1).bit_length() - 1))


# ---- verification ---------------------------------------------------------------------------------------------------


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that an audit path leads to (RFC 9162 section 2.1.3.2). None: the path does not fit index and size."""
    if not 0 <= index < size:
        return None
    at, last, root = index, size - 1, leaf
    for step in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            root = node_hash(step, root)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, step)
        at, last = at >> 1, last >> 1
    return root if last == 0 else None


def is_consistent(first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree of `first` leaves is the beginning of the one of `second` leaves (RFC 9162
    section 2.1.4.2). The empty tree is the beginning of each."""
    if not 0 <= first <= second or first in (0, second):
        return 0 <= first <= second and not path and (first_root == (second_root if first else EMPTY_ROOT))
    steps = list(path)
    if first & (first - 1) == 0:  # a power of two: the first tree is itself a node of the second
        steps.insert(0, first_root)
    if not steps:
        return False
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, step)
        at, last = at >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root
