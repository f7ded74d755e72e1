# SPDX-License-Identifier: Apache-2.0
"""The answer at its receiver: from sums alone, with its own groups, from its own alone, and from moved rows."""

import asyncio
import datetime as dt
import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from junto.engines import keys as key_bytes
from junto.engines.base import Limits, TableSource
from junto.engines.duckdb import DuckDB
from junto.errors import FragmentFailed, JuntoError, PeerFault
from junto.node import groups
from junto.node.answer import SALT, Inputs, release
from junto.node.spool import Spool, Spooled
from junto.plan.guards import further_columns, guards
from junto.plan.steps import AnyStep, Deviation, MaskedSum, Measure, Move, Plan, Query, Release, Threshold
from junto.secure import spreads
from junto.secure.groupkeys import PassedKeys
from junto.types import HIDDEN, OWN_LEFT_OUT, PartyId, StepId, Withheld

BTS, DELTA, UNITED = PartyId("bts"), PartyId("delta"), PartyId("united")
COUNT = Measure("m0", "sum", "count", "BIGINT")
SUM = Measure("m1", "sum", "integer", "DECIMAL(38,2)", 2)
REAL = Measure("m2", "sum", "real", "DOUBLE")
SPREAD = Measure("m3", "sum", "spread", "DOUBLE")
LEAST = Measure("m4", "min", "value", "DATE")
MOST = Measure("m5", "max", "value", "DATE")
MEASURES = (COUNT, SUM, REAL, SPREAD, LEAST, MOST)
SQL = "SELECT k0, m0, m1, m4, m5 FROM released ORDER BY k0 NULLS LAST"
FRAGMENT = (
    'SELECT {keys}COUNT(*) AS "units", COUNT(*) AS "m0", CAST(COALESCE(SUM("t0"."a"), 0) AS DECIMAL(38, 2)) AS "m1",'
    ' COALESCE(FSUM(CAST("t0"."b" AS DOUBLE)), 0) AS "m2", COALESCE(FSPREAD(CAST("t0"."b" AS DOUBLE)), 0) AS "m3",'
    ' MIN("t0"."c") AS "m4", MAX("t0"."c") AS "m5" FROM "d" AS "t0"'
)
SPREAD_TYPE = pa.struct([(name, pa.int64() if name == "n" else pa.float64()) for name in spreads.FIELDS])
DAY = dt.date(2013, 1, 1)


def _day(number: int | None) -> dt.date | None:
    return None if number is None else DAY + dt.timedelta(days=number)


def _groups(rows: dict[str | None, tuple[int, Any, float, int | None]]) -> pa.Table:
    """Groups as a fragment gives them: key → (units, sum, value whose square is summed too, day)."""
    reals = [row[2] for row in rows.values()]
    days = pa.array([_day(row[3]) for row in rows.values()], pa.date32())
    types = {"BIGINT": pa.int64(), "DOUBLE": pa.float64()}
    further = {name: pa.array([0] * len(rows), types[type_]) for name, type_ in further_columns(_query(DELTA))}
    return pa.table(
        {
            "k0": pa.array(list(rows), pa.string()),
            "units": pa.array([row[0] for row in rows.values()], pa.int64()),
            "m0": pa.array([row[0] for row in rows.values()], pa.int64()),
            "m1": pa.array([row[1] or Decimal(0) for row in rows.values()], pa.decimal128(38, 2)),
            "m2": pa.array(reals, pa.float64()),
            "m3": pa.array([_spread(row[0], row[2]) for row in rows.values()], SPREAD_TYPE),
            "m4": days,
            "m5": days,
            **further,
        }
    )


def _spread(units: int, real: float) -> dict[str, float | None]:
    """What an engine gives of a group whose values add up to `real`, and their squares to its square."""
    if not units:
        return {"c": None, "n": 0, "t": None, "q": None, "z": None}
    return {"c": real / units, "n": units, "t": 0.0, "q": real * real - real * real / units, "z": abs(real)}


