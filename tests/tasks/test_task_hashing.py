# SPDX-License-Identifier: Apache-2.0
"""Fragments spread over a party's nodes evenly, and stay where they are when a node joins or leaves."""

import math
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.tasks.hashing import FACTOR, Ring
from junto.types import NodeId

NODES = st.lists(st.sampled_from([NodeId(f"n{i}") for i in range(12)]), min_size=1, max_size=12, unique=True)
KEYS = st.lists(st.text(max_size=8), max_size=120, unique=True)
SETTINGS = settings(derandomize=True, max_examples=150, deadline=None)


def some_keys(many: int) -> list[str]:
    return [f"flights sha256:{i}" for i in range(many)]


@SETTINGS
@given(NODES, KEYS, st.sampled_from((FACTOR, Fraction(101, 100), Fraction(2))))
def test_no_node_is_ever_above_its_bound(nodes: list[NodeId], keys: list[str], factor: Fraction) -> None:
    ring = Ring(tuple(nodes), factor)
    loads: Counter[NodeId] = Counter()
    for number, key in enumerate(keys, start=1):
        loads[ring.choose(key, loads)] += 1
        assert max(loads.values()) <= math.ceil(factor * number / len(nodes)) == ring.capacity(number)
    spread = Counter(ring.spread(keys).values())
    assert not keys or max(spread.values()) <= ring.capacity(len(keys))


@SETTINGS
@given(NODES, st.text(max_size=8), st.data())
def test_whatever_the_loads_there_is_a_node(nodes: list[NodeId], key: str, data: st.DataObject) -> None:
    ring = Ring(tuple(nodes))
    loads = {node: data.draw(st.integers(0, 50)) for node in nodes}
    chosen = ring.choose(key, {**loads, NodeId("another"): 1000})
    assert loads[chosen] < ring.capacity(sum(loads.values()) + 1)


@SETTINGS
@given(NODES, st.text(max_size=8))
def test_the_first_in_order_with_room_takes_it(nodes: list[NodeId], key: str) -> None:
    ring = Ring(tuple(nodes))
    order = list(ring.order(key))
    assert sorted(order) == sorted(nodes)
    assert ring.choose(key, {}) == order[0]
    if len(order) > 1:
        assert ring.choose(key, {order[0]: 10}) == order[1]


@SETTINGS
@given(NODES, KEYS, st.data())
def test_with_room_everywhere_only_what_a_node_takes_or_held_moves(
    nodes: list[NodeId], keys: list[str], data: st.DataObject
) -> None:
    joined = NodeId("new")
    before, after = Ring(tuple(nodes)), Ring((*nodes, joined))
    for key in keys:
        was, now = next(before.order(key)), next(after.order(key))
        assert now in (was, joined)
        # who leaves the second ring is who joined the first: nothing else moves either way
        assert [n for n in after.order(key) if n != joined] == list(before.order(key))


def test_under_the_bound_few_others_move() -> None:
    """With factor 1 + e, expected moves are O(1/e²) a node's worth (section 1 of the paper); here, less than two."""
    keys = some_keys(2000)
    nodes = tuple(NodeId(f"n{i}") for i in range(10))
    before, after = Ring(nodes).spread(keys), Ring((*nodes, NodeId("n10"))).spread(keys)
    moved = sum(before[key] != after[key] for key in keys)
    taken = sum(node == "n10" for node in after.values())
    assert 0 < taken <= moved <= 2 * len(keys) / len(nodes) + taken


def test_the_order_of_nodes_and_keys_does_not_count() -> None:
    keys = some_keys(200)
    nodes = tuple(NodeId(f"n{i}") for i in range(5))
    assert Ring(nodes).spread(keys) == Ring(nodes[::-1]).spread(keys[::-1])


@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_process_comes_to_the_same_nodes(seed: str) -> None:
    code = (
        "from junto.tasks.hashing import Ring\n"
        "print(','.join(Ring(('a', 'b', 'c')).choose(str(i), {'a': i % 3}) for i in range(40)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    ring = Ring((NodeId("a"), NodeId("b"), NodeId("c")))
    assert ran.stdout.strip().split(",") == [ring.choose(str(i), {NodeId("a"): i % 3}) for i in range(40)]


@pytest.mark.parametrize("ring", [{"nodes": ()}, {"nodes": ("a", "a")}, {"nodes": ("a",), "factor": Fraction(1)}])
def test_a_ring_that_cannot_be_is_refused(ring: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Ring(**ring)  # type: ignore[arg-type]  # wrong on purpose
