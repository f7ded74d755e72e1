# SPDX-License-Identifier: Apache-2.0
"""Group keys as bytes: what GROUP BY puts together is equal, all else differs, and all of it comes back."""

import datetime
import math
import struct
import threading
import uuid
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.engines.base import Limits, TableSource
from junto.engines.duckdb import DuckDB
from junto.engines.keys import arrow_type, decode, encode
from junto.errors import InvalidInput, PeerFault

HUGE = st.integers(-(10**38) + 1, 10**38 - 1)
NAIVE = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31))


def whole(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


VALUES: dict[str, st.SearchStrategy[object]] = {
    "BOOLEAN": st.booleans(),
    "TINYINT": whole(8),
    "SMALLINT": whole(16),
    "INTEGER": whole(32),
    "BIGINT": whole(64),
    "HUGEINT": HUGE.map(Decimal),
    "UTINYINT": whole(8, signed=False),
    "USMALLINT": whole(16, signed=False),
    "UINTEGER": whole(32, signed=False),
    "UBIGINT": whole(64, signed=False),
    "FLOAT": st.floats(width=32),
    "DOUBLE": st.floats(),
    "DECIMAL(12,2)": st.integers(-(10**12) + 1, 10**12 - 1).map(lambda n: Decimal(n) / 100),
    "VARCHAR": st.text(max_size=12),
    "UUID": st.uuids().map(str),
    "BLOB": st.binary(max_size=12),
    "DATE": st.dates(),
    "TIME": st.times(),
    "TIMESTAMP": NAIVE,
    "TIMESTAMP_S": NAIVE.map(lambda t: t.replace(microsecond=0)),
    "TIMESTAMP_MS": NAIVE.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    "TIMESTAMP_NS": st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)),
    "TIMESTAMP WITH TIME ZONE": NAIVE.map(lambda t: t.replace(tzinfo=datetime.UTC)),
}


def canonical(value: object) -> object:
    """What stands for a value's group: NaN and zero have one form each, and a bool is no number."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    return value


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, list[str]]:
    types = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*(st.none() | VALUES[type] for type in types)), max_size=8))
    columns = [pa.array([row[at] for row in rows], arrow_type(type)) for at, type in enumerate(types)]
    return pa.table(columns, names=[f"k{at}" for at in range(len(types))]), types


@given(tables())
@settings(derandomize=True, max_examples=200, deadline=None)
def test_every_row_comes_back_and_only_equal_rows_are_equal(drawn: tuple[pa.Table, list[str]]) -> None:
    table, types = drawn
    keys = encode(table, types)
    back = decode(keys, types, table.column_names)
    assert back.schema == table.schema
    rows = [tuple(canonical(value) for value in row.values()) for row in table.to_pylist()]
    assert [tuple(canonical(value) for value in row.values()) for row in back.to_pylist()] == rows
    assert len(set(keys)) == len(set(rows))
    assert encode(table.slice(1), types) == keys[1:]


@given(st.lists(st.binary(max_size=24), max_size=4), st.lists(st.sampled_from(sorted(VALUES)), max_size=3))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_arbitrary_bytes_are_a_row_in_its_one_spelling_or_refused(keys: list[bytes], types: list[str]) -> None:
    try:
        table = decode(keys, types, [f"k{at}" for at in range(len(types))])
    except PeerFault:
        return
    assert encode(table, types) == keys


def test_duckdb_groups_as_the_encoding_does(tmp_path: Path) -> None:
    nan = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000001))[0]
    table = pa.table(
        {
            "r": pa.array([0.0, -0.0, math.nan, nan, None, None, math.inf, -math.inf, 1.0, 1.0]),
            "t": pa.array(["a", "a", "", "", "", "", "A", "a ", "é", "e\u0301"]),
        }
    )
    engine = DuckDB()
    limits = Limits(64 << 20, 1, tmp_path)
    sql = "SELECT r, t, count(*) AS n FROM x GROUP BY r, t"
    with engine.run(sql, {"x": TableSource(table)}, limits, threading.Event()) as rows:
        groups = rows.table()
    engine.close()
    keys = encode(table, ["DOUBLE", "VARCHAR"])
    assert groups.num_rows == len(set(keys))
    assert set(encode(groups.select(["r", "t"]), ["DOUBLE", "VARCHAR"])) == set(keys)


def test_the_encoding_is_the_one_written_down() -> None:
    table = pa.table(
        {
            "a": pa.array([-2, None], pa.int32()),
            "b": pa.array(["né", None]),
            "c": pa.array([Decimal("1.50"), None], pa.decimal128(4, 2)),
            "d": pa.array([True, None]),
        }
    )
    first, second = encode(table, ["INTEGER", "VARCHAR", "DECIMAL(4,2)", "BOOLEAN"])
    assert first.hex(" ") == "01 ff ff ff fe 01 00 00 00 03 6e c3 a9 01" + " 00" * 15 + " 96 01 01"
    assert second == bytes(5 + 5 + 17 + 2)


def test_no_columns_and_no_rows_are_fine() -> None:
    assert encode(pa.table({"a": pa.array([], pa.string())}), ["VARCHAR"]) == []
    assert decode([], ["VARCHAR", "BOOLEAN"], ["a", "b"]).schema.types == [pa.string(), pa.bool_()]
    totals = decode([b""], [], [])
    assert (totals.num_columns, totals.num_rows, encode(totals, [])) == (0, 1, [b""])


def test_columns_in_chunks_and_slices_are_as_whole_ones() -> None:
    array = pa.array(["a", None, "ccc", "dd"])
    keys = encode(pa.table({"a": array}), ["VARCHAR"])
    assert encode(pa.table({"a": pa.chunked_array([array[:1], array[1:]])}), ["VARCHAR"]) == keys
    assert encode(pa.table({"a": array[1:3]}), ["VARCHAR"]) == keys[1:3]


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\x01\x00\x00\x00\x01",
        b"\x02\x00\x00\x00\x01a",
        b"\x00\x00\x00\x00\x01a",
        b"\x01\x00\x00\x00\x01\xff",
        b"\x01\xff\xff\xff\xffa",
        b"\x01\x00\x00\x00\x01ab",
    ],
)
def test_a_key_that_no_row_encodes_to_is_refused(key: bytes) -> None:
    with pytest.raises(PeerFault, match="a group key"):
        decode([b"\x01\x00\x00\x00\x01a", key], ["VARCHAR"], ["a"])


def test_a_type_that_is_no_key_or_not_the_columns_own_is_refused() -> None:
    with pytest.raises(InvalidInput, match="INTERVAL cannot be a grouping key"):
        arrow_type("INTERVAL")
    with pytest.raises(InvalidInput, match="BIGINT came as int32"):
        encode(pa.table({"a": pa.array([1], pa.int32())}), ["BIGINT"])
    with pytest.raises(InvalidInput, match="1 key columns, but 2 types"):
        encode(pa.table({"a": pa.array([1])}), ["BIGINT", "BIGINT"])
    assert arrow_type("UUID") == pa.array([str(uuid.UUID(int=1))]).type
