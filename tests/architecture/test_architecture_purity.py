# SPDX-License-Identifier: Apache-2.0
"""Pure rooms take events and values and give instructions and values: no clock, socket, disk, randomness, asyncio."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from source_tree import PACKAGE, imports_in, parsed, short, sources

PURE_ROOMS = ("secure", "tasks", "plan", "agreement")
PURE_FILES = (
    "journal/tree.py",
    "link/events.py",
    "link/frames.py",
    "link/greeting.py",
    "link/moves.py",
    "link/session.py",
)

IMPURE = (
    *("time", "sched", "zoneinfo"),
    *("random", "secrets", "uuid", "numpy.random"),
    *("asyncio", "threading", "queue", "concurrent", "multiprocessing", "subprocess", "signal", "contextvars"),
    *("socket", "ssl", "select", "selectors", "socketserver", "http", "urllib", "uvloop"),
    *("os", "sys", "io", "pathlib", "tempfile", "shutil", "glob", "mmap", "fcntl", "sqlite3", "ctypes"),
    *("logging", "structlog", "junto.logs", "duckdb"),
)
"""Modules through which a pure room would reach the world."""

BUILTINS = ("open", "print", "input", "breakpoint")
CLOCKS = ("now", "today", "utcnow")
RANDOMNESS = ("generate", "generate_key", "urandom", "token_bytes")


def _pure() -> list[Path]:
    rooms = [path for path in sources() if path.relative_to(PACKAGE).parts[0] in PURE_ROOMS]
    return sorted([*rooms, *(PACKAGE / name for name in PURE_FILES)])


def _faults(tree: ast.Module, package: Sequence[str]) -> Iterator[tuple[int, str]]:
    for found in imports_in(tree, package):
        if any(found.within(module) for module in IMPURE):
            yield found.line, f"imports {found.name}: pass its value in, `node/` does the rest"
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
                yield node.lineno, f"calls {name}(): take or return the value instead"
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCKS:
                yield node.lineno, f"reads a clock with .{name}(): time is a field of the event"
            case ast.Call(func=ast.Attribute(attr=name)) if name in RANDOMNESS:
                yield node.lineno, f"draws randomness with .{name}(): random bytes are an argument"
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, "waits: a pure room returns and is called again"
            case _:
                pass


@pytest.mark.parametrize("path", _pure(), ids=short)
def test_a_pure_file_reaches_nothing_outside(path: Path) -> None:
    package = ("junto", *path.relative_to(PACKAGE).parent.parts)
    faults = [f"{short(path)}:{line} {what}" for line, what in _faults(parsed(path), package)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from os import urandom",
        "from numpy import random",
        "import numpy.random as rng",
        "def f():\n    import asyncio",
        "if TYPE_CHECKING:\n    from pathlib import Path",
        "print(1)",
        "text = open('x').read()",
        "at = datetime.now(UTC)",
        "key = X25519PrivateKey.generate()",
        "async def f(): ...",
    ],
)
def test_the_walk_sees_what_is_forbidden(line: str) -> None:
    assert list(_faults(ast.parse(line), ("junto", "secure")))


@pytest.mark.parametrize("line", ["import hashlib", "import numpy as np", "from . import codec", "x.opened(1)"])
def test_the_walk_lets_pass_what_computes(line: str) -> None:
    assert not list(_faults(ast.parse(line), ("junto", "secure")))
