# SPDX-License-Identifier: Apache-2.0
"""The guards of a grouped fragment: conditions that tell which units contribute to each of its figures.

A threshold over groups alone lets a figure through to which one person of a large group contributes. So each measure
has a *guard*: the condition under which a row contributes to it, found in the fragment's own SQL. Nothing about guards
comes over the wire, and every owner of a question derives the same ones.

    COUNT(*)                            the group itself
    COUNT(x), SUM(x), MIN(x)            x IS NOT NULL
    any aggregate with FILTER           that, AND the FILTER
    SUM(x * w), w shaped by the asker   that, AND w is a weight of ordinary size that is not 0

`counting.py` writes the SQL that counts the units behind each guard, and what each unit brings to the sums that are
tested for dominance: a sum is dominated if its largest unit brings more than the rules' share of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
from sqlglot import exp

from junto.errors import PeerFault
from junto.plan import expressions
from junto.plan.building import closed, not_null, number
from junto.plan.operands import EXACT_DIGITS, Call, call_of, plain_column, value_of
from junto.plan.steps import Plan, Query, Release, Threshold
from junto.plan.total import Types, total
from junto.types import PartyId, StepId

MOST_SCALE = EXACT_DIGITS - 1
"""The greatest scale of an exact sum."""

MAGNITUDE_MOST = "1e290"
"""The greatest magnitude of a real that counts for dominance: infinity and NaN have none."""

_WEIGHT_LEAST, _WEIGHT_MOST = "1e-9", "1e9"
_KNOWN = 64  # fragments that are kept taken apart


@dataclass(frozen=True, slots=True)
class Guards:
    """The conditions that a threshold tests, beyond the groups' own units.

    counts: the condition of each guard, as SQL; the first is empty, the group itself. of: the guard of each measure, an
    index into `counts`. sums: the measures that are tested for dominance, in order.
    """

    counts: tuple[str, ...]
    of: Mapping[str, int]
    sums: tuple[str, ...]

    @property
    def cells(self) -> int:
        """The number of flags that a threshold gives for each group: one per guard, then one per sum tested."""
        return len(self.counts) + len(self.sums)

    def flags(self, measure: str) -> tuple[int, ...]:
        """The indexes of the flags that must all be set for a measure to be shown."""
        guard = self.of[measure]
        return (guard, len(self.counts) + self.sums.index(measure)) if measure in self.sums else (guard,)


def guards(queries: Sequence[Query]) -> Guards:
    """The guards of a question, from the fragments of all its owners, which passed `fragment.read`.

    Their SQL differs at most in how units are counted. Counts are tested for dominance where a unit may have several
    rows at one of them.
    """
    return figures(queries[0]).guards(any(figures(query).repeats for query in queries))


def guards_of(plan: Plan, threshold: StepId) -> Guards:
    """The guards of the question that a threshold looks at. Raises PeerFault if that step is no threshold."""
    step = plan.step(threshold)
    if not isinstance(step, Threshold):
        raise PeerFault(f"step {threshold} is no threshold")
    return guards(question_of(plan, step))


def question_of(plan: Plan, threshold: Threshold) -> tuple[Query, ...]:
    """The fragments of one grouped question: those of the contributors, and the receiver's own."""
    own = [step.own for step in plan.steps if isinstance(step, Release) and step.own is not None]
    found = (plan.step(id) for id in (*threshold.inputs, *own))
    return tuple(step for step in found if isinstance(step, Query) and step.keys is not None)


def further_columns(query: Query) -> tuple[tuple[str, str], ...]:
    """The columns, (name, type) in order, that `counting.engine_sql` gives beside those of the plan."""
    found = guards((query,))
    shares = [(f"{letter}{index}", "DOUBLE") for index in range(len(found.sums)) for letter in "tx"]
    return (*((f"u{index}", "BIGINT") for index in range(1, len(found.counts))), *shares)


def _units_of(tree: exp.Select) -> list[exp.Column]:
    """The columns whose distinct values are the units; none where each row is one."""
    output = next(p.this for p in tree.expressions if p.alias == "units")
    counts = [output.this, *output.expressions] if isinstance(output, exp.Least) else [output]
    return [count.this.expressions[0] for count in counts if isinstance(count.this, exp.Distinct)]


