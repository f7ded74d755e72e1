# SPDX-License-Identifier: Apache-2.0
"""Takes what chooses between values out of an aggregate's operand, so that each choice becomes a FILTER.

    SUM(CASE WHEN c THEN a WHEN d THEN b ELSE e END)
        = SUM(a) FILTER (c) + SUM(b) FILTER (d AND c IS NOT TRUE) + SUM(e) FILTER (c IS NOT TRUE AND d IS NOT TRUE)

So each branch is a figure of its own, with a guard of its own, and no operand can count for one person what it counts
as a constant for all others. COALESCE, NULLIF and truth values that are cast to numbers are choices as well. A branch
that gives NULL contributes nothing and falls away.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp

from junto.errors import UnsupportedSQL
from junto.plan import expressions
from junto.plan.building import closed, not_null

_MOST_BRANCHES = 64


@dataclass(frozen=True)
class Branch:
    """One choice: the conditions under which it is taken, and the value then."""

    conditions: tuple[exp.Expr, ...]
    value: exp.Expr


def branches(operand: exp.Expr) -> list[Branch]:
    """The choices in an operand, those that give NULL left out; without a choice, the operand itself."""
    found: list[Branch] = []
    pending = [Branch((), _as_number(operand))]
    while pending:
        branch = pending.pop(0)
        choice = _innermost(branch.value)
        if choice is None:
            if not _is_null(branch.value):
                found.append(branch)
            continue
        for conditions, value in _options(choice):
            pending.append(Branch((*branch.conditions, *conditions), _replaced(branch.value, choice, value)))
        if len(pending) + len(found) > _MOST_BRANCHES:
            raise UnsupportedSQL(
                f"{expressions.readable(operand)} chooses among more than {_MOST_BRANCHES} values: group by them"
            )
    return found


def always_counts(operand: exp.Expr) -> bool:
    """True if an operand is a constant other than NULL, whatever is chosen."""
    if not isinstance(operand, exp.Case) or operand.args.get("default") is None:
        return isinstance(operand, exp.Literal)
    values = [branch.args["true"] for branch in operand.args["ifs"]]
    return all(isinstance(v.unnest(), exp.Literal) for v in [*values, operand.args["default"]])


def is_predicate(node: exp.Expr) -> bool:
    """True if an expression answers yes or no."""
    return isinstance(node.unnest(), expressions.PREDICATES)


def _as_number(operand: exp.Expr) -> exp.Expr:
    """The operand; a yes or no as 1 or 0."""
    return _one_or_zero(operand) if is_predicate(operand) else operand


def _innermost(node: exp.Expr) -> exp.Expr | None:
    """A choice in an expression whose own values hold no further one."""
    for child in _values(node):
        found = _innermost(child)
        if found is not None:
            return found
    return node if isinstance(node, exp.Case | exp.If | exp.Coalesce | exp.Nullif) or _is_truth(node) else None


def _is_null(node: exp.Expr) -> bool:
    """True if an expression is NULL whatever the row: NULL itself, or arithmetic with it."""
    inner = node.unnest()
    if isinstance(inner, exp.Add | exp.Sub | exp.Mul | exp.Div | exp.Mod | exp.IntDiv | exp.Neg | exp.Cast):
        return any(map(_is_null, inner.iter_expressions()))
    return isinstance(inner, exp.Null)


def _is_truth(node: exp.Expr) -> bool:
    return isinstance(node, exp.Cast) and is_predicate(node.this)


def _values(node: exp.Expr) -> Iterator[exp.Expr]:
    match node:
        case exp.Case():
            yield from (branch.args["true"] for branch in node.args["ifs"])
            yield from _maybe(node.args.get("default"))
        case exp.If():
            yield node.args["true"]
            yield from _maybe(node.args.get("false"))
        case _ if isinstance(node, expressions.PREDICATES):
            return
        case _:
            yield from node.iter_expressions()


def _options(choice: exp.Expr) -> Iterator[tuple[tuple[exp.Expr, ...], exp.Expr]]:
    """Each value that a choice can give, with the conditions under which it does."""
    match choice:
        case exp.Case():
            tested = choice.this
            tests = [
                branch.this if tested is None else exp.EQ(this=closed(tested), expression=closed(branch.this))
                for branch in choice.args["ifs"]
            ]
            values = [branch.args["true"] for branch in choice.args["ifs"]]
            otherwise = choice.args.get("default") or exp.Null()
        case exp.If():
            tests, values, otherwise = [choice.this], [choice.args["true"]], choice.args.get("false") or exp.Null()
        case exp.Coalesce():
            *values, otherwise = [choice.this, *choice.expressions]
            tests = [not_null(value) for value in values]
            known = next((i for i, value in enumerate(values) if isinstance(value.unnest(), exp.Literal)), None)
            if known is not None:
                tests, values, otherwise = tests[:known], values[:known], values[known]
        case exp.Nullif():
            tests = [exp.EQ(this=closed(choice.this), expression=closed(choice.expression))]
            values, otherwise = [exp.Null()], choice.this
        case _:
            yes = choice.this.unnest() if isinstance(choice, exp.Cast) else choice
            yield (yes.copy(),), exp.Literal.number(1)
            yield (exp.Not(this=exp.paren(yes.copy(), copy=False)),), exp.Literal.number(0)
            return
    before: list[exp.Expr] = []
    for test, value in zip(tests, values, strict=True):
        plain = test.unnest()
        yield (*before, plain.copy()), value
        untrue = exp.Is(this=exp.paren(plain.copy(), copy=False), expression=exp.true())
        before.append(exp.Not(this=untrue))
    yield tuple(before), otherwise


def _one_or_zero(node: exp.Expr) -> exp.Expr:
    return exp.Cast(this=exp.paren(node.unnest().copy(), copy=False), to=exp.DataType.build("INT"))


def _replaced(root: exp.Expr, choice: exp.Expr, value: exp.Expr) -> exp.Expr:
    """A copy of the operand with a value in place of a choice."""
    if root is choice:
        return value.copy()
    path: list[exp.Expr] = []
    copied = root.copy()
    for mine, other in zip(root.walk(bfs=False), copied.walk(bfs=False), strict=True):
        if mine is choice:
            path.append(other)
    path[0].replace(closed(value))
    return copied


def _maybe(node: exp.Expr | None) -> list[exp.Expr]:
    return [] if node is None else [node]
