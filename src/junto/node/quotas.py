# SPDX-License-Identifier: Apache-2.0
"""The limits on one other party's input to this node's journal and memory: so much a day, and so many tasks at a time.

Input beyond the limits is refused before it is read, let alone kept. The sender is told one plain code; the operator
gets a notice when a party reaches its quota, and one more each time that ten times as many statements were refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from junto.errors import OverQuota
from junto.trust.names import parse_name
from junto.types import PartyId

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Quota:
    """The input taken from one party: statements and their bytes a day (UTC, our clock), tasks that have not ended."""

    statements: int = 100_000
    bytes: int = 256 * 10**6
    tasks: int = 1_000


@dataclass(slots=True)
class _Day:
    number: int
    statements: int = 0
    bytes: int = 0
    refused: int = 0
    told: int = 0  # so many were refused when the operator was told last


Tell = Callable[[str, str], None]
"""Raises a notice: what it is about, the same once; its text."""


class Quotas:
    """The input of each party today."""

    def __init__(
        self,
        me: PartyId,
        quota: Quota,
        unix_time: Callable[[], float],
        open_tasks: Callable[[PartyId], int],
        tell: Tell,
    ) -> None:
        """open_tasks: how many tasks that a party asked have not ended."""
        self._me = me
        self._quota = quota
        self._unix_time = unix_time
        self._open_tasks = open_tasks
        self._tell = tell
        self._days: dict[PartyId, _Day] = {}

    def recall(self, kept: Mapping[str, tuple[int, int]]) -> None:
        """Take in what the journal holds of today: author → statements and their bytes."""
        for author, (statements, size) in kept.items():
            day = self._today(parse_name(author).party)
            day.statements, day.bytes = day.statements + statements, day.bytes + size

    @property
    def day_began(self) -> float:
        """The start of today, unix seconds."""
        return self._unix_time() // DAY_SECONDS * DAY_SECONDS

    def check(self, party: PartyId, statements: int = 0, size: int = 0) -> None:
        """Nothing, if so much more is taken from the party today. Raises OverQuota."""
        day, most = self._today(party), self._quota
        if day.statements + statements <= most.statements and day.bytes + size <= most.bytes:
            return
        day.refused += max(statements, 1)
        if day.refused >= 10 * day.told:
            day.told = day.refused
            self._tell(
                f"{party} {day.number} {len(str(day.refused))}",
                f"{party} has reached what this node keeps of one party a day ({most.statements:,} statements, "
                f"{most.bytes:,} bytes); refused so far today: {day.refused:,}",
            )
        raise OverQuota(f"{self._me} keeps no more statements of {party} today: it has reached its quota there")

    def check_task(self, party: PartyId) -> None:
        """Nothing, if the party may ask another task now. Raises OverQuota."""
        if self._open_tasks(party) >= self._quota.tasks:
            raise OverQuota(f"{self._me} takes no more tasks of {party} now: {self._quota.tasks:,} have not ended")

    def took(self, party: PartyId, size: int) -> None:
        """One more statement of the party is in the journal."""
        day = self._today(party)
        day.statements += 1
        day.bytes += size

    def _today(self, party: PartyId) -> _Day:
        number = int(self._unix_time() // DAY_SECONDS)
        day = self._days.get(party)
        if day is None or day.number != number:
            day = self._days[party] = _Day(number)
        return day
