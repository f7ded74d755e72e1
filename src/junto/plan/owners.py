# SPDX-License-Identifier: Apache-2.0
"""The rows that a grouped fragment is about, and the owners whose rows it takes together.

Two answers about the same rows, of which one takes an owner in and the other leaves it out, differ by that owner's own
figures, whatever the threshold was. So an owner must see who is left out, and must recognise the same rows when they
are asked for again with others: `rows_of` is one digest for all fragments that read the same tables under the same
conditions, whatever they group by and measure, and however the conditions are ordered and the aliases named.
Conditions that only mean the same (`a > 2` and `a >= 3` of integers) have different digests.
"""

import hashlib
from collections.abc import Iterable, Iterator

import msgspec
from sqlglot import exp

from junto.catalog.dataset import Dataset
from junto.plan.fragment import is_open
from junto.plan.steps import AnyStep, Move, Plan, Query, Read, Release, Threshold
from junto.plan.texts import Texts
from junto.types import DatasetName, Digest, PartyId


def owners_together(plan: Plan, query: Query, read: Read) -> tuple[PartyId, ...]:
    """The parties whose rows of one table, read here under `read.name`, are released together, by name."""
    threshold = next((s for s in plan.steps if isinstance(s, Threshold) and query.id in s.inputs), None)
    if threshold is None or read.dataset is None:
        return (query.party,)
    release = plan.steps[-1]
    own = release.own if isinstance(release, Release) else None
    together = [plan.step(id) for id in (*threshold.inputs, *([own] if own is not None else []))]
    found = {
        other.party
        for other in together
        if isinstance(other, Query)
        for theirs in other.reads
        if theirs.name == read.name and theirs.dataset is not None and same_name(theirs.dataset, read.dataset)
    }
    return tuple(sorted(found))


def left_out(
    asker: PartyId, dataset: DatasetName, columns: Iterable[str], owners: Iterable[PartyId], known: Iterable[Dataset]
) -> tuple[PartyId, ...]:
    """The parties that publish the table too and are not among `owners`, by name.

    known: the datasets published. A dataset without one of `columns` could not be asked the same; an open one keeps
    nothing back; and the asker may leave its own rows out, since it knows them.
    """
    needed, there = {column.casefold() for column in columns}, set(owners)
    return tuple(
        sorted(
            other.party
            for other in known
            if same_name(other.name, dataset)
            and other.party != asker
            and other.party not in there
            and not is_open(other)
            and needed <= {column.name.casefold() for column in other.columns}
        )
    )


def rows_of(plan: Plan, query: Query, texts: Texts) -> Digest:
    """The digest of the tables and conditions of a grouped fragment."""
    tree = texts.tree(query.sql).copy()
    tables = list(_tables(tree))
    places = {table.alias_or_name: f"t{i}" for i, table in enumerate(tables)}
    for column in tree.find_all(exp.Column):
        if column.table in places:
            column.set("table", exp.to_identifier(places[column.table], quoted=True))
    conditions = {text for text in _conditions(tree) if text != "TRUE"}
    reads = {read.name: read for read in query.reads}
    joined = [join.side or "INNER" for join in tree.args.get("joins") or ()]
    said = (
        [_read_words(plan, reads.get(table.name)) for table in tables],
        joined,
        sorted(conditions),
    )
    return Digest("sha256:" + hashlib.sha256(msgspec.json.encode(said)).hexdigest())


def same_sources(plan: Plan, one: Query, other: Query, texts: Texts) -> bool:
    """True if two fragments of one question read the same tables under the same names.

    An open table is read as the same step gives it, or, by a party that holds it, as it was published.
    """
    theirs = {read.name: read for read in other.reads}
    return all(read.name in theirs and _same_source(plan, read, theirs[read.name], texts) for read in one.reads)


def _same_source(plan: Plan, one: Read, other: Read, texts: Texts) -> bool:
    if one.dataset is not None and other.dataset is not None:
        return same_name(one.dataset, other.dataset)
    if one.dataset is None and other.dataset is None:
        return _source(plan, one) == _source(plan, other)
    held, given = (one, other) if one.dataset is not None else (other, one)
    source = _source(plan, given)
    return (
        source is not None
        and len(source.reads) == 1
        and held.dataset is not None
        and same_name(source.reads[0].dataset or "", held.dataset)
        and _gives_all_rows(texts.tree(source.sql))
    )


def _gives_all_rows(tree: exp.Select) -> bool:
    """True if a fragment of rows gives columns of every row of its one table."""
    return {name for name, value in tree.args.items() if value} == {"expressions", "from_"} and all(
        isinstance(output.unalias(), exp.Column) for output in tree.expressions
    )


def same_name(one: str, other: str) -> bool:
    """True if SQL takes two names of tables for one."""
    return one.casefold() == other.casefold()


def _tables(tree: exp.Select) -> Iterator[exp.Table]:
    source = tree.args.get("from_")
    for holder in ([source] if source is not None else []) + list(tree.args.get("joins") or ()):
        if isinstance(holder.this, exp.Table):
            yield holder.this


def _conditions(tree: exp.Select) -> Iterator[str]:
    """Each condition that a row meets; those of an outer join with the place of the join."""
    where = tree.args.get("where")
    if where is not None:
        yield from _conjuncts(where.this, "")
    for place, join in enumerate(tree.args.get("joins") or ()):
        on = join.args.get("on")
        if on is not None:
            yield from _conjuncts(on, f"join {place}: " if join.side else "")


def _conjuncts(node: exp.Expr, place: str) -> Iterator[str]:
    if isinstance(node, exp.Paren):
        yield from _conjuncts(node.this, place)
    elif isinstance(node, exp.And):
        yield from _conjuncts(node.this, place)
        yield from _conjuncts(node.expression, place)
    else:
        text = node.sql(dialect="duckdb", comments=False)
        yield text if text == "TRUE" else place + text


def _read_words(plan: Plan, read: Read | None) -> str:
    """The table behind a read: the dataset's name, or the SQL of the step that gives the rows."""
    if read is None:
        return ""
    if read.dataset is not None:
        return f"dataset {read.dataset.casefold()}"
    source = _source(plan, read)
    return f"rows {source.sql}" if source is not None else ""


def _source(plan: Plan, read: Read) -> Query | None:
    """The fragment that gives the rows of a read, computed here or moved here."""
    source: AnyStep | None = plan.step(read.step) if read.step is not None else None
    if isinstance(source, Move):
        source = plan.step(source.input)
    return source if isinstance(source, Query) else None
