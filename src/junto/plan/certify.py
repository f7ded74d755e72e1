# SPDX-License-Identifier: Apache-2.0
"""Steps that several parties compute, each for itself, so that a result which one of them falsified shows.

    Query open-0 at bts          used: its rows go on
    Query certify-0 at faa       certifies open-0: the same SQL over faa's own copy of the same open table
    Query certify-1 at faa       certifies release: the release's SQL over what faa has computed
    Release at the asker

A certifying fragment's output stays where it is. Its party signs the canonical digest (`engines/canonical.py`) in its
confirmation, as the party of the certified step does. Equal digests are a certificate: see `tasks/certificates.py`.

Only what everybody may see is certified: another party has to have the inputs, and a digest that all participants are
told lets a small output be guessed. Each owner checks of its own datasets that they are open. Private data is certified
within its party, by nodes that run the same fragment.

Two computations agree if SQL leaves no choice. LIMIT without a total order does, and is refused. Sums of reals depend
on the order of their terms, and which of 0.0 and -0.0 stands for a group on the order of rows: the fragments concerned
run on one thread, in the order of their files (`one_thread`). Any difference left is a falsified result, a fault,
or engines of different versions.
"""

from collections.abc import Mapping, Sequence
from typing import NoReturn

import msgspec
from sqlglot import exp

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput, PeerFault
from junto.plan import expressions
from junto.plan.fragment import is_open
from junto.plan.graph import certifying, pruned, reached
from junto.plan.placement import holders
from junto.plan.steps import AnyStep, Move, Plan, Query, Read, Release
from junto.plan.texts import Texts
from junto.types import PartyId, StepId

RELEASED = "released"


def certified(plan: Plan, n: int, datasets: Sequence[Dataset]) -> Plan:
    """The plan in which each fragment over open data alone is computed by `n` parties, its own included.

    The release is too, where it is made of one such fragment. Of those that can, the parties that need no copy are
    asked first, then those that take part anyway, then by name. Raises InvalidInput, one line, unless n is from 2 to
    16, something can be certified, every such fragment can be by so many, and its SQL gives everybody the same.
    """
    if not 2 <= n <= 16:
        raise InvalidInput(f"certify = {n}: from 2 to 16 parties compute a step")
    plan = uncertified(plan)
    targets = _open_fragments(plan, datasets)
    if not targets:
        raise InvalidInput(
            "nothing in the answer is computed of open tables alone, so no other party can compute it again:"
            " leave certify out"
        )
    whole = plan
    for target in targets:
        check_determined(target.sql)
        found = _candidates(whole, target, datasets)
        if len(found) < n - 1:
            told = " and ".join(sorted({str(r.dataset or r.name) for r in target.reads}))
            able = ", ".join((target.party, *(q.party for q, _ in found)))
            raise InvalidInput(
                f"certify = {n}: only {able} can compute what is read of {told}; publish copies, or ask for fewer"
            )
        for query, moves in found[: n - 1]:
            whole = _with(whole, target, query, moves)
    return _with_release(whole, n)


def uncertified(plan: Plan) -> Plan:
    """The plan without its certifying fragments, and what only they used."""
    if not certifying(plan):
        return plan
    kept = tuple(s for s in plan.steps if not (isinstance(s, Query) and s.certifies))
    return pruned(msgspec.structs.replace(plan, steps=kept))


def signers(plan: Plan) -> int:
    """The number of parties that compute what is certified; 1 if nothing is."""
    again = [query.certifies for query in certifying(plan)]
    return 1 + max((again.count(target) for target in again), default=0)


def certifiers(plan: Plan) -> Mapping[StepId, tuple[Query, ...]]:
    """The fragments that compute each certified step again, by its id."""
    found: dict[StepId, tuple[Query, ...]] = {}
    for query in certifying(plan):
        if query.certifies:
            found[query.certifies] = (*found.get(query.certifies, ()), query)
    return found


def involved(plan: Plan) -> frozenset[StepId]:
    """The steps whose output a certificate rests on: certified or certifying, and all they come of."""
    told = certifiers(plan)
    return reached(plan, [*told, *(query.id for queries in told.values() for query in queries)])


def one_thread(plan: Plan, doubled: frozenset[StepId] = frozenset()) -> frozenset[StepId]:
    """The steps that must run on one thread, so that all who compute the same get the same bits: those a certificate
    rests on, and those of `doubled`, where values depend on the order of rows. Each text is parsed once."""
    texts = Texts()
    concerned = involved(plan)
    queries = [s for s in plan.steps if isinstance(s, Query | Release)]
    depend = {s.id for s in queries if s.id in concerned | doubled and depends_on_order(s.sql, texts)}
    return (concerned if depend & concerned else frozenset()) | (depend & doubled)


def in_order(sql: str) -> bool:
    """True if the order of an answer's rows is part of the answer: ORDER BY tells any two different rows apart."""
    tree = expressions.parse(sql)
    return tree.args.get("order") is not None and _total(tree)


