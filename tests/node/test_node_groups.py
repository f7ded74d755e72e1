# SPDX-License-Identifier: Apache-2.0
"""A fragment's groups on their way into the protocols: keyed, laid out, lined up with the others'."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.engines.base import ArrowSource, TableSource
from junto.engines.keys import type_name
from junto.errors import OutOfMemory, PeerFault, StorageFailed
from junto.node import groups
from junto.node.cache import Cache
from junto.node.declared import Declared
from junto.node.spool import Spool
from junto.plan.guards import Guards, guards
from junto.plan.steps import Measure, Query
from junto.secure.encoding import decode
from junto.secure.groupkeys import PassedKeys, Selection
from junto.types import PartyId, StepId

COUNT = Measure("m0", "sum", "count", "BIGINT")
WHOLE = Measure("m1", "sum", "integer", "DECIMAL(38,2)", 2)
REAL = Measure("m2", "sum", "real", "DOUBLE")
LEAST = Measure("m3", "min", "value", "DATE")
MEASURES = (COUNT, WHOLE, REAL, LEAST)
SQL = (
    'SELECT {keys}COUNT(*) AS "units", COUNT(*) AS "m0", CAST(COALESCE(SUM("t0"."a"), 0) AS DECIMAL(38, 2)) AS "m1",'
    ' COALESCE(FSUM(CAST("t0"."b" AS DOUBLE)), 0) AS "m2", MIN("t0"."c") AS "m3" FROM "d" AS "t0"'
)
OPEN = Guards(("",), {m.name: 0 for m in MEASURES}, ())
"""Guards of a question of which every figure has the group's own."""


def _query(keys: tuple[str, ...] = ("k0",)) -> Query:
    types = ("VARCHAR",) * len(keys)
    return Query(
        StepId("q"),
        PartyId("delta"),
        SQL.format(keys='"t0"."k" AS "k0", ' if keys else ""),
        (),
        keys=keys,
        key_types=types,
        measures=MEASURES,
    )


def declared(table: pa.Table) -> Declared:
    """What a plan would declare of a table's columns."""
    columns = tuple((field.name, type_name(field.type)) for field in table.schema)
    return Declared(StepId("query"), PartyId("east"), columns)


def _table() -> pa.Table:
    return pa.table(
        {
            "k0": ["ewr", None, "jfk"],
            "units": pa.array([30, 2, 11], pa.int64()),
            "m0": pa.array([30, 2, 11], pa.int64()),
            "m1": pa.array([1, 0, -3], pa.int32()),
            "m2": [0.5, 1e-3, -2.25],
            "m3": pa.array([1, 2, None], pa.date32()),
        }
    )


SELECTION = Selection(5, np.array([[True, False, True, True, False]]), np.array([3, 1, 0]))
"""Of a union of five, groups 0, 2 and 3 passed; ours are 3 (ewr), 1 (NULL) and 0 (jfk)."""


def test_groups_are_keyed_and_counted() -> None:
    table = _table()
    for name, column in {"u1": [29, 1, 11], "u2": [28, 0, 10], "u3": [1, 1, 1]}.items():
        table = table.append_column(name, pa.array(column, pa.int64()))
    shares = {"t0": [9.0, 0.0, 3.0], "x0": [1.0, 0.0, 3.0], "t1": [2.5, 0.0, 1.0], "x1": [2.0, 0.0, 1.0]}
    for name, share in shares.items():
        table = table.append_column(name, pa.array(share, pa.float64()))
    counts = groups.counts_of(_query(), table, guards((_query(),)))
    assert len(set(counts.keys)) == 3
    assert counts.units.tolist() == [[30, 2, 11], [29, 1, 11], [28, 0, 10], [1, 1, 1]]
    assert counts.totals.tolist() == [[9.0, 0.0, 3.0], [2.5, 0.0, 1.0]]
    assert counts.largest.tolist() == [[1.0, 0.0, 3.0], [2.0, 0.0, 1.0]]
    assert groups.keys_of(_query(()), _table().slice(0, 1)) == [b""]