def _query(party: PartyId, keys: tuple[str, ...] | None = ("k0",)) -> Query:
    types = ("VARCHAR",) * len(keys or ())
    sql = FRAGMENT.format(keys='"t0"."k" AS "k0", ' if keys else "")
    return Query(StepId(f"q-{party}"), party, sql, (), keys=keys, key_types=types, measures=MEASURES)


def _plan(keys: tuple[str, ...] | None = ("k0",), *, own: bool = True, others: bool = True, sql: str = SQL) -> Plan:
    t, s = StepId("t"), StepId("s")
    owners = (DELTA, UNITED)
    inputs = tuple(StepId(f"q-{party}") for party in owners)
    joint: tuple[AnyStep, ...] = (
        Threshold(t, inputs, owners, BTS, (BTS, *owners), 10),
        MaskedSum(s, t, inputs, owners, BTS, MEASURES[:4]),
        *(Move(StepId(f"move-{p}"), StepId(f"q-{p}"), p, (BTS,), ("m4", "m5"), t) for p in owners),
    )
    last = Release(
        StepId("r"),
        BTS,
        sql,
        own=StepId("q-bts") if own else None,
        threshold=t if others else None,
        sums=s if others else None,
        moves=tuple(StepId(f"move-{p}") for p in owners) if others else (),
        deviations=(Deviation("d0", "m0", "m3", "m3"),),
    )
    queries = [_query(party, keys) for party in ((*owners, BTS) if own else owners)]
    return Plan("", BTS, (*queries, *(joint if others else ()), last))


def _rows(columns: Sequence[tuple[str, str]], sql: str, movers: Sequence[PartyId] = ()) -> Plan:
    """A question for rows: the receiver's own, and those of the movers."""
    names, types = tuple(name for name, _ in columns), tuple(type for _, type in columns)
    queries = [
        Query(StepId(f"q-{party}"), party, "", (), columns=names, column_types=types) for party in (*movers, BTS)
    ]
    moves = [Move(StepId(f"move-{party}"), StepId(f"q-{party}"), party, (BTS,), names) for party in movers]
    last = Release(StepId("r"), BTS, sql, own=StepId("q-bts"), moves=tuple(move.id for move in moves))
    return Plan("", BTS, (*queries, *moves, last))


GUARDS = guards((_query(DELTA),))


class _Receiver:
    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder, bytes(32))
        self.limits = Limits(300_000_000, 1, folder)

    def answer(self, inputs: Inputs) -> tuple[pa.Table, Withheld]:
        engine = DuckDB()
        try:
            answered = asyncio.run(
                release(engine, self.spool, self.limits, inputs, os.urandom, lambda data: self.spool.write([data]))
            )
        finally:
            engine.close()
        assert isinstance(answered.result, Spooled)
        data = b"".join(self.spool.read(answered.result))
        assert answered.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
        assert len(table.schema.metadata[SALT]) == 64
        assert answered.rows == table.num_rows
        return table, answered.withheld


@pytest.fixture
def receiver(tmp_path: Path) -> _Receiver:
    return _Receiver(tmp_path)


def _keys(values: Sequence[str | None], some: bool) -> PassedKeys:
    table = pa.table({"k0": pa.array(values, pa.string())})
    return PassedKeys(key_bytes.encode(table, ("VARCHAR",)), some, np.ones((GUARDS.cells, len(values)), dtype=np.bool_))


def _lanes(table: pa.Table) -> Any:
    return groups.lanes(MEASURES, table)


def _joint(plan: Plan, passed: Sequence[str | None], owned: Sequence[pa.Table], own: pa.Table | None = None) -> Inputs:
    """What reaches the receiver of owners' tables that hold the groups that passed, in that order."""
    release_step = plan.steps[-1]
    assert isinstance(release_step, Release)
    sums = sum(
        (_lanes(table) for table in owned), np.zeros((groups.lane_count(MEASURES), len(passed)), dtype=np.uint64)
    )
    moves = [table.select(["m4", "m5"]) for table in owned]
    return Inputs(plan, release_step, own, _keys(passed, True), sums, moves)


