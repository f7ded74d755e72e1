# SPDX-License-Identifier: Apache-2.0
"""The algebra of what an aggregate is taken of: the factors of its product, and which of them are plain columns.

An operand is a product of *factors*. A factor is *plain* if it is a column of a table whose units are counted, perhaps
cast to DOUBLE or HUGEINT, which every number fits, or bounded to what can be added up. Whatever else stands there, a
function, a constant, a column of an open table, is a *weight*: the asker shapes it, so that it can single somebody out.
Sums and differences never stand in an operand: the compiler asks for the sum of each term, and the receiver adds them.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from sqlglot import exp

EXACT_DIGITS = 29
"""The digits of an exact number that is summed: a billion such numbers fit a sum of 38 digits."""

_DIGITS = {
    "BOOLEAN": 1,
    "TINYINT": 3,
    "UTINYINT": 3,
    "SMALLINT": 5,
    "USMALLINT": 5,
    "INTEGER": 10,
    "UINTEGER": 10,
    "INT": 10,
    "BIGINT": 19,
    "UBIGINT": 20,
    "HUGEINT": 39,
    "INT128": 39,
}
_WIDE = (exp.DataType.Type.DOUBLE, exp.DataType.Type.INT128)


@dataclass(frozen=True, slots=True)
class Call:
    """One aggregate of a fragment, taken apart."""

    function: exp.Expr  # the call without its FILTER
    condition: exp.Expr | None  # of its FILTER
    factors: tuple[exp.Expr, ...]  # of its operand; none if it counts rows or units

    @property
    def is_sum(self) -> bool:
        """True if the aggregate adds values up, exactly or as reals."""
        return isinstance(self.function, exp.Sum | exp.Anonymous)

    @property
    def is_real(self) -> bool:
        """True if the aggregate adds reals."""
        return isinstance(self.function, exp.Anonymous)


def call_of(output: exp.Expr) -> Call:
    """The aggregate in a measure's output, whatever stands around it to make it exact."""
    inner = output
    while isinstance(inner, exp.Cast | exp.Coalesce):
        inner = inner.this
    condition = inner.expression.this if isinstance(inner, exp.Filter) else None
    function = inner.this if isinstance(inner, exp.Filter) else inner
    return Call(function, condition, tuple(_factors(operand_of(function))))


def operand_of(function: exp.Expr) -> exp.Expr | None:
    """The operand of an aggregate; None if the aggregate counts rows or units."""
    operand = function.expressions[0] if isinstance(function, exp.Anonymous) else function.this
    return None if operand is None or isinstance(operand, exp.Star | exp.Distinct) else operand


def plain_column(factor: exp.Expr, counted: Collection[str]) -> exp.Column | None:
    """The column that a plain factor is; None if the factor is a weight. counted: aliases whose units are counted."""
    inner = factor
    while isinstance(inner, exp.Paren) or (type(inner) is exp.Cast and inner.to.this in _WIDE) or _is_bounded(inner):
        inner = inner.this
    return inner if isinstance(inner, exp.Column) and inner.table in counted else None


def _factors(node: exp.Expr | None) -> Iterator[exp.Expr]:
    match node:
        case None:
            return
        case exp.Paren():
            yield from _factors(node.this)
        case exp.Mul():
            yield from _factors(node.this)
            yield from _factors(node.expression)
        case exp.Cast() if type(node) is exp.Cast and node.to.this in _WIDE and _is_product(node.this):
            yield from _factors(node.this)
        case _:
            yield node


def bounded(column: exp.Expr, scale: int) -> exp.Expr:
    """A column of very long numbers as a sum takes it: a longer one than can be added up is NULL."""
    to = exp.DataType.build(f"DECIMAL({EXACT_DIGITS}, {scale})", dialect="duckdb")
    return exp.TryCast(this=column.copy(), to=to)


def _is_bounded(node: exp.Expr) -> bool:
    if not isinstance(node, exp.TryCast) or not isinstance(node.this, exp.Column):
        return False
    return node.to.this == exp.DataType.Type.DECIMAL and [p.name for p in node.to.expressions][:1] == [
        str(EXACT_DIGITS)
    ]


def value_of(factor: exp.Expr) -> exp.Expr:
    """The expression that must not be NULL for a plain factor to have a value: its column, or the same bounded."""
    inner = factor
    while isinstance(inner, exp.Paren) or (type(inner) is exp.Cast and inner.to.this in _WIDE):
        inner = inner.this
    return inner


def digits(factor: exp.Expr, type_of: Callable[[exp.Column], str]) -> int | None:
    """The most digits of an exact factor, by its column's type or the type that it is cast to; None if unknown."""
    inner = factor
    while isinstance(inner, exp.Paren) or (type(inner) is exp.Cast and inner.to.this == exp.DataType.Type.INT128):
        inner = inner.this
    match inner:
        case exp.Literal() if not inner.is_string:
            return len(inner.name)
        case _:
            type_ = _type(inner, type_of)
            return None if type_ is None else digits_of(type_)


def digits_of(type_: str) -> int:
    """The most digits of an exact number of a type; 39, more than can be summed, if the type has none."""
    return int(type_[8:].partition(",")[0]) if type_.startswith("DECIMAL(") else _DIGITS.get(type_, 39)


def places(factor: exp.Expr, type_of: Callable[[exp.Column], str]) -> int | None:
    """The decimal places of an exact factor, by its column's type or the type that it is cast to; None if unknown."""
    inner = factor
    while isinstance(inner, exp.Paren):
        inner = inner.this
    match inner:
        case exp.Literal() if not inner.is_string:
            return len(inner.name.partition(".")[2])
        case _:
            type_ = _type(inner, type_of) or ""
    if type_.startswith("DECIMAL("):
        return int(type_[8:-1].partition(",")[2])
    return 0 if type_ in _DIGITS else None


def _type(node: exp.Expr, type_of: Callable[[exp.Column], str]) -> str | None:
    """The type of a column, or the one that a cast gives; None for anything else."""
    match node:
        case exp.Column():
            return type_of(node)
        case exp.Cast():
            return node.to.sql(dialect="duckdb")
        case _:
            return None


def is_number(type_: str) -> bool:
    """True if values of that DuckDB type can be summed."""
    return type_ in _DIGITS or type_ in ("FLOAT", "DOUBLE") or type_.startswith("DECIMAL(")


def _is_product(node: exp.Expr) -> bool:
    return isinstance(node.unnest() if isinstance(node, exp.Paren) else node, exp.Mul)
