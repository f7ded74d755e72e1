# SPDX-License-Identifier: Apache-2.0
"""The use that a fragment makes of each column it reads, found in its SQL anew: no label is believed.

A fragment has one of three shapes, and is turned away if it has none:

    groups   SELECT key AS k0, …, units AS units, partial aggregate AS m0, … FROM … WHERE … GROUP BY 1, …
    rows     SELECT expression AS name, … FROM … WHERE … [ORDER BY positions] [LIMIT n]
    any      any SELECT on the list; every column of every table it reads then needs `rows`

In the first two every table is `"name" AS "t0"`, every column `"t0"."column"`, every join INNER or LEFT with ON, and
no alias could be taken for another, so that each column's place is plain. In the third, `scopes.py` finds where each
name leads. Every output has an alias, which is the column's name in what comes out. The place gives the need:

    grouping key                                           group
    a condition (WHERE, ON, FILTER) against constants or open columns      filter
    a condition that compares two private columns          group, on both
    in count, sum; in min, max                             aggregate; extremes; and more where a function bends it, as
                                                           `uses.py` says
    tested for NULL in a FILTER                            aggregate
    an output of a rows fragment                           rows
    a condition (ON, WHERE, FILTER) that ties a private column to an open table whose values are grouping keys,
    in an aggregate, extremes or outputs of rows           group, group, extremes or rows, as if it stood there itself

Counting rows and units needs no column. `filter` on a column lets an asker test it against as many constants as it
has questions; that is what the owner allows with it. A walk at the end faults every column for which nothing of this
accounts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from sqlglot import exp

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput, PeerFault
from junto.plan import expressions, scopes
from junto.plan.operands import call_of
from junto.plan.spreads import is_spread
from junto.plan.steps import Combine, Encoding, Measure, Query
from junto.plan.texts import Texts
from junto.plan.uses import check_scale, uses
from junto.trust.allow import EVERY_COLUMN, Allow
from junto.trust.rules import Need
from junto.types import PartyId


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a fragment may read under one name: a dataset of its party, or an earlier step's output (None)."""

    columns: tuple[str, ...]
    dataset: Dataset | None = None

    @property
    def open(self) -> frozenset[str]:
        """The columns that may be compared with private ones: everybody may see them, or they came from elsewhere."""
        return frozenset(self.columns) if self.dataset is None else open_columns(self.dataset)


@dataclass(frozen=True, slots=True)
class Reading:
    """A fragment as its SQL says it is."""

    needs: tuple[Need, ...]
    used: Mapping[str, tuple[str, ...]]  # columns read, by table name, sorted
    columns: tuple[str, ...]  # of its output, in order


def open_columns(dataset: Dataset) -> frozenset[str]:
    """The columns of a dataset that its rules open to everybody."""
    opened = [rule for rule in dataset.rules if rule.allow == "open"]
    return frozenset(c.name for c in dataset.columns if any(rule.speaks_of(c.name) for rule in opened))


def is_open(dataset: Dataset) -> bool:
    """True if every column of a dataset is open."""
    return len(open_columns(dataset)) == len(dataset.columns)


def read(query: Query, tables: Mapping[str, Table], texts: Texts | None = None) -> Reading:
    """The fragment's needs of its party's datasets, and the tables it reads. Raises PeerFault if it is malformed.

    tables: the table behind each name in `query.reads`, with its columns. texts: those of its plan.
    """
    where = f"step {query.id}"
    tree = _tree(query, where, texts or Texts())
    reader = _Reader(query.party, where, tables)
    if query.keys is not None:
        reader.groups(tree, query)
    elif _is_flat(tree):
        reader.rows(tree, query)
    else:
        reader.any_select(tree)
    return reader.reading(tree)


def same_question(one: Query, other: Query, texts: Texts) -> bool:
    """True if two grouped fragments ask the same of their tables, leaving aside how units are counted."""
    if (one.keys, one.key_types, one.measures) != (other.keys, other.key_types, other.measures):
        return False
    if sorted(r.name for r in one.reads) != sorted(r.name for r in other.reads):
        return False
    if one.sql == other.sql:
        return True
    trees = [_tree(query, f"step {query.id}", texts).copy() for query in (one, other)]
    for tree in trees:
        for projection in tree.expressions:
            if projection.alias == "units":
                projection.set("this", exp.Null())
    return bool(trees[0] == trees[1])


