# SPDX-License-Identifier: Apache-2.0
"""Who asked for SUM(v) is told of SUM(v)."""

import pyarrow as pa
import pytest

from junto.frontends.sql import compile_sql
from junto.node.wording import in_question_words
from junto.plan.steps import Plan
from junto.testing.plans import published
from junto.trust.rules import Rule
from junto.types import PartyId

_RULES = (Rule(("*",), "group"), Rule(("*",), "aggregate"), Rule(("*",), "extremes"))
_TABLE = pa.table({"id": [1], "v": [1.5], "n": [2], "Größe m": [2.5]})


def _plan(question: str) -> Plan:
    return compile_sql(question, [published("ann", "t", _TABLE, _RULES, "id")], PartyId("bts"))


@pytest.mark.parametrize(
    ("question", "measure", "words"),
    [
        ("SELECT SUM(v) FROM t", "m0", "SUM(v)"),
        ('SELECT SUM("Größe m") FROM t', "m0", 'SUM("Größe m")'),
        ("SELECT SUM(n * 2) FROM t", "m0", "SUM(n)"),
        ("SELECT SUM(v) FILTER (WHERE n > 1) FROM t", "m0", "SUM(v) FILTER(WHERE n > 1)"),
        ("SELECT n, COUNT(v) FROM t GROUP BY n", "m0", "COUNT(v)"),
        ("SELECT STDDEV(v) FROM t", "m1", "VARIANCE(v)"),
    ],
)
def test_a_measure_is_named_as_it_is_computed(question: str, measure: str, words: str) -> None:
    assert in_question_words(f"measure {measure!r} holds NaN", _plan(question)) == f"measure {words} holds NaN"


def test_what_is_no_measure_stays_as_it_is() -> None:
    plan = _plan("SELECT SUM(v) FROM t")
    for message in ("measure 'm99' holds NaN", "no step 'x1'", "m1 is not quoted", ""):
        assert in_question_words(message, plan) == message
    assert in_question_words("measure 'm1'", _plan("SELECT v FROM t")) == "measure 'm1'"
