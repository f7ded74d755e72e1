# SPDX-License-Identifier: Apache-2.0
"""Grants: permissions an owner gives beside its rules, to named parties or roles of its own users, for a time,
perhaps for a number of uses.

A grant is the body of a signed statement, and a revocation another that names it. How often a grant was used is
counted by whoever holds the journal; it is an argument here.
"""

import csv
import shlex
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import NewType

import msgspec

from junto.errors import InvalidInput
from junto.trust.allow import (
    DEFAULT_UNITS,
    EVERY_COLUMN,
    IN_WORDS,
    Allow,
    check_columns,
    check_purposes,
    check_recipients,
    check_units,
    serves,
)
from junto.types import DatasetName, PartyId, seconds_of

GrantId = NewType("GrantId", str)
"""One grant: 26 characters that sort by time, as task ids do."""


_LAST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`party` lets each of `to` learn `columns` of its `dataset` in the form `allow`. Times: UTC, Unix seconds."""

    id: GrantId
    party: PartyId
    to: tuple[PartyId, ...]  # or roles of the owner's own users: `@analysts`
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
        check_columns(self.columns)
        check_recipients(self.to)
        check_purposes(self.purpose)
        check_units(self.units)
        if not 0 <= self.not_before <= _LAST or not 0 <= self.until <= _LAST:
            raise InvalidInput("a grant begins and ends at a date from 1970 to 9999")
        if self.until <= self.not_before:
            raise InvalidInput("a grant ends after it begins: give a later date as its end")
        if self.uses is not None and self.uses < 1:
            raise InvalidInput(f"uses = {self.uses}: a grant is for at least one use")

    def in_force(self, now: float, used: int) -> bool:
        """True if the grant may be used at `now` by somebody who has used it `used` times."""
        return self.not_before <= now < self.until and (self.uses is None or used < self.uses)

    def speaks_of(self, column: str, needed: Allow) -> bool:
        """True if the grant's columns and kind include the need, leaving aside who, when and what for."""
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
    """An owner's request that its own node grant something; the node adds id and party. The body of `user.grant`."""

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

    @property
    def command(self) -> str:
        """The request as its owner would type it, on one line, quoted for a shell."""
        words = ["junto", "grant", "give", "--dataset", self.dataset]
        words += ["--columns", ",".join(_cell(column) for column in self.columns)]
        words += ["--allow", self.allow, "--to", ",".join(self.to)]
        words += [word for purpose in self.purpose for word in ("--purpose", purpose)]
        words += ["--units", str(self.units)] if self.units != DEFAULT_UNITS else []
        words += ["--uses", str(self.uses)] if self.uses is not None else []
        words += [] if self.not_before is None else ["--from", moment_text(self.not_before)]
        return shlex.join([*words, "--until", moment_text(self.until)])

    def sentence(self, owner: PartyId) -> str:
        """The request in words."""
        what = "every column" if self.columns == (EVERY_COLUMN,) else ", ".join(self.columns)
        who, why = " and ".join(self.to), f" for {' or '.join(self.purpose)}" if self.purpose else ""
        often = "" if self.uses is None else f", {self.uses} times"
        return (
            f"{owner} lets {who} have {what} of {self.dataset} {IN_WORDS[self.allow]}{why}"
            f" until {moment_text(self.until)}{often}"
        )


def columns_of(text: str) -> tuple[str, ...]:
    """The column names in a list written with commas; a name that holds a comma stands in double quotes."""
    return tuple(next(csv.reader([text], skipinitialspace=True), ()))


def _cell(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"') or name != name.strip() else name


def moment_text(at: float) -> str:
    """A time as messages and commands write it: a UTC date, with the time of day unless it is midnight."""
    moment = datetime.fromtimestamp(at, UTC).replace(microsecond=0)
    if at % 86400 == 0:
        return moment.date().isoformat()
    return moment.isoformat().replace("+00:00", "Z")


def moment_of(text: str, now: float) -> float:
    """Unix seconds of a UTC date, a date with time of day, or of a duration from now such as `30d`.

    Raises InvalidInput.
    """
    try:
        if text[4:5] != "-":
            return now + seconds_of(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{text[:40]!r} is not a time: write 2026-12-31, 2026-12-31T18:00Z or a duration from now such as 30d"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class GrantState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A grant and what became of it: an item of what `user.grants` answers."""

    grant: Grant
    used: int
    revoked_at: float | None = None
