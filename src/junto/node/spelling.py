# SPDX-License-Identifier: Apache-2.0
"""The SQL that an engine runs for a fragment, at the owner's acting node and at any helper of the party."""

from collections.abc import Mapping

import pyarrow as pa

from junto.engines import keys
from junto.engines.base import ArrowSource, FileSource, Source, TableSource
from junto.errors import InvalidInput
from junto.plan.counting import engine_sql
from junto.plan.steps import Query


def sql_of(step: Query, tables: Mapping[str, Source]) -> str:
    """The SQL that an engine runs: rows as the plan asks for them; groups with their guards, so that no row
    makes it fail.

    tables: the sources that the fragment reads, by name.
    """
    if step.keys is None:
        return step.sql
    return engine_sql(step, {name: dict(_columns(source)) for name, source in tables.items()})


def _columns(source: Source) -> list[tuple[str, str]]:
    match source:
        case FileSource():
            return list(source.columns)
        case TableSource(table):
            return _named(table.schema)
        case ArrowSource(path):
            with pa.memory_map(path) as mapped:
                return _named(pa.ipc.open_file(mapped).schema)


def _named(schema: pa.Schema) -> list[tuple[str, str]]:
    """The columns whose types have a name; of the others nothing is taken to be sure."""
    found = []
    for field in schema:
        try:
            found.append((field.name, keys.type_name(field.type)))
        except InvalidInput:
            continue
    return found
