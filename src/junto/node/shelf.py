# SPDX-License-Identifier: Apache-2.0
"""The places of this party's published datasets: never told to anyone, kept in `data/sources.json` of its home."""

from pathlib import Path

import msgspec

from junto.engines.base import Source, narrowed
from junto.engines.inspection import Inspection, unchanged
from junto.errors import DataChanged, InvalidInput
from junto.logs import logger
from junto.node.files import read_bounded, write_whole
from junto.plan.steps import Read
from junto.types import DatasetName, Digest

_log = logger("junto.shelf")
_SHELF_BYTES = 256 << 20


class _Placed(msgspec.Struct, frozen=True):
    version: Digest
    inspection: Inspection


class Shelf:
    """Dataset name → its version and its files as they were when it was published."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._placed: dict[DatasetName, _Placed] = {}

    def load(self) -> None:
        """Read what was published before. Raises InvalidInput if the file is damaged."""
        if not self._path.exists():
            return
        data = read_bounded(self._path, _SHELF_BYTES, "list of sources")
        try:
            self._placed = msgspec.json.decode(data, type=dict[DatasetName, _Placed])
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"{self._path} is damaged: publish the datasets again, then remove it") from error

    def place(self, name: DatasetName, version: Digest, inspection: Inspection) -> None:
        """Remember where a new version lies. Raises StorageFailed."""
        self._placed[name] = _Placed(version, inspection)
        self._save()

    def remove(self, name: DatasetName) -> None:
        """Forget a withdrawn dataset."""
        if self._placed.pop(name, None) is not None:
            self._save()

    def check(self, name: DatasetName, version: Digest) -> None:
        """Blocks while it looks. Raises DataChanged if the files are not that version any more, InvalidInput."""
        placed = self._placed.get(name)
        if placed is None:
            raise InvalidInput(f"dataset {name} is published, but its files are not known here: publish it again")
        if placed.version != version:
            raise DataChanged(f"dataset {name} has a new version since the question was compiled: ask again")
        try:
            now = unchanged(placed.inspection)
        except DataChanged as error:
            _log.warning("a published source has changed", dataset=name, reason=str(error))
            # What we raise may reach other parties; where the files lie is nobody's business but ours.
            raise DataChanged(
                f"the files of dataset {name} are not what was published any more: its owner has to publish it again"
            ) from None
        if now is not placed.inspection:
            self._placed[name] = _Placed(version, now)

    def source(self, read: Read) -> Source:
        """The source for one read of a fragment: the columns judged, no other. Raises InvalidInput,
        DataChanged."""
        placed = self._placed.get(read.dataset) if read.dataset is not None else None
        if placed is None:
            raise InvalidInput(f"the fragment reads {read.name}, which is not published here")
        if placed.version != read.version:
            raise DataChanged(f"dataset {read.dataset} has a new version since the question was judged: ask again")
        return narrowed(placed.inspection.source, read.columns)

    def _save(self) -> None:
        write_whole(self._path, msgspec.json.encode(self._placed), private=True)
