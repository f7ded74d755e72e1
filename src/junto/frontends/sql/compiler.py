# SPDX-License-Identifier: Apache-2.0
"""One SELECT → the plan that answers it.

Where the rows are decides the kind of plan:

    all of them open, or the asker's own, each table at one party    one Query, at who holds them, or at the asker
    one table of several parties (or several tables of one), grouped    Query at each, Threshold, MaskedSum, Release
    the same, row by row                                                Query and Move at each, Release
    a table of several parties that the asker may see whole             rows to the asker, which does the rest

Open tables that a fragment joins, and lists that it looks in, come to it by Query and Move; a party that holds one
itself reads its own. Open datasets of one name and the same content are one table, whose rows count once.

The answer is DuckDB's over the pooled rows, with these differences: groups under the threshold are left out (also the
one group of a question without GROUP BY); the same unit at two parties counts twice; sums, averages and deviations of
reals keep the error bound of their encoding; rows that ORDER BY leaves equal come in a fixed order.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
from sqlglot import exp

from junto.catalog.dataset import Column, Dataset
from junto.catalog.names import fold
from junto.errors import InvalidInput, PeerFault, UnsupportedSQL
from junto.frontends.sql.answer import (
    Gathering,
    ReleaseText,
    gathered_text,
    grouped_text,
    like,
    rows_text,
    spelled,
    with_ties,
)
from junto.frontends.sql.flat import Flat, Source, all_tables, has_aggregate, rename
from junto.frontends.sql.fragments import (
    Fragments,
    Labels,
    Tables,
    declare,
    described,
    flat_select,
    read_names,
    unit_count,
    wrapped,
)
from junto.frontends.sql.measures import (
    REALS,
    Aggregate,
    Kinds,
    Measures,
    Part,
    aggregates_in,
    exact_scale,
    parts_of,
    released,
)
from junto.frontends.sql.names import Catalog, Named
from junto.frontends.sql.scope import Binder
from junto.frontends.sql.typing import Describer, is_plain
from junto.plan import expressions
from junto.plan.computing import Consents, computing_nodes, helped
from junto.plan.fragment import is_open
from junto.plan.review import guessed
from junto.plan.steps import AnyStep, MaskedSum, Move, Plan, Query, Release, Threshold
from junto.trust.allow import DEFAULT_DOMINANCE, DEFAULT_UNITS
from junto.trust.grants import Grant
from junto.trust.rights import OPERATOR, Rights
from junto.trust.rules import Need, Verdict, judge
from junto.types import PartyId, StepId, Tokens

_DOMINANCE_PER_CENT = int(DEFAULT_DOMINANCE * 100)


def compile_sql(
    question: str,
    datasets: Sequence[Dataset],
    asker: PartyId,
    *,
    purpose: str = "",
    grants: Sequence[Grant] = (),
    now: float = 0.0,
    describer: Describer | None = None,
    rights: Rights = OPERATOR,
    consents: Consents = MappingProxyType({}),
) -> Plan:
    """The plan that answers `question` for `asker`.

    datasets: what every party has published, the newest version of each. purpose, grants and now (UTC, Unix seconds)
    serve to find the threshold that the owners' rules will ask for; they decide nothing here.
    rights: of the asker's user, whom the rules of the asker's own datasets bind, unless it is an operator.
    consents: for whom each party computes, from which the helper of two owners is taken; see `plan/computing.py`.
    describer: one that is kept between questions, which saves opening another.
    Raises InvalidInput (unknown names, with the nearest; types), UnsupportedSQL (naming the clause and what to write).
    """
    try:
        tree = expressions.parse(question)
        expressions.check(tree)
        with nullcontext(describer) if describer is not None else Describer() as describe:
            permissions = _Permissions(purpose, grants, now, rights)
            plan = _Compiler(question, Catalog(datasets, asker), asker, describe, permissions).plan(tree)
            return helped(plan, consents)
    except RecursionError as error:
        raise InvalidInput("the SQL is nested too deeply: write it in simpler parts") from error
    except PeerFault as error:
        # Our own fragment is not what every owner's node would accept: better said now than refused then.
        raise UnsupportedSQL(f"the question cannot be asked in this form: {error}") from error


@dataclass(frozen=True)
class _Permissions:
    purpose: str
    grants: Sequence[Grant]
    now: float
    rights: Rights

    def verdict(
        self, dataset: Dataset, needs: Sequence[Need], asker: PartyId, recipients: Iterable[PartyId] = ()
    ) -> Verdict:
        """The owner's decision, as far as its rules are known, for the asker or the recipients given."""
        return judge(
            dataset.name,
            dataset.rules,
            self.grants,
            needs,
            recipients=tuple(recipients) or (asker,),
            asker=asker,
            purpose=self.purpose,
            now=self.now,
            rights=self.rights if dataset.party == asker else None,
        )


