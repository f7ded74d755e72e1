# SPDX-License-Identifier: Apache-2.0
"""Arithmetic in the field of 2³¹ − 1 elements, and Shamir's secret sharing over it, on whole arrays.

Elements are uint64 arrays with values in [0, P). The product of two stays below 2⁶², so it is reduced without a
division: 2³¹ = 1 in this field, hence x = (x mod 2³¹) + ⌊x / 2³¹⌋, twice at most.

A secret is the value at 0 of a random polynomial; party i (from 0) holds its value at i + 1. With degree t, any t
shares are uniform and independent of the secret; t + 1 determine it.

Source: Shamir, How to share a secret, CACM 22(11), 1979. Degree reduction (`weights` of degree 2t applied to shared
products): Gennaro, Rabin, Rabin, PODC 1998, section 3.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from junto.errors import InvalidInput
from junto.types import RandomBytes

P = (1 << 31) - 1
"""The field's size, a Mersenne prime."""

Field = NDArray[np.uint64]
"""Field elements, each in [0, P)."""

Shares = NDArray[np.uint32]
"""Shares in half the room, the form in which they are kept and sent."""

_P = np.uint64(P)
_P32 = np.uint32(P)
_BITS = np.uint64(31)


def reduced(x: Field) -> Field:
    """x mod P, for any uint64 x below 2⁶³. Works in place."""
    high = x >> _BITS
    np.bitwise_and(x, _P, out=x)
    np.add(x, high, out=x)  # below 2³¹ + 2³²
    np.right_shift(x, _BITS, out=high)
    np.bitwise_and(x, _P, out=x)
    np.add(x, high, out=x)  # at most 2³¹ + 1
    return _below_p(x)


def add(a: Field, b: Field | Shares) -> Field:
    """a + b, elementwise."""
    return _below_p(a + b)


def subtract(a: Field, b: Field) -> Field:
    """a − b, elementwise."""
    return add(a, _P - b)


def _below_p(x: Field) -> Field:
    """x mod P for x below 2 P, in place: where x − P would be negative it wraps to a number above x."""
    np.minimum(x, x - _P, out=x)
    return x


def multiply(a: Field | Shares, b: Field | Shares) -> Field:
    """a · b, elementwise."""
    return reduced(np.multiply(a, b, dtype=np.uint64))


def uniform(shape: tuple[int, ...], random_bytes: RandomBytes) -> Field:
    """Independent uniform field elements: 31 random bits each, drawn again where they come out as P."""
    return _uniform(shape, random_bytes).astype(np.uint64)


def _uniform(shape: tuple[int, ...], random_bytes: RandomBytes) -> NDArray[np.uint32]:
    drawn = _draw(int(np.prod(shape, dtype=np.int64)), random_bytes)
    while (again := np.flatnonzero(drawn == _P32)).size:
        drawn[again] = _draw(again.size, random_bytes)
    return drawn.reshape(shape)


def _draw(count: int, random_bytes: RandomBytes) -> NDArray[np.uint32]:
    return (np.frombuffer(random_bytes(4 * count), dtype="<u4") & _P32).astype(np.uint32, copy=False)


def split(secret: Field, parties: int, degree: int, random_bytes: RandomBytes) -> Shares:
    """Split each element into Shamir shares, one row per party.

    secret: any shape, integers in [0, P). Returns shape (parties, *secret.shape).
    Any `degree` rows reveal nothing; `degree + 1` rebuild the secret.
    Raises InvalidInput unless 0 <= degree < parties < P.
    Source: Shamir, CACM 22(11), 1979.
    """
    if not 0 <= degree < parties < P:
        raise InvalidInput(f"cannot share among {parties} parties with a polynomial of degree {degree}")
    shares = np.empty((parties, *secret.shape), dtype=np.uint32)
    if degree == 1:  # a line rises by the same at every step, and the sum of two elements fits 32 bits
        slope, height = _uniform(secret.shape, random_bytes), secret.astype(np.uint32)
        for party in range(parties):
            np.add(height, slope, out=height)
            np.minimum(height, height - _P32, out=height)
            shares[party] = height
        return shares
    coefficients = uniform((degree, *secret.shape), random_bytes)
    fits = parties ** (degree + 1) < 1 << 31  # then 2³¹ · (1 + x + … + x^degree) stays below 2⁶³ without reducing
    for party in range(parties):
        point = np.uint64(party + 1)
        value = np.zeros_like(secret)
        for coefficient in coefficients[::-1]:  # Horner
            np.add(value, coefficient, out=value)
            np.multiply(value, point, out=value)
            value = value if fits else reduced(value)
        np.add(value, secret, out=value)
        shares[party] = reduced(value)
    return shares


def weights(points: int, at: int = 0) -> list[int]:
    """The factors that give a polynomial of degree below `points` at `at`, from its values at 1, …, `points`."""
    result = []
    for i in range(1, points + 1):
        numerator = denominator = 1
        for j in range(1, points + 1):
            if j != i:
                numerator = numerator * (at - j) % P
                denominator = denominator * (i - j) % P
        result.append(numerator * pow(denominator, -1, P) % P)
    return result


def combine(shares: Sequence[Shares] | Sequence[Field] | Shares | Field, factors: list[int]) -> Field:
    """Σ factors[i] · shares[i], over the first axis; the shares may be of a narrower type."""
    total = np.zeros(shares[0].shape, dtype=np.uint64)
    for row, factor in zip(shares, factors, strict=True):
        product = np.multiply(row, np.uint64(factor), dtype=np.uint64)
        np.add(total, product & _P, out=total)
        np.right_shift(product, _BITS, out=product)
        np.add(total, product, out=total)  # grows by less than 2³² a row
    return reduced(total)


def folded(x: Field) -> Field:
    """A number below 2³³ that is x mod P, for any uint64 x below 2⁶³. Works in place."""
    high = x >> _BITS
    np.bitwise_and(x, _P, out=x)
    np.add(x, high, out=x)
    return x


def inner(a: Field, b: Shares | Field) -> int:
    """Σ a[i] · b[i] of two arrays of fewer than 2³² elements."""
    return int(np.sum(folded(a * b), dtype=np.uint64)) % P


def rebuild(shares: Shares | Field, degree: int) -> Field:
    """The secrets behind the shares of parties 1, 2, …: shape (parties, n) to (n,).

    Raises InvalidInput if the shares are too few or do not lie on one polynomial of that degree.
    """
    if len(shares) <= degree:
        raise InvalidInput(f"{len(shares)} shares do not determine a polynomial of degree {degree}")
    head = shares[: degree + 1]
    for party in range(degree + 1, len(shares)):
        if not np.array_equal(combine(head, weights(degree + 1, at=party + 1)), shares[party]):
            raise InvalidInput(f"the {len(shares)} shares do not lie on one polynomial of degree {degree}")
    return combine(head, weights(degree + 1))
