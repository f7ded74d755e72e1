# SPDX-License-Identifier: Apache-2.0
"""Our own judgement of a proposed plan: what it would disclose, by our reading of its fragments, under our rules.

Nothing in the plan is believed. Every decision is journaled, whichever way it goes. Grants that a task rests on are
counted as used when its contract is in force, before our part begins.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from junto.catalog.dataset import Dataset
from junto.errors import Cancelled, InvalidInput, JuntoError, Refused
from junto.journal.reading import Entry
from junto.journal.statement import body_of
from junto.node.facts import Facts, GrantUse
from junto.node.ledger import Ledger
from junto.node.lending import Lending
from junto.node.reading import Found, Reader
from junto.node.shelf import Shelf
from junto.node.shown import REMEMBERED_SECONDS, Remembered, Shown
from junto.node.turns import Turns
from junto.plan.budget import check_budget, sql_characters
from junto.plan.fragment import is_open
from junto.plan.review import Review
from junto.plan.steps import Plan, Query
from junto.tasks.bodies import Estimate, Proposal, Version
from junto.tasks.events import Forbidden, Permitted
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.trust.grants import GrantId
from junto.trust.names import parse_name
from junto.trust.rights import Rights
from junto.trust.rules import Verdict, judge, may_learn, refused_line
from junto.types import DatasetName, Digest, PartyId, TaskId

_KNOWN_PLANS = 256
_EXPLAINED_CHARACTERS = 8_000
"""The most SQL that is read for the sake of a refusal, which then says what it would take."""
_Key = tuple[Digest, tuple[tuple[DatasetName, Digest], ...]]


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a `decision` statement: what was judged, by which rules and grants, and how."""

    plan_digest: Digest
    allowed: bool
    code: str
    reason: str
    disclosures: Digest | None
    rules: tuple[str, ...]
    grants: tuple[GrantId, ...]
    home_units: int = 0  # groups of our own data with fewer units stay hidden from our own user
    shown: tuple[Shown, ...] = ()
    home_dominance: int = (
        100  # groups of our own data with a sum of which one unit brings more per cent stay hidden, too
    )


@dataclass(frozen=True, slots=True)
class HomeLimits:
    """The limits below which groups of our own data stay hidden from our own user who asks."""

    units: int
    dominance: int


