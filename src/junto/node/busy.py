# SPDX-License-Identifier: Apache-2.0
"""Asks again, in a while, what failed only because a participant had no room: nothing was computed, nothing is held."""

import asyncio
from collections.abc import Callable, Coroutine

from junto.errors import Busy
from junto.node.ground import Ground
from junto.node.runner import Live
from junto.types import PartyId

_PAUSE_SECONDS = 0.25
"""The pause before the next call, up to three times as much by chance: those who met at once shall not meet again."""
_LEAST_SECONDS = 2.0
"""The time that must be left until the deadline."""
_RECENT_SECONDS = 10.0


class AskingAgain:
    """Looks at every change of a task."""

    def __init__(
        self,
        me: PartyId,
        go_on: Callable[[Live, tuple[PartyId, ...]], None],
        start: Callable[[Coroutine[None, None, None]], None],
        ground: Ground,
    ) -> None:
        self._me = me
        self._go_on = go_on
        self._start = start
        self._ground = ground

    def look(self, live: Live) -> None:
        """A question of ours may just have ended for want of room: then it goes on as another task."""
        task, outcome = live.task, live.task.outcome
        if outcome is None or outcome.code != Busy.code or task.asker != self._me or task.contract is not None:
            return
        now = self._ground.unix_time()
        known = live.going_on or live.continued or now > outcome.at + _RECENT_SECONDS
        if not known and now + _LEAST_SECONDS <= task.deadline:
            live.going_on = True  # whoever watches it waits for the other's name
            self._start(self._later(live))

    async def _later(self, live: Live) -> None:
        try:
            await asyncio.sleep(_PAUSE_SECONDS * (1 + 2 * self._ground.random(1)[0] / 255))
            if not live.continued:
                self._go_on(live, ())
        finally:
            live.going_on = False
            live.changed.set()