def _tree(query: Query, where: str, texts: Texts) -> exp.Select:
    try:
        canonical = texts.canonical(query.sql, expressions.FRAGMENT_FUNCTIONS)
    except InvalidInput as error:
        raise PeerFault(f"{where}: the fragment is not SQL that Junto runs: {error}") from error
    if not canonical:
        raise PeerFault(f"{where}: the fragment is not in its one canonical spelling")
    return texts.tree(query.sql)


def _is_flat(tree: exp.Select) -> bool:
    return (
        all(projection.alias for projection in tree.expressions)
        and not any(tree.args.get(clause) for clause in ("group", "having", "distinct", "offset", "with_"))
        and not any(True for _ in tree.find_all(*expressions.AGGREGATES, exp.Star))
        and _subqueries_are_lists(tree)
    )


def _subqueries_are_lists(tree: exp.Select) -> bool:
    return all(select is tree or _list_column(select) is not None for select in tree.find_all(exp.Select))


def _list_column(select: exp.Select) -> tuple[exp.Column, exp.Table] | None:
    """The column and table of `x IN (SELECT "s"."column" FROM "name" AS "s")`; None if it is anything else."""
    holder = select.parent
    source = select.args.get("from_")
    if not isinstance(holder, exp.Subquery) or not isinstance(holder.parent, exp.In) or holder.args.get("alias"):
        return None
    if {k for k, v in select.args.items() if v} != {"expressions", "from_"} or len(select.expressions) != 1:
        return None
    column, table = select.expressions[0], source.this if source is not None else None
    if not isinstance(column, exp.Column) or not isinstance(table, exp.Table) or column.table != table.alias:
        return None
    return column, table


@dataclass(slots=True)
class _Condition:
    """One comparison: the private columns and the open tables that it ties together."""

    private: frozenset[tuple[str, str]]
    open_tables: frozenset[str]
    clause: str


