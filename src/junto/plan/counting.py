# SPDX-License-Identifier: Apache-2.0
"""The SQL that an owner's engine runs for a grouped fragment: nothing in it fails on a row, and units are counted.

Beside the plan's columns k0…, units, m0… it gives `u1…`, the units behind each further guard (`guards.py`), and for the
*i*-th sum that is tested for dominance `t<i>`, the sum over units of the magnitude that the unit brings, and `x<i>`,
the largest unit's. A sum of exact numbers takes those of up to 29 digits, so that it cannot overflow, and is NULL if
one is longer. Weights go from 1e-9 to 1e9, reals of functions are finite.

Rows are read once, each expression of a row is computed once, and where a unit may have several rows they are added up
per unit first:

    SELECT k0, COUNT(unit) AS units, SUM(p0) AS m0, …
    FROM (SELECT k0, unit, SUM(v0) AS p0, … FROM (SELECT … AS k0, … AS unit, … AS v0, … FROM …) GROUP BY k0, unit)
    GROUP BY k0

Two things need a reading of their own, which is joined to this one by the groups' keys: the units of a second private
table, and aggregates that cannot be added up from parts (FSPREAD, COUNT(DISTINCT …)).
"""

from collections.abc import Iterable, Sequence

from sqlglot import exp

from junto.plan.building import not_null
from junto.plan.guards import MAGNITUDE_MOST, Condition, Figures, counts_rows, figures
from junto.plan.operands import EXACT_DIGITS, Call, digits, operand_of, plain_column
from junto.plan.spreads import centred, is_spread
from junto.plan.steps import Measure, Query
from junto.plan.total import Types, total


def engine_sql(query: Query, types: Types) -> str:
    """The SQL that an engine runs for a grouped fragment.

    types: of the columns of each table that the fragment reads, by its name there. For a fragment whose units are its
    rows, dominance of counts is left out: each unit brings 1.
    """
    parted = figures(query)
    types = {**types, **{alias: types[name] for alias, name in parted.names.items() if name in types}}
    whole = [name for name, call in parted.calls.items() if not _adds_up(call)]
    main = _Reading(parted, types, parted.units[0] if parted.units else None)
    outputs = {name: f'g."{name}"' for name in _give_all(main, [n for n in parted.calls if n not in whole])}
    joined = []
    if whole:
        joined.append(_spelled(_flat(parted, types, whole)))
        outputs.update((name, f'd0."{name}"') for name in whole)
    for unit in parted.units[1:]:
        further = _Reading(parted, types, unit)
        alias = f"d{len(joined)}"
        for name in _give_units(further):
            least = "GREATEST" if name.startswith("x") else "LEAST"
            outputs[name] = f'{least}({outputs[name]}, {alias}."{name}")'
        joined.append(further.text())
    if not joined:
        return main.text()
    keys = list(query.keys or ())
    found = parted.guards(parted.repeats)
    order = [*keys, "units", *parted.calls, *(f"u{i}" for i in range(1, len(found.counts)))]
    order += [f"{letter}{i}" for i in range(len(found.sums)) for letter in "tx"]
    chosen = ", ".join(f'{outputs[name]} AS "{name}"' for name in order)
    text = f"SELECT {chosen} FROM ({main.text()}) AS g"
    for index, inner in enumerate(joined):
        same = " AND ".join(f'g."{key}" IS NOT DISTINCT FROM d{index}."{key}"' for key in keys) or "TRUE"
        text += f" LEFT JOIN ({inner}) AS d{index} ON {same}"
    return text


def _adds_up(call: Call) -> bool:
    """True if an aggregate over rows can be made from the aggregates over parts of these rows."""
    distinct = isinstance(call.function, exp.Count) and isinstance(call.function.this, exp.Distinct)
    return not (distinct or is_spread(call.function))


def _give_all(reading: "_Reading", measures: Iterable[str]) -> Sequence[str]:
    """Have a reading give everything but the measures that are not named: the names of what it gives."""
    parted = reading.parted
    found = parted.guards(parted.repeats)
    reading.give("units", reading.units_behind(0))
    for name in measures:
        reading.give(name, reading.measure(name))
    for index in range(1, len(found.counts)):
        reading.give(f"u{index}", reading.units_behind(index))
    for index, name in enumerate(found.sums):
        total_, largest = reading.magnitudes(name)
        reading.give(f"t{index}", total_)
        reading.give(f"x{index}", largest)
    return reading.given


def _give_units(reading: "_Reading") -> Sequence[str]:
    """Have a reading give what depends on who is a unit, beyond the keys: the names of that."""
    found = reading.parted.guards(repeated=True)
    reading.give("units", reading.units_behind(0))
    for index in range(1, len(found.counts)):
        reading.give(f"u{index}", reading.units_behind(index))
    for index, name in enumerate(found.sums):
        reading.give(f"x{index}", reading.magnitudes(name)[1])
    return [name for name in reading.given if name not in (reading.parted.query.keys or ())]


