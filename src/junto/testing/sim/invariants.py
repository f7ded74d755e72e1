# SPDX-License-Identifier: Apache-2.0
"""The invariants under any failure: checked after every message, now and then in between, and once all is mended."""

import functools
from collections import defaultdict
from collections.abc import Iterable

import duckdb
import msgspec
import pyarrow as pa

from junto.errors import DeadlineExceeded
from junto.journal import tree
from junto.journal.statement import body_of, read_statement
from junto.link import methods
from junto.link.connection import Answer
from junto.node.cache import Copy
from junto.node.exchange import decode_pull
from junto.node.runner import ENDED_TASKS, Live
from junto.plan.steps import MaskedSum, Move, Plan, Query, Release, Threshold, parties_of
from junto.tasks.bodies import Contract, Proposal
from junto.tasks.table import ENDED
from junto.tasks.waiting import Wait
from junto.testing.sim.workload import QUESTIONS, Asked, table_of
from junto.testing.sim.world import World
from junto.trust.names import parse_name
from junto.types import PartyId, TaskId

_NEVER = ("internal", "peer-fault", "invalid-transition")
"""Nobody lies here: a task that ends by one of these was ended by a bug."""

_ENOUGH_SECONDS = 20.0
"""A contracted task has so long once all is mended, and must then be done."""


_ROOM_SECONDS = 16.0
"""A contracted task that has so long left, and as long before, outlasts a full disk."""


_LATE_SECONDS = 2.0
"""A task ends at each node by its own clock, so long after its deadline at most."""


_AT_ONCE = 10
"""The number of tasks that may end at once, and so in another order than the journal has them."""


class Broken(AssertionError):
    """An invariant does not hold."""


