# SPDX-License-Identifier: Apache-2.0
"""Messages about measures in the words of the question: nobody who asked for SUM(v) knows what m1 is."""

import re
from functools import lru_cache

from junto.plan.steps import Plan, Query

_MEASURE = re.compile(r"'(m\d+)'")
_SIMPLE = re.compile(r"[a-z_][a-z0-9_]*")


def in_question_words(message: str, plan: Plan) -> str:
    """The message with each quoted measure as its fragment computes it: `'m1'` becomes `SUM(v)`."""
    query = next((step for step in plan.steps if isinstance(step, Query) and step.keys is not None), None)
    if query is None or not _MEASURE.search(message):
        return message
    known = _measures(query.sql)
    return _MEASURE.sub(lambda found: known.get(found[1], found[0]), message)


@lru_cache(maxsize=16)
def _measures(sql: str) -> dict[str, str]:
    """The meaning of each output of a fragment, as one would write it. The SQL was read and reviewed before it ran."""
    from sqlglot import exp, parse_one

    from junto.plan.expressions import FRAGMENT_FUNCTIONS
    from junto.plan.spreads import is_spread

    found: dict[str, str] = {}
    for projection in parse_one(sql, dialect="duckdb").expressions:
        inner = projection.unalias()
        while isinstance(inner, exp.Cast | exp.Coalesce):  # what the protocol needs around it
            inner = inner.this
        holder = exp.Paren(this=inner)
        for call in list(holder.find_all(exp.Anonymous)):
            if call.name.lower() in FRAGMENT_FUNCTIONS:  # the question says SUM, or a function of the variance
                summed = call.expressions[0]
                shown = exp.Variance if is_spread(call) else exp.Sum
                call.replace(shown(this=summed.this if isinstance(summed, exp.Cast) else summed))
        for column in holder.find_all(exp.Column):
            column.set("table", None)
            column.this.set("quoted", _SIMPLE.fullmatch(column.name) is None)
        found[projection.alias] = holder.this.sql(dialect="duckdb")
    return found
