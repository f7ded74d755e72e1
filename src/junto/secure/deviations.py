# SPDX-License-Identifier: Apache-2.0
"""Sums of squared deviations from the mean, `ss − s² / n`, without the cancellation that floats suffer here.

With a mean far from zero, `ss` and `s² / n` agree in most of their digits, and their difference in float64 may have
none left. The sums arrive as exact integers, so the difference is taken exactly and rounded once.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from junto.secure import spreads
from junto.secure.limbs import Lanes, flags, integers


def deviations(n: NDArray[np.int64], s: Lanes, ss: Lanes, s_unit: int, ss_unit: int) -> NDArray[np.float64]:
    """`ss − s² / n` per group, rounded once to float64; NaN where n is 0.

    n: shape (g,). s, ss: summed lanes that hold the limbs of a measure and of its squares; dividing by their unit
    (`encoding.unit`) gives the value. Never negative: squares that were rounded can fall short of s² / n by that.
    """
    return _differences(n, integers(s), integers(ss), s_unit, ss_unit)


def spread_deviations(n: NDArray[np.int64], lanes: Lanes) -> pa.Array:
    """The same of a spread's summed lanes: NaN where a value is NaN or infinite, NULL where one is beyond the lanes."""
    said = flags(lanes[-1])
    s, ss = integers(spreads.sums(lanes)), integers(spreads.squares(lanes))
    found = _differences(n, s, ss, 1 << spreads.SUM_FRACTION_BITS, 1 << spreads.SQUARE_FRACTION_BITS)
    found[said.nan | said.plus | said.minus] = np.nan
    return pa.array(found, mask=said.beyond)


def _differences(
    n: NDArray[np.int64], sums: Sequence[int], squares: Sequence[int], s_unit: int, ss_unit: int
) -> NDArray[np.float64]:
    squared_unit = s_unit * s_unit
    left, right = squared_unit, ss_unit  # (ss·su²·n − s²·ssu) / (ssu·su²·n)
    below = ss_unit * squared_unit
    return np.array(
        [
            max(square * left * count - total * total * right, 0) / (below * count) if count > 0 else np.nan
            for count, total, square in zip(n.tolist(), sums, squares, strict=True)
        ],
        dtype=np.float64,
    )
