# SPDX-License-Identifier: Apache-2.0
"""Splits each aggregate into partial ones that every owner computes, and the expression that the answer takes of them.

    COUNT                 a count, summed
    SUM, AVG              an exact sum (integers and decimals) or a compensated one (reals), and a count
    VAR, STDDEV           count, sum and sum of squares (exact numbers of up to 14 digits), or a count and a spread
                          (`plan/spreads.py`); the deviation is worked out of the totals, as `Deviation` says
    MIN, MAX              the owners' own, of which the least or greatest is taken

What chooses between values becomes a FILTER, and constants leave the aggregate (`cases.py`, `terms.py`): so an owner
adds up columns and products of columns, and each sum has a guard that counts who contributes to it (`plan/guards.py`).

A partial sum of nothing is 0, so that partial values always add; the count tells whether the sum is NULL. A real that
is infinite or no number makes the sum so too, as in DuckDB.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from sqlglot import exp

from junto.errors import UnsupportedSQL
from junto.frontends.sql.cases import always_counts, branches
from junto.frontends.sql.flat import all_of
from junto.frontends.sql.terms import Term, literal, terms_of
from junto.frontends.sql.typing import is_plain
from junto.plan import expressions
from junto.plan.building import closed, not_null, number
from junto.plan.guards import MOST_SCALE
from junto.plan.operands import EXACT_DIGITS, bounded, digits_of, plain_column
from junto.plan.steps import Deviation, Encoding, Measure

INTEGERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "BOOLEAN")
)
REALS = frozenset(("FLOAT", "DOUBLE"))
_SQUARED_DIGITS = 14
"""The digits of exact numbers whose squares are summed exactly too; longer numbers are squared as reals."""
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


@dataclass(frozen=True)
class Part:
    """One choice of an aggregate's operand: where it is taken, the value, and the products whose sum that is."""

    conditions: tuple[exp.Expr, ...]
    value: exp.Expr
    terms: tuple[Term, ...]

    @property
    def factors(self) -> tuple[exp.Expr, ...]:
        """The different factors that hold a column: where one is NULL, so is the value."""
        return tuple(f for f in self.all_factors if f.find(exp.Column))

    @property
    def all_factors(self) -> tuple[exp.Expr, ...]:
        """The different factors of its products."""
        return tuple({f.sql(dialect="duckdb"): f for term in self.terms for f in term.factors}.values())


def parts_of(aggregate: Aggregate, is_number: Callable[[exp.Column], bool]) -> tuple[Part, ...]:
    """The choices of an aggregate's operand, that give no NULL. Raises UnsupportedSQL if they are too many."""
    if aggregate.operand is None or aggregate.units:
        return ()
    given = () if aggregate.condition is None else (aggregate.condition,)
    return tuple(
        Part((*given, *branch.conditions), branch.value, terms_of(branch.value, is_number))
        for branch in branches(aggregate.operand)
    )


@dataclass(frozen=True)
class Kinds:
    """DuckDB's types of expressions of a question, by their spelling; and the tables whose units are counted."""

    types: Mapping[str, str]
    counted: frozenset[str] = frozenset()

    def of(self, node: exp.Expr) -> str:
        """The type of an expression."""
        if isinstance(node, exp.TryCast) and node.sql(dialect="duckdb") not in self.types:  # it was bounded here
            return node.to.sql(dialect="duckdb").replace(" ", "")
        return self.types[node.sql(dialect="duckdb")]

    def _bounded(self, factor: exp.Expr) -> exp.Expr:
        """The factor; a column of numbers of more digits than a sum takes, bounded."""
        type_ = self.of(factor)
        scale = exact_scale(type_)
        if scale is None or scale > MOST_SCALE or digits_of(type_) <= EXACT_DIGITS:
            return factor
        return bounded(factor, scale) if isinstance(factor, exp.Column) else factor

    def settled(self, part: Part) -> Part:
        """The part, its value as one product if its factors are no numbers, as dates are."""
        factors = [factor for term in part.terms for factor in term.factors]
        if all(self.of(f) in REALS or exact_scale(self.of(f)) is not None for f in factors):
            terms = [replace(term, factors=tuple(map(self._bounded, term.factors))) for term in part.terms]
            return replace(part, terms=tuple(terms))
        return replace(part, terms=(Term(Fraction(1), (part.value,)),))


