# SPDX-License-Identifier: Apache-2.0
"""The machines of all parties in one process, with a journal each and a network between them that a seed steers.

Statements go out when they are durable, in order per pair of parties unless the network is wild; a wild network also
loses, repeats and reorders. What a receiver refuses is lost, as it is between nodes. A part of a step is done some time
after the contract is there; the answer is there when everybody's parts are done.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from msgspec.structs import replace
from task_world import (
    BTS,
    JUDGED,
    PARTIES,
    PARTS,
    PATIENCE,
    START,
    TASK,
    done_part,
    proposal,
    versions_of,
)

from junto.errors import InvalidTransition, PeerFault
from junto.tasks.bodies import Attempt, Body, Confirm, Contract, Estimate, Offer, Proposal, Receipt, Refusal, Stop
from junto.tasks.events import (
    AttemptArrived,
    CancelAsked,
    ConfirmArrived,
    ContractArrived,
    Event,
    Forbidden,
    OfferArrived,
    Opened,
    Permitted,
    ReceiptArrived,
    RefusalArrived,
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
from junto.types import Digest, PartyId, StepId


@dataclass
class Side:
    """One party: its machine, its journal, what it has still to do."""

    party: PartyId
    task: Task | None = None
    journal: list[Entry] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    lane: deque[Instruction] = field(default_factory=deque)
    timers: list[float] = field(default_factory=list)
    working: bool = False
    kept: dict[str, str] = field(default_factory=dict)  # finished steps and the run each is of: a crash leaves them
    performed: bool = False
    deadline: float = 0.0  # on its own clock

    @property
    def ended(self) -> bool:
        """Whether the task has ended here, or was never heard of."""
        return self.task is None or self.task.state in ENDED


class Network:
    """A run of one task. `run` until nothing is left to do."""

    def __init__(
        self,
        seed: int,
        *,
        wild: bool = False,
        prompt: bool = False,
        refusing: frozenset[PartyId] = frozenset(),
        cancels: int = 0,
        crashes: int = 0,
    ) -> None:
        self.order = random.Random(seed)
        self.now = START
        self.sides = {party: Side(party) for party in PARTIES}
        self.after_event: Callable[[Side], None] = lambda side: None
        self._wild = wild
        self._prompt = prompt  # what is ordered is durable at once
        self._refusing = refusing
        self._statements: dict[str, Entry] = {}
        self._wires: dict[tuple[PartyId, PartyId], deque[Entry]] = {
            (a, b): deque() for a in PARTIES for b in PARTIES if a != b
        }
        self._undone = {part for part in PARTS if part[0] != "r"}
        self._chores: list[tuple[PartyId, Callable[[], None]]] = []
        self._surprises = [self._cancel] * cancels + [self._crash] * crashes

    def run(self, steps: int = 2000) -> None:
        """Propose, then do one thing after the other until all that is left is silence."""
        asker = self.sides[BTS]
        asker.task = Task(TASK, BTS, BTS, proposal(), PATIENCE)
        self.feed(asker, Opened("", self.now))
        for _ in range(steps):
            self._ring()
            ready = self._ready()
            rings = [at for side in self.sides.values() if not side.ended for at in side.timers]
            if ready:
                self.now = min(self.now + self.order.random() * 0.05, *rings, float("inf"))
                self.order.choice(ready)()
            elif rings:
                self.now = max(self.now, min(rings))
            else:
                return
        raise AssertionError("the network does not come to rest")

    def feed(self, side: Side, event: Event) -> None:
        """One event, as a node feeds it: what the machine refuses has no effect."""
        if side.task is None:
            return
        if isinstance(event, Opened):
            side.deadline = event.at + side.task.proposal.seconds
        try:
            side.lane.extend(side.task.handle(event))
        except (PeerFault, InvalidTransition):
            return
        while self._prompt and side.lane:
            self._obey(side)
        self.after_event(side)

    def replayed(self, side: Side) -> Task:
        """The machine that the party's journal gives."""
        return replay(TASK, side.party, side.journal, PATIENCE)

    # ── what can happen next ────────────────────────────────────────────────────────────────────────

    def _ready(self) -> list[Callable[[], None]]:
        ready: list[Callable[[], None]] = [partial(self._obey, side) for side in self.sides.values() if side.lane]
        ready += [partial(self._deliver, *pair) for pair, wire in self._wires.items() if wire]
        ready += [partial(self._do_chore, chore) for chore in self._chores]
        receiver = self.sides[BTS]
        if not self._undone and receiver.working and not receiver.ended and not receiver.lane:
            digest = Digest("sha256:" + "a" * 64)
            ready.append(lambda: self.feed(receiver, Released(digest, 36, "some", self.now)))
        if ready and self._surprises and self.order.random() < 0.05:
            return [self._surprises.pop(self.order.randrange(len(self._surprises)))]
        return ready

    def _ring(self) -> None:
        for side in self.sides.values():
            due = [at for at in side.timers if at <= self.now]
            side.timers = [at for at in side.timers if at > self.now]
            if due and not side.ended:
                self.feed(side, Ticked(self.now))

    def _do_chore(self, chore: tuple[PartyId, Callable[[], None]]) -> None:
        self._chores.remove(chore)
        chore[1]()

    def _cancel(self) -> None:
        side = self.order.choice(list(self.sides.values()))
        if not side.ended:
            self.feed(side, CancelAsked("ana", self.now))

    def _crash(self) -> None:
        """The process dies with all it had not made durable or delivered, and is started again."""
        side = self.order.choice([side for side in self.sides.values() if side.journal] or [self.sides[BTS]])
        if not side.journal:
            return
        for (sender, _), wire in self._wires.items():
            if sender == side.party:
                wire.clear()
        self._chores = [chore for chore in self._chores if chore[0] != side.party]
        side.lane.clear()
        side.timers.clear()
        side.working = False
        side.task = self.replayed(side)
        task = side.task
        if self.order.random() < 0.3:
            side.kept.clear()
        if task.state == "running":
            for step in [step for step in side.kept if (step, side.party) not in task.finished]:
                self.feed(side, StepFinished(replace(done_part(step), attempt=side.kept[step]), self.now))
        whole = frozenset(StepId(step) for step, run in side.kept.items() if run == task.run_of(StepId(step)))
        side.deadline = task.deadline  # a journal remembers the time of the proposal, not when it came in
        self.feed(side, Restarted(whole, self.now))
        for entry in list(side.journal):  # what it had said it says again, to whom it was for
            if entry.party == side.party:
                to = (task.asker,) if isinstance(entry.body, Offer | Refusal) else task.others
                for party in to:
                    if party != side.party:
                        self._wires[side.party, party].append(entry)

    # ── instructions ────────────────────────────────────────────────────────────────────────────────

    def _obey(self, side: Side) -> None:
        instruction = side.lane.popleft()
        match instruction:
            case Judge():
                self._chores.append((side.party, partial(self._judge, side)))
            case Publish():
                self._publish(side, instruction.body, instruction.to)
            case Perform():
                side.working = side.performed = True
                for step, party in PARTS:
                    if party == side.party and step != "r":
                        self._begin(side, step)
            case Redo():
                self._redo(side, instruction.step)
            case GoOn():
                raise AssertionError("no task here may go on without somebody")
            case Halt():
                side.working = False
                side.timers.clear()
            case Conclude():
                pass
            case Wake():
                side.timers.append(instruction.at)
            case _:
                assert_never(instruction)

    def _judge(self, side: Side) -> None:
        if side.task is None or side.task.state != "judging":
            return
        if side.party in self._refusing:
            self.feed(side, Forbidden("refused", f"{side.party} says no", self.now))
        else:
            self.feed(side, Permitted(JUDGED, versions_of(side.party), Estimate(), self.now))

    def _begin(self, side: Side, step: str) -> None:
        task = side.task
        if task is None or side.kept.get(step) == task.run_of(StepId(step)):
            return
        self._undone.add((StepId(step), side.party))
        self._chores.append((side.party, partial(self._work, side, step, task.run_of(StepId(step)))))

    def _redo(self, side: Side, joint: StepId) -> None:
        task = side.task
        if task is None or not side.working:
            return
        for step, party in PARTS:
            if party == side.party and step != "r" and step in task.resting_on(joint):
                side.kept.pop(step, None)
                self._begin(side, step)

    def _work(self, side: Side, step: str, run: str) -> None:
        if side.task is not None and side.working and not side.ended and side.task.run_of(StepId(step)) == run:
            finished = replace(done_part(step), attempt=run)
            side.kept[step] = run
            self._undone.discard((finished.step, side.party))
            self.feed(side, StepFinished(finished, self.now))

    def _publish(self, side: Side, body: Body, to: tuple[PartyId, ...]) -> None:
        id = f"{side.party}-{len(self._statements)}"
        offers = self._offers(body) if isinstance(body, Contract) else ()
        entry = Entry(len(side.journal), side.party, id, self.now, body, id, offers)
        self._statements[id] = entry
        self._keep(side, entry)
        for party in to:
            self._wires[side.party, party].append(entry)
        task = side.task
        match body:
            case Proposal() if task is not None:
                task.proposed(id)
            case Contract() if task is not None:
                task.contracted(id)
            case Offer() if side.party == BTS and not side.ended:
                self.feed(side, OfferArrived(BTS, body, id, self.now))
            case _:
                pass

    # ── the wire ────────────────────────────────────────────────────────────────────────────────────

    def _deliver(self, sender: PartyId, to: PartyId) -> None:
        wire = self._wires[sender, to]
        if self._wild:
            place = self.order.randrange(len(wire))
            entry = wire[place]
            chance = self.order.random()
            if chance > 0.2:
                del wire[place]
            if chance < 0.35 and chance > 0.2:
                return  # lost
        else:
            entry = wire.popleft()
        self._arrive(self.sides[to], entry)

    def _arrive(self, side: Side, entry: Entry) -> None:
        if not isinstance(entry.body, Proposal) and side.task is None:
            return
        if entry.id not in side.known:
            self._keep(side, entry)
        else:
            if not self._wild:
                raise AssertionError(f"{entry.id} came twice")
            return  # dropped, as a journal drops what it holds
        if isinstance(entry.body, Proposal):
            if side.task is None:
                side.task = Task(TASK, side.party, entry.party, entry.body, PATIENCE)
                self.feed(side, Opened(entry.id, self.now))
            return
        self.feed(side, self._event(entry))

    def _event(self, entry: Entry) -> Event:
        match entry.body:
            case Offer() as offer:
                return OfferArrived(entry.party, offer, entry.envelope, self.now)
            case Refusal() as refusal:
                return RefusalArrived(entry.party, refusal, self.now)
            case Contract() as contract:
                return ContractArrived(entry.party, entry.id, contract, entry.offers, self.now)
            case Attempt() as attempt:
                return AttemptArrived(entry.party, attempt, self.now)
            case Confirm() as confirm:
                return ConfirmArrived(entry.party, confirm, self.now)
            case Receipt() as receipt:
                return ReceiptArrived(entry.party, receipt, self.now)
            case Stop() as stop:
                return StopArrived(entry.party, stop, self.now)
            case other:
                raise AssertionError(f"nobody sends a {type(other).__name__}")

    def _keep(self, side: Side, entry: Entry) -> None:
        side.known.add(entry.id)
        side.journal.append(entry)

    def _offers(self, contract: Contract) -> tuple[tuple[PartyId, Offer], ...]:
        found = [self._statements[id] for id in contract.offers]
        return tuple((entry.party, entry.body) for entry in found if isinstance(entry.body, Offer))