OWNED = [
    _groups({"lga": (7, Decimal("1.50"), 1e9, 3), "ewr": (5, Decimal("-2.00"), 1e9, None), None: (9, None, 0.0, 5)}),
    _groups({"lga": (8, Decimal("0.25"), 1e9 + 1, 1), "ewr": (0, None, 0.0, None), None: (3, Decimal(1), 0.0, 9)}),
]
PASSED = ("lga", "ewr", None)


def test_a_figure_whose_own_threshold_did_not_pass_is_null_with_what_rests_on_it(receiver: _Receiver) -> None:
    own = _groups({"lga": (6, Decimal("2.00"), 7.0, 2)})
    inputs = _joint(_plan(sql="SELECT k0, m0, m1, m2, m4, d0 FROM released ORDER BY k0 NULLS LAST"), PASSED, OWNED, own)
    assert inputs.keys is not None
    cells = inputs.keys.cells.copy()
    cells[GUARDS.of["m1"], 0] = cells[GUARDS.of["m4"], 1] = False
    cells[len(GUARDS.counts) + GUARDS.sums.index("m3"), 2] = False
    inputs = replace(inputs, keys=replace(inputs.keys, cells=cells))
    table, _ = receiver.answer(inputs)
    ewr, lga, none = table.to_pylist()
    assert (lga["m1"], lga["m0"], lga["m4"] is None) == (None, 21, False)
    assert (ewr["m1"] is None, ewr["m4"]) == (False, None)
    assert (none["d0"], none["m2"]) == (None, 0.0)
    assert table.schema.metadata[HIDDEN] == b"3"


def test_sums_and_extremes_of_the_groups_that_passed_are_released(receiver: _Receiver) -> None:
    table, withheld = receiver.answer(_joint(_plan(own=False), PASSED, OWNED))
    assert withheld == "some"
    assert table.to_pylist() == [
        {"k0": "ewr", "m0": 5, "m1": Decimal("-2.00"), "m4": None, "m5": None},
        {"k0": "lga", "m0": 15, "m1": Decimal("1.75"), "m4": _day(1), "m5": _day(3)},
        {"k0": None, "m0": 12, "m1": Decimal("1.00"), "m4": _day(5), "m5": _day(9)},
    ]


def test_our_own_groups_are_added_where_they_passed_and_left_out_where_not(receiver: _Receiver) -> None:
    own = _groups({"jfk": (99, Decimal(5), 0.0, 0), None: (1, Decimal("0.10"), 0.0, 0), "ewr": (2, None, 0.0, 7)})
    table, _ = receiver.answer(_joint(_plan(), PASSED, OWNED, own))
    assert table.to_pylist() == [
        {"k0": "ewr", "m0": 7, "m1": Decimal("-2.00"), "m4": _day(7), "m5": _day(7)},
        {"k0": "lga", "m0": 15, "m1": Decimal("1.75"), "m4": _day(1), "m5": _day(3)},
        {"k0": None, "m0": 13, "m1": Decimal("1.10"), "m4": _day(0), "m5": _day(9)},
    ]


def test_deviations_survive_a_mean_far_from_zero(receiver: _Receiver) -> None:
    plan = _plan(own=False, sql="SELECT d0 FROM released")
    rows = [_groups({"lga": (1, None, value, None)}) for value in (1e18, 1e18 + 128)]  # floats cannot hold ss
    table, _ = receiver.answer(_joint(plan, ["lga"], rows))
    assert table.to_pylist() == [{"d0": 128.0**2 / 2}]


def test_without_others_our_own_groups_are_all_there_is(receiver: _Receiver) -> None:
    plan = _plan(others=False, sql="SELECT k0, m0, m4, d0 FROM released ORDER BY k0")
    step = plan.steps[-1]
    assert isinstance(step, Release)
    own = _groups({"lga": (2, None, 3.0, 4), "ewr": (1, None, 1.0, None)})
    table, withheld = receiver.answer(Inputs(plan, step, own, None, None, []))
    assert withheld == "none"
    assert [row["k0"] for row in table.to_pylist()] == ["ewr", "lga"]
    assert table.column("m4").to_pylist() == [None, _day(4)]