class _Compiler:
    """One question on its way to a plan."""

    def __init__(
        self, question: str, catalog: Catalog, asker: PartyId, describer: Describer, permissions: _Permissions
    ) -> None:
        self._question = question
        self._catalog = catalog
        self._asker = asker
        self._describer = describer
        self._permissions = permissions
        self._derived = 0

    def plan(self, tree: exp.Select) -> Plan:
        """The plan for a SELECT whose every node is known."""
        named = list(all_tables(tree, self._catalog))
        if not named:
            raise InvalidInput("the question names no dataset: write FROM and a dataset")
        tables = [table for _, table in named]
        if all(self._sees(table) and len(table.owners) == 1 for table in tables):
            steps = self._local(tree, tables)
        else:
            steps = self._joint(tree, named)
        return Plan(self._question, self._asker, tuple(steps))

    def _sees(self, table: Named) -> bool:
        """True if the asker's user may see every row of a table."""
        return all(is_open(dataset) or self._may_read(dataset) for dataset in table.datasets)

    def _may_read(self, dataset: Dataset) -> bool:
        needs = [Need(dataset.party, dataset.name, column.name, "rows", "") for column in dataset.columns]
        own = dataset.party == self._asker
        return own and self._permissions.verdict(dataset, needs, self._asker).allowed

    def _answer_columns(self, tree: exp.Select, named: Sequence[tuple[exp.Table, Named]]) -> tuple[Column, ...]:
        """Names and types of the answer, as DuckDB would give them for the question itself."""
        for node, table in named:
            self._describer.add(node.text("db") or "main", table.name, [(c.name, c.type) for c in table.columns])
        answer = self._describer.describe("main", self._question.strip().rstrip("; \n\t"))
        if [c.type for c in answer] != [c.type for c in self._describer.describe("main", expressions.spelling(tree))]:
            raise UnsupportedSQL("the question can be read in two ways: put parentheses where operators meet")
        return answer

    def _derived_names(self, select: exp.Select, tables: Mapping[str, Named]) -> tuple[str, ...]:
        self._derived += 1
        return tuple(c.name for c in described(self._describer, f"subquery {self._derived}", select, tables))

    def _local(self, tree: exp.Select, tables: Sequence[Named]) -> list[AnyStep]:
        """The asker may see all of it: any SELECT, run at the one owner, or else at the asker."""
        answer = self._answer_columns(tree, list(all_tables(tree, self._catalog)))
        host = self._catalog.host(tables) or self._asker
        select, reads = tree.copy(), dict[str, Named]()
        rename(select, list(all_tables(select, self._catalog)), reads)
        order = _local_order(select, answer)
        types = described(self._describer, "local", select, reads)
        columns = tuple(Column(f"c{i}", c.type) for i, c in enumerate(types))
        fragments = Fragments(reads, (host,), self._describer)
        query = fragments.query("query", host, wrapped(select, len(columns)), Labels(rows=columns))
        outputs: list[exp.Expr] = [released(f"c{i}") for i in range(len(answer))]
        text = ReleaseText(outputs=outputs, order=with_ties(order, outputs))
        return [*fragments.steps, query, *self._release_rows([query], text, columns, answer)]

    def _joint(self, tree: exp.Select, named: Sequence[tuple[exp.Table, Named]]) -> list[AnyStep]:
        flat = Binder(self._catalog, self._derived_names).flatten(tree, {})
        mains = _mains(flat)
        answer = self._answer_columns(tree, named)
        if len(answer) != len(flat.outputs):
            raise UnsupportedSQL("the question can be read in two ways: name every output")
        spoken = _spoken(flat)
        if flat.group is None and flat.having is None and not any(has_aggregate(e) for e in spoken):
            return self._rows(flat, mains, answer, rows_text(flat), limited=not flat.distinct)
        if all(isinstance(s.table, Named) and self._sees(s.table) for s in mains):
            return self._rows(flat, mains, answer, gathered_text(flat, _keys(flat)), limited=False)
        return self._grouped(flat, mains, answer)

    def _rows(
        self, flat: Flat, mains: Sequence[Source], answer: tuple[Column, ...], text: Gathering, *, limited: bool
    ) -> list[AnyStep]:
        names, tables = read_names(flat)
        types = self._types(flat, names, tables, text.needed)
        columns = tuple(Column(f"c{i}", type_) for i, type_ in enumerate(types))
        limit = flat.limit + flat.offset if limited and flat.limit is not None else None
        outputs = list(zip((c.name for c in columns), text.needed, strict=True))
        order = text.positions if limit is not None else []
        sql = expressions.text_of(flat_select(flat, names, outputs, order=order, limit=limit))
        owners = _owners(mains)
        fragments = Fragments(tables, owners, self._describer)
        queries = [fragments.query(f"query-{owner}", owner, sql, Labels(rows=columns)) for owner in owners]
        return [*fragments.steps, *queries, *self._release_rows(queries, text.release, columns, answer)]

    def _grouped(self, flat: Flat, mains: Sequence[Source], answer: tuple[Column, ...]) -> list[AnyStep]:
        keys = _keys(flat)
        found = aggregates_in(_spoken(flat))
        names, tables = read_names(flat)
        key_columns = tuple(Column(f"k{i}", type_) for i, type_ in enumerate(self._types(flat, names, tables, keys)))
        _check_keys(keys, key_columns)
        kinds, parts = self._kinds(flat, names, tables, mains, found)
        measures, finals = Measures(kinds), dict[str, exp.Expr]()
        for aggregate, choices in zip(found, parts, strict=True):
            if aggregate.units:
                _check_unit(aggregate.operand, mains)
            finals[aggregate.call.sql(dialect="duckdb", comments=False)] = measures.final(aggregate, choices)
        owners = _owners(mains)
        fragments = Fragments(tables, owners, self._describer)
        outputs = [(c.name, key) for c, key in zip(key_columns, keys, strict=True)]
        partials = [(m.name, part) for m, part in zip(measures.measures, measures.partials, strict=True)]
        labels = Labels(key_columns, tuple(measures.measures))
        texts: dict[str, str] = {}  # by how units are counted, which is most often the same everywhere
        queries = []
        for owner in owners:
            units = unit_count(owner, mains, flat)
            if spelled(units) not in texts:
                select = flat_select(flat, names, [*outputs, ("units", units), *partials], keys=len(keys))
                texts[spelled(units)] = expressions.text_of(select)
            queries.append(fragments.query(f"query-{owner}", owner, texts[spelled(units)], labels))
        held = [*key_columns, *(Column(m.name, m.type) for m in measures.measures if m.encoding != "spread")]
        held += [Column(d.name, "DOUBLE") for d in measures.deviations]
        sql = grouped_text(flat, keys, finals).sql(self._describer, held, answer)
        return [*fragments.steps, *self._protocol(fragments, queries, measures, sql, answer)]

    def _protocol(
        self, fragments: Fragments, queries: list[Query], measures: Measures, sql: str, answer: tuple[Column, ...]
    ) -> list[AnyStep]:
        """The queries of a grouped question, and the steps that make one answer of them."""
        own = next((q for q in queries if q.party == self._asker), None)
        others = [q for q in queries if q is not own]
        contributors, inputs = tuple(q.party for q in others), tuple(q.id for q in others)
        units, parties, dominance = self._limits(fragments, queries)
        if parties > max(len(others), 1):
            raise InvalidInput(
                f"the rules show only groups of at least {parties} parties beside the asker; {len(others)} hold data"
            )
        release = Release(
            StepId("release"),
            self._asker,
            sql,
            own=own.id if own else None,
            deviations=tuple(measures.deviations),
            columns=tuple(c.name for c in answer),
            column_types=tuple(c.type for c in answer),
        )
        if not others:
            return [*queries, release]
        nodes = computing_nodes(contributors, self._asker)
        tokens = self._tokens(fragments, others)
        threshold = Threshold(
            StepId("threshold"), inputs, contributors, self._asker, nodes, units, parties, dominance, tokens
        )
        sums = tuple(m for m in measures.measures if m.combine == "sum")
        summed = [MaskedSum(StepId("sums"), threshold.id, inputs, contributors, self._asker, sums)] if sums else []
        extremes = tuple(m.name for m in measures.measures if m.combine != "sum")
        moves = [
            Move(
                StepId(f"extremes-{query.party}"),
                query.id,
                query.party,
                (self._asker,),
                (*(query.keys or ()), *extremes),
                threshold.id,
            )
            for query in (others if extremes else [])
        ]
        release = msgspec.structs.replace(
            release,
            threshold=threshold.id,
            sums=summed[0].id if summed else None,
            moves=tuple(move.id for move in moves),
        )
        return [*queries, threshold, *summed, *moves, release]

    def _release_rows(
        self, queries: Sequence[Query], text: ReleaseText, columns: tuple[Column, ...], answer: tuple[Column, ...]
    ) -> list[AnyStep]:
        """The steps that bring the rows of queries to the asker, and make the answer of them."""
        moves = [
            Move(StepId(f"rows-{query.party}"), query.id, query.party, (self._asker,), query.columns)
            for query in queries
            if query.party != self._asker
        ]
        own = next((query.id for query in queries if query.party == self._asker), None)
        release = Release(
            StepId("release"),
            self._asker,
            text.sql(self._describer, columns, answer),
            own=own,
            moves=tuple(move.id for move in moves),
            columns=tuple(c.name for c in answer),
            column_types=tuple(c.type for c in answer),
        )
        return [*moves, release]

    def _types(
        self, flat: Flat, names: Mapping[str, str], tables: Tables, nodes: Sequence[exp.Expr]
    ) -> tuple[str, ...]:
        """DuckDB's types of some expressions over the sources of a question."""
        if not nodes:
            return ()
        declare(self._describer, "fragment", tables)
        select = flat_select(flat, names, [(f"e{i}", node) for i, node in enumerate(nodes)])
        return tuple(c.type for c in self._describer.describe("fragment", expressions.spelling(select)))

    def _tokens(self, fragments: Fragments, queries: Sequence[Query]) -> Tokens:
        """The alignment of contributors' groups: joint where a rule lets not each of them learn of the groups."""
        contributors = {query.party for query in queries}
        for query in queries if len(queries) > 1 else ():
            needs = guessed(fragments.readings[query.id].needs)
            for dataset in filter(None, (fragments.dataset(read.name, query.party) for read in query.reads)):
                of_it = [need for need in needs if need.dataset == dataset.name]
                if (
                    query.keys
                    and not self._permissions.verdict(dataset, of_it, self._asker, contributors - {query.party}).allowed
                ):
                    return "oprf"
        return "hmac"

    def _kinds(
        self,
        flat: Flat,
        names: Mapping[str, str],
        tables: Tables,
        mains: Sequence[Source],
        found: Sequence[Aggregate],
    ) -> tuple[Kinds, list[tuple[Part, ...]]]:
        """The types of what the aggregates are taken of, and the parts of each."""
        operands = [a.operand for a in found if a.operand is not None and not a.units]
        columns = {
            c.sql(dialect="duckdb"): c for operand in operands for c in operand.find_all(exp.Column) if c.table != "s"
        }
        types = dict(zip(columns, self._types(flat, names, tables, list(columns.values())), strict=True))

        def is_number(column: exp.Column) -> bool:
            type_ = types.get(column.sql(dialect="duckdb"), "")
            return type_ in REALS or exact_scale(type_) is not None

        parts = [parts_of(aggregate, is_number) for aggregate in found]
        inner = {
            node.sql(dialect="duckdb"): node
            for node in (*operands, *(n for choices in parts for p in choices for n in (p.value, *p.all_factors)))
        }
        types |= dict(zip(inner, self._types(flat, names, tables, list(inner.values())), strict=True))
        return Kinds(types, frozenset(source.alias for source in mains)), parts

    def _limits(self, fragments: Fragments, queries: Sequence[Query]) -> tuple[int, int, int]:
        """The strictest units, parties and dominance that the rules serving the question ask for."""
        units, parties, dominance = 0, 1, 100
        for query in queries:
            needs = fragments.readings[query.id].needs
            for dataset in filter(None, (fragments.dataset(read.name, query.party) for read in query.reads)):
                asked = [need for need in needs if need.dataset == dataset.name]
                verdict = self._permissions.verdict(dataset, asked, self._asker)
                if query.party != self._asker:  # its own groups are held back at home, by its own rules
                    units = max(units, verdict.units, 0 if verdict.allowed else DEFAULT_UNITS)
                parties = max(parties, verdict.parties)
                dominance = min(dominance, verdict.dominance, 100 if verdict.allowed else _DOMINANCE_PER_CENT)
        return units, parties, dominance


