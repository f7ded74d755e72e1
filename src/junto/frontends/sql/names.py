# SPDX-License-Identifier: Apache-2.0
"""Finds the datasets that a table's name in a question stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

from sqlglot import exp

from junto.catalog.dataset import Column, Dataset
from junto.catalog.names import meant
from junto.errors import InvalidInput, UnsupportedSQL
from junto.plan.fragment import is_open
from junto.types import PartyId

_FOLD = str.maketrans(ascii_uppercase, ascii_lowercase)


def fold(name: str) -> str:
    """A name as DuckDB compares it: without the case of ASCII letters."""
    return name.translate(_FOLD)


@dataclass(frozen=True)
class Named:
    """What a table's name stands for: one dataset, or those of several parties that are one joint table."""

    datasets: tuple[Dataset, ...]  # in order of their parties

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
    def open(self) -> bool:
        """Whether everybody may see all of it."""
        return all(is_open(dataset) for dataset in self.datasets)

    def visible_to(self, party: PartyId) -> bool:
        """Whether a party may see all of it: it is open, or the party's own."""
        return all(dataset.party == party or is_open(dataset) for dataset in self.datasets)


class Catalog:
    """The datasets of all parties, by name."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = sorted(datasets, key=lambda d: (d.name, d.party))

    def find(self, table: exp.Table) -> Named:
        """What a table in a question stands for. Raises InvalidInput with the nearest name, UnsupportedSQL."""
        if not isinstance(table.this, exp.Identifier):
            function = table.this.sql(dialect="duckdb").split("(")[0].lower()
            raise UnsupportedSQL(
                f"{function[:60]}(…) as a table is not supported: publish it as a dataset and name that"
            )
        if table.args.get("catalog"):
            raise InvalidInput(f"{table.sql(dialect='duckdb')[:80]}: write a table as `dataset` or `party.dataset`")
        name, party = table.name, table.text("db")
        found = self._of_name(name)
        if not found:
            raise InvalidInput(f"no dataset {name!r}; {meant(name, sorted({d.name for d in self._datasets}))}")
        if party:
            own = [d for d in found if fold(d.party) == fold(party)]
            if not own:
                raise InvalidInput(f"{party} has no dataset {name!r}; {meant(party, sorted({d.party for d in found}))}")
            return Named(tuple(own))
        _check_one_schema(found)
        return Named(tuple(found))

    def _of_name(self, name: str) -> list[Dataset]:
        exact = [d for d in self._datasets if d.name == name]
        found = exact or [d for d in self._datasets if fold(d.name) == fold(name)]
        if len({d.name for d in found}) > 1:
            raise InvalidInput(f"{name!r} may be {' or '.join(sorted({repr(d.name) for d in found}))}: write its case")
        return found


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
