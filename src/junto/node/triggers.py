# SPDX-License-Identifier: Apache-2.0
"""Runs a party's triggers: looks at the clock, hears of versions and of tasks' ends, and asks what is due.

A firing is in the journal before its task is asked, and the task's id is in the firing. A node that was killed between
the two reads the firing again and asks that task; one that was killed after it finds the proposal, and asks nothing.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput, JuntoError, StorageFailed
from junto.journal.reading import Entry
from junto.journal.statement import body_of
from junto.logs import logger
from junto.node.asking import Asking, Wish
from junto.node.cron import check_cron, next_time
from junto.node.facts import Facts
from junto.node.ground import Ground
from junto.node.ledger import Ledger
from junto.node.runner import Live, Runner
from junto.node.waits import within
from junto.plan.repin import basis_of, repin
from junto.tasks.bodies import NO_TASK, End, Proposal, Refusal, Stop
from junto.tasks.firings import Armed, Changed, Created, Event, Fired, Firings, Misfired, TaskEnded, VersionSeen
from junto.tasks.triggers import (
    BODIES,
    Cron,
    Firing,
    Misfire,
    Standing,
    TaskEnd,
    Trigger,
    TriggerEnd,
    TriggerState,
    When,
    by_hand,
    firing_by_hand,
    firing_of,
)
from junto.trust.grants import moment_text
from junto.trust.names import parse_name
from junto.types import PartyId, TaskId

_log = logger("junto.triggers")
_LOOK_SECONDS = 20.0  # a wall clock that is set while we wait for it is noticed so soon
_LEAST_SECONDS = 0.005
_MEET_SECONDS = 8.0  # after a start, what was missed waits so long for the other parties
_MOST_TRIGGERS = 1000
_ENDINGS = ("receipt", "stop", "refusal")

B = TypeVar("B", bound=msgspec.Struct)
Tell = Callable[[str, str, TaskId], None]
"""Raises a notice: what it is about, the same once; its text; the task, if there is one."""


class Triggers:
    """The triggers of one party, at its node."""

    def __init__(
        self,
        ledger: Ledger,
        facts: Facts,
        runner: Runner,
        asking: Asking,
        ground: Ground,
        has_user: Callable[[str], bool],
        tell: Tell,
    ) -> None:
        """`has_user` says whether a name is a user of ours now: nobody else's triggers run. `tell` raises a notice."""
        self._me: PartyId = ledger.name.party
        self._ledger = ledger
        self._facts = facts
        self._runner = runner
        self._asking = asking
        self._now = ground.unix_time
        self._has_user = has_user
        self._tell = tell
        self._firings = Firings(next_time, ground.unix_time())
        self._met: set[PartyId] = set()
        self._continued: dict[TaskId, TaskId] = {}  # a task → the one that goes on without those who stayed away
        self._continues: dict[TaskId, TaskId] = {}  # and back
        self._woken = asyncio.Event()
        self._turn_taken = asyncio.Lock()
        self._recall()
        facts.watchers.append(self._published)
        runner.watchers.append(self._task_changed)

    # ── what is heard ───────────────────────────────────────────────────────────────────────────────

    def met(self, party: PartyId) -> None:
        """A party is there, and has told us its datasets."""
        self._met.add(party)
        self._woken.set()

    def _recall(self) -> None:
        """Read the triggers from the journal, and what has come of them."""
        journal = self._ledger.journal
        if next(journal.entries(kinds=("trigger",)), None) is None:
            for dataset in self._facts.view.datasets:
                self._firings.handle(_seen(dataset))
            return
        for entry in journal.entries(kinds=("proposal",)):
            before = _body(entry, Proposal).continues
            if before:
                self._goes_on(before, entry.task)
        for entry in journal.entries(kinds=("dataset", *_ENDINGS, *BODIES)):
            try:
                event = self._event(entry)
            except InvalidInput as error:
                _log.warning("a statement about triggers cannot be read", kind=entry.kind, reason=str(error))
                continue
            if event is not None:
                self._firings.handle(event)

    def _published(self, dataset: Dataset) -> None:
        """A dataset's statement is in the journal, and is the newest of its name and party."""
        self._firings.handle(_seen(dataset))
        self._woken.set()

    def _task_changed(self, live: Live) -> None:
        if live.continued:
            self._goes_on(live.task.id, live.continued)
        if live.task.outcome is not None and self._root(live.task.id) in self._firings.awaited:
            self._woken.set()

    async def run(self) -> None:
        """Fire what is due, as long as the node runs."""
        await self._meet()
        while True:
            self._woken.clear()
            began = self._now()
            try:
                async with self._turn_taken:
                    await self._turn()
            except StorageFailed as error:
                _log.error("a firing could not be recorded; it is tried again", reason=str(error))
            except Exception:  # noqa: BLE001  # a fault of ours in one trigger must not silence the others for good
                _log.exception("triggers were not looked at")
            at = self._firings.wake_at(began)  # not from now on: what fell due meanwhile may not have been seen
            left = _LOOK_SECONDS if at is None else min(at - self._now(), _LOOK_SECONDS)
            await within(self._woken.wait(), max(left, _LEAST_SECONDS))

    # ── what users do ───────────────────────────────────────────────────────────────────────────────

    @property
    def standing(self) -> list[Armed]:
        """Triggers that were not removed, oldest first."""
        return self._firings.standing

    def find(self, name: str) -> Armed:
        """The trigger of that name. Raises InvalidInput."""
        armed = self._firings.named(name)
        if armed is None:
            raise InvalidInput(f"no trigger {name[:64]!r} here; `junto trigger ls` lists them")
        return armed

    def next_at(self, armed: Armed) -> float | None:
        """The moment at which the clock fires the trigger next, unix seconds; None if no clock does."""
        return self._firings.next_at(armed, self._now())

    async def create(self, trigger: Trigger) -> Armed:
        """A new trigger, its basis taken from the present datasets. Raises InvalidInput."""
        async with self._turn_taken:
            if self._firings.named(trigger.name) is not None:
                raise InvalidInput(
                    f"a trigger {trigger.name} is there already: `junto trigger remove` it, or name yours anew"
                )
            if len(self.standing) >= _MOST_TRIGGERS:
                raise InvalidInput(f"{len(self.standing)} triggers are there already: remove some")
            self._asking.check(trigger.plan, trigger.seconds, trigger.at_least)
            self._asking.check_purpose(trigger.user, trigger.purpose)
            self._check(trigger.name, trigger.when)
            trigger = msgspec.structs.replace(trigger, basis=basis_of(trigger.plan, self._facts.view.datasets))
            kept = await self._ledger.write("trigger", trigger)
            self._firings.handle(Created(kept.statement.id, trigger, kept.statement.at))
            self._woken.set()
            return self._firings.of(kept.statement.id)

    async def change(self, name: str, state: Standing, user: str) -> None:
        """Pause, resume or remove a trigger."""
        async with self._turn_taken:
            change = TriggerState(self.find(name).id, state, user)
            kept = await self._ledger.write("trigger-state", change)
            self._firings.handle(Changed(change, kept.statement.at))
            self._woken.set()

    async def fire(self, name: str, task: TaskId, user: str) -> None:
        """Fire it now, as this task; once, however often it is said. Raises InvalidInput if no task comes of it."""
        async with self._turn_taken:
            armed = self.find(name)
            if by_hand(task) not in armed.done:
                if self._asking.find(task) is not None:
                    raise InvalidInput(f"task {task} is another's: choose an id of its own")
                await self._fire(firing_by_hand(armed.id, task, user, self._now()))
            misfire = next((m for m in armed.misfires.values() if self._task_of(armed, m) == task), None)
            if misfire is not None:
                raise InvalidInput(f"trigger {name} came to no task: {misfire.reason}")

    def end_of(self, task: TaskId) -> End | None:
        """The end of a task, as far as this node or its journal knows; None if it has not ended."""
        task = self._last(task)
        live = self._runner.live.get(task)
        if live is not None:
            return live.task.outcome.end if live.task.outcome is not None and not live.going_on else None
        entries = self._ledger.journal.entries(kinds=_ENDINGS, task=task)
        return next((end for entry in entries if (end := self._end(entry)) is not None), None)

    # ── one turn ────────────────────────────────────────────────────────────────────────────────────

    async def _meet(self) -> None:
        """Wait a little until the others have told their datasets: what was missed is about the datasets of now."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _MEET_SECONDS
        while loop.time() < until:
            if not self._firings.running and not self._firings.due(self._now()):
                return
            others = {party for armed in self.standing for party in armed.trigger.plan.parties} - {self._me}
            if others <= self._met:
                return
            self._woken.clear()
            await within(self._woken.wait(), max(until - loop.time(), 0.0))

    async def _turn(self) -> None:
        for firing in self._firings.running:
            await self._follow(firing)
        for task in self._firings.awaited:
            end = self.end_of(task)
            if end is not None:
                self._firings.handle(TaskEnded(task, end, self._now()))
        while dues := self._firings.due(self._now()):
            for due in dues:
                await self._fire(firing_of(due.trigger, due.occasion, due.due, self._now()))
        self._tell_left_out()

    async def _fire(self, firing: Firing) -> None:
        await self._ledger.write("firing", firing, firing.task)
        self._firings.handle(Fired(firing))
        await self._follow(firing)

    async def _follow(self, firing: Firing) -> None:
        """Ask a firing's task if nobody has; take note of its end."""
        end = self.end_of(firing.task)
        if end is not None:
            self._firings.handle(TaskEnded(firing.task, end, self._now()))
        elif firing.task in self._runner.live:
            return
        elif self._asking.find(firing.task) is not None:  # the journal knows it, but no longer as a task that runs
            self._firings.handle(TaskEnded(firing.task, "failed", self._now()))
        else:
            await self._ask(firing)

    async def _ask(self, firing: Firing) -> None:
        trigger = self._firings.of(firing.trigger).trigger
        try:
            if not self._has_user(trigger.user):
                raise InvalidInput(f"{trigger.user} is no longer a user of {self._me}")
            plan = repin(trigger.plan, trigger.basis, self._facts.view.datasets)
            wish = Wish(
                plan,
                trigger.user,
                trigger.seconds,
                trigger.purpose,
                trigger.priority,
                firing.task,
                trigger.absent,
                trigger.at_least,
                trigger.double,
            )
            self._asking.begin(wish)
            return
        except JuntoError as error:
            code, reason = error.code, str(error)
        except Exception as error:  # noqa: BLE001  # a fault of ours must end the firing, named, not leave it waiting
            _log.exception("a firing failed", trigger=trigger.name)
            code, reason = "internal", f"a fault of this node ({type(error).__name__}); its log says more"
        misfire = Misfire(firing.id, firing.trigger, code, reason)
        await self._ledger.write("misfire", misfire, firing.task)
        self._firings.handle(Misfired(misfire))
        self._tell(firing.id, f"trigger {trigger.name} came to no task: {reason}", firing.task)

    def _tell_left_out(self) -> None:
        """Raise one notice for each trigger, whatever number of occasions it is about."""
        left_out = self._firings.left_out()
        for armed in self.standing:
            missed = [due for due in left_out if due.trigger == armed.id]
            if not missed:
                continue
            name, most = armed.trigger.name, max(missed, key=lambda due: due.due)
            many = f"{len(missed)} occasions, the last" if len(missed) > 1 else "an occasion,"
            text = f"trigger {name} leaves out {many} of {moment_text(most.due)}, which came while it could not run"
            self._tell(f"{armed.id} {most.occasion}", text, NO_TASK)

    # ── checks and readings ─────────────────────────────────────────────────────────────────────────

    def _check(self, name: str, when: When) -> None:
        """Raises InvalidInput for a condition that cannot come about."""
        match when:
            case Cron():
                check_cron(when, self._now())
            case TaskEnd():
                if self._runner.live.get(when.task) is None and self._asking.find(when.task) is None:
                    raise InvalidInput(f"no task {when.task} here; `junto task ls` lists them")
                if self.end_of(when.task) is not None:
                    raise InvalidInput(f"task {when.task} has ended already: ask the question now")
            case TriggerEnd():
                self._check_chain(name, when)
            case _:
                found = self._facts.view.find(when.dataset)
                if when.party is not None and when.party not in {dataset.party for dataset in found}:
                    owners = ", ".join(dataset.party for dataset in found)
                    raise InvalidInput(f"{when.party} does not publish {when.dataset}; {owners} does")

    def _check_chain(self, name: str, when: TriggerEnd) -> None:
        """Triggers that follow each other in a circle would never stop."""
        following: When = when
        while isinstance(following, TriggerEnd):
            if following.trigger == name:
                raise InvalidInput(f"trigger {name} would follow itself, and never stop: follow another")
            following = self.find(following.trigger).trigger.when

    def _task_of(self, armed: Armed, misfire: Misfire) -> TaskId | None:
        return next((firing.task for firing in armed.firings if firing.id == misfire.firing), None)

    def _event(self, entry: Entry) -> Event | None:
        if entry.kind in BODIES and parse_name(entry.author).party != self._me:
            return None
        match entry.kind:
            case "trigger":
                return Created(entry.id, _body(entry, Trigger), entry.at)
            case "trigger-state":
                return Changed(_body(entry, TriggerState), entry.at)
            case "firing":
                return Fired(_body(entry, Firing))
            case "misfire":
                return Misfired(_body(entry, Misfire))
            case "dataset":
                return _seen(_body(entry, Dataset))
            case _:
                end = self._end(entry)
                if end is None or entry.task in self._continued:
                    return None
                return TaskEnded(self._root(entry.task), end, entry.at)

    def _last(self, task: TaskId) -> TaskId:
        """The task that goes on for it without those who stayed away; itself if none does."""
        while task in self._continued:
            task = self._continued[task]
        return task

    def _root(self, task: TaskId) -> TaskId:
        """The task that was asked at first."""
        while task in self._continues:
            task = self._continues[task]
        return task

    def _goes_on(self, before: TaskId, after: TaskId) -> None:
        self._continued[before] = after
        self._continues[after] = before

    def _end(self, entry: Entry) -> End | None:
        """The end of a task by one statement of it; None for a refusal of another, which the asker answers."""
        match entry.kind:
            case "receipt":
                return "done"
            case "stop":
                return _body(entry, Stop).end
            case _ if parse_name(entry.author).party == self._me:
                return "refused" if _body(entry, Refusal).code == "refused" else "failed"
            case _:
                return None


def _seen(dataset: Dataset) -> VersionSeen:
    return VersionSeen(dataset.party, dataset.name, dataset.version, dataset.published_at)


def _body(entry: Entry, shape: type[B]) -> B:
    return body_of(entry.statement, shape)
