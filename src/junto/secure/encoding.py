# SPDX-License-Identifier: Apache-2.0
"""Measures as vectors that can be summed mod 2⁶⁴ without wrapping, and back.

A *lane* is a row of 64-bit words. A `count` takes one. A number of up to 144 bits takes three, as limbs of 48 bits:

    value = lane 0 + lane 1 · 2⁴⁸ + lane 2 · 2⁹⁶, lanes read as signed

Every limb is at most 2⁴⁸ − 1 in magnitude, so the lanes of up to 2¹⁵ parties add without wrapping; carries are settled
after the sum. Masked, a lane is uniform whatever its sign.

- `count`: integers in [0, 2⁴⁸). Exact.
- `integer`: decimal128 of any scale, as its unscaled integer. Exact; a sum beyond decimal(38) is refused, not wrapped.
- `real`: float64 as a multiple of 2⁻⁶⁴, finite, |v| < 2⁷⁹. Encoding errs by at most 2⁻⁶⁵ per party (by nothing where
  |v| ≥ 2⁻¹² or v is a multiple of 2⁻⁶⁴). The sum of what was encoded is exact, and its float64 correctly rounded. So
  the sum of N parties' values is within N · 2⁻⁶⁵ of the real sum, plus half a unit in the last place, in any order.

NULL encodes as zero; whether a sum is NULL is decided by the count that travels beside it.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from junto.errors import InvalidInput

Encoding = Literal["count", "integer", "real"]
Lanes = NDArray[np.uint64]
"""Shape (lanes, n)."""
Limbs = NDArray[np.int64]
"""Shape (3, n): the lanes of one number, read as signed."""

LANES: dict[Encoding, int] = {"count": 1, "integer": 3, "real": 3}
FRACTION_BITS = 64
COUNT_MAX = (1 << 48) - 1
REAL_BOUND = 2.0**79
DECIMAL_MAX = 10**38 - 1

_LIMB = 48
_MASK = np.int64((1 << _LIMB) - 1)
_WORD = (1 << 64) - 1


def unit(encoding: Encoding, scale: int = 0) -> int:
    """What an encoded integer is divided by to give the value."""
    return 1 << FRACTION_BITS if encoding == "real" else 10**scale


def encode(measure: str, encoding: Encoding, column: pa.Array | pa.ChunkedArray, scale: int = 0) -> Lanes:
    """The column's values as lanes, shape (LANES[encoding], n); NULL as zero.

    `integer` takes decimals and integers that decimal(38, `scale`) holds exactly. Raises InvalidInput, naming the
    measure and never a value, for what the encoding cannot hold.
    """
    wanted = {"count": pa.int64(), "integer": pa.decimal128(38, scale), "real": pa.float64()}[encoding]
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    try:
        if not _exact(column.type, encoding):  # Arrow would parse text, and round reals to decimals
            raise pa.ArrowInvalid
        column = column.cast(wanted)
    except pa.ArrowException:
        text = f"measure {measure!r}, {column.type}, does not fit {wanted}: cast it in the question"
        raise InvalidInput(text) from None  # Arrow's own text quotes the value
    match encoding:
        case "count":
            return _encode_counts(measure, column.fill_null(0).to_numpy())
        case "integer":
            return encode_words(_decimal_words(column))
        case "real":
            return encode_reals(measure, column.fill_null(0.0).to_numpy())


def decode(measure: str, encoding: Encoding, lanes: Lanes, scale: int = 0) -> pa.Array:
    """The values in summed lanes: int64 for counts, decimal128(38, scale) for integers, float64 for reals.

    Raises InvalidInput, naming the measure, if a sum is beyond what the type holds.
    """
    if lanes.shape[0] != LANES[encoding]:
        raise InvalidInput(f"measure {measure!r} takes {LANES[encoding]} lanes, not {lanes.shape[0]}")
    match encoding:
        case "count":
            if lanes.size and int(lanes.max()) >> 63:
                raise InvalidInput(f"the sum of the counts {measure!r} does not fit 64 bits")
            return pa.array(lanes[0].astype(np.int64))
        case "integer":
            words = decode_words(measure, lanes)
            buffer = pa.py_buffer(np.ascontiguousarray(words, dtype="<u8"))
            return pa.Array.from_buffers(pa.decimal128(38, scale), len(words), [None, buffer])
        case "real":
            return pa.array(decode_reals(lanes))


def integers(lanes: Lanes) -> list[int]:
    """The exact integers in summed lanes of `integer` or `real`, before division by `unit`."""
    low, middle, high = _carried(lanes.view(np.int64)).tolist()
    return [a + (b << _LIMB) + (c << 2 * _LIMB) for a, b, c in zip(low, middle, high, strict=True)]


def encode_words(words: NDArray[np.uint64]) -> Lanes:
    """128-bit integers in two's complement, (n, 2) with the low word first, as lanes."""
    low, high = words[:, 0], words[:, 1]
    lanes = np.empty((3, len(words)), dtype=np.uint64)
    mask = np.uint64(_MASK)
    lanes[0] = low & mask
    lanes[1] = (low >> np.uint64(_LIMB)) | ((high << np.uint64(16)) & mask)
    lanes[2] = (high.view(np.int64) >> np.int64(32)).view(np.uint64)
    return lanes


