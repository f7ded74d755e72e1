# SPDX-License-Identifier: Apache-2.0
"""The sets of owners that groups of ours were released with, so that no second set tells one owner's part.

Whoever learns a sum over four owners, and the same sum over three of them, has the fourth's own. So a contracted task's
release of our rows is remembered for 30 days: which rows (see `plan/owners.py`), with which owners, for which asker. It
is part of our decision, which is in the journal before we offer; a set counts from the moment at which the contract is
in force.

Of the same rows, another set of owners is refused if our rules ask for all owners, or if it differs by fewer owners
than our rules ask for. An asker of which more is remembered than fits is refused any set that would need to be
remembered too: to forget the oldest instead would let an asker choose when.
"""

from collections.abc import Iterable, Sequence

import msgspec

from junto.errors import Refused
from junto.plan.review import Demand
from junto.trust.rules import Verdict
from junto.types import DatasetName, Digest, PartyId, TaskId

REMEMBERED_SECONDS = 30 * 86400.0
MOST_REMEMBERED = 50_000
"""The most sets remembered for one asking party."""


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The groups that a task may show of one dataset of ours: of which rows, by which fragment, with which owners."""

    dataset: DatasetName
    rows: Digest
    fragment: Digest  # keys and measures too
    owners: tuple[PartyId, ...]
    purpose: str


_Key = tuple[PartyId, DatasetName, Digest]


class Remembered:
    """The sets of one party, by asker and rows."""

    def __init__(self) -> None:
        self._sets: dict[_Key, dict[tuple[PartyId, ...], float]] = {}  # owners → when last
        self._count: dict[PartyId, int] = {}
        self._pending: dict[TaskId, tuple[PartyId, tuple[Shown, ...]]] = {}

    def check(self, asker: PartyId, demand: Demand, verdict: Verdict, now: float) -> None:
        """Raises Refused if what the demand shows, beside what is remembered, tells one owner's part."""
        if demand.rows is None:
            return
        key = (asker, demand.dataset, demand.rows)
        least = None if verdict.owners == "all" else verdict.parties
        others = [owners for owners, at in self._sets.get(key, {}).items() if now - at < REMEMBERED_SECONDS]
        others += [
            shown.owners
            for who, found in self._pending.values()
            for shown in found
            if (who, shown.dataset, shown.rows) == key
        ]
        for owners in others:
            apart = sorted(set(owners) ^ set(demand.owners))
            if apart and (least is None or len(apart) < least):
                raise Refused(
                    f"{asker} had these rows of {demand.dataset} together with {', '.join(owners)} within 30 days;"
                    f" asked now of {', '.join(demand.owners)}, the two answers would tell what"
                    f" {', '.join(apart)} holds: ask for the same owners again"
                )
        if key not in self._sets and self._count.get(asker, 0) >= MOST_REMEMBERED:
            raise Refused(
                f"{asker} has asked for {MOST_REMEMBERED} different choices of rows within 30 days: ask one of them"
                " again"
            )

    def judged(self, task: TaskId, asker: PartyId, shown: Sequence[Shown]) -> None:
        """A task was permitted; it shows so much, if its contract comes."""
        if shown:
            self._pending[task] = (asker, tuple(shown))

    def begun(self, task: TaskId, now: float) -> None:
        """The task's contract is in force."""
        asker, found = self._pending.pop(task, (PartyId(""), ()))
        self.remember(asker, found, now)

    def dropped(self, task: TaskId) -> None:
        """The task ended; if its contract was never in force, it shows nothing."""
        self._pending.pop(task, None)

    def remember(self, asker: PartyId, found: Iterable[Shown], at: float) -> None:
        """Count sets as released at that time."""
        for shown in found:
            key = (asker, shown.dataset, shown.rows)
            if key not in self._sets:
                self._forget_old(at)
                self._count[asker] = self._count.get(asker, 0) + 1
            sets = self._sets.pop(key, {})  # the keys stand in the order in which they were last used
            sets[shown.owners] = max(at, sets.get(shown.owners, at))
            self._sets[key] = sets

    def _forget_old(self, now: float) -> None:
        while self._sets:
            key = next(iter(self._sets))
            if now - max(self._sets[key].values()) < REMEMBERED_SECONDS:
                return
            del self._sets[key]
            self._count[key[0]] -= 1
