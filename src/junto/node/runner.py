# SPDX-License-Identifier: Apache-2.0
"""Performs what the task machines order, and feeds back what happens: one lane of instructions per task, in order.

An event moves the machine at once; its instructions queue behind those before them, so that nothing is sent before
what preceded it is durable.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from junto.errors import InvalidInput, InvalidTransition, JuntoError, PeerFault, StorageFailed
from junto.journal.statement import Statement
from junto.logs import logger
from junto.node.courier import Courier
from junto.node.keep import Answered
from junto.node.keep import Kept as KeptStep
from junto.node.ledger import Kept, Ledger
from junto.node.retries import lacks_room, until_room
from junto.tasks.bodies import NO_TASK, Body, Confirm, Contract, Offer, Proposal, Receipt, Refusal, Stop, kind_of
from junto.tasks.events import (
    CancelAsked,
    ConfirmArrived,
    Event,
    Forbidden,
    OfferArrived,
    Opened,
    PartyDown,
    PartyUp,
    Permitted,
    RefusalArrived,
    Restarted,
    StepFailed,
    StepFinished,
    StopArrived,
    Ticked,
)
from junto.tasks.instructions import Conclude, GoOn, Halt, Instruction, Judge, Perform, Publish, Redo, Wake
from junto.tasks.lengths import fitted
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.tasks.waiting import Patience
from junto.types import PartyId, StepId, TaskId

_log = logger("junto.tasks")
_STOP_DELIVERY_SECONDS = 30.0
_TURNS_TO_SEND = 4  # of the event loop: carrier, link, flush, socket
ENDED_TASKS = 200
"""The number of ended tasks kept at hand, answers included: the latest, in the order of their ends."""


@dataclass(slots=True)
class Live:
    """A task this process works on: its machine, its lane of instructions, what it has produced."""

    task: Task
    lane: deque[Instruction] = field(default_factory=deque)
    carrier: asyncio.Task[None] | None = None
    work: asyncio.Task[None] | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    contracted: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    recorded: asyncio.Event = field(default_factory=asyncio.Event)  # the proposal is durable, or never will be
    unrecorded: bool = False  # it never will be
    failure: JuntoError | None = None  # the disk or the journal failed: what was said last is not recorded
    redo: Callable[[StepId], None] | None = None
    kept: dict[StepId, KeptStep] = field(default_factory=dict)  # what an earlier process had finished
    answer: Answered | None = None
    offered: tuple[str, Offer] | None = None  # our offer, as it is in our journal
    said: dict[tuple[PartyId, str], set[str]] = field(default_factory=dict)  # ids of others' statements, by kind
    receipt_statement: str = ""
    continued: TaskId = NO_TASK  # the task that goes on without those who stayed away
    going_on: bool = False  # that one is about to be asked
    our_end: Stop | Refusal | None = None  # our own word that it is over


class Runner:
    """All tasks of one node."""

    def __init__(
        self,
        me: PartyId,
        ledger: Ledger,
        courier: Courier,
        patience: Patience,
        judge: Callable[[Task], Awaitable[Permitted | Forbidden]],
        perform: Callable[[Live], Coroutine[None, None, None]],
        forget: Callable[[Live], None],
        let_go: Callable[[TaskId], None],
        go_on: Callable[[Live, tuple[PartyId, ...]], None],
        unreachable: Callable[[PartyId], str | None],
        unix_time: Callable[[], float],
    ) -> None:
        """`forget` hears that a task has ended, `let_go` that its answer is not kept at hand any more, `go_on` that it
        is to be asked again without some. `unreachable` says since when and why a party cannot be reached now, or None.
        """
        self._me = me
        self._ledger = ledger
        self._courier = courier
        self._patience = patience
        self._judge = judge
        self._perform = perform
        self._forget = forget
        self._let_go = let_go
        self._go_on = go_on
        self.live: dict[TaskId, Live] = {}
        self._ended: dict[TaskId, None] = {}  # of those, in the order of their ends
        self.watchers: list[Callable[[Live], None]] = []  # told whenever a task has changed, its end included
        self._unreachable = unreachable
        self._unix_time = unix_time

    @property
    def open(self) -> list[Live]:
        """Tasks that have not ended."""
        return [live for live in self.live.values() if live.task.state not in ENDED]

    def open_of(self, party: PartyId) -> int:
        """The number of tasks that a party asked and that have not ended."""
        return sum(live.task.asker == party for live in self.open)

    def ask(self, id: TaskId, proposal: Proposal) -> Live:
        """Begin a task of ours."""
        live = self._admit(Task(id, self._me, self._me, proposal, self._patience))
        self._begin(live, "")
        return live

    def open_proposal(self, id: TaskId, asker: PartyId, statement: str, proposal: Proposal) -> None:
        """Begin a task another party asked. Raises PeerFault if the id is taken, InvalidInput if we have no part."""
        if id in self.live:
            raise PeerFault(f"{asker} proposes task {id} twice")
        if self._me not in proposal.participants:
            raise InvalidInput(f"{asker} proposes task {id} to {self._me}, which has no part in it")
        live = self._admit(Task(id, self._me, asker, proposal, self._patience))
        self._begin(live, statement)

    def resume(self, task: Task, receipt_statement: str, kept: dict[StepId, KeptStep], answer: Answered | None) -> Live:
        """Take up a task from the journal, with what is kept of it; an open one goes on where it stopped."""
        live = self._admit(task)
        live.receipt_statement = receipt_statement
        live.recorded.set()
        live.answer = answer
        live.kept = kept
        now = self._unix_time()
        if task.state == "running":
            for step, found in kept.items():
                if (step, self._me) not in task.finished:
                    self.dispatch(live, StepFinished(found.finished, now))
        whole = frozenset(step for step, found in kept.items() if found.finished.attempt == task.run_of(step))
        self.dispatch(live, Restarted(whole, now))
        if task.state in ENDED:
            self._ended[task.id] = None
        self._note_absences(live)
        return live

    async def cancel(self, id: TaskId, user: str) -> None:
        """End a task because a user of ours asks; once this returns, the journal has it.

        Raises InvalidInput if it is unknown or has ended, StorageFailed if it cannot be recorded: it has ended then,
        but a node that is started again knows nothing of it.
        """
        live = self.find(id)
        if live.task.state in ENDED:
            raise InvalidInput(f"task {id} has ended already ({live.task.state})")
        self.dispatch(live, CancelAsked(user, self._unix_time()))
        if live.carrier is not None:
            await asyncio.shield(live.carrier)
        if live.failure is not None:
            raise live.failure

    def find(self, id: TaskId) -> Live:
        """The task of that id. Raises InvalidInput."""
        live = self.live.get(id)
        if live is None:
            raise InvalidInput(f"no task {id} here; `junto task ls` lists them")
        return live

    def link_changed(self, party: PartyId, detail: str | None) -> None:
        """A link came up (None), or went down, with the reason."""
        now = self._unix_time()
        for live in self.open:
            if party in live.task.proposal.participants:
                self.dispatch(live, PartyUp(party, now) if detail is None else PartyDown(party, detail, now))

    def dispatch(self, live: Live, event: Event) -> None:
        """Feed one event to a task. Raises PeerFault, InvalidTransition; then nothing changed."""
        instructions = live.task.handle(event)
        live.lane.extend(instructions)
        live.going_on = live.going_on or any(isinstance(one, GoOn) for one in instructions)
        if live.task.contract or live.task.state in ENDED:
            live.contracted.set()
        self._announce(live)
        if live.lane and (live.carrier is None or live.carrier.done()):
            live.carrier = asyncio.create_task(self._carry(live), name=f"task {live.task.id}")

    async def close(self) -> None:
        """Stop working; open tasks stay in the journal, and go on when the node starts again."""
        for live in self.live.values():
            for timer in live.timers:
                timer.cancel()
            for job in (live.work, live.carrier):
                if job is not None:
                    job.cancel()
        jobs = [job for live in self.live.values() for job in (live.work, live.carrier) if job is not None]
        await asyncio.gather(*jobs, return_exceptions=True)

    def _admit(self, task: Task) -> Live:
        live = Live(task)
        self.live[task.id] = live
        return live

    def _begin(self, live: Live, statement: str) -> None:
        self.dispatch(live, Opened(statement, self._unix_time()))
        if statement:
            live.recorded.set()
        self._note_absences(live)

    def _note_absences(self, live: Live) -> None:
        for party in live.task.others:
            detail = self._unreachable(party)
            if detail is not None:
                self.dispatch(live, PartyDown(party, detail, self._unix_time()))

    def _concluded(self, id: TaskId) -> None:
        """Let go of those that ended longest ago; the journal keeps what they said."""
        if id in self.live:
            self._ended[id] = None
        while len(self._ended) > ENDED_TASKS:
            oldest = next(iter(self._ended))
            del self._ended[oldest], self.live[oldest]
            self._let_go(oldest)

    def _announce(self, live: Live) -> None:
        live.changed.set()
        live.changed = asyncio.Event()
        if live.task.state in ENDED:
            live.ended.set()
        for tell in self.watchers:
            tell(live)

    async def _carry(self, live: Live) -> None:
        while live.lane:
            instruction = live.lane.popleft()
            try:
                await self._do(live, instruction)
            except JuntoError as error:
                _log.error("a task's instruction failed", task=live.task.id, code=error.code, reason=str(error))
                live.failure = error
                untold = live.task.state not in ENDED or any(_tells_an_end(one) for one in (instruction, *live.lane))
                self._fail(live, error.code, str(error))
                if untold and lacks_room(error):
                    self._say_unrecorded(live, error)
            except Exception as error:  # noqa: BLE001  # a fault of ours must end the task, named, not leave it waiting
                _log.exception("a task's instruction failed", task=live.task.id)
                self._fail(live, "internal", _fault(error))

    def _fail(self, live: Live, code: str, reason: str) -> None:
        """The journal or the disk failed us: the task cannot be recorded, so it ends here without a statement."""
        live.lane.clear()
        live.lane.extend(live.task.abandon(code, reason, self._unix_time()))
        self._announce(live)
        live.unrecorded = not live.recorded.is_set()
        live.recorded.set()  # it never will be: whoever asked need not wait for it

    def _say_unrecorded(self, live: Live, error: StorageFailed) -> None:
        """No statement can say that the task ended here: who waits for it hears so without one, and why."""
        task = live.task
        if live.unrecorded and task.asker == self._me:
            return  # nobody else knows of it
        asked = task.asker != self._me and task.contract is None
        seconds = max(task.deadline - self._unix_time(), _STOP_DELIVERY_SECONDS)
        self._courier.send_unrecorded(task.id, error.lack, (task.asker,) if asked else task.others, seconds)

    def ended_unrecorded(self, live: Live, party: PartyId, failure: StorageFailed) -> None:
        """A participant says that a task has ended there, and that it cannot record so. It counts as its statement."""
        task, now = live.task, self._unix_time()
        match task.state:
            case "judging" | "proposed" if task.asker == self._me:
                refusal = Refusal(task.proposal_id, task.proposal.plan_digest, failure.code, str(failure))
                self.dispatch(live, RefusalArrived(party, refusal, now))
            case "running":
                self.dispatch(live, StepFailed(StepId(""), failure.code, party, str(failure), now))
            case "judging" | "offered" if task.asker == party:
                stop = Stop(task.proposal.plan_digest, "failed", failure.code, party, str(failure))
                self.dispatch(live, StopArrived(party, stop, now))
            case _:
                pass

    async def _verdict(self, task: Task) -> Permitted | Forbidden:
        """Our judgement. One that fails is a refusal too: whoever asked is told, and need not wait for a deadline."""
        try:
            return await self._judge(task)
        except StorageFailed as error:
            _log.error("a judgement could not be recorded", task=task.id, reason=str(error))
            return Forbidden(error.code, str(error.told_by(self._me)), self._unix_time())
        except JuntoError as error:
            return Forbidden(error.code, str(error), self._unix_time())
        except Exception as error:  # noqa: BLE001  # the same, for a fault of ours
            _log.exception("a judgement failed", task=task.id)
            return Forbidden("internal", _fault(error), self._unix_time())

    async def _do(self, live: Live, instruction: Instruction) -> None:
        match instruction:
            case Judge():
                for _ in range(_TURNS_TO_SEND):
                    await asyncio.sleep(
                        0
                    )  # judging takes this thread for milliseconds: what was published leaves first
                verdict = await self._verdict(live.task)
                if live.task.state == "judging":
                    self.dispatch(live, verdict)
            case Publish():
                await self._publish(live, instruction.body, instruction.to)
            case Perform() if live.work is not None and not live.work.done():
                pass
            case Perform():
                live.work = asyncio.create_task(self._perform(live), name=f"work {live.task.id}")
                live.work.add_done_callback(partial(_worked, live))
            case Redo():
                if live.redo is not None:
                    live.redo(instruction.step)
            case GoOn():
                self._go_on(live, instruction.without)
                self._announce(live)
            case Halt():
                for timer in live.timers:
                    timer.cancel()
                live.timers.clear()
                if live.work is not None and live.work is not asyncio.current_task():
                    live.work.cancel()
                live.redo = None
                self._forget(live)
            case Conclude():
                live.contracted.set()
                self._announce(live)
                self._concluded(live.task.id)
            case Wake():
                delay = max(0.0, instruction.at - self._unix_time())
                live.timers.append(asyncio.get_running_loop().call_later(delay, self._tick, live, instruction.at))
            case _:
                assert_never(instruction)

    async def _publish(self, live: Live, body: Body, to: tuple[PartyId, ...]) -> None:
        task = live.task
        kept = await self._written(task, body)
        left = max(task.deadline - self._unix_time(), 0.0)
        seconds = max(left, _STOP_DELIVERY_SECONDS) if task.state in ENDED else left
        needed = isinstance(body, Proposal | Contract)  # who does not take these in will do nothing for the task
        refused = partial(self._not_taken_in, live, kept.statement) if needed else None
        self._courier.send(kept.envelope, to, seconds, refused)
        self._own(live, body, kept)

    async def _written(self, task: Task, body: Body) -> Kept:
        """Our statement in the journal. A disk without room is given time, but for a question that is being asked, as
        its user hears at once, and for an end, which the others hear of without a statement. Raises StorageFailed."""

        async def attempt() -> Kept:
            return await self._ledger.write(kind_of(body), fitted(body), task.id)

        match body:
            case Proposal() | Stop():
                return await attempt()
            case Confirm() if task.state in ENDED and task.me != task.receiver:
                return await attempt()
            case Offer() | Refusal():  # who asked is to hear of it while it waits for offers
                due = min(task.deadline, self._unix_time() + self._patience.offer_seconds)
            case _:
                due = task.deadline
        return await until_room(attempt, lambda: max(due - self._unix_time(), 0.0))

    def _not_taken_in(self, live: Live, told: Statement, party: PartyId, error: JuntoError) -> None:
        """A participant answered our proposal or contract with an error: what it is, without anybody's signature."""
        now = self._unix_time()
        reason = f"{party} did not take in the {told.kind}: {error}"
        if live.task.state in ("judging", "proposed"):
            refusal = Refusal(told.id, live.task.proposal.plan_digest, error.code, reason)
            self.dispatch(live, RefusalArrived(party, refusal, now))
        elif live.task.state == "running":
            self.dispatch(live, StepFailed(StepId(""), error.code, party, reason, now))

    def _own(self, live: Live, body: Body, kept: Kept) -> None:
        """Tell our machine our own statement, now that it is durable."""
        match body:
            case Proposal():
                live.task.proposed(kept.statement.id)
                live.recorded.set()
            case Offer() if live.task.asker != self._me:
                live.offered = kept.envelope.decode(), body
            case Offer() if live.task.state not in ENDED:
                envelope = kept.envelope.decode()
                self.dispatch(live, OfferArrived(self._me, body, envelope, self._unix_time()))
            case Contract():
                live.task.contracted(kept.statement.id)
                live.contracted.set()
            case Confirm() if body.seconds or any(done.certified is not None for done in body.steps):
                self.dispatch(live, ConfirmArrived(self._me, body, self._unix_time(), kept.statement.id))
            case Receipt():
                live.receipt_statement = kept.statement.id
            case Stop() | Refusal():
                live.task.spoke()
                live.our_end = body
            case _:
                pass

    def _tick(self, live: Live, due: float) -> None:
        """The moment `due` has come, whatever the wall clock makes of it: timers may fire a little early."""
        if live.task.state not in ENDED:
            try:
                self.dispatch(live, Ticked(max(due, self._unix_time())))
            except InvalidTransition as error:
                _log.error("a task refused a tick", task=live.task.id, reason=str(error))


def _worked(live: Live, work: "asyncio.Task[None]") -> None:
    """Let go of work that is over: what stopped it remembers where it stood, a cycle that only the collector sees."""
    if live.work is work:
        live.work = None


def _tells_an_end(instruction: Instruction) -> bool:
    """True if others hear by it that the task has ended."""
    return isinstance(instruction, Publish) and isinstance(instruction.body, Stop | Receipt | Refusal)


def _fault(error: Exception) -> str:
    return f"a fault of this node ({type(error).__name__}); its log says more"