def test_measures_stand_in_lanes_one_below_the_other() -> None:
    lanes = groups.lanes(MEASURES, _table())
    assert lanes.shape == (groups.lane_count(MEASURES), 3) == (8, 3)
    assert decode("m0", "count", lanes[:1]).to_pylist() == [30, 2, 11]
    assert [float(v) for v in decode("m1", "integer", lanes[1:4], 2).to_pylist()] == [1.0, 0.0, -3.0]
    assert decode("m2", "real", lanes[4:]).to_pylist() == pytest.approx([0.5, 1e-3, -2.25], abs=2**-60)


def test_without_measures_there_are_no_lanes() -> None:
    assert groups.lanes((LEAST,), _table()).shape == (0, 3)


def test_selected_lanes_stand_in_the_unions_order_with_zero_where_we_have_none() -> None:
    placed = groups.lanes_of(MEASURES, _table(), SELECTION, OPEN)
    assert placed[0].tolist() == [11, 0, 30]


def test_aligned_rows_stand_in_the_unions_order_with_null_where_we_have_none() -> None:
    aligned = groups.aligned(_table().select(["m3", "k0"]), SELECTION, OPEN)
    assert aligned.column("k0").to_pylist() == ["jfk", None, "ewr"]
    assert [None if day is None else day.toordinal() for day in aligned.column("m3").to_pylist()] == [
        None,
        None,
        719164,
    ]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.data())
def test_a_row_lands_where_its_key_does_whatever_passed(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 12))
    passed = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=bool)
    own = data.draw(st.permutations(range(size)))[: data.draw(st.integers(0, size))]
    selection = Selection(size, passed[None], np.array(own, dtype=np.int64))
    table = pa.table({"m0": pa.array(own, pa.int64())})
    expected = [place if place in own else None for place in np.flatnonzero(passed).tolist()]
    assert groups.aligned(table, selection, OPEN).column("m0").to_pylist() == expected
    lanes = groups.lanes_of((COUNT,), table, selection, OPEN)
    assert lanes[0].tolist() == [place or 0 for place in expected]


def test_a_figure_that_did_not_pass_is_nothing_and_what_did_not_pass_is_not_looked_at() -> None:
    found = guards((_query(),))
    cells = np.ones((found.cells, 5), dtype=np.bool_)
    cells[0] = [True, False, True, True, False]
    cells[found.of["m1"], 0] = cells[len(found.counts) + found.sums.index("m2"), 3] = cells[found.of["m3"], 3] = False
    table = _table().set_column(4, "m2", pa.array([1e300, 1e300, 1.0]))  # no lane holds the first two
    selection = Selection(5, cells, SELECTION.positions)
    placed = groups.lanes_of(MEASURES, table, selection, found)
    assert decode("m0", "count", placed[:1]).to_pylist() == [11, 0, 30]
    assert [float(v) for v in decode("m1", "integer", placed[1:4], 2).to_pylist()] == [0.0, 0.0, 1.0]
    assert decode("m2", "real", placed[4:]).to_pylist() == [1.0, 0.0, 0.0]
    assert groups.aligned(table.select(["k0", "m3"]), selection, found).column("m3").to_pylist() == [None, None, None]


def test_no_value_of_a_group_makes_laying_out_fail() -> None:
    table = _table().set_column(4, "m2", pa.array([float("nan"), 1e300, None], pa.float64()))
    lanes = groups.lanes(MEASURES, table)
    assert str(decode("m2", "real", lanes[4:]).to_pylist()) == "[nan, None, 0.0]"


# ── Arrow on the wire and on disk ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("table", [_table(), _table().slice(0, 0), pa.table({"a": pa.chunked_array([[1], [2, 3]])})])
def test_a_table_comes_back_from_its_bytes_wherever_they_lay(tmp_path: Path, table: pa.Table) -> None:
    spool = Spool(tmp_path, bytes(32))
    data = groups.ipc_bytes(table)
    copy = Cache(tmp_path, 1 << 30).put("k", [data])
    for content in (table, spool.write([data]), copy):
        assert groups.read_table(content, spool, declared(table)) == table


