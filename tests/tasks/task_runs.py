# SPDX-License-Identifier: Apache-2.0
"""Three contracted machines whose nodes die and come back, and what a secure protocol needs of them.

A side that takes part in a joint step puts a fresh number into the pot of that run; a run is finished by whoever finds
everybody's number there. A crash takes what was not kept: the sides' numbers of unfinished runs, the lanes, the wires.
Every claim about runs is checked when it could be broken: nobody takes part twice in a run of one name, all who finish
a run saw the same numbers, and who sums saw the same groups pass.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import assert_never

from msgspec.structs import replace
from task_world import (
    BTS,
    CONTRACT,
    OFFERS,
    PARTIES,
    PARTS,
    PATIENCE,
    PROPOSAL,
    RESULT,
    START,
    TASK,
    done_part,
    offer_of,
    proposal,
)

from junto.tasks.bodies import Attempt, Body, Confirm, Proposal, Receipt, Stop
from junto.tasks.events import (
    AttemptArrived,
    ConfirmArrived,
    Event,
    PartyDown,
    PartyUp,
    ReceiptArrived,
    Released,
    Restarted,
    StepFinished,
    StopArrived,
    Ticked,
)
from junto.tasks.instructions import Conclude, GoOn, Halt, Instruction, Judge, Perform, Publish, Redo, Wake
from junto.tasks.replay import Entry, replay
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.types import PartyId, StepId

RESTS_ON = {"t": ("q-delta", "q-united"), "m": ("t",)}
SHARED = {step: frozenset(p for s, p in PARTS if s == step) for step in (StepId("t"), StepId("m"))}


def begun_journal(me: PartyId, proposed: Proposal) -> list[Entry]:
    """What a party's journal holds when the contract is there."""
    bodies: list[tuple[PartyId, str, Body]] = [(BTS, PROPOSAL, proposed)]
    bodies += [(p, f"offer of {p}", offer_of(p)) for p in PARTIES if me in (BTS, p)]
    bodies.append((BTS, "contract-1", CONTRACT))
    return [
        Entry(at, party, id, START, body, f"envelope of {party}", OFFERS if body is CONTRACT else ())
        for at, (party, id, body) in enumerate(bodies)
    ]


@dataclass
class Node:
    """One party: its machine and journal, what it works on, what it keeps."""

    party: PartyId
    journal: list[Entry]
    task: Task
    lane: list[Instruction] = field(default_factory=lambda: [Perform()])
    timers: list[float] = field(default_factory=list)
    working: bool = False
    begun: dict[StepId, str] = field(default_factory=dict)
    kept: dict[StepId, tuple[str, object]] = field(default_factory=dict)  # the run, and what the step gave here
    here: dict[StepId, object] = field(default_factory=dict)
    up_at: float = 0.0
    restarts: int = 0

    @property
    def mine(self) -> list[StepId]:
        """Its parts, in the plan's order, but the release."""
        return [step for step, party in PARTS if party == self.party and step != "r"]