def test_a_question_without_groups_has_one_row_if_it_passed(receiver: _Receiver) -> None:
    plan = _plan((), own=False, sql="SELECT m0, m1 FROM released")
    step = plan.steps[-1]
    assert isinstance(step, Release)
    one = _groups({"all": (30, Decimal(3), 0.0, 1)})
    inputs = Inputs(
        plan,
        step,
        None,
        PassedKeys([b""], False, np.ones((GUARDS.cells, 1), dtype=np.bool_)),
        _lanes(one),
        [one.select(["m4", "m5"])] * 2,
    )
    assert receiver.answer(inputs)[0].to_pylist() == [{"m0": 30, "m1": Decimal(3)}]


def test_a_question_without_groups_adds_our_own_row(receiver: _Receiver) -> None:
    plan = _plan((), sql="SELECT m0, m5 FROM released")
    step = plan.steps[-1]
    assert isinstance(step, Release)
    one = _groups({"all": (30, Decimal(3), 0.0, 1)})
    own = _groups({"all": (4, Decimal(3), 0.0, 8)}).drop_columns(["k0"])
    inputs = Inputs(
        plan,
        step,
        own,
        PassedKeys([b""], False, np.ones((GUARDS.cells, 1), dtype=np.bool_)),
        _lanes(one),
        [one.select(["m4", "m5"])] * 2,
    )
    assert receiver.answer(inputs)[0].to_pylist() == [{"m0": 34, "m5": _day(8)}]


@pytest.mark.parametrize("own", [None, _groups({"jfk": (99, Decimal(5), 0.0, 0)}), _groups({})])
@pytest.mark.parametrize("some", [False, True])
def test_if_nothing_passed_the_answer_is_empty_and_says_that_much_was_withheld_or_nothing(
    receiver: _Receiver, own: pa.Table | None, some: bool
) -> None:
    inputs = _joint(_plan(own=own is not None), [], [_groups({}), _groups({})], own)
    empty = Inputs(inputs.plan, inputs.step, own, _keys([], some), inputs.sums, inputs.moves)
    table, withheld = receiver.answer(empty)
    assert (table.num_rows, withheld) == (0, "some" if some else "unknown")
    assert int(table.schema.metadata[OWN_LEFT_OUT]) == (own.num_rows if own is not None else 0)
    assert table.column_names == ["k0", "m0", "m1", "m4", "m5"]


def test_the_same_answer_twice_has_two_digests(receiver: _Receiver) -> None:
    engine = DuckDB()
    inputs = _joint(_plan(own=False), PASSED, OWNED)
    one, other = (
        asyncio.run(
            release(
                engine, receiver.spool, receiver.limits, inputs, os.urandom, lambda data: receiver.spool.write([data])
            )
        )
        for _ in range(2)
    )
    engine.close()
    assert one.digest != other.digest


def test_rows_are_put_one_below_the_other(receiver: _Receiver) -> None:
    plan = _rows([("a", "BIGINT")], "SELECT a FROM released ORDER BY a", (DELTA, UNITED))
    step = plan.steps[-1]
    assert isinstance(step, Release)
    moves = [pa.table({"a": [3, 1]}), receiver.spool.write([groups.ipc_bytes(pa.table({"a": [2]}))])]
    inputs = Inputs(plan, step, pa.table({"a": [0]}), None, None, moves)
    assert receiver.answer(inputs)[0].column("a").to_pylist() == [0, 1, 2, 3]


PLAIN = 'SELECT "c0" AS "id", "c1" AS "a ""b""" FROM "released" ORDER BY "c0", "c1"'
ROWS = pa.table({
    "c0": pa.array([2.0, None, float("nan"), -1.5, 2.0, None]),
    "c1": pa.array(["b", "é", None, "", "a", "Z"]),
})  # fmt: skip