def test_pieces_come_a_batch_at_a_time() -> None:
    batches = pa.table({"a": list(range(1000))}).to_batches(100)
    pieces = list(groups.ipc_pieces(batches[0].schema, iter(batches)))
    assert len(pieces) == 11
    assert all(pieces)


def _bad_offsets() -> bytes:
    values = pa.array(["abc", "def"])
    offsets = pa.py_buffer(np.array([0, 900_000, 6], dtype=np.int32))
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, values.buffers()[2]])
    return groups.ipc_bytes(pa.table({"a": broken}))


@pytest.mark.parametrize("data", [b"", b"no arrow", groups.ipc_bytes(_table())[:-20], _bad_offsets()])
def test_bytes_that_are_no_table_are_a_fault_of_whoever_sent_them(tmp_path: Path, data: bytes) -> None:
    spool = Spool(tmp_path, bytes(32))
    with pytest.raises(PeerFault):
        groups.read_table(spool.write([data]), spool, declared(_table()))


def test_a_fragment_reads_tables_copies_and_what_lies_encrypted_and_nothing_else(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes(32))
    said = declared(_table())
    copy = Cache(tmp_path, 1 << 30).put("k", [groups.ipc_bytes(_table())])
    assert isinstance(groups.source_of(_table(), spool, 0, said), TableSource)
    assert groups.source_of(copy, spool, 0, said) == ArrowSource(str(copy.path))
    lying = spool.write([groups.ipc_bytes(_table())])
    source = groups.source_of(lying, spool, lying.bytes, said)
    assert isinstance(source, TableSource)
    assert source.table == _table()
    with pytest.raises(OutOfMemory, match="bytes in memory, where it may use"):
        groups.source_of(lying, spool, lying.bytes - 1, said)
    with pytest.raises(PeerFault):
        groups.source_of(SELECTION, spool, 0, said)


@pytest.mark.parametrize(
    "given",
    [
        pa.table({"'phone'": ["x"]}),
        pa.table({"phone": [1]}),
        pa.table({"Phone": ["x"]}),
        pa.table({"phone": ["x"], "more": [1]}),
        pa.table([["x"], ["y"]], names=["phone", "phone"]),
        pa.table({"phone": pa.array(["x"], pa.large_string())}),
        pa.table(
            [pa.array(["x"])],
            schema=pa.schema([pa.field("phone", pa.string(), metadata={"ARROW:extension:name": "geoarrow.wkt"})]),
        ),
        pa.table({}),
    ],
)
def test_rows_of_other_columns_than_the_plan_declares_are_a_fault_of_whoever_gives_them(
    tmp_path: Path, given: pa.Table
) -> None:
    spool, cache = Spool(tmp_path, bytes(32)), Cache(tmp_path, 1 << 30)
    said = Declared(StepId("copy-0"), PartyId("east"), (("phone", "VARCHAR"),))
    data = groups.ipc_bytes(given)
    copy = cache.put("k", [data])
    for read in (
        lambda: groups.read_table(given, spool, said),
        lambda: groups.source_of(spool.write([data]), spool, len(data), said),
        lambda: groups.source_of(copy, spool, 0, said),
        lambda: groups.check_copy(copy, said),
        lambda: asyncio.run(groups.gathered(_at_once(data), len(data), said)),
    ):
        with pytest.raises(PeerFault, match="copy-0: east gives"):
            read()


async def _at_once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_fingerprints_differ_where_outputs_do() -> None:
    keys = PassedKeys([b"a", b"bc"], False, np.ones((1, 2), dtype=np.bool_))
    outputs = [
        None,
        _table(),
        _table().slice(1),
        SELECTION,
        keys,
        PassedKeys([b"ab", b"c"], False, np.ones((1, 2), dtype=np.bool_)),
        np.zeros((1, 2), dtype=np.uint64),
        np.ones((1, 2), dtype=np.uint64),
    ]
    prints = [groups.fingerprint(output) for output in outputs]
    assert len(set(prints)) == len(prints)
    assert groups.fingerprint(_table()) == prints[1]
    with pytest.raises(TypeError):
        groups.fingerprint("text")


