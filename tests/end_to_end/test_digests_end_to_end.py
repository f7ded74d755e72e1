# SPDX-License-Identifier: Apache-2.0
"""What is published of private data lets nobody test a guess of a cell; open copies are still known as one table."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pooled import GROUPED, OPEN, Pooled

from junto.catalog.dataset import Dataset
from junto.plan.placement import same_table
from junto.testing.until import until

_TABLE = pa.table({"id": list(range(40)), "v": list(range(40))})


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled(["ann", "bea"]) as consortium:
        for party in ("ann", "bea"):
            consortium.publish(party, "private", _TABLE, GROUPED, unit="id")
            consortium.publish(party, "partly", _TABLE, [{"columns": ["v"], "allow": "open"}], unit="id")
            consortium.publish(party, "weather", _TABLE, OPEN)
        yield consortium


def _of(world: Pooled, party: str, name: str) -> Dataset:
    return next(d for d in world["bea"].datasets() if (d.party, d.name) == (party, name))


def _plain(file: Path) -> str:
    return "sha256:" + hashlib.sha256(hashlib.sha256(file.read_bytes()).digest()).hexdigest()


@pytest.mark.parametrize("name", ["private", "partly"])
def test_the_digest_of_private_content_is_nobody_elses_to_make(world: Pooled, name: str) -> None:
    ann, bea = _of(world, "ann", name), _of(world, "bea", name)
    files = [_plain(file) for file in world.home("ann").data_path.glob("*.parquet")]
    assert ann.content not in files
    assert ann.content != bea.content
    assert ann.version != bea.version
    assert _of(world, "ann", "private").content != _of(world, "ann", "partly").content  # of the same bytes


def test_the_same_private_content_has_the_same_version_at_its_owner(world: Pooled) -> None:
    before = _of(world, "ann", "private")
    world.publish("ann", "private", _TABLE, GROUPED, unit="id")
    until(lambda: _of(world, "ann", "private").published_at > before.published_at, "bea hears of it")
    again = _of(world, "ann", "private")
    assert (again.content, again.version) == (before.content, before.version)


def test_a_private_files_size_is_told_in_steps(world: Pooled) -> None:
    told = _of(world, "ann", "private").bytes
    size = next(world.home("ann").data_path.glob("*.parquet")).stat().st_size
    assert size <= told < 1.5 * size
    assert told & (told - 1) == 0 or bin(told).count("1") == 2


def test_open_copies_are_one_table(world: Pooled) -> None:
    ann, bea = _of(world, "ann", "weather"), _of(world, "bea", "weather")
    assert same_table(ann, bea)
    assert ann.content in [_plain(file) for file in world.home("ann").data_path.glob("*.parquet")]


def test_questions_over_private_data_are_held_to_the_published_content(world: Pooled) -> None:
    answer = world.ask("bea", "SELECT SUM(v) AS s FROM private")
    assert answer.table.to_pydict() == {"s": [2 * sum(range(40))]}
