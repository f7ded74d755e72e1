# SPDX-License-Identifier: Apache-2.0
"""Builds the Query steps of a plan: the SQL each party runs, what it reads, and the open tables brought to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from junto.catalog.dataset import Column, Dataset
from junto.errors import InvalidInput
from junto.frontends.sql.flat import Derived, Flat, Source, all_of, bound_column, read_name, table_node
from junto.frontends.sql.names import Named
from junto.frontends.sql.typing import Describer
from junto.plan import expressions, fragment
from junto.plan.fragment import Reading, Table
from junto.plan.steps import AnyStep, Measure, Move, Query, Read
from junto.plan.texts import Texts
from junto.types import PartyId, StepId

Tables = Mapping[str, Named | Derived]
"""The table behind each name that fragments read."""


@dataclass(frozen=True)
class Labels:
    """A fragment's labels for its output: keys and measures, or the columns of its rows."""

    keys: tuple[Column, ...] | None = None
    measures: tuple[Measure, ...] = ()
    rows: tuple[Column, ...] = ()


@dataclass
class Fragments:
    """The queries of one plan, over the same tables, run at several hosts."""

    tables: Tables
    hosts: tuple[PartyId, ...]
    describer: Describer
    steps: list[AnyStep] = field(default_factory=list)  # what brings open tables to the hosts
    readings: dict[StepId, Reading] = field(default_factory=dict)
    texts: Texts = field(default_factory=Texts)  # owners' fragments mostly have the same one
    _queries: dict[str, StepId] = field(default_factory=dict)
    _moves: dict[str, StepId] = field(default_factory=dict)

    def query(self, id: str, party: PartyId, sql: str, labels: Labels) -> Query:
        """One fragment at a host, labelled by what is read in its SQL; the open tables it reads are brought there."""
        first = _query(StepId(id), party, sql, (), labels)
        drafted = fragment.read(first, {name: self._table(name, party) for name in self.tables}, self.texts)
        reads = tuple(self._read(name, party, drafted) for name in sorted(drafted.used))
        self.readings[first.id] = drafted
        return _query(first.id, party, sql, reads, labels)

    def dataset(self, name: str, party: PartyId) -> Dataset | None:
        """The party's own dataset under a name, if it holds one."""
        table = self.tables[name]
        return None if isinstance(table, Derived) else table.at(party)

    def _table(self, name: str, party: PartyId) -> Table:
        return Table(columns_of(self.tables[name]), self.dataset(name, party))

    def _read(self, name: str, party: PartyId, reading: Reading) -> Read:
        dataset, columns = self.dataset(name, party), reading.used[name]
        if dataset is not None:
            return Read(name, dataset.name, dataset.version, None, columns)
        table = self.tables[name]
        owner = table.owner if isinstance(table, Derived) else table.owners[0]
        if name not in self._queries:
            self._bring(name, table, owner, columns)
        return Read(name, step=self._queries[name] if party == owner else self._moves[name], columns=columns)

    def _bring(self, name: str, table: Named | Derived, owner: PartyId, used: Sequence[str]) -> None:
        """Add the steps that bring an open table to the hosts."""
        number = len(self._queries)
        id = StepId(f"open-{number}")
        if isinstance(table, Derived):
            types = described(self.describer, f"derived {number}", table.select, table.tables)
            columns = tuple(Column(f"c{i}", c.type) for i, c in enumerate(types))
            source = Fragments(table.tables, (owner,), self.describer, texts=self.texts)
            query = source.query(id, owner, wrapped(table.select, len(columns)), Labels(rows=columns))
        else:
            columns = tuple(c for c in table.columns if c.name in used) or table.columns[:1]
            outputs = [exp.alias_(bound_column("t0", c.name), c.name, quoted=True) for c in columns]
            select = exp.Select(expressions=outputs, from_=exp.From(this=table_node(name, "t0")))
            source = Fragments({name: table}, (owner,), self.describer, texts=self.texts)
            query = source.query(id, owner, expressions.text_of(select), Labels(rows=columns))
        self._queries[name] = id
        self.steps.append(query)
        to = tuple(host for host in self.hosts if host != owner and self.dataset(name, host) is None)
        if to:
            self._moves[name] = StepId(f"copy-{number}")
            self.steps.append(Move(self._moves[name], id, owner, to, query.columns))


def read_names(flat: Flat) -> tuple[dict[str, str], dict[str, Named | Derived]]:
    """The name under which fragments read each source, by its alias; and what stands behind each name."""
    names: dict[str, str] = {}
    tables: dict[str, Named | Derived] = dict(flat.lists)
    for source in flat.sources:
        if isinstance(source.table, Derived):
            name = f"sub-{source.alias}"
        else:
            name = read_name(source.table, {n: t for n, t in tables.items() if isinstance(t, Named)})
        names[source.alias] = name
        tables[name] = source.table
    return names, tables


