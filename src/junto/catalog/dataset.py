# SPDX-License-Identifier: Apache-2.0
"""A published dataset, as its owner signs it: schema, version, rules and what statistics the rules allow."""

import hashlib
from collections.abc import Sequence

import msgspec

from junto.trust.allow import check_name
from junto.trust.rules import Rule
from junto.types import DatasetName, Digest, PartyId


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column and its type as DuckDB writes it."""

    name: str
    type: str

    def __post_init__(self) -> None:
        """Raises InvalidInput; out of a decoder, msgspec.ValidationError."""
        check_name(self.name, "column")
        check_name(self.type, "type")


class Statistics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is published of one column's values; None where the rules do not let it be known."""

    column: str
    nulls: int | None = None
    distinct: int | None = None  # about
    min: str | None = None  # as text
    max: str | None = None


class Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a party's dataset: the body of a "dataset" statement. Every party may see all of it."""

    party: PartyId
    name: DatasetName
    version: Digest
    content: Digest  # of the source's bytes
    columns: tuple[Column, ...]
    rows: int
    bytes: int
    unit: str | None  # the column thresholds count; None: each row is a unit
    unit_unique: bool  # no unit has two rows
    rules: tuple[Rule, ...]
    statistics: tuple[Statistics, ...]
    published_at: float  # UTC, Unix seconds


class Withdrawal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The owner no longer offers a dataset: the body of a "withdrawal" statement."""

    party: PartyId
    name: DatasetName
    at: float


def version_of(columns: Sequence[Column], unit: str | None, content: Digest, rules: Sequence[Rule]) -> Digest:
    """The digest of schema, unit, content and rules: a change of any is another version."""
    said = msgspec.json.encode((tuple(columns), unit, content, tuple(rules)))
    return Digest("sha256:" + hashlib.sha256(said).hexdigest())
