# SPDX-License-Identifier: Apache-2.0
"""Which of a party's nodes takes a fragment."""

from junto.plan.steps import Query, Read
from junto.tasks.nodes import Nodes, Running, can_be_placed, patience_seconds, placing_key
from junto.types import DatasetName, Digest, NodeId, PartyId, StepId, TaskId

ONE, TWO, THREE = NodeId("one"), NodeId("two"), NodeId("three")


def _three(slots: int = 2) -> Nodes:
    nodes = Nodes(ONE, slots)
    nodes.joined(TWO, slots)
    nodes.joined(THREE, slots)
    return nodes


def _busy(nodes: Nodes, node: NodeId, count: int = 1) -> list[Running]:
    running = [Running(TaskId("task_1"), StepId(f"{node}-{i}"), node, 0.0) for i in range(count)]
    for one in running:
        nodes.begin(one)
    return running


def test_a_node_alone_takes_everything() -> None:
    nodes = Nodes(ONE, 1)
    assert {nodes.choose(f"key {i}") for i in range(20)} == {ONE}
    _busy(nodes, ONE)
    assert nodes.choose("another") == ONE
    assert nodes.helper("another") is None


def test_a_key_goes_to_the_same_node_each_time_and_keys_go_to_all() -> None:
    nodes = _three()
    chosen = {f"key {i}": nodes.choose(f"key {i}") for i in range(60)}
    assert set(chosen.values()) == {ONE, TWO, THREE}
    assert all(nodes.choose(key) == node for key, node in chosen.items())


def test_a_node_without_a_free_slot_is_passed_over() -> None:
    nodes = _three(slots=1)
    key = next(f"key {i}" for i in range(60) if nodes.choose(f"key {i}") == TWO)
    running = _busy(nodes, TWO)
    assert nodes.choose(key) != TWO
    nodes.end(running[0], whole=True)
    assert nodes.choose(key) == TWO
    assert nodes.computed == {TWO: 1}


def test_when_all_are_busy_the_acting_node_takes_it() -> None:
    nodes = _three(slots=1)
    for node in (ONE, TWO, THREE):
        _busy(nodes, node)
    assert {nodes.choose(f"key {i}") for i in range(20)} == {ONE}


def test_one_popular_key_overflows_to_the_other_nodes() -> None:
    nodes = _three(slots=4)
    for i in range(12):
        nodes.begin(Running(TaskId("task_1"), StepId(f"s{i}"), nodes.choose("popular"), 0.0))
    assert sorted(nodes.loads.values()) == [4, 4, 4]


def test_a_helper_that_leaves_takes_its_slots_and_what_it_computed_with_it() -> None:
    nodes = _three()
    running = _busy(nodes, TWO)[0]
    nodes.left(TWO)
    nodes.end(running, whole=False)
    assert (nodes.slots, nodes.helpers, nodes.loads.total()) == (4, (THREE,), 0)
    assert TWO not in {nodes.choose(f"key {i}") for i in range(60)}


def test_the_acting_node_does_not_leave() -> None:
    nodes = _three()
    nodes.left(ONE)
    assert nodes.slots_of(ONE) == 2


def test_only_fragments_that_read_datasets_alone_can_be_placed() -> None:
    version = Digest("sha256:1")
    table = Read("t", dataset=DatasetName("t"), version=version)
    other = Read("o", dataset=DatasetName("o"), version=version)
    output = Read("released", step=StepId("s1"))
    query = Query(StepId("q"), PartyId("bea"), "SELECT 1", (table, other))
    assert can_be_placed(query)
    assert not can_be_placed(Query(StepId("q"), PartyId("bea"), "SELECT 1", (table, output)))
    assert not can_be_placed(Query(StepId("q"), PartyId("bea"), "SELECT 1", ()))
    assert placing_key(query) == placing_key(Query(StepId("r"), PartyId("bea"), "SELECT 2", (other, table)))


def test_a_helper_has_half_of_the_time_and_none_of_too_little() -> None:
    assert patience_seconds(10.0) == 5.0
    assert patience_seconds(0.5) == 0.0
    assert patience_seconds(-1.0) == 0.0
