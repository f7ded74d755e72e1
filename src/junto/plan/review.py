# SPDX-License-Identifier: Apache-2.0
"""The demands of a plan on one participant, worked out by that participant from the steps and the fragments alone.

A hostile asker writes plans by hand. So `check` accepts only plans of the shapes in `steps.py`: every reference leads
to an earlier step of the right kind, groups leave their owner only through one threshold over all contributors, which
all answer the same question, what is summed is what passed the threshold, everything that crosses is used by whom it
reaches, and the answer is the asker's alone. `review` adds what the party's own fragments need of its datasets, and
for whom: those demands are what its rules judge.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn, assert_never

from sqlglot import exp

from junto.catalog.dataset import Dataset
from junto.errors import DataChanged, InvalidInput, PeerFault, Refused
from junto.plan import fragment
from junto.plan.budget import check_budget
from junto.plan.certify import check_certifying, involved
from junto.plan.computing import computing_nodes, helper_of
from junto.plan.fragment import Table
from junto.plan.graph import certifying, reached
from junto.plan.owners import left_out, owners_together, rows_of, same_sources
from junto.plan.scopes import distinct
from junto.plan.steps import FORMAT, AnyStep, MaskedSum, Measure, Move, Plan, Query, Read, Release, Threshold
from junto.plan.texts import Texts
from junto.trust.allow import MAX_UNITS, MIN_UNITS, check_parties
from junto.trust.rules import Need, Verdict
from junto.types import DatasetName, Digest, PartyId, StepId

MOST_COLUMNS = 2048
MIN_DOMINANCE = 50
_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Demand:
    """The needs of a plan for one version of a participant's dataset, and the parties that learn from it."""

    dataset: DatasetName
    version: Digest
    step: StepId
    needs: tuple[Need, ...]
    recipients: tuple[PartyId, ...]
    units: int | None  # groups of fewer units stay hidden; None: the rows are seen, or the groups are the asker's own
    parties: int
    dominance: int  # sums of which one unit brings more per cent stay hidden
    alone: bool = False  # minima or maxima of groups show as this party's own
    columns: tuple[str, ...] = ()  # of the dataset that are read
    owners: tuple[PartyId, ...] = ()  # whose rows of the dataset's name are released together
    rows: Digest | None = None  # which rows groups are made of: see `owners.py`
    fragment: Digest | None = None  # and what is asked of them

    def check_owners(self, verdict: Verdict, known: Iterable[Dataset]) -> None:
        """Raises Refused if the plan leaves an owner out where the rules that served its needs ask for all of them.

        known: the datasets that all parties have published.
        """
        if verdict.owners == "any" or self.rows is None:
            return
        missing = left_out(verdict.asker, self.dataset, self.columns, self.owners, known)
        if missing:
            raise Refused(
                f"the plan leaves out {', '.join(missing)}, and the rules of {self.dataset} let it be seen only"
                f" together with all who publish {self.dataset}: ask for all of them, or have its owners write"
                ' owners = "any"'
            )

    def check(self, verdict: Verdict) -> None:
        """Raises Refused if the plan's threshold is lower than the rules that served its needs ask for."""
        if self.units is not None and (self.units < verdict.units or self.parties < verdict.parties):
            raise Refused(
                f"the plan shows groups of {self.units} units of {self.parties} parties; the rules of {self.dataset}"
                f" ask for {verdict.units} units of {verdict.parties} parties: compile the question again"
            )
        if self.units is not None and self.dominance > verdict.dominance:
            raise Refused(
                f"the plan shows sums of which one unit brings {self.dominance} %; the rules of {self.dataset} cap"
                f" it at {verdict.dominance} %: compile the question again"
            )
        if self.units is None and verdict.home_units and self.parties < verdict.parties:
            raise Refused(
                f"the rules of {self.dataset} show groups of {verdict.parties} parties, and the plan shows what"
                f" {self.parties} of them have: ask over all owners, or have a rule made for a role of yours"
            )
        if self.alone and verdict.parties > 1:
            raise Refused(
                f"minima and maxima show each owner's own, and the rules of {self.dataset} show only what"
                f" {verdict.parties} parties have together: leave MIN and MAX out"
            )


