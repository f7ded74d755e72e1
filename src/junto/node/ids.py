# SPDX-License-Identifier: Apache-2.0
"""Identifiers that sort by time: 48 bits of milliseconds and 80 random bits, in Crockford's base 32 (as ULIDs are)."""

import secrets
from collections.abc import Callable

from junto.types import TaskId

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(now: float, random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """26 characters, unique, in the order of `now` (unix seconds)."""
    value = (int(now * 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(random(10), "big")
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -5, -5))


def new_task_id(now: float, random: Callable[[int], bytes] = secrets.token_bytes) -> TaskId:
    """An id for a new task."""
    return TaskId(new_id(now, random))
