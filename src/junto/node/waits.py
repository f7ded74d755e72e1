# SPDX-License-Identifier: Apache-2.0
"""Small helps for waiting: for something or for a while, and for several jobs of which some may fail."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from junto.errors import Cancelled, JuntoError

T = TypeVar("T")


def first_error(error: BaseException) -> BaseException:
    """The most telling error inside `error`: one of ours before others, anything before a cancellation."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = [first_error(inner) for inner in error.exceptions]
    return min(found, key=lambda e: (isinstance(e, Cancelled), not isinstance(e, JuntoError)))


async def to_the_end(job: "asyncio.Future[T]") -> None:
    """Wait until a job has ended, a thread's say, however often we are told not to."""
    while not job.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([job])
    if not job.cancelled():
        job.exception()  # retrieved: nobody asks for it any more


async def within(event: Awaitable[object], seconds: float) -> None:
    """Return when the event has happened, or after `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event