@dataclass(frozen=True, slots=True)
class Review:
    """All that a participant must permit for a plan to run."""

    party: PartyId
    demands: tuple[Demand, ...]
    lent: tuple[StepId, ...] = ()  # its parts that rest on no data of its own: work for the asker alone

    @property
    def versions(self) -> tuple[tuple[DatasetName, Digest], ...]:
        """The datasets read, and in which version."""
        return tuple(sorted({(demand.dataset, demand.version) for demand in self.demands}))


def review(plan: Plan, party: PartyId, datasets: Iterable[Dataset], texts: Texts | None = None) -> Review:
    """The demands of `plan` on `party`, whose own published datasets are given. Raises PeerFault if it is malformed,
    InvalidInput if it is too large to look at, DataChanged if it was compiled before a dataset's present version.

    The output that the party's own fragments give to itself alone, as the asker's do, is a demand with it as recipient.
    texts: the plan's, so that what else looks at it reads none of them again.
    """
    texts = texts or Texts()
    check(plan, texts)
    own = {dataset.name: dataset for dataset in datasets if dataset.party == party}
    demands: list[Demand] = []
    lent: list[StepId] = []
    told = involved(plan)
    try:
        for step in plan.steps:
            if isinstance(step, Query) and step.party == party:
                if step.id in told:
                    _check_open(step, own)
                if not _rests_on_own(plan, step):
                    lent.append(step.id)
                if step.certifies != plan.steps[-1].id:  # what the release is made of was looked at before
                    demands += _demands(plan, step, own, texts)
            elif isinstance(step, Threshold) and helper_of(step) == party:
                lent.append(step.id)
    except RecursionError as error:
        raise PeerFault("the plan holds SQL that is nested too deeply") from error
    return Review(party, tuple(demands), tuple(lent))


def check(plan: Plan, texts: Texts | None = None) -> None:
    """Raises InvalidInput if the plan is too large to look at, PeerFault unless it is of a shape Junto runs.

    Its steps are checked before a word of its SQL is read.
    """
    check_budget(plan)
    structure = _Structure(plan, texts or Texts())
    try:
        structure.check()
        structure.check_sql()
    except RecursionError as error:
        raise PeerFault("the plan holds SQL that is nested too deeply") from error


def _rests_on_own(plan: Plan, query: Query) -> bool:
    """True if a fragment reads a dataset of its party, or the output of another fragment that the party made of one."""
    return any(
        read.dataset is not None or any(_rests_on_own(plan, source) for source in _at_home(plan, query, read))
        for read in query.reads
    )


def _at_home(plan: Plan, query: Query, read: Read) -> Iterator[Query]:
    step = plan.step(read.step) if read.step is not None else None
    if isinstance(step, Query) and step.party == query.party:
        yield step


def _check_open(query: Query, own: Mapping[DatasetName, Dataset]) -> None:
    """Raises Refused if a certificate would tell all participants a digest of rows that not everybody may see."""
    for read in query.reads:
        dataset = own.get(read.dataset) if read.dataset is not None else None
        if dataset is not None and not fragment.is_open(dataset):
            raise Refused(
                f"{dataset.name} of {dataset.party} is not open, and to certify what comes of it would tell everybody a"
                " digest by which it can be guessed: leave certify out"
            )


def _demands(plan: Plan, query: Query, own: Mapping[DatasetName, Dataset], texts: Texts) -> list[Demand]:
    tables = {read.name: _table(plan, query, read, own) for read in query.reads}
    reading = fragment.read(query, tables, texts)
    for read in query.reads:
        used = reading.used.get(read.name)
        if used is None:
            _fault(query, f"it says it reads {read.name[:60]!r}, and does not")
        if read.columns != used:
            _fault(query, f"it says it reads {_listed(read.columns)} of {read.name}; its SQL reads {_listed(used)}")
    if query.keys is None and reading.columns != query.columns:
        _fault(query, f"its outputs are {_listed(reading.columns)}; it says {_listed(query.columns)}")
    thresholds = [s for s in plan.steps if isinstance(s, Threshold)]
    threshold = next((s for s in thresholds if query.id in s.inputs), None)
    beside = thresholds if query.keys is not None else []  # groups of the asker's own are shown with those that pass
    recipients = _recipients(plan, query)
    alone = any(isinstance(s, Move) and s.input == query.id and s.threshold is not None for s in plan.steps)
    alone = alone or (query.party == plan.asker and any(measure.combine != "sum" for measure in query.measures))
    rows = rows_of(plan, query, texts) if threshold is not None else None
    fragment_digest = Digest("sha256:" + hashlib.sha256(query.sql.encode()).hexdigest())
    found = []
    for read in query.reads:
        dataset = tables[read.name].dataset
        if dataset is not None:
            found.append(
                Demand(
                    dataset.name,
                    dataset.version,
                    query.id,
                    tuple(need for need in reading.needs if need.dataset == dataset.name),
                    recipients,
                    threshold.units if threshold is not None else None,
                    max((s.parties for s in beside), default=1),
                    threshold.dominance if threshold is not None else 100,
                    alone,
                    read.columns,
                    owners_together(plan, query, read),
                    rows,
                    fragment_digest,
                )
            )
    if threshold is not None and threshold.tokens == "hmac" and query.keys:
        found += [_of_contributors(demand, threshold) for demand in found]
    return [demand for demand in found if demand.recipients]


