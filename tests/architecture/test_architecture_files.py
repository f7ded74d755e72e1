# SPDX-License-Identifier: Apache-2.0
"""How every file begins, how long it is, and what no file of the project says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import PACKAGE, ROOT, parsed, rooms, short, sources, tracked

SPDX = "# SPDX-License-Identifier: Apache-2.0"
MOST_LINES = 600

_PYTHON = [path for path in tracked() if path.suffix == ".py"]

ELSEWHERE = re.compile(r"(?<![\w./-])/(?:work|root|tmp/brief)/|/home/[a-z]+/")
"""Paths of somebody's machine."""

UNFINISHED = ("TO" + "DO", "FIX" + "ME", "X" * 3, "lorem" + " ipsum")
FOREIGN = ("language" + " model", "chat" + "bot", "as an a" + "i ", "a" + "i-generated")


@pytest.mark.parametrize("path", _PYTHON, ids=short)
def test_a_file_begins_with_its_licence_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    first = lines[1] if lines and lines[0].startswith("#!") else lines[0] if lines else ""
    assert first == SPDX, f"{short(path)} does not begin with {SPDX}"
    assert ast.get_docstring(parsed(path)), f"{short(path)} has no docstring"


@pytest.mark.parametrize("room", rooms())
def test_a_room_says_what_it_decides_what_it_never_touches_and_where_to_start(room: str) -> None:
    text = ast.get_docstring(parsed(PACKAGE / room / "__init__.py")) or ""
    sentences = [s for s in re.split(r"(?<=[.])\s+(?=[A-Z`])", " ".join(text.split())) if s]
    assert len(sentences) == 3, f"{room}: {len(sentences)} sentences in its docstring, not three"
    assert sentences[2].startswith("Start "), f"{room}: the third sentence says where to start"


@pytest.mark.parametrize("path", sources(), ids=short)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES, f"{short(path)} has {lines} lines: it holds two ideas, split it"


@pytest.mark.parametrize("path", tracked(), ids=short)
def test_a_file_speaks_of_the_project_alone(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    if path != Path(__file__).resolve():
        found = ELSEWHERE.search(text)
        assert found is None, f"{short(path)} names a path of one machine: {found and found[0]}"
    faults = [word for word in UNFINISHED if re.search(rf"\b{word}\b", text)]
    faults += [word for word in FOREIGN if word in text.lower()]
    assert not faults, f"{short(path)} says {', '.join(faults)}"


def test_importing_the_package_is_light() -> None:
    """Heavy libraries are imported where they are used, so that a command answers at once."""
    heavy = ("duckdb", "pyarrow", "numpy", "pandas", "sqlglot", "cryptography", "asyncio")
    code = f"import sys, junto; print(*(name for name in {heavy!r} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not ran.stdout.split(), f"`import junto` also imports {ran.stdout.strip()}"
