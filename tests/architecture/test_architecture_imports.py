# SPDX-License-Identifier: Apache-2.0
"""Imports point one way: what each room may know of the others."""

from pathlib import Path

import pytest
from source_tree import PACKAGE, imports, room_of, rooms, short, sources

_CATALOG = {"trust", "journal", "catalog"}
_PLAN = {*_CATALOG, "plan"}
_CLIENT = {*_PLAN, "frontends", "link"}
_NODE = {*_PLAN, "tasks", "children", "engines", "secure", "link", "logs", "plain"}
_EVERYTHING = {*_CLIENT, *_NODE, "client", "node"}

ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "logs": set(),
    "plain": set(),
    "trust": set(),
    "journal": {"trust"},
    "catalog": {"trust", "journal"},
    "plan": _CATALOG,
    "frontends": _PLAN,
    "tasks": _PLAN,
    "children": set(),
    "engines": {*_PLAN, "children"},
    "secure": {"trust"},
    "link": {"trust", "logs"},
    "node": _NODE,
    "client": _CLIENT,
    "inprocess": _EVERYTHING,
    "cli": {*_EVERYTHING, "inprocess"},
    "demo": {*_EVERYTHING, "inprocess", "cli"},
    "testing": {*_EVERYTHING, "inprocess"},
    "junto": {"client", "inprocess"},
    "__main__": {"cli"},
}
"""Room, or file beside the rooms → the others it may import, and itself. `types`, `errors`, the version: everyone."""

EVERYONE = {"types", "errors", "__version__"}

EXCEPTIONS = {"cli/demo.py": ("demo", "the command that starts the demo, which then types commands as a user would")}
"""A file → one more room it may import, and why."""


def test_every_room_has_a_line_in_the_table() -> None:
    known = {room_of(path) for path in sources()} | set(rooms())
    missing = sorted(known - set(ALLOWED))
    assert not missing, f"{', '.join(missing)}: say in ALLOWED what it may import, and in docs/design.md what it is"


@pytest.mark.parametrize("path", sources(), ids=short)
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(path)
    excepted, _ = EXCEPTIONS.get(path.relative_to(PACKAGE).as_posix(), (room, ""))
    allowed = ALLOWED[room] | EVERYONE | {room, excepted}
    faults = [
        f"{short(path)}:{found.line} imports {found.name}; {room} may import {', '.join(sorted(allowed))}"
        for found in imports(path)
        if found.within("junto") and (found.name.split(".")[1:2] or ["junto"])[0] not in allowed
    ]
    assert not faults, "\n".join(faults)


def test_nothing_imports_the_testing_room_but_itself() -> None:
    faults = [
        f"{short(path)}:{found.line} imports {found.name}"
        for path in sources()
        if room_of(path) != "testing"
        for found in imports(path)
        if found.within("junto.testing")
    ]
    assert not faults, "\n".join(faults)


def test_the_table_has_no_circle() -> None:
    settled: set[str] = set()
    while True:
        ready = {room for room, needs in ALLOWED.items() if room not in settled and needs <= settled}
        if not ready:
            break
        settled |= ready
    assert settled == set(ALLOWED), f"these import each other: {', '.join(sorted(set(ALLOWED) - settled))}"