class Runs:
    """A run of one contracted task; `crashes` are the moments, counted in actions, at which somebody dies."""

    def __init__(
        self,
        seed: int,
        crashes: frozenset[int],
        *,
        loses_kept: bool = True,
        prompt: bool = False,
        proposed: Proposal | None = None,
    ) -> None:
        self.order = random.Random(seed)
        self.now = START
        self._crashes = crashes
        self._loses_kept = loses_kept
        self._prompt = prompt
        journals = {party: begun_journal(party, proposed or proposal()) for party in PARTIES}
        self.nodes = {p: Node(p, journal, replay(TASK, p, journal, PATIENCE)) for p, journal in journals.items()}
        for node in self.nodes.values():
            node.timers.append(node.task.deadline)
        self.pots: dict[tuple[StepId, str], dict[PartyId, tuple[float, object]]] = defaultdict(dict)
        self._took_part: set[tuple[PartyId, StepId, str]] = set()
        self._gave: dict[tuple[StepId, str], object] = {}
        self._wires: dict[tuple[PartyId, PartyId], list[Entry]] = {(a, b): [] for a in PARTIES for b in PARTIES}
        self._count = 0

    def run(self) -> None:
        """Act until everything has ended and nothing is left to say."""
        for action in range(5000):
            if action in self._crashes:
                self._crash(self.order.choice(self._up()))
            ready = self._ready()
            if ready:
                self.now += self.order.random() * 0.02
                self._act(self.order.choice(ready))
            else:
                waits = [n.up_at for n in self.nodes.values() if n.up_at > self.now]
                waits += [at for n in self._up() if n.task.state not in ENDED for at in n.timers]
                if not waits:
                    return
                self.now = max(self.now, min(waits))
            for node in self.nodes.values():
                self._clock(node)
        raise AssertionError("the nodes do not come to rest")

    def feed(self, node: Node, event: Event) -> None:
        """One event; with `prompt`, what it orders is durable at once."""
        node.lane += node.task.handle(event)
        while self._prompt and node.lane:
            self._obey(node)
        if self._prompt:
            self.compare(node)

    def compare(self, node: Node) -> None:
        """The journal tells the machine as it is."""
        told, task = replay(TASK, node.party, node.journal, PATIENCE), node.task
        unsaid = {(done.step, task.me) for done in task._unconfirmed}
        live = {part: done for part, done in task.finished.items() if part not in unsaid}
        assert (told.state, told.attempts, told.finished) == (task.state, task.attempts, live)
        assert (told.contract, told.receipt, told.left_out) == (task.contract, task.receipt, task.left_out)
        assert told.proposal == task.proposal

    def _up(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up_at <= self.now]

    def _clock(self, node: Node) -> None:
        if node.up_at > self.now:
            return
        if node.up_at:
            node.up_at = 0.0
            self._restart(node)
        due = [at for at in node.timers if at <= self.now]
        node.timers = [at for at in node.timers if at > self.now]
        if due and node.task.state not in ENDED:
            self.feed(node, Ticked(self.now))

    # ── what can happen next ────────────────────────────────────────────────────────────────────────

    def _ready(self) -> list[tuple[str, Node, str]]:
        found: list[tuple[str, Node, str]] = []
        for node in self._up():
            if node.lane:
                found.append(("obey", node, ""))
            found += [("deliver", node, sender) for sender in PARTIES if self._wires[sender, node.party]]
            if not node.working or node.task.state in ENDED:
                continue
            redoing = any(isinstance(one, Redo) for one in node.lane)
            for step in node.mine:
                if step in node.here:
                    continue
                if step in node.begun:
                    pot = self.pots[step, node.begun[step]] if step in SHARED else {}
                    if step not in SHARED or pot.keys() == SHARED[step]:
                        found.append(("finish", node, step))
                elif not redoing and all(one in node.here for one in RESTS_ON.get(step, ()) if one in node.mine):
                    found.append(("begin", node, step))
            if node.party == BTS and "m" in node.here and not redoing:
                found.append(("release", node, "r"))
        return found

    def _act(self, what: tuple[str, Node, str]) -> None:
        name, node, about = what
        match name:
            case "obey":
                self._obey(node)
            case "deliver":
                self._deliver(node, PartyId(about))
            case "begin":
                self._begin(node, StepId(about))
            case "finish":
                self._finish(node, StepId(about))
            case _:
                self.feed(node, Released(RESULT, 36, "some", self.now))

    def _begin(self, node: Node, step: StepId) -> None:
        run = node.task.run_of(step)
        node.begun[step] = run
        if step in SHARED:
            assert (node.party, step, run) not in self._took_part, "it takes part twice in a run of one name"
            self._took_part.add((node.party, step, run))
            self.pots[step, run][node.party] = (self.order.random(), node.here.get(StepId("t")))

    def _finish(self, node: Node, step: StepId) -> None:
        run = node.begun[step]
        gave: object = step
        if step in SHARED:
            pot = self.pots[step, run]
            assert len({passed for _, passed in pot.values()}) == 1, "who sums saw other groups pass"
            gave = tuple(sorted((party, number) for party, (number, _) in pot.items()))
            assert self._gave.setdefault((step, run), gave) == gave, "two ends of one run"
        node.here[step] = gave
        node.kept[step] = (run, gave)
        self.feed(node, StepFinished(replace(done_part(step), attempt=run), self.now))

    # ── crashes ─────────────────────────────────────────────────────────────────────────────────────

    def _crash(self, node: Node) -> None:
        for (sender, _), wire in self._wires.items():
            if sender == node.party:
                wire.clear()
        for step in node.mine:
            below = [one for one in RESTS_ON.get(step, ()) if one in node.mine]
            lost = self._loses_kept and self.order.random() < 0.2
            if lost or any(one not in node.kept for one in below):
                node.kept.pop(step, None)
        self._void(node, {step: {run for run, _ in [node.kept[step]]} for step in node.kept})
        node.lane, node.timers, node.begun, node.here, node.working = [], [], {}, {}, False
        node.up_at = self.now + self.order.random() * 8 + 0.001
        node.restarts += 1
        self._tell_links(node, "connection refused")

    def _restart(self, node: Node) -> None:
        node.task = task = replay(TASK, node.party, node.journal, PATIENCE)
        if self._prompt:
            self.compare(node)
        for entry in node.journal:
            if (
                entry.party == node.party
                and entry.body is not CONTRACT
                and isinstance(entry.body, Attempt | Confirm | Receipt | Stop)
            ):
                self._send(entry, task.others)
        if task.state == "running":
            for step, (run, _) in node.kept.items():
                if (step, node.party) not in task.finished:
                    node.lane += task.handle(StepFinished(replace(done_part(step), attempt=run), self.now))
        whole = frozenset(step for step, (run, _) in node.kept.items() if run == task.run_of(step))
        self.feed(node, Restarted(whole, self.now))
        self._tell_links(node, None)

    def _tell_links(self, node: Node, why: str | None) -> None:
        for other in self._up():
            if other is not node and other.task.state not in ENDED:
                event = PartyUp(node.party, self.now) if why is None else PartyDown(node.party, why, self.now)
                self.feed(other, event)

    def _void(self, node: Node, still: dict[StepId, set[str]]) -> None:
        """Its messages are gone but those of the runs that still count."""
        for (step, run), pot in self.pots.items():
            if run not in still.get(step, ()):
                pot.pop(node.party, None)

    # ── instructions ────────────────────────────────────────────────────────────────────────────────

    def _obey(self, node: Node) -> None:
        instruction = node.lane.pop(0)
        match instruction:
            case Publish():
                self._publish(node, instruction.body, instruction.to)
            case Perform():
                if not node.working:
                    node.working = True
                    found = {s: (run, gave) for s, (run, gave) in node.kept.items() if run == node.task.run_of(s)}
                    node.kept = found
                    node.here = {step: gave for step, (_, gave) in found.items()}
            case Redo():
                if node.working:
                    for step in node.task.resting_on(instruction.step) & set(node.mine):
                        if node.begun.get(step, node.kept.get(step, ("",))[0]) != node.task.run_of(step):
                            for held in (node.begun, node.here, node.kept):
                                held.pop(step, None)
                    counts = {step: {node.task.run_of(step)} for step in node.mine}
                    self._void(node, counts)
            case Halt():
                node.working = False
                node.timers.clear()
            case Wake():
                node.timers.append(instruction.at)
            case Conclude() | GoOn() | Judge():
                pass
            case _:
                assert_never(instruction)

    def _publish(self, node: Node, body: Body, to: tuple[PartyId, ...]) -> None:
        self._count += 1
        entry = Entry(len(node.journal), node.party, f"{node.party}-{self._count}", self.now, body)
        node.journal.append(entry)
        self._send(entry, to)
        if isinstance(body, Stop):
            node.task.spoke()

    def _send(self, entry: Entry, to: tuple[PartyId, ...]) -> None:
        for party in to:
            self._wires[entry.party, party].append(entry)

    def _deliver(self, node: Node, sender: PartyId) -> None:
        wire = self._wires[sender, node.party]
        place = self.order.randrange(len(wire))
        entry = wire[place]
        if self.order.random() > 0.2:  # else it comes again
            del wire[place]
        if any(known.id == entry.id for known in node.journal):
            return
        node.journal.append(replace_at(entry, self.now))
        match entry.body:
            case Attempt() as attempt:
                self.feed(node, AttemptArrived(sender, attempt, self.now))
            case Confirm() as confirm:
                self.feed(node, ConfirmArrived(sender, confirm, self.now))
            case Receipt() as receipt:
                self.feed(node, ReceiptArrived(sender, receipt, self.now))
            case Stop() as stop:
                self.feed(node, StopArrived(sender, stop, self.now))
            case other:
                raise AssertionError(f"nobody sends a {type(other).__name__}")


def replace_at(entry: Entry, at: float) -> Entry:
    """The entry as it is journaled where it arrived."""
    return Entry(entry.index, entry.party, entry.id, at, entry.body, entry.envelope, entry.offers)
