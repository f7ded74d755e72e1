# SPDX-License-Identifier: Apache-2.0
"""Notices before the disk of the home is full, and when it has space again."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from junto.node.notices import Notices
from junto.tasks.notices import notice_id
from junto.types import PartyId

LOW_BYTES = 64_000_000
"""With less than this left, the disk counts as full; with twice this, as having space again."""

_LOOK_SECONDS = 15.0


def free_bytes(folder: Path) -> int | None:
    """The bytes that the file system of a folder has left for us; None if that cannot be known."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


async def watch_disk(
    me: PartyId,
    free: Callable[[], int | None],
    notices: Notices,
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look now and then, and raise a notice whenever it turns, until cancelled."""
    full, turns = False, 0
    occasion = notice_id(me, "disk", repr(notices.now))  # of this start of the node: the next one tells of its own
    while True:
        left = free()
        if left is not None and full != (left < (2 * LOW_BYTES if full else LOW_BYTES)):
            full, turns = not full, turns + 1
            size = f"{left / 1e6:,.0f} MB"
            text = (
                f"the disk of {me} is almost full: {size} left; statements and outputs need room"
                if full
                else f"the disk of {me} has space again: {size} left"
            )
            notices.of_node("disk", f"{occasion} {turns}", text, "error" if full else "info")
        await pause(_LOOK_SECONDS)
