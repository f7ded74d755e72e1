# SPDX-License-Identifier: Apache-2.0
"""[resources] in node.toml: the machine's own by default, caps by party, and what is wrong is said by its key."""

import os
from pathlib import Path

import pytest

from junto.errors import InvalidInput
from junto.node.settings import read_settings
from junto.tasks.capacity import Cap, Capacity
from junto.types import PartyId

ALL = """
[resources]
slots  = 3
memory = "2GB"
disk   = "5GB"

[resources.cap]
default = { tasks = 100 }
bea     = { slots = 1, memory = "200MB", disk = "1GB", tasks = 5 }
"""


def _written(folder: Path, text: str) -> Path:
    (folder / "node.toml").write_text(text)
    return folder / "node.toml"


def test_without_a_word_the_node_gives_the_machines_processors_and_half_its_memory(tmp_path: Path) -> None:
    capacity = read_settings(tmp_path / "node.toml").capacity
    assert capacity.slots == os.cpu_count()
    assert capacity.memory * 2 == pytest.approx(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), abs=2)
    assert (capacity.disk, capacity.cap, capacity.caps) == (64 * 10**9, Cap(), {})


def test_resources_and_caps_are_what_is_written(tmp_path: Path) -> None:
    bea = Cap(slots=1, memory=200_000_000, disk=10**9, tasks=5)
    expected = Capacity(3, 2 * 10**9, 5 * 10**9, Cap(tasks=100), {PartyId("bea"): bea})
    assert read_settings(_written(tmp_path, ALL)).capacity == expected
    assert expected.cap_of(PartyId("acme"), PartyId("me")) == Cap(tasks=100)
    assert expected.cap_of(PartyId("bea"), PartyId("me")) == bea
    assert expected.cap_of(PartyId("bea"), PartyId("bea")) == Cap()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resources = 3", "resources"),
        ("[resources]\nslots = 0", "resources.slots = 0"),
        ("[resources]\nslots = 1.5", "[resources]"),
        ('[resources]\nmemory = "much"', "resources.memory"),
        ('memory = "300MB"\n[resources]\nmemory = "200MB"', "less than memory = '300MB'"),
        ('[resources]\ndisk = "0GB"', "resources.disk"),
        ("[resources]\nmemroy = 1", "memroy"),
        ("[resources.cap]\nbea = 1", "$.cap["),
        ("[resources.cap]\nbea = { slots = 0 }", "resources.cap.bea.slots = 0"),
        ('[resources.cap]\nbea = { memory = "x" }', "resources.cap.bea.memory"),
        ("[resources.cap]\ndefault = { tasks = -1 }", "resources.cap.default.tasks = -1"),
        ("[resources.cap]\nbea = { cpus = 2 }", "cpus"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_settings(_written(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
