# SPDX-License-Identifier: Apache-2.0
"""The names and types that a plan gives to a step's rows, and the check that the rows have exactly these.

The judges of a fragment that reads the rows took the plan at its word. So the word is enforced: wherever rows of a step
are used, those of our own engine, of another node of the party, of another party and of the cache, they have the
columns declared, in order, of the Arrow types in which an engine gives the types declared.
"""

from dataclasses import dataclass

import pyarrow as pa

from junto.engines import keys
from junto.errors import InvalidInput, PeerFault
from junto.plan.guards import further_columns
from junto.plan.steps import Encoding, Measure, Move, Plan, Query
from junto.secure.spreads import FIELDS as SPREAD_FIELDS
from junto.types import PartyId, StepId

_ROW_TYPES = {
    "INTERVAL": pa.month_day_nano_interval(),
    "UHUGEINT": pa.decimal128(38, 0),
    "TIME WITH TIME ZONE": pa.time64("us"),
    "TIME_NS": pa.time64("ns"),
    "JSON": pa.string(),
    '"NULL"': pa.null(),
    "SPREAD": pa.struct([(name, pa.int64() if name == "n" else pa.float64()) for name in SPREAD_FIELDS]),
}
"""Types that rows may have and keys may not; SPREAD is what an engine gives for FSPREAD."""

_EXTENSION = b"ARROW:extension:name"

_MEASURE_TYPES: dict[Encoding, str] = {"count": "BIGINT", "real": "DOUBLE", "spread": "SPREAD"}
"""The SQL type of a measure whose encoding fixes the type."""


@dataclass(frozen=True, slots=True)
class Declared:
    """The columns of a step's rows, (name, DuckDB type) in order, and the party that gives them."""

    step: StepId
    sender: PartyId
    columns: tuple[tuple[str, str], ...]

    def check(self, schema: pa.Schema) -> None:
        """Raises PeerFault, naming the sender, unless rows of that schema are what was declared."""
        names = [name for name, _ in self.columns]
        if schema.names != names:
            raise PeerFault(
                f"step {self.step}: {self.sender} gives {len(schema.names)} columns that are not the {len(names)} that"
                " the plan declares, by name and in order"
            )
        for field, (name, type) in zip(schema, self.columns, strict=True):
            # A type that Arrow's own metadata puts on another is read as that by an engine which knows it.
            if field.type != _arrow_type(type) or _EXTENSION in (field.metadata or {}):
                raise PeerFault(
                    f"step {self.step}: {self.sender} gives column {name[:60]!r} in another type than {type[:60]},"
                    " which the plan declares"
                )


def of_query(query: Query) -> Declared:
    """The columns of a fragment's output: its rows', or those of its groups."""
    if query.keys is None:
        return Declared(query.id, query.party, tuple(zip(query.columns, query.column_types, strict=True)))
    return Declared(
        query.id,
        query.party,
        (
            *zip(query.keys, query.key_types, strict=True),
            ("units", "BIGINT"),
            *((measure.name, _measure_type(measure)) for measure in query.measures),
            *further_columns(query),
        ),
    )


def of_step(plan: Plan, id: StepId) -> Declared:
    """The columns of the rows that a fragment or a move gives. Raises PeerFault if it is neither."""
    step = plan.step(id)
    if isinstance(step, Query):
        return of_query(step)
    query = plan.step(step.input) if isinstance(step, Move) else None
    if not isinstance(step, Move) or not isinstance(query, Query):
        raise PeerFault(f"step {id} gives no rows")
    types = dict(of_query(query).columns)
    return Declared(step.id, step.sender, tuple((name, types[name]) for name in step.columns))


def _measure_type(measure: Measure) -> str:
    if measure.encoding == "integer":
        return f"DECIMAL(38,{measure.scale})"
    return _MEASURE_TYPES.get(measure.encoding, measure.type)


def _arrow_type(type: str) -> pa.DataType:
    if type in _ROW_TYPES:
        return _ROW_TYPES[type]
    try:
        return keys.arrow_type(type)
    except (InvalidInput, ValueError):
        raise PeerFault(f"the plan declares a column of type {type[:60]}, in which no rows are given") from None
