# SPDX-License-Identifier: Apache-2.0
"""Expressions that cannot fail, whatever the rows hold: a value that cannot be computed is NULL.

Whether a question fails must say nothing about rows that its answer would not show. So the owner's node puts DuckDB's
TRY around every part of a fragment that it cannot prove harmless: overflows, casts, dates out of range and divisions
then give NULL. The proof is a closed table: columns, constants, and comparisons between those of one family of types,
which an engine also uses to skip whole blocks of a file. Whatever is not in the table is tried.
"""

import re
from collections.abc import Mapping
from datetime import date

from sqlglot import exp

from junto.plan import expressions

Types = Mapping[str, Mapping[str, str]]
"""DuckDB's types of columns, by the alias of their table; of an IN list, by the table's name."""

_NUMBERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE")
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d", re.ASCII)
_SMALL_DIGITS = 18  # of a decimal: any two such have a common type that holds both


def total(node: exp.Expr, types: Types) -> exp.Expr:
    """The expression, every part that might fail inside TRY; parts that cannot fail stay unchanged."""
    match node:
        case exp.And() | exp.Or():
            return type(node)(this=total(node.this, types), expression=total(node.expression, types))
        case exp.Not() | exp.Paren():
            return type(node)(this=total(node.this, types))
        case exp.In() if node.args.get("query") is not None:
            return exp.In(this=_listed(node, types), query=node.args["query"].copy())
        case _:
            return node.copy() if _is_sure(node, types) else exp.Try(this=node.copy())


def family(type_: str) -> str:
    """The family of a type within which comparing never fails; empty if it has none."""
    if type_ in _NUMBERS:
        return "number"
    if type_.startswith("DECIMAL("):
        digits = type_[len("DECIMAL(") :].partition(",")[0]
        return "number" if digits.isdecimal() and int(digits) <= _SMALL_DIGITS else ""
    return type_ if type_ in ("VARCHAR", "DATE", "TIMESTAMP", "BOOLEAN", "TIMESTAMP WITH TIME ZONE", "TIME") else ""


def _listed(node: exp.In, types: Types) -> exp.Expr:
    """The left side of an IN list's comparison, in the type of the list if that might not hold it."""
    select = node.args["query"].this
    column, table = select.expressions[0], select.args["from_"].this
    wanted = types.get(table.name, {}).get(column.name, "")
    inner: exp.Expr = node.this
    if family(wanted) and _family(inner, types) == family(wanted):
        return inner.copy()
    if not wanted:
        return exp.Try(this=inner.copy())
    cast = exp.Cast(this=inner.copy(), to=exp.DataType.build(wanted, dialect="duckdb"))
    return exp.Try(this=cast)


def _is_sure(node: exp.Expr, types: Types) -> bool:
    match node:
        case exp.Column() | exp.Boolean() | exp.Null() | exp.Literal():
            return True
        case exp.Paren():
            return _is_sure(node.this, types)
        case exp.Is():
            return isinstance(node.expression, exp.Null | exp.Boolean) and _is_sure(node.this, types)
        case exp.Between():
            return _are_alike((node.this, node.args["low"], node.args["high"]), types)
        case exp.In():
            return _are_alike((node.this, *node.expressions), types)
        case exp.Like() | exp.ILike() | exp.StartsWith() | exp.EndsWith() | exp.Contains():
            return _family(node.this, types) == _family(node.expression, types) == "VARCHAR"
        case _:
            return isinstance(node, expressions.COMPARISONS) and _are_alike((node.this, node.expression), types)


def _are_alike(nodes: tuple[exp.Expr, ...], types: Types) -> bool:
    families = {_family(node, types) for node in nodes}
    if families in ({"DATE", "VARCHAR"}, {"TIMESTAMP", "VARCHAR"}):  # a text that is read as a date
        return all(not isinstance(n, exp.Column) or _family(n, types) != "VARCHAR" for n in nodes) and all(
            _is_moment(n.name, with_time="TIMESTAMP" in families) for n in nodes if isinstance(n, exp.Literal)
        )
    return len(families) == 1 and "" not in families


def _family(node: exp.Expr, types: Types) -> str:
    match node:
        case exp.Paren():
            return _family(node.this, types)
        case exp.Column():
            return family(types.get(node.table, {}).get(node.name, ""))
        case exp.Literal() if node.is_string:
            return "VARCHAR"
        case exp.Literal():
            plain = node.name.replace(".", "", 1)
            return "number" if plain.isdecimal() and len(plain) <= _SMALL_DIGITS else ""
        case exp.Neg() if isinstance(node.this, exp.Literal):
            return _family(node.this, types)
        case exp.Boolean():
            return "BOOLEAN"
        case exp.Cast() if type(node) is exp.Cast and isinstance(node.this, exp.Literal) and node.this.is_string:
            kind = node.to.sql(dialect="duckdb")
            if kind in ("DATE", "TIMESTAMP") and _is_moment(node.this.name, with_time=kind == "TIMESTAMP"):
                return kind
            return ""
        case _:
            return ""


def _is_moment(text: str, *, with_time: bool) -> bool:
    """True if a constant is a date that any engine reads; others are tried like anything else."""
    day, _, time = text.partition(" ")
    if not _DAY.fullmatch(day) or (time and not (with_time and _TIME.fullmatch(time))) or text.endswith(" "):
        return False
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True
