# SPDX-License-Identifier: Apache-2.0
"""Numbers are summed with the decimal places that they have: a plan that claims others would select the small ones."""

import msgspec
import pyarrow as pa
import pytest

from junto.errors import PeerFault
from junto.frontends.sql import compile_sql
from junto.plan.review import review
from junto.plan.steps import MaskedSum, Plan, Query
from junto.testing.plans import published
from junto.trust.rules import Rule
from junto.types import PartyId

ANN, ASK, BEA = (PartyId(party) for party in ("ann", "ask", "bea"))
_RULES = (Rule(("k",), "group"), Rule(("x", "wide"), "aggregate"))
_TABLE = pa.table({"id": [1], "k": ["a"], "x": [1], "wide": pa.array([1], pa.decimal128(38, 2))})
DATASETS = [published(party, "t", _TABLE, _RULES, "id") for party in (ANN, BEA)]


def _plan(operand: str) -> Plan:
    return compile_sql(f"SELECT k, SUM({operand}) FROM t GROUP BY k", DATASETS, ASK)


def _crafted(plan: Plan, old: str, new: str, scale: int) -> Plan:
    def changed(step: Query | MaskedSum) -> Query | MaskedSum:
        measures = tuple(
            msgspec.structs.replace(m, scale=scale) if m.encoding == "integer" else m for m in step.measures
        )
        step = msgspec.structs.replace(step, measures=measures)
        if not isinstance(step, Query):
            return step
        assert old in step.sql
        sql = step.sql.replace(old, new).replace("AS DECIMAL(38, 0))", f"AS DECIMAL(38, {scale}))")
        return msgspec.structs.replace(step, sql=sql.replace("AS DECIMAL(38, 2))", f"AS DECIMAL(38, {scale}))"))

    steps = tuple(changed(step) if isinstance(step, Query | MaskedSum) else step for step in plan.steps)
    return msgspec.structs.replace(plan, steps=steps)


@pytest.mark.parametrize("operand", ["x", "wide", "x * x", "x * 2"])
def test_what_is_compiled_has_the_places_of_what_it_sums(operand: str) -> None:
    review(_plan(operand), ANN, DATASETS)


@pytest.mark.parametrize(
    ("operand", "old", "new", "scale"),
    [
        ("x", '"t0"."x"), 0)', 'TRY_CAST("t0"."x" AS DECIMAL(29, 24))), 0)', 24),
        ("x", '"t0"."x"), 0)', 'TRY_CAST("t0"."x" AS DECIMAL(29, 0))), 0)', 0),
        ("x", '"t0"."x"), 0)', '"t0"."x"), 0)', 20),
        ("x * x", "SUM(", "SUM(", 18),
        ("wide", "DECIMAL(29, 2)", "DECIMAL(29, 24)", 24),
        ("wide", "DECIMAL(29, 2)", "DECIMAL(29, 0)", 0),
    ],
)
def test_a_plan_that_claims_other_places_is_refused(operand: str, old: str, new: str, scale: int) -> None:
    with pytest.raises(PeerFault, match=r"places|short enough"):
        review(_crafted(_plan(operand), old, new, scale), ANN, DATASETS)
