# SPDX-License-Identifier: Apache-2.0
"""Splits each aggregate into partial ones that every owner computes, and the expression that the answer takes of them.

    COUNT                 a count, summed
    SUM, AVG              an exact sum (integers and decimals) or a compensated one (reals), and a count
    VAR, STDDEV           count, sum and sum of squares; the deviation is worked out of the totals, as `Deviation` says
    MIN, MAX              the owners' own, of which the least or greatest is taken

A partial sum of nothing is 0, so that partial values always add; the count tells whether the sum is NULL. A real that
is infinite or no number makes its partial sum so too; the encoding of sums then refuses it by name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from junto.errors import UnsupportedSQL
from junto.plan import expressions
from junto.plan.steps import Deviation, Measure

INTEGERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "BOOLEAN")
)
REALS = frozenset(("FLOAT", "DOUBLE"))
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")

_SPREADS: dict[type[exp.Expr], tuple[bool, bool]] = {  # of a sample? its root?
    exp.Variance: (True, False),
    exp.VariancePop: (False, False),
    exp.Stddev: (True, True),
    exp.StddevSamp: (True, True),
    exp.StddevPop: (False, True),
}


@dataclass(frozen=True)
class Aggregate:
    """One aggregate of the question, bound, and the type of what it is taken of (empty for a count)."""

    call: exp.Expr  # with its FILTER, if it has one
    operand: exp.Expr | None  # None: rows, or units
    condition: exp.Expr | None
    kind: type[exp.Expr]
    units: bool = False  # COUNT(DISTINCT …)


def aggregates_in(nodes: Sequence[exp.Expr]) -> list[Aggregate]:
    """The different aggregates in some expressions. Raises UnsupportedSQL."""
    found: dict[str, Aggregate] = {}
    for root in nodes:
        for call in root.find_all(*expressions.AGGREGATES):
            holder = call.parent if isinstance(call.parent, exp.Filter) and call.arg_key == "this" else call
            if holder is not None:
                found.setdefault(holder.sql(), _read(call, holder))
    return list(found.values())


def _read(call: exp.Expr, holder: exp.Expr) -> Aggregate:
    condition = holder.expression.this if isinstance(holder, exp.Filter) else None
    inside = [
        node for part in (call.this, condition) if part is not None for node in part.find_all(*expressions.AGGREGATES)
    ]
    if inside:
        raise UnsupportedSQL(
            f"{expressions.readable(inside[0])} inside an aggregate is not supported: nest no aggregates"
        )
    operand: exp.Expr | None = call.this
    units = False
    if isinstance(operand, exp.Distinct):
        if not isinstance(call, exp.Count):
            raise UnsupportedSQL(
                f"{expressions.name_of(call)} of DISTINCT values is not supported: only COUNT(DISTINCT the unit) is"
            )
        operand, units = operand.expressions[0] if len(operand.expressions) == 1 else operand, True
    if isinstance(operand, exp.Star):
        operand = None
    return Aggregate(holder, operand, condition, type(call), units)


@dataclass
class Measures:
    """The partial aggregates of a question, each once, and what was derived of them."""

    partials: list[exp.Expr] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def final(self, aggregate: Aggregate, type_: str) -> exp.Expr:
        """What the answer takes for an aggregate, over the columns of `released`. Raises UnsupportedSQL.

        type_: DuckDB's type of the operand, if there is one.
        """
        kind, operand = aggregate.kind, aggregate.operand
        if kind is exp.Count:
            return self._count(aggregate)
        if operand is None:
            raise UnsupportedSQL(f"{expressions.readable(aggregate.call)} is not supported: name a column in it")
        if kind in (exp.Min, exp.Max):
            least = kind is exp.Min
            part = self._filtered(kind(this=operand.copy()), aggregate)
            return self._add(part, Measure("", "min" if least else "max", "value", type_))
        exact = exact_scale(type_)
        if exact is None and type_ not in REALS:
            raise UnsupportedSQL(
                f"{expressions.readable(aggregate.call)} is of type {type_[:60]}: sums and averages are of numbers"
            )
        count = self._count(aggregate)
        if kind in (exp.Sum, exp.Avg):
            total = self._sum(operand, type_, aggregate)
            if kind is exp.Avg:
                total = exp.Div(this=_cast(total, "DOUBLE"), expression=count.copy())
            elif type_ not in REALS:
                total = _cast(total, f"DECIMAL(38, {exact})" if type_.startswith("DECIMAL") else "HUGEINT")
            return _if_more(count, 0, total)
        return self._spread(aggregate, operand, type_, count)

    def _spread(self, aggregate: Aggregate, operand: exp.Expr, type_: str, count: exp.Expr) -> exp.Expr:
        decimal = _DECIMAL.fullmatch(type_)
        if decimal and int(decimal[1]) > 18:
            operand, type_ = _cast(operand, "DOUBLE"), "DOUBLE"
        total = self._sum(operand, type_, aggregate)
        factor = _cast(operand, "HUGEINT") if type_ in INTEGERS else exp.paren(operand)
        if type_ in REALS:
            factor = _cast(operand, "DOUBLE")
        square = exp.Mul(this=factor, expression=factor.copy())
        scale = exact_scale(type_)
        squares_type = type_ if type_ in REALS else f"DECIMAL(36,{2 * scale})" if scale else "HUGEINT"
        squares = self._sum(square, squares_type, aggregate)
        deviation = Deviation(f"d{len(self.deviations)}", count.name, total.name, squares.name)
        for known in self.deviations:
            if (known.n, known.s, known.ss) == (deviation.n, deviation.s, deviation.ss):
                deviation = known
                break
        else:
            self.deviations.append(deviation)
        sample, root = _SPREADS[aggregate.kind]
        divisor = exp.paren(exp.Sub(this=count.copy(), expression=_number(1))) if sample else count.copy()
        spread: exp.Expr = exp.Div(this=released(deviation.name), expression=divisor)
        return _if_more(count, 1 if sample else 0, exp.Sqrt(this=spread) if root else spread)

    def _count(self, aggregate: Aggregate) -> exp.Expr:
        operand: exp.Expr = exp.Star() if aggregate.operand is None else aggregate.operand.copy()
        if aggregate.units:
            operand = exp.Distinct(expressions=[operand])
        part = self._filtered(exp.Count(this=operand, big_int=True), aggregate)
        return self._add(part, Measure("", "sum", "count", "BIGINT"))

    def _sum(self, operand: exp.Expr, type_: str, aggregate: Aggregate) -> exp.Expr:
        scale = exact_scale(type_)
        zero = _number(0)
        if scale is None:
            call = self._filtered(exp.Anonymous(this="FSUM", expressions=[_cast(operand, "DOUBLE")]), aggregate)
            return self._add(exp.Coalesce(this=call, expressions=[zero]), Measure("", "sum", "real", "DOUBLE"))
        call = self._filtered(exp.Sum(this=operand.copy()), aggregate)
        wide = f"DECIMAL(38, {scale})"
        part = _cast(exp.Coalesce(this=call, expressions=[zero]), wide)
        return self._add(part, Measure("", "sum", "integer", f"DECIMAL(38,{scale})", scale))

    def _filtered(self, call: exp.Expr, aggregate: Aggregate) -> exp.Expr:
        if aggregate.condition is None:
            return call
        return exp.Filter(this=call, expression=exp.Where(this=aggregate.condition.copy()))

    def _add(self, part: exp.Expr, measure: Measure) -> exp.Column:
        spelled = part.sql(dialect="duckdb")
        name = self._names.get(spelled)
        if name is None:
            name = f"m{len(self.partials)}"
            self._names[spelled] = name
            self.partials.append(part)
            self.measures.append(Measure(name, measure.combine, measure.encoding, measure.type, measure.scale))
        return released(name)


def exact_scale(type_: str) -> int | None:
    """The decimal places of an exact number's type; None if it is not exact."""
    if type_ in INTEGERS:
        return 0
    decimal = _DECIMAL.fullmatch(type_)
    return int(decimal[2]) if decimal else None


def released(name: str) -> exp.Column:
    """A column of the table `released`."""
    return exp.column(exp.to_identifier(name, quoted=True))


def _cast(node: exp.Expr, type_: str) -> exp.Expr:
    return exp.Cast(this=node.copy(), to=exp.DataType.build(type_, dialect="duckdb"))


def _number(value: int) -> exp.Expr:
    return exp.Literal.number(value)


def _if_more(count: exp.Expr, than: int, value: exp.Expr) -> exp.Expr:
    condition = exp.GT(this=count.copy(), expression=_number(than))
    return exp.Case(ifs=[exp.If(this=condition, true=value)])
