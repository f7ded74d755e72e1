# SPDX-License-Identifier: Apache-2.0
"""Writes a number that is added up as a sum of products, so that constants leave the aggregate.

    SUM(2 * x - y + 3) = 2 * SUM(x) - SUM(y) + 3 * COUNT(both)

What a constant could do inside an aggregate, push digits out of a real, overflow, hide one person's value under equal
ones of all others, it cannot do at the receiver. A row counts only where the whole operand is not NULL: so each sum
takes the rows where all columns of the operand have a value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from sqlglot import exp

from junto.frontends.sql.cases import is_predicate

_MOST_TERMS = 64
_MOST_FACTORS = 2  # of a product that is multiplied out
_DIGITS = 80


@dataclass(frozen=True)
class Term:
    """A constant times a product of factors; a constant alone has none."""

    constant: Fraction
    factors: tuple[exp.Expr, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """The spelling by which two products are the same."""
        return tuple(sorted(factor.sql(dialect="duckdb") for factor in self.factors))


def terms_of(operand: exp.Expr, is_number: Callable[[exp.Column], bool]) -> tuple[Term, ...]:
    """The products whose sum an operand is, like ones put together; at the least the operand itself as one.

    is_number: whether a column holds numbers.
    """
    found: dict[tuple[str, ...], Term] = {}
    for term in _terms(operand, is_number):
        before = found.get(term.key)
        found[term.key] = term if before is None else Term(before.constant + term.constant, term.factors)
    return tuple(found.values())


def literal(value: Fraction, *, real: bool) -> exp.Expr | None:
    """A constant as SQL writes it; None if it has no plain spelling."""
    text = format(Decimal(value.numerator) / Decimal(value.denominator), "f")
    if Fraction(text) != value:
        if not real:
            return None
        text = format(Decimal(repr(float(value))), "f")
    if len(text) > _DIGITS:
        return None
    number = exp.Literal.number(text.lstrip("-"))
    return exp.paren(exp.Neg(this=number), copy=False) if value < 0 else number


def _terms(node: exp.Expr, is_number: Callable[[exp.Column], bool]) -> list[Term]:
    match node:
        case exp.Paren():
            return _terms(node.this, is_number)
        case exp.Literal() if not node.is_string:
            value = _value(node)
            return [Term(Fraction(1), (node,))] if value is None else [Term(value)]
        case exp.Neg():
            return [Term(-t.constant, t.factors) for t in _terms(node.this, is_number)]
        case exp.Add() | exp.Sub():
            sign = -1 if isinstance(node, exp.Sub) else 1
            right = [Term(sign * t.constant, t.factors) for t in _terms(node.expression, is_number)]
            found = [*_terms(node.this, is_number), *right]
            return found if len(found) <= _MOST_TERMS else [Term(Fraction(1), (node,))]
        case exp.Mul():
            return _product(node, is_number)
        case exp.Div():
            by = _constant(node.expression)
            if by:
                return [Term(t.constant / by, t.factors) for t in _terms(node.this, is_number)]
            return [Term(Fraction(1), (node,))]
        case exp.Cast() if type(node) is exp.Cast and node.to.this == exp.DataType.Type.DOUBLE:
            columns = list(node.find_all(exp.Column))
            if columns and all(is_number(column) for column in columns) and not is_predicate(node.this):
                return _terms(node.this, is_number)
            tried = exp.TryCast(this=node.this.copy(), to=node.to.copy())
            return [Term(Fraction(1), (tried,))]
        case _:
            return [Term(Fraction(1), (node,))]


def _product(node: exp.Mul, is_number: Callable[[exp.Column], bool]) -> list[Term]:
    left, right = _terms(node.this, is_number), _terms(node.expression, is_number)
    most = max(len(a.factors) + len(b.factors) for a in left for b in right)
    if len(left) == 1 and len(right) == 1:
        return [Term(left[0].constant * right[0].constant, (*left[0].factors, *right[0].factors))]
    if most > _MOST_FACTORS or len(left) * len(right) > _MOST_TERMS:
        factors = [_atom(side, terms) for side, terms in ((node.this, left), (node.expression, right))]
        constant = Fraction(1)
        for term in factors:
            constant *= term.constant
        return [Term(constant, tuple(f for term in factors for f in term.factors))]
    return [Term(a.constant * b.constant, (*a.factors, *b.factors)) for a in left for b in right]


def _atom(side: exp.Expr, terms: list[Term]) -> Term:
    return terms[0] if len(terms) == 1 else Term(Fraction(1), (side,))


def _constant(node: exp.Expr) -> Fraction | None:
    inner = node.unnest()
    if isinstance(inner, exp.Neg):
        value = _constant(inner.this)
        return None if value is None else -value
    return _value(inner) if isinstance(inner, exp.Literal) and not inner.is_string else None


def _value(node: exp.Literal) -> Fraction | None:
    """The value of a number; None beyond what can be written plainly."""
    try:
        value = Decimal(node.name)
    except ArithmeticError:
        return None
    return Fraction(value) if value == 0 or -30 < value.adjusted() < 30 else None