@dataclass(slots=True)
class _Reader:
    """Walks one fragment. Aliases lead to tables; needs and columns used pile up."""

    party: PartyId
    where: str
    tables: Mapping[str, Table]
    aliases: dict[str, str] = field(default_factory=dict)
    needs: dict[Need, None] = field(default_factory=dict)
    used: dict[str, set[str]] = field(default_factory=dict)
    ties: list[_Condition] = field(default_factory=list)  # of ON and WHERE
    accounted: set[int] = field(default_factory=set)  # by `id`, the nodes of columns that were looked at

    def reading(self, tree: exp.Select) -> Reading:
        """The needs and columns found. A column that must be a key or shown needs no `filter` besides."""
        shown = {(need.dataset, need.column) for need in self.needs if need.allow in ("group", "rows")}
        return Reading(
            needs=tuple(n for n in self.needs if n.allow != "filter" or (n.dataset, n.column) not in shown),
            used={name: tuple(sorted(columns)) for name, columns in self.used.items()},
            columns=tuple(projection.alias for projection in tree.expressions),
        )

    def _all_accounted(self, tree: exp.Select) -> None:
        """Raises PeerFault if a column was passed over: each has a need, counts units, or is of what everybody sees."""
        for column in tree.find_all(exp.Column):
            if id(column) not in self.accounted:
                self._fault(f"its column {column.name[:60]!r} stands where nothing accounts for it")

    def groups(self, tree: exp.Select, query: Query) -> None:
        """Read a fragment that groups."""
        keys = query.keys or ()
        self._allow_clauses(tree, ("expressions", "from_", "joins", "where", "group"))
        names = tuple(p.alias for p in tree.expressions)
        wanted = (*(f"k{i}" for i in range(len(keys))), "units", *(f"m{i}" for i in range(len(query.measures))))
        if names != wanted or keys != wanted[: len(keys)] or len(query.key_types) != len(keys):
            self._fault(f"its columns are {', '.join(names)[:100]}; its keys and measures call for {', '.join(wanted)}")
        if tuple(m.name for m in query.measures) != wanted[len(keys) + 1 :]:
            self._fault("its measures are not named m0, m1, … in order")
        self._check_grouping(tree, len(keys))
        self._sources(tree)
        self._where(tree)
        outputs = [projection.this for projection in tree.expressions]
        for key in outputs[: len(keys)]:
            self._no_aggregate(key, "a key")
            self._walk(key, "group", f"GROUP BY {expressions.readable(key)}")
        for output, label in zip(outputs[len(keys) + 1 :], query.measures, strict=True):
            self._measure(output, label)
        self._tied(outputs[: len(keys)], "group", self.ties)
        self._all_joined(tree)
        self._units(outputs[len(keys)])
        self._number_of_rows(outputs)
        self._all_accounted(tree)

    def rows(self, tree: exp.Select, query: Query) -> None:
        """Read a fragment whose rows are its output."""
        self._allow_clauses(tree, ("expressions", "from_", "joins", "where", "order", "limit"))
        self._sources(tree)
        self._where(tree)
        for projection in tree.expressions:
            self._walk(projection.this, "rows", f"SELECT {expressions.readable(projection.this)}")
        self._tied([projection.this for projection in tree.expressions], "rows", self.ties)
        order = tree.args.get("order")
        for ordered in order.expressions if order else ():
            if not _is_position(ordered.this, len(tree.expressions)):
                self._fault("ORDER BY in a fragment goes by the position of an output")
        _check_limit(tree, self._fault)
        shown = {need.dataset for need in self.needs if need.allow == "rows"}
        for name in dict.fromkeys(self.aliases.values()):
            dataset = self.tables[name].dataset
            if dataset is not None and dataset.name not in shown and not is_open(dataset):
                self._need(name, EVERY_COLUMN, "rows", "the number of rows")
        self._all_accounted(tree)

    def any_select(self, tree: exp.Select) -> None:
        """Read a fragment of any other shape: it may show every column of what it reads."""
        if not all(isinstance(projection, exp.Alias) for projection in tree.expressions):
            self._fault("an output has no name: each has an alias")
        columns = {name: table.columns for name, table in self.tables.items()}
        for name in sorted(scopes.tables_read(tree, columns, self._fault)):
            self.used[name] = set(self._table(name).columns)
            for column in self._table(name).columns:
                self._need(name, column, "rows", "a SELECT over the whole table")

    def _allow_clauses(self, tree: exp.Select, clauses: Sequence[str]) -> None:
        for clause, value in tree.args.items():
            if value and clause not in clauses:
                self._fault(f"it holds {clause.strip('_').upper()}, which a fragment of this kind has not")
        if not _subqueries_are_lists(tree):
            self._fault("it holds a subquery")

    def _check_grouping(self, tree: exp.Select, keys: int) -> None:
        group = tree.args.get("group")
        positions = (
            [g.this if isinstance(g, exp.Literal) and not g.is_string else "" for g in group.expressions]
            if group
            else []
        )
        if positions != [str(i + 1) for i in range(keys)] or (group is not None and group.args.get("all")):
            self._fault("it does not group by exactly its keys")

    def _sources(self, tree: exp.Select) -> None:
        source = tree.args.get("from_")
        if source is None:
            self._fault("it reads no table")
        self._source(source.this)
        joins = tree.args.get("joins") or []
        for join in joins:
            side, kind = (join.args.get("side") or "").upper(), (join.args.get("kind") or "").upper()
            if (side, kind) not in (("", "INNER"), ("LEFT", "")) or join.args.get("using") or join.args.get("method"):
                self._fault(
                    f"it joins with {f'{side} {kind}'.strip() or 'a comma'}; a fragment joins INNER or LEFT, with ON"
                )
            if join.args.get("on") is None:
                self._fault("it joins without ON")
            self._source(join.this)
        if not scopes.distinct(self.aliases):
            self._fault("two of its tables have one alias")
        for join in joins:
            self._no_aggregate(join.args["on"], "ON")
            self.ties += self._condition(join.args["on"], "ON")

    def _source(self, table: exp.Expr) -> None:
        if not isinstance(table, exp.Table):
            self._fault("it reads something that is not a table")
        self._plain_table(table)
        self._table(table.name)
        if not table.alias or table.alias in self.aliases or table.args["alias"].args.get("columns"):
            self._fault(f"its table {table.name} has no alias of its own")
        self.aliases[table.alias] = table.name

    def _plain_table(self, table: exp.Table) -> None:
        if not isinstance(table.this, exp.Identifier) or table.args.get("db") or table.args.get("catalog"):
            self._fault("it reads a table by a path or a function")

    def _table(self, name: str) -> Table:
        if name not in self.tables:
            self._fault(f"it reads {name[:60]!r}, which is not among the tables it says it reads")
        self.used.setdefault(name, set())
        return self.tables[name]

    def _where(self, tree: exp.Select) -> None:
        where = tree.args.get("where")
        if where is not None:
            self._no_aggregate(where, "WHERE")
            self.ties += self._condition(where.this, "WHERE")

    def _measure(self, output: exp.Expr, label: Measure) -> None:
        combine, encoding, scale, call = _measure_shape(output, self._fault)
        if (combine, encoding, scale) != (label.combine, label.encoding, label.scale):
            self._fault(
                f"measure {label.name} is labelled {label.combine} {label.encoding}; its SQL is {combine} {encoding}"
            )
        check_scale(label, self._fault)
        clause = expressions.readable(call)
        ties = list(self.ties)
        shown: list[exp.Expr] = []
        if isinstance(call, exp.Filter):
            self._no_aggregate(call.expression, "FILTER")
            ties += self._filter(call.expression.this, clause)
            shown.append(call.expression.this)
            call = call.this
        operand = call.expressions[0] if isinstance(call, exp.Anonymous) else call.this
        if isinstance(operand, exp.Star | exp.Distinct):
            if not isinstance(call, exp.Count):
                self._fault(f"measure {label.name} is of * or of distinct values, which COUNT alone is")
            if isinstance(operand, exp.Distinct):
                self._unit_column(operand)
        else:
            self._no_aggregate(operand, "an aggregate")
            for use in uses(call_of(output), label, self, self._fault):
                self._column(use.column)
                self._account(use.column, use.allow, clause)
            shown.append(operand)
        self._tied(shown, "extremes" if combine != "sum" else "group", ties)

    def _filter(self, node: exp.Expr, clause: str) -> list[_Condition]:
        """The conditions of a FILTER. A count tells whether a column has a value."""
        found: list[_Condition] = []
        for part in node.flatten() if isinstance(node, exp.And) else [node]:
            column = _tested_for_null(part)
            if column is None or not self.is_private(column):
                found += self._condition(part, clause, whole=True)
            else:
                self._column(column)
                self._account(column, "aggregate", clause)
        return found

    def _all_joined(self, tree: exp.Select) -> None:
        """Raises PeerFault if rows of a table that others see pair with all private ones, and its columns are used.

        A condition in FILTER alone would then tie them, each figure to another row of that table.
        """
        private = {alias for alias, name in self.aliases.items() if self._private_dataset(name) is not None}
        reached = set(private)
        while True:
            tables = [{*(alias for alias, _ in tie.private), *tie.open_tables} for tie in self.ties]
            more = {alias for found in tables if found & reached for alias in found} - reached
            if not more:
                break
            reached |= more
        for column in tree.find_all(exp.Column) if private else ():
            if column.table in self.aliases and column.table not in reached:
                self._fault(
                    f"it joins {self.aliases[column.table]} with a private table ON TRUE and uses its"
                    f" {column.name[:60]!r}: join it on a column"
                )

    def _units(self, output: exp.Expr) -> None:
        """Refuse the fragment unless `units` counts the privacy units of every private table, and nothing else."""
        private = {a for a, name in self.aliases.items() if self._private_dataset(name) is not None}
        if isinstance(output, exp.Count) and isinstance(output.this, exp.Star):
            for alias in private:
                dataset = self.tables[self.aliases[alias]].dataset
                if dataset is None or len(self.aliases) > 1 or not (dataset.unit is None or dataset.unit_unique):
                    self._fault(f"units counts rows; {self.aliases[alias]} needs its units counted")
            return
        counts = [output.this, *output.expressions] if isinstance(output, exp.Least) else [output]
        counted: set[str] = set()
        for count in counts:
            if not isinstance(count, exp.Count) or not isinstance(count.this, exp.Distinct):
                self._fault("units counts something else than units")
            counted.add(self._unit_column(count.this))
        missing = sorted(self.aliases[alias] for alias in private - counted)
        if missing:
            self._fault(f"units leaves out the units of {missing[0]}")

    def _unit_column(self, distinct: exp.Distinct) -> str:
        column = distinct.expressions[0] if len(distinct.expressions) == 1 else None
        if not isinstance(column, exp.Column) or column.table not in self.aliases:
            self._fault("it counts distinct values of something that is no unit")
        name = self.aliases[column.table]
        dataset = self._table(name).dataset
        if dataset is None or dataset.unit != column.name:
            self._fault(f"it counts distinct {column.name[:60]} of {name}, which is not its unit")
        self.used[name].add(column.name)
        self.accounted.add(id(column))
        return str(column.table)

    def _number_of_rows(self, outputs: Sequence[exp.Expr]) -> None:
        spoken = {need.dataset for need in self.needs}
        counts_rows = any(isinstance(c.this, exp.Star | exp.Distinct) for o in outputs for c in o.find_all(exp.Count))
        for name in dict.fromkeys(self.aliases.values()):
            dataset = self._private_dataset(name)
            if dataset is not None and dataset.name not in spoken and counts_rows:
                self._need(name, EVERY_COLUMN, "aggregate", "COUNT(*)")

    def _tied(self, shown: Sequence[exp.Expr], place: Allow, ties: Sequence[_Condition]) -> None:
        """Values of an open table show what ties its rows to ours: those columns are in the same place."""
        tables = {c.table for node in shown for c in self._columns(node) if not self.is_private(c)}
        grown = True
        while grown:
            tied = {t for c in ties if c.open_tables & tables for t in c.open_tables}
            grown = not tied <= tables
            tables |= tied
        for condition in ties:
            if condition.private and condition.open_tables & tables:
                for alias, column in sorted(condition.private):
                    self._need(self.aliases[alias], column, place, condition.clause)

    def _walk(self, node: exp.Expr, place: Allow, clause: str) -> None:
        """Note what a key or an output needs: every part of it shows in its value."""
        for column in self._columns(node):
            self._account(column, place, clause)

    def _condition(self, node: exp.Expr, clause: str, *, whole: bool = False) -> list[_Condition]:
        """Note what a condition needs, comparison by comparison. `whole`: the clause is told unchanged."""
        found = []
        for atom in _atoms(node):
            names = self._table_names(list(self._columns(atom)))
            told = clause if whole else f"{clause} {expressions.readable(atom, names)}"
            found.append(self._comparison((atom,), told))
        return found

    def _comparison(self, parts: Sequence[exp.Expr], clause: str) -> _Condition:
        """Note what is needed where some expressions are compared with each other."""
        columns = [column for part in parts for column in self._columns(part)]
        private = frozenset((c.table, c.name) for c in columns if self.is_private(c))
        for column in sorted(columns, key=lambda c: (c.table, c.name)):
            self._account(column, "filter" if len(private) == 1 else "group", clause)
        return _Condition(private, frozenset(c.table for c in columns if not self.is_private(c)), clause)

    def _table_names(self, columns: Sequence[exp.Column]) -> Mapping[str, str]:
        """The names by which a message tells columns of several tables apart; nothing if all are of one table."""
        return self.aliases if len({c.table for c in columns}) > 1 else {}

    def _columns(self, node: exp.Expr) -> Iterator[exp.Column]:
        """The columns in an expression; those of an IN list are noted as read and passed over."""
        listed: set[int] = set()
        for select in node.find_all(exp.Select):
            found = _list_column(select)
            if found is None:
                self._fault("it holds a subquery")
            column, table = found
            self._plain_table(table)
            if self._table(table.name).dataset is not None:
                self._fault(f"its IN list reads {table.name}, which is not an open list")
            if not scopes.distinct((table.alias, *self.aliases)):
                self._fault(f"its IN list gives {table.name} an alias that a table outside of it has")
            self._has_column(table.name, column.name)
            listed.add(id(column))
            self.accounted.add(id(column))
        for column in node.find_all(exp.Column):
            if id(column) not in listed:
                self._column(column)
                yield column

    def _account(self, column: exp.Column, allow: Allow | None, clause: str) -> None:
        """Note what a place needs of a column that stands in it."""
        self.accounted.add(id(column))
        if allow is not None and self.is_private(column):
            self._need(self.aliases[column.table], column.name, allow, clause)

    def _column(self, column: exp.Column) -> None:
        if column.table not in self.aliases:
            self._fault(f"its column {column.name[:60]} is of no table that it reads")
        self._has_column(self.aliases[column.table], column.name)

    def _has_column(self, table: str, column: str) -> None:
        if column not in self._table(table).columns:
            self._fault(f"{table} has no column {column[:60]!r}")
        self.used[table].add(column)

    def type_of(self, column: exp.Column) -> str:
        """DuckDB's type of a column of a dataset; empty for one of an earlier step."""
        dataset = self.tables[self.aliases[column.table]].dataset if column.table in self.aliases else None
        return next((c.type for c in dataset.columns if c.name == column.name), "") if dataset is not None else ""

    def is_private(self, column: exp.Column) -> bool:
        """True if a rule must let a column out."""
        if column.table not in self.aliases:
            self._fault(f"its column {column.name[:60]} is of no table that it reads")
        table = self.tables[self.aliases[column.table]]
        return table.dataset is not None and column.name not in table.open

    def _private_dataset(self, name: str) -> Dataset | None:
        dataset = self.tables[name].dataset
        return None if dataset is None or is_open(dataset) else dataset

    def _need(self, table: str, column: str, allow: Allow, clause: str) -> None:
        dataset = self.tables[table].dataset
        if dataset is not None:
            self.needs.setdefault(Need(self.party, dataset.name, column, allow, clause))

    def _no_aggregate(self, node: exp.Expr, place: str) -> None:
        for found in node.find_all(*expressions.AGGREGATES, exp.Filter):
            self._fault(f"it holds {expressions.name_of(found)} inside {place}")
        for call in node.find_all(exp.Anonymous):
            if str(call.this).lower() in expressions.FRAGMENT_FUNCTIONS:
                self._fault(f"it holds {str(call.this).lower()}() inside {place}")

    def _fault(self, message: str) -> NoReturn:
        raise PeerFault(f"{self.where}: the fragment is not what it says: {message}")


