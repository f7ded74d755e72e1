# SPDX-License-Identifier: Apache-2.0
"""The answer, at its receiver: keys that passed, sums, its own groups, then the release's SQL over them.

The file of an answer carries 32 random bytes, so that its digest, which everybody's journal holds, cannot be guessed
from a small answer.
"""

import hashlib
import io
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from junto.engines import keys as key_bytes
from junto.engines.base import Engine, Limits, TableSource
from junto.errors import PeerFault
from junto.node import groups
from junto.node.cache import Copy
from junto.node.declared import of_step
from junto.node.exchange import Content
from junto.node.extremes import extreme
from junto.node.keep import Answered
from junto.node.spool import Spool, Spooled
from junto.plan.guards import Guards, guards_of
from junto.plan.steps import Measure, Plan, Query, Release, Threshold
from junto.secure.deviations import deviations, spread_deviations
from junto.secure.encoding import LANES, decode, unit
from junto.secure.groupkeys import Flags, PassedKeys
from junto.secure.maskedsum import Words
from junto.types import HIDDEN, OWN_LEFT_OUT, Digest, Withheld

SALT = b"junto.salt"

_QUOTED = r'"(?:[^"]|"")+"'
_ITEM = rf"{_QUOTED}(?: AS {_QUOTED})?"
_COLUMNS_ALONE = re.compile(
    rf'SELECT (?P<columns>{_ITEM}(?:, {_ITEM})*) FROM "released"(?: ORDER BY (?P<by>{_QUOTED}(?:, {_QUOTED})*))?'
)
_ONE_COLUMN = re.compile(rf"({_QUOTED})(?: AS ({_QUOTED}))?")
_AS_THEY_ARE = frozenset((pa.bool_(), pa.int32(), pa.int64(), pa.float64(), pa.string(), pa.date32()))
_PLAIN_CHARACTERS = 10_000
_PLAIN_ROWS = 10_000
_FEW_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a release, as its steps gave them at the receiver."""

    plan: Plan
    step: Release
    own: pa.Table | Spooled | Copy | None
    keys: PassedKeys | None
    sums: Words | None
    moves: Sequence[pa.Table | Spooled | Copy]


async def release(
    engine: Engine,
    spool: Spool,
    limits: Limits,
    inputs: Inputs,
    random: Callable[[int], bytes],
    hold: Callable[[bytes], Content],
) -> Answered:
    """The answer, where `hold` put it. Raises what engine and `hold` raise, InvalidInput for an overflow, PeerFault."""

    def answered(table: pa.Table, own_left_out: int) -> Answered:
        data = _stream(table, random(32), own_left_out, _hidden(inputs))
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        return Answered(hold(data), digest, table.num_rows, _withheld(inputs))

    def work(stop: threading.Event) -> Answered:
        released, own_left_out = _released(inputs, spool)
        table = _plain(inputs.step.sql, released)
        if table is None:
            with engine.run(inputs.step.sql, {"released": TableSource(released)}, limits, stop) as rows:
                table = rows.table()
        return answered(table, own_left_out)

    if _are_few(inputs):  # a thread would take longer to begin
        released, own_left_out = _released(inputs, spool)
        table = _plain(inputs.step.sql, released)
        if table is not None:
            return answered(table, own_left_out)
    return await groups.in_thread(work)


def _are_few(inputs: Inputs) -> bool:
    """True if only a few bytes of plain rows are released, which lie in memory or in small files."""
    if inputs.keys is not None or inputs.sums is not None:
        return False
    rows = [*inputs.moves, *([inputs.own] if inputs.own is not None else [])]
    return sum(r.nbytes if isinstance(r, pa.Table) else r.bytes for r in rows) <= _FEW_BYTES


def _plain(sql: str, released: pa.Table) -> pa.Table | None:
    """The answer, if all that is asked is columns of `released` under other names and in ascending order, and the rows
    are few: an engine would take a millisecond to begin. None if more is asked, or if it might understand it otherwise.
    """
    asked = (
        _COLUMNS_ALONE.fullmatch(sql) if len(sql) <= _PLAIN_CHARACTERS and released.num_rows <= _PLAIN_ROWS else None
    )
    if asked is None:
        return None
    pairs = [(_unquoted(of), _unquoted(called or of)) for of, called in _ONE_COLUMN.findall(asked["columns"])]
    by = [_unquoted(of) for of, _ in _ONE_COLUMN.findall(asked["by"] or "")]
    has = dict(zip(released.column_names, released.schema.types, strict=True))
    folded = {name.casefold() for name in has}
    if any(has.get(of) not in _AS_THEY_ARE for of in (*(of for of, _ in pairs), *by)):
        return None
    if len(folded) < released.num_columns or len({called.casefold() for _, called in pairs}) < len(pairs):
        return None  # names that SQL does not tell apart
    if any(called != of and called.casefold() in folded for of, called in pairs):
        return None  # ORDER BY would mean the output
    if by:
        released = released.sort_by([(of, "ascending") for of in by])
    return pa.Table.from_arrays([released.column(of) for of, _ in pairs], names=[called for _, called in pairs])


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"')


def _withheld(inputs: Inputs) -> Withheld:
    if inputs.keys is None:
        return "none"
    return "some" if inputs.keys.some else "unknown"


def _stream(table: pa.Table, salt: bytes, own_left_out: int, hidden: int) -> bytes:
    salted = table.replace_schema_metadata({SALT: salt.hex(), OWN_LEFT_OUT: str(own_left_out), HIDDEN: str(hidden)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, salted.schema) as writer:
        writer.write_table(salted)
    return sink.getvalue()


def _released(inputs: Inputs, spool: Spool) -> tuple[pa.Table, int]:
    """The table `released`, and how many groups of the receiver's own are not in it: the others let them not pass."""
    query = _grouped_query(inputs)
    step, plan = inputs.step, inputs.plan
    moves = [
        groups.read_table(move, spool, of_step(plan, id)) for move, id in zip(inputs.moves, step.moves, strict=True)
    ]
    own = None
    if inputs.own is not None and step.own is not None:
        own = groups.read_table(inputs.own, spool, of_step(plan, step.own))
    if query is None:
        return _stacked([*moves, *([own] if own is not None else [])]), 0
    if inputs.keys is None:
        if own is None:
            raise PeerFault(f"step {inputs.step.id} releases groups that no step gives")
        lanes = groups.lanes(query.measures, own)
        columns = {name: own.column(name) for name in query.keys or ()}
        extremes = {m.name: own.column(m.name) for m in query.measures if m.encoding == "value"}
        return _table(inputs.step, query, columns, lanes, extremes, own.num_rows), 0
    passed, found = inputs.keys.passed, _guards(inputs)
    if found is None or inputs.keys.cells.shape != (found.cells, passed):
        raise PeerFault(f"step {inputs.step.id} releases groups whose figures no threshold looked at")
    keys = key_bytes.decode(inputs.keys.keys, query.key_types, query.keys) if query.keys else None
    columns = {name: keys.column(name) for name in query.keys or ()} if keys is not None else {}
    place = _placement(query, own, inputs.keys) if own is not None else None
    lanes = inputs.sums.copy() if inputs.sums is not None else np.zeros((0, passed), dtype=np.uint64)
    if own is not None and place is not None:
        held = place >= 0
        ours = groups.hidden(own.take(pa.array(place[held])), inputs.keys.cells[:, held], found)
        lanes[:, held] += groups.lanes(query.measures, ours)
    extremes = {
        m.name: _extreme(m, moves, None if own is None or place is None else _taken(own.column(m.name), place), passed)
        for m in query.measures
        if m.encoding == "value"
    }
    left_out = own.num_rows - int(np.count_nonzero(place >= 0)) if own is not None and place is not None else 0
    table = _table(inputs.step, query, columns, lanes, extremes, passed)
    return _without_hidden(inputs.step, table, inputs.keys.cells, found), left_out