@dataclass(frozen=True, slots=True)
class Condition:
    """A guard: the parts that must all hold, and the columns that must not be NULL besides."""

    parts: tuple[exp.Expr, ...]
    columns: tuple[exp.Expr, ...] = ()

    @property
    def text(self) -> str:
        """The whole condition as SQL, the same for the same parts in any order."""
        parts = [*self.parts, *map(not_null, self.columns)]
        return " AND ".join(sorted({f"({part.sql(dialect='duckdb', comments=False)})" for part in parts}))

    def where(self, types: Types, columns: Sequence[exp.Expr] = ()) -> exp.Expr | None:
        """The parts joined, none of which fails, and those columns not NULL."""
        whole: exp.Expr | None = None
        for part in [*self.parts, *map(not_null, columns)]:
            sure = total(part, types)
            sure = exp.paren(sure, copy=False) if isinstance(sure, exp.Or) else sure
            whole = sure if whole is None else exp.And(this=whole, expression=sure)
        return whole


def figures(query: Query) -> "Figures":
    """A grouped fragment taken apart: once for all owners whose fragments have the same SQL."""
    reads = tuple(msgspec.structs.replace(read, version=None, columns=()) for read in query.reads)
    return _figures(msgspec.structs.replace(query, id=StepId(""), party=PartyId(""), reads=reads))


@lru_cache(_KNOWN)
def _figures(query: Query) -> "Figures":
    return Figures(query)


class Figures:
    """One grouped fragment taken apart.

    units: the columns whose distinct values are the units; none where each row is one. names: of tables, by alias.
    counted: aliases of the tables whose units are counted. outputs: the expression of each output. calls: the aggregate
    of each measure. conditions: the guard of each measure.
    """

    def __init__(self, query: Query) -> None:
        self.query = query
        self.tree = expressions.parse(query.sql)
        self.units = _units_of(self.tree)
        self.names = {t.alias: t.name for t in self.tree.find_all(exp.Table) if t.parent_select is self.tree}
        datasets = {read.name for read in query.reads if read.dataset is not None}
        own = {alias for alias, name in self.names.items() if name in datasets}
        self.counted = {column.table for column in self.units} or own
        self.outputs = {p.alias: p.this for p in self.tree.expressions}
        self.calls = {m.name: call_of(self.outputs[m.name]) for m in query.measures}
        self.conditions = {name: self._condition(call) for name, call in self.calls.items()}
        self._counts = {"": 0}
        self._of = {
            name: self._counts.setdefault(condition.text, len(self._counts))
            for name, condition in self.conditions.items()
        }

    @property
    def repeats(self) -> bool:
        """True if a unit may have several rows."""
        return bool(self.units)

    def guards(self, repeated: bool) -> Guards:
        """See `guards`. repeated: whether a unit may have several rows at some owner."""
        sums = tuple(name for name, call in self.calls.items() if call.is_sum or (repeated and counts_rows(call)))
        return Guards(tuple(self._counts), self._of, sums)

    def _condition(self, call: Call) -> Condition:
        parts = [] if call.condition is None else list(_conjuncts(call.condition))
        columns: dict[str, exp.Expr] = {}
        for factor in call.factors:
            column = plain_column(factor, self.counted)
            if column is not None:
                columns[value_of(factor).sql(dialect="duckdb")] = value_of(factor)
            elif not call.is_sum:
                parts.append(not_null(factor))
            elif len(call.factors) > 1:
                size = exp.Abs(this=factor.copy())
                parts.append(exp.Between(this=size, low=number(_WEIGHT_LEAST), high=number(_WEIGHT_MOST)))
            elif call.is_real:
                size = exp.Abs(this=exp.Cast(this=factor.copy(), to=exp.DataType.build("DOUBLE")))
                parts += [
                    exp.NEQ(this=closed(factor), expression=number("0")),
                    exp.LTE(this=size, expression=number(MAGNITUDE_MOST)),
                ]
            else:
                parts.append(exp.NEQ(this=closed(factor), expression=number("0")))
        return Condition(tuple(parts), tuple(columns.values()))


def counts_rows(call: Call) -> bool:
    """True if an aggregate counts rows, and not units."""
    return isinstance(call.function, exp.Count) and not isinstance(call.function.this, exp.Distinct)


def _conjuncts(node: exp.Expr) -> Sequence[exp.Expr]:
    return [*node.flatten()] if isinstance(node, exp.And) else [node]