def check_determined(sql: str, texts: Texts | None = None) -> None:
    """Raises InvalidInput if a SELECT may give different rows of the same data. texts: those of its plan."""
    for select in (texts or Texts()).tree(sql).find_all(exp.Select):
        if (select.args.get("limit") or select.args.get("offset")) and not _total(select):
            raise InvalidInput(
                "which rows LIMIT keeps is left open, so two parties may keep different ones:"
                " ORDER BY every output, or leave certify out"
            )


def check_certifying(plan: Plan, texts: Texts) -> None:
    """Raises PeerFault unless every certifying fragment computes what it says it certifies, and goes nowhere."""
    answer = reached(plan)
    by_id = {step.id: step for step in plan.steps}
    parties: dict[StepId, list[PartyId]] = {}
    for query in certifying(plan):
        target = by_id.get(query.certifies) if query.certifies else None
        match target:
            case Query() if target.id in answer and target.keys is None:
                _check_again(plan, query, target)
                first = target.party
            case Release():
                _check_release_again(plan, query, target)
                first = target.receiver
            case _:
                _fault(query, "it certifies no fragment of rows that the answer comes of")
        there = parties.setdefault(target.id, [first])
        if query.party in there:
            _fault(query, f"{query.party} would certify what it has computed itself")
        there.append(query.party)
        _check_use(plan, query)
        try:
            check_determined(query.sql, texts)
        except InvalidInput as error:
            _fault(query, str(error))


def _open_fragments(plan: Plan, datasets: Sequence[Dataset]) -> list[Query]:
    """The fragments that the answer comes of and that read open data alone, in the plan's order."""
    opened = {(d.party, d.name, d.version) for d in datasets if is_open(d)}
    found: dict[StepId, Query] = {}
    for step in plan.steps:
        if isinstance(step, Query) and step.keys is None:
            fine = [
                _source(plan, read.step) in found
                if read.step is not None
                else (step.party, read.dataset, read.version) in opened
                for read in step.reads
            ]
            if all(fine):
                found[step.id] = step
    return list(found.values())


_Moves = Mapping[StepId, PartyId]
"""Fragments whose output must come to a party that certifies, and the party."""


def _candidates(plan: Plan, target: Query, datasets: Sequence[Dataset]) -> list[tuple[Query, _Moves]]:
    """The parties that could compute a fragment again, the fittest first: as their fragment and the copies it needs."""
    tables = msgspec.structs.replace(target, reads=tuple(r for r in target.reads if r.dataset is not None))
    at = {holder.party: {read.name: read for read in holder.reads} for holder in holders(tables, datasets)}
    there = at if tables.reads else {party: {} for party in plan.parties}
    ranked: list[tuple[int, bool, PartyId, Query, _Moves]] = []
    for party, held in there.items():
        if party == target.party:
            continue
        reads, moves = list[Read](), dict[StepId, PartyId]()
        for read in target.reads:
            if read.step is None:
                reads.append(held[read.name])
                continue
            source = _source(plan, read.step)
            near = _at(plan, source, party)
            if near is None:
                moves[source] = party
            reads.append(msgspec.structs.replace(read, step=near or _copies(plan, source)))
        query = msgspec.structs.replace(target, party=party, reads=tuple(reads), certifies=target.id)
        ranked.append((len(moves), party not in plan.parties, party, query, moves))
    return [(query, moves) for _, _, _, query, moves in sorted(ranked, key=lambda r: r[:3])]


def _source(plan: Plan, id: StepId) -> StepId:
    """The fragment whose rows a step gives, or gives again."""
    step = plan.step(id)
    if isinstance(step, Move):
        step = plan.step(step.input)
    return step.certifies if isinstance(step, Query) and step.certifies else step.id


def _at(plan: Plan, source: StepId, party: PartyId) -> StepId | None:
    """The fragment of a party that gives a source's rows at home."""
    for step in plan.steps:
        if isinstance(step, Query) and step.party == party and source in (step.id, step.certifies):
            return step.id
    return None


def _copies(plan: Plan, source: StepId) -> StepId:
    """The move of a source's rows, there or to be made."""
    found = next((s.id for s in plan.steps if isinstance(s, Move) and s.input == source), None)
    return found or StepId(f"again-{source}"[:100])


def _with(plan: Plan, target: AnyStep, query: Query, moves: _Moves) -> Plan:
    """The plan with a certifying fragment, beside what it certifies, and the copies that it takes."""
    named = msgspec.structs.replace(query, id=StepId(f"certify-{len(certifying(plan))}"))
    steps = list(plan.steps)
    for source, party in moves.items():
        origin = plan.step(source)
        id = _copies(plan, source)
        at = next((i for i, s in enumerate(steps) if s.id == id), None)
        if at is not None:
            move = steps[at]
            if isinstance(move, Move):
                steps[at] = msgspec.structs.replace(move, to=(*move.to, party))
        elif isinstance(origin, Query):
            place = next(i for i, s in enumerate(steps) if s.id == source)
            steps.insert(place + 1, Move(id, source, origin.party, (party,), origin.columns))
    if isinstance(target, Release):
        steps.insert(len(steps) - 1, named)
    else:
        near = [
            i for i, s in enumerate(steps) if s.id == target.id or (isinstance(s, Query) and s.certifies == target.id)
        ]
        steps.insert(near[-1] + 1, named)
    return msgspec.structs.replace(plan, steps=tuple(steps))


