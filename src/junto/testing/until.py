# SPDX-License-Identifier: Apache-2.0
"""Waiting in tests for something that takes real time: asked again and again, with a deadline, never a plain sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(reached: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """The first true value of `reached`. Raises AssertionError, naming `what`, after the time."""
    end = time.monotonic() + seconds
    while not (value := reached()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return value
