# SPDX-License-Identifier: Apache-2.0
"""The least or the greatest of the parties' values, group by group, in DuckDB's order: NaN is above every number."""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc


def extreme(combine: Literal["min", "max"], columns: Sequence[pa.Array]) -> pa.Array:
    """The least or greatest of some columns of one type and length, element by element; NULL where all are.

    Raises pa.ArrowException for columns of different types, and for a type whose values Arrow does not compare.
    """
    found, *others = columns
    for other in others:
        found = pc.if_else(_replaces(combine, other, found), other, found)
    return found


def _replaces(combine: Literal["min", "max"], value: pa.Array, held: pa.Array) -> pa.Array:
    """True where a value takes the place of the one held."""
    if value.type != held.type:
        raise pa.ArrowTypeError(f"{value.type} and {held.type} do not compare")
    before = (pc.greater if combine == "max" else pc.less)(value, held)
    if pa.types.is_floating(value.type):
        before = pc.or_(before, pc.is_nan(value if combine == "max" else held))
    missing = held.is_null()
    return pc.or_kleene(missing, pc.fill_null(before, False))
