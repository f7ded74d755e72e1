# SPDX-License-Identifier: Apache-2.0
"""Checks of a description, or of a grant, that need the source's columns and the charter's parties."""

from collections.abc import Collection, Sequence

from junto.catalog.dataset import Column, Dataset
from junto.catalog.names import meant
from junto.catalog.spec import DatasetSpec
from junto.errors import InvalidInput
from junto.trust.allow import EVERY_COLUMN, ROLE_MARK
from junto.trust.grants import GrantRequest
from junto.types import DatasetName, PartyId


def check_spec(spec: DatasetSpec, columns: Sequence[Column], parties: Collection[PartyId]) -> None:
    """Raises InvalidInput if the unit or a rule names a column or party that does not exist; says what was meant."""
    place = f"{spec.file}: [dataset.{spec.name}]"
    names = [column.name for column in columns]
    if spec.unit is not None and spec.unit not in names:
        raise InvalidInput(f"{place}: unit = {spec.unit!r} is no column of the source: {meant(spec.unit, names)}")
    for number, rule in enumerate(spec.rules, start=1):
        _check_columns(f"{place} rule {number}", rule.columns, names)
        _check_parties(f"{place} rule {number}", rule.to, parties)


def check_grant(request: GrantRequest, own: Collection[Dataset], parties: Collection[PartyId]) -> None:
    """Raises InvalidInput if a grant is of a dataset that its owner has not published, or names what does not exist."""
    datasets = {dataset.name: dataset for dataset in own}
    dataset = datasets.get(DatasetName(request.dataset))
    if dataset is None:
        raise InvalidInput(f"no dataset {request.dataset!r} is published here: {meant(request.dataset, datasets)}")
    _check_columns(f"grant on {dataset.name}", request.columns, [column.name for column in dataset.columns])
    _check_parties(f"grant on {dataset.name}", request.to, parties)


def _check_columns(place: str, used: Sequence[str], names: Sequence[str]) -> None:
    for column in used:
        if column not in names and column != EVERY_COLUMN:
            raise InvalidInput(f"{place}: unknown column {column!r}: {meant(column, names)}")


def _check_parties(place: str, to: Sequence[PartyId], parties: Collection[PartyId]) -> None:
    for party in to:
        if not party.startswith(ROLE_MARK) and party not in parties:
            raise InvalidInput(f"{place}: no party {party!r} in the charter: {meant(party, parties)}")
