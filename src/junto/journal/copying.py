# SPDX-License-Identifier: Apache-2.0
"""A journal moved, whole, from a node's own file to a place that several nodes share."""

import os
from pathlib import Path

from junto.errors import InvalidInput, StorageFailed
from junto.journal.reading import Reader
from junto.journal.sqlite import connect, lock
from junto.journal.storage import Row, Storage

MOVED = ".moved"
"""The ending of a file's name whose journal lies elsewhere now."""

_ROWS = 1024


def move(path: Path, place: Storage) -> int:
    """Copy the journal in a file to an empty place, all or nothing; how many entries that were.

    The file is renamed to `….moved`, so that no node goes on with it. Raises InvalidInput (a node has it open, the
    place is not empty) or StorageFailed; then both are as before.
    """
    if not path.is_file():
        raise InvalidInput(f"there is no journal at {path}")
    held = lock(path, shared=False)  # no node writes meanwhile
    try:
        connect(path).close()  # an older format becomes today's, and the write-ahead log is folded in
        place.open()
        try:
            with Reader(path) as source:
                count = _copy(source, place)
        finally:
            place.close()
        path.rename(path.with_name(path.name + MOVED))
    finally:
        os.close(held)
    return count


def _copy(source: Reader, place: Storage) -> int:
    with Reader(place.reading) as target:
        if len(target):
            raise InvalidInput(f"{place.where} holds a journal of {len(target)} entries already: give an empty place")
    try:
        place.begin()
        rows: list[Row] = []
        for entry in source.entries():
            hashes = b"".join(source.completed(entry.index))
            rows.append(
                Row(entry.index, entry.kind, entry.task, entry.author, entry.id, entry.at, entry.envelope, hashes)
            )
            if len(rows) == _ROWS:
                place.insert(rows)
                rows = []
        place.insert(rows)
        for size, note in source.checkpoints():
            place.mark(size, note)
        for task in source.kept_tasks():
            for name, content in source.kept(task).items():
                place.keep(task, name, content)
        place.commit()
    except place.errors as error:
        name = place.cause(error).name
        place.undo()
        raise StorageFailed(f"the journal was not copied to {place.where}: {name}") from error
    return len(source)