class Invariants:
    """Watches one run. Raises Broken, naming what does not hold."""

    def __init__(self, world: World, asked: dict[TaskId, Asked]) -> None:
        self._world = world
        self._asked = asked
        self._acknowledged: dict[PartyId, set[str]] = defaultdict(set)  # party → statement ids it said it has
        self._promised: dict[TaskId, PartyId] = {}
        self.done = 0
        self.broken = ""
        self.healed_at = 0.0
        self.clocks_agree = True
        self.ended: dict[str, int] = defaultdict(int)
        world.network.before_call = self.before_call
        world.network.after_call = self.after_call
        world.changed = self.changed

    # ── with every message ──

    def before_call(self, sender: PartyId, to: PartyId, method: str, payload: bytes) -> None:
        """Every statement that a node tells is already durable in its own journal: persist, then send."""
        if method != methods.PEER_TELL:
            return
        for statement in _statements(payload):
            if parse_name(statement[1]).party == sender:
                self._must(self._has(sender, statement[0]), f"{sender} tells {to} what its journal does not have")

    def after_call(self, sender: PartyId, to: PartyId, method: str, payload: bytes, answer: Answer) -> None:
        """A node has each statement that it acknowledges; the contract names each output that it serves to a party."""
        if method == methods.PEER_TELL:
            for id, _ in _statements(payload):
                self._must(self._has(to, id), f"{to} acknowledges a statement of {sender} that it does not have")
                self._acknowledged[to].add(id)
        elif method in (methods.PEER_PULL, methods.PEER_READ):
            pull = decode_pull(payload)
            plan = self._contracted(to, pull.task)
            self._must(plan is not None, f"{to} serves {sender} an output of a task without a contract")
            if plan is not None:
                self._must(
                    _is_for(plan, pull.step, to, sender), f"{to} serves {sender} step {pull.step}, not meant for it"
                )

    def promised(self, party: PartyId, task: TaskId) -> None:
        """A node told its user that it has the question."""
        self._promised[task] = party
        self._must(self._proposal(party, task) is not None, f"{party} accepts task {task}, and its journal has it not")

    # ── with every event of a task ──

    def changed(self, party: PartyId, live: Live) -> None:
        """Every open task waits for somebody, by a deadline. Kept until `check`: this is called by the node."""
        task = live.task
        if self.broken or task.state in ENDED or task.state == "new":
            return
        waits = task.waits()
        if not waits:
            self.broken = f"task {task.id} is {task.state} at {party} and waits for nobody"
        elif any(wait.until > task.deadline + 1e-6 for wait in waits):
            self.broken = f"task {task.id} at {party} waits beyond its deadline"

    def check(self) -> None:
        """Raises Broken if it was found meanwhile, or if something is reserved for a task whose contract never came."""
        self._must(not self.broken, self.broken)
        for pair in self._world.pairs.values():
            self._must(not pair.late, pair.late)
        for party, running in self._world.running.items():
            if not running.ready or running.process.paused:
                continue
            top = running.node.admission.view()
            clock = self._world.loop.time()
            runs_for = clock - running.process.resumed_at
            late = [held.task for held in top.held if held.lapses_at is not None and held.lapses_at < top.at - 1.0]
            if runs_for > 1.0:
                self._must(not late, f"{party} still reserves for {late[:1]}, and the reservation has lapsed")
                beyond = [r.task for r in running.node.admission._resources._waiting.values() if r.until < clock - 1.0]
                self._must(not beyond, f"{beyond[:1]} waits in line at {party}, and the limit of its wait has passed")
            now = self._world.unix_time(party)
            if self.clocks_agree and runs_for > _LATE_SECONDS:
                for live in running.node.runner.open:
                    overdue = now - live.task.deadline
                    self._must(
                        overdue < _LATE_SECONDS,
                        f"task {live.task.id} is {live.task.state} at {party}, {overdue:.1f} s past its deadline",
                    )

    # ── at the end ──

    def finish(self) -> None:
        """Check once all is mended and every deadline has passed."""
        world = self._world
        receipts: dict[TaskId, set[str]] = defaultdict(set)
        contracts: dict[TaskId, set[str]] = defaultdict(set)
        wrote: dict[PartyId, set[TaskId]] = defaultdict(set)  # whose receipts
        for party in world.parties:
            held = {entry.id for entry in world.disks[party].entries}
            lost = self._acknowledged[party] - held
            self._must(not lost, f"{party} has lost {len(lost)} statements that it had acknowledged")
            self._journal(party)
            uses: dict[TaskId, int] = defaultdict(int)
            for entry in world.disks[party].entries:
                if entry.kind == "receipt":
                    receipts[entry.task].add(entry.id)
                    if parse_name(entry.author).party == party:
                        wrote[party].add(entry.task)
                if entry.kind == "contract":
                    contracts[entry.task].add(entry.id)
                if entry.kind == "grant-use" and parse_name(entry.author).party == party:
                    uses[entry.task] += 1
            self._must(all(count == 1 for count in uses.values()), f"{party} counts a grant twice for one task")
        for found, what in ((receipts, "receipts"), (contracts, "contracts")):
            twice = [task for task, ids in found.items() if len(ids) > 1]
            self._must(not twice, f"{len(twice)} tasks have two {what}: {twice[:1]}")
        for id, party in self._promised.items():
            self._must(self._proposal(party, id) is not None, f"{party} has lost task {id}, which it had accepted")
        for party, running in world.running.items():
            node = running.node
            for live in node.runner.live.values():
                task = live.task
                self._must(
                    task.state in ENDED, f"task {task.id} is still {task.state} at {party}: {_waits(task.waits())}"
                )
                self._must(
                    task.state == "done" or task.id not in wrote[party],
                    f"{party} wrote the receipt of task {task.id}, which is {task.state} there now",
                )
                if task.outcome is not None and task.outcome.end != "done":
                    self._must(bool(task.outcome.reason), f"task {task.id} ended at {party} without a reason")
                if task.state == "done":
                    self._must(task.receipt is not None, f"task {task.id} is done at {party} without a receipt")
                    self._must(
                        bool(receipts[task.id]), f"task {task.id} is done at {party}, and nobody wrote a receipt"
                    )
                if task.asker == party:
                    self._own(party, live)
            self._nothing_left(party)

    def _own(self, party: PartyId, live: Live) -> None:
        """A task at the node that asked it: it ended right, or for a reason that counts."""
        task, outcome = live.task, live.task.outcome
        if outcome is None:
            raise Broken(f"task {task.id} has ended at {party} without an outcome")
        self.ended[task.state if task.state == "done" else f"{task.state} {outcome.code}"] += 1
        if task.state == "done":
            self._answered(party, live)
            return
        how = f"{task.state} ({outcome.code}): {outcome.reason}"
        garbled = task.id in self._world.network.garbled and outcome.code == "peer-fault"
        self._must(
            garbled or outcome.code not in _NEVER, f"task {task.id} ended at {party} by a fault of a node, {how}"
        )
        asked = self._asked.get(task.id)
        self._must(
            outcome.code != "cancelled" or asked is None or asked.cancel_after is not None,
            f"task {task.id} ended at {party} as if somebody had taken it back, {how}",
        )
        self._must(
            outcome.code != "storage-failed" or self._world.disks[outcome.party].was_full,
            f"task {task.id} ended at {party} for want of room at {outcome.party}, whose disk had some, {how}",
        )
        if asked is None or asked.absent not in ("", "wait") or not self.clocks_agree:
            return
        self._heard_everywhere(live)
        waited = outcome.code == DeadlineExceeded.code and outcome.at >= task.deadline - 1.0
        # A contract is not told twice to a party without room; a disk is given longer than any of a run is full.
        begun = "did not take in" not in outcome.reason
        no_room = outcome.code == "storage-failed" and not (begun and outcome.at < task.deadline - _ROOM_SECONDS)
        excused = (
            outcome.code in ("cancelled", "busy")
            or no_room
            or garbled
            or (task.contract is None and not waited)
            or bool(task.left_out)  # it was asked again, which is another task
        )
        lived = asked.at + asked.seconds > self.healed_at + _ENOUGH_SECONDS
        self._must(
            excused or not lived, f"task {task.id} had time enough at {party} once all was mended, and ended {how}"
        )

    def _heard_everywhere(self, live: Live) -> None:
        """Every party of a task soon hears that the task ended, and does not find out by its own deadline."""
        ended = live.task.outcome
        if ended is None:
            return
        unsaid = self._world.disks[live.task.asker].was_full  # and so no statement may say it, which outlasts a crash
        soon = max(ended.at, self._world.unix + self.healed_at) + _ENOUGH_SECONDS
        for party in live.task.others:
            running = self._world.running.get(party)
            other = running.node.runner.live.get(live.task.id) if running is not None else None
            if running is not None and unsaid and running.node.started_at > ended.at:
                continue
            if other is not None and other.task.outcome is not None and soon < live.task.deadline:
                late = other.task.outcome.at - soon
                self._must(
                    late <= 0,
                    f"task {live.task.id} ended at {live.task.asker}, and {party} heard {late:.1f} s too late",
                )

    def _answered(self, party: PartyId, live: Live) -> None:
        self.done += 1
        task = live.task
        if live.answer is None:
            self._must(self._is_let_go(party, live), f"task {task.id} is done at {party}, and its answer is gone")
            return
        content = live.answer.result
        if isinstance(content, Copy):
            raise Broken(f"the answer of task {task.id} at {party} is a copy of an open table")
        data = content if isinstance(content, bytes) else b"".join(self._world.running[party].node.spool.read(content))
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all().replace_schema_metadata(None)
        expected = _expected(task.proposal.plan.question, self._world.template.owners, tuple(task.proposal.missing))
        right = table.to_pydict() == {name: expected[name] for name in table.column_names}
        self._must(right, f"the answer of task {task.id} at {party} is wrong")

    def _is_let_go(self, party: PartyId, live: Live) -> bool:
        """True if a restart may have recalled a task whose answer made room: it is among the first that ended."""
        ended = list(self._world.running[party].node.runner._ended)
        return len(ended) == ENDED_TASKS and live.task.id in ended[:_AT_ONCE]

    def _nothing_left(self, party: PartyId) -> None:
        """Outputs and reservations of ended tasks are gone; answers stay."""
        running, disk = self._world.running[party], self._world.disks[party]
        names = {name for _, name in disk.kept}
        self._must(names <= {"answer"}, f"{party} still keeps {sorted(names)} of ended tasks")
        answers = {
            live.answer.result.path.name
            for live in running.node.runner.live.values()
            if live.answer is not None and not isinstance(live.answer.result, bytes)
        }
        left = set(disk.files) - answers
        self._must(not left, f"{len(left)} files are left in the spool of {party}")
        top = running.node.admission.view()
        used = (top.used.slots, top.used.memory, top.used.disk)
        self._must(not any(used) and not top.held and not top.waiting, f"{party} still reserves {used} for nobody")
        waiting = running.node.outbox._waiting  # what is not told to anybody else
        self._must(not any(waiting.values()), f"{party} still holds outputs for others")

    def _journal(self, party: PartyId) -> None:
        epochs = self._world.disks[party].epochs
        self._must(epochs == sorted(epochs), f"the journal of {party} holds what a node wrote whose lease was over")
        frontier = tree.Frontier()
        ids: set[str] = set()
        for index, entry in enumerate(self._world.disks[party].entries):
            self._must(entry.index == index, f"entry {index} of the journal of {party} is out of place")
            self._must(entry.id not in ids, f"the journal of {party} holds {entry.id} twice")
            ids.add(entry.id)
            frontier, _ = frontier.appended(tree.leaf_hash(entry.envelope))
        running = self._world.running.get(party)
        if running is not None and running.journal is not None:
            size, root = running.journal.head()
            self._must(
                (size, root) == (frontier.size, frontier.root), f"the tree of {party} is not that of its entries"
            )

    # ── shared ──

    def _must(self, holds: bool, what: str) -> None:
        if not holds:
            raise Broken(what)

    def _has(self, party: PartyId, id: str) -> bool:
        running = self._world.running.get(party)
        if running is None or running.journal is None:
            return any(entry.id == id for entry in self._world.disks[party].entries)
        return running.journal.find(id) is not None

    def _proposal(self, party: PartyId, task: TaskId) -> Proposal | None:
        for entry in self._world.disks[party].entries:
            if entry.kind == "proposal" and entry.task == task:
                return body_of(entry.statement, Proposal)
        return None

    def _contracted(self, party: PartyId, task: TaskId) -> Plan | None:
        running = self._world.running.get(party)
        if running is None or running.journal is None:  # who answers may be a node that has lost its lease
            entries = [entry for entry in self._world.disks[party].entries if entry.task == task]
        else:
            entries = list(running.journal.entries(task=task))
        if not any(
            entry.kind == "contract" and isinstance(body_of(entry.statement, Contract), Contract) for entry in entries
        ):
            return None
        proposal = next((entry for entry in entries if entry.kind == "proposal"), None)
        return body_of(proposal.statement, Proposal).plan if proposal is not None else None


