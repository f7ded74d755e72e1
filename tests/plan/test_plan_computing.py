# SPDX-License-Identifier: Apache-2.0
"""The nodes of a threshold are fixed by contributors and consents, and judged by all."""

from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pytest

from junto.errors import PeerFault
from junto.frontends.sql import compile_sql
from junto.plan.computing import Consents, computing_nodes, could_help, helped, helper_of, spare
from junto.plan.review import review
from junto.plan.steps import Plan, Threshold
from junto.plan.without import without
from junto.testing.plans import published
from junto.trust.rules import Rule
from junto.types import PartyId

ANN, ASK, BEA, CYD, HUB, ZOE = (PartyId(party) for party in ("ann", "ask", "bea", "cyd", "hub", "zoe"))
_RULES = (Rule(("*",), "group", owners="any"), Rule(("*",), "aggregate", owners="any"))
_TABLE = pa.table({"id": [1], "k": ["a"]})
DATASETS = [published(party, "t", _TABLE, _RULES, "id") for party in (ANN, BEA, CYD)]
ALL = dict.fromkeys((ANN, ASK, HUB, ZOE), (ASK,))


def _plan(owners: int, consents: Consents) -> Plan:
    return compile_sql("SELECT k, COUNT(*) FROM t GROUP BY k", DATASETS[:owners], ASK, consents=consents)


def _threshold(plan: Plan) -> Threshold:
    return next(step for step in plan.steps if isinstance(step, Threshold))


def _with_nodes(plan: Plan, nodes: Sequence[PartyId]) -> Plan:
    steps = tuple(msgspec.structs.replace(s, nodes=tuple(nodes)) if isinstance(s, Threshold) else s for s in plan.steps)
    return msgspec.structs.replace(plan, steps=steps)


@pytest.mark.parametrize(
    ("owners", "consents", "nodes"),
    [
        (2, {}, (ANN, BEA, ASK)),
        (2, ALL, (ANN, BEA, HUB)),
        (2, {ZOE: (ASK,)}, (ANN, BEA, ZOE)),
        (2, {HUB: (ANN, BEA), ZOE: (CYD,)}, (ANN, BEA, ASK)),
        (2, {ANN: (ASK,), ASK: (ASK,)}, (ANN, BEA, ASK)),
        (1, ALL, (ANN,)),
        (3, ALL, (ANN, BEA, CYD)),
    ],
)
def test_the_third_node_is_the_first_member_that_consents_to_work_for_the_asker(
    owners: int, consents: Consents, nodes: tuple[PartyId, ...]
) -> None:
    assert _threshold(_plan(owners, consents)).nodes == nodes


def test_a_helper_may_be_an_owner_of_something_else_and_is_spare_only_where_it_does_nothing_else() -> None:
    open_table = published(HUB, "o", pa.table({"k": ["a"], "x": [1]}), (Rule(("*",), "open"),))
    question = "SELECT x, COUNT(*) FROM t JOIN o ON t.k = o.k GROUP BY x"
    plan = compile_sql(question, [*DATASETS[:2], open_table], ASK, consents=ALL)
    assert helper_of(_threshold(plan)) == HUB
    assert spare(plan) == frozenset()
    assert spare(_plan(2, ALL)) == {HUB}


def test_a_helpers_part_rests_on_nothing_of_its_own() -> None:
    plan = _plan(2, ALL)
    found = review(plan, HUB, DATASETS)
    assert (found.lent, found.demands) == ((_threshold(plan).id,), ())
    for party in (ANN, BEA, ASK):
        assert review(plan, party, DATASETS).lent == ()


@pytest.mark.parametrize(
    "nodes",
    [(ANN, BEA), (ANN, HUB, BEA), (HUB, ANN, BEA), (ANN, BEA, HUB, ASK), (ANN, BEA, HUB, ZOE), (ANN, HUB, ZOE)],
    ids=" ".join,
)
def test_a_review_takes_the_asker_or_one_helper_at_the_end(nodes: tuple[PartyId, ...]) -> None:
    with pytest.raises(PeerFault, match="in that order, and nobody else"):
        review(_with_nodes(_plan(2, {}), nodes), ANN, DATASETS)


@pytest.mark.parametrize("third", [ASK, HUB, ZOE])
def test_the_shape_of_a_plan_allows_the_asker_and_each_helper(third: PartyId) -> None:
    review(_with_nodes(_plan(2, {}), (ANN, BEA, third)), ANN, DATASETS)


def test_no_helper_passes_where_three_own_or_one_does() -> None:
    for owners, nodes in ((3, (ANN, BEA, HUB)), (1, (ANN, HUB)), (1, (ANN, BEA, HUB))):
        with pytest.raises(PeerFault, match="and nobody else"):
            review(_with_nodes(_plan(owners, {}), nodes), ANN, DATASETS)


def test_without_a_helper_the_receiver_computes_and_without_an_owner_nobody_needs_one() -> None:
    plan = _plan(2, ALL)
    assert _threshold(without(plan, {HUB})).nodes == (ANN, BEA, ASK)
    assert _threshold(without(plan, {BEA})).nodes == (ANN,)
    assert _threshold(without(plan, {ZOE})) == _threshold(plan)
    fewer = without(_plan(3, ALL), {ANN})
    assert _threshold(fewer).nodes == (BEA, CYD, ASK)
    assert _threshold(helped(fewer, ALL)).nodes == (BEA, CYD, ANN)


def test_helping_is_chosen_anew_from_whoever_is_there() -> None:
    plan = _plan(2, ALL)
    assert could_help(_threshold(plan), ALL) == (HUB, ZOE)
    assert _threshold(helped(plan, {ZOE: (ASK,)})).nodes == (ANN, BEA, ZOE)
    assert _threshold(helped(plan, {})).nodes == computing_nodes((ANN, BEA), ASK)
