# SPDX-License-Identifier: Apache-2.0
"""Seconds and bytes in confirmations are too coarse for a clock or a scale."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from junto.tasks.coarse import coarse_bytes, coarse_seconds


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, 0.0), (1e-6, 0.01), (0.01, 0.01), (0.012, 0.02), (0.04, 0.05), (0.9, 1.0), (1.01, 2.0), (3601.0, 5000.0)],
)
def test_seconds_are_the_next_of_one_two_and_five(seconds: float, told: float) -> None:
    assert coarse_seconds(seconds) == told


@pytest.mark.parametrize(("size", "told"), [(0, 0), (1, 1024), (1024, 1024), (1025, 2048), (3_000_000, 1 << 22)])
def test_bytes_are_the_next_power_of_two(size: int, told: int) -> None:
    assert coarse_bytes(size) == told


@given(st.floats(0.0, 1e6), st.integers(0, 1 << 50))
@hypothesis_settings(derandomize=True)
def test_figures_are_never_told_smaller_than_they_are_and_few_are_told(seconds: float, size: int) -> None:
    assert coarse_seconds(seconds) >= seconds * (1 - 1e-9)
    assert str(coarse_seconds(seconds)).strip("0.")[:1] in ("", "1", "2", "5")
    assert coarse_bytes(size) >= size
