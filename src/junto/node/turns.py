# SPDX-License-Identifier: Apache-2.0
"""Turns at work that others cause: one at a time for each party, few in all, and a share of the time for each.

A party that has had its share is refused until some of it is back. Our own has no share.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from junto.errors import Busy
from junto.types import PartyId

_WAITING = 64  # of one party


@dataclass(slots=True)
class _Account:
    """The seconds that a party may still have, as of a moment."""

    left: float
    at: float


class Turns:
    """Turns for `what`, `at_once` of them; a party may have `seconds` of it at once, and `share` seconds a second."""

    def __init__(
        self,
        me: PartyId,
        what: str,
        *,
        clock: Callable[[], float],
        at_once: int = 2,
        seconds: float = 30.0,
        share: float = 0.5,
    ) -> None:
        self._me = me
        self._what = what
        self._seconds = seconds
        self._share = share
        self._clock = clock
        self._room = asyncio.Semaphore(at_once)
        self._lanes: dict[PartyId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: dict[PartyId, int] = defaultdict(int)
        self._accounts: dict[PartyId, _Account] = {}

    @asynccontextmanager
    async def of(self, party: PartyId) -> AsyncIterator[None]:
        """A turn, once it comes. Raises Busy for a party that has used its share, or has many waiting."""
        if self._waiting[party] >= _WAITING:
            raise Busy(f"{self._me} has {_WAITING} plans of {party} waiting {self._what}: ask fewer at a time")
        self._waiting[party] += 1
        try:
            async with self._lanes[party]:
                self._check(party)
                async with self._room:
                    began = self._clock()
                    try:
                        yield
                    finally:
                        self._charge(party, self._clock() - began)
        finally:
            self._waiting[party] -= 1

    def _check(self, party: PartyId) -> None:
        left = self._left(party)
        if left <= 0 and party != self._me:
            back = -left / self._share
            raise Busy(
                f"{party} has used its time for {self._what} at {self._me} ({self._seconds:g} s at once, then"
                f" {self._share:g} s a second): ask again in {back + 1:.0f} s, in smaller questions"
            )

    def _charge(self, party: PartyId, seconds: float) -> None:
        self._accounts[party] = _Account(self._left(party) - seconds, self._clock())

    def _left(self, party: PartyId) -> float:
        now = self._clock()
        account = self._accounts.get(party) or _Account(self._seconds, now)
        return min(self._seconds, account.left + (now - account.at) * self._share)