def _with_release(plan: Plan, n: int) -> Plan:
    """The plan with its release certified by those who have computed the one fragment that it is made of."""
    release = plan.steps[-1]
    source = _released_source(plan, release) if isinstance(release, Release) else None
    if source is None or not isinstance(release, Release):
        return plan
    able = [query for query in certifying(plan) if query.certifies == source.id]
    for query in [q for q in (*able, source) if q.party != release.receiver][: n - 1]:
        reads = (Read(RELEASED, step=query.id, columns=tuple(sorted(query.columns))),)
        again = Query(
            release.id,
            query.party,
            release.sql,
            reads,
            columns=release.columns,
            column_types=release.column_types,
            certifies=release.id,
        )
        plan = _with(plan, release, again, {})
    return plan


def _released_source(plan: Plan, release: Release) -> Query | None:
    """The one fragment of rows that a release is made of; None if there are several, or groups."""
    inputs = [*release.moves, *([release.own] if release.own is not None else [])]
    if release.threshold is not None or len(inputs) != 1:
        return None
    source = plan.step(inputs[0])
    query = plan.step(source.input) if isinstance(source, Move) else source
    return query if isinstance(query, Query) and query.keys is None else None


def _check_again(plan: Plan, query: Query, target: Query) -> None:
    same = (query.sql, query.keys, query.measures, query.columns, query.column_types)
    if target.certifies or same != (target.sql, target.keys, target.measures, target.columns, target.column_types):
        _fault(query, f"it computes something else than step {target.id}, which it certifies")
    if [_read_from(plan, r) for r in query.reads] != [_read_from(plan, r) for r in target.reads]:
        _fault(query, f"it reads something else than step {target.id}, which it certifies")


def _read_from(plan: Plan, read: Read) -> tuple[str, str | None, StepId | None, tuple[str, ...]]:
    return read.name, read.dataset, None if read.step is None else _source(plan, read.step), read.columns


def _check_release_again(plan: Plan, query: Query, release: Release) -> None:
    source = _released_source(plan, release)
    same = (query.sql, query.keys, query.columns, query.column_types)
    if source is None or same != (release.sql, None, release.columns, release.column_types):
        _fault(query, "it computes something else than the release, or one that only the asker can compute")
    reads = [_read_from(plan, read) for read in query.reads]
    if reads != [(RELEASED, None, source.id, tuple(sorted(source.columns)))]:
        _fault(query, "it reads something else than the release is made of")


def _check_use(plan: Plan, query: Query) -> None:
    for step in plan.steps:
        match step:
            case Move() if step.input == query.id:
                _fault(query, "what certifies stays where it is")
            case Release() if step.own == query.id:
                _fault(query, "what certifies is not released")
            case Query() if any(read.step == query.id for read in step.reads) and not step.certifies:
                _fault(query, "what certifies is read by what is not")
            case _:
                pass


def _total(select: exp.Select) -> bool:
    """True if ORDER BY names every output, so that rows it leaves equal are equal."""
    order = select.args.get("order")
    outputs = [(output.alias_or_name, _spelled(output.unalias())) for output in select.expressions]
    covered: set[int] = set()
    for key in [ordered.this for ordered in order.expressions] if order is not None else []:
        if isinstance(key, exp.Var):  # ALL
            return True
        if isinstance(key, exp.Literal) and not key.is_string and key.name.isdecimal():
            covered.add(int(key.name) - 1)
            continue
        named = [
            i
            for i, (name, _) in enumerate(outputs)
            if isinstance(key, exp.Column) and not key.table and key.name == name
        ]
        covered.update(named or [i for i, (_, text) in enumerate(outputs) if text == _spelled(key)])
    return covered.issuperset(range(len(outputs))) and not any(o.is_star for o in select.expressions)


def _spelled(node: exp.Expr) -> str:
    return node.sql(dialect="duckdb", comments=False)


def depends_on_order(sql: str, texts: Texts | None = None) -> bool:
    """True if values, not only the order of rows, may depend on the order in which rows are read.

    texts: those of the plan.
    """
    tree = (texts or Texts()).tree(sql)
    summing = [kind for kind in expressions.AGGREGATES if kind is not exp.Count]
    return tree.find(exp.Group, exp.Distinct, exp.Anonymous, *summing) is not None


def _fault(query: Query, message: str) -> NoReturn:
    raise PeerFault(f"step {query.id}: {message}")
