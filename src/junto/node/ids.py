# SPDX-License-Identifier: Apache-2.0
"""New identifiers, which sort by time."""

import secrets
from collections.abc import Callable

from junto.types import TaskId, spelled_id


def new_id(now: float, random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """26 characters, unique, in the order of `now` (unix seconds)."""
    return spelled_id(now, random(10))


def new_task_id(now: float, random: Callable[[int], bytes] = secrets.token_bytes) -> TaskId:
    """An id for a new task."""
    return TaskId(new_id(now, random))
