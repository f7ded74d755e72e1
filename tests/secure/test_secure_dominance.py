# SPDX-License-Identifier: Apache-2.0
"""Dominance against the plain rule: never shown where a unit carries too much, always shown where none carries half."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.secure import dominance
from junto.secure.groupkeys import GroupCounts
from junto.secure.terms import Terms
from junto.secure.threshold import contribute, receive_keys
from junto.testing.secure import Run, run_machines, seeded
from junto.types import PartyId

R = PartyId("receiver")
CASES = 20_000


def owners(count: int) -> tuple[PartyId, ...]:
    return tuple(PartyId(f"p{index}") for index in range(count))


def shown(totals: np.ndarray, largest: np.ndarray, percent: int) -> np.ndarray:
    """Which sums pass by the numbers that contributors share, (cases,), of magnitudes (contributors, cases)."""
    count = len(totals)
    rungs = dominance.ladder(count, percent)
    demands = [dominance.demanded(totals[p], largest[p], rungs, percent) for p in range(count)]
    reaches = [dominance.reached(totals[q], rungs) for q in range(count)]
    content = [np.any([reaches[q] >= demands[p] for q in range(count) if q != p], axis=0) for p in range(count)]
    passes: np.ndarray = np.all(content, axis=0)
    return passes


def drawn(count: int, seed: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Totals and largest units of random sums: near each other, or over many orders of magnitude."""
    rng = np.random.default_rng(seed)
    largest = 10 ** rng.uniform(-spread, spread, (count, CASES))
    largest[rng.random((count, CASES)) < 0.2] = 0.0
    totals = largest * np.where(rng.random((count, CASES)) < 0.5, 1.0, rng.uniform(1, 8, (count, CASES)))
    return totals, largest


@pytest.mark.parametrize("percent", [50, 80, 90, 95])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("spread", [0.3, 1.0, 15.0])
def test_a_sum_that_one_unit_dominates_is_never_shown(count: int, percent: int, spread: float) -> None:
    totals, largest = drawn(count, count, spread)
    passes = shown(totals, largest, percent)
    dominated = largest.max(axis=0) > totals.sum(axis=0) * percent / 100
    assert dominated.any()
    assert passes.any()
    assert not np.any(passes & dominated)


@pytest.mark.parametrize(("count", "percent"), [(2, 50), (2, 80), (3, 80), (4, 80), (5, 80), (6, 80), (2, 95), (8, 90)])
@pytest.mark.parametrize("spread", [0.3, 1.0, 15.0])
def test_a_sum_of_which_no_unit_carries_half_as_much_is_always_shown(count: int, percent: int, spread: float) -> None:
    totals, largest = drawn(count, 100 + count, spread)
    passes = shown(totals, largest, percent)
    clear = largest.max(axis=0) <= totals.sum(axis=0) * percent / 200
    assert clear.any()
    assert np.all(passes[clear])


def test_shares_that_are_even_are_shown_and_a_lone_giant_is_not() -> None:
    totals = np.array([[10.0, 1e9, 100.0, 0.0], [10.0, 20.0, 0.0, 0.0]])
    largest = np.array([[10.0, 1e9, 10.0, 0.0], [10.0, 20.0, 0.0, 0.0]])
    assert shown(totals, largest, 80).tolist() == [True, False, True, True]


def test_what_is_not_finite_counts_as_dominated() -> None:
    for bad in (np.inf, np.nan):
        totals = np.array([[5.0, bad, bad], [5.0, 5.0, 5.0]])
        largest = np.array([[5.0, bad, 1.0], [5.0, 5.0, 5.0]])
        assert shown(totals, largest, 80).tolist() == [True, False, False]
        assert dominance.alone(totals[0] * 9, largest[0], 80).tolist() == [True, False, False]


def test_a_hundred_per_cent_withholds_nothing() -> None:
    totals = largest = np.array([[7.0], [0.0]])
    assert shown(totals, largest, 100).tolist() == [True]
    assert dominance.alone(totals[0], largest[0], 100).tolist() == [True]


def test_a_contributor_alone_decides_exactly() -> None:
    totals, largest = np.array([100.0, 100.0, 0.0]), np.array([80.0, 81.0, 0.0])
    assert dominance.alone(totals, largest, 80).tolist() == [True, False, True]


