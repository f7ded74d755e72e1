# SPDX-License-Identifier: Apache-2.0
"""Lanes: exact where they say exact, within the stated bound where they do not, NULL where they cannot hold."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.secure.deviations import deviations
from junto.secure.encoding import (
    COUNT_MAX,
    DECIMAL_MAX,
    LANES,
    REAL_BOUND,
    decode,
    decode_reals,
    encode,
    encode_reals,
    unit,
)
from junto.secure.limbs import Lanes, integers

reals = st.floats(min_value=-(2.0**78.9), max_value=2.0**78.9, allow_nan=False, allow_infinity=False)
fine = st.floats(min_value=-(2.0**-10), max_value=2.0**-10)
decimals = st.integers(-DECIMAL_MAX, DECIMAL_MAX)


def total(parts: list[Lanes]) -> Lanes:
    summed: Lanes = np.sum(np.stack(parts), axis=0, dtype=np.uint64)
    return summed


def decimal_column(values: list[int | None], scale: int) -> pa.Array:
    with localcontext(prec=60):
        exact = [None if value is None else Decimal(value).scaleb(-scale) for value in values]
        return pa.array(exact, type=pa.decimal128(38, scale))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.one_of(reals, fine), min_size=1, max_size=8))
def test_a_sum_of_reals_is_within_two_to_the_minus_65_per_party_then_rounded_once(values: list[float]) -> None:
    lanes = total([encode_reals(np.array([value])) for value in values])
    (encoded,) = integers(lanes[:3])
    true = sum(map(Fraction, values))
    assert abs(Fraction(encoded, unit("real")) - true) <= len(values) * Fraction(1, 2**65)
    (decoded,) = decode("m", "real", lanes).to_pylist()
    assert decoded == encoded / unit("real")  # Python's quotient of integers is correctly rounded


@pytest.mark.parametrize("bits", [*range(1, 70, 7), 53, 54, 63, 64, 65, *range(95, 98), *range(126, 131), 145, 158])
def test_decoding_rounds_to_the_nearest_float_ties_to_even(bits: int) -> None:
    half = 1 << max(bits - 54, 0)  # half a unit in the last place of a number with that many bits
    top = 1 << (bits - 1)
    exact = [top, 2 * top - 1, top + half, top + half + 1, top + half - 1, top + 3 * half, top | (half - 1)]
    exact += [-value for value in exact] + [0]
    limbs = [[value & COUNT_MAX, (value >> 48) & COUNT_MAX, value >> 96] for value in exact]
    lanes = np.array(limbs, dtype=np.int64).T.copy().view(np.uint64)
    assert decode_reals(lanes).tolist() == [value / 2**64 for value in exact]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(decimals, min_size=1, max_size=6), st.integers(0, 38))
def test_a_sum_of_decimals_is_exact_or_null(values: list[int], scale: int) -> None:
    lanes = total([encode("m", "integer", decimal_column([value], scale), scale) for value in values])
    assert integers(lanes) == [sum(values)]
    if abs(sum(values)) <= DECIMAL_MAX:
        assert decode("m", "integer", lanes, scale).equals(decimal_column([sum(values)], scale))
    else:
        assert decode("m", "integer", lanes, scale).to_pylist() == [None]


def test_the_edges_of_decimal_38_are_held_and_one_beyond_is_null() -> None:
    edge = encode("m", "integer", decimal_column([DECIMAL_MAX, -DECIMAL_MAX], 0))
    assert decode("m", "integer", edge).equals(decimal_column([DECIMAL_MAX, -DECIMAL_MAX], 0))
    for step in (1, -1):
        one = encode("m", "integer", decimal_column([step, step], 0))
        found = decode("m", "integer", total([edge, one])).to_pylist()
        assert found == [None if step > 0 else DECIMAL_MAX - 1, None if step < 0 else 1 - DECIMAL_MAX]


@pytest.mark.parametrize("sign", [1, -1])
def test_lanes_of_as_many_parties_as_allowed_do_not_wrap(sign: int) -> None:
    parties = 1 << 14
    largest = math.nextafter(REAL_BOUND, 0)
    lanes = encode_reals(np.array([sign * largest])) * np.uint64(parties)
    assert integers(lanes[:3]) == [sign * parties * int(largest) << 64]
    assert decode_reals(lanes[:3]).tolist() == [sign * parties * largest]
    worst = np.array([[COUNT_MAX], [COUNT_MAX], [COUNT_MAX >> 1]], dtype=np.int64) * sign
    lanes = worst.view(np.uint64) * np.uint64(2 * parties)
    assert integers(lanes) == [sign * 2 * parties * ((1 << 143) - 1)]


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([NAN, 1.0], NAN),
        ([INF, -1e300, 2.5], INF),
        ([-INF, 1.0, None], -INF),
        ([INF, INF], INF),
        ([INF, -INF, 5.0], NAN),
        ([NAN, INF, REAL_BOUND], NAN),
        ([REAL_BOUND, 1.0], None),
        ([-1.7e308, -REAL_BOUND], None),
        ([math.nextafter(REAL_BOUND, 0), 0.0], math.nextafter(REAL_BOUND, 0)),
    ],
)
def test_what_has_no_limbs_adds_up_as_floats_do_and_is_null_beyond_the_lanes(
    parts: list[float | None], expected: float | None
) -> None:
    lanes = total([encode("m", "real", pa.array([part, 1.0], pa.float64())) for part in parts])
    found, beside = decode("m", "real", lanes).to_pylist()
    assert (found is None) == (expected is None)
    assert found is None or found == expected or (math.isnan(found) and expected is not None and math.isnan(expected))
    assert beside == len(parts)


def test_flags_of_as_many_parties_as_allowed_do_not_run_into_each_other() -> None:
    for value, expected in ((NAN, "nan"), (INF, "inf"), (-INF, "-inf"), (1e300, "None")):
        lanes = encode_reals(np.array([value])) * np.uint64(1 << 14)
        assert str(decode("m", "real", lanes).to_pylist()[0]) == expected


def test_the_smallest_and_the_signed_zero_reals_encode_as_zero() -> None:
    lanes = encode("m", "real", pa.array([0.0, -0.0, 5e-324, -5e-324, 2.0**-66]))
    assert integers(lanes[:3]) == [0] * 5
    assert [math.copysign(1, value) for value in decode("m", "real", lanes).to_pylist()] == [1.0] * 5


def test_a_count_that_is_null_is_zero_and_slices_and_chunks_as_their_values() -> None:
    column = decimal_column([9, None, -4, None, 10**30], 2)
    assert integers(encode("m", "integer", column[1:], 2))[1::2] == [-4, 10**30]
    chunked = pa.chunked_array([column[:2], column[2:]])
    assert integers(encode("m", "integer", chunked, 2))[::2] == [9, -4, 10**30]
    assert encode("n", "count", pa.array([1, None, COUNT_MAX])).tolist() == [[1, 0, COUNT_MAX]]
    assert integers(encode("m", "integer", pa.array([1, 0, -(2**63)]))) == [1, 0, -(2**63)]


def test_empty_columns_encode() -> None:
    kinds = {"count": pa.int64(), "integer": pa.decimal128(38, 0), "real": pa.float64()}
    for encoding, kind in kinds.items():
        lanes = encode("m", encoding, pa.array([], type=kind))  # type: ignore[arg-type]  # mypy widens the literals
        assert lanes.shape == (LANES[encoding], 0)  # type: ignore[index]  # the same


@pytest.mark.parametrize(
    ("encoding", "column"),
    [
        ("count", pa.array([-1])),
        ("count", pa.array([COUNT_MAX + 1])),
        ("count", pa.array([4711.5])),
        ("integer", pa.array(["4711"])),
        ("integer", pa.array([4711.25])),
        ("integer", decimal_column([4711], 1)),
        ("integer", pa.array([Decimal(4711).scaleb(40)])),
        ("real", pa.array(["4711"])),
        ("real", pa.array([True])),
    ],
)
def test_what_does_not_fit_is_refused_without_its_value(encoding: str, column: pa.Array) -> None:
    with pytest.raises(InvalidInput, match="measure 'm'") as caught:
        encode("m", encoding, column)  # type: ignore[arg-type]  # the mistakes under test
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_count_that_overflows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not fit 64 bits"):
        decode("n", "count", np.array([[1 << 63]], dtype=np.uint64))
    with pytest.raises(InvalidInput, match="takes 4 lanes, not 1"):
        decode("n", "real", np.zeros((1, 1), dtype=np.uint64))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=20), st.integers(0, 3))
def test_deviations_of_decimals_are_the_exact_value_rounded_once(values: list[int], scale: int) -> None:
    s = encode("s", "integer", decimal_column([sum(values)], scale), scale)
    ss = encode("ss", "integer", decimal_column([sum(v * v for v in values)], 2 * scale), 2 * scale)
    n = np.array([len(values)])
    (found,) = deviations(n, s, ss, unit("integer", scale), unit("integer", 2 * scale)).tolist()
    mean = Fraction(sum(values), len(values))
    assert found == float(sum((v - mean) ** 2 for v in values) / 10 ** (2 * scale))


def test_deviations_of_no_units_are_nan_and_never_negative() -> None:
    zero, five = encode("m", "integer", pa.array([0, 0])), encode("m", "integer", pa.array([5, 5]))
    found = deviations(np.array([0, 1]), five, zero, 1, 1)
    assert math.isnan(found[0])
    assert found[1] == 0.0


@pytest.mark.parametrize("others", [-DECIMAL_MAX, -1, 0, 1, DECIMAL_MAX])
def test_an_exact_sum_with_a_part_that_could_not_be_computed_is_null(others: int) -> None:
    kind = pa.decimal128(38, 0)
    one, other = pa.array([Decimal(others), Decimal(1)], kind), pa.array([None, Decimal(1)], kind)
    lanes = encode("m", "integer", one) + encode("m", "integer", other)
    assert decode("m", "integer", lanes).to_pylist() == [None, Decimal(2)]
