# SPDX-License-Identifier: Apache-2.0
"""Where published data lies: kept over restarts, read only in the version asked for, noticed when it changes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from junto.catalog.spec import Source
from junto.engines import files, sources
from junto.engines.base import FileSource, Limits
from junto.engines.inspection import Inspection
from junto.errors import DataChanged, InvalidInput
from junto.node.shelf import Shelf
from junto.plan.steps import Read
from junto.types import DatasetName, Digest

NAME = DatasetName("flights")
VERSION, OTHER = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


def _inspected(folder: Path) -> Inspection:
    path = folder / "flights.parquet"
    pq.write_table(pa.table({"origin": ["EWR", "JFK"]}), path)
    return sources.inspect(files.locate(Source("parquet", str(path))), Limits(100_000_000, 1, folder), None)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "sources.json")
    shelf.load()
    shelf.place(NAME, VERSION, _inspected(tmp_path))
    return shelf


def test_a_published_dataset_is_read_from_where_it_lies_also_after_a_restart(shelf: Shelf, tmp_path: Path) -> None:
    again = Shelf(tmp_path / "sources.json")
    again.load()
    for one in (shelf, again):
        one.check(NAME, VERSION)
        source = one.source(Read("f", NAME, VERSION))
        assert isinstance(source, FileSource)
        assert source.paths == (str(tmp_path / "flights.parquet"),)
    assert (tmp_path / "sources.json").stat().st_mode & 0o077 == 0


def test_another_version_than_the_one_published_is_not_read(shelf: Shelf) -> None:
    for refused in (lambda: shelf.check(NAME, OTHER), lambda: shelf.source(Read("f", NAME, OTHER))):
        with pytest.raises(DataChanged, match="new version"):
            refused()


def test_what_is_not_published_is_not_read(shelf: Shelf) -> None:
    with pytest.raises(InvalidInput, match="publish it again"):
        shelf.check(DatasetName("weather"), VERSION)
    for read in (Read("w", DatasetName("weather"), VERSION), Read("s")):
        with pytest.raises(InvalidInput, match="not published here"):
            shelf.source(read)


def test_a_withdrawn_dataset_is_forgotten(shelf: Shelf, tmp_path: Path) -> None:
    shelf.remove(NAME)
    shelf.remove(NAME)
    again = Shelf(tmp_path / "sources.json")
    again.load()
    with pytest.raises(InvalidInput):
        again.check(NAME, VERSION)


def test_a_file_that_changed_after_it_was_published_is_noticed(shelf: Shelf, tmp_path: Path) -> None:
    pq.write_table(pa.table({"origin": ["LGA"]}), tmp_path / "flights.parquet")
    with pytest.raises(DataChanged) as refusal:
        shelf.check(NAME, VERSION)
    assert "LGA" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"flights": 1}', b"\xff"])
def test_a_damaged_list_is_one_line_with_the_mend(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "sources.json").write_bytes(data)
    with pytest.raises(InvalidInput, match="publish the datasets again") as refusal:
        Shelf(tmp_path / "sources.json").load()
    assert "\n" not in str(refusal.value)
