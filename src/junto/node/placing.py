# SPDX-License-Identifier: Apache-2.0
"""How the other parties stand as a node sees them, and its plans placed by that: tables read where it costs least."""

from collections.abc import Callable, Iterable

from junto.catalog.dataset import Dataset
from junto.link.links import PartyStatus
from junto.plan.placement import Standing, alternatives, place
from junto.plan.steps import Plan
from junto.types import PartyId

_UNMEASURED_SECONDS = 0.05
"""The round trip of a link that is up and has not been measured yet."""


class Placing:
    """Places what its node asks. `offered` hears of every offer, wherever the task was asked."""

    def __init__(
        self,
        datasets: Callable[[], Iterable[Dataset]],
        statuses: Callable[[], Iterable[PartyStatus]],
        unix_time: Callable[[], float],
    ) -> None:
        self._datasets = datasets
        self._statuses = statuses
        self._unix_time = unix_time
        self._starts: dict[PartyId, float] = {}  # when each party's work could begin, by its last offer

    def offered(self, party: PartyId, starts_in: float) -> None:
        """A party offered to start so many seconds from now."""
        self._starts[party] = self._unix_time() + starts_in

    def placed(self, plan: Plan) -> Plan:
        """The plan with each open table read at the holder that costs least, as `plan/placement.py` says."""
        others = alternatives(plan, tuple(self._datasets()))
        return place(plan, others, self._standings()) if others else plan

    def _standings(self) -> dict[PartyId, Standing]:
        now = self._unix_time()
        found = {}
        for status in self._statuses():
            if status.up:
                trip = _UNMEASURED_SECONDS if status.round_trip_ms is None else status.round_trip_ms / 1000
                found[status.party] = Standing(trip, max(self._starts.get(status.party, 0.0) - now, 0.0))
        return found