def _local_order(select: exp.Select, answer: Sequence[Column]) -> list[exp.Ordered]:
    """ORDER BY of any SELECT, for its release: by its outputs, and by further ones added to it where need be."""
    names = [fold(column.name) for column in answer]
    found: list[exp.Ordered] = []
    added = 0
    order = select.args.get("order")
    for ordered in order.expressions if order is not None else ():
        key = ordered.this
        if isinstance(key, exp.Var):  # ALL
            places = list(range(len(answer)))
        elif isinstance(key, exp.Literal) and not key.is_string and key.name.isdecimal():
            places = [int(key.name) - 1]
        elif isinstance(key, exp.Column) and not key.table and fold(key.name) in names:
            places = [names.index(fold(key.name))]
        elif select.args.get("distinct") is not None:
            raise UnsupportedSQL("with SELECT DISTINCT, ORDER BY goes by the names or positions of outputs")
        else:
            select.append("expressions", exp.alias_(key.copy(), f"junto order {added}", quoted=True))
            places = [len(answer) + added]
            added += 1
        found += [like(released(f"c{place}"), ordered) for place in places]
    return found


def _mains(flat: Flat) -> list[Source]:
    """The sources that decide where the work is done. Raises UnsupportedSQL unless that is in one place each."""
    mains = [
        source
        for source in flat.sources
        if isinstance(source.table, Named) and not (source.table.open and len(source.table.owners) == 1)
    ]
    if not mains:
        raise UnsupportedSQL(
            "the question joins open tables of several parties in a form that is not supported: write plain joins"
        )
    owners = {owner for source in mains for owner in _named(source).owners}
    if len(mains) > 1 and len(owners) > 1:
        shared = next((_named(s) for s in mains if _named(s).open), None)
        if shared is not None:
            raise UnsupportedSQL(
                f"{shared.name} is published by {' and '.join(shared.owners)}: say whose you mean,"
                f" as {shared.owners[0]}.{shared.name}"
            )
        raise UnsupportedSQL(
            f"{' and '.join(dict.fromkeys(_named(s).name for s in mains))} are private and at several parties"
            f" ({', '.join(sorted(owners))}), and their rows never come together: join one of them with open tables"
        )
    if len(owners) > 1 and mains[0].side == "LEFT":
        name = _named(mains[0]).name
        raise UnsupportedSQL(f"{name}, of several parties, at the right of a LEFT JOIN: put it first, after FROM")
    return mains


