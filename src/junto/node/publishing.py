# SPDX-License-Identifier: Apache-2.0
"""Publishing and withdrawing datasets, giving and revoking grants: a user's wish becomes a signed statement."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from junto.catalog.check import check_grant, check_spec
from junto.catalog.consent import Consent, named
from junto.catalog.dataset import Column, Dataset, Statistics, Withdrawal, permitted, version_of
from junto.catalog.names import fold
from junto.catalog.spec import DatasetSpec, parse
from junto.engines import files
from junto.engines.base import Limits
from junto.engines.inspection import Inspection
from junto.errors import InvalidInput
from junto.link import methods
from junto.node.facts import Facts
from junto.node.files import read_bounded
from junto.node.folders import Folders
from junto.node.ground import Ground
from junto.node.ids import new_id
from junto.node.ledger import Ledger
from junto.node.shelf import Shelf
from junto.plan.fragment import is_open
from junto.trust.charter import Charter
from junto.trust.grants import GrantId, GrantRequest, Revocation
from junto.types import DatasetName, Digest, PartyId

_SPEC_BYTES = 1 << 20


class Publishing:
    """The publications of this party's users through its node."""

    def __init__(
        self,
        me: PartyId,
        charter: Charter,
        ledger: Ledger,
        facts: Facts,
        shelf: Shelf,
        limits: Limits,
        spread: Callable[[bytes], None],
        ground: Ground,
        folders: Folders,
        secret: bytes,
    ) -> None:
        """secret: keys the digests of what private datasets hold."""
        self._me = me
        self._folders = folders
        self._parties = [member.name for member in charter.members]
        self._ledger = ledger
        self._facts = facts
        self._shelf = shelf
        self._limits = limits
        self._spread = spread
        self._unix_time = ground.unix_time
        self._random = ground.random
        self._secret = secret

    async def publish(self, file: Path, proof: str = "") -> methods.Published:
        """Publish every dataset of a file, or none: all are inspected before the first is signed.

        `proof` is of a caller that can write in our home; other callers' files lie in the folders listed, or Refused is
        raised before anything is read of them.
        """
        held = not await asyncio.to_thread(self._folders.proves, proof)
        if held:
            await asyncio.to_thread(self._folders.check, [file])
        specs = parse(await asyncio.to_thread(read_bounded, file, _SPEC_BYTES, "dataset file"), file)
        self._check_spellings([spec.name for spec in specs])
        inspected = [(spec, await asyncio.to_thread(self._inspect, spec, held)) for spec in specs]
        published: list[methods.PublishedDataset] = []
        mismatches: list[str] = []
        for spec, inspection in inspected:
            dataset = _published(_described(self._me, spec, inspection, self._unix_time()), self._secret)
            self._shelf.place(dataset.name, dataset.version, inspection)
            kept = await self._ledger.write("dataset", dataset)
            mismatches += self._facts.absorb(kept)
            self._spread(kept.envelope)
            counts = (dataset.rows, len(dataset.columns), len(dataset.rules))
            published.append(methods.PublishedDataset(dataset.name, dataset.version, *counts))
        return methods.Published(tuple(published), tuple(mismatches))

    async def withdraw(self, name: DatasetName) -> None:
        """No new question may read the dataset. Raises InvalidInput if it is not ours."""
        if self._facts.view.get(self._me, name) is None:
            raise InvalidInput(f"{self._me} has not published a dataset {name!r}; `junto dataset ls` lists them")
        kept = await self._ledger.write("withdrawal", Withdrawal(self._me, name, self._unix_time()))
        self._facts.absorb(kept)
        self._shelf.remove(name)
        self._spread(kept.envelope)

    async def consent(self, to: tuple[PartyId, ...]) -> None:
        """Have everybody know for whom we compute what reads none of our data, if that has changed. Raises InvalidInput
        if one of them is not in the charter."""
        named(to, tuple(self._parties))
        if self._facts.view.consents.get(self._me, ()) != to:
            kept = await self._ledger.write("consent", Consent(self._me, to, self._unix_time()))
            self._facts.absorb(kept)
            self._spread(kept.envelope)

    async def grant(self, request: GrantRequest) -> GrantId:
        """Give a grant; its id."""
        check_grant(request, self._facts.view.of(self._me), self._parties)
        now = self._unix_time()
        grant = request.grant(GrantId(new_id(now, self._random)), self._me, now)
        self._facts.absorb(await self._ledger.write("grant", grant))
        return grant.id

    async def revoke(self, id: GrantId) -> None:
        """Take a grant back. Raises InvalidInput if there is none of that id that stands."""
        if id not in {grant.id for grant in self._facts.grants}:
            raise InvalidInput(f"no grant {id} stands; `junto grant ls` lists them")
        kept = await self._ledger.write("revocation", Revocation(id, self._me, self._unix_time()))
        self._facts.absorb(kept)
        self._spread(kept.envelope)

    def _check_spellings(self, names: Sequence[DatasetName]) -> None:
        """Raises InvalidInput if two names of this party's would differ in case alone."""
        known = {fold(dataset.name): dataset.name for dataset in self._facts.view.of(self._me)}
        for name in names:
            other = known.setdefault(fold(name), name)
            if other != name:
                raise InvalidInput(
                    f"dataset {name!r} and {other!r} of {self._me} differ in case alone, which SQL does not tell apart:"
                    f" publish it as {other!r}, or `junto dataset withdraw {other}` first"
                )

    def _inspect(self, spec: DatasetSpec, held: bool) -> Inspection:
        from junto.engines import sources  # an engine is loaded when it is used

        if held:
            self._folders.check([spec.source.path])  # as it is written: what a glob finds outside is nobody's to learn
        located = files.locate(spec.source)
        if held:
            self._folders.check(located.paths)
        inspection = sources.inspect(located, self._limits, spec.unit)
        check_spec(spec, [Column(name, type) for name, type in inspection.columns], self._parties)
        return inspection


