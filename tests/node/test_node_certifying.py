# SPDX-License-Identifier: Apache-2.0
"""Two results of one fragment have one digest exactly when their rows are alike, however they came and lie."""

from pathlib import Path

import pyarrow as pa

from junto.engines.keys import arrow_type, type_name
from junto.node.certifying import digest_of_fragment
from junto.node.groups import ipc_pieces
from junto.node.spool import Spool, Spooled
from junto.plan.steps import Query
from junto.types import Digest, PartyId, StepId

_GROUPS = pa.table({"k": ["a", "b", None], "units": pa.array([3, 4, 5], pa.int64()), "s": [0.5, float("nan"), -0.0]})
_QUERY = Query(StepId("q"), PartyId("bea"), "SELECT k, COUNT(*) AS units, SUM(v) AS s FROM t GROUP BY k", ())
_ORDERED = Query(StepId("q"), PartyId("bea"), "SELECT k FROM t ORDER BY k", ())


def _spool(folder: Path) -> Spool:
    return Spool(folder, bytes(32))


def _digest(table: pa.Table, folder: Path, query: Query = _QUERY) -> Digest:
    return digest_of_fragment(query, table, _spool(folder))


def _written(table: pa.Table, spool: Spool, rows: int) -> Spooled:
    return spool.write(ipc_pieces(table.schema, iter(table.to_batches(max_chunksize=rows))))


def test_order_and_cuts_do_not_count_and_one_value_does(tmp_path: Path) -> None:
    assert _digest(_GROUPS, tmp_path) == _digest(_GROUPS.take([2, 0, 1]), tmp_path)
    more = _GROUPS.set_column(1, "units", pa.array([3, 4, 6], pa.int64()))
    assert _digest(more, tmp_path) != _digest(_GROUPS, tmp_path)


def test_the_order_counts_where_the_fragment_says_so(tmp_path: Path) -> None:
    rows = pa.table({"k": ["a", "b"]})
    assert _digest(rows, tmp_path, _ORDERED) != _digest(rows.take([1, 0]), tmp_path, _ORDERED)


def test_rows_on_disk_are_the_rows_in_memory_and_none_are_none_however_they_are_cut(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    for table in (_GROUPS, _GROUPS.slice(0, 0), pa.Table.from_batches([], _GROUPS.schema)):
        kept = _written(table, spool, 2)
        assert digest_of_fragment(_QUERY, kept, spool) == _digest(table, tmp_path)
    none = pa.Table.from_batches([], _GROUPS.schema)
    assert _digest(none, tmp_path) == _digest(_GROUPS.slice(0, 0), tmp_path) != _digest(_GROUPS, tmp_path)


def test_every_arrow_type_of_a_key_has_a_name_that_stands_for_it() -> None:
    for name in (
        "BOOLEAN",
        "BIGINT",
        "DOUBLE",
        "DATE",
        "TIMESTAMP WITH TIME ZONE",
        "DECIMAL(18,3)",
        "VARCHAR",
        "HUGEINT",
    ):
        assert arrow_type(type_name(arrow_type(name))) == arrow_type(name)
