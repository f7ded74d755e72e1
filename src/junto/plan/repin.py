# SPDX-License-Identifier: Apache-2.0
"""The same plan over the present datasets, for a question that is asked again later without its frontend.

A plan names each dataset's version, and was compiled from schemas and rules; nothing of it comes from statistics.
What it takes from the schema are the columns it reads and their types; from the owners' names, whom a joint table asks;
from unit and rules, how units are counted, who reads what where, and the threshold. So the versions are replaced where
columns, types and owners are as they were, and every party's reading of its own fragments (`review`) still accepts the
plan. Rules are then judged by their owners, as those of any plan: a threshold that has become too low is refused there.
"""

from collections.abc import Iterable, Mapping

import msgspec
from sqlglot import exp

from junto.catalog.dataset import Column, Dataset
from junto.errors import InvalidInput, PeerFault
from junto.plan import expressions
from junto.plan.placement import same_table
from junto.plan.review import review
from junto.plan.steps import Plan, Query, Read
from junto.types import DatasetName, Digest, PartyId

_Key = tuple[PartyId, DatasetName]


class Basis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The basis of a plan: the columns that it reads of a dataset, and whether it asks all owners of the name."""

    party: PartyId
    dataset: DatasetName
    version: Digest
    unit: str | None
    columns: tuple[Column, ...]
    joint: bool


def basis_of(plan: Plan, datasets: Iterable[Dataset]) -> tuple[Basis, ...]:
    """The basis of a plan just compiled. Raises InvalidInput unless it is compiled from the datasets as given."""
    known = _by_key(datasets)
    joint = _without_a_party(plan.question)
    found: dict[_Key, Basis] = {}
    for query, name, read in _reads(plan):
        dataset = known.get((query.party, name))
        if dataset is None or dataset.version != read.version:
            raise InvalidInput(f"{name} of {query.party} is not the version the question was compiled from: ask again")
        earlier = found.get((query.party, name))
        names = {*read.columns, *(column.name for column in (earlier.columns if earlier is not None else ()))}
        columns = tuple(column for column in dataset.columns if column.name in names)
        all_owners = joint is None or name.casefold() in joint
        found[query.party, name] = Basis(query.party, name, dataset.version, dataset.unit, columns, all_owners)
    return tuple(found[key] for key in sorted(found))


def repin(plan: Plan, basis: Iterable[Basis], datasets: Iterable[Dataset]) -> Plan:
    """The plan, reading the present datasets. Raises InvalidInput naming what no longer fits it."""
    present = tuple(datasets)
    known = _by_key(present)
    rests = tuple(basis)
    for one in rests:
        _check(one, known)
    _check_owners(rests, known)
    pinned = msgspec.structs.replace(
        plan, steps=tuple(_pinned(step, known) if isinstance(step, Query) else step for step in plan.steps)
    )
    try:
        for party in pinned.parties:
            review(pinned, party, present)
    except PeerFault as error:
        raise InvalidInput(f"the datasets have changed so that the question no longer fits them: {error}") from error
    return pinned


def _check(one: Basis, known: Mapping[_Key, Dataset]) -> None:
    where = f"{one.dataset} of {one.party}"
    dataset = known.get((one.party, one.dataset))
    if dataset is None:
        raise InvalidInput(f"{where} is no longer published")
    if dataset.unit != one.unit:
        raise InvalidInput(f"{where} has the unit {dataset.unit or 'each row'}; it was {one.unit or 'each row'}")
    types = {column.name: column.type for column in dataset.columns}
    for column in one.columns:
        if column.name not in types:
            raise InvalidInput(f"{where} no longer has the column {column.name}")
        if types[column.name] != column.type:
            raise InvalidInput(f"column {column.name} of {where} is {types[column.name]} now; it was {column.type}")


def _check_owners(basis: tuple[Basis, ...], known: Mapping[_Key, Dataset]) -> None:
    """An answer over some of the owners of a joint table would look like one over all."""
    for name in sorted({one.dataset for one in basis if one.joint}):
        asked = [known[one.party, name] for one in basis if one.dataset == name]
        further = sorted(
            dataset.party
            for dataset in known.values()
            if dataset.name == name and not any(dataset is one or same_table(dataset, one) for one in asked)
        )
        if further:
            raise InvalidInput(f"{further[0]} publishes {name} now, too, and is not asked: compile the question again")


def _pinned(query: Query, known: Mapping[_Key, Dataset]) -> Query:
    reads = tuple(
        read
        if read.dataset is None
        else msgspec.structs.replace(read, version=known[query.party, read.dataset].version)
        for read in query.reads
    )
    return msgspec.structs.replace(query, reads=reads)


def _reads(plan: Plan) -> Iterable[tuple[Query, DatasetName, Read]]:
    for step in plan.steps:
        if isinstance(step, Query):
            for read in step.reads:
                if read.dataset is not None:
                    yield step, read.dataset, read


def _by_key(datasets: Iterable[Dataset]) -> dict[_Key, Dataset]:
    return {(dataset.party, dataset.name): dataset for dataset in datasets}


def _without_a_party(question: str) -> set[str] | None:
    """Tables that a question names without a party, which stand for all owners; None if it is not SQL."""
    try:
        tree = expressions.parse(question)
    except InvalidInput:
        return None
    return {table.name.casefold() for table in tree.find_all(exp.Table) if not table.text("db")}
