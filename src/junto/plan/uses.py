# SPDX-License-Identifier: Apache-2.0
"""The needs of an aggregate for each column in its operand: the closed table of what may be done with the column there.

    a column of numbers, a product of two             aggregate
    the same, times what holds no private column      aggregate; its size is bounded by its type, or it is a real
    anything else, a function, a constant added, a third factor
                                                      filter besides; group, if several columns meet in it
    MIN, MAX of a column, perhaps negated             extremes
    MIN, MAX of anything else                         filter besides; group, if several columns meet in it

Whatever is not a column or a product can select: LEAST(GREATEST(x - c, 0), 1) counts who has more than c, x + 1e16
rounds, x * 1e19 overflows for some. So it needs what a condition on the column would. CASE, COALESCE and NULLIF do not
stand in a sum with private columns at all: they are FILTERs, which a guard counts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from sqlglot import exp

from junto.plan import expressions
from junto.plan.guards import MOST_SCALE
from junto.plan.operands import EXACT_DIGITS, Call, digits, is_number, operand_of, places, plain_column
from junto.plan.steps import Measure
from junto.trust.allow import Allow

_MOST_FACTORS = 2
_CHOICES = (exp.Case, exp.If, exp.Coalesce, exp.Nullif)


class Columns(Protocol):
    """The known facts about the columns of a fragment."""

    def is_private(self, column: exp.Column) -> bool:
        """True if a rule must let the column out."""
        ...

    def type_of(self, column: exp.Column) -> str:
        """DuckDB's type of it; empty if it is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Use:
    """A column of an operand, and a kind that its place needs; None for a column that everybody may see."""

    column: exp.Column
    allow: Allow | None


def uses(call: Call, label: Measure, columns: Columns, fault: Callable[[str], NoReturn]) -> Iterator[Use]:
    """Every use of every column in an aggregate's operand. Raises by `fault` what no rule could allow."""
    operand = operand_of(call.function)
    if operand is None:
        return
    if label.combine != "sum":
        yield from _extreme(operand, columns)
        return
    everything = list(operand.find_all(exp.Column))
    if any(map(columns.is_private, everything)) and operand.find(*_CHOICES, *expressions.PREDICATES):
        fault(f"it chooses between values inside {expressions.readable(call.function)}: a choice is a FILTER")
    plain = [_plain(factor, columns) for factor in call.factors]
    weights = [factor for factor, column in zip(call.factors, plain, strict=True) if column is None]
    private = [factor for factor in call.factors if any(map(columns.is_private, factor.find_all(exp.Column)))]
    if label.encoding == "integer":
        _check_places(call, label, plain, columns, fault)
        _check_digits(call, plain, columns, fault)
    for column in plain:
        if column is not None:
            if call.is_sum and not is_number(columns.type_of(column)):
                fault(f"it sums {column.name[:60]}, which holds no numbers")
            yield Use(column, "aggregate")
            if len(private) > _MOST_FACTORS:
                yield Use(column, "filter")
    for weight in weights:
        yield from _bent(weight, "aggregate", columns)


def _extreme(operand: exp.Expr, columns: Columns) -> Iterator[Use]:
    inner = operand
    while isinstance(inner, exp.Paren | exp.Neg):
        inner = inner.this
    if isinstance(inner, exp.Column):
        yield Use(inner, "extremes" if columns.is_private(inner) else None)
    else:
        yield from _bent(operand, "extremes", columns)


def _bent(node: exp.Expr, place: Allow, columns: Columns) -> Iterator[Use]:
    """The uses of columns in an expression that can select among their values."""
    found = list(node.find_all(exp.Column))
    private = {(c.table, c.name) for c in found if columns.is_private(c)}
    for column in found:
        if not columns.is_private(column):
            yield Use(column, None)
            continue
        yield Use(column, place)
        yield Use(column, "filter" if len(private) == 1 else "group")


def _plain(factor: exp.Expr, columns: Columns) -> exp.Column | None:
    column = plain_column(factor, {c.table for c in factor.find_all(exp.Column)})
    return column if column is not None and columns.is_private(column) else None


def _check_places(
    call: Call,
    label: Measure,
    plain: Sequence[exp.Column | None],
    columns: Columns,
    fault: Callable[[str], NoReturn],
) -> None:
    """Numbers are summed with the decimal places that they have: with more, fewer of them fit, which would select."""
    for factor, column in zip(call.factors, plain, strict=True):
        if column is not None and factor.find(exp.TryCast):
            if places(factor, columns.type_of) != places(column, columns.type_of):
                fault(f"it takes {column.name[:60]} with other decimal places than it has")
            if (digits(column, columns.type_of) or 0) <= EXACT_DIGITS:
                fault(f"it bounds {column.name[:60]}, whose numbers are short enough")
    found = [places(factor, columns.type_of) for factor in call.factors]
    if None not in found and sum(each or 0 for each in found) != label.scale:
        fault(f"measure {label.name[:20]} has {label.scale} decimal places; what it sums has others")


def _check_digits(
    call: Call, plain: Sequence[exp.Column | None], columns: Columns, fault: Callable[[str], NoReturn]
) -> None:
    """A shaped number must fit an exact sum whatever the rows hold: else its overflow would select."""
    open_alone = len(call.factors) == 1 and not any(map(columns.is_private, call.factors[0].find_all(exp.Column)))
    if open_alone or all(column is not None for column in plain):
        return
    sizes = [digits(factor, columns.type_of) for factor in call.factors]
    if None in sizes or sum(size or 0 for size in sizes) > EXACT_DIGITS:
        fault(f"{expressions.readable(call.function)} may take more than {EXACT_DIGITS} digits: it is summed as a real")


def check_scale(label: Measure, fault: Callable[[str], NoReturn]) -> None:
    """An exact sum has so many places at most that what it takes cannot overflow."""
    if label.encoding == "integer" and label.scale > MOST_SCALE:
        fault(f"measure {label.name} has {label.scale} decimal places; an exact sum has at most {MOST_SCALE}")
