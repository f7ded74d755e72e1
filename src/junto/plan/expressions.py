# SPDX-License-Identifier: Apache-2.0
"""The SQL that Junto knows: which classes of node a question or a fragment may hold, and with which arguments.

Both sides use it. The asker's compiler turns away what it does not know, and every owner's node reads each fragment
again by the same list. A node that is not here, or here but with an argument that is not, is an error that names it.

The parser and DuckDB read a few unparenthesised mixtures of operators differently (`b = a IS NULL`); these are turned
away too, so that text and tree always mean the same.
"""

import re
from collections.abc import Iterable, Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from junto.errors import InvalidInput, UnsupportedSQL

MAX_TEXT = 100_000
"""Characters of SQL that are looked at."""

MAX_NODES = 20_000
MAX_DEPTH = 120
_MAX_PARENTHESES = 60

_BINARY = frozenset(("this", "expression"))
_THIS = frozenset(("this",))

COMPARISONS: tuple[type[exp.Expr], ...] = (
    exp.EQ,
    exp.NEQ,
    exp.GT,
    exp.GTE,
    exp.LT,
    exp.LTE,
    exp.NullSafeEQ,
    exp.NullSafeNEQ,
)
_RANGES: tuple[type[exp.Expr], ...] = (exp.Is, exp.In, exp.Between, exp.Like, exp.ILike, exp.Escape)
CONNECTIVES: tuple[type[exp.Expr], ...] = (exp.And, exp.Or, exp.Not)
PREDICATES: tuple[type[exp.Expr], ...] = (
    *COMPARISONS,
    *_RANGES,
    *CONNECTIVES,
    exp.StartsWith,
    exp.EndsWith,
    exp.Contains,
)
"""Nodes that answer yes or no about their operands."""

AGGREGATES: tuple[type[exp.Expr], ...] = (
    exp.Count,
    exp.Sum,
    exp.Avg,
    exp.Variance,
    exp.VariancePop,
    exp.Stddev,
    exp.StddevSamp,
    exp.StddevPop,
    exp.Min,
    exp.Max,
)

_ARITHMETIC: tuple[type[exp.Expr], ...] = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod)
_CHAINS = (exp.And, exp.Or)
"""A list of conditions, held as nested nodes, counts as one level: it is walked without recursion."""

_FIELDS: tuple[type[exp.Expr], ...] = (
    exp.Year,
    exp.Month,
    exp.Day,
    exp.Hour,
    exp.Minute,
    exp.Second,
    exp.Quarter,
    exp.Week,
    exp.DayOfWeek,
    exp.DayOfWeekIso,
    exp.DayOfYear,
)

