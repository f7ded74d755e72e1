# SPDX-License-Identifier: Apache-2.0
"""A published dataset, as its owner signs it: schema, version, rules and what statistics the rules allow."""

import hashlib
from collections.abc import Sequence

import msgspec

from junto.errors import InvalidInput
from junto.trust.allow import EVERY_COLUMN, KINDS, Allow, check_name, serves
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
    """The published statistics of one column's values; None where the rules do not let it be known."""

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
    content: Digest  # of the source's bytes; keyed, so that only its owner can compare it, unless all of it is open
    columns: tuple[Column, ...]
    rows: int
    bytes: int
    unit: str | None  # the column thresholds count; None: each row is a unit
    unit_unique: bool  # no unit has two rows
    rules: tuple[Rule, ...]
    statistics: tuple[Statistics, ...]
    published_at: float  # UTC, Unix seconds

    def __post_init__(self) -> None:
        """Raises InvalidInput; out of a decoder, msgspec.ValidationError."""
        check_name(self.name, "dataset")
        names = [column.name for column in self.columns]
        if not names:
            raise InvalidInput(f"dataset {self.name} has no columns")
        if len({name.casefold() for name in names}) != len(names):
            raise InvalidInput(
                f"dataset {self.name} has two columns of one name, which SQL cannot tell apart: rename one"
            )
        named = {self.unit or names[0], *(statistics.column for statistics in self.statistics)}
        named.update(column for rule in self.rules for column in rule.columns if column != EVERY_COLUMN)
        if not named <= set(names):
            raise InvalidInput(f"dataset {self.name}: its unit, rules or statistics name a column it has not")
        if self.rows < 0 or self.bytes < 0:
            raise InvalidInput(f"dataset {self.name} has fewer than no rows or bytes")


class Withdrawal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The owner no longer offers a dataset: the body of a "withdrawal" statement."""

    party: PartyId
    name: DatasetName
    at: float


def version_of(columns: Sequence[Column], unit: str | None, content: Digest, rules: Sequence[Rule]) -> Digest:
    """The digest of schema, unit, content and rules: a change of any is another version."""
    said = msgspec.json.encode((tuple(columns), unit, content, tuple(rules)))
    return Digest("sha256:" + hashlib.sha256(said).hexdigest())


def permitted(statistics: Statistics, rules: Sequence[Rule], rows: int, units: int) -> Statistics:
    """The part of a column's statistics that may be published.

    Every party will see it, so only rules to all, for any purpose, count:
    nulls with `aggregate` or `group`, distinct with `group`, min and max with `extremes`, all with `open`; and none of
    it where the dataset holds fewer units than the rule asks for, or the rule asks for other contributors too. A few
    nulls, or all but a few, are a small group: then they are not told.
    """
    kinds: set[Allow] = set()
    least = 0
    for rule in rules:
        if rule.to or rule.purpose or not rule.speaks_of(statistics.column):
            continue
        if rule.allow == "open":
            return statistics
        if rule.units <= units and rule.parties == 1:
            kinds.update(kind for kind in KINDS if serves(rule.allow, kind))
            least = max(least, rule.units)
    told = statistics.nulls is not None and all(
        n == 0 or n >= least for n in (statistics.nulls, rows - statistics.nulls)
    )
    return Statistics(
        column=statistics.column,
        nulls=statistics.nulls if told and kinds & {"aggregate", "group"} else None,
        distinct=statistics.distinct if "group" in kinds else None,
        min=statistics.min if "extremes" in kinds else None,
        max=statistics.max if "extremes" in kinds else None,
    )