def _named(source: Source) -> Named:
    if not isinstance(source.table, Named):
        raise InvalidInput(f"source {source.alias} is not a dataset")
    return source.table


def _owners(mains: Sequence[Source]) -> tuple[PartyId, ...]:
    return tuple(sorted({owner for source in mains for owner in _named(source).owners}))


def _spoken(flat: Flat) -> list[exp.Expr]:
    having = [flat.having] if flat.having is not None else []
    return [*(e for _, e in flat.outputs), *having, *(o.this for o in flat.order)]


def _keys(flat: Flat) -> list[exp.Expr]:
    """The grouping keys, each once."""
    return list({spelled(key): key for key in flat.group or ()}.values())


def _check_keys(keys: Sequence[exp.Expr], columns: Sequence[Column]) -> None:
    for key, column in zip(keys, columns, strict=True):
        if not is_plain(column.type):
            raise UnsupportedSQL(
                f"GROUP BY {expressions.readable(key)} is of type {column.type[:60]}: cast it to VARCHAR to group by it"
            )


def _check_unit(operand: exp.Expr | None, mains: Sequence[Source]) -> None:
    """Raises UnsupportedSQL unless the operand is the unit of a private table at each of its owners."""
    for source in mains:
        units = {dataset.unit for dataset in _named(source).datasets}
        if isinstance(operand, exp.Column) and operand.table == source.alias and units == {operand.name}:
            return
    name = expressions.readable(operand) if operand is not None else "*"
    told = sorted({f"{d.unit} at {d.party}" for s in mains for d in _named(s).datasets if d.unit is not None})
    known = f"; the unit is {', '.join(told)}" if told else "; the datasets have no unit"
    raise UnsupportedSQL(f"COUNT(DISTINCT {name}) is not supported, only that of the unit{known}")
