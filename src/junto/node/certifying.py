# SPDX-License-Identifier: Apache-2.0
"""The canonical digest of rows that a step gave here, or that were moved here, read batch by batch."""

import io
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

import pyarrow as pa

from junto.engines.canonical import rows_digest
from junto.engines.keys import type_name
from junto.errors import PeerFault
from junto.node.cache import Copy
from junto.node.exchange import Content
from junto.node.spool import Spool, Spooled
from junto.plan.certify import in_order
from junto.plan.steps import Move, Plan, Query, Release
from junto.types import Digest, StepId

_MAGIC_BYTES = 8
"""An Arrow IPC file is its name, filled up to so many bytes, then the stream, then an index of it."""


def digest_of_rows(plan: Plan, id: StepId, content: object, spool: Spool) -> Digest:
    """The digest of a certified fragment's rows, where it computed them or where they arrived. Blocks.

    Raises PeerFault if these are no rows, or not of the fragment's types; InvalidInput for types without canonical
    bytes.
    """
    step = plan.step(id)
    query = plan.step(step.input) if isinstance(step, Move) else step
    if not isinstance(query, Query):
        raise PeerFault(f"step {id} gives no rows to certify")
    try:
        return _digest(query, _batches(content, spool))
    except (pa.ArrowException, OSError) as error:
        raise PeerFault(f"step {id} gives rows that are no Arrow file") from error


def digest_of_fragment(query: Query, content: object, spool: Spool) -> Digest:
    """The digest of what a fragment gave, rows or groups, of the types that are there. Blocks.

    Not salted: it tells guesses of private rows right or wrong, and does not leave the party. Raises PeerFault if these
    are no rows; InvalidInput for types without canonical bytes.
    """
    try:
        batches = (batch for batch in _batches(content, spool) if batch.num_rows)
        first = next(batches, None)
        if first is None:
            return rows_digest((), (), ())  # whether as no batch or as an empty one
        types = [type_name(field.type) for field in first.schema]
        return rows_digest(chain((first,), batches), first.schema.names, types, ordered=in_order(query.sql))
    except (pa.ArrowException, OSError) as error:
        raise PeerFault(f"step {query.id} gives rows that are no Arrow file") from error


def digest_of_answer(release: Release, answer: Content, spool: Spool) -> Digest:
    """The digest of an answer, an Arrow IPC stream. Blocks. Raises InvalidInput for types without canonical bytes."""
    pieces = iter([answer]) if isinstance(answer, bytes) else _pieces(answer, spool)
    return _digest(release, _streamed(io.BufferedReader(_Read(pieces))))


def _digest(step: Query | Release, batches: Iterator[pa.RecordBatch]) -> Digest:
    return rows_digest(batches, step.columns, step.column_types, ordered=in_order(step.sql))


def _batches(content: object, spool: Spool) -> Iterator[pa.RecordBatch]:
    match content:
        case pa.Table():
            yield from content.to_batches()
        case Copy():
            with pa.memory_map(str(content.path)) as mapped:
                reader = pa.ipc.open_file(mapped)
                for index in range(reader.num_record_batches):
                    yield _checked(reader.get_batch(index))
        case Spooled():
            file = io.BufferedReader(_Read(spool.read(content)))
            file.read(_MAGIC_BYTES)
            yield from _streamed(file)
        case _:
            raise PeerFault("what is no table cannot be certified")


def _streamed(file: BinaryIO) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield _checked(batch)


def _pieces(content: Spooled | Copy, spool: Spool) -> Iterator[bytes]:
    return spool.read(content) if isinstance(content, Spooled) else iter([content.path.read_bytes()])


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate(full=True)  # the bytes may be another party's: offsets are not believed
    return batch


class _Read(io.RawIOBase):
    """Pieces of bytes, read as a file from its beginning."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]  # RawIOBase takes a buffer
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = piece
        taken, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)
