# SPDX-License-Identifier: Apache-2.0
"""One node's view of all parties' datasets, merged from their signed statements in whatever order they arrive.

Of one party's statements on one name the newest counts; a withdrawal is as new as its time, and of two statements of
the same instant a withdrawal wins, then the greater version. So every order of arrival gives the same view.
"""

from collections.abc import Sequence

from junto.catalog.consent import Consent
from junto.catalog.dataset import Column, Dataset, Withdrawal, version_of
from junto.catalog.names import fold, meant
from junto.errors import InvalidInput, PeerFault
from junto.types import DatasetName, PartyId


class CatalogView:
    """The datasets known here, by party and name. Not shared between threads."""

    def __init__(self) -> None:
        self._newest: dict[tuple[PartyId, DatasetName], Dataset | Withdrawal] = {}
        self._consents: dict[PartyId, Consent] = {}

    def add(self, author: PartyId, dataset: Dataset) -> bool:
        """True if a dataset that `author` signed changed the view.

        Raises PeerFault if it is another party's, or its version is not the digest of what it says.
        """
        if dataset.version != version_of(dataset.columns, dataset.unit, dataset.content, dataset.rules):
            raise PeerFault(f"the version of a dataset signed by {author} is not the digest of what it holds: refused")
        return self._take(author, dataset)

    def withdraw(self, author: PartyId, withdrawal: Withdrawal) -> bool:
        """True if a withdrawal that `author` signed changed the view. Raises PeerFault if it is another party's."""
        return self._take(author, withdrawal)

    def consent(self, author: PartyId, consent: Consent) -> bool:
        """True if a consent that `author` signed changed the view. Raises PeerFault if it is another party's."""
        if consent.party != author:
            raise PeerFault(f"{author} signed a statement about whom {consent.party} computes for: refused")
        known = self._consents.get(author)
        if known is not None and (consent.at, consent.to) <= (known.at, known.to):
            return False
        self._consents[author] = consent
        return True

    @property
    def consents(self) -> dict[PartyId, tuple[PartyId, ...]]:
        """The parties for which each party computes what reads none of its data; a party with none is left out."""
        return {party: consent.to for party, consent in sorted(self._consents.items()) if consent.to}

    def _take(self, author: PartyId, said: Dataset | Withdrawal) -> bool:
        if said.party != author:
            raise PeerFault(f"{author} signed a statement about a dataset of {said.party}: refused")
        key = (said.party, said.name)
        known = self._newest.get(key)
        if known is not None and _age(said) <= _age(known):
            return False
        self._newest[key] = said
        return True

    @property
    def datasets(self) -> list[Dataset]:
        """All that are offered, by name and then party."""
        offered = [said for said in self._newest.values() if isinstance(said, Dataset)]
        return sorted(offered, key=lambda dataset: (dataset.name, dataset.party))

    def of(self, party: PartyId) -> list[Dataset]:
        """The datasets of one party, by name."""
        return [dataset for dataset in self.datasets if dataset.party == party]

    def joint(self, name: DatasetName) -> list[Dataset]:
        """The parts of a joint table: every party's dataset of that name, by party; empty if there is none."""
        return [dataset for dataset in self.datasets if dataset.name == name]

    def respelled(self, name: DatasetName) -> list[Dataset]:
        """The datasets whose names differ from this one in case alone: two names here, one name to SQL."""
        return [d for d in self.datasets if d.name != name and fold(d.name) == fold(name)]

    def get(self, party: PartyId, name: DatasetName) -> Dataset | None:
        """One party's dataset, or None if it offers none of that name."""
        said = self._newest.get((party, name))
        return said if isinstance(said, Dataset) else None

    def find(self, name: str) -> list[Dataset]:
        """The datasets that `joint` gives, at least one. Raises InvalidInput that suggests the nearest names."""
        found = self.joint(DatasetName(name))
        if not found:
            raise InvalidInput(f"no party publishes a dataset {name!r}: {meant(name, self._names())}")
        return found

    def _names(self) -> list[str]:
        return sorted({dataset.name for dataset in self.datasets})


def compare(a: Dataset, b: Dataset) -> list[str]:
    """The differences of two parties' schemas, a line for each column in plain words; empty if they are the same.

    The order of columns does not count. The unit does: a joint threshold counts it.
    """
    lines = []
    types = {column.name: column.type for column in a.columns}
    others = {column.name: column.type for column in b.columns}
    for name in dict.fromkeys((*types, *others)):
        if name not in others:
            lines.append(f"column {name}: only at {a.party}{_respelled(name, b.columns, b.party)}")
        elif name not in types:
            lines.append(f"column {name}: only at {b.party}{_respelled(name, a.columns, a.party)}")
        elif types[name] != others[name]:
            lines.append(f"column {name}: {types[name]} at {a.party}, {others[name]} at {b.party}")
    if a.unit != b.unit:
        lines.append(f"unit: {a.unit or 'each row'} at {a.party}, {b.unit or 'each row'} at {b.party}")
    return lines


def _respelled(name: str, columns: Sequence[Column], party: PartyId) -> str:
    """A hint where the other party has the same name in another case."""
    same = [column.name for column in columns if column.name.casefold() == name.casefold()]
    return f" ({party} spells it {same[0]})" if same else ""


def _age(said: Dataset | Withdrawal) -> tuple[float, bool, str]:
    """The age of a statement: later and greater is newer."""
    if isinstance(said, Withdrawal):
        return said.at, True, ""
    return said.published_at, False, said.version
