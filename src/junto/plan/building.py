# SPDX-License-Identifier: Apache-2.0
"""Small pieces of SQL, as nodes of its tree, of which the compiler and the owners' nodes build larger ones."""

from sqlglot import exp

_ONE_OPERAND = exp.Column | exp.Literal | exp.Paren | exp.Null | exp.Boolean | exp.Func


def closed(node: exp.Expr) -> exp.Expr:
    """A copy of an expression as one operand, in parentheses if it needs them."""
    return node.copy() if isinstance(node, _ONE_OPERAND) else exp.paren(node.copy(), copy=False)


def not_null(node: exp.Expr) -> exp.Expr:
    """The condition that an expression has a value."""
    return exp.Not(this=exp.Is(this=closed(node), expression=exp.Null()))


def number(value: int | str) -> exp.Expr:
    """A constant."""
    return exp.Literal.number(value)
