# SPDX-License-Identifier: Apache-2.0
"""A child that computes fragments, one at a time: DuckDB, under limits that the kernel holds.

It is told a fragment and where its sources lie; it is sent no key, no rule and nothing of the task. The limits are of
this process: memory and files by each fragment's `Limits`, processor time from where the last fragment ended.
"""

import resource
import threading
from pathlib import Path

import pyarrow as pa

from junto.children import inside
from junto.children.pipe import Broken, Pipe, never
from junto.engines import wire
from junto.engines.base import Limits, Source, TableSource
from junto.engines.duckdb import DuckDB
from junto.errors import FragmentFailed, JuntoError, OutOfMemory

_BESIDES_BYTES = 512 << 20
"""Private memory beyond what DuckDB counts: its code and ours, threads, batches on their way, a text being made."""
_STACK_BYTES = 8 << 20  # of a thread


def serve(pipe: Pipe) -> None:
    """Compute what comes over the pipe, until it is Broken."""
    engine = DuckDB(idle=2)
    while True:
        message, _ = wire.receive(pipe)
        if not isinstance(message, wire.Run):
            raise Broken("the other side begins with no fragment")
        tables: dict[str, Source] = {
            **message.files,
            **message.mapped,
            **{name: TableSource(_table(pipe)) for name in message.tables},
        }
        _limit(message)
        try:
            _compute(pipe, engine, message, tables)
        except JuntoError as error:
            wire.send(pipe, wire.Failed(error.code, str(error)))
        except MemoryError:
            failed = OutOfMemory("the fragment needs more memory than the node may use")
            wire.send(pipe, wire.Failed(failed.code, str(failed)))
        except Broken:
            raise
        except Exception:  # noqa: BLE001  # it may quote data; and the child is good for the next fragment
            wire.send(pipe, wire.Failed(FragmentFailed.code, "the fragment failed: DuckDB could not go on"))


def _compute(pipe: Pipe, engine: DuckDB, run: wire.Run, tables: dict[str, Source]) -> None:
    limits = Limits(run.memory_bytes, run.threads, Path(run.temp_dir), run.temp_bytes, run.cpu_seconds)
    with engine.run(run.sql, tables, limits, threading.Event()) as rows:  # whoever wants it stopped kills this process
        wire.send_table(pipe, rows.schema, rows)


def _table(pipe: Pipe) -> pa.Table:
    message, body = wire.receive(pipe)
    if not isinstance(message, wire.Columns):
        raise Broken("the other side announces a table, and sends none")
    schema = wire.schema_of(body)
    return pa.Table.from_batches(list(wire.batches_of(pipe, schema, never, _out_of_turn)), schema)


def _out_of_turn(failed: wire.Failed) -> Broken:
    return Broken("the other side gave up a table")


def _limit(run: wire.Run) -> None:
    """Have the kernel hold the limits: what asks for more memory gets none, a larger file is not written, and a
    process that has had its time ends."""
    memory = run.memory_bytes + run.table_bytes + _BESIDES_BYTES + run.threads * _STACK_BYTES
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + run.cpu_seconds
    for limit, value in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, run.temp_bytes),
        (resource.RLIMIT_CPU, seconds),
    ):
        _, most = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if most == resource.RLIM_INFINITY else min(value, most), most))


if __name__ == "__main__":
    inside.main(serve)