def _atoms(node: exp.Expr) -> Iterator[exp.Expr]:
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, exp.And | exp.Or):
            stack += [top.expression, top.this]
        elif isinstance(top, exp.Not | exp.Paren) or _is_truth_test(top):
            stack.append(top.this)
        else:
            yield top


def _is_truth_test(node: exp.Expr) -> bool:
    """True if a node is `(condition) IS TRUE`, which in itself compares nothing."""
    return isinstance(node, exp.Is) and isinstance(node.expression, exp.Boolean)


def _tested_for_null(node: exp.Expr) -> exp.Column | None:
    """The column of `x IS NULL` or `NOT x IS NULL`."""
    inner = node
    while isinstance(inner, exp.Not | exp.Paren) or _is_truth_test(inner):
        inner = inner.this
    tested = inner.this if isinstance(inner, exp.Is) and isinstance(inner.expression, exp.Null) else None
    return tested if isinstance(tested, exp.Column) else None


def _measure_shape(output: exp.Expr, fault: Callable[[str], NoReturn]) -> tuple[Combine, Encoding, int, exp.Expr]:
    """A measure's combining and encoding, read from its SQL, and the aggregate in it (perhaps with its FILTER)."""
    inner = output
    scale: int | None = None
    if isinstance(inner, exp.Cast):
        kind = inner.to
        params = [p.name for p in kind.expressions]
        if kind.this != exp.DataType.Type.DECIMAL or len(params) != 2 or params[0] != "38" or not params[1].isdecimal():
            fault("a sum is cast to DECIMAL(38, scale)")
        scale, inner = int(params[1]), inner.this
    zeroed = isinstance(inner, exp.Coalesce)
    if isinstance(inner, exp.Coalesce):
        if [e.sql() for e in inner.expressions] != ["0"]:
            fault("a sum of nothing is 0")
        inner = inner.this
    call = inner.this if isinstance(inner, exp.Filter) else inner
    match call:
        case exp.Count() if not zeroed and scale is None:
            return "sum", "count", 0, inner
        case exp.Sum() if zeroed and scale is not None:
            return "sum", "integer", scale, inner
        case exp.Anonymous() if zeroed and scale is None and len(call.expressions) == 1 and is_spread(call):
            return "sum", "spread", 0, inner
        case exp.Anonymous() if (
            zeroed and scale is None and str(call.this).lower() == "fsum" and len(call.expressions) == 1
        ):
            return "sum", "real", 0, inner
        case exp.Min() if not zeroed and scale is None:
            return "min", "value", 0, inner
        case exp.Max() if not zeroed and scale is None:
            return "max", "value", 0, inner
        case _:
            return fault("a measure is COUNT, SUM, FSUM, FSPREAD, MIN or MAX, in its canonical spelling")


def _is_position(node: exp.Expr, columns: int) -> bool:
    return (
        isinstance(node, exp.Literal)
        and not node.is_string
        and node.name.isdecimal()
        and 1 <= int(node.name) <= columns
    )


def _check_limit(tree: exp.Select, fault: Callable[[str], NoReturn]) -> None:
    limit = tree.args.get("limit")
    if limit is not None and not (isinstance(limit.expression, exp.Literal) and limit.expression.name.isdecimal()):
        fault("LIMIT is a number")