class Judgement:
    """Judges for one party."""

    def __init__(
        self,
        me: PartyId,
        facts: Facts,
        shelf: Shelf,
        ledger: Ledger,
        unix_time: Callable[[], float],
        rights: Callable[[str], Rights],
        reader: Reader,
        turns: Turns,
        lending: Lending,
    ) -> None:
        """`rights` says what a user of ours may do now; our own proposals name the user whom the link authenticated.

        `turns` are those at reading plans.
        """
        self._reader = reader
        self._turns = turns
        self._lending = lending
        self._me = me
        self._facts = facts
        self._shelf = shelf
        self._ledger = ledger
        self._unix_time = unix_time
        self._rights = rights
        self._known: dict[_Key, Found] = {}
        self._resting: dict[TaskId, Decision] = {}
        self._remembered = Remembered()

    async def of(self, task: Task) -> Permitted | Forbidden:
        """The decision whether we may take part, already in the journal. Raises StorageFailed."""
        proposal = task.proposal
        verdicts: Sequence[Verdict] = ()
        digest: Digest | None = None
        error: JuntoError | None = None
        versions: tuple[Version, ...] = ()
        shown: tuple[Shown, ...] = ()
        rows = size = 0
        home: HomeLimits | None = None
        try:
            known = await self._read(task)
            found, digest = known.review, known.disclosures
            versions = tuple(Version(self._me, name, version) for name, version in found.versions)
            read = [await self._unchanged(version) for version in versions]
            rows, size = sum(d.rows for d in read), sum(d.bytes for d in read)
            verdicts, home = self._judge(found, proposal, task.asker)
            self._lending.check(found, task.asker)
            await self._lending.check_nodes(proposal.plan)
            shown = _shown(found, proposal)
        except JuntoError as refusal:
            error = refusal
        if any(not verdict.allowed for verdict in verdicts):
            error = Refused(refused_line(verdicts))
        grants = tuple(sorted({grant for verdict in verdicts for grant in verdict.used_grants}))
        rules = tuple(sorted({rule for verdict in verdicts for rule in verdict.used_rules}))
        code, reason = (error.code, str(error)) if error is not None else ("", "")
        if error is None:
            self._remembered.judged(task.id, task.asker, shown)
        shown = shown if error is None else ()
        decision = Decision(proposal.plan_digest, error is None, code, reason, digest, rules, grants, 0, shown)
        if home is not None:
            decision = msgspec.structs.replace(decision, home_units=home.units, home_dominance=home.dominance)
        await self._ledger.write("decision", decision, task.id)
        if error is not None or digest is None:
            return Forbidden(code, reason, self._unix_time())
        self._resting[task.id] = decision
        return Permitted(digest, versions, Estimate(rows, size), self._unix_time())

    async def begin(self, task: TaskId) -> None:
        """Count the grants that a contracted task rests on, and remember the owners that it takes together.

        Raises Refused if a grant was used up or revoked meanwhile.
        """
        self._remembered.begun(task, self._unix_time())
        known = self._resting.pop(task, None)
        # A task that an earlier process of this node judged may have its grants counted already.
        grants = known.grants if known is not None else self._uncounted(task)
        if not grants:
            return
        standing = {grant.id: grant for grant in self._facts.grants}
        used = self._facts.grant_uses
        for id in grants:
            if id not in standing or not standing[id].in_force(self._unix_time(), used.get(id, 0)):
                raise Refused(f"grant {id} of {self._me} was used up, revoked or has ended since the task was judged")
        self._facts.absorb(await self._ledger.write("grant-use", GrantUse(grants), task))

    def home_limits(self, task: TaskId) -> HomeLimits | None:
        """The limits for groups of our own data that our user asked for; None if that user sees them all."""
        known = self._resting.get(task) or self._decided(task)
        return HomeLimits(known.home_units, known.home_dominance) if known is not None and known.home_units else None

    def _uncounted(self, task: TaskId) -> tuple[GrantId, ...]:
        """The grants that a task of the journal rests on and that are not counted yet."""
        if any(True for _ in self._our(task, "grant-use")):
            return ()
        decided = self._decided(task)
        return decided.grants if decided is not None else ()

    def _decided(self, task: TaskId) -> Decision | None:
        """The judgement of a task that allowed it, as the journal has it."""
        found = [body_of(entry.statement, Decision) for entry in self._our(task, "decision")]
        return next((decision for decision in reversed(found) if decision.allowed), None)

    def _our(self, task: TaskId, kind: str) -> Iterator[Entry]:
        me = self._ledger.name.party
        entries = self._ledger.journal.entries(kinds=(kind,), task=task)
        return (entry for entry in entries if parse_name(entry.author).party == me)

    def forget(self, task: TaskId) -> None:
        """The task has ended."""
        self._resting.pop(task, None)
        self._remembered.dropped(task)

    def recall(self) -> None:
        """At start: the sets of owners that our rows were released with, or may be by tasks that are still open."""
        now = self._unix_time()
        asked: dict[TaskId, tuple[PartyId, Entry]] = {}
        decided: dict[TaskId, tuple[Shown, ...]] = {}
        for entry in self._ledger.journal.entries(kinds=("proposal", "decision", "contract")):
            if entry.at < now - REMEMBERED_SECONDS:
                continue
            author = parse_name(entry.author).party
            if entry.kind == "proposal":
                asked.setdefault(entry.task, (author, entry))
            elif entry.kind == "decision" and author == self._me:
                decided[entry.task] = body_of(entry.statement, Decision).shown
            elif entry.kind == "contract" and entry.task in asked and asked[entry.task][0] == author:
                self._remembered.remember(author, decided.pop(entry.task, ()), entry.at)
        for task, shown in decided.items():
            if shown and task in asked:
                asker, entry = asked[task]
                if now < entry.at + body_of(entry.statement, Proposal).seconds:
                    self._remembered.judged(task, asker, shown)

    async def _unchanged(self, version: Version) -> Dataset:
        """Our dataset in that version, its files still what was published. Raises DataChanged, InvalidInput."""
        dataset = self._facts.view.get(self._me, version.dataset)
        if dataset is None:
            raise InvalidInput(f"{self._me} has no dataset {version.dataset}; `junto dataset ls` lists them")
        await asyncio.to_thread(self._shelf.check, version.dataset, version.version)
        return dataset

    async def _read(self, task: Task) -> Found:
        """The demands and disclosures of a plan; read once for the same plan and datasets, in a turn of its asker.

        Checks that need no SQL come before. Raises what `review` does, and Refused, Busy, Cancelled.
        """
        proposal = task.proposal
        check_budget(proposal.plan)
        own = self._facts.view.of(self._me)
        # The digest was compared with the plan when the proposal came; rules are part of a version.
        key = (proposal.plan_digest, tuple((dataset.name, dataset.version) for dataset in own))
        if key not in self._known:
            self._check_standing(proposal, task.asker)
            async with self._turns.of(task.asker):
                if task.state in ENDED:
                    raise Cancelled(f"task {task.id} ended before its plan was read")
                if key not in self._known:
                    found = await self._reader(proposal.plan, self._me, _read_of(proposal.plan, self._me, own))
                    if len(self._known) >= _KNOWN_PLANS:
                        self._known.pop(next(iter(self._known)))
                    self._known[key] = found
        return self._known[key]

    def _check_standing(self, proposal: Proposal, asker: PartyId) -> None:
        """Raises Refused if no rule and no grant could let the asker learn anything of a dataset that is read.

        The SQL of a short plan is read all the same: the refusal then names column, rule and the grant that would do.
        """
        if asker == self._me or sql_characters(proposal.plan) <= _EXPLAINED_CHARACTERS:
            return
        for dataset in _read_of(proposal.plan, self._me, self._facts.view.of(self._me)):
            if not may_learn(
                dataset.rules,
                [grant for grant in self._facts.grants if grant.dataset == dataset.name],
                asker=asker,
                purpose=proposal.purpose,
                now=self._unix_time(),
                used=self._facts.grant_uses,
            ):
                raise Refused(
                    f"{self._me} refuses {asker}: no rule and no grant of {dataset.name} lets {asker} learn anything of"
                    f" it for this purpose, so the plan's SQL was not read; ask {self._me} for one, or ask a shorter"
                    " question to be told which it takes"
                )

    def _judge(self, found: Review, proposal: Proposal, asker: PartyId) -> tuple[list[Verdict], HomeLimits | None]:
        """The verdicts, and the limits for groups of our own that our own user asks for."""
        own = {dataset.name: dataset for dataset in self._facts.view.of(self._me)}
        now = self._unix_time()
        rights = self._rights(proposal.user) if asker == self._me else None
        verdicts: list[Verdict] = []
        units, dominance = 0, 100
        for demand in found.demands:
            verdict = judge(
                demand.dataset,
                own[demand.dataset].rules,
                self._facts.grants,
                demand.needs,
                recipients=demand.recipients,
                asker=asker,
                purpose=proposal.purpose,
                now=now,
                used=self._facts.grant_uses,
                rights=rights,
            )
            if verdict.allowed:
                demand.check(verdict)
                demand.check_owners(verdict, self._facts.view.datasets)
                self._remembered.check(asker, demand, verdict, now)
            verdicts.append(verdict)
            if not is_open(own[demand.dataset]) and verdict.home_units:
                units, dominance = max(units, verdict.home_units), min(dominance, verdict.dominance)
        return verdicts, HomeLimits(units, dominance) if units else None


def _read_of(plan: Plan, party: PartyId, own: Sequence[Dataset]) -> list[Dataset]:
    """The datasets of a party that a plan says it reads there."""
    named = {
        read.dataset for step in plan.steps if isinstance(step, Query) and step.party == party for read in step.reads
    }
    return [dataset for dataset in own if dataset.name in named]


def _shown(found: Review, proposal: Proposal) -> tuple[Shown, ...]:
    """The sets of owners that a plan shows our groups with; to us alone it shows nothing new."""
    return tuple(
        Shown(demand.dataset, demand.rows, demand.fragment, demand.owners, proposal.purpose)
        for demand in found.demands
        if demand.rows is not None and demand.fragment is not None and demand.recipients != (found.party,)
    )
