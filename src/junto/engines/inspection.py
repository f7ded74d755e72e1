# SPDX-License-Identifier: Apache-2.0
"""The findings of an inspection of a source, and a check that its files are still the same. Loads no engine."""

from dataclasses import dataclass, replace

from junto.engines import files
from junto.engines.base import FileSource
from junto.types import Digest


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """The facts about one column's values. The owner's rules decide which of them are published."""

    column: str
    nulls: int
    distinct: int  # about
    min: str | None  # as DuckDB writes it as text; None: no value, a BLOB, or longer than 256 characters
    max: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that publishing needs to know of a source. `source` is what to run on: nothing is guessed again."""

    source: FileSource
    rows: int
    bytes: int
    content: Digest
    files: tuple[files.FileState, ...]
    unit_unique: bool
    facts: tuple[ColumnFacts, ...]

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(name, DuckDB type) in order."""
        return self.source.columns


def unchanged(inspection: Inspection) -> Inspection:
    """The inspection, with its files' times of now. Fast while they are those seen; else the bytes are read again.

    Raises DataChanged, naming the file, if it is not what was published.
    """
    files.no_log(inspection.source)
    now = tuple(files.still(file) for file in inspection.files)
    return inspection if now == inspection.files else replace(inspection, files=now)