def _without_hidden(step: Release, table: pa.Table, cells: Flags, found: Guards) -> pa.Table:
    """The table, figures NULL that did not pass, and deviations that rest on one."""
    for deviation in step.deviations:
        shown = np.all([groups.shown_in(cells, found, m) for m in (deviation.n, deviation.s, deviation.ss)], axis=0)
        column = table.column(deviation.name)
        masked = pc.if_else(pa.array(shown), column, pa.scalar(None, column.type))
        table = table.set_column(table.column_names.index(deviation.name), deviation.name, masked)
    return groups.hidden(table, cells, found)


def _guards(inputs: Inputs) -> Guards | None:
    """The guards of the question; None where no threshold looked at it."""
    return guards_of(inputs.plan, inputs.step.threshold) if inputs.step.threshold is not None else None


def _hidden(inputs: Inputs) -> int:
    """The number of groups that passed in which a figure did not."""
    found = _guards(inputs)
    if found is None or inputs.keys is None or not found.of:
        return 0
    shown = [groups.shown_in(inputs.keys.cells, found, name) for name in found.of]
    return int(np.count_nonzero(~np.all(shown, axis=0)))


def _grouped_query(inputs: Inputs) -> Query | None:
    """The query whose groups are released; any owner's, as they all have the same keys and measures."""
    step = inputs.step
    if step.own is not None:
        found = inputs.plan.step(step.own)
    elif step.threshold is not None:
        threshold = inputs.plan.step(step.threshold)
        if not isinstance(threshold, Threshold):
            raise PeerFault(f"step {step.id} releases what step {step.threshold} does not give")
        found = inputs.plan.step(threshold.inputs[0])
    else:
        return None
    return found if isinstance(found, Query) and found.keys is not None else None


