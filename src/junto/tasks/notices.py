# SPDX-License-Identifier: Apache-2.0
"""The events that deserve a notice: found by comparing a task's state before an event with its state after it.

Every participant raises its own notices, from what its own machine knows. A notice's id is made of what it is about and
of nothing else, so the same fact told again, after a restart too, has the same id, and who subscribes drops repeats.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from junto.errors import DeadlineExceeded
from junto.tasks.certificates import Deviation
from junto.tasks.state import Task
from junto.tasks.waiting import Outcome, Wait
from junto.types import PartyId, StepId, TaskId

Kind = Literal[
    "state",
    "step",
    "wait",
    "away",
    "back",
    "retry",
    "ended",
    "deviation",
    "trigger",
    "disk",
    "clock",
    "quota",
    "journal",
    "certificate",
    "gap",
    "test",
]
"""`state` and `step` are progress: a task moved, a part of a step is finished. `wait`: a wait passed its limit. `away`,
`back`: a participant stays away, is there again. `retry`: a step is tried again. `ended`: a task did. `deviation`: two
computed one step and differ. `trigger`: a firing failed or was missed. `disk`: full, or has space again. `clock`: a
party's clock is far from ours, or is right again; ours was set. `quota`: a party has put in as much as is taken of one.
`journal`: a journal, ours or another party's, is not what it was. `certificate`: ours ends soon, and nobody renews it.
`gap`: a watcher was too slow for all. `test`: somebody asked for one."""

KINDS: tuple[Kind, ...] = get_args(Kind)
PROGRESS: frozenset[Kind] = frozenset(("state", "step"))
"""Kinds that a person watches and nobody wants to be called for."""

Severity = Literal["info", "warning", "error"]


class Notice(msgspec.Struct, frozen=True, gc=False):
    """One thing that somebody may want to hear of. `text` is one line without values of the data. (A Struct, as ten
    are made for the smallest task.)"""

    id: str
    kind: Kind
    task: TaskId  # empty if it is about no task
    party: PartyId  # whom it concerns
    by: PartyId  # whose node raises it
    text: str
    at: float  # unix seconds, clock of that node
    severity: Severity


class Sight(msgspec.Struct, frozen=True, gc=False):
    """A task at one moment: as much of it as notices tell of. (A Struct, as one is made with every event.)"""

    task: TaskId
    me: PartyId
    asker: PartyId
    state: str
    since: float
    at: float
    finished: tuple[tuple[StepId, PartyId], ...]
    late: tuple[Wait, ...]  # waits past their limit
    away: tuple[tuple[PartyId, str, float], ...]  # participants away for longer than is patient: why, since when
    down: frozenset[PartyId]  # participants not reached, for however short a time
    again: tuple[tuple[StepId, int, str], ...]  # steps not in their first try: which try, why
    deviations: tuple[Deviation, ...]  # of those who certify one step, and of second results
    outcome: Outcome | None
    limit: float  # when the next wait passes its limit


def sight(task: Task, at: float, absence_seconds: float, before: Sight | None = None) -> Sight:
    """The state of the task at `at`. An earlier sight `before` spares work, and is returned if nothing is new."""
    if before is not None and _same(before, task, at):
        return before
    late: tuple[Wait, ...] = ()
    if before is not None and before.state == task.state and at < before.limit:
        limit = before.limit
    else:
        waits = task.waits()
        late = tuple(wait for wait in waits if wait.until <= at)
        limit = min((wait.until for wait in waits), default=float("inf"))
    tried = ((step, tried.tries + 1, tried.reason) for step, tried in task.tried.items())
    begun = ((step, number + 1, "a participant lost its side of it") for step, number in task.attempts.items())
    return Sight(
        task=task.id,
        me=task.me,
        asker=task.asker,
        state=task.state,
        since=task.since,
        at=at,
        finished=tuple(task.finished),
        late=late,
        away=tuple((p, why, since) for p, (why, since) in task.away.items() if at >= since + absence_seconds),
        down=frozenset(task.away),
        again=(*tried, *begun),
        deviations=task.deviations,
        outcome=task.outcome,
        limit=limit,
    )


def _same(before: Sight, task: Task, at: float) -> bool:
    """True if surely nothing that notices tell of has changed."""
    if before.state != task.state or at >= before.limit or len(before.finished) != len(task.finished):
        return False
    heard = task.signatures.first or task.doubles.heard
    return not (task.away or before.down or task.tried or task.attempts or heard)


def notices(before: Sight | None, after: Sight) -> list[Notice]:
    """The news in `after`; everything that still matters if there is no `before`: of an ended task, its end."""
    if before is after:
        return []
    return [*_deviating(before, after), *_moved(before, after)]


def _deviating(before: Sight | None, after: Sight) -> Iterator[Notice]:
    """A confirmation may come when the task has ended."""
    told = before.deviations if before is not None else ()
    for one in after.deviations:
        if one not in told:
            yield _of(after, "deviation", one.party, one.line, "error", one.step, one.digest)


def _moved(before: Sight | None, after: Sight) -> list[Notice]:
    if after.outcome is not None and (before is None or before.outcome is None):
        return [*(_news(before, after) if before is not None else ()), *_end(after, after.outcome)]
    if after.outcome is not None:
        return []
    return list(_news(before, after))


def _news(before: Sight | None, after: Sight) -> Iterator[Notice]:
    if after.outcome is None and (before is None or before.state != after.state):
        text = f"the task of {after.asker} is {after.state}"
        yield _of(after, "state", after.asker, text, "info", after.state, at=after.since)
    known = frozenset(before.finished) if before is not None else frozenset()
    new = after.finished if before is None or before.finished != after.finished else ()
    for step, party in new:
        if (step, party) not in known:
            yield _of(after, "step", party, f"{party} finished its part of step {step}", "info", step)
    told = frozenset((wait.party, wait.what) for wait in before.late) if before is not None else frozenset()
    for wait in after.late:
        if (wait.party, wait.what) not in told:
            text = f"{wait.what} of {wait.party} was due after {wait.until - wait.since:.3g} s and is still waited for"
            yield _of(after, "wait", wait.party, text, "warning", wait.what)
    if after.outcome is not None:
        return
    yield from _presence(before, after)
    tries = {step: number for step, number, _ in before.again} if before is not None else {}
    for step, number, why in after.again:
        if number > tries.get(step, 1):
            text = f"step {step} is tried again (attempt {number}): {why}"
            yield _of(after, "retry", after.me, text, "warning", step, str(number))


def _presence(before: Sight | None, after: Sight) -> Iterator[Notice]:
    told = {(party, since) for party, _, since in before.away} if before is not None else set()
    for party, why, since in after.away:
        if (party, since) not in told:
            text = f"{party} stays away, for {after.at - since:.3g} s now: {why}"
            yield _of(after, "away", party, text, "warning", f"{since:.3f}")
    for party, since in sorted(told):
        if party not in after.down:
            text = f"{party} is back after {after.at - since:.3g} s"
            yield _of(after, "back", party, text, "info", f"{since:.3f}")


def _end(after: Sight, outcome: Outcome) -> Iterator[Notice]:
    reason = "; ".join(line.strip() for line in outcome.reason.splitlines() if line.strip())
    if outcome.code == DeadlineExceeded.code:
        yield _of(after, "wait", outcome.party, reason, "warning", "end", at=outcome.at)
    severity: Severity
    match outcome.end:
        case "done":
            severity, text = "info", "the task is done"
        case "failed" | "expired":
            severity, text = "error", f"the task {outcome.end}, because of {outcome.party}: {reason}"
        case "cancelled" | "refused":
            severity, text = "warning", f"the task was {outcome.end}: {reason}"
    yield _of(after, "ended", outcome.party, text, severity, outcome.end, at=outcome.at)


def _of(
    seen: Sight, kind: Kind, party: PartyId, text: str, severity: Severity, *about: str, at: float | None = None
) -> Notice:
    id = notice_id(seen.me, kind, seen.task, party, *about)
    return Notice(id, kind, seen.task, party, seen.me, text, seen.at if at is None else at, severity)


def notice_id(*about: str) -> str:
    """An id made of what a notice is about: whose node, which kind, which task or thing, which occurrence of it."""
    named = [part.encode() for part in about]
    hashed = hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in named]))
    return f"ntc_{hashed.hexdigest()[:32]}"
