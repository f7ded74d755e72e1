# SPDX-License-Identifier: Apache-2.0
"""Numbers as limbs of 48 bits in lanes of 64, so that up to 2¹⁵ parties' lanes add mod 2⁶⁴ without wrapping.

    value = (lane 0 + lane 1 · 2⁴⁸ + lane 2 · 2⁹⁶ + …) · 2^-(fraction bits), lanes read as signed

Every limb of one party is at most 2⁴⁸ − 1 in magnitude; carries are settled after the sum. Masked, a lane is uniform
whatever its sign.

A lane of *flags* stands beside the limbs of reals, for what has no limbs. It has a field of 16 bits for each of NaN,
+∞, −∞ and *beyond* (a finite magnitude that the limbs cannot hold); a party whose value is such adds one to the field,
and zero to the limbs. So laying out fails on no value: what fails would tell of rows.
Leakage: of a group that is released, the receiver sees how many parties raised each flag.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[np.uint64]
"""Shape (lanes, n)."""
Limbs = NDArray[np.int64]
"""Shape (limbs, n): the lanes of one number, read as signed."""

LIMB_BITS = 48

_MASK = np.int64((1 << LIMB_BITS) - 1)
_FIELD_BITS = 16
_FIELD = np.uint64((1 << _FIELD_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Flags:
    """The groups that hold a value without limbs, each flag of shape (n,)."""

    nan: NDArray[np.bool_]  # NaN, or infinities of both signs
    plus: NDArray[np.bool_]  # +∞, and nothing of `nan`
    minus: NDArray[np.bool_]
    beyond: NDArray[np.bool_]  # a magnitude that the limbs cannot hold, and none of the others


def fixed(values: NDArray[np.float64], limbs: int, fraction_bits: int) -> Limbs:
    """Each value as the nearest multiple of 2^-`fraction_bits`, in that many limbs.

    values: finite, below 2^(48 · limbs − fraction_bits) in magnitude. Exact for multiples of 2^-fraction_bits.
    """
    rest = np.abs(values)
    # Below this a float has bits finer than the multiple; rounding there is exact arithmetic on numbers below 2⁵².
    small = rest < 2.0 ** (52 - fraction_bits)
    rest[small] = np.rint(rest[small] * 2.0**fraction_bits) * 2.0**-fraction_bits
    found = np.empty((limbs, len(values)), dtype=np.int64)
    for limb in reversed(range(limbs)):
        weight = 2.0 ** (LIMB_BITS * limb - fraction_bits)
        whole = np.floor(rest * (1 / weight))
        rest -= whole * weight  # exact: cuts off the leading bits
        found[limb] = whole.astype(np.int64)
    np.negative(found, out=found, where=values < 0)
    return found


def carried(limbs: Limbs) -> Limbs:
    """The same numbers with all limbs but the last in [0, 2⁴⁸); the sign is the last one's."""
    found = limbs.copy()
    for limb in range(len(limbs) - 1):
        found[limb + 1] += found[limb] >> np.int64(LIMB_BITS)
        found[limb] &= _MASK
    return found


def integers(lanes: Lanes) -> list[int]:
    """The exact integers in summed lanes that hold limbs, before division by their unit."""
    rows = carried(lanes.view(np.int64)).tolist()
    return [sum(limb << LIMB_BITS * i for i, limb in enumerate(column)) for column in zip(*rows, strict=True)]


def raised(values: NDArray[np.float64], beyond: NDArray[np.bool_]) -> Lanes:
    """The lane of flags, shape (1, n), for values of which those `beyond` cannot be held; finite others raise none."""
    kinds = (np.isnan(values), values == np.inf, values == -np.inf, beyond & np.isfinite(values))
    lane = np.zeros((1, len(values)), dtype=np.uint64)
    for place, kind in enumerate(kinds):
        lane[0] |= kind.astype(np.uint64) << np.uint64(_FIELD_BITS * place)
    return lane


def flags(lane: NDArray[np.uint64]) -> Flags:
    """The flags of each group, from a summed lane of flags, shape (n,)."""
    nan, plus, minus, beyond = ((lane >> np.uint64(_FIELD_BITS * place)) & _FIELD != 0 for place in range(4))
    nan = nan | (plus & minus)
    return Flags(nan, plus & ~nan, minus & ~nan, beyond & ~nan & ~plus & ~minus)