def _of_contributors(demand: Demand, threshold: Threshold) -> Demand:
    """The demand on what contributors who share the tokens' key may learn: they can test any group they guess."""
    needs = guessed(demand.needs)
    others = tuple(sorted(set(threshold.contributors) - {needs[0].party})) if needs else ()
    return replace(demand, needs=needs, recipients=others, units=None, rows=None, alone=False)


def guessed(needs: Iterable[Need]) -> tuple[Need, ...]:
    """The needs of which a group's being there tells something: of its keys, and of the conditions on its rows."""
    return tuple(need for need in needs if need.allow in ("group", "filter"))


def _table(plan: Plan, query: Query, read: Read, own: Mapping[DatasetName, Dataset]) -> Table:
    if read.step is not None:
        source = plan.step(read.step)
        return Table(source.columns if isinstance(source, Move | Query) else ())
    dataset = own.get(read.dataset or DatasetName(""))
    if dataset is None:
        _fault(query, f"{query.party} has no dataset {(read.dataset or '')[:60]!r}")
    if dataset.version != read.version:
        raise DataChanged(
            f"dataset {dataset.name} of {query.party} has a new version since the question was compiled: ask again"
        )
    return Table(tuple(column.name for column in dataset.columns), dataset)


def _recipients(plan: Plan, query: Query) -> tuple[PartyId, ...]:
    """Whoever may learn from a fragment's output: the asker, those to whom it moves, and those whom they tell."""
    reached: set[StepId] = {query.id}
    people = {plan.asker}
    for step in plan.steps:  # in dependency order
        match step:
            case Move() if step.input in reached:
                reached.add(step.id)
                people.update(step.to)
            case Query() if any(read.step in reached for read in step.reads):
                reached.add(step.id)
            case _:
                pass
    return tuple(sorted(people))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:20]) or "no column"


def _fault(step: AnyStep, message: str) -> NoReturn:
    raise PeerFault(f"step {step.id}: {message}")