class _Reading:
    """One reading of a fragment's rows while its SQL is written.

    unit: the column whose values are the units; None where each row is one.
    """

    def __init__(self, parted: Figures, types: Types, unit: exp.Column | None) -> None:
        self.parted = parted
        self._types = types
        self._unit = unit
        self._keys = list(parted.query.keys or ())
        self._values: dict[str, str] = {}  # names of expressions of a row, by their SQL
        self._parts: dict[str, str] = {}  # names of aggregates over a unit's rows, by their SQL
        self._outputs: dict[str, str] = {key: f'"{key}"' for key in self._keys}
        self._behind: dict[int, str] = {}  # conditions of guards
        found = parted.guards(parted.repeats)
        self._guard = {found.of[name]: parted.conditions[name] for name in reversed(list(found.of))}

    @property
    def given(self) -> Sequence[str]:
        """The names of its outputs."""
        return list(self._outputs)

    def give(self, name: str, sql: str) -> None:
        """Have it give one output more."""
        self._outputs[name] = sql

    def text(self) -> str:
        """The SQL."""
        chosen = ", ".join(f'{sql} AS "{name}"' for name, sql in self._outputs.items())
        keys = ", ".join(f'"{key}"' for key in self._keys)
        inner = f"({self._rows()}) AS r"
        if self._unit is not None:
            unit = ", ".join((*(f'"{key}"' for key in self._keys), '"unit"'))
            parts = "".join(f', {sql} AS "{name}"' for sql, name in self._parts.items())
            inner = f"(SELECT {unit}{parts} FROM {inner} GROUP BY {unit}) AS u"
        return f"SELECT {chosen} FROM {inner}{f' GROUP BY {keys}' if keys else ''}"

    def units_behind(self, guard: int) -> str:
        """The count of units that contribute to what a guard stands before."""
        rows = self._rows_behind(guard)
        if self._unit is None:
            return rows
        if guard == 0:
            return 'COUNT("unit")'
        return f'COUNT("unit") FILTER (WHERE {self._part(rows)} > 0)'

    def measure(self, name: str) -> str:
        """A measure's partial aggregate."""
        call, condition = self.parted.calls[name], self.parted.conditions[name]
        operand = operand_of(call.function)
        shaped = call.is_sum and any(plain_column(f, self.parted.counted) is None for f in call.factors)
        where = condition.where(self._types) if shaped else _sure(call.condition, self._types)
        if operand is None:
            return self._put_in(name, self._aggregate("COUNT", "*", where))
        value = self._value(total(operand, self._types))
        label = next(m for m in self.parted.query.measures if m.name == name)
        exact = self._exact(call, label)
        function = call.function.name.upper() if call.is_real else type(call.function).__name__.upper()
        summed = self._put_in(name, self._aggregate(function, exact or value, where))
        return self._if_whole(summed, call, exact, where) if exact else summed

    def magnitudes(self, name: str) -> tuple[str, str]:
        """The sum of all units' contributions to a measure, and the largest unit's contribution."""
        call = self.parted.calls[name]
        found = self.parted.guards(self.parted.repeats)
        if counts_rows(call):
            if self._unit is None:
                return "0.0", "0.0"
            part = self._part(self._rows_behind(found.of[name]))
            return f"CAST(COALESCE(SUM({part}), 0) AS DOUBLE)", f"CAST(COALESCE(MAX({part}), 0) AS DOUBLE)"
        shaped = bool(self.parted.conditions[name].parts)  # otherwise a row outside of the guard has no magnitude
        size, where = self._magnitude(call), self._where_behind(found.of[name]) if shaped else ""
        if self._unit is None:
            parts = [_filtered(f"{function}({size})", where) for function in ("SUM", "MAX")]
        else:
            part = self._part(_filtered(f"SUM({size})", where))
            parts = [f"SUM({part})", f"MAX({part})"]
        return f"COALESCE({parts[0]}, 0)", f"COALESCE({parts[1]}, 0)"

    def _magnitude(self, call: Call) -> str:
        """A row's contribution to a sum: its absolute value; NULL for NaN and infinity."""
        operand = operand_of(call.function)
        value = f"ABS(CAST({self._value(total(operand or exp.null(), self._types))} AS DOUBLE))"
        return f"CASE WHEN {value} <= {MAGNITUDE_MOST} THEN {value} END" if call.is_real else value

    def _rows_behind(self, guard: int) -> str:
        """The count of rows that contribute to what a guard stands before."""
        condition = self._guard.get(guard)
        if guard and condition is not None and not condition.parts and len(condition.columns) == 1:
            return f"COUNT({self._value(total(condition.columns[0], self._types))})"
        return _filtered("COUNT(*)", self._where_behind(guard))

    def _where_behind(self, guard: int) -> str:
        """The condition of a guard, as a value of a row; empty for the group itself."""
        if guard not in self._behind:
            condition = self._guard.get(guard)
            where = condition.where(self._types, condition.columns) if guard and condition is not None else None
            self._behind[guard] = self._value(where) if where is not None else ""
        return self._behind[guard]

    def _exact(self, call: Call, label: Measure) -> str:
        """The SQL of the exact value added up, if an operand's numbers may be too long; empty if they cannot."""
        operand = operand_of(call.function)
        if label.encoding != "integer" or operand is None or self._is_narrow(call):
            return ""
        return f"TRY_CAST({self._value(total(operand, self._types))} AS DECIMAL({EXACT_DIGITS}, {label.scale}))"

    def _if_whole(self, summed: str, call: Call, exact: str, where: exp.Expr | None) -> str:
        """A sum of exact numbers if every number fitted, else NULL: a sum without some would be a wrong answer."""
        given = [self._value(not_null(total(factor, self._types))) for factor in call.factors]
        needed = [*given, self._value(where)] if where is not None else given
        count = _filtered("COUNT(*)", " AND ".join(dict.fromkeys((f"{exact} IS NULL", *needed))))
        if self._unit is not None:
            count = f"COALESCE(SUM({self._part(count)}), 0)"
        return f"CASE WHEN {count} = 0 THEN {summed} END"

    def _is_narrow(self, call: Call) -> bool:
        """True if the values added up have few enough digits by the types of their columns."""
        sizes = [digits(factor, self._type) for factor in call.factors]
        return None not in sizes and sum(size or 0 for size in sizes) <= EXACT_DIGITS

    def _type(self, column: exp.Column) -> str:
        return self._types.get(column.table, {}).get(column.name, "")

    def _aggregate(self, function: str, operand: str, where: exp.Expr | None) -> str:
        """An aggregate over a group's rows."""
        rows = _filtered(f"{function}({operand})", self._value(where) if where is not None else "")
        if self._unit is None:
            return rows
        part = self._part(rows)
        return f"CAST(COALESCE(SUM({part}), 0) AS BIGINT)" if function == "COUNT" else f"{function}({part})"

    def _put_in(self, name: str, aggregate: str) -> str:
        """A measure's output around another aggregate."""
        return _spelled(_around(self.parted.outputs[name], exp.Var(this=aggregate)))

    def _value(self, node: exp.Expr) -> str:
        """The name of an expression of a row."""
        return f'"{self._values.setdefault(_spelled(node), f"v{len(self._values)}")}"'

    def _part(self, sql: str) -> str:
        """The name of an aggregate over a unit's rows."""
        return f'"{self._parts.setdefault(sql, f"p{len(self._parts)}")}"'

    def _rows(self) -> str:
        """The rows: keys, the unit, and each expression of a row."""
        tree = _base(self.parted, self._types)
        outputs = [p for p in tree.expressions if p.alias in self._keys]
        if self._unit is not None:
            outputs.append(exp.alias_(self._unit.copy(), "unit", quoted=True))
        values = ", ".join(f'{sql} AS "{name}"' for sql, name in self._values.items())
        if values or not outputs:
            outputs.append(exp.Var(this=values or "1 AS v0"))
        tree.set("expressions", outputs)
        tree.set("group", None)
        return _spelled(tree)