# ── threads ─────────────────────────────────────────────────────────────────────────────────────────


async def _pieces(count: int, taken: list[int], broken: Exception | None = None) -> AsyncIterator[bytes]:
    for number in range(count):
        taken.append(number)
        yield bytes([number])
    if broken is not None:
        raise broken


def _streamed(pieces: AsyncIterator[bytes], keep: Callable[[Iterator[bytes]], bytes]) -> bytes:
    async def run() -> bytes:
        async with asyncio.timeout(10):
            return await groups.write_streamed(pieces, keep)

    return asyncio.run(run())


def test_what_arrives_is_kept_in_order() -> None:
    assert _streamed(_pieces(200, []), b"".join) == bytes(range(200))


@pytest.fixture
def _much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arrival counts as one that is written while it comes."""
    monkeypatch.setattr(groups, "_LITTLE_BYTES", 0)


@pytest.mark.usefixtures("_much")
def test_a_keeper_that_fails_ends_the_arrival_even_with_everything_under_way() -> None:
    taken: list[int] = []

    def full(pieces: Iterator[bytes]) -> bytes:
        next(pieces)
        raise StorageFailed("no space left")

    with pytest.raises(StorageFailed, match="no space left"):
        _streamed(_pieces(250, taken), full)
    assert len(taken) < 100


@pytest.mark.usefixtures("_much")
def test_an_arrival_that_breaks_off_reaches_the_keeper_and_the_caller() -> None:
    kept: list[str] = []

    def keep(pieces: Iterator[bytes]) -> bytes:
        try:
            return b"".join(pieces)
        except PeerFault:
            kept.append("cleaned up")
            raise

    with pytest.raises(PeerFault, match="other bytes"):
        _streamed(_pieces(3, [], PeerFault("other bytes")), keep)
    assert kept == ["cleaned up"]


@pytest.mark.usefixtures("_much")
def test_a_cancelled_arrival_is_cleaned_up_before_the_caller_goes_on() -> None:
    kept: list[str] = []

    def keep(pieces: Iterator[bytes]) -> bytes:
        try:
            return b"".join(pieces)
        finally:
            kept.append("cleaned up")

    async def forever() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x"
        await asyncio.get_running_loop().create_future()

    async def run() -> None:
        job = asyncio.create_task(groups.write_streamed(forever(), keep))
        while not kept and not job.done():
            await asyncio.sleep(0)
            job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    asyncio.run(run())
    assert kept == ["cleaned up"]


def test_cancelling_blocking_work_stops_it_and_waits_for_its_end() -> None:
    ended: list[bool] = []

    async def run() -> None:
        begun = threading.Event()

        def work(stop: threading.Event) -> None:
            begun.set()
            ended.append(stop.wait(10))

        job = asyncio.create_task(groups.in_thread(work))
        await asyncio.to_thread(begun.wait, 10)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert ended == [True]

    asyncio.run(run())


def test_what_blocking_work_gives_or_raises_comes_back() -> None:
    assert asyncio.run(groups.in_thread(lambda stop: stop.is_set())) is False

    def fails(stop: threading.Event) -> None:
        raise StorageFailed("no space left")

    with pytest.raises(StorageFailed):
        asyncio.run(groups.in_thread(fails))


def test_arrivals_that_wait_for_other_parties_leave_the_threads_of_the_pool_free() -> None:
    async def claim() -> None:
        come = asyncio.Event()

        async def late() -> AsyncIterator[bytes]:
            await come.wait()
            yield b"rows"

        arrivals = [asyncio.create_task(groups.write_streamed(late(), b"".join)) for _ in range(64)]
        async with asyncio.timeout(10):
            assert await asyncio.gather(*(asyncio.to_thread(lambda: 1) for _ in range(64))) == [1] * 64
            come.set()
            assert await asyncio.gather(*arrivals) == [b"rows"] * 64

    asyncio.run(claim())