@pytest.mark.parametrize(
    "sql",
    [
        PLAIN,
        PLAIN.replace('"c0", "c1"', '"c1", "c0"'),
        'SELECT "c1" AS "c0", "c0" AS "c1" FROM "released" ORDER BY "c0", "c1"',
    ],
)
def test_a_plain_answer_is_what_the_engine_would_give(receiver: _Receiver, sql: str) -> None:
    plan = _rows([("c0", "DOUBLE"), ("c1", "VARCHAR")], sql)
    step = plan.steps[-1]
    assert isinstance(step, Release)
    table = receiver.answer(Inputs(plan, step, ROWS, None, None, []))[0]
    engine = DuckDB()
    with engine.run(sql, {"released": TableSource(ROWS)}, receiver.limits, threading.Event()) as rows:
        wanted = rows.table()
    engine.close()
    assert table.schema.names == wanted.schema.names
    assert table.schema.types == wanted.schema.types
    assert repr(table.to_pylist()) == repr(wanted.to_pylist())


def test_few_plain_rows_need_no_engine(receiver: _Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _rows([("c0", "DOUBLE"), ("c1", "VARCHAR")], PLAIN)
    step = plan.steps[-1]
    assert isinstance(step, Release)
    monkeypatch.delattr(DuckDB, "run")
    assert receiver.answer(Inputs(plan, step, ROWS, None, None, []))[0].num_rows == ROWS.num_rows


# ── what others get wrong ───────────────────────────────────────────────────────────────────────────


def _refused(receiver: _Receiver, inputs: Inputs, error: type[JuntoError], says: str) -> None:
    with pytest.raises(error, match=says) as refusal:
        receiver.answer(inputs)
    assert "\n" not in str(refusal.value)


def test_extremes_for_another_number_of_groups_are_a_fault(receiver: _Receiver) -> None:
    inputs = _joint(_plan(own=False), PASSED, OWNED)
    moves = [inputs.moves[0], OWNED[1].select(["m4", "m5"]).slice(1)]
    short = Inputs(inputs.plan, inputs.step, None, inputs.keys, inputs.sums, moves)
    _refused(receiver, short, PeerFault, "m4 for another number of groups than the 3")


def test_extremes_of_another_type_are_a_fault(receiver: _Receiver) -> None:
    inputs = _joint(_plan(own=False), PASSED, OWNED)
    odd = pa.table({"m4": ["a", "b", "c"], "m5": ["a", "b", "c"]})
    moves = [inputs.moves[0], odd]
    _refused(receiver, Inputs(inputs.plan, inputs.step, None, inputs.keys, inputs.sums, moves), PeerFault, "m4")


def test_extremes_nobody_moves_are_a_fault(receiver: _Receiver) -> None:
    inputs = _joint(_plan(own=False), PASSED, OWNED)
    step = msgspec.structs.replace(inputs.step, moves=())
    _refused(receiver, Inputs(inputs.plan, step, None, inputs.keys, inputs.sums, []), PeerFault, "no party")


def test_rows_of_different_columns_are_a_fault(receiver: _Receiver) -> None:
    plan = _rows([("a", "BIGINT")], SQL, (DELTA, UNITED))
    step = plan.steps[-1]
    assert isinstance(step, Release)
    for other in (pa.table({"b": [1]}), pa.table({"a": ["x"]})):
        moves = [pa.table({"a": [1]}), other]
        _refused(receiver, Inputs(plan, step, None, None, None, moves), PeerFault, "united gives")


def test_a_sum_that_overflows_is_null_and_not_wrapped(receiver: _Receiver) -> None:
    most = _groups({"lga": (9, Decimal("9" * 36 + ".99"), 0.0, 0)})
    table, _ = receiver.answer(_joint(_plan(own=False, sql="SELECT m0, m1 FROM released"), ["lga"], [most, most]))
    assert table.to_pylist() == [{"m0": 18, "m1": None}]


def test_a_release_that_cannot_run_says_nothing_of_the_data(receiver: _Receiver) -> None:
    plan = _plan(own=False, sql="SELECT error('4242') FROM released")
    with pytest.raises(FragmentFailed) as refusal:
        receiver.answer(_joint(plan, PASSED, OWNED))
    assert "4242" not in str(refusal.value)