_ALLOWED: dict[type[exp.Expr], frozenset[str]] = {
    **dict.fromkeys(COMPARISONS, _BINARY),
    **dict.fromkeys(_ARITHMETIC, _BINARY | {"typed", "safe"}),
    **dict.fromkeys(_FIELDS, _THIS),
    **dict.fromkeys((exp.And, exp.Or), _BINARY),
    **dict.fromkeys((exp.Not, exp.Neg, exp.Paren), _THIS),
    exp.Is: _BINARY,
    exp.In: frozenset(("this", "expressions", "query")),
    exp.Between: frozenset(("this", "low", "high")),
    exp.Like: _BINARY | {"negate"},
    exp.ILike: _BINARY | {"negate"},
    exp.Escape: _BINARY,
    exp.StartsWith: _BINARY,
    exp.EndsWith: _BINARY,
    exp.Contains: _BINARY,
    exp.DPipe: _BINARY | {"safe"},
    exp.Pow: _BINARY,
    exp.Case: frozenset(("this", "ifs", "default")),
    exp.If: frozenset(("this", "true", "false")),
    exp.Coalesce: frozenset(("this", "expressions")),
    exp.Nullif: _BINARY,
    exp.Cast: frozenset(("this", "to")),
    exp.TryCast: frozenset(("this", "to", "safe")),
    exp.DataType: frozenset(("this", "expressions", "nested")),
    exp.DataTypeParam: _THIS,
    exp.Lower: _THIS,
    exp.Upper: _THIS,
    exp.Substring: frozenset(("this", "start", "length")),
    exp.Left: _BINARY,
    exp.Right: _BINARY,
    exp.Length: _THIS,
    exp.Trim: frozenset(("this", "expression", "position")),
    exp.Concat: frozenset(("expressions", "safe", "coalesce")),
    exp.Replace: frozenset(("this", "expression", "replacement")),
    exp.Extract: _BINARY,
    exp.TimestampTrunc: frozenset(("this", "unit")),
    exp.DateTrunc: frozenset(("this", "unit")),
    exp.DateDiff: frozenset(("this", "expression", "unit", "date_part_boundary")),
    exp.DateAdd: frozenset(("this", "expression")),
    exp.Interval: frozenset(("this", "unit")),
    exp.Abs: _THIS,
    exp.Sign: _THIS,
    exp.Round: frozenset(("this", "decimals")),
    exp.Floor: _THIS,
    exp.Ceil: _THIS,
    exp.Least: frozenset(("this", "expressions", "ignore_nulls")),
    exp.Greatest: frozenset(("this", "expressions", "ignore_nulls")),
    exp.Ln: _THIS,
    exp.Exp: _THIS,
    exp.Sqrt: _THIS,
    exp.Literal: frozenset(("this", "is_string")),
    exp.Boolean: _THIS,
    exp.Null: frozenset(),
    exp.Var: _THIS,
    exp.Identifier: frozenset(("this", "quoted")),
    exp.Column: frozenset(("this", "table")),
    exp.Count: frozenset(("this", "big_int")),
    **dict.fromkeys((kind for kind in AGGREGATES if kind is not exp.Count), _THIS),
    exp.Distinct: frozenset(("expressions",)),
    exp.Filter: _BINARY,
    exp.Anonymous: frozenset(("this", "expressions")),
    # of a SELECT
    exp.Select: frozenset(
        ("expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "distinct", "with_")
    ),
    exp.From: _THIS,
    exp.Join: frozenset(("this", "side", "kind", "on", "using", "method")),
    exp.Table: frozenset(("this", "db", "alias", "catalog")),
    exp.TableAlias: frozenset(("this", "columns")),
    exp.Subquery: frozenset(("this", "alias")),
    exp.With: frozenset(("expressions",)),
    exp.CTE: frozenset(("this", "alias")),
    exp.Where: _THIS,
    exp.Group: frozenset(("expressions", "all")),
    exp.Having: _THIS,
    exp.Order: frozenset(("expressions",)),
    exp.Ordered: frozenset(("this", "desc", "nulls_first")),
    exp.Limit: frozenset(("expression",)),
    exp.Offset: frozenset(("expression",)),
    exp.Alias: frozenset(("this", "alias")),
    exp.Star: frozenset(),
}

_NAMING_A_FIELD = (exp.Extract, exp.TimestampTrunc, exp.DateTrunc, exp.DateDiff, exp.Interval, exp.Ordered)
"""Nodes that may hold a bare word: the field of a date, or ORDER BY ALL."""

_FUNCTIONS = frozenset(("date_part", "datepart"))
"""Functions that the parser has no class of its own for."""

FRAGMENT_FUNCTIONS = frozenset(("fsum", "fspread"))
"""Functions that only a fragment holds: sums of reals with compensation, and the parts of their deviations."""

_TYPES = frozenset(
    getattr(exp.DataType.Type, name)
    for name in (
        *("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "INT128", "UTINYINT", "USMALLINT", "UINT", "UBIGINT"),
        *("FLOAT", "DOUBLE", "DECIMAL", "TEXT", "VARCHAR", "DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ"),
    )
)

_INSTEAD: dict[type[exp.Expr], tuple[str, str]] = {
    exp.Window: ("a window function (OVER)", "write an aggregate with GROUP BY"),
    exp.Lateral: ("LATERAL", "write a join with its condition in ON"),
    exp.Pivot: ("PIVOT", "write SUM(CASE WHEN … THEN … END) for each column"),
    exp.Qualify: ("QUALIFY", "write GROUP BY and HAVING"),
    exp.GroupingSets: ("GROUPING SETS", "ask one question for each grouping"),
    exp.Rollup: ("ROLLUP", "ask one question for each grouping"),
    exp.Cube: ("CUBE", "ask one question for each grouping"),
    exp.TableSample: ("TABLESAMPLE", "select with WHERE on a column"),
    exp.Exists: ("EXISTS", "write `x IN (SELECT … FROM an open table)`, or a join"),
    exp.Any: ("ANY", "write IN with a list"),
    exp.All: ("ALL", "compare with a constant"),
    exp.Placeholder: ("a placeholder", "write the value itself"),
    exp.Parameter: ("a parameter", "write the value itself"),
    exp.CurrentDate: ("the current date", "write the date itself: each party has its own clock"),
    exp.CurrentTimestamp: ("the current time", "write the time itself: each party has its own clock"),
    exp.Rand: ("random()", "leave it out: the parties would draw different numbers"),
    exp.Median: ("MEDIAN", "use AVG, or MIN and MAX where a rule permits extremes"),
    exp.Columns: ("COLUMNS(…)", "name the columns"),
    exp.Values: ("VALUES", "publish the values as an open dataset and join it"),
    exp.Fetch: ("FETCH", "write LIMIT"),
    exp.JSONExtract: ("a lambda or JSON path (->)", "publish the value as a column"),
    exp.RegexpLike: ("a regular expression", "write LIKE or starts_with"),
    exp.SimilarTo: ("SIMILAR TO", "write LIKE or starts_with"),
}

_STATEMENTS = "ask with one SELECT; Junto changes no data and no settings"


def parse(text: str) -> exp.Select:
    """The one SELECT in `text`, every node of it on the list. Raises UnsupportedSQL, InvalidInput."""
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"the SQL has {len(text)} characters; at most {MAX_TEXT} are read")
    if "\0" in text:
        raise InvalidInput("the SQL holds a zero character: take it out")
    _check_nesting(text)
    first = _first_word(text)
    if first not in ("", "SELECT", "WITH", "FROM"):
        raise UnsupportedSQL(f"{first[:40]} is not a question: {_STATEMENTS}")
    try:
        statements = [tree for tree in sqlglot.parse(text, read="duckdb") if tree is not None]
    except SqlglotError as error:
        raise InvalidInput(f"the SQL does not parse: {_first_line(error)}") from error
    except (RecursionError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InvalidInput("the SQL does not parse: write it in simpler parts") from error
    if not statements:
        raise InvalidInput("the question is empty: write SELECT … FROM …")
    if len(statements) > 1:
        raise UnsupportedSQL(f"{len(statements)} statements: ask one question at a time")
    tree = statements[0]
    if isinstance(tree, exp.SetOperation):
        raise UnsupportedSQL(f"{tree.key.upper()} is not supported: ask one question for each SELECT")
    if not isinstance(tree, exp.Select):
        raise UnsupportedSQL(f"{tree.key.upper()} is not a question: {_STATEMENTS}")
    return tree


def check(tree: exp.Expr, functions: Iterable[str] = ()) -> None:
    """Raises UnsupportedSQL unless every node of `tree`, and every argument of it, is on the list."""
    known = _FUNCTIONS.union(functions)
    stack: list[tuple[exp.Expr, int]] = [(tree, 0)]
    seen = 0
    while stack:
        node, depth = stack.pop()
        seen += 1
        if seen > MAX_NODES or depth > MAX_DEPTH:
            raise InvalidInput("the SQL is too large or nested too deeply: write it in simpler parts")
        _check_node(node, known)
        for name, value in node.args.items():
            children = value if isinstance(value, list) else [value]
            for child in children:
                if isinstance(child, exp.Expr):
                    _check_operand(node, name, child)
                    chained = isinstance(node, _CHAINS) and type(child) is type(node)
                    stack.append((child, depth if chained else depth + 1))


def spelling(tree: exp.Expr) -> str:
    """The spelling of a tree. A text is canonical if it equals the spelling of its own tree. Raises UnsupportedSQL."""
    try:
        return tree.sql(dialect="duckdb", comments=False)
    except (SqlglotError, RecursionError, ValueError) as error:
        raise UnsupportedSQL("the SQL cannot be spelled for the engine: write it in simpler parts") from error


def text_of(tree: exp.Expr) -> str:
    """The canonical text of a SELECT: it parses to what is spelled the same. Raises UnsupportedSQL if there is none."""
    text = spelling(tree)
    if spelling(parse(text)) != text:
        raise UnsupportedSQL("the SQL has no one spelling for the engine: write it in simpler parts")
    return text


def readable(tree: exp.Expr, tables: Mapping[str, str] | None = None) -> str:
    """An expression as a person would write it, for messages: no aliases, no quotes where none are needed.

    tables: the names to put before columns, by table alias; without, none are put.
    """

    def plain(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column):
            table = (tables or {}).get(node.table)
            return exp.column(exp.to_identifier(node.name), exp.to_identifier(table) if table else None)
        return node

    shown = tree.copy().transform(plain).sql(dialect="duckdb", comments=False)
    return shown if len(shown) <= 80 else shown[:77] + "…"


def name_of(node: exp.Expr) -> str:
    """The name of a kind of node in messages."""
    if isinstance(node, exp.Anonymous):
        return f"{node.name}()"
    if isinstance(node, exp.Func):
        return f"{node.sql_name().lower()}()"
    return node.key.upper()


def _check_node(node: exp.Expr, functions: frozenset[str]) -> None:
    kind = type(node)
    allowed = _ALLOWED.get(kind)
    if allowed is None:
        what, mend = next(
            (told for known, told in _INSTEAD.items() if isinstance(node, known)),
            (name_of(node), "it is not among the functions Junto computes"),
        )
        raise UnsupportedSQL(f"{what} is not supported: {mend}")
    for name, value in node.args.items():
        if value in (None, [], False) or name in allowed:
            continue
        child = value[0] if isinstance(value, list) else value
        if isinstance(child, exp.Expr) and type(child) in _INSTEAD:
            what, mend = _INSTEAD[type(child)]
            raise UnsupportedSQL(f"{what} is not supported: {mend}")
        raise UnsupportedSQL(f"{name_of(node)} with {name.strip('_').replace('_', ' ').upper()} is not supported")
    match node:
        case exp.Table() if not isinstance(node.this, exp.Identifier):
            called = name_of(node.this) if isinstance(node.this, exp.Expr) else "that"
            raise UnsupportedSQL(f"{called} as a table is not supported: publish it as a dataset and name that")
        case exp.Var() if not isinstance(node.parent, _NAMING_A_FIELD) or not str(node.this).isalpha():
            raise UnsupportedSQL(f"{str(node.this)[:40]} is not supported in this place: write a column or a value")
        case exp.Anonymous() if str(node.this).lower() not in functions:
            raise UnsupportedSQL(
                f"{str(node.this)[:60]}() is not supported: it is not among the functions Junto computes"
            )
        case exp.DataType() if node.this not in _TYPES or node.args.get("nested"):
            raise UnsupportedSQL(f"a cast to {node.sql(dialect='duckdb')[:60]} is not supported: cast to a plain type")
        case exp.Literal() if not node.is_string and len(str(node.this)) > 80:
            raise InvalidInput("a number in the SQL has more than 80 digits")
        case exp.In() if not node.args.get("query") and not node.args.get("expressions"):
            raise InvalidInput("IN needs a list: write IN (1, 2, …)")
        case exp.Escape() if not _escapes(node):
            raise UnsupportedSQL(
                "ESCAPE needs a pattern and one character, both constants: write LIKE '10!%' ESCAPE '!'"
            )
        case exp.Extract() if not isinstance(node.this, exp.Var):
            raise UnsupportedSQL("EXTRACT needs the name of a field: write EXTRACT(hour FROM …)")
        case _:
            pass


def _escapes(node: exp.Escape) -> bool:
    """True if no row can make a pattern with ESCAPE fail: TRY does not catch that failure."""
    like, sign = node.this, node.expression
    pattern = like.expression if isinstance(like, exp.Like | exp.ILike) else None
    if not isinstance(sign, exp.Literal) or not isinstance(pattern, exp.Literal):
        return False
    if not sign.is_string or not pattern.is_string or len(sign.name) != 1:
        return False
    return not str(pattern.name).replace(sign.name * 2, "").endswith(sign.name)


def _check_operand(parent: exp.Expr, name: str, child: exp.Expr) -> None:
    """Raises UnsupportedSQL where the text would not mean what the tree says without parentheses."""
    match parent:
        case exp.Neg() | exp.Cast():
            loose: tuple[type[exp.Expr], ...] = (exp.Pow,) if isinstance(parent, exp.Neg) else ()
        case exp.Pow():
            loose = (exp.Neg, exp.Pow)
        case exp.DPipe():
            loose = (*_ARITHMETIC, *COMPARISONS, *_RANGES, *CONNECTIVES)
        case exp.Is() | exp.Between() | exp.Like() | exp.ILike() | exp.Escape() | exp.In():
            loose = (*COMPARISONS, *_RANGES, *CONNECTIVES)
            if isinstance(parent, exp.In) and name != "this":
                loose = ()
            if isinstance(parent, exp.Escape) and isinstance(child, exp.Like | exp.ILike):
                loose = ()
        case _ if isinstance(parent, (*COMPARISONS, *_ARITHMETIC)):
            loose = (*COMPARISONS, *_RANGES, *CONNECTIVES)
        case _:
            return
    if isinstance(child, loose):
        raise UnsupportedSQL(
            f"{name_of(child)} beside {name_of(parent)} can be read in two ways: put ( ) around {readable(child)!r}"
        )


def _check_nesting(text: str) -> None:
    depth = 0
    quote = ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
            if depth > _MAX_PARENTHESES:
                raise InvalidInput(f"more than {_MAX_PARENTHESES} parentheses are open at once: simplify the SQL")
        elif character in ")]}":
            depth -= 1


def _first_word(text: str) -> str:
    found = re.match(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+)", text, re.DOTALL)
    return found[1].upper() if found else ""


def _first_line(error: SqlglotError) -> str:
    details = getattr(error, "errors", None)
    if not details:
        return str(error).splitlines()[0][:200]
    first = details[0]
    place = f"line {first.get('line')}, column {first.get('col')}, at {str(first.get('highlight'))[:40]!r}"
    told = str(first.get("description"))
    return f"something is missing before {place}" if told.startswith("Required keyword") else f"{told} ({place})"
