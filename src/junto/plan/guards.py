# SPDX-License-Identifier: Apache-2.0
"""Which units contribute to each figure of a grouped fragment, and the SQL that an owner's engine runs to count them.

A threshold over groups alone lets a figure through to which one person of a large group contributes. So each measure
has a *guard*: the condition under which a row contributes to it, found in the fragment's own SQL. Nothing about guards
comes over the wire, and every owner of a question derives the same ones.

    COUNT(*)                            the group itself
    COUNT(x), SUM(x), MIN(x)            x IS NOT NULL
    any aggregate with FILTER           that, AND the FILTER
    SUM(x * w), w shaped by the asker   that, AND w is a weight of ordinary size that is not 0

An engine computes, beside the plan's columns k0…, units, m0…: `u1…`, the units behind each further guard, and for the
*i*-th sum that is tested for dominance `t<i>`, the sum over units of the magnitude that the unit brings, and `x<i>`,
the largest unit's. A sum is dominated if its largest unit brings more than the rules' share of it.

What the engine runs cannot fail on any row (`total.py`). A sum of exact numbers takes those of up to 29 digits, so that
it cannot overflow either, and is NULL if one is longer. Weights go from 1e-9 to 1e9, reals of functions are finite.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import exp

from junto.errors import PeerFault
from junto.plan import expressions
from junto.plan.operands import EXACT_DIGITS, Call, call_of, operand_of, plain_column, value_of
from junto.plan.spreads import centred
from junto.plan.steps import Measure, Plan, Query, Release, Threshold
from junto.plan.total import Types, total
from junto.types import StepId

MOST_SCALE = EXACT_DIGITS - 1
"""Of an exact sum."""

_WEIGHT_LEAST, _WEIGHT_MOST = "1e-9", "1e9"
_MAGNITUDE_MOST = "1e290"  # of a real that counts for dominance: infinity and NaN have none
_KNOWN = 64  # fragments that are kept taken apart
_NARROW = frozenset(
    (
        *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "BOOLEAN"),
        *("FLOAT", "DOUBLE"),
    )
)


@dataclass(frozen=True, slots=True)
class Guards:
    """What a threshold looks at, beyond the groups' own units.

    counts: the condition of each guard, as SQL; the first is empty, the group itself. of: the guard of each measure, an
    index into `counts`. sums: the measures that are tested for dominance, in order.
    """

    counts: tuple[str, ...]
    of: Mapping[str, int]
    sums: tuple[str, ...]

    @property
    def cells(self) -> int:
        """How many flags a threshold gives for each group: one for each guard, then one for each sum tested."""
        return len(self.counts) + len(self.sums)

    def flags(self, measure: str) -> tuple[int, ...]:
        """Which of these flags must all be set for a measure to be shown."""
        guard = self.of[measure]
        return (guard, len(self.counts) + self.sums.index(measure)) if measure in self.sums else (guard,)


def guards(queries: Sequence[Query]) -> Guards:
    """The guards of a question, from the fragments of all its owners, which passed `fragment.read`.

    Their SQL differs at most in how units are counted. Counts are tested for dominance where a unit may have several
    rows at one of them.
    """
    return _plan(queries[0]).guards(any(_plan(query).repeats for query in queries))


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


def engine_sql(query: Query, types: Types) -> str:
    """The SQL that an engine runs for a grouped fragment: nothing in it fails on a row, and the guards are counted.

    types: of the columns of each table that the fragment reads, by its name there. For a fragment whose units are its
    rows, dominance of counts is left out: each unit brings 1.
    """
    return _plan(query).sql(types)


def further_columns(query: Query) -> tuple[tuple[str, str], ...]:
    """The columns, (name, type) in order, that `engine_sql` gives beside those of the plan."""
    found = guards((query,))
    shares = [(f"{letter}{index}", "DOUBLE") for index in range(len(found.sums)) for letter in "tx"]
    return (*((f"u{index}", "BIGINT") for index in range(1, len(found.counts))), *shares)


def _units_of(tree: exp.Select) -> list[exp.Column]:
    """The columns whose distinct values are the units; none where each row is one."""
    output = next(p.this for p in tree.expressions if p.alias == "units")
    counts = [output.this, *output.expressions] if isinstance(output, exp.Least) else [output]
    return [count.this.expressions[0] for count in counts if isinstance(count.this, exp.Distinct)]


@dataclass(frozen=True, slots=True)
class _Condition:
    """A guard: the parts that must all hold, and the columns that must not be NULL besides."""

    parts: tuple[exp.Expr, ...]
    columns: tuple[exp.Expr, ...] = ()

    @property
    def text(self) -> str:
        parts = [*self.parts, *map(_not_null, self.columns)]
        return " AND ".join(sorted({f"({part.sql(dialect='duckdb', comments=False)})" for part in parts}))

    def where(self, types: Types, columns: Sequence[exp.Expr] = ()) -> exp.Expr | None:
        """The parts joined, none of which fails, and those columns not NULL."""
        whole: exp.Expr | None = None
        for part in [*self.parts, *map(_not_null, columns)]:
            sure = total(part, types)
            sure = exp.paren(sure, copy=False) if isinstance(sure, exp.Or) else sure
            whole = sure if whole is None else exp.And(this=whole, expression=sure)
        return whole


@lru_cache(_KNOWN)
def _plan(query: Query) -> "_Plan":
    return _Plan(query)


class _Plan:
    """One fragment taken apart."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._tree = expressions.parse(query.sql)
        self._units = _units_of(self._tree)
        self._names = {t.alias: t.name for t in self._tree.find_all(exp.Table) if t.parent_select is self._tree}
        datasets = {read.name for read in query.reads if read.dataset is not None}
        own = {alias for alias, name in self._names.items() if name in datasets}
        self._counted = {column.table for column in self._units} or own
        self._outputs = {p.alias: p.this for p in self._tree.expressions}
        self._calls = {m.name: call_of(self._outputs[m.name]) for m in query.measures}
        self._conditions = {name: self._condition(call) for name, call in self._calls.items()}

    @property
    def repeats(self) -> bool:
        """Whether a unit may have several rows."""
        return bool(self._units)

    def guards(self, repeated: bool) -> Guards:
        """See `guards`. repeated: whether a unit may have several rows at some owner."""
        counts = [""]
        of: dict[str, int] = {}
        for name, condition in self._conditions.items():
            if condition.text not in counts:
                counts.append(condition.text)
            of[name] = counts.index(condition.text)
        sums = tuple(name for name, call in self._calls.items() if call.is_sum or (repeated and _counts_rows(call)))
        return Guards(tuple(counts), of, sums)

    def sql(self, types: Types) -> str:
        """See `engine_sql`."""
        types = {**types, **{alias: types[name] for alias, name in self._names.items() if name in types}}
        base = centred(self._base(types), self._query.keys or ())
        found = self.guards(bool(self._units))
        first = {text: name for name in reversed(list(found.of)) if (text := found.counts[found.of[name]])}
        for index, text in enumerate(found.counts):
            if text:
                units = self._units_behind(self._conditions[first[text]], types)
                base.append("expressions", exp.alias_(units, f"u{index}", quoted=True))
        if not found.sums:
            return _spelled(base)
        if not self._units:
            for index, name in enumerate(found.sums):
                where = self._conditions[name].where(types)
                magnitude = self._magnitude(name, types)
                most = _filtered(exp.Max(this=magnitude.copy()), where)
                base.append("expressions", exp.alias_(_or_zero(_filtered(exp.Sum(this=magnitude), where)), f"t{index}"))
                base.append("expressions", exp.alias_(_or_zero(most), f"x{index}"))
            return _spelled(base)
        return self._joined(base, found.sums, types)

    def _condition(self, call: Call) -> _Condition:
        parts = [] if call.condition is None else list(_conjuncts(call.condition))
        columns: dict[str, exp.Expr] = {}
        for factor in call.factors:
            column = plain_column(factor, self._counted)
            if column is not None:
                columns[value_of(factor).sql(dialect="duckdb")] = value_of(factor)
            elif not call.is_sum:
                parts.append(_not_null(factor))
            elif call.is_real and len(call.factors) > 1:
                size = exp.Abs(this=factor.copy())
                parts.append(exp.Between(this=size, low=_number(_WEIGHT_LEAST), high=_number(_WEIGHT_MOST)))
            elif call.is_real:
                size = exp.Abs(this=exp.Cast(this=factor.copy(), to=exp.DataType.build("DOUBLE")))
                parts += [
                    exp.NEQ(this=_closed(factor), expression=_number("0")),
                    exp.LTE(this=size, expression=_number(_MAGNITUDE_MOST)),
                ]
            else:
                parts.append(exp.NEQ(this=_closed(factor), expression=_number("0")))
        return _Condition(tuple(parts), tuple(columns.values()))

    def _base(self, types: Types) -> exp.Select:
        """The fragment itself, nothing in which fails."""
        tree = self._tree.copy()
        for join in tree.args.get("joins") or []:
            join.set("on", total(join.args["on"], types))
        if tree.args.get("where") is not None:
            tree.set("where", exp.Where(this=total(tree.args["where"].this, types)))
        for projection in tree.expressions:
            name = projection.alias
            if name in (self._query.keys or ()):
                projection.set("this", total(projection.this, types))
            elif name in self._calls:
                label = next(m for m in self._query.measures if m.name == name)
                projection.set("this", self._sure_measure(projection.this, name, label, types))
        return tree

    def _sure_measure(self, output: exp.Expr, name: str, label: Measure, types: Types) -> exp.Expr:
        call = self._calls[name]
        function = call.function.copy()
        operand = operand_of(function)
        narrowed: exp.Expr | None = None
        if operand is not None:
            sure = total(operand, types)
            if label.encoding == "integer" and not self._is_narrow(operand, types):
                to = exp.DataType.build(f"DECIMAL({EXACT_DIGITS}, {label.scale})", dialect="duckdb")
                sure = narrowed = exp.TryCast(this=sure, to=to)
            function = (
                exp.Anonymous(this=function.name, expressions=[sure]) if call.is_real else type(function)(this=sure)
            )
        shaped = call.is_sum and any(plain_column(f, self._counted) is None for f in call.factors)
        condition = (
            self._conditions[name] if shaped else _Condition(() if call.condition is None else (call.condition,))
        )
        where = condition.where(types)
        summed = _put_in(output, _filtered(function, where))
        return summed if narrowed is None else self._if_whole(summed, narrowed, call, where, types)

    def _if_whole(
        self, summed: exp.Expr, narrowed: exp.Expr, call: Call, where: exp.Expr | None, types: Types
    ) -> exp.Expr:
        """A sum of exact numbers if every number fitted, else NULL: a sum without some would be a wrong answer."""
        present: exp.Expr | None = None
        for factor in call.factors:
            there = _not_null(total(factor, types))
            present = there if present is None else exp.And(this=present, expression=there)
        if present is None:
            return summed
        given = exp.Case(ifs=[exp.If(this=present, true=_number("1"))])
        counts = [_filtered(exp.Count(this=node.copy(), big_int=True), where) for node in (narrowed, given)]
        return exp.Case(ifs=[exp.If(this=exp.EQ(this=counts[0], expression=counts[1]), true=summed)])

    def _is_narrow(self, operand: exp.Expr, types: Types) -> bool:
        column = plain_column(operand, self._counted)
        type_ = types.get(column.table, {}).get(column.name, "") if column is not None else ""
        digits = type_.removeprefix("DECIMAL(").partition(",")[0]
        return type_ in _NARROW or (type_.startswith("DECIMAL(") and digits.isdecimal() and int(digits) <= EXACT_DIGITS)

    def _units_behind(self, condition: _Condition, types: Types) -> exp.Expr:
        if not self._units:
            first, *more = condition.columns or (exp.Star(),)  # a count that the fragment may have anyway
            return _filtered(exp.Count(this=first.copy(), big_int=True), condition.where(types, more))
        where = condition.where(types, condition.columns)
        counts = [
            _filtered(exp.Count(this=exp.Distinct(expressions=[unit.copy()]), big_int=True), where)
            for unit in self._units
        ]
        return counts[0] if len(counts) == 1 else exp.Least(this=counts[0], expressions=counts[1:], ignore_nulls=True)

    def _where_counted(self, name: str, types: Types) -> exp.Expr | None:
        """The condition under which a row brings something to a sum; a count's columns must not be NULL."""
        condition = self._conditions[name]
        return condition.where(types, () if self._calls[name].is_sum else condition.columns)

    def _magnitude(self, name: str, types: Types) -> exp.Expr:
        """How much a row brings to a sum: its absolute value, of a count 1; NULL for NaN and infinity."""
        call = self._calls[name]
        operand = operand_of(call.function)
        if operand is None or not call.is_sum:
            return exp.Cast(this=_number("1"), to=exp.DataType.build("DOUBLE"))
        value = exp.Cast(this=total(operand, types), to=exp.DataType.build("DOUBLE"))
        size = exp.Abs(this=value)
        if not call.is_real:
            return size
        small = exp.LTE(this=size.copy(), expression=_number(_MAGNITUDE_MOST))
        return exp.Case(ifs=[exp.If(this=small, true=size)])

    def _joined(self, base: exp.Select, sums: Sequence[str], types: Types) -> str:
        """The fragment beside what each unit brings, added up per group: once for each column of units."""
        keys = list(self._query.keys or ())
        names = [p.alias for p in base.expressions]
        per_unit = [self._by_units(unit, sums, types) for unit in self._units]
        outputs = [f'g."{name}"' for name in names]
        for index in range(len(sums)):
            shares = [f'd{i}."x{index}"' for i in range(len(per_unit))]
            most = shares[0] if len(shares) == 1 else f"GREATEST({', '.join(shares)})"
            outputs += [f'COALESCE(d0."t{index}", 0) AS "t{index}"', f'COALESCE({most}, 0) AS "x{index}"']
        text = f"SELECT {', '.join(outputs)} FROM ({_spelled(base)}) AS g"
        for i, inner in enumerate(per_unit):
            same = " AND ".join(f'g."{key}" IS NOT DISTINCT FROM d{i}."{key}"' for key in keys) or "TRUE"
            text += f" LEFT JOIN ({inner}) AS d{i} ON {same}"
        return text

    def _by_units(self, unit: exp.Column, sums: Sequence[str], types: Types) -> str:
        """Per group, the magnitudes of all units together and of the largest one."""
        keys = list(self._query.keys or ())
        tree = self._base(types)
        outputs = [p for p in tree.expressions if p.alias in keys]
        outputs.append(exp.alias_(unit.copy(), "unit", quoted=True))
        for index, name in enumerate(sums):
            part = _filtered(exp.Sum(this=self._magnitude(name, types)), self._where_counted(name, types))
            outputs.append(exp.alias_(part, f"a{index}", quoted=True))
        tree.set("expressions", outputs)
        tree.set("group", exp.Group(expressions=[_number(str(i + 1)) for i in range(len(keys) + 1)]))
        chosen = [f'"{key}"' for key in keys]
        for index in range(len(sums)):
            chosen += [f'SUM("a{index}") AS "t{index}"', f'MAX("a{index}") AS "x{index}"']
        group = f" GROUP BY {', '.join(str(i + 1) for i in range(len(keys)))}" if keys else ""
        return f"SELECT {', '.join(chosen)} FROM ({_spelled(tree)}) AS units{group}"