@dataclass
class Measures:
    """The partial aggregates of a question, each once, and what was derived of them."""

    kinds: Kinds
    partials: list[exp.Expr] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def final(self, aggregate: Aggregate, parts: Sequence[Part]) -> exp.Expr:
        """The answer's expression for an aggregate, over the columns of `released`. Raises UnsupportedSQL.

        parts: those that `parts_of` gave.
        """
        kind, operand = aggregate.kind, aggregate.operand
        if kind is exp.Count and (operand is None or aggregate.units):
            return self._rows(aggregate)
        if operand is None:
            raise UnsupportedSQL(f"{expressions.readable(aggregate.call)} is not supported: name a column in it")
        parts = [self.kinds.settled(part) for part in parts]
        if kind is exp.Count:
            return self._count(aggregate, parts)
        if kind in (exp.Min, exp.Max):
            return self._extreme(aggregate, parts)
        type_ = self.kinds.of(operand)
        exact = exact_scale(type_)
        if exact is None and type_ not in REALS:
            raise UnsupportedSQL(
                f"{expressions.readable(aggregate.call)} is of type {type_[:60]}: sums and averages are of numbers"
            )
        if kind not in (exp.Sum, exp.Avg):
            return self._spread(aggregate, parts)
        real = kind is exp.Avg or type_ in REALS
        total = self._total(aggregate, parts, real=real)
        if kind is exp.Avg:
            count = self._count(aggregate, parts)
            return _if_more(count, 0, exp.Div(this=total, expression=closed(count)))
        if not real:
            total = _cast(total, f"DECIMAL(38, {exact})" if type_.startswith("DECIMAL") else "HUGEINT")
        some_are_nothing = any(not term.constant for part in parts for term in part.terms)
        count = self._rows(replace(aggregate, operand=None)) if some_are_nothing else self._count(aggregate, parts)
        return _if_more(count, 0, total)

    def _total(self, aggregate: Aggregate, parts: Sequence[Part], *, real: bool) -> exp.Expr:
        """The sum over all parts of each term's constant times its own sum."""
        pieces: list[exp.Expr] = []
        for part in parts:
            for term in part.terms:
                if not term.constant:
                    continue
                column: exp.Expr = self._product(part, term) if term.factors else self._count_of(part)
                constant = literal(term.constant, real=real)
                if constant is None:
                    raise UnsupportedSQL(f"{expressions.readable(aggregate.call)} holds a constant of too many digits")
                column = _cast(column, "DOUBLE") if real else column
                pieces.append(column if term.constant == 1 else exp.Mul(this=column, expression=constant))
        total = pieces[0] if pieces else number(0)
        for piece in pieces[1:]:
            total = exp.Add(this=total, expression=piece)
        return exp.paren(total, copy=False) if len(pieces) > 1 else total

    def _product(self, part: Part, term: Term) -> exp.Column:
        """The sum of one product, over the rows where the whole part has a value."""
        own = {factor.sql(dialect="duckdb") for factor in term.factors}
        others = [not_null(f) for f in part.factors if f.sql(dialect="duckdb") not in own]
        conditions = (*part.conditions, *others)
        types = [self.kinds.of(factor) for factor in term.factors]
        scales = [exact_scale(type_) for type_ in types]
        digits, scale = sum(map(digits_of, types)), sum(s or 0 for s in scales)
        plain = all(plain_column(factor, self.kinds.counted) is not None for factor in term.factors)
        most = EXACT_DIGITS if len(types) > 2 or not plain else 2 * EXACT_DIGITS
        bounded_alone = plain and len(types) == 1
        if None in scales or scale > MOST_SCALE or (digits > most and not bounded_alone):
            return self._reals("FSUM", "real", term.factors, conditions)
        factors = [f.copy() if plain else _typed(f, t) for f, t in zip(term.factors, types, strict=True)]
        if len(factors) > 1 and not any(type_.startswith("DECIMAL") for type_ in types):
            factors[0] = _cast(factors[0], "HUGEINT")
        return self._exact(_multiplied(factors), scale, conditions)

    def _count(self, aggregate: Aggregate, parts: Sequence[Part]) -> exp.Expr:
        """The number of rows that have a value of the operand."""
        if aggregate.operand is not None and always_counts(aggregate.operand):
            return self._rows(replace(aggregate, operand=None))
        counts: list[exp.Expr] = [self._count_of(part) for part in parts]
        total = counts[0] if counts else number(0)
        for count in counts[1:]:
            total = exp.Add(this=total, expression=count)
        return exp.paren(total, copy=False) if len(counts) > 1 else total

    def _count_of(self, part: Part) -> exp.Column:
        factors = part.factors
        operand: exp.Expr = factors[0].copy() if len(factors) == 1 else exp.Star()
        if len(factors) == 1 and isinstance(operand, exp.Paren):
            operand = operand.unnest()
        conditions = part.conditions if len(factors) == 1 else (*part.conditions, *map(not_null, factors))
        return self._counted(operand, conditions)

    def _rows(self, aggregate: Aggregate) -> exp.Column:
        operand: exp.Expr = exp.Star() if aggregate.operand is None else aggregate.operand.copy()
        if aggregate.units and aggregate.operand is not None:
            operand = exp.Distinct(expressions=[operand])
        return self._counted(operand, () if aggregate.condition is None else (aggregate.condition,))

    def _counted(self, operand: exp.Expr, conditions: Sequence[exp.Expr]) -> exp.Column:
        part = self._filtered(exp.Count(this=operand, big_int=True), conditions)
        return self._add(part, Measure("", "sum", "count", "BIGINT"))

    def _extreme(self, aggregate: Aggregate, parts: Sequence[Part]) -> exp.Expr:
        """The least or greatest over all parts; NULL if that of one part is."""
        least = aggregate.kind is exp.Min
        type_ = self.kinds.of(aggregate.operand) if aggregate.operand is not None else ""
        if not is_plain(type_):
            raise UnsupportedSQL(
                f"{expressions.readable(aggregate.call)} is of type {type_[:60]}, which parties do not compare:"
                " cast it to a number, a date or VARCHAR"
            )
        found: list[exp.Expr] = []
        for part in parts:
            call = self._filtered(aggregate.kind(this=part.value.unnest().copy()), part.conditions)
            found.append(self._add(call, Measure("", "min" if least else "max", "value", self.kinds.of(part.value))))
        if not found:
            return _cast(exp.Null(), type_)
        if len(found) == 1:
            return found[0]
        known: exp.Expr = not_null(found[0])
        for column in found[1:]:
            known = exp.And(this=known, expression=not_null(column))
        call = (exp.Least if least else exp.Greatest)(this=found[0].copy(), expressions=[c.copy() for c in found[1:]])
        return exp.Case(ifs=[exp.If(this=known, true=call)])

    def _spread(self, aggregate: Aggregate, parts: Sequence[Part]) -> exp.Expr:
        if len(parts) != 1:
            raise UnsupportedSQL(
                f"{expressions.readable(aggregate.call)} chooses among values: write CASE with one THEN, or FILTER"
            )
        (part,) = parts
        operand, constant = part.value.unnest(), Fraction(1)
        varying = [term for term in part.terms if term.factors]
        if len(varying) == 1 and len(varying[0].factors) == 1:
            operand, constant = varying[0].factors[0], varying[0].constant
        count = self._count_of(part)
        type_ = self.kinds.of(operand)
        scale = exact_scale(type_)
        if scale is None or digits_of(type_) > _SQUARED_DIGITS:
            total = squares = self._reals("FSPREAD", "spread", (operand,), part.conditions)
        else:
            total = self._exact(operand.copy(), scale, part.conditions)
            factor = operand.copy() if type_.startswith("DECIMAL") else _cast(operand, "HUGEINT")
            squares = self._exact(_multiplied([factor, factor.copy()]), 2 * scale, part.conditions)
        deviation = Deviation(f"d{len(self.deviations)}", count.name, total.name, squares.name)
        for known in self.deviations:
            if (known.n, known.s, known.ss) == (deviation.n, deviation.s, deviation.ss):
                deviation = known
                break
        else:
            self.deviations.append(deviation)
        sample, root = _SPREADS[aggregate.kind]
        divisor = exp.paren(exp.Sub(this=count.copy(), expression=number(1))) if sample else count.copy()
        spread: exp.Expr = exp.Div(this=released(deviation.name), expression=divisor)
        spread = exp.Sqrt(this=spread) if root else spread
        times = literal(abs(constant) if root else constant * constant, real=True)
        if times is None:
            raise UnsupportedSQL(f"{expressions.readable(aggregate.call)} holds a constant of too many digits")
        if constant not in (1, -1):
            spread = exp.Mul(this=spread, expression=times)
        return _if_more(count, 1 if sample else 0, spread)

    def _exact(self, operand: exp.Expr, scale: int, conditions: Sequence[exp.Expr]) -> exp.Column:
        call = self._filtered(exp.Sum(this=operand), conditions)
        part = _cast(exp.Coalesce(this=call, expressions=[number(0)]), f"DECIMAL(38, {scale})")
        return self._add(part, Measure("", "sum", "integer", f"DECIMAL(38,{scale})", scale))

    def _reals(
        self, function: str, encoding: Encoding, factors: Sequence[exp.Expr], conditions: Sequence[exp.Expr]
    ) -> exp.Column:
        operand = _multiplied([_cast(factor, "DOUBLE") for factor in factors])
        call = self._filtered(exp.Anonymous(this=function, expressions=[operand]), conditions)
        part = exp.Coalesce(this=call, expressions=[number(0)])
        return self._add(part, Measure("", "sum", encoding, "DOUBLE"))

    def _filtered(self, call: exp.Expr, conditions: Sequence[exp.Expr]) -> exp.Expr:
        if not conditions:
            return call
        return exp.Filter(this=call, expression=exp.Where(this=all_of([c.copy() for c in conditions])))

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


def _multiplied(factors: Sequence[exp.Expr]) -> exp.Expr:
    product = factors[0] if len(factors) == 1 else closed(factors[0])
    for factor in factors[1:]:
        product = exp.Mul(this=product, expression=closed(factor))
    return product


def _typed(factor: exp.Expr, type_: str) -> exp.Expr:
    """A factor that says of which type it is, so that every owner sees how many digits it has."""
    return factor.copy() if isinstance(factor, exp.Column) else _cast(factor, type_)


def _if_more(count: exp.Expr, than: int, value: exp.Expr) -> exp.Expr:
    condition = exp.GT(this=count.copy(), expression=number(than))
    return exp.Case(ifs=[exp.If(this=condition, true=value)])
