# SPDX-License-Identifier: Apache-2.0
"""The joint decision whether one unit carries too much of a sum, without showing anybody's part of the sum.

Theory of operation
-------------------
A unit *dominates* a sum if its magnitude M is more than D per cent of the total T over all contributors. Contributor
p knows the largest M among its own units, and its own total. None of p's units dominates if the others hold at least
p's *demand*, 100/D · M − own total. That is compared on a ladder of magnitudes, 2⁻⁶⁴ to 2¹²⁸, each rung a fixed
multiple of the one below: p shares the lowest rung that covers its demand, each contributor q the highest rung that
its total reaches. p is content with q if q's rung is not below p's; both are small integers, so that is the same test
as for units (`product.py`). p is content if it is with some q: the sum of the products, each times a random number of
its own, is zero (but for a chance of 2⁻³¹) exactly where all are. The sum is shown if each contributor is content and
its count passes: one number is opened, zero or uniform.

So a sum in which some unit carries more than D per cent never passes. One in which none carries half of that always
passes: then the others hold at least F = 1 + 100 / (100 − D) times the demand, the largest of N − 1 totals is at least
F / (N − 1) times the demand, and the rungs are no further apart than that. It holds for D = 80 up to six contributors;
of more, the rungs stay 1.2 apart, and a sum that is spread evenly may be withheld although no unit carries half of D. A
total below 2⁻⁶⁴ counts as nothing, a demand below as 2⁻⁶⁴. Other than finite numbers count as dominated.

A contributor that is alone decides alone, exactly.

Adversary and collusion: as in `verified.py`. Leakage: one bit for each sum of each group whose count passed, to
contributors, computing nodes and receiver; of others nothing. A contributor may lie about its own numbers: a lie
about its demand or its total makes the bit of that sum say whether some other's rung lies in a range that the liar
chose, one bit for each run; an owner that says it has much lets a unit of another's be shown though it dominates.
"""

from collections.abc import Generator, Sequence
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from junto.secure.product import shape_of, sums, tree, tree_rounds
from junto.secure.shamir import Shares
from junto.secure.verified import Pair, Wire

Reals = NDArray[np.float64]

_LOWEST = Fraction(1, 1 << 64)
_HIGHEST = 1 << 128
_NEAREST = Fraction(6, 5)
_FURTHEST = Fraction(16)
_ROUNDING = 1 + 2.0**-48
"""Floats that were summed in some order are a little off; the demand is a little more."""


@cache
def ladder(contributors: int, dominance: int) -> Reals:
    """The rungs, in ascending order. The same at all contributors."""
    apart = _FURTHEST
    if dominance < 100 and contributors > 1:
        apart = min(max(Fraction(200 - dominance, 100 - dominance) / (contributors - 1), _NEAREST), _FURTHEST)
    rungs = [_LOWEST]
    while rungs[-1] < _HIGHEST or len(rungs) % 2 == 0:  # an odd number of rungs gives an even limit
        rungs.append(rungs[-1] * apart)
    return np.array([float(rung) for rung in rungs])


def demanded(totals: Reals, largest: Reals, rungs: Reals, dominance: int) -> NDArray[np.int64]:
    """A contributor's summand for its demand: one more than the rungs below and at which it is not covered."""
    with np.errstate(invalid="ignore", over="ignore"):
        demand = largest * (100 / dominance) * _ROUNDING - totals
    lowest = np.searchsorted(rungs, demand, side="left") + 1
    lowest = np.where(demand <= 0, 0, lowest) if dominance < 100 else np.zeros_like(lowest)
    lowest = np.where(np.isfinite(largest) & np.isfinite(totals), lowest, len(rungs) + 1)
    return limit_of(rungs) - lowest


def reached(totals: Reals, rungs: Reals) -> NDArray[np.int64]:
    """The number of rungs that a contributor's totals reach."""
    return np.searchsorted(rungs, totals, side="right").astype(np.int64)


def limit_of(rungs: Reals) -> int:
    """The sum that a demand and a total must reach together."""
    return len(rungs) + 1


def alone(totals: Reals, largest: Reals, dominance: int) -> NDArray[np.bool_]:
    """The sums that no unit of a single contributor dominates."""
    with np.errstate(invalid="ignore"):
        passes: NDArray[np.bool_] = np.isfinite(totals) & (largest <= totals * (dominance / 100))
    return passes


def pairs_of(contributors: int) -> list[tuple[int, int]]:
    """The pairs of contributors, by index, of which the first is to be content with the second."""
    return [(p, q) for p in range(contributors) for q in range(contributors) if p != q]


def randoms(contributors: int, guarded: bool) -> int:
    """The number of random numbers that each sum takes: one a pair; of two contributors, the guard is the first's."""
    return len(pairs_of(contributors)) - (1 if guarded and contributors == 2 else 0)


def rounds(contributors: int, dominance: int, guarded: bool) -> tuple[int, int]:
    """The rounds of the factors, and those of the rest."""
    shape = shape_of(limit_of(ladder(contributors, dominance)))
    last = contributors + 1 if guarded and contributors > 2 else contributors
    return shape.rounds, tree_rounds(shape.factors + 1) + tree_rounds(last)


def products(contributors: int, dominance: int) -> int:
    """The number of multiplications that each sum of each group takes, at most."""
    shape = shape_of(limit_of(ladder(contributors, dominance)))
    return len(pairs_of(contributors)) * shape.products + contributors


def decided(
    factors: Sequence[Wire], contributors: int, by: Shares, guard: Wire | None
) -> Generator[list[Pair], list[Wire], Wire]:
    """Numbers of shape (n,) that are zero where some contributor is not content, or its guard is zero.

    factors: of the pairs' numbers, each pair's n beside each other, in the order of `pairs_of`; their product is zero
    where p is not content with q. by: a random number for each of them. guard: the n guards, themselves zero or
    uniform.
    """
    pairs = pairs_of(contributors)
    if guard is not None and contributors == 2:
        by = np.concatenate((guard[0], by))
    hidden = yield from tree(factors, by)
    apart = hidden.reshape(len(hidden), len(pairs), -1)
    content = [
        sums([apart[:, index] for index, (p, _) in enumerate(pairs) if p == which]) for which in range(contributors)
    ]
    if guard is not None and contributors > 2:
        content.append(guard)
    return (yield from tree(content))
