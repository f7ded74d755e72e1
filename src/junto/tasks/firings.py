# SPDX-License-Identifier: Apache-2.0
"""The triggers that are due: from what the journal says of them and what happens, each occasion once.

    Created, Changed, Fired, Misfired          statements of the journal, in its order, when the node starts and later
    VersionSeen, TaskEnded                     what happens, and what the journal tells of it when the node starts
    due(now)                                   the occasions to fire now; nothing changes until `Fired` comes back

So a crash between an occasion and its statement loses nothing: the same journal gives the same occasions again. A
trigger runs one task at a time; what comes meanwhile waits.

Missed is a time of a clock that is looked at more than `LATE_SECONDS` after it, because the node was down or the clock
was set forward, and a version or an end that came so long before the node did. `skip` leaves out what was missed, and
of what waits behind a running task keeps the latest. `catch-up` fires every missed time and end, oldest first, and of
missed versions the latest; of all that waits, it keeps the latest `MOST_WAITING`. A clock that is set back fires
nothing twice: the latest `MOST_REMEMBERED` occasions of a trigger are remembered. Times that a clock shows again while
the node is down, before the moment at which the trigger was made, are not made up for.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

from junto.tasks.bodies import End
from junto.tasks.triggers import (
    Cron,
    Firing,
    Misfire,
    NewVersion,
    Standing,
    TaskEnd,
    Trigger,
    TriggerEnd,
    TriggerState,
)
from junto.types import DatasetName, Digest, PartyId, TaskId

LATE_SECONDS = 60.0
MOST_WAITING = 100
MOST_REMEMBERED = 10_000
_SHOWN = 20

NextTime = Callable[[Cron, float], float]
"""The first time of a cron expression after a moment, unix seconds; infinity if none comes."""


@dataclass(frozen=True, slots=True)
class Created:
    """A trigger's statement is in the journal, `at` its time."""

    id: str
    trigger: Trigger
    at: float


@dataclass(frozen=True, slots=True)
class Changed:
    """A user's change of a trigger is in the journal."""

    change: TriggerState
    at: float


@dataclass(frozen=True, slots=True)
class Fired:
    """A firing is in the journal."""

    firing: Firing


@dataclass(frozen=True, slots=True)
class Misfired:
    """The journal says that a firing came to no task."""

    misfire: Misfire


