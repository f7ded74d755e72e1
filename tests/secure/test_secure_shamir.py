# SPDX-License-Identifier: Apache-2.0
"""Field arithmetic and secret sharing against slow Python integers, and privacy against an exhaustive count."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.secure import shamir
from junto.secure.keystream import Keystream
from junto.secure.shamir import Field, P
from junto.testing.secure import seeded

edges = st.sampled_from([0, 1, 2, P - 1, P - 2, (1 << 30), (1 << 30) - 1])
elements = st.lists(st.one_of(edges, st.integers(0, P - 1)), min_size=1, max_size=30)


def field(values: list[int]) -> Field:
    return np.array(values, dtype=np.uint64)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(elements, elements)
def test_arithmetic_is_that_of_integers_mod_p(left: list[int], right: list[int]) -> None:
    pairs = list(zip(left, right, strict=False))
    a, b = field([x for x, _ in pairs]), field([y for _, y in pairs])
    assert shamir.add(a, b).tolist() == [(x + y) % P for x, y in pairs]
    assert shamir.subtract(a, b).tolist() == [(x - y) % P for x, y in pairs]
    assert shamir.multiply(a, b).tolist() == [x * y % P for x, y in pairs]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(0, (1 << 63) - 1), st.sampled_from([P, 2 * P, P * P, (1 << 63) - 1]))))
def test_reduction_holds_for_every_number_below_two_to_the_63(values: list[int]) -> None:
    assert shamir.reduced(field(values)).tolist() == [value % P for value in values]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(elements, st.integers(1, 7), st.data())
def test_any_degree_plus_one_shares_rebuild_the_secret(values: list[int], parties: int, data: st.DataObject) -> None:
    degree = data.draw(st.integers(0, parties - 1))
    stream = Keystream(bytes(16))
    shares = shamir.split(field(values), parties, degree, stream.take)
    assert shares.shape == (parties, len(values))
    assert shamir.rebuild(shares, degree).tolist() == values
    chosen = data.draw(st.permutations(range(parties)))[: degree + 1]
    assert [_lagrange_at_zero({i + 1: int(shares[i][j]) for i in chosen}) for j in range(len(values))] == values


def test_many_parties_and_a_high_degree_share_alike() -> None:
    values = field([0, 1, P - 1, 12345])
    shares = shamir.split(values, 30, 14, lambda count: b"\xfe\xff\xff\x7f" * (count // 4))  # all coefficients P − 1
    drawn = [(P - 1) * sum(x**power for power in range(1, 15)) for x in range(1, 31)]
    oracle = [[(value + random) % P for value in values.tolist()] for random in drawn]
    assert shares.tolist() == oracle
    assert shamir.rebuild(shares, 14).tolist() == values.tolist()


def _lagrange_at_zero(points: dict[int, int]) -> int:
    total = 0
    for x, y in points.items():
        numerator = denominator = 1
        for other in points:
            if other != x:
                numerator *= -other
                denominator *= x - other
        total += y * numerator * pow(denominator, -1, P)
    return total % P


@pytest.mark.parametrize(("parties", "degree"), [(3, 1), (4, 2), (5, 2)])
def test_any_degree_shares_take_every_value_once_whatever_the_secret(
    parties: int, degree: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = 7  # the same code over the field of seven elements, where all polynomials can be counted
    monkeypatch.setattr(shamir, "P", small)
    monkeypatch.setattr(shamir, "_P", np.uint64(small))
    monkeypatch.setattr(shamir, "_BITS", np.uint64(3))
    coefficients = np.stack(np.meshgrid(*[np.arange(small)] * degree), axis=0).reshape(degree, -1).astype("<u4")
    for secret in range(small):
        secrets_ = np.full(coefficients.shape[1], secret, dtype=np.uint64)
        shares = shamir.split(secrets_, parties, degree, lambda _: coefficients.tobytes())
        for seen in combinations(range(parties), degree):
            views = Counter(map(tuple, shares[list(seen)].T.tolist()))
            assert len(views) == small**degree
            assert set(views.values()) == {1}


def test_shares_that_disagree_are_not_rebuilt() -> None:
    shares = shamir.split(field([5, 6]), 3, 1, seeded("one"))
    shares[2][0] = (int(shares[2][0]) + 1) % P
    with pytest.raises(InvalidInput, match="do not lie on one polynomial"):
        shamir.rebuild(shares, 1)
    with pytest.raises(InvalidInput, match="do not determine"):
        shamir.rebuild(shares[:1], 1)


@pytest.mark.parametrize(("parties", "degree"), [(3, 3), (0, 0), (2, -1)])
def test_impossible_sharings_are_refused(parties: int, degree: int) -> None:
    with pytest.raises(InvalidInput):
        shamir.split(field([1]), parties, degree, seeded("one"))


def test_a_draw_of_p_is_drawn_again() -> None:
    answers = [np.array([P, 5, 0xFFFFFFFF, 6], dtype="<u4"), np.array([P, 7], dtype="<u4"), np.array([8], dtype="<u4")]
    asked: list[int] = []

    def scripted(count: int) -> bytes:
        asked.append(count)
        return answers[len(asked) - 1].tobytes()

    assert shamir.uniform((2, 2), scripted).tolist() == [[8, 5], [7, 6]]
    assert asked == [16, 8, 4]


def test_the_top_bit_of_a_draw_is_dropped_so_that_all_elements_are_alike() -> None:
    drawn = shamir.uniform((2,), lambda _: np.array([3, 3 | 1 << 31], dtype="<u4").tobytes())
    assert drawn.tolist() == [3, 3]


def test_weights_recombine_products_of_shares() -> None:
    a = shamir.split(field([3, P - 1]), 5, 2, seeded("one"))
    b = shamir.split(field([4, P - 1]), 5, 2, seeded("one"))
    assert shamir.combine(shamir.multiply(a, b), shamir.weights(5)).tolist() == [12, 1]