def _base(parted: Figures, types: Types) -> exp.Select:
    """The fragment itself with keys, joins and conditions that cannot fail."""
    tree = parted.tree.copy()
    for join in tree.args.get("joins") or []:
        join.set("on", total(join.args["on"], types))
    if tree.args.get("where") is not None:
        tree.set("where", exp.Where(this=total(tree.args["where"].this, types)))
    for projection in tree.expressions:
        if projection.alias in (parted.query.keys or ()):
            projection.set("this", total(projection.this, types))
    return tree


def _flat(parted: Figures, types: Types, names: Sequence[str]) -> exp.Select:
    """The fragment with its keys and some measures alone, each aggregated at once."""
    keys = parted.query.keys or ()
    tree = _base(parted, types)
    tree.set("expressions", [p for p in tree.expressions if p.alias in keys or p.alias in names])
    for projection in tree.expressions:
        if projection.alias in names:
            call = parted.calls[projection.alias]
            function = call.function.copy()
            operand = operand_of(function)
            if operand is not None:
                function = exp.Anonymous(this=function.name, expressions=[total(operand, types)])
            shaped = call.is_sum and any(plain_column(f, parted.counted) is None for f in call.factors)
            where = parted.conditions[projection.alias].where(types) if shaped else _sure(call.condition, types)
            if where is not None:
                function = exp.Filter(this=function, expression=exp.Where(this=where))
            projection.set("this", _around(projection.this, function))
    return centred(tree, keys)


def _around(output: exp.Expr, call: exp.Expr) -> exp.Expr:
    """A measure's output around another aggregate."""
    match output:
        case exp.Cast():
            return exp.Cast(this=_around(output.this, call), to=output.to.copy())
        case exp.Coalesce():
            return exp.Coalesce(this=_around(output.this, call), expressions=[e.copy() for e in output.expressions])
        case _:
            return call


def _sure(condition: exp.Expr | None, types: Types) -> exp.Expr | None:
    """A condition that cannot fail."""
    return None if condition is None else Condition((condition,)).where(types)


def _filtered(aggregate: str, where: str) -> str:
    return f"{aggregate} FILTER (WHERE {where})" if where else aggregate


def _spelled(tree: exp.Expr) -> str:
    return tree.sql(dialect="duckdb", comments=False)
