# SPDX-License-Identifier: Apache-2.0
"""Seconds and bytes as every participant is told them: rounded, since an exact figure says something of rows.

A join or a filter takes longer and gives more where more rows match, so a step's duration to the microsecond, or its
output's size to the byte, would be a clock and a scale for whoever shapes the step. People need to see where the time
goes: one of three figures in each power of ten serves them.
"""

_STEPS = (1, 2, 5, 10)
_LEAST_SECONDS = 0.01
_LEAST_BYTES = 1024


def coarse_seconds(seconds: float) -> float:
    """The next of 0.01, 0.02, 0.05, 0.1, … seconds that is no less; 0 for no time at all."""
    if seconds <= 0:
        return 0.0
    power = _LEAST_SECONDS
    while 10 * power < seconds:
        power *= 10
    return round(next(step * power for step in _STEPS if step == _STEPS[-1] or step * power >= seconds), 2)


def coarse_bytes(size: int) -> int:
    """The next power of two that is no less, from 1 KiB on; 0 for nothing."""
    return 0 if size == 0 else max(_LEAST_BYTES, 1 << (size - 1).bit_length())
