# SPDX-License-Identifier: Apache-2.0
"""Finds the datasets that a table's name in a question stands for."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from junto.catalog.dataset import Column, Dataset
from junto.catalog.names import fold, meant
from junto.errors import InvalidInput, UnsupportedSQL
from junto.plan.fragment import is_open
from junto.plan.placement import same_table
from junto.types import PartyId


@dataclass(frozen=True)
class Named:
    """The meaning of a table's name: one dataset, or those of several parties that are one joint table.

    Open datasets of the same content are one, held several times: its rows count once, whoever serves them.
    """

    datasets: tuple[Dataset, ...]  # in order of their parties
    copies: tuple[Dataset, ...] = ()  # the same as some of `datasets`, held by others

    @property
    def name(self) -> str:
        return self.datasets[0].name

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.datasets[0].columns

    @property
    def owners(self) -> tuple[PartyId, ...]:
        return tuple(dataset.party for dataset in self.datasets)

    @property
    def holders(self) -> frozenset[PartyId]:
        """The parties that hold all of it."""
        return frozenset(d.party for d in (*self.datasets, *self.copies)) if len(self.datasets) == 1 else frozenset()

    def at(self, party: PartyId) -> Dataset | None:
        """The dataset that a party holds of it, its own part or a copy."""
        return next((d for d in (*self.datasets, *self.copies) if d.party == party), None)

    @property
    def open(self) -> bool:
        """True if everybody may see all of the table."""
        return all(is_open(dataset) for dataset in self.datasets)


class Catalog:
    """The datasets of all parties, by name. Of an open table held several times the asker's is read, or the first."""

    def __init__(self, datasets: Sequence[Dataset], asker: PartyId) -> None:
        self._datasets = sorted(datasets, key=lambda d: (d.name, d.party))
        self._asker = asker

    def find(self, table: exp.Table) -> Named:
        """The datasets of a table's name in a question. Raises InvalidInput with the nearest name, UnsupportedSQL."""
        if not isinstance(table.this, exp.Identifier):
            function = table.this.sql(dialect="duckdb").split("(")[0].lower()
            raise UnsupportedSQL(
                f"{function[:60]}(…) as a table is not supported: publish it as a dataset and name that"
            )
        if table.args.get("catalog"):
            raise InvalidInput(f"{table.sql(dialect='duckdb')[:80]}: write a table as `dataset` or `party.dataset`")
        name, party = table.name, table.text("db")
        found = self._of_name(name, party)
        if not found:
            raise InvalidInput(f"no dataset {name!r}; {meant(name, sorted({d.name for d in self._datasets}))}")
        if party:
            own = [d for d in found if fold(d.party) == fold(party)]
            if not own:
                raise InvalidInput(f"{party} has no dataset {name!r}; {meant(party, sorted({d.party for d in found}))}")
            return Named(tuple(own))
        _check_one_schema(found)
        return self._named(found)

    def host(self, tables: Sequence[Named]) -> PartyId | None:
        """The party that holds all of some tables, the asker if it does; None if nobody holds them all."""
        common = frozenset.intersection(*(table.holders for table in tables)) if tables else frozenset[PartyId]()
        return min(common, key=lambda party: (party != self._asker, party), default=None)

    def _named(self, found: Sequence[Dataset]) -> Named:
        kept: list[Dataset] = []
        copies: list[Dataset] = []
        for dataset in sorted(found, key=lambda d: d.party != self._asker):
            known = any(same_table(dataset, other) for other in kept)
            (copies if known else kept).append(dataset)
        return Named(tuple(sorted(kept, key=lambda d: d.party)), tuple(copies))

    def _of_name(self, name: str, party: str) -> list[Dataset]:
        """The datasets of a name, of one party if it is named. Raises InvalidInput for names that differ in case."""
        found = [d for d in self._datasets if fold(d.name) == fold(name)]
        of_party = [d for d in found if fold(d.party) == fold(party)] if party else []
        spellings = {d.name for d in of_party or found}
        if len(spellings) > 1:
            if of_party and name in spellings:
                return [d for d in found if d.name == name]
            told = " and ".join(f"{d.name!r} of {d.party}" for d in of_party or found)
            raise InvalidInput(
                f"{told} are different tables, as their names differ in case: ask the owners for one spelling,"
                f" or write one party's, as {found[0].party}.{found[0].name}"
            )
        return [d for d in found if d.name in spellings]


def _check_one_schema(datasets: Sequence[Dataset]) -> None:
    first = datasets[0]
    for other in datasets[1:]:
        here, there = ({c.name: c.type for c in d.columns} for d in (first, other))
        for column in (*here, *there):
            if here.get(column) != there.get(column):
                raise InvalidInput(
                    f"{first.name} is no joint table: {column!r} is {here.get(column, 'absent')} at {first.party}"
                    f" and {there.get(column, 'absent')} at {other.party}; write {first.party}.{first.name}"
                )
