# SPDX-License-Identifier: Apache-2.0
"""Small helps for waiting: for something or for a while, and for several jobs of which some may fail."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

from junto.errors import Cancelled, JuntoError


def first_error(error: BaseException) -> BaseException:
    """The most telling error inside `error`: one of ours before others, anything before a cancellation."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = [first_error(inner) for inner in error.exceptions]
    return min(found, key=lambda e: (isinstance(e, Cancelled), not isinstance(e, JuntoError)))


async def within(event: Awaitable[object], seconds: float) -> None:
    """Return when the event has happened, or after `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event