def _placement(query: Query, own: pa.Table, keys: PassedKeys) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The row of our own table that holds each group that passed, or -1."""
    wanted = pa.array(keys.keys, pa.large_binary())
    held = key_bytes.encoded_column(own.select(list(query.keys or ())), query.key_types)
    return np.asarray(pc.index_in(wanted, value_set=held).fill_null(-1).to_numpy(), dtype=np.int64)


def _taken(column: pa.ChunkedArray, place: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> pa.Array:
    return pa.chunked_array(column).take(pa.array(place, mask=place < 0))


def _extreme(measure: Measure, moves: Sequence[pa.Table], own: pa.Array | None, passed: int) -> pa.Array:
    columns = [move.column(measure.name).combine_chunks() for move in moves if measure.name in move.column_names]
    columns += [own] if own is not None else []
    if not columns:
        raise PeerFault(f"measure {measure.name} is released, but no party moves it")
    if any(len(column) != passed for column in columns):
        raise PeerFault(
            f"a party moved measure {measure.name} for another number of groups than the {passed} that passed"
        )
    try:
        return extreme("min" if measure.combine == "min" else "max", columns)
    except pa.ArrowException as error:
        raise PeerFault(f"parties moved measure {measure.name} in types that do not compare") from error


def _table(
    step: Release,
    query: Query,
    columns: dict[str, pa.ChunkedArray],
    lanes: Words,
    extremes: dict[str, pa.Array],
    rows: int,
) -> pa.Table:
    found: dict[str, pa.ChunkedArray | pa.Array] = dict(columns)
    spans: dict[str, tuple[Measure, Words]] = {}
    at = 0
    for measure in query.measures:
        if measure.encoding == "value":
            found[measure.name] = extremes[measure.name]
            continue
        span = lanes[at : at + LANES[measure.encoding]]
        at += LANES[measure.encoding]
        spans[measure.name] = (measure, span)
        if measure.encoding != "spread":
            found[measure.name] = decode(measure.name, measure.encoding, span, measure.scale)
    for deviation in step.deviations:
        s_measure, s = spans[deviation.s]
        ss_measure, ss = spans[deviation.ss]
        n = spans[deviation.n][1][0].astype(np.int64)
        if s_measure.encoding == "spread":
            found[deviation.name] = spread_deviations(n, s)
        else:
            found[deviation.name] = pa.array(deviations(n, s, ss, unit_of(s_measure), unit_of(ss_measure)))
    if not found:
        return pa.table({"nothing": pa.nulls(rows)})
    return pa.table(found)


def unit_of(measure: Measure) -> int:
    """The number by which an encoded integer of the measure is divided."""
    if measure.encoding == "value":
        raise PeerFault(f"measure {measure.name} is not summed")
    return unit(measure.encoding, measure.scale)


def _stacked(tables: Sequence[pa.Table]) -> pa.Table:
    if not tables:
        raise PeerFault("rows are released that no step gives")
    try:
        return pa.concat_tables([table.cast(tables[0].schema) for table in tables])
    except (pa.ArrowInvalid, ValueError) as error:
        raise PeerFault("parties moved rows of different columns") from error
