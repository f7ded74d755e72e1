# SPDX-License-Identifier: Apache-2.0
"""A fragment's output on its way into the protocols: run it, key its groups, lay its measures out in lanes."""

import asyncio
import hashlib
import io
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from junto.engines import keys
from junto.engines.base import ArrowSource, Engine, Limits, Source, TableSource
from junto.errors import OutOfMemory, PeerFault
from junto.node.cache import Copy
from junto.node.declared import Declared, of_query
from junto.node.judge import HomeLimits
from junto.node.spelling import sql_of
from junto.node.spool import Spool, Spooled
from junto.node.waits import to_the_end
from junto.plan.guards import Guards, guards
from junto.plan.steps import AnyStep, Measure, Query, Threshold
from junto.secure import dominance
from junto.secure.encoding import LANES, encode
from junto.secure.groupkeys import Flags, GroupCounts, PassedKeys, Selection
from junto.secure.keystream import Keystream, derive
from junto.secure.maskedsum import Words
from junto.secure.padding import dummies
from junto.secure.terms import Terms

R = TypeVar("R")
T = TypeVar("T")

_QUEUED_PIECES = 8
_LITTLE_BYTES = 1 << 20


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """The result of blocking work; cancelling the caller sets its stop event and waits until it has ended."""
    stop = threading.Event()
    job = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        stop.set()
        await to_the_end(job)
        raise


async def run_grouped(engine: Engine, step: Query, tables: Mapping[str, Source], limits: Limits) -> pa.Table:
    """A grouped fragment's output, in memory: one row per group. Raises what the engine raises, PeerFault if it has
    other columns than the plan declares."""

    def work(stop: threading.Event) -> pa.Table:
        with engine.run(sql_of(step, tables), tables, limits, stop) as rows:
            of_query(step).check(rows.schema)
            return rows.table().combine_chunks()

    return await in_thread(work)


async def run_rows(
    engine: Engine,
    step: Query,
    tables: Mapping[str, Source],
    limits: Limits,
    keep: Callable[[Iterator[bytes]], R],
) -> R:
    """A row fragment's output, streamed to disk as an Arrow IPC file. Raises as `run_grouped` does."""

    def work(stop: threading.Event) -> R:
        with engine.run(step.sql, tables, limits, stop) as rows:
            of_query(step).check(rows.schema)
            return keep(ipc_pieces(rows.schema, iter(rows)))

    return await in_thread(work)


def ipc_pieces(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    """The bytes of an Arrow IPC file, a batch at a time."""
    sink = _Pieces()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


class _Pieces(io.RawIOBase):
    """A sink whose bytes are taken as they come."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]  # RawIOBase takes a buffer
        self._held.append(bytes(data))
        return len(self._held[-1])

    def take(self) -> bytes:
        taken = b"".join(self._held)
        self._held.clear()
        return taken


class _Digest(io.RawIOBase):
    """A sink that digests what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]  # RawIOBase takes a buffer
        self.sha256.update(data)
        return len(data)


def ipc_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow IPC file, in memory."""
    return b"".join(ipc_pieces(table.schema, iter(table.to_batches())))


def read_table(content: pa.Table | Spooled | Copy, spool: Spool, declared: Declared) -> pa.Table:
    """A table in memory, wherever it lies. Raises PeerFault if the bytes are no Arrow file of the columns declared."""
    match content:
        case pa.Table():
            table = content
        case Copy():
            table = table_of(content.path.read_bytes())
        case Spooled():
            table = table_of(b"".join(spool.read(content)))
    declared.check(table.schema)
    return table


def table_of(data: bytes) -> pa.Table:
    """The table in an Arrow IPC file. Raises PeerFault."""
    try:
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
        table.validate(full=True)  # the bytes may be another party's: offsets are not believed
        return table
    except (pa.ArrowException, OSError) as error:
        raise PeerFault("rows arrived that are no Arrow file") from error


def check_schema(copy: Copy, declared: Declared) -> None:
    """Raises PeerFault unless the file is an Arrow file of the columns declared."""
    try:
        with pa.memory_map(str(copy.path)) as mapped:
            declared.check(pa.ipc.open_file(mapped).schema)
    except (pa.ArrowException, OSError) as error:
        raise PeerFault("a copy of an open table is no Arrow file") from error


def check_copy(copy: Copy, declared: Declared) -> None:
    """Raises PeerFault unless the file, which came from another party, is an Arrow file of the columns declared that
    holds together."""
    try:
        with pa.memory_map(str(copy.path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            declared.check(reader.schema)
            for index in range(reader.num_record_batches):
                reader.get_batch(index).validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise PeerFault("a copy of an open table arrived that is no Arrow file") from error


def source_of(content: object, spool: Spool, memory_bytes: int, declared: Declared) -> Source:
    """The source from which an engine reads an earlier step's output. An encrypted output is read into memory.

    Raises OutOfMemory if that is more than a fragment may use, PeerFault if it has other columns than declared.
    """
    match content:
        case Spooled() if content.bytes > memory_bytes:
            raise OutOfMemory(
                f"a fragment reads an output of {content.bytes:,} bytes in memory, where it may use {memory_bytes:,}"
            )
        case Spooled() | pa.Table():
            return TableSource(read_table(content, spool, declared))
        case Copy():
            check_schema(content, declared)
            return ArrowSource(str(content.path))
        case _:
            raise PeerFault("a fragment reads a step that gives no table here")


async def gathered(pieces: AsyncIterator[bytes], most_bytes: int, declared: Declared) -> pa.Table:
    """A table that arrives as an Arrow IPC file, in memory. Raises OutOfMemory if it is too large, PeerFault if it is
    no such file, or has other columns than declared."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        if len(held) > most_bytes:
            raise OutOfMemory(f"a fragment's groups take more than the {most_bytes:,} bytes that it may use")
    table = await asyncio.to_thread(table_of, bytes(held))
    declared.check(table.schema)
    return table.combine_chunks()


