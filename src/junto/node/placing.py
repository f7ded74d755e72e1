# SPDX-License-Identifier: Apache-2.0
"""The standing of other parties as a node sees it, and its plans placed by that: tables read where it costs least, and
a helper as the third node of two owners that is there."""

from collections.abc import Callable, Collection, Iterable

from junto.catalog.view import CatalogView
from junto.link.links import PartyStatus
from junto.plan.computing import helped
from junto.plan.placement import Standing, alternatives, place
from junto.plan.steps import Plan
from junto.plan.without import without
from junto.types import PartyId

_UNMEASURED_SECONDS = 0.05
"""The round trip of a link that is up and has not been measured yet."""
_PASSED_SECONDS = 5.0
"""A helper for want of which a question was asked again is not asked for so long; see `lending.py` for who agrees."""


class Placing:
    """Places what its node asks. `offered` hears of every offer, wherever the task was asked."""

    def __init__(
        self,
        view: CatalogView,
        statuses: Callable[[], Iterable[PartyStatus]],
        unix_time: Callable[[], float],
        absence_seconds: float,
    ) -> None:
        """`absence_seconds`: a link may be down so long before its party counts as away."""
        self._view = view
        self._statuses = statuses
        self._unix_time = unix_time
        self._absence_seconds = absence_seconds
        self._passed: dict[PartyId, float] = {}  # until when a helper is passed over
        self._starts: dict[PartyId, float] = {}  # when each party's work could begin, by its last offer

    def offered(self, party: PartyId, starts_in: float) -> None:
        """A party offered to start so many seconds from now."""
        self._starts[party] = self._unix_time() + starts_in

    def placed(self, plan: Plan) -> Plan:
        """The plan with each open table read at the holder that costs least, as `plan/placement.py` says, and with the
        first helper that is there, as `plan/computing.py` does."""
        others = alternatives(plan, tuple(self._view.datasets))
        return self._helped(place(plan, others, self._standings()) if others else plan)

    def again(self, plan: Plan, absent: Collection[PartyId]) -> Plan:
        """The plan without those who stay away, to be asked again. Raises InvalidInput as `without` does."""
        self._passed.update(dict.fromkeys(absent, self._unix_time() + _PASSED_SECONDS))
        return self._helped(without(plan, absent, self._view.datasets))

    def _helped(self, plan: Plan) -> Plan:
        now = self._unix_time()
        away = {s.party for s in self._statuses() if not s.up and now >= s.since + self._absence_seconds}
        away |= {party for party, until in self._passed.items() if now < until}
        return helped(plan, {party: to for party, to in self._view.consents.items() if party not in away})

    def _standings(self) -> dict[PartyId, Standing]:
        now = self._unix_time()
        found = {}
        for status in self._statuses():
            if status.up:
                trip = _UNMEASURED_SECONDS if status.round_trip_ms is None else status.round_trip_ms / 1000
                found[status.party] = Standing(trip, max(self._starts.get(status.party, 0.0) - now, 0.0))
        return found
