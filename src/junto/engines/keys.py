# SPDX-License-Identifier: Apache-2.0
"""Group keys as bytes: equal at two parties exactly when SQL's GROUP BY would put the rows in one group.

A row is its columns one after the other. Each begins with a byte, 0 for NULL or 1; NULL is followed by nothing, or by
zeros where the type has a width:

    BOOLEAN 1, integers 1 to 8, DATE 4, TIME and TIMESTAMP 8 bytes: two's complement, big-endian
    FLOAT 4, DOUBLE 8: IEEE 754, big-endian; -0.0 as 0.0, every NaN as 0x7fc00000 or 0x7ff8000000000000
    DECIMAL and HUGEINT 16: the unscaled integer, two's complement, big-endian
    VARCHAR, UUID and BLOB: length in 4 bytes, big-endian, then UTF-8 or the bytes as they are

Given the types, which the plan fixes, no two rows have one encoding, and no row has two: `decode` refuses any other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from junto.errors import InvalidInput, PeerFault

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Real = TypeVar("Real", np.float32, np.float64)

_LENGTH_BYTES = 4

_FIXED: dict[str, tuple[int, pa.DataType]] = {
    "BOOLEAN": (1, pa.bool_()),
    "TINYINT": (1, pa.int8()),
    "SMALLINT": (2, pa.int16()),
    "INTEGER": (4, pa.int32()),
    "BIGINT": (8, pa.int64()),
    "HUGEINT": (16, pa.decimal128(38, 0)),
    "UTINYINT": (1, pa.uint8()),
    "USMALLINT": (2, pa.uint16()),
    "UINTEGER": (4, pa.uint32()),
    "UBIGINT": (8, pa.uint64()),
    "FLOAT": (4, pa.float32()),
    "DOUBLE": (8, pa.float64()),
    "DATE": (4, pa.date32()),
    "TIME": (8, pa.time64("us")),
    "TIMESTAMP": (8, pa.timestamp("us")),
    "TIMESTAMP_S": (8, pa.timestamp("s")),
    "TIMESTAMP_MS": (8, pa.timestamp("ms")),
    "TIMESTAMP_NS": (8, pa.timestamp("ns")),
    "TIMESTAMP WITH TIME ZONE": (8, pa.timestamp("us", "UTC")),
}
_VARIABLE = {"VARCHAR": pa.string(), "UUID": pa.string(), "BLOB": pa.binary()}


def arrow_type(type: str) -> pa.DataType:
    """The Arrow type in which the engine gives a column of DuckDB's `type`. Raises InvalidInput if no key has it."""
    if type in _FIXED:
        return _FIXED[type][1]
    if type in _VARIABLE:
        return _VARIABLE[type]
    precision, comma, scale = type.removeprefix("DECIMAL(").removesuffix(")").partition(",")
    if type.startswith("DECIMAL(") and comma and precision.isdecimal() and scale.isdecimal():
        return pa.decimal128(int(precision), int(scale))
    raise InvalidInput(f"a column of type {type} cannot be a grouping key: cast it to VARCHAR")


def type_name(arrow: pa.DataType) -> str:
    """A type of DuckDB's whose columns come in that Arrow type. Raises InvalidInput if no key has it."""
    if pa.types.is_decimal128(arrow):
        return f"DECIMAL({arrow.precision},{arrow.scale})"
    plain = {arrow_type(name): name for name in (*_FIXED, *_VARIABLE)}
    if arrow not in plain:
        raise InvalidInput(f"a column that comes as {arrow} has no canonical bytes: cast it to VARCHAR")
    return plain[arrow]


def encode(table: pa.Table | pa.RecordBatch, types: Sequence[str]) -> list[bytes]:
    """Each row's encoding, in order. `types` are DuckDB's, of all columns of the table.

    Raises InvalidInput if the columns are not as many, or of other types.
    """
    joined, ends = _joined(table, types)
    width = int(ends[0]) if ends.size else 0
    if width and joined.size == width * ends.size and np.all(np.diff(ends) == width):
        keys: list[bytes] = joined.view(f"V{width}").tolist()
        return keys
    whole = joined.tobytes()
    return [whole[start:end] for start, end in pairwise((0, *ends.tolist()))]


def encoded_column(table: pa.Table | pa.RecordBatch, types: Sequence[str]) -> pa.LargeBinaryArray:
    """As `encode`, as one Arrow column."""
    joined, ends = _joined(table, types)
    bounds = np.concatenate((np.zeros(1, np.int64), ends))
    return pa.Array.from_buffers(pa.large_binary(), len(ends), [None, pa.py_buffer(bounds), pa.py_buffer(joined)])


def _joined(table: pa.Table | pa.RecordBatch, types: Sequence[str]) -> tuple[Bytes, Places]:
    """The rows' encodings, one after the other, and where each ends."""
    if table.num_columns != len(types):
        raise InvalidInput(f"{table.num_columns} key columns, but {len(types)} types")
    rows = table.num_rows
    columns = [_encoded(table.column(at), type) for at, type in enumerate(types)]
    if not any(column.body.size for column in columns):  # all rows are of one width
        heads = (
            np.concatenate([column.head for column in columns], axis=1) if columns else np.empty((rows, 0), np.uint8)
        )
        return heads.reshape(-1), np.arange(1, rows + 1) * heads.shape[1]
    widths = np.zeros(rows, np.int64)
    for column in columns:
        widths += column.widths
    ends = np.cumsum(widths)
    at = ends - widths
    out = np.zeros(int(ends[-1]) if rows else 0, np.uint8)
    for column in columns:
        out[at[:, None] + np.arange(column.head.shape[1])] = column.head
        if column.body.size:
            out[_spread(at + column.head.shape[1], column.widths - column.head.shape[1])] = column.body
        at += column.widths
    return out, ends


