"""The Merkle tree: against the definitions of RFC 6962 written down once more, its known values, and forged proofs."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.merkle import (
    EMPTY_ROOT,
    Node,
    Range,
    append,
    consistency_ranges,
    edge_after,
    inclusion_ranges,
    is_consistent,
    leaf_hash,
    node_hash,
    nodes_of,
    root_from_inclusion,
    root_of,
)

SIZES = st.integers(1, 300)
# The test vectors of Certificate Transparency's own implementations: eight leaves, and the root of all of them.
KNOWN_LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243")] + [
    bytes.fromhex("5051525354555657"),
    bytes.fromhex("606162636465666768696a6b6c6d6e6f"),
]
KNOWN_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def mth(leaves: Sequence[bytes]) -> bytes:
    """The root by the definition, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return node_hash(mth(leaves[:middle]), mth(leaves[middle:]))


def leaves_of(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def path_of(leaves: Sequence[bytes], ranges: Sequence[Range]) -> list[bytes]:
    return [mth(leaves[part.start : part.end]) for part in ranges]


def test_the_known_tree_has_its_known_root() -> None:
    assert mth([leaf_hash(leaf) for leaf in KNOWN_LEAVES]).hex() == KNOWN_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.lists(st.integers(0, 40), max_size=8))
def test_appending_in_portions_gives_the_tree_of_all_leaves(portions: list[int]) -> None:
    """Whatever the portions: all nodes are there once, and the edge gives the root."""
    leaves = leaves_of(sum(portions))
    size, edge, stored = 0, dict[Node, bytes](), dict[Node, bytes]()
    for portion in portions:
        made = append(size, edge, leaves[size : size + portion])
        new = {
            Node(level, first + at): value for level, (first, hashes) in made.items() for at, value in enumerate(hashes)
        }
        assert not new.keys() & stored.keys()
        stored |= new
        size += portion
        edge = edge_after(size, edge, made)
        assert root_of(list(edge.values())) == mth(leaves[:size])
    assert stored == {
        Node(level, index): mth(leaves[index << level : (index + 1) << level])
        for level in range(12)
        for index in range(size >> level)
    }


@given(SIZES, st.data())
def test_every_leaf_is_proven_by_its_path(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = leaves_of(size)
    ranges = inclusion_ranges(index, size)
    path = path_of(leaves, ranges)
    assert root_from_inclusion(leaves[index], index, size, path) == mth(leaves)
    for part in ranges:  # and it can be computed from complete subtrees
        nodes = nodes_of(part)
        assert root_of([mth(leaves[i << level : (i + 1) << level]) for level, i in nodes]) == mth(
            leaves[part.start : part.end]
        )


@given(SIZES, st.data())
def test_no_other_leaf_index_size_or_path_leads_to_the_root(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = leaves_of(size)
    root, path = mth(leaves), path_of(leaves, inclusion_ranges(index, size))
    other = data.draw(st.integers(0, size + 3).filter(lambda value: value != index))
    assert root_from_inclusion(leaves[index], other, size, path) != root
    assert root_from_inclusion(leaf_hash(b"forged"), index, size, path) != root
    assert root_from_inclusion(leaves[index], index, size, [*path, root]) is None
    if path:
        assert root_from_inclusion(leaves[index], index, size, path[:-1]) is None
        at = data.draw(st.integers(0, len(path) - 1))
        changed = [*path[:at], leaf_hash(b"forged"), *path[at + 1 :]]
        assert root_from_inclusion(leaves[index], index, size, changed) != root


@given(st.integers(0, 300), st.data())
def test_every_earlier_tree_is_proven_to_be_the_beginning(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, second))
    leaves = leaves_of(second)
    path = path_of(leaves, consistency_ranges(first, second)) if first else []
    assert is_consistent(first, second, mth(leaves[:first]), mth(leaves), path)


@given(st.integers(2, 300), st.data())
def test_no_proof_hides_a_changed_leaf(second: int, data: st.DataObject) -> None:
    """The operator changes an early leaf and computes the proof over the changed tree: the earlier root is not in
    it."""
    first = data.draw(st.integers(1, second))
    changed = data.draw(st.integers(0, first - 1))
    leaves = leaves_of(second)
    forged = [*leaves[:changed], leaf_hash(b"forged"), *leaves[changed + 1 :]]
    path = path_of(forged, consistency_ranges(first, second))
    assert not is_consistent(first, second, mth(leaves[:first]), mth(forged), path)
    assert not is_consistent(first, second, mth(leaves[:first]), mth(forged), [])


@pytest.mark.parametrize(("first", "second"), [(-1, 2), (3, 2), (0, -1)])
def test_sizes_in_no_order_prove_nothing(first: int, second: int) -> None:
    assert not is_consistent(first, second, EMPTY_ROOT, EMPTY_ROOT, [])


@given(st.integers(1, 300), st.integers(1, 300), st.lists(st.binary(min_size=32, max_size=32), max_size=20))
def test_random_paths_prove_nothing(first: int, second: int, path: list[bytes]) -> None:
    root, other = mth(leaves_of(first)), leaf_hash(b"another tree")
    assert not is_consistent(first, second, root, other, path)
    assert root_from_inclusion(other, first - 1, second, path) != root
