# SPDX-License-Identifier: Apache-2.0
"""DuckDB in children of the node: what a real node runs fragments on.

DuckDB can be interrupted while it runs a query, not while it plans one, and a fault of it ends its process. So each
fragment has a process for itself while it runs. A stop kills that process, at whatever it is; a crash of it costs the
fragment. Rows come back as they are made; a reader who is slow holds up the child.
"""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa

from junto.children.pipe import Broken
from junto.children.pool import Lent, Pool
from junto.engines import wire
from junto.engines.base import ArrowSource, FileSource, Limits, Rows, Source, Stop, TableSource
from junto.engines.files import SPILL
from junto.errors import Cancelled, Crashed, FragmentFailed, JuntoError, error_from_code


class Supervised:
    """An engine whose fragments run in children of `pool`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @contextmanager
    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> Iterator[Rows]:
        """See `Engine.run`. Raises Crashed, too, if the child ended under the fragment."""
        if stop.is_set():
            raise Cancelled("the run was stopped before it began")
        with self._pool.lent() as lent:
            run = _Run(lent, stop)
            run.begin(sql, tables, limits)
            schema = run.schema()
            yield Rows(schema, run.batches(schema))

    def close(self) -> None:
        """See `Engine.close`."""
        self._pool.close()


class _Run:
    """One fragment, as the node sees it."""

    def __init__(self, lent: Lent, stop: Stop) -> None:
        self._lent = lent
        self._pipe = lent.child.pipe
        self._stopped = stop.is_set

    def begin(self, sql: str, tables: Mapping[str, Source], limits: Limits) -> None:
        """Hand over the fragment, and the tables that are in memory."""
        held = {name: source.table for name, source in tables.items() if isinstance(source, TableSource)}
        spill = limits.temp_dir / f"{SPILL}{self._lent.child.name}"
        self._lent.child.may_leave(spill)
        run = wire.Run(
            sql,
            {name: source for name, source in tables.items() if isinstance(source, FileSource)},
            {name: source for name, source in tables.items() if isinstance(source, ArrowSource)},
            tuple(held),
            sum(table.nbytes for table in held.values()),
            limits.memory_bytes,
            limits.threads,
            str(spill),
            limits.temp_bytes,
            limits.cpu_seconds,
        )
        try:
            wire.send(self._pipe, run, stopped=self._stopped)
            for table in held.values():
                wire.send_table(self._pipe, table.schema, table.to_batches(), self._stopped)
        except Broken as error:
            raise self._ended() from error

    def schema(self) -> pa.Schema:
        """The columns of its rows, once the engine has planned it."""
        try:
            message, body = wire.receive(self._pipe, self._stopped)
            if isinstance(message, wire.Failed):
                raise self._failed(message) from None
            if not isinstance(message, wire.Columns):
                raise Broken("the child begins with no columns")
            return wire.schema_of(body)
        except Broken as error:
            raise self._ended() from error

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of the fragment."""
        try:
            for batch in wire.batches_of(self._pipe, schema, self._stopped, self._failed):
                yield batch
                if self._stopped():
                    raise Cancelled("the run was stopped")
        except Broken as error:
            raise self._ended() from error
        self._lent.whole = True

    def _failed(self, told: wire.Failed) -> JuntoError:
        self._lent.whole = True  # it has said so, and waits for the next
        return error_from_code(told.code, told.message)

    def _ended(self) -> JuntoError:
        """The error for a child that is no more and had a fragment to compute."""
        how = self._lent.child.ended()
        match how:
            case signal.SIGXCPU.name:
                return FragmentFailed("the fragment had more of the processor's time than it may")
            case signal.SIGKILL.name:
                return Crashed("the process that computed the fragment was killed; perhaps the machine lacks memory")
            case _:
                return Crashed(f"the process that computed the fragment ended ({how})")
