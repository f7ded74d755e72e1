# SPDX-License-Identifier: Apache-2.0
"""Rules, and the judgement of what a question needs by them: deny by default, per column, per recipient."""

import msgspec

from junto.errors import InvalidInput
from junto.trust.allow import (
    DEFAULT_UNITS,
    EVERY_COLUMN,
    Allow,
    check_columns,
    check_name,
    check_parties,
    check_purposes,
    check_units,
)
from junto.trust.grants import GrantId
from junto.types import DatasetName, PartyId

__all__ = ["Allow", "Need", "Refusal", "Rule", "Verdict"]

DomainValue = str | int | float | bool


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A line saying what may leave of the columns named, and to whom."""

    columns: tuple[str, ...]
    allow: Allow
    to: tuple[PartyId, ...] = ()  # empty: any party of the consortium
    purpose: tuple[str, ...] = ()  # empty: any
    units: int = DEFAULT_UNITS  # a group released holds at least so many
    parties: int = 1  # and so many contributors
    domain: tuple[DomainValue, ...] | None = None  # the values a grouping key can take, when they are public
    name: str = ""

    def __post_init__(self) -> None:
        """Raises InvalidInput; out of a decoder, msgspec.ValidationError."""
        check_columns(self.columns)
        check_parties(self.to)
        check_purposes(self.purpose)
        check_units(self.units)
        if self.name:
            check_name(self.name, "rule")
        if not 1 <= self.parties <= 1000:
            raise InvalidInput(f"parties = {self.parties}: contributors to a group are from 1 to 1000")
        if self.allow == "rows" and not self.to:
            raise InvalidInput('allow = "rows" needs its recipients: add to = [...], or allow = "open" for all')
        if self.allow == "open" and (self.to or self.purpose):
            raise InvalidInput('allow = "open" is to all, for any purpose: for some, write "rows" with to = [...]')
        if self.domain is not None and (self.allow != "group" or len(self.columns) != 1 or not self.domain):
            raise InvalidInput('domain lists the values of one column with allow = "group"')

    @property
    def label(self) -> str:
        """How messages call it: its name, or else what it says."""
        return self.name or f"{self.allow} on {', '.join(self.columns)}"

    def speaks_of(self, column: str) -> bool:
        """Whether the column is among its columns."""
        return column in self.columns or self.columns == (EVERY_COLUMN,)


class Need(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question needs `allow` on a column of one party's dataset, because of `clause`.

    Column `*` with `aggregate` is the number of rows alone, as `count(*)` without grouping needs it.
    """

    party: PartyId
    dataset: DatasetName
    column: str
    allow: Allow
    clause: str


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why one need is not met, and the grant that would meet it."""

    need: Need
    recipients: tuple[PartyId, ...]  # those of the recipients for whom it is not
    rule: str | None  # the nearest rule's label
    why: str  # why that rule does not serve
    command: str  # what the owner would type
    sentence: str  # the same grant in words


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an owner decides about a question on one of its datasets."""

    allowed: bool
    units: int  # groups of fewer units stay hidden
    parties: int  # and groups of fewer contributors
    refusals: tuple[Refusal, ...] = ()
    used_rules: tuple[str, ...] = ()  # labels
    used_grants: tuple[GrantId, ...] = ()
