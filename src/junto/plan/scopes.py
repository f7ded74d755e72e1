# SPDX-License-Identifier: Apache-2.0
"""The resolution of names in a SELECT of any shape: each table to a table read or a WITH, each column to one source.

A name is looked up where the engine looks: a table among the WITH names in sight at that place, then among the tables
read; a column among the sources of its own SELECT, then among those around it. A name of another scope is no name here,
so neither a WITH elsewhere nor an alias can stand before the engine's catalogue. Names that two readers could take for
each other (by case, or by Unicode's compatible forms) do not stand side by side.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from sqlglot import exp

from junto.catalog.names import fold

MOST_SELECTS = 100
MOST_CORRELATED = 3
"""Subqueries that reach outwards: an engine's planning time grows faster than their square."""

_NAMELESS = ""


def folded(name: str) -> str:
    """A name without all that might not tell it from another: case, and forms that Unicode calls compatible."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def distinct(names: Iterable[str]) -> bool:
    """True if no two of the names could be taken for each other."""
    found = [folded(name) for name in names]
    return len(set(found)) == len(found)


def tables_read(
    tree: exp.Select, tables: Mapping[str, Sequence[str]], fault: Callable[[str], NoReturn]
) -> frozenset[str]:
    """The names of the tables that a SELECT reads, at any depth.

    tables: the columns of each that may be read. Calls `fault` where a name leads nowhere, or could be another's.
    """
    walk = _Walk(tables, fault)
    walk.select(tree, None, {})
    return frozenset(walk.read)


@dataclass(slots=True)
class _Scope:
    """One SELECT: the columns of its sources by alias, as the engine compares them, and the names of its outputs."""

    around: "_Scope | None"
    sources: dict[str, frozenset[str]] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()
    reaches_out: bool = False

    def has(self, column: exp.Column) -> bool:
        name = fold(column.name)
        if column.table:
            found = self.sources.get(fold(column.table))
            return found is not None and (isinstance(column.this, exp.Star) or name in found)
        return name in self.outputs or any(name in columns for columns in self.sources.values())


_Withs = Mapping[str, tuple[str, ...]]
"""The WITH names in sight, as the engine compares them, and the columns of each."""


@dataclass(slots=True)
class _Walk:
    tables: Mapping[str, Sequence[str]]
    fault: Callable[[str], NoReturn]
    read: set[str] = field(default_factory=set)
    selects: int = 0
    correlated: int = 0

    def select(self, select: exp.Select, around: _Scope | None, withs: _Withs) -> tuple[str, ...]:
        """Look up all names in a SELECT. Its columns, of which those without a name are empty."""
        self.selects += 1
        if self.selects > MOST_SELECTS:
            self.fault(f"it holds more than {MOST_SELECTS} SELECTs")
        scope = _Scope(around)
        withs = self._withs(select, scope, withs)
        from_ = select.args.get("from_")
        items = [from_.this] if from_ is not None else []
        items += [join.this for join in select.args.get("joins") or []]
        names: list[str] = []
        columns: list[tuple[str, ...]] = []
        for item in items:
            names.append(item.alias_or_name)
            columns.append(self._source(item, scope, withs))
            scope.sources[fold(names[-1])] = frozenset(map(fold, columns[-1]))
        if not distinct(names):
            self.fault("two of its tables have one alias")
        outputs = _outputs(select, dict(zip(map(fold, names), columns, strict=True)))
        scope.outputs = frozenset(fold(p.alias) for p in select.expressions if isinstance(p, exp.Alias))
        for clause, value in select.args.items():
            if clause not in ("from_", "with_"):
                for node in value if isinstance(value, list) else [value]:
                    self._expression(node.args.get("on") if isinstance(node, exp.Join) else node, scope, withs)
        if scope.reaches_out:
            self.correlated += 1
            if self.correlated > MOST_CORRELATED:
                self.fault(f"it holds more than {MOST_CORRELATED} subqueries that reach into what is around them")
        return outputs

    def _withs(self, select: exp.Select, scope: _Scope, withs: _Withs) -> _Withs:
        found = dict(withs)
        with_ = select.args.get("with_")
        for cte in with_.expressions if with_ is not None else ():
            if not isinstance(cte.this, exp.Select) or cte.args["alias"].args.get("columns"):
                self.fault("a WITH is one SELECT, whose columns keep their names")
            if not distinct((cte.alias, *found)):
                self.fault("a WITH has the name of another")
            if folded(cte.alias) in {folded(name) for name in self.tables}:
                self.fault("a WITH has the name of a table that is read")
            found[fold(cte.alias)] = self.select(cte.this, scope.around, found)
        return found

    def _source(self, item: exp.Expr, scope: _Scope, withs: _Withs) -> tuple[str, ...]:
        match item:
            case exp.Subquery() if isinstance(item.this, exp.Select):
                columns = self.select(item.this, scope, withs)
            case exp.Table() if isinstance(item.this, exp.Identifier) and not item.args.get("db"):
                columns = self._table(item, withs)
            case _:
                self.fault("it reads something that is neither a table nor a SELECT")
        alias = item.args.get("alias")
        given = [column.name for column in alias.args.get("columns") or ()] if alias is not None else []
        if len(given) > len(columns):
            self.fault("an alias names more columns than there are")
        return (*given, *columns[len(given) :])

    def _table(self, table: exp.Table, withs: _Withs) -> tuple[str, ...]:
        if fold(table.name) in withs:
            return withs[fold(table.name)]
        if table.args.get("catalog") or table.name not in self.tables:
            self.fault(f"it reads {table.name[:60]!r}, which is not among the tables it says it reads")
        self.read.add(table.name)
        return tuple(self.tables[table.name])

    def _expression(self, node: object, scope: _Scope, withs: _Withs) -> None:
        stack = [node]
        while stack:
            match stack.pop():
                case exp.Select() as select:
                    self.select(select, scope, withs)
                case exp.Table():
                    self.fault("it reads a table outside of FROM")
                case exp.Column() as column:
                    self._column(column, scope)
                case exp.Expr() as other:
                    stack.extend(other.iter_expressions())

    def _column(self, column: exp.Column, scope: _Scope) -> None:
        at: _Scope | None = scope
        passed: list[_Scope] = []
        while at is not None and not at.has(column):
            passed.append(at)
            at = at.around
        if at is None:
            self.fault(f"its column {column.name[:60]!r} is of no table that it reads")
        for inner in passed:
            inner.reaches_out = True


def _outputs(select: exp.Select, sources: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    names: list[str] = []
    for projection in select.expressions:
        match projection:
            case exp.Alias():
                names.append(projection.alias)
            case exp.Star():
                names += [name for columns in sources.values() for name in columns]
            case exp.Column() if isinstance(projection.this, exp.Star):
                names += sources.get(fold(projection.table), ())
            case exp.Column():
                names.append(projection.name)
            case _:
                names.append(_NAMELESS)
    return tuple(names)
