# SPDX-License-Identifier: Apache-2.0
"""Sums of squared deviations from the mean, `ss − s² / n`, without the cancellation that floats suffer here.

With a mean far from zero, `ss` and `s² / n` agree in most of their digits, and their difference in float64 may have
none left. The sums arrive as exact integers, so the difference is taken exactly and rounded once.
"""

import numpy as np
from numpy.typing import NDArray

from junto.secure.encoding import Lanes, integers


def deviations(n: NDArray[np.int64], s: Lanes, ss: Lanes, s_unit: int, ss_unit: int) -> NDArray[np.float64]:
    """`ss − s² / n` per group, rounded once to float64; NaN where n is 0.

    n: shape (g,). s, ss: summed lanes (3, g) of a measure and of its squares; dividing by their unit (`encoding.unit`)
    gives the value. Never negative: squares of reals, rounded to multiples of 2⁻⁶⁴, can fall short of s² / n by that.
    """
    squared_unit = s_unit * s_unit
    left, right = squared_unit, ss_unit  # (ss·su²·n − s²·ssu) / (ssu·su²·n)
    below = ss_unit * squared_unit
    return np.array(
        [
            max(square * left * count - total * total * right, 0) / (below * count) if count else np.nan
            for count, total, square in zip(n.tolist(), integers(s), integers(ss), strict=True)
        ],
        dtype=np.float64,
    )
