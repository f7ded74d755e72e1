# SPDX-License-Identifier: Apache-2.0
"""The SQL behind `FSPREAD(x)`, the partial aggregate from which variances and deviations of reals are made.

Around a mean far from zero, a sum of squares in floats has lost the digits that a deviation is made of. So an engine
reads the rows twice: once for a *centre* of each group, its mean held between its extremes (which makes the centre of
equal values that value), and once for the differences from it. `secure/spreads.py` says what becomes of the five
numbers, and how exact they are.
"""

from collections.abc import Sequence

from sqlglot import exp

FUNCTION = "fspread"


def is_spread(node: exp.Expr) -> bool:
    """True if a node is FSPREAD(…)."""
    return isinstance(node, exp.Anonymous) and str(node.this).lower() == FUNCTION


def centred(tree: exp.Select, keys: Sequence[str]) -> exp.Select:
    """A flat grouped SELECT with each `COALESCE(FSPREAD(x) [FILTER (…)], 0)` as the SQL of its five numbers.

    keys: the names of the outputs that it groups by. Without FSPREAD the tree is given back unchanged.
    """
    spreads = [p for p in tree.expressions if any(is_spread(call) for call in p.find_all(exp.Anonymous))]
    if not spreads:
        return tree
    found = tree.copy()
    alias = _free_alias(found)
    centres = tree.copy()
    outputs = [p.copy() for p in tree.expressions if p.alias in keys]
    for projection in found.expressions:
        holder = _holder(projection)
        if holder is not None:
            call, condition = holder
            operand = call.expressions[0]
            name = f"c{len(outputs) - len(keys)}"
            outputs.append(exp.alias_(_centre(operand, condition), name, quoted=True))
            projection.set("this", _numbers(operand, condition, _column(alias, name)))
    centres.set("expressions", outputs)
    same = [
        exp.NullSafeEQ(this=exp.paren(p.this.copy(), copy=False), expression=_column(alias, p.alias))
        for p in tree.expressions
        if p.alias in keys
    ]
    on: exp.Expr = exp.and_(*same, copy=False) if same else exp.true()
    aliased = exp.TableAlias(this=exp.to_identifier(alias, quoted=True))
    join = exp.Join(this=exp.Subquery(this=centres, alias=aliased), side="LEFT", on=on)
    found.append("joins", join)
    return found


def _holder(projection: exp.Expr) -> tuple[exp.Anonymous, exp.Expr | None] | None:
    call = next((call for call in projection.find_all(exp.Anonymous) if is_spread(call)), None)
    if call is None:
        return None
    holder = call.parent
    return call, holder.expression.this if isinstance(holder, exp.Filter) else None


def _centre(operand: exp.Expr, condition: exp.Expr | None) -> exp.Expr:
    mean = _aggregate("FAVG", operand, condition)
    most, least = _aggregate("MAX", operand, condition), _aggregate("MIN", operand, condition)
    return exp.Greatest(
        this=least, expressions=[exp.Least(this=most, expressions=[mean], ignore_nulls=True)], ignore_nulls=True
    )


def _numbers(operand: exp.Expr, condition: exp.Expr | None, centre: exp.Column) -> exp.Expr:
    difference = exp.paren(exp.Sub(this=exp.paren(operand.copy(), copy=False), expression=centre.copy()), copy=False)
    square = exp.Mul(this=difference.copy(), expression=difference.copy())
    numbers = {
        "c": _aggregate("ANY_VALUE", centre, None),
        "n": _aggregate("COUNT", operand, condition),
        "t": _aggregate("FSUM", difference, condition),
        "q": _aggregate("FSUM", square, condition),
        "z": _aggregate("MAX", exp.Abs(this=operand.copy()), condition),
    }
    return exp.Struct(expressions=[exp.PropertyEQ(this=exp.to_identifier(n), expression=e) for n, e in numbers.items()])


def _aggregate(name: str, operand: exp.Expr, condition: exp.Expr | None) -> exp.Expr:
    call = exp.Anonymous(this=name, expressions=[operand.copy()])
    return call if condition is None else exp.Filter(this=call, expression=exp.Where(this=condition.copy()))


def _free_alias(tree: exp.Select) -> str:
    """A name for the centres that no table of the fragment has."""
    taken = {table.alias_or_name.lower() for table in tree.find_all(exp.Table)}
    alias = "centres"
    while alias in taken:
        alias += "_"
    return alias


def _column(table: str, name: str) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True), table=exp.to_identifier(table, quoted=True))