class _Structure:
    """A plan's shape, step by step."""

    def __init__(self, plan: Plan, texts: Texts) -> None:
        self._plan = plan
        self._texts = texts
        self._earlier: dict[StepId, AnyStep] = {}
        self._in_sql: list[Callable[[], None]] = []  # what is to be looked at in SQL, once all steps fit together

    def check_sql(self) -> None:
        """Raises PeerFault unless the SQL of the steps is what they say. `check` comes first."""
        for look in self._in_sql:
            look()

    def check(self) -> None:
        """Raises PeerFault unless the steps fit together."""
        plan = self._plan
        if plan.format != FORMAT:
            raise PeerFault(
                f"the plan is of format {plan.format}; this node reads format {FORMAT}: run the same Junto everywhere"
            )
        if not plan.steps:
            raise PeerFault("the plan has no steps")
        try:
            check_parties(plan.parties)
        except InvalidInput as error:
            raise PeerFault(f"the plan names a party that cannot be one: {error}") from error
        for step in plan.steps:
            if not _ID.fullmatch(step.id) or step.id in self._earlier:
                raise PeerFault(f"the plan has a step called {step.id[:60]!r}, which is no name, or another's")
            self._step(step)
            self._earlier[step.id] = step
        self._end()

    def _step(self, step: AnyStep) -> None:
        match step:
            case Query():
                self._query(step)
            case Threshold():
                self._threshold(step)
            case MaskedSum():
                self._masked_sum(step)
            case Move():
                self._move(step)
            case Release():
                self._release(step)
            case _:
                assert_never(step)

    def _end(self) -> None:
        """One answer, the asker's, and nothing that does not serve it."""
        *before, last = self._plan.steps
        if not isinstance(last, Release) or any(isinstance(step, Release) for step in before):
            raise PeerFault("a plan ends with its one release")
        thresholds = [step for step in before if isinstance(step, Threshold)]
        if len(thresholds) > 1 or (thresholds and last.threshold != thresholds[0].id):
            raise PeerFault("a plan has one threshold at most, and releases what passed it")
        served = reached(self._plan, [last.id, *(query.id for query in certifying(self._plan))])
        self._in_sql.append(partial(check_certifying, self._plan, self._texts))
        for step in before:
            if step.id not in served:
                _fault(step, "nothing comes of it in the answer")
            if isinstance(step, Query):
                self._one_use(step, last)
            if isinstance(step, Move):
                self._every_recipient_uses(step, last)

    def _one_use(self, query: Query, release: Release) -> None:
        """A fragment's output goes one way: into the threshold, or out as rows, or into its own party's work."""
        moves = [s for s in self._plan.steps if isinstance(s, Move) and s.input == query.id]
        inside = any(isinstance(s, Threshold) and query.id in s.inputs for s in self._plan.steps)
        if len(moves) > 1 or (release.own == query.id and (moves or inside)):
            _fault(query, "its output is used in two ways")

    def _every_recipient_uses(self, move: Move, release: Release) -> None:
        readers = {s.party for s in self._plan.steps if isinstance(s, Query) for r in s.reads if r.step == move.id}
        if move.id in release.moves:
            readers.add(release.receiver)
        idle = sorted(set(move.to) - readers)
        if idle:
            _fault(move, f"it tells {idle[0]} what {idle[0]} has no use for")

    def _query(self, step: Query) -> None:
        names = [read.name for read in step.reads]
        if not names or not distinct(names):
            _fault(step, "it reads no table, or two of one name")
        for read in step.reads:
            self._read(step, read)
        if step.keys is None:
            if step.measures or step.key_types or not step.columns or len(step.columns) != len(step.column_types):
                _fault(step, "a fragment of rows has columns with types, and neither measures nor keys")
            if len(step.columns) > MOST_COLUMNS or not distinct(step.columns):
                _fault(step, f"it has {len(step.columns)} columns, or two of one name")
        else:
            if step.columns or step.column_types or len(step.keys) != len(step.key_types):
                _fault(step, "a fragment that groups has keys with types, and no further columns")
            if len(step.keys) + len(step.measures) > MOST_COLUMNS:
                _fault(step, f"it has more than {MOST_COLUMNS} keys and measures")
            _check_measures(step)

    def _read(self, step: Query, read: Read) -> None:
        if (read.step is None) == (read.dataset is None) or (read.dataset is None) != (read.version is None):
            _fault(step, f"{read.name[:60]!r} is neither a version of a dataset nor an earlier step")
        if read.columns != tuple(sorted(set(read.columns))):
            _fault(step, f"the columns of {read.name[:60]!r} are not in order")
        if read.step is None:
            return
        source = self._before(step, read.step)
        match source:
            case Query() if source.keys is None and source.party == step.party:
                pass
            case Move() if source.threshold is None and step.party in source.to:
                pass
            case _:
                _fault(step, f"step {read.step} gives {step.party} no rows to read")

    def _threshold(self, step: Threshold) -> None:
        queries = [self._grouped(step, id) for id in step.inputs]
        if not queries or tuple(q.party for q in queries) != step.contributors:
            _fault(step, "its inputs are not the fragments of its contributors, in their order")
        if len(set(step.contributors)) != len(step.contributors) or step.receiver in step.contributors:
            _fault(step, "a contributor is named twice, or receives")
        if step.receiver != self._plan.asker:
            _fault(step, f"{step.receiver} receives; only the asker does")
        if step.contributors != tuple(sorted(step.contributors)):
            _fault(step, "its contributors are not in the order of their names")
        nodes = computing_nodes(step.contributors, step.receiver, helper_of(step))
        if step.nodes != nodes:
            _fault(step, f"it is computed by {', '.join(nodes)}, in that order, and nobody else")
        if not MIN_UNITS <= step.units <= MAX_UNITS or not 1 <= step.parties <= len(step.contributors):
            _fault(
                step, f"{step.units} units of {step.parties} parties is no threshold for {len(queries)} contributors"
            )
        if not MIN_DOMINANCE <= step.dominance <= 100:
            _fault(step, f"one unit may be {step.dominance} % of a sum; from {MIN_DOMINANCE} to 100 can be asked for")
        for query in queries[1:]:
            self._same(step, queries[0], query, f"{query.party} is asked something else than {queries[0].party}")
            self._in_sql.append(partial(self._same_tables, step, queries[0], query))

    def _masked_sum(self, step: MaskedSum) -> None:
        threshold = self._threshold_of(step, step.threshold)
        first = self._grouped(step, threshold.inputs[0])
        if (step.inputs, step.contributors, step.receiver) != (
            threshold.inputs,
            threshold.contributors,
            threshold.receiver,
        ):
            _fault(step, "it sums for others, or of others, than the threshold looked at")
        if not step.measures or step.measures != _summed(first):
            _fault(step, "it sums other measures than the fragments have")
        if any(isinstance(earlier, MaskedSum) for earlier in self._earlier.values()):
            _fault(step, "the sums are given twice")

    def _move(self, step: Move) -> None:
        query = self._before(step, step.input)
        if not isinstance(query, Query) or query.party != step.sender:
            _fault(step, f"{step.sender} has no output {step.input} to move")
        if not step.to or len(set(step.to)) != len(step.to) or step.sender in step.to:
            _fault(step, "it goes to nobody, to somebody twice, or to its sender")
        if step.threshold is None:
            if query.keys is not None:
                _fault(step, "groups move only with a threshold")
            if step.columns != query.columns:
                _fault(step, "it moves other columns than the fragment gives")
            return
        threshold = self._threshold_of(step, step.threshold)
        extremes = tuple(m.name for m in query.measures if m.combine != "sum")
        if query.id not in threshold.inputs or step.to != (threshold.receiver,):
            _fault(step, "it moves groups that the threshold did not look at, or to somebody else")
        if not extremes or step.columns != (*(query.keys or ()), *extremes):
            _fault(step, "it moves more of the groups than keys and extremes")

    def _release(self, step: Release) -> None:
        if step.receiver != self._plan.asker:
            _fault(step, f"{step.receiver} receives the answer; only the asker does")
        if len(step.columns) != len(step.column_types) or not step.columns:
            _fault(step, "its columns have no types, or there are none")
        own = self._before(step, step.own) if step.own is not None else None
        if own is not None and (not isinstance(own, Query) or own.party != step.receiver):
            _fault(step, "what it calls the receiver's own is not")
        moves = [self._moved(step, id) for id in step.moves]
        if len({move.id for move in moves}) != len(moves):
            _fault(step, "it takes a move twice")
        if step.threshold is not None:
            held = self._release_of_groups(step, self._threshold_of(step, step.threshold), own, moves)
        elif own is not None and own.keys is not None:
            held = self._release_of_own_groups(step, own)
        else:
            held = self._release_of_rows(step, own, moves)
        self._in_sql.append(partial(_check_release_sql, step, held, self._texts))

    def _release_of_rows(self, step: Release, own: Query | None, moves: Sequence[Move]) -> tuple[str, ...]:
        if step.sums is not None or step.deviations:
            _fault(step, "it has sums without a threshold")
        if any(move.threshold is not None or step.receiver not in move.to for move in moves):
            _fault(step, "it takes a move that is not of rows to the receiver")
        queries = [self._earlier[move.input] for move in moves] + ([own] if own is not None else [])
        shapes = {(q.keys, q.columns, q.column_types) for q in queries if isinstance(q, Query)}
        if len(shapes) != 1 or any(keys is not None for keys, _, _ in shapes):
            _fault(step, "it takes no rows, or rows of different columns")
        return next(columns for _, columns, _ in shapes)

    def _release_of_own_groups(self, step: Release, own: Query) -> tuple[str, ...]:
        """Nobody else has a part: groups of the receiver's own, which nothing crosses for."""
        if step.sums is not None or step.moves:
            _fault(step, "it takes groups of others without a threshold")
        return _released_columns(step, own)

    def _release_of_groups(
        self, step: Release, threshold: Threshold, own: Query | None, moves: Sequence[Move]
    ) -> tuple[str, ...]:
        first = self._grouped(step, threshold.inputs[0])
        if own is not None:
            self._same(step, first, own, "the receiver's own fragment answers something else")
        extremes = any(m.combine != "sum" for m in first.measures)
        senders = tuple(sorted(move.sender for move in moves))
        if senders != (tuple(sorted(threshold.contributors)) if extremes else ()):
            _fault(step, "extremes come from each contributor, once")
        if any(move.threshold != threshold.id for move in moves):
            _fault(step, "it takes rows beside groups")
        if (step.sums is not None) != bool(_summed(first)):
            _fault(step, "it takes no sums, or sums that are none")
        if step.sums is not None and not isinstance(self._before(step, step.sums), MaskedSum):
            _fault(step, f"step {step.sums} gives no sums")
        return _released_columns(step, first)

    def _same(self, step: AnyStep, one: Query, other: Query, otherwise: str) -> None:
        def look() -> None:
            if not fragment.same_question(one, other, self._texts):
                _fault(step, otherwise)

        self._in_sql.append(look)

    def _same_tables(self, step: AnyStep, one: Query, other: Query) -> None:
        if not same_sources(self._plan, one, other, self._texts):
            _fault(step, f"{other.party} is to read other tables than {one.party}")

    def _before(self, step: AnyStep, id: StepId) -> AnyStep:
        found = self._earlier.get(id)
        if found is None:
            _fault(step, f"it refers to step {id[:60]!r}, which does not come before it")
        return found

    def _grouped(self, step: AnyStep, id: StepId) -> Query:
        found = self._before(step, id)
        if not isinstance(found, Query) or found.keys is None:
            _fault(step, f"step {id} gives no groups")
        return found

    def _threshold_of(self, step: AnyStep, id: StepId) -> Threshold:
        found = self._before(step, id)
        if not isinstance(found, Threshold):
            _fault(step, f"step {id} is no threshold")
        return found

    def _moved(self, step: Release, id: StepId) -> Move:
        found = self._before(step, id)
        if not isinstance(found, Move):
            _fault(step, f"step {id} moves nothing")
        return found


