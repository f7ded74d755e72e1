# SPDX-License-Identifier: Apache-2.0
"""The products that a threshold opens: zero exactly where a shared sum is too small, in few multiplications.

A shared sum s reaches `limit` unless it is one of 0, …, limit − 1, so unless ∏_{v < limit} (s − v) is zero. The roots
lie symmetrically: with q = s · (s − (limit − 1)), the pair (s − v)(s − (limit − 1 − v)) is q + v(limit − 1 − v), which
takes no multiplication once q is there. The product of any b such pairs is a polynomial of degree b in q, so a sum of
multiples of q, …, q^b. One factor for each b pairs is left to multiply (after Paterson, Stockmeyer). A limit of 10
takes 5 multiplications with the random number that hides the result, one of 1,000 takes 46.

Such a product times a uniform random number is zero if the sum is too small; otherwise it is uniform over the
nonzero elements, times the chance of 2⁻³¹ that the random number itself is zero.

Source: Paterson, Stockmeyer, SIAM Journal on Computing 2(1), 1973.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from junto.secure.shamir import P, Shares
from junto.secure.verified import Arithmetic, Pair, Wire

Steps = Generator[list[Pair], list[Wire], list[Wire]]
"""A job (as in `verified.py`) with several results."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The plan for the product of one limit: the powers of q that are made, and the factors made from them."""

    powers: int
    factors: int
    pairs: int

    @property
    def rounds(self) -> int:
        """The rounds that its factors take."""
        return 1 + (self.powers - 1).bit_length() if self.pairs else 0

    @property
    def products(self) -> int:
        """The multiplications that the factors take, and then their product with one number more."""
        return (self.powers if self.pairs else 0) + self.factors


def shape_of(limit: int) -> Shape:
    """The shape with the fewest multiplications, of those the one with the fewest rounds."""
    pairs = limit // 2
    odd = limit % 2
    shapes = [Shape(b, -(-pairs // b) + odd, pairs) for b in range(1, max(2, 2 * int(pairs**0.5) + 2))]
    return min(shapes, key=lambda shape: (shape.products, shape.rounds + tree_rounds(shape.factors + 1)))


def tree_rounds(factors: int) -> int:
    """The number of rounds that the multiplication of so many numbers takes."""
    return (factors - 1).bit_length()


def factors_of(arithmetic: Arithmetic, total: Wire, limit: int) -> Steps:
    """Numbers whose product is zero exactly where `total` is one of 0, …, limit − 1."""
    shape = shape_of(limit)
    factors = [arithmetic.linear([total], [1], -(limit // 2))] if limit % 2 else []
    if not shape.pairs:
        return factors
    by = arithmetic.linear([total], [1], -(limit - 1))
    powers = yield [(total, by[0])]
    while len(powers) < shape.powers:
        known = len(powers)
        wanted = range(known + 1, min(2 * known, shape.powers) + 1)
        powers += yield [(powers[known - 1], powers[power - known - 1][0]) for power in wanted]
    roots = [v * (limit - 1 - v) for v in range(shape.pairs)]
    for start in range(0, len(roots), shape.powers):
        constant, *coefficients = _polynomial(roots[start : start + shape.powers])
        factors.append(arithmetic.linear(powers[: len(coefficients)], coefficients, constant))
    return factors


def tree(factors: Sequence[Wire], by: Shares | None = None) -> Generator[list[Pair], list[Wire], Wire]:
    """The product of the factors, and of shares of shape (n,) if any, in ⌈log₂⌉ rounds."""
    level = list(factors)
    while len(level) > 1 or by is not None:
        pairs = [(left, right[0]) for left, right in zip(level[::2], level[1::2], strict=False)]
        last = level[-1:] if len(level) % 2 else []
        if last and by is not None:
            pairs.append((last[0], by))
            last, by = [], None
        level = [*(yield pairs), *last]
    return level[0]


def _polynomial(roots: Sequence[int]) -> list[int]:
    """The coefficients of ∏ (x + root), from the constant on."""
    coefficients = [1]
    for root in roots:
        shifted = [0, *coefficients]
        coefficients = [(a * root + b) % P for a, b in zip([*coefficients, 0], shifted, strict=True)]
    return coefficients


def sums(rows: Sequence[Shares]) -> Shares:
    """The sum of the shares, elementwise."""
    total = np.zeros(rows[0].shape, dtype=np.uint64)
    for row in rows:
        np.add(total, row, out=total)
    return (total % np.uint64(P)).astype(np.uint32)