def _statements(payload: bytes) -> list[tuple[str, str]]:
    """Id and author of each statement that is told."""
    return [_id_of(envelope) for envelope in msgspec.msgpack.decode(payload, type=methods.Envelopes).envelopes]


@functools.lru_cache(maxsize=4096)
def _id_of(envelope: bytes) -> tuple[str, str]:
    statement = read_statement(envelope)
    return statement.id, statement.author


def _is_for(plan: Plan, step_id: str, owner: PartyId, caller: PartyId) -> bool:
    """True if the plan has `owner` give an output of the step to `caller`."""
    step = next((step for step in plan.steps if step.id == step_id), None)
    match step:
        case Move():
            return step.sender == owner and caller in step.to
        case Threshold() | MaskedSum():
            return {owner, caller} <= parties_of(step)
        case Query() | Release() | None:
            return False


@functools.lru_cache(maxsize=256)
def _expected(question: str, parties: tuple[PartyId, ...], missing: tuple[PartyId, ...]) -> dict[str, list[object]]:
    found = next(one for one in QUESTIONS if one.sql == question)
    tables = [table_of(party, number) for number, party in enumerate(parties) if party not in missing]
    pooled = pa.concat_tables(tables)
    with duckdb.connect() as database:
        database.register("pooled", pooled)
        return dict(database.sql(found.expected).to_arrow_table().to_pydict())


def _waits(waits: Iterable[Wait]) -> str:
    return ", ".join(str(wait) for wait in waits)