def columns_of(table: Named | Derived) -> tuple[str, ...]:
    """The columns of a table under which a fragment reads it."""
    if isinstance(table, Derived):
        return tuple(f"c{i}" for i in range(len(table.columns)))
    return tuple(column.name for column in table.columns)


def flat_select(
    flat: Flat,
    names: Mapping[str, str],
    outputs: Sequence[tuple[str, exp.Expr]],
    *,
    keys: int = 0,
    order: Sequence[exp.Ordered] = (),
    limit: int | None = None,
) -> exp.Select:
    """A flat fragment: its outputs under their names, over the sources and conditions of a question."""
    select = exp.Select(
        expressions=[exp.alias_(_plain(e), name, quoted=True) for name, e in outputs],
        from_=exp.From(this=_node(flat.sources[0], names)),
    )
    joins = []
    for source in flat.sources[1:]:
        side = {"side": "LEFT"} if source.side == "LEFT" else {"kind": "INNER"}
        joins.append(exp.Join(this=_node(source, names), on=source.on.copy() if source.on else exp.true(), **side))
    select.set("joins", joins or None)
    if flat.where:
        select.set("where", exp.Where(this=all_of([e.copy() for e in flat.where])))
    if keys:
        select.set("group", exp.Group(expressions=[exp.Literal.number(i + 1) for i in range(keys)]))
    if order:
        select.set("order", exp.Order(expressions=list(order)))
    if limit is not None:
        select.set("limit", exp.Limit(expression=exp.Literal.number(limit)))
    return select


def wrapped(select: exp.Select, columns: int) -> str:
    """The text of any SELECT, its outputs called c0, c1, … whatever it calls them."""
    names = [f"c{i}" for i in range(columns)]
    alias = exp.TableAlias(
        this=exp.to_identifier("a", quoted=True), columns=[exp.to_identifier(n, quoted=True) for n in names]
    )
    outer = exp.Select(
        expressions=[exp.alias_(bound_column("a", n), n, quoted=True) for n in names],
        from_=exp.From(this=exp.Subquery(this=select.copy(), alias=alias)),
    )
    return expressions.text_of(outer)


def described(describer: Describer, schema: str, select: exp.Expr, tables: Tables) -> tuple[Column, ...]:
    """Names and types of what a SELECT over `tables` gives."""
    declare(describer, schema, tables)
    return describer.describe(schema, select.sql(dialect="duckdb", comments=False))


def declare(describer: Describer, schema: str, tables: Tables) -> None:
    """Create empty tables under the names that fragments read them by."""
    for name, table in tables.items():
        if isinstance(table, Named):
            describer.add(schema, name, [(c.name, c.type) for c in table.columns])
        else:
            inner = described(describer, f"{schema} {name}", table.select, table.tables)
            describer.add(schema, name, [(f"c{i}", c.type) for i, c in enumerate(inner)])


def unit_count(owner: PartyId, mains: Sequence[Source], flat: Flat) -> exp.Expr:
    """The expression that counts the units behind a group at one owner. Raises InvalidInput if nothing can."""
    counts: list[exp.Expr] = []
    for source in mains:
        if not isinstance(source.table, Named):
            continue
        dataset = next(d for d in source.table.datasets if d.party == owner)
        if len(flat.sources) == 1 and (dataset.unit is None or dataset.unit_unique):
            return exp.Count(this=exp.Star(), big_int=True)
        if dataset.unit is not None:
            distinct = exp.Distinct(expressions=[bound_column(source.alias, dataset.unit)])
            counts.append(exp.Count(this=distinct, big_int=True))
        elif not fragment.is_open(dataset):
            raise InvalidInput(
                f"{dataset.name} of {owner} has no unit, and a join may repeat its rows, so nobody can say how many"
                f" stand behind a group: ask {owner} to publish it with unit = a column, or ask without the join"
            )
    if not counts:
        return exp.Count(this=exp.Star(), big_int=True)
    return counts[0] if len(counts) == 1 else exp.Least(this=counts[0], expressions=counts[1:], ignore_nulls=True)


def _query(id: StepId, party: PartyId, sql: str, reads: tuple[Read, ...], labels: Labels) -> Query:
    keys = labels.keys
    return Query(
        id,
        party,
        sql,
        reads,
        keys=None if keys is None else tuple(c.name for c in keys),
        key_types=tuple(c.type for c in keys or ()),
        measures=labels.measures,
        columns=tuple(c.name for c in labels.rows),
        column_types=tuple(c.type for c in labels.rows),
    )


def _node(source: Source, names: Mapping[str, str]) -> exp.Table:
    return table_node(names[source.alias], source.alias)


def _plain(node: exp.Expr) -> exp.Expr:
    copied = node.copy()
    return copied.unnest() if isinstance(copied, exp.Paren) else copied