def _counts_rows(call: Call) -> bool:
    return isinstance(call.function, exp.Count) and not isinstance(call.function.this, exp.Distinct)


def _conjuncts(node: exp.Expr) -> Sequence[exp.Expr]:
    return [*node.flatten()] if isinstance(node, exp.And) else [node]


def _not_null(node: exp.Expr) -> exp.Expr:
    return exp.Not(this=exp.Is(this=_closed(node), expression=exp.Null()))


def _closed(node: exp.Expr) -> exp.Expr:
    """The expression as one operand."""
    plain = isinstance(node, exp.Column | exp.Literal | exp.Paren | exp.Func)
    return node.copy() if plain else exp.paren(node.copy(), copy=False)


def _number(text: str) -> exp.Expr:
    return exp.Literal.number(text)


def _or_zero(node: exp.Expr) -> exp.Expr:
    return exp.Coalesce(this=node, expressions=[_number("0")])


def _filtered(function: exp.Expr, where: exp.Expr | None) -> exp.Expr:
    return function if where is None else exp.Filter(this=function, expression=exp.Where(this=where))


def _put_in(output: exp.Expr, call: exp.Expr) -> exp.Expr:
    """A measure's output around another aggregate."""
    match output:
        case exp.Cast():
            return exp.Cast(this=_put_in(output.this, call), to=output.to.copy())
        case exp.Coalesce():
            return exp.Coalesce(this=_put_in(output.this, call), expressions=[e.copy() for e in output.expressions])
        case _:
            return call


def _spelled(tree: exp.Expr) -> str:
    return tree.sql(dialect="duckdb", comments=False)
