# SPDX-License-Identifier: Apache-2.0
"""Measures as vectors that can be summed mod 2⁶⁴ without wrapping, and back; numbers as the limbs of `limbs.py`.

- `count`: integers in [0, 2⁴⁸), in one lane. Exact.
- `integer`: decimal128 of any scale, as its unscaled integer, in three. Exact; a sum of more than 38 digits is NULL.
- `real`: float64 as a multiple of 2⁻⁶⁴, |v| < 2⁷⁹, in three, and a lane of flags. Encoding errs by at most 2⁻⁶⁵ per
  party (by nothing where |v| ≥ 2⁻¹² or v is a multiple of 2⁻⁶⁴). The sum of what was encoded is exact, and its float64
  correctly rounded. So the sum of N parties' values is within N · 2⁻⁶⁵ of the real sum, plus half a unit in the last
  place, in any order. NaN and infinities add up as IEEE 754 has it; with a larger magnitude the sum is NULL.
- `spread`: a sum and a sum of squares, for a deviation; see `spreads.py`.

Nothing that rows may hold makes encoding or decoding fail: a failure would tell of them before a threshold does.

In `integer` NULL is a number that could not be computed: it encodes as one that no sum holds, so the sum is NULL. A sum
of no rows is 0. In the other encodings NULL is zero; the count that travels beside it decides whether the sum is NULL.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from junto.errors import InvalidInput
from junto.secure import spreads
from junto.secure.limbs import LIMB_BITS, Lanes, Limbs, carried, fixed, flags, raised

Encoding = Literal["count", "integer", "real", "spread"]

LANES: dict[Encoding, int] = {"count": 1, "integer": 3, "real": 4, "spread": spreads.LANES}
FRACTION_BITS = 64
COUNT_MAX = (1 << 48) - 1
REAL_BOUND = 2.0**79
DECIMAL_MAX = 10**38 - 1

_LIMBS = 3
_BEYOND = np.uint64(1 << 40)
"""The high limb of a number that makes every sum it is in longer than 38 digits."""
_MASK = np.uint64((1 << LIMB_BITS) - 1)
_WORD = (1 << 64) - 1


def unit(encoding: Encoding, scale: int = 0) -> int:
    """The number that an encoded integer is divided by to give the value."""
    return 1 << FRACTION_BITS if encoding == "real" else 10**scale


def encode(measure: str, encoding: Encoding, column: pa.Array | pa.ChunkedArray, scale: int = 0) -> Lanes:
    """The column's values as lanes, shape (LANES[encoding], n); NULL as the head of this file says.

    `integer` takes decimals and integers that decimal(38, `scale`) holds exactly; `spread` takes structs.
    Raises InvalidInput, naming the measure and never a value, for a column of another type.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if encoding == "spread":
        return spreads.encode(measure, column)
    wanted = {"count": pa.int64(), "integer": pa.decimal128(38, scale), "real": pa.float64()}[encoding]
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
            lanes = encode_words(_decimal_words(column))
            lanes[-1, column.is_null().to_numpy(zero_copy_only=False)] = _BEYOND
            return lanes
        case "real":
            return encode_reals(column.fill_null(0.0).to_numpy())


def decode(measure: str, encoding: Encoding, lanes: Lanes, scale: int = 0) -> pa.Array:
    """The values in summed lanes: int64 for counts, decimal128(38, scale) for integers, float64 for reals.

    A sum beyond what the type or the lanes hold is NULL. Raises InvalidInput, naming the measure, for lanes that no
    sum of what `encode` gave can be, and for a spread, which has no value of its own.
    """
    if encoding == "spread":
        raise InvalidInput(f"measure {measure!r} is a spread: its deviation has a value, the spread has none")
    if lanes.shape[0] != LANES[encoding]:
        raise InvalidInput(f"measure {measure!r} takes {LANES[encoding]} lanes, not {lanes.shape[0]}")
    match encoding:
        case "count":
            if lanes.size and int(lanes.max()) >> 63:
                raise InvalidInput(f"the sum of the counts {measure!r} does not fit 64 bits")
            return pa.array(lanes[0].astype(np.int64))
        case "integer":
            return _decode_decimals(lanes, scale)
        case "real":
            said = flags(lanes[_LIMBS])
            values = decode_reals(lanes[:_LIMBS])
            for where, value in ((said.nan, np.nan), (said.plus, np.inf), (said.minus, -np.inf)):
                values[where] = value
            return pa.array(values, mask=said.beyond)


def encode_words(words: NDArray[np.uint64]) -> Lanes:
    """128-bit integers in two's complement, (n, 2) with the low word first, as lanes."""
    low, high = words[:, 0], words[:, 1]
    lanes = np.empty((_LIMBS, len(words)), dtype=np.uint64)
    lanes[0] = low & _MASK
    lanes[1] = (low >> np.uint64(LIMB_BITS)) | ((high << np.uint64(16)) & _MASK)
    lanes[2] = (high.view(np.int64) >> np.int64(32)).view(np.uint64)
    return lanes


def encode_reals(values: NDArray[np.float64]) -> Lanes:
    """Reals as lanes: limbs in multiples of 2⁻⁶⁴, the nearest one, and flags for what has none below 2⁷⁹."""
    held = np.abs(values) < REAL_BOUND
    limbs = fixed(np.where(held, values, 0.0), _LIMBS, FRACTION_BITS)
    return np.concatenate([limbs.view(np.uint64), raised(values, ~held)])


def decode_reals(lanes: Lanes) -> NDArray[np.float64]:
    """Summed limbs, shape (3, n), as the nearest float64 to the exact sum, ties to even."""
    limbs = carried(lanes.view(np.int64))
    negative = limbs[2] < 0
    magnitude = carried(np.where(negative, -limbs, limbs))
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
    """True if Arrow's cast from that type is exact, or fails, or is the rounding of a number to float64."""
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


def _decode_decimals(lanes: Lanes, scale: int) -> pa.Array:
    """Summed lanes as decimals; NULL where a sum takes more than 38 digits."""
    limbs = carried(lanes.view(np.int64))
    magnitude = carried(np.where(limbs[2] < 0, -limbs, limbs))
    low, high = _joined(magnitude)
    top, bottom = np.uint64(DECIMAL_MAX >> 64), np.uint64(DECIMAL_MAX & _WORD)
    beyond = (magnitude[2] >> np.int64(32) != 0) | (high > top) | ((high == top) & (low > bottom))
    words = np.where(beyond[:, None], np.uint64(0), np.stack(_joined(limbs), axis=1))
    valid = pa.array(~beyond).buffers()[1] if beyond.any() else None
    buffer = pa.py_buffer(np.ascontiguousarray(words, dtype="<u8"))
    return pa.Array.from_buffers(pa.decimal128(38, scale), len(words), [valid, buffer])


def _joined(limbs: Limbs) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The low 128 bits of carried limbs, as two words."""
    low, middle, high = limbs.view(np.uint64)
    return low | (middle << np.uint64(LIMB_BITS)), (middle >> np.uint64(16)) | (high << np.uint64(32))
