# SPDX-License-Identifier: Apache-2.0
"""The number of dummies that hides how many groups a contributor has.

A contributor adds dummies to its group keys before anybody sees how many there are: 104 plus two-sided geometric noise,
P(k) ∝ e^(−|k|/5), cut to 0 … 208. For two tables of which one has a group more than the other, the number that is
seen is (0.2, 10⁻⁹)-indistinguishable: each number is at most e^0.2 = 1.22 times as likely with the one as with the
other, but for a chance of 10⁻⁹ that the cut shows. A person in g groups is hidden with 0.2 · g. Every contributor
draws for itself, so the size of the union is hidden from the others too, whoever of them puts its own part away.

The number must be the same whenever the same is asked of the same data: drawn anew each time, the mean of many
answers would tell. So it comes from a secret of the contributor and what was asked, not from the protocol's
randomness.

Source: Dwork, McSherry, Nissim, Smith, TCC 2006; the geometric mechanism, Ghosh, Roughgarden, Sundararajan, STOC 2009.
"""

import math

from junto.types import RandomBytes

EPSILON = 0.2
MEAN_DUMMIES = 104
"""The mean, with which 2 · e^(−0.2 · 105) / (1 + e^(−0.2)) = 8 · 10⁻¹⁰ of the noise is cut."""
MOST_DUMMIES = 2 * MEAN_DUMMIES


def dummies(random_bytes: RandomBytes) -> int:
    """A number of dummies, from 0 to MOST_DUMMIES."""
    noise = _geometric(random_bytes) - _geometric(random_bytes)
    return min(max(MEAN_DUMMIES + noise, 0), MOST_DUMMIES)


def _geometric(random_bytes: RandomBytes) -> int:
    """k ≥ 0 with probability (1 − e^−ε) · e^(−ε k), as far as 53 random bits tell."""
    uniform = ((int.from_bytes(random_bytes(8), "big") >> 11) + 1) / (1 << 53)
    return math.floor(-math.log(uniform) / EPSILON)