async def write_streamed(pieces: AsyncIterator[bytes], keep: Callable[[Iterator[bytes]], R]) -> R:
    """The result of `keep` for the pieces, written in a thread while they arrive; a failed arrival leaves nothing.

    Little is written when all of it is there. For more there is a thread, of its own: it waits for another party, and
    threads of the pool may be what that party waits for.
    """
    first: list[bytes] = []
    async for piece in pieces:
        first.append(piece)
        if sum(map(len, first)) > _LITTLE_BYTES:
            break
    else:
        return await asyncio.to_thread(keep, iter(first))
    handed: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
    room = asyncio.Semaphore(_QUEUED_PIECES)
    loop = asyncio.get_running_loop()

    def taken() -> Iterator[bytes]:
        while (item := handed.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            loop.call_soon_threadsafe(room.release)
            yield item

    thread = ThreadPoolExecutor(1, "arrival")
    job = asyncio.ensure_future(loop.run_in_executor(thread, keep, taken()))
    thread.shutdown(wait=False)  # it ends with its one job
    job.add_done_callback(lambda _: room.release())  # a keeper that failed takes no more pieces: stop handing them over
    try:
        for piece in first:
            handed.put(piece)
        async for piece in pieces:
            await room.acquire()
            if job.done():
                break
            handed.put(piece)
        handed.put(None)
        return await asyncio.shield(job)
    except BaseException as error:
        handed.put(error)
        await to_the_end(job)  # by `error`, if not before
        raise


def terms_of(step: Threshold, found: Guards) -> Terms:
    """The terms of a threshold, for each guard and each sum that is tested."""
    return Terms(
        step.contributors,
        step.receiver,
        step.nodes,
        step.units,
        step.parties,
        len(found.counts),
        tuple(found.of[name] for name in found.sums),
        step.dominance,
        tokens=step.tokens,
    )


def counts_of(step: Query, table: pa.Table, found: Guards) -> GroupCounts:
    """The groups' keys, and of each group the units behind each guard and the shares of each sum, for a threshold.

    found: the guards of the whole question. Where a unit is one row here, it brings 1 to a count that is tested.
    """
    names = ["units", *(f"u{index}" for index in range(1, len(found.counts)))]
    units = np.stack([table.column(name).to_numpy().astype(np.int64) for name in names])
    own = guards((step,)).sums
    totals = np.zeros((len(found.sums), table.num_rows))
    largest = np.zeros_like(totals)
    for row, name in enumerate(found.sums):
        if name in own:
            index = own.index(name)
            totals[row] = table.column(f"t{index}").to_numpy()
            largest[row] = table.column(f"x{index}").to_numpy()
        else:
            totals[row] = units[found.of[name]]
            largest[row] = np.minimum(totals[row], 1)
    return GroupCounts(keys_of(step, table), units, totals, largest)


def dummies_of(salt: bytes, step: AnyStep) -> int:
    """The number of dummies that hide the number of a fragment's groups: alike whenever the same is asked of the same
    data.

    salt: a secret of this node.
    """
    asked = msgspec.json.encode((step.sql, step.reads)) if isinstance(step, Query) else b""
    return dummies(Keystream(derive(salt, "dummies", asked, size=16)).take)


def keys_of(step: Query, table: pa.Table) -> list[bytes]:
    """The canonical key of each group."""
    if not step.keys:
        return [b""] * table.num_rows
    return keys.encode(table.select(list(step.keys)), step.key_types)


def summed(measures: Sequence[Measure]) -> list[Measure]:
    """The measures that are added over parties."""
    return [measure for measure in measures if measure.combine == "sum"]


def lane_count(measures: Sequence[Measure]) -> int:
    """The number of lanes that the measures take together."""
    return sum(LANES[m.encoding] for m in measures if m.encoding != "value")


def lanes(measures: Sequence[Measure], table: pa.Table) -> Words:
    """The measures' columns as lanes, one below the other: shape (lanes, groups)."""
    parts = [encode(m.name, m.encoding, table.column(m.name), m.scale) for m in measures if m.encoding != "value"]
    return np.concatenate(parts) if parts else np.zeros((0, table.num_rows), dtype=np.uint64)


def lanes_of(measures: Sequence[Measure], table: pa.Table, selection: Selection, found: Guards) -> Words:
    """As `lanes`, for the groups that passed, in the union's order, zero where this party has none.

    A figure that did not pass is zero too. It is not even laid out: nothing about it can fail.
    """
    rank = np.cumsum(selection.passed) - 1
    own, columns = selection.own, rank[selection.positions[selection.own]]
    cells = selection.cells[:, selection.passed]
    laid = lanes(measures, hidden(table.filter(pa.array(own)), cells[:, columns], found))
    placed = np.zeros((laid.shape[0], int(np.count_nonzero(selection.passed))), dtype=np.uint64)
    placed[:, columns] = laid
    at = 0
    for measure in measures:
        if measure.encoding != "value":
            span = LANES[measure.encoding]
            placed[at : at + span, ~shown_in(cells, found, measure.name)] = 0
            at += span
    return placed


def aligned(table: pa.Table, selection: Selection, found: Guards) -> pa.Table:
    """The rows of groups that passed, in the union's order; NULL where this party has none, and where a figure did not
    pass."""
    rank = np.cumsum(selection.passed) - 1
    own = selection.own
    index = np.full(int(np.count_nonzero(selection.passed)), -1, dtype=np.int64)
    index[rank[selection.positions[own]]] = np.flatnonzero(own)
    return hidden(table.take(pa.array(index, mask=index < 0)), selection.cells[:, selection.passed], found)


def hidden(table: pa.Table, cells: Flags, found: Guards) -> pa.Table:
    """The table of groups that passed, figures NULL that did not. cells: shape (guards + sums, groups)."""
    for name in found.of:
        if name in table.column_names:
            column = table.column(name)
            shown = pa.array(shown_in(cells, found, name))
            masked = pc.if_else(shown, column, pa.scalar(None, column.type))
            table = table.set_column(table.column_names.index(name), name, masked)
    return table


def shown_in(cells: Flags, found: Guards, measure: str) -> Flags:
    """The groups in which a measure is shown. cells: shape (guards + sums, groups)."""
    shown: Flags = np.all(cells[list(found.flags(measure))], axis=0)
    return shown


def shown_at_home(step: Query, table: object, limits: HomeLimits) -> pa.Table:
    """The groups of a fragment's output that a user of our own may see: those of which every figure has units enough.

    A group is left out whole where one of its figures has not: beside others' figures it would add to some measures of
    an aggregate and not to others. Raises PeerFault if the fragment gave no groups.
    """
    if not isinstance(table, pa.Table):
        raise PeerFault(f"step {step.id} gives no groups to show")
    counts = counts_of(step, table, guards((step,)))
    enough = (counts.units >= limits.units).all(axis=0)
    even = dominance.alone(counts.totals, counts.largest, limits.dominance).all(axis=0)
    return table.filter(pa.array(enough & even))


def fingerprint(content: object) -> bytes:
    """SHA-256 of what a step gave here."""
    digest = hashlib.sha256()
    match content:
        case None:
            pass
        case pa.Table():
            sink = _Digest()
            with pa.ipc.new_file(sink, content.schema) as writer:
                writer.write_table(content)
            return sink.sha256.digest()
        case Copy() | Spooled():
            return content.sha256
        case Selection():
            digest.update(content.cells.tobytes())
        case PassedKeys():
            digest.update(np.fromiter(map(len, content.keys), dtype=">u4", count=len(content.keys)).tobytes())
            digest.update(b"".join(content.keys))
            digest.update(content.cells.tobytes())
        case np.ndarray():
            digest.update(np.ascontiguousarray(content).data)
        case _:
            raise TypeError(f"a step gave a {type(content).__name__}")
    return digest.digest()