def _summed(query: Query) -> tuple[Measure, ...]:
    return tuple(measure for measure in query.measures if measure.combine == "sum")


def _released_columns(step: Release, query: Query) -> tuple[str, ...]:
    """The columns of `released` where groups of a fragment are: keys, measures, and deviations that are of its sums."""
    sums = {m.name: m for m in _summed(query)}
    for i, deviation in enumerate(step.deviations):
        n, s, ss = (sums.get(name) for name in (deviation.n, deviation.s, deviation.ss))
        if n is None or s is None or ss is None or deviation.name != f"d{i}":
            _fault(step, "a deviation is of no sums")
        exact = s.encoding == ss.encoding == "integer" and ss.scale == 2 * s.scale
        if n.encoding != "count" or not (exact or (s == ss and s.encoding == "spread")):
            _fault(step, f"deviation {deviation.name} is not of a count and a spread, or sums of values and squares")
    deviations = tuple(deviation.name for deviation in step.deviations)
    shown = tuple(m.name for m in query.measures if m.encoding != "spread")
    return (*(query.keys or ()), *shown, *deviations)


def _check_measures(step: Query) -> None:
    for measure in step.measures:
        exact = measure.encoding == "integer"
        if measure.scale < 0 or measure.scale > 38 or (measure.scale and not exact):
            _fault(step, f"measure {measure.name[:20]} has scale {measure.scale}")
        if (measure.combine == "sum") == (measure.encoding == "value"):
            _fault(step, f"measure {measure.name[:20]} cannot be combined by {measure.combine}")


def _check_release_sql(step: Release, held: tuple[str, ...], texts: Texts) -> None:
    """The release reads `released` and nothing else, by columns that are there."""
    try:
        canonical = texts.canonical(step.sql)
    except InvalidInput as error:
        raise PeerFault(f"step {step.id}: the release is not SQL that Junto runs: {error}") from error
    tree = texts.tree(step.sql)
    if not canonical:
        _fault(step, "the release is not in its one canonical spelling")
    tables = list(tree.find_all(exp.Table))
    if len(tables) != 1 or tables[0].name != "released" or tables[0].args.get("db") or tables[0].args.get("alias"):
        _fault(step, "the release reads something else than what was released")
    if len(list(tree.find_all(exp.Select))) != 1 or tree.args.get("joins") or tree.args.get("with_"):
        _fault(step, "the release holds a join or a subquery")
    for column in tree.find_all(exp.Column):
        if column.args.get("table") is not None or column.name not in held:
            _fault(step, f"the release reads column {column.name[:60]!r}, which was not released")
    if tuple(projection.alias for projection in tree.expressions) != step.columns:
        _fault(step, "the release gives other columns than it says")
