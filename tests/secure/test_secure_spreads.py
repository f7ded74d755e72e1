# SPDX-License-Identifier: Apache-2.0
"""Deviations of reals are those of exact arithmetic over the pooled values, wherever their mean lies."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.secure import spreads
from junto.secure.deviations import spread_deviations
from junto.secure.encoding import LANES, decode, encode

_TYPE = pa.struct([(name, pa.int64() if name == "n" else pa.float64()) for name in spreads.FIELDS])


def five_numbers(values: Sequence[float]) -> dict[str, float] | None:
    """What an engine gives of a group's values."""
    if not values:
        return None
    z = max(map(abs, values), key=lambda v: (math.isnan(v), v))
    if not math.isfinite(z):
        return {"c": math.nan, "n": len(values), "t": math.nan, "q": math.nan, "z": z}
    with np.errstate(all="ignore"):
        centre = float(np.clip(np.mean(values), min(values), max(values)))
        moved = np.array(values) - centre
        return {"c": centre, "n": len(values), "t": math.fsum(moved), "q": float(np.sum(moved * moved)), "z": z}


def deviation(parts: Sequence[Sequence[float]]) -> float | None:
    """The sum of squared deviations over some parties' values, by way of the lanes."""
    lanes = [encode("m", "spread", pa.array([five_numbers(part)], _TYPE)) for part in parts]
    n = np.array([sum(map(len, parts))])
    found: float | None = spread_deviations(n, np.sum(np.stack(lanes), axis=0, dtype=np.uint64)).to_pylist()[0]
    return found


def exact(values: Sequence[float]) -> Fraction:
    mean = sum(map(Fraction, values), Fraction(0)) / len(values)
    return sum(((Fraction(value) - mean) ** 2 for value in values), Fraction(0))


@st.composite
def far_values(draw: st.DrawFn) -> list[list[float]]:
    """Three parties' values: near a mean of any size, as near to each other as floats are."""
    mean = draw(st.sampled_from([0.0, 1.0, -1.0])) * 10.0 ** draw(st.integers(-9, 18))
    width = 10.0 ** draw(st.integers(-9, 18))
    value = st.floats(-1, 1, allow_subnormal=False).map(lambda v: mean + width * v)
    parts: list[list[float]] = draw(st.lists(st.lists(value, max_size=6), min_size=3, max_size=3).filter(any))
    return parts


@settings(derandomize=True, max_examples=400, deadline=None)
@given(far_values())
@example([[1e9, 1e9 + 1, 1e9 + 2], [1e9, 1e9 + 1], [1e9 + 2]])
@example([[1e18, 1e18 + 128], [1e18 + 256], []])
@example([[-1e18, 1e18], [1e-9], [1e-9 + 1e-20]])
@example([[1e-9, 1.1e-9], [1.2e-9], [1e-9]])
def test_a_deviation_is_that_of_the_pooled_values(parts: list[list[float]]) -> None:
    pooled = [value for part in parts for value in part]
    found = deviation(parts)
    true = exact(pooled)
    step = Fraction(1, 2**128) * len(pooled)  # of the smallest values, which count as multiples of 2^-128
    assert found is not None
    assert abs(Fraction(found) - true) <= true * Fraction(1, 10**14) + step * (step + Fraction(math.sqrt(true)) * 2)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.floats(1e-9, 9e18) | st.floats(-9e18, -1e-9),
    st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any),
)
def test_equal_values_deviate_by_nothing_at_all(value: float, sizes: list[int]) -> None:
    assert deviation([[value] * size for size in sizes]) == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("beside", [1.0, 1e300, math.inf])
def test_nan_and_infinity_at_one_party_make_the_deviation_no_number(value: float, beside: float) -> None:
    found = deviation([[1.0, 2.0], [value], [beside]])
    assert found is not None
    assert math.isnan(found)


def test_a_magnitude_beyond_the_lanes_makes_the_deviation_null() -> None:
    assert deviation([[1.0, 2.0], [2.0**63], [5.0]]) is None
    assert deviation([[1.0, -1e300], [1.0], [5.0]]) is None
    most = math.nextafter(2.0**63, 0)
    assert deviation([[most], [-most], []]) == 2 * most**2
    crowd = {"c": 9e18, "n": 1 << 40, "t": 0.0, "q": 0.0, "z": 9e18}  # so many that their squares have no lanes
    lanes = encode("m", "spread", pa.array([crowd], _TYPE))
    assert spread_deviations(np.array([1 << 40]), lanes).to_pylist() == [None]


def test_as_many_parties_as_allowed_do_not_wrap() -> None:
    most = math.nextafter(2.0**63, 0)
    for values in ([most, -most], [-most], [most, 1e-9], [1e-9]):
        one = encode("m", "spread", pa.array([five_numbers(values)], _TYPE))
        found = spread_deviations(np.array([len(values) << 14]), one * np.uint64(1 << 14)).to_pylist()[0]
        assert abs(Fraction(found) - exact(values) * (1 << 14)) <= exact(values)


def test_groups_without_values_are_zero_and_other_columns_are_refused() -> None:
    empty = {"c": None, "n": 0, "t": None, "q": None, "z": None}
    lanes = encode("m", "spread", pa.array([None, empty], _TYPE))
    assert lanes.shape == (LANES["spread"], 2)
    assert not lanes.any()
    for column in (pa.array([1.0]), pa.array([{"c": 1.0}])):
        with pytest.raises(InvalidInput, match=r"measure 'm', .* is no spread"):
            encode("m", "spread", column)
    with pytest.raises(InvalidInput, match="'m' is a spread"):
        decode("m", "spread", lanes)
