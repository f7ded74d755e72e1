# SPDX-License-Identifier: Apache-2.0
"""The tree equals RFC 6962: the reference vectors of certificate-transparency, and the RFC's own recursion."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput, PeerFault
from junto.journal import tree

LEAVES = [bytes.fromhex(leaf) for leaf in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip

ROOTS = [bytes.fromhex(root) for root in (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)]  # fmt: skip

sizes = st.integers(0, 70)


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH(D[n]) word for word."""
    if not leaves:
        return tree.EMPTY_ROOT
    if len(leaves) == 1:
        return tree.leaf_hash(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return tree.node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b) word for word."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def some_leaves(count: int) -> list[bytes]:
    return [b"entry %d" % index for index in range(count)]


def reader(leaves: list[bytes]) -> tree.Node:
    """Nodes as a store keeps them: what each append completed."""
    rows: list[tuple[bytes, ...]] = []
    frontier = tree.Frontier()
    for leaf in leaves:
        frontier, completed = frontier.appended(tree.leaf_hash(leaf))
        rows.append(completed)
    return lambda level, index: rows[((index + 1) << level) - 1][level]


@pytest.mark.parametrize("size", range(9))
def test_roots_equal_the_reference_vectors(size: int) -> None:
    frontier = tree.Frontier()
    for leaf in LEAVES[:size]:
        frontier, _ = frontier.appended(tree.leaf_hash(leaf))
    assert frontier.root == ROOTS[size]
    assert tree.root_at(size, reader(LEAVES)) == ROOTS[size]


def test_proofs_equal_the_reference_vectors() -> None:
    node = reader(LEAVES)
    assert [h.hex()[:8] for h in tree.inclusion_proof(0, 8, node)] == ["96a296d2", "5f083f0a", "6b47aaf2"]
    assert [h.hex()[:8] for h in tree.inclusion_proof(5, 8, node)] == ["bc1a0643", "ca854ea1", "d37ee418"]
    assert [h.hex()[:8] for h in tree.inclusion_proof(2, 3, node)] == ["fac54203"]
    assert tree.consistency_proof(1, 1, node) == ()
    assert [h.hex()[:8] for h in tree.consistency_proof(1, 8, node)] == ["96a296d2", "5f083f0a", "6b47aaf2"]
    assert [h.hex()[:8] for h in tree.consistency_proof(6, 8, node)] == ["0ebc5d34", "ca854ea1", "d37ee418"]
    assert [h.hex()[:8] for h in tree.consistency_proof(2, 5, node)] == ["5f083f0a", "bc1a0643"]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(sizes)
def test_the_root_equals_the_recursion(size: int) -> None:
    leaves = some_leaves(size)
    assert tree.root_at(size, reader(leaves)) == naive_root(leaves)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(sizes.filter(bool), st.data())
def test_an_inclusion_proof_equals_the_recursion_and_verifies(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    index = data.draw(st.integers(0, size - 1))
    proof = tree.inclusion_proof(index, size, reader(leaves))
    assert list(proof) == naive_path(index, leaves)
    tree.verify_inclusion(tree.leaf_hash(leaves[index]), index, size, proof, naive_root(leaves))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(sizes.filter(bool), st.data())
def test_a_consistency_proof_equals_the_recursion_and_verifies(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    old = data.draw(st.integers(1, size))
    proof = tree.consistency_proof(old, size, reader(leaves))
    assert list(proof) == naive_subproof(old, leaves, True)
    tree.verify_consistency(old, size, proof, naive_root(leaves[:old]), naive_root(leaves))


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.integers(2, 40), st.data())
def test_a_changed_proof_is_refused(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    node = reader(leaves)
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size - 1))
    root = naive_root(leaves)
    inclusion = list(tree.inclusion_proof(index, size, node))
    consistency = list(tree.consistency_proof(old, size, node))
    change = data.draw(st.sampled_from(["flip", "drop", "add"]))
    for proof in (inclusion, consistency):
        place = data.draw(st.integers(0, len(proof) - 1))
        if change == "flip":
            proof[place] = bytes([proof[place][0] ^ 1]) + proof[place][1:]
        elif change == "drop":
            del proof[place]
        else:
            proof.insert(place, tree.leaf_hash(b"added"))
    with pytest.raises(PeerFault):
        tree.verify_inclusion(tree.leaf_hash(leaves[index]), index, size, inclusion, root)
    with pytest.raises(PeerFault):
        tree.verify_consistency(old, size, consistency, naive_root(leaves[:old]), root)


def test_a_rewritten_beginning_has_no_consistency_proof() -> None:
    leaves = some_leaves(13)
    rewritten = [b"rewritten", *leaves[1:]]
    proof = tree.consistency_proof(6, 13, reader(rewritten))
    with pytest.raises(PeerFault):
        tree.verify_consistency(6, 13, proof, naive_root(leaves[:6]), naive_root(rewritten))


@pytest.mark.parametrize(("old", "new"), [(5, 4), (-1, 4)])
def test_sizes_out_of_order_are_refused(old: int, new: int) -> None:
    node = reader(some_leaves(5))
    with pytest.raises(InvalidInput):
        tree.consistency_proof(old, new, node)
    with pytest.raises(PeerFault):
        tree.verify_consistency(old, new, (), tree.EMPTY_ROOT, tree.EMPTY_ROOT)
    with pytest.raises(InvalidInput):
        tree.inclusion_proof(new, new, node)


def test_a_proof_of_another_size_is_refused() -> None:
    leaf = tree.leaf_hash(b"alone")
    tree.verify_inclusion(leaf, 0, 1, (), leaf)
    for size in (2, 3):
        with pytest.raises(PeerFault):
            tree.verify_inclusion(leaf, 0, size, (), leaf)


def test_an_empty_tree_is_the_beginning_of_every_tree() -> None:
    root = naive_root(some_leaves(5))
    tree.verify_consistency(0, 5, tree.consistency_proof(0, 5, reader(some_leaves(5))), tree.EMPTY_ROOT, root)
    with pytest.raises(PeerFault):
        tree.verify_consistency(0, 5, (), root, root)