def _described(me: PartyId, spec: DatasetSpec, inspection: Inspection, now: float) -> Dataset:
    columns = tuple(Column(name, type) for name, type in inspection.columns)
    units = next((fact.distinct for fact in inspection.facts if fact.column == spec.unit), 0)
    units = inspection.rows if inspection.unit_unique else units
    statistics = tuple(
        permitted(
            Statistics(fact.column, fact.nulls, fact.distinct, fact.min, fact.max), spec.rules, inspection.rows, units
        )
        for fact in inspection.facts
    )
    return Dataset(
        party=me,
        name=spec.name,
        version=version_of(columns, spec.unit, inspection.content, spec.rules),
        content=inspection.content,
        columns=columns,
        rows=inspection.rows,
        bytes=inspection.bytes,
        unit=spec.unit,
        unit_unique=inspection.unit_unique,
        rules=spec.rules,
        statistics=statistics,
        published_at=now,
    )


def _published(dataset: Dataset, secret: bytes) -> Dataset:
    """The dataset as all may see it. Open data is told by the digest of its bytes, so that copies of one table are
    known as such. A digest of private data is keyed: whoever knows all of a file but one cell could try values
    otherwise. The same content still has the same digest at its owner. The size in bytes, which moves with one cell,
    is rounded up.
    """
    if is_open(dataset):
        return dataset
    named = b"junto dataset content\0" + dataset.name.encode() + b"\0" + dataset.content.encode()
    content = Digest("sha256:" + hmac.new(secret, named, hashlib.sha256).hexdigest())
    step = 1 << max(dataset.bytes.bit_length() - 2, 0)
    return msgspec.structs.replace(
        dataset,
        content=content,
        version=version_of(dataset.columns, dataset.unit, content, dataset.rules),
        bytes=-(-dataset.bytes // step) * step,
    )