def decode(keys: Iterable[bytes], types: Sequence[str], names: Sequence[str]) -> pa.Table:
    """The rows that were encoded, as a table with the engine's Arrow types. Keys may come from a peer.

    Raises PeerFault if a key is not what `encode` gives for a row of these types.
    """
    keys = list(keys)
    whole = np.frombuffer(b"".join(keys), np.uint8)
    ends = np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)))
    at = np.concatenate((np.zeros(min(1, len(keys)), np.int64), ends[:-1]))
    columns = []
    for type in types:
        column, at = _decoded(whole, at, ends, type)
        columns.append(column)
    if not np.array_equal(at, ends):
        raise PeerFault("a group key is longer than its types say")
    if columns:
        table = pa.table(columns, names=list(names))
    else:  # one group without a key, as of a question for totals
        table = pa.Table.from_struct_array(pa.array([{}] * len(keys), pa.struct([])))
    again, again_ends = _joined(table, types)
    if not (np.array_equal(again_ends, ends) and np.array_equal(again, whole)):
        raise PeerFault("a group key is not in its one spelling")
    return table


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A column: `head`, shape (rows, h), stands before each row's part of `body`; `widths` are of both."""

    head: Bytes
    body: Bytes
    widths: Places


def _encoded(column: pa.Array | pa.ChunkedArray, type: str) -> _Encoded:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    wanted = arrow_type(type)
    if column.type != wanted:
        raise InvalidInput(f"a key column of type {type} came as {column.type}, not {wanted}")
    valid = np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), np.uint8)
    return _variable(column, valid) if type in _VARIABLE else _fixed(column, valid, type)


def _fixed(column: pa.Array, valid: Bytes, type: str) -> _Encoded:
    width = _FIXED[type][0] if type in _FIXED else 16
    rows = len(column)
    if type == "BOOLEAN":
        column = column.cast(pa.uint8())
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * width :][: rows * width]
    if type == "FLOAT":
        data = _one_form(data.view(np.float32), np.float32(0), np.float32(np.nan))
    elif type == "DOUBLE":
        data = _one_form(data.view(np.float64), np.float64(0), np.float64(np.nan))
    head = np.empty((rows, 1 + width), np.uint8)
    head[:, 0] = valid
    head[:, 1:] = data.reshape(rows, width)[:, ::-1]
    head[valid == 0, 1:] = 0
    return _Encoded(head, np.empty(0, np.uint8), np.full(rows, 1 + width, np.int64))


def _one_form(real: NDArray[Real], zero: Real, nan: Real) -> Bytes:
    real = real + zero  # -0.0 + 0.0 is 0.0
    real[np.isnan(real)] = nan
    return real.view(np.uint8)


def _variable(column: pa.Array, valid: Bytes) -> _Encoded:
    rows = len(column)
    column = pc.fill_null(column.cast(pa.large_binary()), b"")
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)[column.offset :][: rows + 1] if rows else np.zeros(1, np.int64)
    lengths = np.diff(bounds)
    if rows and int(lengths.max()) >= 1 << 32:
        raise InvalidInput("a text of 4 GiB or more cannot be a grouping key")
    head = np.empty((rows, 1 + _LENGTH_BYTES), np.uint8)
    head[:, 0] = valid
    head[:, 1:] = lengths.astype(">u4").view(np.uint8).reshape(rows, _LENGTH_BYTES)
    body = np.frombuffer(data or b"", np.uint8)[int(bounds[0]) : int(bounds[-1])]
    return _Encoded(head, body, lengths + head.shape[1])


def _decoded(whole: Bytes, at: Places, ends: Places, type: str) -> tuple[pa.Array, Places]:
    """The column that begins at the places `at`, and the places behind it."""
    wanted = arrow_type(type)
    variable = type in _VARIABLE
    width = _LENGTH_BYTES if variable else _FIXED[type][0] if type in _FIXED else 16
    if np.any(at + 1 + width > ends):
        raise PeerFault("a group key is shorter than its types say")
    head = whole[at[:, None] + np.arange(1 + width)] if len(at) else np.empty((0, 1 + width), np.uint8)
    at = at + 1 + width
    valid = head[:, 0] == 1
    plain = np.ascontiguousarray(head[:, :0:-1])  # little-endian
    rows, nulls = len(valid), int(len(valid) - valid.sum())
    mask = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes()) if nulls else None
    if variable:
        lengths = plain.view("<u4").reshape(rows).astype(np.int64)
        if np.any(at + lengths > ends):
            raise PeerFault("a group key is shorter than its types say")
        bounds = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        body = whole[_spread(at, lengths)]
        buffers = [mask, pa.py_buffer(bounds.tobytes()), pa.py_buffer(body.tobytes())]
        column = pa.Array.from_buffers(pa.large_binary(), rows, buffers, nulls)
        try:
            return column.cast(wanted), at + lengths
        except pa.ArrowException:
            raise PeerFault("a text in a group key is not UTF-8") from None
    data = np.packbits(plain.reshape(rows) == 1, bitorder="little") if type == "BOOLEAN" else plain
    return pa.Array.from_buffers(wanted, rows, [mask, pa.py_buffer(data.tobytes())], nulls), at


def _spread(starts: Places, lengths: Places) -> Places:
    """Every place of the ranges that begin at `starts`: where a contiguous body belongs, or comes from."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