def test_rungs_are_the_same_everywhere_and_span_what_numbers_can_be() -> None:
    for count in (2, 3, 6, 20):
        rungs = dominance.ladder(count, 80)
        assert rungs[0] == 2.0**-64
        assert rungs[-1] >= 2.0**128
        assert np.all(np.diff(rungs) > 0)
        assert dominance.base(count, 80) ** dominance.DIGITS > len(rungs) + 1


def run(terms: Terms, inputs: dict[PartyId, GroupCounts], seed: int) -> Run:
    machines = {p: contribute(p, terms, b"task/step", seeded(f"{seed} {p}"), 0) for p in terms.contributors}
    receiver = receive_keys(terms, b"task/step", seeded(f"{seed} receiver"))
    return run_machines({**machines, R: receiver}, inputs, seed)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.data())
def test_the_protocol_decides_counts_and_sums_as_the_plain_numbers_do(data: st.DataObject) -> None:
    count, groups = data.draw(st.integers(1, 4)), 6
    guards, units = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    parties = data.draw(st.integers(1, 2))
    sums = tuple(data.draw(st.lists(st.integers(0, guards - 1), max_size=2)))
    contributors = owners(count)
    nodes = () if count == 1 else (*contributors, R) if count == 2 else contributors
    terms = Terms(contributors, R, nodes, units, parties, guards, sums)
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    keys = [b"group %d" % index for index in range(groups)]
    counted = rng.integers(0, 9, (count, guards, groups))
    counted[:, 1:] = np.minimum(counted[:, 1:], counted[:, :1])
    largest = 10 ** rng.uniform(-1, 1, (count, len(sums), groups)) * (rng.random((count, len(sums), groups)) < 0.8)
    totals = largest * rng.uniform(1, 2, largest.shape)
    inputs = {p: GroupCounts(keys, counted[i], totals[i], largest[i]) for i, p in enumerate(contributors)}

    result = run(terms, inputs, data.draw(st.integers(0, 1000)))

    enough = counted.sum(axis=0) >= units
    if parties > 1:
        enough &= (counted > 0).sum(axis=0) >= parties
    for index, guard in enumerate(sums):
        magnitudes = totals[:, index], largest[:, index]
        fair = dominance.alone(magnitudes[0][0], magnitudes[1][0], 80) if count == 1 else shown(*magnitudes, 80)
        enough = np.concatenate((enough, (fair & enough[guard])[None]))
    answer = result.outputs[R]
    order = [keys.index(key) for key in answer.keys]
    assert sorted(order) == np.flatnonzero(enough[0]).tolist()
    assert answer.cells.tolist() == enough[:, order].tolist()
    for party in contributors:
        selection = result.outputs[party]
        assert selection.cells[:, selection.positions].tolist() == enough.tolist()


def test_a_sum_of_a_withheld_measure_opens_as_zero_whether_one_unit_dominates_it_or_not() -> None:
    """Otherwise the bit would tell of a measure with few units whether it has one unit or more."""
    a, b = owners(2)
    terms = Terms((a, b), R, (a, b, R), 10, 1, 2, (1, 1))
    one = {
        a: GroupCounts([b"g"], np.array([[9], [1]]), np.array([[5.0], [5.0]]), np.array([[5.0], [1.0]])),
        b: GroupCounts([b"g"], np.array([[9], [1]]), np.array([[0.0], [5.0]]), np.array([[0.0], [1.0]])),
    }
    assert run(terms, one, 1).outputs[R].cells.tolist() == [[True], [False], [False], [False]]


def test_terms_about_sums_that_do_not_fit_are_refused() -> None:
    a, b = owners(2)
    for guards, sums, percent in ((0, (), 80), (1, (1,), 80), (1, (-1,), 80), (1, (0,), 0), (1, (0,), 101)):
        with pytest.raises(InvalidInput):
            Terms((a, b), R, (a, b, R), 10, 1, guards, sums, percent)


@pytest.mark.parametrize("bad", [np.array([[-1.0]]), np.array([[1]]), np.array([1.0]), np.zeros((2, 1))])
def test_magnitudes_that_are_none_are_refused(bad: np.ndarray) -> None:
    good = np.array([[1.0]])
    for totals, largest in ((bad, good), (good, bad)):
        with pytest.raises(InvalidInput, match="magnitude"):
            GroupCounts([b"g"], np.array([[1]]), totals, largest).check(1, 1)
