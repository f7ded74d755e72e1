# SPDX-License-Identifier: Apache-2.0
"""Binds every name in a SELECT and merges its subqueries, until one flat list of tables, joins and conditions is left.

A `Source` is one use of a table: a dataset, or a subquery over open tables of one party that is computed there. Bound
expressions hold columns as `"t0"."column"`, t0 being the source. A subquery that only selects and filters is merged
into what surrounds it; one over open tables may be any SELECT; anything else would compute on rows that never come
together, and is turned away.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from junto.catalog.names import fold, meant
from junto.errors import InvalidInput, UnsupportedSQL
from junto.frontends.sql.flat import (
    Derived,
    Env,
    Flat,
    Source,
    all_of,
    all_tables,
    bound_column,
    complete,
    has_aggregate,
    rebuilt,
    rename,
    table_node,
    with_names,
)
from junto.frontends.sql.names import Catalog, Named
from junto.plan import expressions

_MOST_SOURCES = 32


@dataclass
class _Relation:
    """A FROM item in sight: its name, and the expression behind each of its columns, in order."""

    name: str
    columns: list[tuple[str, exp.Expr]]
    hidden: set[str] = field(default_factory=set)  # folded names that USING merged into an earlier relation's


class Binder:
    """Binds one question. Aliases t0, t1, … and list names are counted over the whole of it."""

    def __init__(
        self, catalog: Catalog, names_of: Callable[[exp.Select, Mapping[str, Named]], tuple[str, ...]]
    ) -> None:
        self._catalog = catalog
        self._names_of = names_of
        self._sources = 0
        self._lists = 0

    def flatten(self, select: exp.Select, env: Env) -> Flat:
        """The SELECT, bound and flat. Raises InvalidInput, UnsupportedSQL."""
        env = with_names(select, env)
        flat = Flat()
        relations: list[_Relation] = []
        source = select.args.get("from_")
        if source is None:
            raise InvalidInput("the question names no table: write FROM and a dataset")
        self._add(flat, relations, source.this, env, None)
        for join in select.args.get("joins") or []:
            self._add(flat, relations, join.this, env, join)
        scope = _Scope(self, flat, relations, env)
        where = select.args.get("where")
        scope.bind_outputs(select.expressions)
        if where is not None:
            bound = scope.bind(where.this)
            _no_aggregate(bound, "WHERE", "move it to HAVING")
            flat.where += _conjuncts(bound)
        flat.group = scope.group(select)
        having = select.args.get("having")
        flat.having = scope.bind(having.this) if having is not None else None
        flat.distinct = _distinct(select)
        flat.order = scope.order(select)
        flat.limit = _number(select.args.get("limit"), "LIMIT")
        flat.offset = _number(select.args.get("offset"), "OFFSET") or 0
        return flat

    def list_of(self, select: exp.Select, env: Env, flat: Flat) -> tuple[str, exp.Expr]:
        """The name of the open list that an IN subquery stands for."""
        derived = self._derive(select, env, "IN (SELECT …)")
        if len(derived.columns) != 1:
            raise InvalidInput("IN (SELECT …) needs a SELECT of one column")
        name = f"list{self._lists}"
        self._lists += 1
        flat.lists[name] = derived
        return name, exp.column(exp.to_identifier("c0", quoted=True), exp.to_identifier("s", quoted=True))

    def _add(self, flat: Flat, relations: list[_Relation], item: exp.Expr, env: Env, join: exp.Join | None) -> None:
        side = _side(join)
        name, select = _named_select(item, env)
        if select is None:
            if not isinstance(item, exp.Table):
                raise UnsupportedSQL(f"{expressions.name_of(item)} in FROM is not supported: name a dataset")
            table = self._catalog.find(item)
            first = len(flat.sources)
            columns = self._source(flat, table, [c.name for c in table.columns], [c.name for c in table.columns])
            relation = _Relation(fold(item.alias or item.name), columns)
        else:
            first, columns = self._subquery(flat, select, _inner_env(item, env), join, name)
            relation = _Relation(fold(name), columns)
        if item.args.get("alias") is not None and item.args["alias"].args.get("columns"):
            renamed = [c.name for c in item.args["alias"].args["columns"]]
            if len(renamed) > len(columns):
                raise InvalidInput(f"{name} has {len(columns)} columns, and {len(renamed)} names for them")
            columns[: len(renamed)] = [(new, e) for new, (_, e) in zip(renamed, columns, strict=False)]
        if any(relation.name == other.name for other in relations):
            raise InvalidInput(f"{relation.name!r} names two tables in FROM: give each an alias of its own")
        before = list(relations)
        relations.append(relation)
        if join is not None:
            on = self._join_condition(flat, before, relations, join, env)
            flat.sources[first:] = _joined(flat.sources[first:], side, on)

    def _source(
        self, flat: Flat, table: Named | Derived, real: list[str], shown: list[str]
    ) -> list[tuple[str, exp.Expr]]:
        if self._sources >= _MOST_SOURCES:
            raise InvalidInput(f"the question reads more than {_MOST_SOURCES} tables")
        alias = f"t{self._sources}"
        self._sources += 1
        flat.sources.append(Source(alias, table))
        return [(name, bound_column(alias, column)) for column, name in zip(real, shown, strict=True)]

    def _subquery(
        self, flat: Flat, select: exp.Select, env: Env, join: exp.Join | None, name: str
    ) -> tuple[int, list[tuple[str, exp.Expr]]]:
        """Merge a subquery, or have it computed where its open tables are. Index of its first source; its columns."""
        first = len(flat.sources)
        counted = self._sources, self._lists
        problem: UnsupportedSQL | None = None
        try:
            inner = self.flatten(select, env)
        except UnsupportedSQL as error:
            problem, inner = error, Flat()
        if problem is None and inner.plain and not inner.order and _mergeable(inner, join):
            moved = list(inner.sources)
            if join is not None and inner.where:
                last = moved[-1]
                moved[-1] = replace(last, on=all_of([*_maybe(last.on), *inner.where]))
            else:
                flat.where += inner.where
            flat.sources += moved
            flat.lists.update(inner.lists)
            return first, [(shown, e if isinstance(e, exp.Column) else exp.paren(e)) for shown, e in inner.outputs]
        self._sources, self._lists = counted
        derived = self._derive(select, env, f"the subquery {name}" if name else "a subquery", problem)
        columns = [f"c{i}" for i in range(len(derived.columns))]
        return first, self._source(flat, derived, columns, list(derived.columns))

    def _derive(self, select: exp.Select, env: Env, what: str, problem: UnsupportedSQL | None = None) -> Derived:
        """The SELECT as one computed at the one party whose open tables it reads."""
        whole = complete(select, env)
        named = list(all_tables(whole, self._catalog))
        closed = next((table for _, table in named if not table.open), None)
        if closed is not None:
            if problem is not None:
                raise problem
            raise UnsupportedSQL(
                f"{what} aggregates, cuts or lists rows of {closed.name}, which is not open: its rows never come"
                " together in one place; let subqueries only select and filter it, and aggregate in the outer SELECT"
            )
        host = self._catalog.host([table for _, table in named])
        if host is None:
            owners = {owner for _, table in named for owner in table.owners}
            raise UnsupportedSQL(
                f"{what} reads open tables of {', '.join(sorted(owners)) or 'nobody'}: one party computes it,"
                " so let it read the tables of one, written party.dataset"
            )
        tables: dict[str, Named] = {}
        rename(whole, named, tables)
        return Derived(host, whole, tables, self._names_of(whole, tables))

    def _join_condition(
        self, flat: Flat, before: list[_Relation], relations: list[_Relation], join: exp.Join, env: Env
    ) -> exp.Expr:
        if join.args.get("on") is not None:
            bound = _Scope(self, flat, relations, env).bind(join.args["on"])
            _no_aggregate(bound, "ON", "move it to HAVING")
            return bound
        left, right = _Scope(self, flat, before, env), _Scope(self, flat, relations[-1:], env)
        pairs = []
        for column in join.args.get("using") or []:
            name = exp.column(exp.to_identifier(column.name))
            pairs.append(exp.EQ(this=left.bind(name), expression=right.bind(name)))
            relations[-1].hidden.add(fold(column.name))
        if not pairs:
            raise UnsupportedSQL(
                "a join without a condition is not supported: write INNER JOIN … ON … or LEFT JOIN … ON …"
            )
        return all_of(pairs)


class _Scope:
    """The meaning of names inside one SELECT."""

    def __init__(self, binder: Binder, flat: Flat, relations: list[_Relation], env: Env) -> None:
        self._binder = binder
        self._flat = flat
        self._relations = relations
        self._env = env
        self._aliases: dict[str, exp.Expr] = {}

    def bind(self, node: exp.Expr) -> exp.Expr:
        """The expression with every column bound."""
        match node:
            case exp.Column():
                return self._column(node)
            case exp.In() if node.args.get("query") is not None:
                query = node.args["query"].this
                if not isinstance(query, exp.Select):
                    raise UnsupportedSQL("IN with a set operation is not supported: write IN (SELECT … FROM …)")
                name, column = self._binder.list_of(query, self._env, self._flat)
                select = exp.Select(
                    expressions=[column],
                    from_=exp.From(this=table_node(name, "s")),
                )
                return exp.In(this=self.bind(node.this), query=exp.Subquery(this=select))
            case exp.Select() | exp.Subquery():
                raise UnsupportedSQL(
                    "a subquery as a value is not supported: join the table, or write x IN (SELECT … FROM …)"
                )
            case exp.Count() if node.this is None:
                return exp.Count(this=exp.Star(), big_int=True)
            case exp.Alias():
                raise UnsupportedSQL("a name inside an expression is not supported: name whole outputs with AS")
            case exp.Star() if not isinstance(node.parent, exp.Count):
                raise UnsupportedSQL("* inside an expression is not supported: name the columns")
        return rebuilt(node, self.bind)

    def bind_outputs(self, projections: list[exp.Expr]) -> None:
        """Bind the SELECT list, stars expanded, into the flat SELECT."""
        for projection in projections:
            if isinstance(projection, exp.Star):
                for relation in self._relations:
                    self._flat.outputs += [c for c in relation.columns if fold(c[0]) not in relation.hidden]
            elif isinstance(projection, exp.Column) and isinstance(projection.this, exp.Star):
                self._flat.outputs += self._relation(projection.table).columns
            else:
                inner = projection.this if isinstance(projection, exp.Alias) else projection
                bound = self.bind(inner)
                name = projection.alias if isinstance(projection, exp.Alias) else inner.name
                self._flat.outputs.append((name, bound))
                if isinstance(projection, exp.Alias):
                    self._aliases.setdefault(fold(name), bound)
        if not self._flat.outputs:
            raise InvalidInput("the question selects nothing: name columns after SELECT")

    def group(self, select: exp.Select) -> list[exp.Expr] | None:
        """The grouping keys, positions and aliases resolved; None without GROUP BY."""
        group = select.args.get("group")
        if group is None:
            return None
        if group.args.get("all"):
            return [e for _, e in self._flat.outputs if not has_aggregate(e) and e.find(exp.Column)]
        keys = []
        for key in group.expressions:
            position = _position(key)
            bound = self._output_at(position, "GROUP BY") if position is not None else self.bind(key)
            if has_aggregate(bound):
                raise InvalidInput(f"GROUP BY {expressions.readable(key)} is an aggregate: group by columns")
            if bound.find(exp.Column) is None:
                raise InvalidInput(f"GROUP BY {expressions.readable(key)} is a constant: leave it out")
            keys.append(bound)
        return keys

    def order(self, select: exp.Select) -> list[exp.Ordered]:
        """ORDER BY, positions and aliases resolved."""
        found = []
        order = select.args.get("order")
        for ordered in order.expressions if order is not None else ():
            key = ordered.this
            position = _position(key)
            if isinstance(key, exp.Var):  # ALL: by every output
                found += [_ordered(output, ordered) for _, output in self._flat.outputs]
                continue
            if position is not None:
                bound = self._output_at(position, "ORDER BY")
            elif isinstance(key, exp.Column) and not key.table and fold(key.name) in self._aliases:
                bound = self._aliases[fold(key.name)]
            elif isinstance(key, exp.Literal):
                raise InvalidInput("ORDER BY a constant orders nothing: name a column or a position")
            else:
                bound = self.bind(key)
            found.append(_ordered(bound, ordered))
        return found

    def _output_at(self, position: int, clause: str) -> exp.Expr:
        if not 1 <= position <= len(self._flat.outputs):
            raise InvalidInput(f"{clause} {position}: the question has {len(self._flat.outputs)} outputs")
        return self._flat.outputs[position - 1][1]

    def _relation(self, name: str) -> _Relation:
        for relation in self._relations:
            if relation.name == fold(name):
                return relation
        raise InvalidInput(f"no table {name!r} in FROM; {meant(name, [r.name for r in self._relations])}")

    def _column(self, column: exp.Column) -> exp.Expr:
        if isinstance(column.this, exp.Star):
            raise UnsupportedSQL("* inside an expression is not supported: name the columns")
        wanted = fold(column.name)
        if column.table:
            relation = self._relation(column.table)
            for name, meaning in relation.columns:
                if fold(name) == wanted:
                    return meaning.copy()
            raise InvalidInput(f"{column.table} has no column {column.name!r}{self._nearest(column.name, [relation])}")
        found = [
            meaning
            for relation in self._relations
            for name, meaning in relation.columns
            if fold(name) == wanted and fold(name) not in relation.hidden
        ]
        if len(found) > 1:
            tables = [r.name for r in self._relations if any(fold(n) == wanted for n, _ in r.columns)]
            raise InvalidInput(
                f"column {column.name!r} is ambiguous: write {' or '.join(f'{t}.{column.name}' for t in tables)}"
            )
        if found:
            return found[0].copy()
        if wanted in self._aliases:
            alias = self._aliases[wanted]
            return alias.copy() if isinstance(alias, exp.Column | exp.Literal) else exp.paren(alias.copy())
        raise InvalidInput(f"no column {column.name!r}{self._nearest(column.name, self._relations)}")

    def _nearest(self, name: str, relations: list[_Relation]) -> str:
        return "; " + meant(name, sorted({n for relation in relations for n, _ in relation.columns}))


def _named_select(item: exp.Expr, env: Env) -> tuple[str, exp.Select | None]:
    if isinstance(item, exp.Subquery):
        if not isinstance(item.this, exp.Select):
            raise UnsupportedSQL("a subquery in FROM must be one SELECT")
        return item.alias or "subquery", item.this
    if isinstance(item, exp.Table) and isinstance(item.this, exp.Identifier) and not item.args.get("db"):
        body = env.get(fold(item.name))
        if body is not None:
            return item.alias or item.name, body
    return item.alias_or_name, None


def _inner_env(item: exp.Expr, env: Env) -> Env:
    """The names that a subquery sees: for a WITH name, only the names before it."""
    if isinstance(item, exp.Subquery):
        return env
    names = list(env)
    return {name: env[name] for name in names[: names.index(fold(item.name))]}


def _mergeable(inner: Flat, join: exp.Join | None) -> bool:
    """True if a plain subquery's tables can stand in the outer FROM with the same meaning."""
    if join is None:
        return True
    if _side(join) == "LEFT":
        return len(inner.sources) == 1 and all(isinstance(e, exp.Column) for _, e in inner.outputs)
    return all(source.side != "LEFT" for source in inner.sources)


