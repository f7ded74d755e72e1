# SPDX-License-Identifier: Apache-2.0
"""One node's resources: who holds what of them, who waits, and who comes next.

A task *reserves* memory and disk before its party offers, all or nothing, and holds them until it ends. A reservation
that no contract follows lapses. A fragment takes a *slot* while it computes, and none while it waits for another party.

No circle of waits stays closed. Slots: a fragment that has one can end. Memory and disk: a task that holds
them under a contract has all it needs everywhere. A task without one may wait at another node for another such task,
which waits here; so a request that has waited `GRACE_SECONDS`, and that reservations as old of *older* tasks keep from
its turn, is turned away. Ids of tasks sort by time and are the same at every node: of any circle, the youngest yields.

The order of turns: one level of priority counts as `AGEING_SECONDS` of age (slots: `SLOT_AGEING_SECONDS`), and levels
beyond ±`MOST_PRIORITY` count as that. So a request yields to a later one of the highest priority for at most
2 · MOST_PRIORITY · AGEING_SECONDS.

Small ones may go before a large one that lacks room, until it has waited `BACKFILL_SECONDS`; from then on it keeps the
queue, and what is given back is saved for it. (Unless those who hold what it lacks are expected to need it longer than
it can wait: then it keeps nobody.) One that only its own party's cap holds up keeps the queue of its party, nobody
else's. Together: no request that came more than `LATEST_OVERTAKING_SECONDS` after another is granted before it, if that
one is within its party's cap and can start before its own limit.

Time is seconds on one clock that does not go back.
"""

import heapq
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from junto.errors import Busy, InvalidTransition, Refused
from junto.tasks.capacity import Amount, Capacity, in_words
from junto.tasks.reservations import (
    Book,
    Denied,
    Fragment,
    Granted,
    Held,
    Lack,
    Lapsed,
    Outcome,
    Request,
    Started,
    Use,
    View,
    fits,
    needed,
)
from junto.types import PartyId, StepId, TaskId

AGEING_SECONDS = 1.0
SLOT_AGEING_SECONDS = 10.0
MOST_PRIORITY = 10
BACKFILL_SECONDS = 2.0
GRACE_SECONDS = 2.0
MOST_WAITING = 1000
"""Requests of one party that may wait here at a time."""
LATEST_OVERTAKING_SECONDS = max(BACKFILL_SECONDS, 2 * MOST_PRIORITY * AGEING_SECONDS)

_LOWEST_WAIT = 0.1
_RESERVED: tuple[Literal["memory", "disk", "tasks"], ...] = ("memory", "disk", "tasks")


