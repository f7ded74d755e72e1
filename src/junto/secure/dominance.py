# SPDX-License-Identifier: Apache-2.0
"""The joint decision whether one unit carries too much of a sum, without showing anybody's part of the sum.

Theory of operation
-------------------
A unit *dominates* a sum if its magnitude M is more than D per cent of the total T over all contributors. Contributor
p knows the largest M among its own units, and its own total. None of p's units dominates if the others hold at least
p's *demand*, 100/D · M − own total. That is compared on a ladder of magnitudes, 2⁻⁶⁴ to 2¹²⁸, each rung a fixed
multiple of the one below: p has the lowest rung that covers its demand, each contributor q the highest rung that its
total reaches. p is content with q if q's rung is not below p's.

Each writes its rungs with DIGITS digits and shares each digit as a unit vector: a one at the digit, zeros elsewhere.
The inner product of p's vector with q's says if the digits are the same; with the sums of q's from the next digit on,
if q's digit is greater; an inner product takes one multiplication. q's rung is not below p's if the first digit is
greater, or the same and the rest is not below: DIGITS − 1 multiplications more, in as many rounds. That gives one if p
is content with q, else zero; of their sum over q, zero if p is content with nobody. The product of these sums over all
p, times a random number and the count that guards the sum, is opened: zero, or uniform but for a chance of 2⁻³¹.

So a sum in which some unit carries more than D per cent never passes. One in which none carries half of that always
passes: then the others hold at least F = 1 + 100 / (100 − D) times the demand, the largest of N − 1 totals is at least
F / (N − 1) times the demand, and the rungs are no further apart than that. It holds for D = 80 up to six contributors;
of more, the rungs stay 1.2 apart, and a sum that is spread evenly may be withheld although no unit carries half of D. A
total below 2⁻⁶⁴ counts as nothing, a demand below as 2⁻⁶⁴. Other than finite numbers count as dominated.

A contributor that is alone decides alone, exactly.

Adversary and collusion: as in `verified.py`. Leakage: one bit for each sum of each group whose count passed, to
contributors, computing nodes and receiver; of others nothing. A contributor may lie about its own numbers, and share
vectors that are no unit vectors: a lie about its demand or its total makes the bit of that sum say whether the others'
rungs lie in a set that the liar chose, one bit for each run; an owner that says it has much lets a unit of another's
be shown though it dominates.
"""

from collections.abc import Generator, Sequence
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from junto.secure.product import sums, tree, tree_rounds
from junto.secure.shamir import Field, P, Shares, add
from junto.secure.verified import Pair, Wire

Reals = NDArray[np.float64]

DIGITS = 3
"""Of a rung: with more, less is shared and more rounds are taken."""

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
    while rungs[-1] < _HIGHEST:
        rungs.append(rungs[-1] * apart)
    return np.array([float(rung) for rung in rungs])


def demanded(totals: Reals, largest: Reals, rungs: Reals, dominance: int) -> NDArray[np.int64]:
    """The number of rungs that a total must reach to cover a contributor's demand; more than there are if none does."""
    with np.errstate(invalid="ignore", over="ignore"):
        demand = largest * (100 / dominance) * _ROUNDING - totals
    lowest = np.searchsorted(rungs, demand, side="left") + 1
    lowest = np.where(demand <= 0, 0, lowest) if dominance < 100 else np.zeros_like(lowest)
    return np.where(np.isfinite(largest) & np.isfinite(totals), lowest, len(rungs) + 1)


def reached(totals: Reals, rungs: Reals) -> NDArray[np.int64]:
    """The number of rungs that a contributor's totals reach."""
    return np.searchsorted(rungs, totals, side="right").astype(np.int64)


@cache
def base(contributors: int, dominance: int) -> int:
    """The number of values that a digit has: enough for every number of rungs, and one more."""
    found = 2
    while found**DIGITS < len(ladder(contributors, dominance)) + 2:
        found += 1
    return found


def width(contributors: int, dominance: int) -> int:
    """The number of numbers that carry a rung."""
    return DIGITS * base(contributors, dominance)


def vectors(rungs: NDArray[np.int64], base: int) -> Field:
    """Numbers of rungs, (n,), as the unit vectors of their digits, the first digit first: (DIGITS · base, n)."""
    found = np.zeros((DIGITS, base, len(rungs)), dtype=np.uint64)
    places = np.arange(len(rungs))
    for digit in range(DIGITS):
        found[digit, rungs // base ** (DIGITS - 1 - digit) % base, places] = 1
    return found.reshape(DIGITS * base, len(rungs))


def alone(totals: Reals, largest: Reals, dominance: int) -> NDArray[np.bool_]:
    """The sums that no unit of a single contributor dominates."""
    with np.errstate(invalid="ignore"):
        passes: NDArray[np.bool_] = np.isfinite(totals) & (largest <= totals * (dominance / 100))
    return passes


def pairs_of(contributors: int) -> list[tuple[int, int]]:
    """The pairs of contributors, by index, of which the first is to be content with the second."""
    return [(p, q) for p in range(contributors) for q in range(contributors) if p != q]


def rounds(contributors: int) -> int:
    """The rounds that `decided` takes, before the guard is multiplied in."""
    return DIGITS + tree_rounds(contributors + 1)


def products(contributors: int, dominance: int) -> int:
    """The number of multiplications that each sum of each group takes, those of the demands with r among them."""
    compared = len(pairs_of(contributors)) * (3 * DIGITS - 2)
    return contributors * width(contributors, dominance) + compared + contributors + 1


def decided(
    demands: Sequence[Wire], reaches: Sequence[Shares], by: Shares
) -> Generator[list[Pair], list[Wire], list[Wire]]:
    """Numbers of shape (n,) that are zero where some contributor is not content; one wire of them.

    demands, reaches: of each contributor, the vectors of n demands and totals, (…, width · n). by: n random numbers.
    """
    count, size = len(demands), len(by)
    asked: list[Pair] = []
    for p, q in pairs_of(count):
        mine = demands[p].reshape(len(demands[p]), DIGITS, -1, size)
        theirs = reaches[q].reshape(DIGITS, -1, size)
        for digit in range(DIGITS - 1):
            asked += [(mine[:, digit], _greater(theirs[digit])), (mine[:, digit], theirs[digit])]
        asked.append((mine[:, -1], _not_less(theirs[-1])))
    found = yield asked
    step = 2 * DIGITS - 1
    covered = found[step - 1 :: step]
    for digit in range(DIGITS - 2, -1, -1):
        greater, same = found[2 * digit :: step], found[2 * digit + 1 :: step]
        finer = yield [(wire, rest[0]) for wire, rest in zip(same, covered, strict=True)]
        covered = [
            add(wire.astype(np.uint64), rest).astype(np.uint32) for wire, rest in zip(greater, finer, strict=True)
        ]
    pairs = pairs_of(count)
    content = [
        sums([wire for wire, (p, _) in zip(covered, pairs, strict=True) if p == which]) for which in range(count)
    ]
    return [(yield from tree(content, by))]


def _not_less(vector: Shares) -> Shares:
    """Of shares of unit vectors (base, n): one at each value that the digit is not below."""
    return (np.cumsum(vector[::-1], axis=0, dtype=np.uint64)[::-1] % np.uint64(P)).astype(np.uint32)


def _greater(vector: Shares) -> Shares:
    """Of shares of unit vectors (base, n): one at each value that the digit is above."""
    return np.concatenate((_not_less(vector)[1:], np.zeros_like(vector[:1])))
