# SPDX-License-Identifier: Apache-2.0
"""Grants: permissions an owner gives beside its rules, to named parties, for a time, perhaps for a number of uses.

A grant is the body of a signed statement, and a revocation another that names it. How often a grant was used is
counted by whoever holds the journal; it is an argument here.
"""

import math
from collections.abc import Collection, Iterable
from typing import NewType

import msgspec

from junto.errors import InvalidInput
from junto.trust.allow import (
    DEFAULT_UNITS,
    EVERY_COLUMN,
    Allow,
    check_columns,
    check_parties,
    check_purposes,
    check_units,
    serves,
)
from junto.types import DatasetName, PartyId

GrantId = NewType("GrantId", str)
"""One grant: 26 characters that sort by time, as task ids do."""


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`party` lets each of `to` learn `columns` of its `dataset` in the form `allow`. Times: UTC, Unix seconds."""

    id: GrantId
    party: PartyId
    to: tuple[PartyId, ...]
    dataset: DatasetName
    columns: tuple[str, ...]
    allow: Allow
    not_before: float
    until: float
    purpose: tuple[str, ...] = ()  # empty: any
    uses: int | None = None  # None: as often as they like
    units: int = DEFAULT_UNITS

    def __post_init__(self) -> None:
        """Raises InvalidInput; out of a decoder, msgspec.ValidationError."""
        if not self.to:
            raise InvalidInput("a grant names the parties it is given to: add at least one")
        if self.allow == "open":
            raise InvalidInput("a grant is to named parties: give rows, or publish a rule that allows open")
        check_columns(self.columns)
        check_parties(self.to)
        check_purposes(self.purpose)
        check_units(self.units)
        if not (math.isfinite(self.not_before) and math.isfinite(self.until)):
            raise InvalidInput("a grant begins and ends at a date")
        if self.until <= self.not_before:
            raise InvalidInput("a grant ends after it begins: give a later date as its end")
        if self.uses is not None and self.uses < 1:
            raise InvalidInput(f"uses = {self.uses}: a grant is for at least one use")

    def in_force(self, now: float, used: int) -> bool:
        """Whether it may be used at `now` by somebody who has used it `used` times."""
        return self.not_before <= now < self.until and (self.uses is None or used < self.uses)

    def speaks_of(self, column: str, needed: Allow) -> bool:
        """Whether its columns and kind include the need, leaving aside who, when and what for."""
        return serves(self.allow, needed) and (column in self.columns or self.columns == (EVERY_COLUMN,))


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The owner takes a grant back. Work already contracted keeps what its contract says."""

    grant: GrantId
    party: PartyId
    at: float


def standing(grants: Iterable[Grant], revocations: Iterable[Revocation]) -> tuple[Grant, ...]:
    """The grants that their own givers have not revoked."""
    gone: Collection[tuple[PartyId, GrantId]] = {(r.party, r.grant) for r in revocations}
    return tuple(grant for grant in grants if (grant.party, grant.id) not in gone)


class GrantRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an owner asks its own node to grant; the node adds id and party. Answers `grant.give` with a Grant."""

    to: tuple[PartyId, ...]
    dataset: DatasetName
    columns: tuple[str, ...]
    allow: Allow
    until: float
    not_before: float | None = None  # None: from now
    purpose: tuple[str, ...] = ()
    uses: int | None = None
    units: int = DEFAULT_UNITS

    def grant(self, id: GrantId, party: PartyId, now: float) -> Grant:
        """The grant asked for. Raises InvalidInput."""
        return Grant(
            id=id,
            party=party,
            to=self.to,
            dataset=self.dataset,
            columns=self.columns,
            allow=self.allow,
            not_before=now if self.not_before is None else self.not_before,
            until=self.until,
            purpose=self.purpose,
            uses=self.uses,
            units=self.units,
        )


class RevokeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names the grant to take back. Answers `grant.revoke` with a Revocation."""

    id: GrantId


class GrantState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A grant and what became of it: an item of what `grant.list` answers."""

    grant: Grant
    used: int
    revoked_at: float | None = None
