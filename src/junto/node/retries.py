# SPDX-License-Identifier: Apache-2.0
"""New tries of work that failed by a trouble that may pass: their number, and their time.

A disk without room is given time: somebody may free some. For half of what is left to the task, and half a minute at
most, its step or statement is tried again; then the task ends, and its end names that disk.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeGuard, TypeVar

from junto.errors import Crashed, Fenced, JuntoError, NoSpill, StorageFailed, Unavailable
from junto.logs import logger
from junto.node.telling import StepError, worded
from junto.plan.steps import AnyStep
from junto.types import PartyId

_log = logger("junto.work")
T = TypeVar("T")

ROOM_SECONDS = 30.0
"""A disk without room is given so long, and half of the time that its task has left, at most."""

_MOST_TRIES = 6
_MOST_CRASHES = 2
_FIRST_PAUSE_SECONDS = 0.2
"""Before work is tried again; it doubles with each try."""
_LONGEST_PAUSE_SECONDS = 2.0
"""Between two looks at a disk."""


def room_seconds(left_seconds: float) -> float:
    """The seconds that a task with so much time left gives a disk without room."""
    return min(ROOM_SECONDS, left_seconds / 2)


def lacks_room(error: JuntoError) -> TypeGuard[StorageFailed]:
    """True if a disk refused what it may take in a moment."""
    return isinstance(error, StorageFailed) and not isinstance(error, Fenced)


async def until_room(attempt: Callable[[], Awaitable[T]], left: Callable[[], float]) -> T:
    """The result of an attempt at last, where only a disk without room is worth trying again. Raises what it raises."""
    clock = asyncio.get_running_loop().time
    until, pause = clock() + room_seconds(left()), _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await attempt()
        except StorageFailed as error:
            if not lacks_room(error) or clock() + pause > until:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def until_done(
    step: AnyStep,
    me: PartyId,
    attempt: Callable[[], Awaitable[T]],
    left: Callable[[], float],
    tried: Callable[[int, JuntoError], None],
) -> T:
    """The result of an attempt at a step at last. Raises StepError, worded for others, where another try mends nothing,
    or all tries were in vain. tried: hears how often it was tried, and why in vain."""
    clock = asyncio.get_running_loop().time
    tries, until = 0, None
    while True:
        try:
            return await attempt()
        except StepError as error:
            tries += 1
            failed = error.failure.error
            pause = _FIRST_PAUSE_SECONDS * 2 ** (tries - 1)
            if error.failure.party == me and (lacks_room(failed) or isinstance(failed, NoSpill)):
                pause = min(pause, _LONGEST_PAUSE_SECONDS)
                until = until or clock() + room_seconds(left())
                over = clock() + pause > until
            else:
                may_pass = error.failure.party == me and isinstance(failed, Unavailable)
                over = not may_pass or tries >= _most_tries(failed) or pause >= left()
            if over:
                raise worded(step, error, me) from error
            _log.warning("a step is tried again", step=step.id, tries=tries, reason=str(failed))
            tried(tries, failed)
        await asyncio.sleep(pause)


def _most_tries(error: JuntoError) -> int:  # a fragment that ends its process twice would do so again
    return _MOST_CRASHES if isinstance(error, Crashed) else _MOST_TRIES