def _joined(sources: list[Source], side: str, on: exp.Expr) -> list[Source]:
    """The tables of a FROM item as they join those before; the last, which has all in sight, takes the condition."""
    *first, last = sources
    inner = [replace(source, side="INNER", on=source.on or exp.true()) for source in first]
    return [*inner, replace(last, side=side, on=all_of([on, *_maybe(last.on)]))]


def _side(join: exp.Join | None) -> str:
    if join is None:
        return ""
    side, kind, method = ((join.args.get(name) or "").upper() for name in ("side", "kind", "method"))
    if method or kind in ("SEMI", "ANTI"):
        raise UnsupportedSQL(f"{method or kind} JOIN is not supported: write INNER JOIN … ON …")
    if side in ("RIGHT", "FULL") or kind == "CROSS":
        raise UnsupportedSQL(f"{side or kind} JOIN is not supported: write INNER JOIN … ON … or LEFT JOIN … ON …")
    if not side and not kind and join.args.get("on") is None and not join.args.get("using"):
        raise UnsupportedSQL("a comma between tables is not supported: write INNER JOIN … ON …")
    return side or "INNER"


def _distinct(select: exp.Select) -> bool:
    distinct = select.args.get("distinct")
    if distinct is not None and distinct.args.get("on"):
        raise UnsupportedSQL("DISTINCT ON is not supported: write GROUP BY")
    return distinct is not None