@dataclass(frozen=True, slots=True)
class VersionSeen:
    """A party's dataset statement is in our journal."""

    party: PartyId
    dataset: DatasetName
    version: Digest
    published_at: float  # the party's clock


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task has ended here."""

    task: TaskId
    end: End
    at: float


Event = Created | Changed | Fired | Misfired | VersionSeen | TaskEnded


@dataclass(frozen=True, slots=True)
class Due:
    """An occasion of a trigger (its statement's id) to fire now."""

    trigger: str
    occasion: str
    due: float


@dataclass(slots=True)
class Armed:
    """A trigger and what has come of it."""

    id: str
    trigger: Trigger
    created_at: float
    looked: float  # times of the clock up to here were looked at
    upcoming: float | None = None  # the first time after that, once it was worked out
    over: bool = False  # the one task it waited for has ended
    state: Standing = "active"
    waiting: dict[str, float] = field(default_factory=dict)  # occasion → due, in the order they came
    done: dict[str, None] = field(default_factory=dict)  # occasions that have fired
    running: dict[TaskId, Firing] = field(default_factory=dict)  # those whose task has not ended, as far as we know
    firings: deque[Firing] = field(default_factory=lambda: deque(maxlen=_SHOWN))  # the latest
    misfires: dict[str, Misfire] = field(default_factory=dict)  # of those, by firing


class Firings:
    """All triggers of one party. No clock, no journal: `handle` takes what happened, `due` says what to fire."""

    def __init__(self, next_time: NextTime, up_since: float) -> None:
        """`up_since`: when the node came up, unix seconds; what was before it was missed."""
        self._next_time = next_time
        self._up_since = up_since
        self._armed: dict[str, Armed] = {}
        self._left_out: list[Due] = []
        self._seen: dict[tuple[PartyId, DatasetName], tuple[float, Digest]] = {}

    @property
    def standing(self) -> list[Armed]:
        """Triggers that were not removed, oldest first."""
        return [armed for armed in self._armed.values() if armed.state != "removed"]

    def named(self, name: str) -> Armed | None:
        """The trigger of a name, if one stands."""
        return next((armed for armed in self.standing if armed.trigger.name == name), None)

    def of(self, id: str) -> Armed:
        """The trigger with this statement. Raises KeyError."""
        return self._armed[id]

    @property
    def running(self) -> list[Firing]:
        """Firings whose task is not known to have ended, oldest first; some may not have been asked yet."""
        return [firing for armed in self._armed.values() for firing in armed.running.values()]

    @property
    def awaited(self) -> frozenset[TaskId]:
        """Tasks whose end changes something here."""
        single = {
            armed.trigger.when.task
            for armed in self._active()
            if isinstance(armed.trigger.when, TaskEnd) and not armed.over
        }
        return frozenset(single.union(*(armed.running for armed in self._armed.values())))

    def next_at(self, armed: Armed, now: float) -> float | None:
        """The moment at which the clock fires a trigger next; None if something else does, or nothing."""
        when = armed.trigger.when
        if armed.state != "active" or not isinstance(when, Cron):
            return None
        known = armed.upcoming is not None and armed.looked <= now < armed.upcoming
        found = armed.upcoming if known and armed.upcoming is not None else self._next_time(when, now)
        return found if found < float("inf") else None

    def wake_at(self, now: float) -> float | None:
        """The moment at which a clock fires next; None if none does."""
        return min((at for armed in self.standing if (at := self.next_at(armed, now)) is not None), default=None)

    def handle(self, event: Event) -> None:
        """Take in what happened. A statement about a trigger that is not known changes nothing."""
        match event:
            case Created():
                self._armed[event.id] = Armed(event.id, event.trigger, event.at, event.at)
            case Changed():
                self._changed(event)
            case Fired():
                self._fired(event.firing)
            case Misfired():
                self._misfired(event.misfire)
            case VersionSeen():
                self._version_seen(event)
            case TaskEnded():
                self._task_ended(event)
            case _:
                assert_never(event)

    def due(self, now: float) -> list[Due]:
        """The occasions to fire now: of each trigger that runs nothing, the oldest that waits."""
        found: list[Due] = []
        for armed in self.standing:
            if armed.state != "active":
                continue
            self._look(armed, now)
            self._leave_out(armed, now)
            if armed.waiting and not armed.running:
                occasion, due = next(iter(armed.waiting.items()))
                found.append(Due(armed.id, occasion, due))
        return found

    def left_out(self) -> list[Due]:
        """Occasions that were missed and will not be made up for, since this was asked last."""
        found, self._left_out = self._left_out, []
        return found

    # ── what the journal says ───────────────────────────────────────────────────────────────────────

    def _changed(self, event: Changed) -> None:
        armed = self._armed.get(event.change.trigger)
        if armed is None:
            return
        armed.state = event.change.state
        armed.looked, armed.upcoming = event.at, None  # what comes while a trigger is paused is not made up for
        armed.waiting.clear()
        self._let_go(armed)

    def _fired(self, firing: Firing) -> None:
        armed = self._armed.get(firing.trigger)
        if armed is None or firing.occasion in armed.done:
            return
        armed.waiting.pop(firing.occasion, None)
        armed.done[firing.occasion] = None
        while len(armed.done) > MOST_REMEMBERED:
            armed.done.pop(next(iter(armed.done)))
        armed.running[firing.task] = firing
        armed.firings.append(firing)
        armed.misfires = {f.id: armed.misfires[f.id] for f in armed.firings if f.id in armed.misfires}
        if isinstance(armed.trigger.when, Cron) and not firing.user:
            armed.looked, armed.upcoming = max(armed.looked, firing.due), None

    def _misfired(self, misfire: Misfire) -> None:
        armed = self._armed.get(misfire.trigger)
        if armed is not None:
            armed.misfires[misfire.firing] = misfire
            armed.running = {task: f for task, f in armed.running.items() if f.id != misfire.firing}
            self._let_go(armed)

    def _let_go(self, armed: Armed) -> None:
        if armed.state == "removed" and not armed.running:
            self._armed.pop(armed.id, None)

    # ── what happens ────────────────────────────────────────────────────────────────────────────────

    def _version_seen(self, event: VersionSeen) -> None:
        key = (event.party, event.dataset)
        known = self._seen.get(key)
        if known is not None and (event.published_at, event.version) <= known:
            return
        self._seen[key] = (event.published_at, event.version)
        if known is not None and known[1] == event.version:
            return  # published again as it was
        occasion = f"{event.dataset}@{event.party} {event.version} {event.published_at!r}"
        for armed in self._active():
            match armed.trigger.when:
                case NewVersion(dataset=dataset, party=party) if dataset == event.dataset:
                    if party is None or party == event.party:
                        _wait(armed, occasion, event.published_at)
                case _:
                    pass

    def _task_ended(self, event: TaskEnded) -> None:
        of = next((armed for armed in self._armed.values() if event.task in armed.running), None)
        for armed in self._active():
            match armed.trigger.when:
                case TaskEnd(task=task, ends=ends):
                    fits = task == event.task and not armed.over
                    armed.over = armed.over or fits
                case TriggerEnd(trigger=name, ends=ends):
                    fits = of is not None and of.trigger.name == name
                case _:
                    continue
            if fits and (ends == "any" or event.end == "done"):
                _wait(armed, event.task, event.at)
        if of is not None:
            del of.running[event.task]
            self._let_go(of)

    def _active(self) -> list[Armed]:
        return [armed for armed in self._armed.values() if armed.state == "active"]

    # ── the clock ───────────────────────────────────────────────────────────────────────────────────

    def _look(self, armed: Armed, now: float) -> None:
        """Add the occasions that the clock showed since the last look; a clock that was set back shows them again."""
        when = armed.trigger.when
        if not isinstance(when, Cron):
            return
        if armed.upcoming is None or not armed.looked <= now < armed.upcoming:
            for due in self._latest(when, min(armed.looked, now), now):
                _wait(armed, f"{due:.0f}", due)
            armed.upcoming = self._next_time(when, now)
        armed.looked = now

    def _latest(self, cron: Cron, after: float, until: float) -> list[float]:
        """The latest times in (after, until], oldest first; a long while is not gone through from its beginning."""
        span = 3600.0
        while True:
            start = max(after, until - span)
            times = list(self._times(cron, start, until))
            if start == after or len(times) >= MOST_WAITING:
                return times[-MOST_WAITING:]
            span *= 2

    def _times(self, cron: Cron, after: float, until: float) -> Iterator[float]:
        while (after := self._next_time(cron, after)) <= until:
            yield after

    def _leave_out(self, armed: Armed, now: float) -> None:
        """Leave out the occasions that will not be made up for."""
        waiting = list(armed.waiting.items())
        when = armed.trigger.when
        on_time_after = (now if isinstance(when, Cron) else self._up_since) - LATE_SECONDS
        on_time = [(occasion, due) for occasion, due in waiting if due >= on_time_after]
        if armed.trigger.missed == "skip":
            waiting = on_time[-1:]
        elif isinstance(when, NewVersion):
            missed = [one for one in waiting if one not in on_time]
            waiting = missed[-1:] + on_time
        kept = dict(waiting[-MOST_WAITING:])
        self._left_out += [Due(armed.id, one, due) for one, due in armed.waiting.items() if one not in kept]
        armed.waiting = kept


def _wait(armed: Armed, occasion: str, due: float) -> None:
    if occasion not in armed.done:
        armed.waiting.setdefault(occasion, due)
