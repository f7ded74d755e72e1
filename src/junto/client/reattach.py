# SPDX-License-Identifier: Apache-2.0
"""A node that restarts goes on with its tasks, so whoever waits for one comes back to it rather than give up."""

import time
from collections.abc import Callable
from typing import TypeVar

from junto.errors import DeadlineExceeded, Unavailable

T = TypeVar("T")
_PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)


class Patience:
    """Tries again while the node cannot be reached, until a moment given in seconds from now."""

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._until = clock() + seconds
        self._breaks = 0

    def extend(self, seconds: float) -> None:
        """The node answered: it has this long from now."""
        self._until = self._clock() + seconds
        self._breaks = 0

    @property
    def left(self) -> float:
        """Seconds."""
        return max(self._until - self._clock(), 0.0)

    def lost(self, error: Unavailable) -> None:
        """The link was lost: wait a moment. Raises the error when there is no time left, or it is about time itself."""
        pause = _PAUSES_SECONDS[min(self._breaks, len(_PAUSES_SECONDS) - 1)]
        if isinstance(error, DeadlineExceeded) or pause >= self.left:
            raise error
        self._breaks += 1
        self._pause(pause)


def again(patience: Patience, act: Callable[[], T]) -> T:
    """The result of `act`, tried again while the node cannot be reached. Only for what may be done twice."""
    while True:
        try:
            return act()
        except Unavailable as error:
            patience.lost(error)