def decode_words(measure: str, lanes: Lanes) -> NDArray[np.uint64]:
    """Summed lanes as 128-bit integers in two's complement, (n, 2) with the low word first.

    Raises InvalidInput, naming the measure, if a sum takes more than 38 decimal digits.
    """
    limbs = _carried(lanes.view(np.int64))
    magnitude = _carried(np.where(limbs[2] < 0, -limbs, limbs))
    low, high = _joined(magnitude)
    top, bottom = np.uint64(DECIMAL_MAX >> 64), np.uint64(DECIMAL_MAX & _WORD)
    if np.any((magnitude[2] >> np.int64(32)) | (high > top) | ((high == top) & (low > bottom))):
        raise InvalidInput(f"a sum of {measure!r} takes more than 38 digits: cast it to DOUBLE in the question")
    return np.stack(_joined(limbs), axis=1)


def encode_reals(measure: str, values: NDArray[np.float64]) -> Lanes:
    """Finite reals below 2⁷⁹ in magnitude as lanes, in multiples of 2⁻⁶⁴, the nearest one."""
    if not np.all(np.isfinite(values)):
        mend = "filter them out in the question, as by x BETWEEN -1e300 AND 1e300"
        raise InvalidInput(f"measure {measure!r} holds NaN or infinity: {mend}")
    rest = np.abs(values)
    if not np.all(rest < REAL_BOUND):
        raise InvalidInput(f"measure {measure!r} holds a magnitude of 2^79 or more: scale it down in the question")
    # Below 2⁻¹² a float has bits finer than 2⁻⁶⁴; rounding there is exact arithmetic on numbers below 2⁵².
    small = rest < 2.0**-12
    rest[small] = np.rint(rest[small] * 2.0**64) * 2.0**-64
    limbs = np.empty((3, len(values)), dtype=np.int64)
    for limb, weight in ((2, 2.0**32), (1, 2.0**-16), (0, 2.0**-64)):
        whole = np.floor(rest * (1 / weight))
        rest -= whole * weight  # exact: cuts off the leading bits
        limbs[limb] = whole.astype(np.int64)
    return np.where(values < 0, -limbs, limbs).view(np.uint64)


def decode_reals(lanes: Lanes) -> NDArray[np.float64]:
    """Summed lanes as the nearest float64 to the exact sum, ties to even."""
    limbs = _carried(lanes.view(np.int64))
    negative = limbs[2] < 0
    magnitude = _carried(np.where(negative, -limbs, limbs))
    low, high = _joined(magnitude)
    # A magnitude has up to 159 bits. Keep the upper 128, unless the upper 32 are zero; `odd` says that bits were lost.
    large = magnitude[2] >> np.int64(32) != 0
    odd = np.where(large, low & np.uint64(0xFFFFFFFF), 0) != 0
    low = np.where(large, (low >> np.uint64(32)) | (high << np.uint64(32)), low)
    high = np.where(large, magnitude[2].view(np.uint64), high)
    # Of the 128, keep the 64 from the first one bit on, with the last bit set if any later one was: rounding that to 53
    # bits rounds the exact number (Boldo, Melquiond, 2008). numpy shifts by 64 give zero.
    bits = np.frexp((high & ~(high >> np.uint64(1))).astype(np.float64))[1]  # its second bit cleared, it rounds down
    drop = bits.astype(np.uint64)
    keep = np.uint64(64) - drop
    lost = ((low << keep) != 0) | odd
    window = (high << keep) | (low >> drop) | lost.astype(np.uint64)
    value: NDArray[np.float64] = np.ldexp(window.astype(np.float64), bits + np.where(large, 32, 0) - FRACTION_BITS)
    np.negative(value, out=value, where=negative)
    return value


def _exact(kind: pa.DataType, encoding: Encoding) -> bool:
    """Whether Arrow's cast from that type is exact, or fails, or is the rounding of a number to float64."""
    types = pa.types
    whole = types.is_integer(kind) or types.is_null(kind)
    if encoding == "count":
        return bool(whole)
    decimal = whole or types.is_decimal(kind)
    return bool(decimal if encoding == "integer" else decimal or types.is_floating(kind))


def _encode_counts(measure: str, counts: NDArray[np.int64]) -> Lanes:
    if counts.size and not 0 <= int(counts.min()) <= int(counts.max()) <= COUNT_MAX:
        raise InvalidInput(f"measure {measure!r} holds a count below 0 or above {COUNT_MAX}")
    return counts.astype(np.uint64).reshape(1, -1)


def _decimal_words(column: pa.Array) -> NDArray[np.uint64]:
    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return np.zeros((len(column), 2), dtype=np.uint64)
    words = np.frombuffer(buffer, dtype="<u8").reshape(-1, 2)[column.offset : column.offset + len(column)]
    if column.null_count:
        words = np.where(column.is_valid().to_numpy(zero_copy_only=False)[:, None], words, np.uint64(0))
    return words.astype(np.uint64, copy=False)


def _carried(limbs: Limbs) -> Limbs:
    """The same numbers with lanes 0 and 1 in [0, 2⁴⁸); the sign is lane 2's."""
    carried = np.empty_like(limbs)
    np.bitwise_and(limbs[0], _MASK, out=carried[0])
    middle = limbs[1] + (limbs[0] >> np.int64(_LIMB))
    np.bitwise_and(middle, _MASK, out=carried[1])
    np.add(limbs[2], middle >> np.int64(_LIMB), out=carried[2])
    return carried


def _joined(limbs: Limbs) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The low 128 bits of carried limbs, as two words."""
    low, middle, high = limbs.view(np.uint64)
    return low | (middle << np.uint64(_LIMB)), (middle >> np.uint64(16)) | (high << np.uint64(32))
