# SPDX-License-Identifier: Apache-2.0
"""Sums and sums of squares of reals as lanes, exact enough that a deviation keeps its digits wherever the mean lies.

With a mean far from zero, the sum of squares and the square of the sum agree in most of their digits, so neither may be
rounded to a float on the way. A party's engine therefore sums around a *centre* close to the group's mean, as Chan,
Golub and LeVeque advise: of n values x it gives

    c = the centre        t = Σ (x − c)        q = Σ (x − c)²        z = max |x|

where each difference is small and t and q lose nothing that matters. Of these follow, as identities,

    Σ x = n·c + t        Σ x² = q + 2·c·t + n·c²

which are worked out without rounding (products of two floats by Dekker's splitting): the sum as a multiple of 2⁻¹²⁸ in
five lanes, the sum of squares of 2⁻²⁵⁶ in nine, then a lane of flags. The parties' centres differ, the sums add.

Error. The encoding keeps every bit of magnitudes from 2⁻⁷⁵ to 2⁶³. The engine's arithmetic loses a few units in the
last place of t and of q, and q is of the size of the deviation itself. So a sum of squared deviations is within 10⁻¹⁴
of its own size, whatever the mean; values smaller than 2⁻⁷⁵ count as the nearest multiple of 2⁻¹²⁸. It is NULL if a
magnitude is 2⁶³ or more, and NaN with NaN or infinity, as in SQL.

Source: Chan, Golub, LeVeque, Algorithms for computing the sample variance, The American Statistician 37(3), 1983;
Dekker, A floating-point technique for extending the available precision, Numerische Mathematik 18, 1971.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from junto.errors import InvalidInput
from junto.secure.limbs import Lanes, carried, fixed, raised

FIELDS = ("c", "n", "t", "q", "z")
"""The fields that an engine gives of each group: see above; `n` is BIGINT, the others DOUBLE."""
SUM_FRACTION_BITS, SQUARE_FRACTION_BITS = 128, 256
SUM_LANES, SQUARE_LANES = 5, 9
LANES = SUM_LANES + SQUARE_LANES + 1
MAGNITUDE_BOUND = 2.0**63

_SQUARES_BOUND = 2.0**158
_SPLIT = 134217729.0  # 2²⁷ + 1

Reals = NDArray[np.float64]


def encode(measure: str, column: pa.Array) -> Lanes:
    """The lanes of a column of structs, shape (LANES, n); NULL and groups of no values as zero.

    Raises InvalidInput, naming the measure, for a column that is none; never for a value.
    """
    if not pa.types.is_struct(column.type) or tuple(field.name for field in column.type) != FIELDS:
        raise InvalidInput(f"measure {measure!r}, {column.type}, is no spread: ask the question anew")
    c, n, t, q, z = (_reals(column.field(position)) for position in range(len(FIELDS)))
    with np.errstate(all="ignore"):  # what is not finite is masked out below
        fits = (z < MAGNITUDE_BOUND) & (n * z * z < _SQUARES_BOUND) & np.isfinite(c + t + q)
    held = np.isfinite(z) & fits
    c, n, t, q = (np.where(held, value, 0.0) for value in (c, n, t, q))
    sums = _added((*_product(n, c), t), SUM_LANES, SUM_FRACTION_BITS)
    high, low = _product(c, c)
    cross, rest = _product(2 * c, t)
    terms = (q, cross, rest, *_product(n, high), *_product(n, low))
    squares = _added(terms, SQUARE_LANES, SQUARE_FRACTION_BITS)
    return np.concatenate([sums, squares, raised(z, ~fits)])


def sums(lanes: Lanes) -> Lanes:
    """The lanes of the sum."""
    return lanes[:SUM_LANES]


def squares(lanes: Lanes) -> Lanes:
    """The lanes of the sum of squares."""
    return lanes[SUM_LANES : SUM_LANES + SQUARE_LANES]


def _reals(column: pa.Array) -> Reals:
    return np.array(column.cast(pa.float64(), safe=False).fill_null(0.0), dtype=np.float64)


def _added(terms: tuple[Reals, ...], limbs: int, fraction_bits: int) -> Lanes:
    total = fixed(terms[0], limbs, fraction_bits)
    for term in terms[1:]:
        total += fixed(term, limbs, fraction_bits)
    return carried(total).view(np.uint64)


def _product(one: Reals, other: Reals) -> tuple[Reals, Reals]:
    """Two reals of which the sum is exactly the product, where nothing under- or overflows."""
    product = one * other
    (a, b), (c, d) = _halves(one), _halves(other)
    return product, ((a * c - product) + a * d + b * c) + b * d


def _halves(values: Reals) -> tuple[Reals, Reals]:
    shifted = values * _SPLIT
    high = shifted - (shifted - values)
    return high, values - high
