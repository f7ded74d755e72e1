# SPDX-License-Identifier: Apache-2.0
"""A SELECT after binding, flat; and what is done to trees on the way there: WITH names, tables, columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from junto.catalog.names import fold
from junto.errors import UnsupportedSQL
from junto.frontends.sql.names import Catalog, Named
from junto.plan import expressions
from junto.types import PartyId

Env = Mapping[str, exp.Select]
"""The WITH names in sight, folded, and their SELECTs."""


@dataclass(frozen=True)
class Derived:
    """A SELECT over open tables of one party, computed there. Its outputs are called c0, c1, …"""

    owner: PartyId
    select: exp.Select  # its tables replaced by names of `tables`
    tables: Mapping[str, Named]
    columns: tuple[str, ...]  # as the question calls them


@dataclass(frozen=True)
class Source:
    """One use of a table. `side` and `on` say how it joins those before it; the first has neither."""

    alias: str
    table: Named | Derived
    side: str = ""
    on: exp.Expr | None = None


@dataclass
class Flat:
    """A bound SELECT: what it reads, what it keeps, and its outputs."""

    sources: list[Source] = field(default_factory=list)
    where: list[exp.Expr] = field(default_factory=list)
    outputs: list[tuple[str, exp.Expr]] = field(default_factory=list)
    group: list[exp.Expr] | None = None
    having: exp.Expr | None = None
    order: list[exp.Ordered] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    distinct: bool = False
    lists: dict[str, Derived] = field(default_factory=dict)  # tables of `x IN (SELECT …)`

    @property
    def plain(self) -> bool:
        """True if the SELECT only selects and filters."""
        cut = self.limit is not None or self.offset or self.distinct or self.having is not None
        return self.group is None and not cut and not any(has_aggregate(e) for _, e in self.outputs)


def has_aggregate(node: exp.Expr) -> bool:
    """True if an expression holds an aggregate."""
    return node.find(*expressions.AGGREGATES) is not None


def all_tables(select: exp.Select, catalog: Catalog, env: Env | None = None) -> Iterator[tuple[exp.Table, Named]]:
    """Every dataset that a SELECT reads, at any depth, with the node that names it."""
    inner = with_names(select, env or {})
    for node in _own_nodes(select):
        if isinstance(node, exp.Table):
            body = None if node.args.get("db") else inner.get(fold(node.name))
            if body is None:
                yield node, catalog.find(node)
        elif isinstance(node, exp.Select):
            yield from all_tables(node, catalog, inner)
    for cte in _ctes(select):
        yield from all_tables(cte.this, catalog, _before(select, cte, env or {}))


def bound_column(alias: str, column: str) -> exp.Column:
    """`"alias"."column"`."""
    return exp.column(exp.to_identifier(column, quoted=True), exp.to_identifier(alias, quoted=True))


def table_node(name: str, alias: str) -> exp.Table:
    """`"name" AS "alias"`."""
    return exp.Table(
        this=exp.to_identifier(name, quoted=True),
        alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True)),
    )


def all_of(conditions: Sequence[exp.Expr]) -> exp.Expr:
    """The conditions, of which there is at least one, joined by AND."""
    whole = [exp.paren(c, copy=False) if isinstance(c, exp.Or) else c for c in conditions]
    result: exp.Expr = whole[0]
    for condition in whole[1:]:
        result = exp.And(this=result, expression=condition)
    return result


def rebuilt(node: exp.Expr, change: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """A node of the same class whose children have been changed."""
    args: dict[str, object] = {}
    for name, value in node.args.items():
        if isinstance(value, exp.Expr):
            args[name] = change(value)
        elif isinstance(value, list):
            args[name] = [change(v) if isinstance(v, exp.Expr) else v for v in value]
        else:
            args[name] = value
    return type(node)(**args)


def rename(select: exp.Select, named: Sequence[tuple[exp.Table, Named]], tables: dict[str, Named]) -> None:
    """Give each table in a SELECT the one name under which its fragment reads it; columns keep theirs.

    named: what `all_tables` found in it. tables: filled with what each name stands for.
    """
    avoid = frozenset(fold(cte.alias) for cte in select.find_all(exp.CTE))
    for node, table in named:
        name = read_name(table, tables, avoid)
        tables[name] = table
        if node.args.get("alias") is None:
            node.set("alias", exp.TableAlias(this=node.this.copy()))
        node.set("this", exp.to_identifier(name, quoted=True))
        node.set("db", None)


def read_name(table: Named, taken: Mapping[str, Named], avoid: frozenset[str] = frozenset()) -> str:
    """The name under which a fragment reads a table: its own, or `party.name` where that is somebody else's."""
    taken_by = next((other for name, other in taken.items() if fold(name) == fold(table.name)), None)
    if fold(table.name) not in avoid and taken_by in (None, table):
        return table.name
    return f"{'+'.join(table.owners)}.{table.name}"


def complete(select: exp.Select, env: Env) -> exp.Select:
    """A copy of the SELECT that carries the WITH names it uses from around it."""
    copied = select.copy()
    own = {fold(cte.alias) for cte in _ctes(copied)}
    needed: set[str] = set()
    frontier = [name for name in _named(copied) if name in env and name not in own]
    while frontier:
        name = frontier.pop()
        if name not in needed:
            needed.add(name)
            frontier += [n for n in _named(env[name]) if n in env and n != name]
    if needed:
        ctes = [
            exp.CTE(this=body.copy(), alias=exp.TableAlias(this=exp.to_identifier(name, quoted=True)))
            for name, body in env.items()
            if name in needed
        ]
        copied.set("with_", exp.With(expressions=[*ctes, *_ctes(copied)]))
    return copied


def _named(select: exp.Select) -> set[str]:
    return {fold(table.name) for table in select.find_all(exp.Table) if not table.args.get("db")}


def _ctes(select: exp.Select) -> list[exp.CTE]:
    with_ = select.args.get("with_")
    return list(with_.expressions) if with_ is not None else []


def with_names(select: exp.Select, env: Env) -> Env:
    """The WITH names in sight inside a SELECT. Raises UnsupportedSQL."""
    found = dict(env)
    for cte in _ctes(select):
        if not isinstance(cte.this, exp.Select):
            raise UnsupportedSQL(f"WITH {cte.alias} is not a SELECT: write one SELECT in it")
        if cte.args["alias"].args.get("columns"):
            raise UnsupportedSQL(f"WITH {cte.alias}(…) renames columns: name them with AS inside it")
        if fold(cte.alias) in found:
            raise UnsupportedSQL(f"WITH names {cte.alias!r} twice: give each its own name")
        found[fold(cte.alias)] = cte.this
    return found


def _before(select: exp.Select, wanted: exp.CTE, env: Env) -> Env:
    found = dict(env)
    for cte in _ctes(select):
        if cte is wanted:
            break
        found[fold(cte.alias)] = cte.this
    return found


def _own_nodes(select: exp.Select) -> Iterator[exp.Expr]:
    """Tables and SELECTs directly inside a SELECT, WITH left aside."""
    stack: list[exp.Expr] = [
        child
        for name, value in select.args.items()
        if name != "with_"
        for child in (value if isinstance(value, list) else [value])
        if isinstance(child, exp.Expr)
    ]
    while stack:
        node = stack.pop()
        if isinstance(node, exp.Table | exp.Select):
            yield node
            if isinstance(node, exp.Select):
                continue
        stack.extend(node.iter_expressions())
