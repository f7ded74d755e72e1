# SPDX-License-Identifier: Apache-2.0
"""The messages between a node and the child that computes its fragments.

    node                                     child
    Run, the fragment                   →
    Columns, Batch …, End, for a table  →
                                        ←    Columns, Batch …, End; or Failed, in place of any

Tables travel as Arrow IPC: a schema as the body of `Columns`, a batch as that of each `Batch`. Neither side unpickles
anything, and both check what they get: the child has run SQL of another party.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import assert_never

import msgspec
import pyarrow as pa

from junto.children.pipe import BODY_BYTES, Broken, Pipe, never
from junto.engines.base import ArrowSource, FileSource
from junto.errors import OutOfMemory

_BATCH_BYTES = 16 << 20


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The head of a frame."""


class Run(Message, frozen=True, forbid_unknown_fields=True):
    """A fragment, its limits, and what it reads; the tables named follow, in that order."""

    sql: str
    files: Mapping[str, FileSource]
    mapped: Mapping[str, ArrowSource]
    tables: tuple[str, ...]
    table_bytes: int
    memory_bytes: int
    threads: int
    temp_dir: str
    temp_bytes: int
    cpu_seconds: int


class Columns(Message, frozen=True, forbid_unknown_fields=True):
    """A table begins; its schema is the body."""


class Batch(Message, frozen=True, forbid_unknown_fields=True):
    """Rows of it are the body."""


class End(Message, frozen=True, forbid_unknown_fields=True):
    """The sender has sent everything."""


class Failed(Message, frozen=True, forbid_unknown_fields=True):
    """The fragment failed."""

    code: str
    message: str


AnyMessage = Run | Columns | Batch | End | Failed
_DECODER = msgspec.msgpack.Decoder(AnyMessage)
_ENCODER = msgspec.msgpack.Encoder()


def send(pipe: Pipe, message: AnyMessage, body: "pa.Buffer | bytes" = b"", stopped: Callable[[], bool] = never) -> None:
    """Hand over a message. Raises Broken, Cancelled."""
    pipe.send(_ENCODER.encode(message), memoryview(body), stopped=stopped)


def receive(pipe: Pipe, stopped: Callable[[], bool] = never) -> tuple[AnyMessage, bytearray]:
    """The next message and its body. Raises Broken, Cancelled."""
    head, body = pipe.receive(stopped=stopped)
    try:
        return _DECODER.decode(head), body
    except msgspec.MsgspecError:
        raise Broken("the other side sends what is no message") from None


def send_table(
    pipe: Pipe, schema: pa.Schema, batches: Iterable[pa.RecordBatch], stopped: Callable[[], bool] = never
) -> None:
    """Hand over a table, as its batches come. Raises Broken, Cancelled, and OutOfMemory for a row of 256 MiB."""
    send(pipe, Columns(), schema.serialize(), stopped)
    for batch in batches:
        for part in _cut(batch):
            send(pipe, Batch(), part.serialize(), stopped)
    send(pipe, End(), b"", stopped)


def schema_of(body: bytearray) -> pa.Schema:
    """The schema in a body. Raises Broken."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(body))
    except (pa.ArrowException, OSError) as error:
        raise Broken("the other side sends what is no schema") from error


def batches_of(
    pipe: Pipe, schema: pa.Schema, stopped: Callable[[], bool], failed: Callable[[Failed], Exception]
) -> Iterator[pa.RecordBatch]:
    """The rows that follow a schema, up to their end. Raises Broken, Cancelled, and what `failed` makes of Failed."""
    while True:
        message, body = receive(pipe, stopped)
        match message:
            case Batch():
                yield _batch(body, schema)
            case End():
                return
            case Failed():
                raise failed(message) from None
            case Run() | Columns():
                raise Broken("the other side sends rows out of turn")
            case _:
                assert_never(message)


def _batch(body: bytearray, schema: pa.Schema) -> pa.RecordBatch:
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(body), schema)
        batch.validate(full=True)
        return batch
    except (pa.ArrowException, OSError) as error:
        raise Broken("the other side sends rows that do not hold together") from error


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts that a frame holds."""
    if batch.nbytes <= _BATCH_BYTES or not batch.num_rows:
        yield batch
    elif batch.num_rows == 1:
        if pa.ipc.get_record_batch_size(batch) > BODY_BYTES:
            raise OutOfMemory(f"a row takes more than the {BODY_BYTES:,} bytes that one may")
        yield batch
    else:
        half = batch.num_rows // 2
        yield from _cut(batch.slice(0, half))
        yield from _cut(batch.slice(half))