def _number(node: exp.Expr | None, clause: str) -> int | None:
    if node is None:
        return None
    value = node.args["expression"]
    if (
        not isinstance(value, exp.Literal)
        or value.is_string
        or not value.name.isdecimal()
        or int(value.name) >= 1 << 62
    ):
        raise UnsupportedSQL(f"{clause} needs a whole number: write {clause} 10")
    return int(value.name)


def _ordered(node: exp.Expr, like: exp.Ordered) -> exp.Ordered:
    return exp.Ordered(this=node.copy(), desc=like.args.get("desc"), nulls_first=like.args.get("nulls_first"))


def _position(node: exp.Expr) -> int | None:
    if isinstance(node, exp.Literal) and not node.is_string and node.name.isdecimal():
        return int(node.name)
    return None


def _no_aggregate(node: exp.Expr, clause: str, mend: str) -> None:
    found = node.find(*expressions.AGGREGATES)
    if found is not None:
        raise InvalidInput(f"{clause} holds the aggregate {expressions.readable(found)}: {mend}")


def _conjuncts(node: exp.Expr) -> list[exp.Expr]:
    return [*node.flatten()] if isinstance(node, exp.And) else [node]


def _maybe(node: exp.Expr | None) -> list[exp.Expr]:
    return [] if node is None else [node]