class Resources:
    """The resources of one node. Every method that changes something says what follows from the change, in order."""

    def __init__(self, me: PartyId, capacity: Capacity) -> None:
        self._me = me
        self.capacity = capacity
        self._book = Book()
        self._held: dict[TaskId, Held] = {}
        self._waiting: dict[TaskId, Request] = {}
        self._running: dict[tuple[TaskId, StepId], Fragment] = {}
        self._queued: dict[tuple[TaskId, StepId], Fragment] = {}
        self._holds_for: dict[TaskId, float] = {}  # waiting → until when it may hold without a contract
        self._advanced = float("-inf")

    # ── reservations ────────────────────────────────────────────────────────────────────────────────

    def request(self, request: Request, holds_until: float) -> list[Outcome]:
        """Ask for a task's part. It is granted, denied, or waits. Without a contract it is held until `holds_until`.

        One that is expected to need more than there is at all takes all there is: engines spill what does not fit.
        """
        if request.task in self._held or request.task in self._waiting:
            raise InvalidTransition(f"task {request.task} reserves twice")
        never = self._never(request)
        if never is not None:
            return [never]
        amount = Amount(min(request.amount.memory, self.capacity.memory), min(request.amount.disk, self.capacity.disk))
        self._waiting[request.task] = replace(request, amount=amount)
        self._holds_for[request.task] = holds_until
        return self.advance(request.at)

    def adopt(self, request: Request, holds_until: float | None) -> None:
        """Take up what was promised before this process began, whether there is room or not: a promise is kept, and
        others wait until there is. Without `holds_until` it is under a contract."""
        if request.task in self._held or request.task in self._waiting:
            raise InvalidTransition(f"task {request.task} reserves twice")
        self._hold(request, request.at, holds_until)

    def contracted(self, task: TaskId) -> bool:
        """The task's contract is here: it holds until it ends. False if it holds nothing (any more)."""
        held = self._held.get(task)
        if held is not None:
            self._held[task] = Held(held.request, held.since, None)
        return held is not None

    def release(self, task: TaskId, now: float) -> list[Outcome]:
        """The task has ended, or is not wanted: it waits for nothing and holds nothing. A slot of its is given back
        when the fragment has stopped."""
        held = self._held.pop(task, None)
        if held is not None:
            self._book.add(held.request, -1)
        self._waiting.pop(task, None)
        self._holds_for.pop(task, None)
        for key in [key for key in self._queued if key[0] == task]:
            del self._queued[key]
        return self.advance(now)

    # ── slots ───────────────────────────────────────────────────────────────────────────────────────

    def take_slot(self, task: TaskId, step: StepId, now: float) -> list[Outcome]:
        """A fragment of a task that has its contract wants to compute. Raises InvalidTransition."""
        held = self._held.get(task)
        if held is None or held.until is not None:
            raise InvalidTransition(f"step {step} of task {task} wants a slot, but the task has nothing contracted")
        if (task, step) in self._running or (task, step) in self._queued:
            raise InvalidTransition(f"step {step} of task {task} wants a slot twice")
        self._queued[task, step] = Fragment(task, step, held.request.party, held.request.priority, now)
        return self.advance(now)

    def give_slot(self, task: TaskId, step: StepId, now: float) -> list[Outcome]:
        """The fragment computes no more, or wants to no more."""
        self._queued.pop((task, step), None)
        fragment = self._running.pop((task, step), None)
        if fragment is not None:
            self._book.slot(fragment.party, -1)
        return self.advance(now)

    def slots_are(self, slots: int, now: float) -> list[Outcome]:
        """Set the number of fragments that may compute at once from now on; those that do, go on."""
        self.capacity = replace(self.capacity, slots=slots)
        return self.advance(now)

    # ── time ────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now: float) -> list[Outcome]:
        """The outcomes of time passing: what has lapsed by now, and who comes next."""
        self._advanced = now
        outcomes: list[Outcome] = []
        for task, held in list(self._held.items()):
            if held.until is not None and held.until <= now:
                self._book.add(held.request, -1)
                del self._held[task]
                outcomes.append(Lapsed(task))
        return [*outcomes, *self._grant(now), *self._start(now)]

    def wakes(self) -> float | None:
        """The moment at which `advance` is next due though nothing happens: the first after the last one it was given.
        It may have passed meanwhile; nothing due between the two looks at a clock must be left out. A reservation for
        no time at all was granted in that last moment, and lapses in the next."""
        lapses = [held.until for held in self._held.values() if held.until is not None]
        times = [request.until for request in self._waiting.values()]
        if self._waiting:
            times += [request.at + GRACE_SECONDS for request in self._waiting.values()]
            times += [held.since + GRACE_SECONDS for held in self._held.values() if held.until is not None]
        coming = [at for at in times if at > self._advanced]
        return min([*coming, *(at for at in lapses if at >= self._advanced)], default=None)

    def knows(self, task: TaskId) -> bool:
        """True if a task holds anything, or waits for it."""
        return task in self._held or task in self._waiting

    def starts_in(self, task: TaskId, now: float) -> float:
        """The seconds until a fragment of the task is expected to have a slot: those before it keep the slots busy
        as long as they said they would."""
        held = self._held.get(task)
        if held is None:
            raise InvalidTransition(f"task {task} holds nothing")
        others = [other for other in self._held.values() if other.request.task != task and other.ends > now]
        own = [other for other in others if other.request.party == held.request.party]
        cap = self.capacity.cap_of(held.request.party, self._me).slots
        waits = _free_in(others, self.capacity.slots, now)
        return max(waits, _free_in(own, cap, now)) if cap is not None else waits

    def why(self, task: TaskId, now: float) -> str:
        """The lack for which a task or one of its steps waits, in words; empty if it waits for nothing."""
        if task in self._waiting:
            return next(self.words(r, lack or Lack("turn")) for r, lack, _ in self._queue(now) if r.task == task)
        queued = next((f for (of, _), f in self._queued.items() if of == task), None)
        return self.words(queued, self._slot_lack(queued)) if queued is not None else ""

    def view(self, now: float) -> View:
        """All there is to see."""
        parties = {party: Use(u.slots, u.memory, u.disk, u.tasks) for party, u in self._book.parties.items()}
        total = self._book.total
        return View(
            self.capacity,
            Use(total.slots, total.memory, total.disk, total.tasks),
            parties,
            tuple(self._held.values()),
            tuple((request, lack or Lack("turn")) for request, lack, _ in self._queue(now)),
            tuple(self._running.values()),
            tuple((one, self._slot_lack(one)) for one in sorted(self._queued.values(), key=_slot_turn)),
        )

    # ── who comes next ──────────────────────────────────────────────────────────────────────────────

    def _grant(self, now: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for request, lack, before in self._queue(now) if self._waiting else ():
            if lack is None and now <= request.until:
                self._hold(request, now, self._holds_for[request.task])
                self._leave(request.task)
                outcomes.append(Granted(request.task))
            elif lack is None or now >= request.until or self._yields(request, before, now):
                outcomes.append(self._denied(request, lack or Lack("turn"), now))
        return outcomes

    def _queue(self, now: float) -> Iterator[tuple[Request, Lack | None, list[Request]]]:
        """The requests that wait, in order, with the lack of each and those for whom the queue is kept before it.

        The caller settles each before it takes the next.
        """
        keeper: Request | None = None
        closers: dict[PartyId, Request] = {}
        for request in sorted(self._waiting.values(), key=_turn):
            lack = self._lack(request)
            before = [one for one in (keeper, closers.get(request.party)) if one is not None]
            yield request, lack or (Lack("turn") if before else None), before
            left = request.task not in self._waiting
            if lack is not None and not before and not left and self._keeps(request, lack, now):
                if lack.capped:
                    closers[request.party] = request
                else:
                    keeper = request

    def _lack(self, request: Request) -> Lack | None:
        """The lack of a request against what there is; its party's cap first, as that holds up nobody else."""
        cap, own = self.capacity.cap_of(request.party, self._me), self._book.of(request.party)
        for kind in _RESERVED:
            if not fits(request.amount, kind, own, cap.of(kind)):
                return Lack(kind, capped=True)
        for kind in _RESERVED:
            if not fits(request.amount, kind, self._book.total, self.capacity.of(kind)):
                return Lack(kind)
        return None

    def _keeps(self, request: Request, lack: Lack, now: float) -> bool:
        """True if nobody may go before this request any more."""
        return now >= request.at + BACKFILL_SECONDS and now + self._room_in(request, lack, now) <= request.until

    def _room_in(self, request: Request, lack: Lack, now: float) -> float:
        """The seconds until those who hold what a request lacks are expected to have given back enough."""
        capped = lack.capped
        limits = self.capacity.cap_of(request.party, self._me) if capped else self.capacity
        taken = self._book.of(request.party) if capped else self._book.total
        left, ends = Use(0, taken.memory, taken.disk, taken.tasks), now
        holders = [held for held in self._held.values() if not capped or held.request.party == request.party]
        for held in sorted(holders, key=lambda one: one.ends):
            if all(fits(request.amount, kind, left, limits.of(kind)) for kind in _RESERVED):
                break
            left.add(held.request.amount, -1)
            ends = max(ends, held.ends)
        return ends - now

    def _yields(self, request: Request, before: list[Request], now: float) -> bool:
        """True if a request may be part of a circle, and is the youngest of it: see above."""
        if now < request.at + GRACE_SECONDS:
            return False
        stays = [held for held in self._held.values() if held.until is None]
        older = [
            held
            for held in self._held.values()
            if held.until is not None and held.request.task < request.task and now >= held.since + GRACE_SECONDS
        ]
        book = Book()
        for one in (*(held.request for held in (*stays, *older)), *before):
            book.add(one)
        cap, own = self.capacity.cap_of(request.party, self._me), book.of(request.party)
        room = all(
            fits(request.amount, kind, book.total, self.capacity.of(kind))
            and fits(request.amount, kind, own, cap.of(kind))
            for kind in _RESERVED
        )
        return bool(older) and not room

    def _start(self, now: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for fragment in sorted(self._queued.values(), key=_slot_turn) if self._queued else ():
            lack = self._slot_lack(fragment)
            if lack.kind == "turn":
                key = fragment.task, fragment.step
                del self._queued[key]
                self._running[key] = Fragment(fragment.task, fragment.step, fragment.party, fragment.priority, now)
                self._book.slot(fragment.party, 1)
                outcomes.append(Started(*key))
            elif not lack.capped:
                break
        return outcomes

    def _slot_lack(self, fragment: Fragment) -> Lack:
        cap = self.capacity.cap_of(fragment.party, self._me).slots
        if cap is not None and self._book.of(fragment.party).slots >= cap:
            return Lack("slots", capped=True)
        return Lack("slots" if self._book.total.slots >= self.capacity.slots else "turn")

    # ── shared ──────────────────────────────────────────────────────────────────────────────────────

    def _hold(self, request: Request, now: float, until: float | None) -> None:
        self._held[request.task] = Held(request, now, until)
        self._book.add(request)

    def _leave(self, task: TaskId) -> None:
        del self._waiting[task], self._holds_for[task]

    def _never(self, request: Request) -> Denied | None:
        """A request that no wait would help."""
        cap = self.capacity.cap_of(request.party, self._me)
        for kind in _RESERVED:
            need = needed(request.amount, kind)
            most = cap.of(kind)
            if most is not None and need > most:
                given = f"{self._me} gives {request.party} {in_words(kind, most)} at most"
                reason = f"the task needs {in_words(kind, need)}; {given} ([resources.cap] in its node.toml)"
                return Denied(request.task, Refused.code, reason, 0.0)
        if sum(1 for other in self._waiting.values() if other.party == request.party) >= MOST_WAITING:
            reason = f"{MOST_WAITING} tasks of {request.party} wait at {self._me} already"
            return Denied(request.task, Busy.code, reason, BACKFILL_SECONDS)
        return None

    def _denied(self, request: Request, lack: Lack, now: float) -> Denied:
        self._leave(request.task)
        seconds = max(self._room_in(request, lack, now), _LOWEST_WAIT)
        waited = f"{self._me} could not begin within {now - request.at:.2g} s"
        reason = f"{waited}: {self.words(request, lack)}; the earliest start is in about {seconds:.2g} s"
        return Denied(request.task, Busy.code, reason, seconds)

    def words(self, one: Request | Fragment, lack: Lack) -> str:
        """The lack that keeps a request or a fragment, in words: what is missing, and who has it."""
        if lack.kind == "turn":
            return f"others come first at {self._me}"
        kind, party = lack.kind, one.party
        need = in_words(kind, needed(one.amount, kind) if isinstance(one, Request) else 1)
        if lack.capped:
            most = self.capacity.cap_of(party, self._me).of(kind) or 0
            taken = in_words(kind, self._book.of(party).of(kind))
            return f"it needs {need}; {self._me} gives {party} {in_words(kind, most)} at a time, and it has {taken}"
        having = [(use.of(kind), name) for name, use in self._book.parties.items() if use.of(kind)]
        holders = ", ".join(f"{name} has {in_words(kind, size)}" for size, name in sorted(having, reverse=True))
        return f"it needs {need}; of {in_words(kind, self.capacity.of(kind) or 0)} at {self._me} {holders}"


def _turn(request: Request) -> tuple[float, TaskId]:
    return request.at - AGEING_SECONDS * _level(request.priority), request.task


def _slot_turn(fragment: Fragment) -> tuple[float, TaskId, StepId]:
    return fragment.at - SLOT_AGEING_SECONDS * _level(fragment.priority), fragment.task, fragment.step


def _level(priority: int) -> int:
    return max(-MOST_PRIORITY, min(priority, MOST_PRIORITY))


def _free_in(busy: list[Held], slots: int, now: float) -> float:
    """The seconds until one of `slots` is free, if each of `busy` keeps one as long as it said."""
    machines = [0.0] * slots
    for held in sorted(busy, key=lambda h: h.since):
        heapq.heapreplace(machines, machines[0] + held.ends - now)
    return machines[0]
