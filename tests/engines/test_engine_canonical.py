# SPDX-License-Identifier: Apache-2.0
"""A table has one digest, whoever computed it and in whatever order its rows came."""

import math
import random
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from junto.engines.base import Limits, TableSource
from junto.engines.canonical import rows_digest
from junto.engines.duckdb import DuckDB
from junto.errors import InvalidInput
from junto.types import Digest

NAMES, TYPES = ("k", "v", "x"), ("VARCHAR", "INTEGER", "DOUBLE")
ROWS = [("JFK", 1, 0.1), ("LGA", None, -1.5), (None, 3, None), ("JFK", 1, 0.1), ("", 0, 1e300)]


def batch(rows: list[tuple[str | None, int | None, float | None]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    types = (pa.string(), pa.int32(), pa.float64())
    return pa.record_batch([pa.array(list(c), t) for c, t in zip(columns, types, strict=True)], names=list(NAMES))


def digest(*batches: list[tuple[str | None, int | None, float | None]], ordered: bool = False) -> Digest:
    return rows_digest([batch(rows) for rows in batches], NAMES, TYPES, ordered=ordered)


def test_the_order_of_rows_and_how_they_are_cut_do_not_count() -> None:
    shuffled = ROWS[:]
    random.Random(1).shuffle(shuffled)
    assert digest(ROWS) == digest(shuffled) == digest(shuffled[:2], [], shuffled[2:])


def test_the_order_counts_where_it_was_asked_for() -> None:
    assert digest(ROWS, ordered=True) == digest(ROWS[:3], ROWS[3:], ordered=True)
    assert digest(ROWS, ordered=True) != digest(ROWS[::-1], ordered=True)
    assert digest([], ordered=True) != digest([])


@pytest.mark.parametrize(
    "other",
    [
        ROWS[:-1],
        [*ROWS, ROWS[0]],
        [*ROWS[:-1], ("", 0, math.nextafter(1e300, 0))],
        [*ROWS[:-1], (None, 0, 1e300)],
        [*ROWS[:-1], ("", None, 1e300)],
        [("LGA", 1, 0.1), ("JFK", None, -1.5), *ROWS[2:]],
    ],
)
def test_any_other_rows_have_another_digest(other: list[tuple[str | None, int | None, float | None]]) -> None:
    assert digest(ROWS) != digest(other)


def test_zeros_and_not_numbers_that_sql_does_not_tell_apart_are_the_same() -> None:
    assert digest([("a", 1, 0.0), ("b", 1, math.nan)]) == digest([("a", 1, -0.0), ("b", 1, -math.nan)])


def test_names_and_types_of_columns_count() -> None:
    one = pa.record_batch([pa.array([1, 2], pa.int32())], names=["a"])
    wide = pa.record_batch([pa.array([1, 2], pa.int64())], names=["a"])
    assert rows_digest([one], ("a",), ("INTEGER",)) != rows_digest([one], ("b",), ("INTEGER",))
    assert rows_digest([one], ("a",), ("INTEGER",)) != rows_digest([wide], ("a",), ("BIGINT",))


def test_the_digest_of_a_table_never_changes() -> None:
    """Other implementations and later versions come to these; a change of them is a change of the format."""
    assert digest(ROWS) == "sha256:1a08abd8ad8241595020a3e190f55f2accfbbd23a0903389736d72651da00781"
    assert digest(ROWS, ordered=True) == "sha256:8763cac6754037f55eba3af033034ef7eefcfacb3506f6ad40279cdc0be2c1b5"


@pytest.mark.parametrize("type_", ["INTEGER[]", "STRUCT(a INTEGER)", "INTERVAL", "MAP(VARCHAR, INTEGER)"])
def test_a_type_without_canonical_bytes_is_named(type_: str) -> None:
    with pytest.raises(InvalidInput, match=r"column a of type .* cast it to VARCHAR"):
        rows_digest([], ("a",), (type_,))


def test_rows_of_other_types_than_said_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not int64"):
        rows_digest([batch(ROWS)], NAMES, ("VARCHAR", "BIGINT", "DOUBLE"))
    with pytest.raises(InvalidInput, match="3 columns have 1 types"):
        rows_digest([], NAMES, ("VARCHAR",))


def test_a_sum_of_reals_on_one_thread_is_the_same_to_the_bit(tmp_path: Path) -> None:
    rng = random.Random(7)
    rows = 300_000
    table = pa.table({"k": [i % 50 for i in range(rows)], "x": [rng.uniform(-1e12, 1e12) for _ in range(rows)]})
    sql = "SELECT k, SUM(x) AS s, AVG(x) AS a, STDDEV(x) AS d FROM t GROUP BY k"
    found = set()
    for _ in range(4):
        engine = DuckDB()
        limits = Limits(1 << 28, 1, tmp_path)
        with engine.run(sql, {"t": TableSource(table)}, limits, threading.Event()) as answer:
            found.add(rows_digest(iter(answer), ("k", "s", "a", "d"), ("BIGINT", "DOUBLE", "DOUBLE", "DOUBLE")))
        engine.close()
    assert len(found) == 1
