# SPDX-License-Identifier: Apache-2.0
"""The receiver's part of a question: the SQL over the table `released`, and the outputs it needs of the fragments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from junto.catalog.dataset import Column
from junto.errors import InvalidInput, UnsupportedSQL
from junto.frontends.sql.flat import Flat, rebuilt
from junto.frontends.sql.measures import released
from junto.frontends.sql.typing import Describer
from junto.plan import expressions

RELEASED = "released"


@dataclass
class ReleaseText:
    """A SELECT over `released`, clause by clause."""

    outputs: list[exp.Expr]
    where: exp.Expr | None = None
    group: list[exp.Expr] = field(default_factory=list)
    having: exp.Expr | None = None
    order: list[exp.Ordered] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    distinct: bool = False

    def sql(self, describer: Describer, columns: Sequence[Column], answer: Sequence[Column]) -> str:
        """The text of the SQL, each output called and typed as the answer's. columns: those of `released`."""
        describer.add("release", RELEASED, [(c.name, c.type) for c in columns])
        names = [c.name for c in answer]
        first = describer.describe("release", expressions.spelling(self._select(self.outputs, names)))
        outputs = [
            output if has.type == wanted.type else exp.Cast(this=output, to=_type(wanted.type))
            for output, has, wanted in zip(self.outputs, first, answer, strict=True)
        ]
        return expressions.text_of(self._select(outputs, names))

    def _select(self, outputs: Sequence[exp.Expr], names: Sequence[str]) -> exp.Select:
        select = exp.Select(
            expressions=[exp.alias_(o.copy(), name, quoted=True) for o, name in zip(outputs, names, strict=True)],
            from_=exp.From(this=exp.Table(this=exp.to_identifier(RELEASED, quoted=True))),
        )
        if self.distinct:
            select.set("distinct", exp.Distinct())
        if self.where is not None:
            select.set("where", exp.Where(this=self.where))
        if self.group:
            select.set("group", exp.Group(expressions=self.group))
        if self.having is not None:
            select.set("having", exp.Having(this=self.having))
        if self.order:
            select.set("order", exp.Order(expressions=self._distinct_order() if self.distinct else self.order))
        if self.limit is not None:
            select.set("limit", exp.Limit(expression=exp.Literal.number(self.limit)))
        if self.offset:
            select.set("offset", exp.Offset(expression=exp.Literal.number(self.offset)))
        return select

    def _distinct_order(self) -> list[exp.Ordered]:
        """After DISTINCT only outputs are there to order by: their positions, each once."""
        positions = {spelled(output): i + 1 for i, output in reversed(list(enumerate(self.outputs)))}
        found: dict[int, exp.Ordered] = {}
        for ordered in self.order:
            position = positions.get(spelled(ordered.this))
            if position is None:
                raise InvalidInput("with SELECT DISTINCT, ORDER BY goes by outputs: add the expression to the SELECT")
            found.setdefault(position, like(exp.Literal.number(position), ordered))
        for position in range(1, len(self.outputs) + 1):
            found.setdefault(position, exp.Ordered(this=exp.Literal.number(position), nulls_first=False))
        return list(found.values())


@dataclass
class Gathering:
    """The outputs that the fragments of a question by rows give, and the receiver's SQL over them."""

    needed: list[exp.Expr]  # the outputs of each fragment, bound
    positions: list[exp.Ordered]  # the answer's order, by positions among them
    release: ReleaseText


def spelled(node: exp.Expr) -> str:
    """An expression's spelling, by which two are the same: parentheses around it do not count."""
    inner = node
    while isinstance(inner, exp.Paren):
        inner = inner.this
    return inner.sql(dialect="duckdb", comments=False)


def grouped_text(flat: Flat, keys: Sequence[exp.Expr], finals: Mapping[str, exp.Expr]) -> ReleaseText:
    """The release of a grouped question. finals: what stands for each aggregate, by its spelling."""
    known = {spelled(key): released(f"k{i}") for i, key in enumerate(keys)}

    def change(node: exp.Expr) -> exp.Expr:
        found = known.get(spelled(node)) or finals.get(node.sql(dialect="duckdb", comments=False))
        if found is not None:
            return found.copy()
        if isinstance(node, exp.Column):
            raise InvalidInput(f"{node.name!r} is neither in GROUP BY nor in an aggregate: add it to GROUP BY")
        if isinstance(node, exp.Subquery):
            raise UnsupportedSQL("IN (SELECT …) over aggregates is not supported: write IN with a list of values")
        return rebuilt(node, change)

    having = change(flat.having) if flat.having is not None else None
    order = [like(change(o.this), o) for o in flat.order]
    ties = [released(f"k{i}") for i in range(len(keys))]
    return ReleaseText(
        outputs=[change(e) for _, e in flat.outputs],
        where=having,
        order=with_ties(order, ties),
        limit=flat.limit,
        offset=flat.offset,
        distinct=flat.distinct,
    )


def rows_text(flat: Flat) -> Gathering:
    """A question for rows: its outputs, and what it is ordered by, are the fragments' outputs."""
    needed = _Needed()
    outputs = [needed.add(e) for _, e in flat.outputs]
    order = with_ties([like(needed.add(o.this), o) for o in flat.order], outputs)
    positions = [like(exp.Literal.number(int(o.this.name[1:]) + 1), o) for o in order]
    text = ReleaseText(outputs=outputs, order=order, limit=flat.limit, offset=flat.offset, distinct=flat.distinct)
    return Gathering(needed.expressions, positions, text)


def gathered_text(flat: Flat, keys: Sequence[exp.Expr]) -> Gathering:
    """A grouped question whose rows the receiver may see: the columns come, and it does the rest."""
    needed = _Needed()

    def change(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column):
            return needed.add(node)
        if isinstance(node, exp.Subquery):
            raise UnsupportedSQL("IN (SELECT …) outside WHERE is not supported here: move it to WHERE")
        return rebuilt(node, change)

    group = [change(key) for key in keys]
    text = ReleaseText(
        outputs=[change(e) for _, e in flat.outputs],
        group=group,
        having=change(flat.having) if flat.having is not None else None,
        order=with_ties([like(change(o.this), o) for o in flat.order], group),
        limit=flat.limit,
        offset=flat.offset,
        distinct=flat.distinct,
    )
    if not needed.expressions:
        needed.add(exp.Literal.number(1))
    return Gathering(needed.expressions, [], text)


class _Needed:
    """Expressions that fragments give as c0, c1, …, each once."""

    def __init__(self) -> None:
        self.expressions: list[exp.Expr] = []
        self._names: dict[str, str] = {}

    def add(self, node: exp.Expr) -> exp.Expr:
        """The column of `released` that an expression becomes."""
        key = spelled(node)
        if key not in self._names:
            self._names[key] = f"c{len(self.expressions)}"
            self.expressions.append(node)
        return released(self._names[key])


def with_ties(order: Sequence[exp.Ordered], ties: Sequence[exp.Expr]) -> list[exp.Ordered]:
    """The order asked for, and after it what tells equal rows apart."""
    by = {spelled(o.this) for o in order}
    result = list(order)
    for tie in ties:
        if spelled(tie) not in by:
            by.add(spelled(tie))
            result.append(exp.Ordered(this=tie.copy(), nulls_first=False))
    return result


def like(node: exp.Expr, ordered: exp.Ordered) -> exp.Ordered:
    """An order by `node` that goes as another does."""
    return exp.Ordered(this=node, desc=ordered.args.get("desc"), nulls_first=ordered.args.get("nulls_first"))


def _type(type_: str) -> exp.DataType:
    return exp.DataType.build(type_, dialect="duckdb")
