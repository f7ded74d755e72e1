# SPDX-License-Identifier: Apache-2.0
"""What stands nowhere in the package: code run from data, checks that vanish, guessable randomness."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import PACKAGE, imports, imports_in, parsed, short, sources

MODULES = {
    "pickle": "unpickling runs code: use msgspec or Arrow IPC",
    "marshal": "unmarshalling runs code: use msgspec",
    "shelve": "a shelf is pickles: use SQLite and msgspec",
    "dill": "unpickling runs code: functions travel as source text",
    "cloudpickle": "unpickling runs code: functions travel as source text",
    "numpy.random": "its generators are guessable: random bytes are an argument",
    "random": "its generator is guessable: random bytes are an argument",
}

GUESSABLE_MAY_SERVE = {
    "link/links.py": "spreads attempts to dial again over time; nothing depends on it being unguessable",
    "testing/engines.py": "rows that a conformance test sorts and groups",
    **{
        f"testing/sim/{name}.py": "a run is drawn from a printed seed, and must be the same each time"
        for name in ("disk", "faults", "loop", "network", "run", "workload", "world")
    },
    "testing/secure.py": "orders of delivery in tests come from a printed seed",
}
"""Files that may use `random` or `numpy.random`, and why that is safe there."""
GUESSABLE = ("random", "numpy.random")


def _faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Assert():
                yield node.lineno, "asserts, which vanishes under -O: raise"
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" | "__import__" as name)):
                yield node.lineno, f"calls {name}(): text is data here"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr="load")):
                yield node.lineno, "calls yaml.load, which builds any object: settings are TOML"
            case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="random"):
                yield node.lineno, f"uses numpy.random: {MODULES['numpy.random']}"
            case ast.keyword(arg="allow_pickle", value=value) if not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                yield value.lineno, "allows pickles in arrays: use Arrow IPC"
            case _:
                pass


def _all_faults(path: Path) -> list[str]:
    guessable_may_serve = path.relative_to(PACKAGE).as_posix() in GUESSABLE_MAY_SERVE
    faults = [
        f"{short(path)}:{line} {what}"
        for line, what in _faults(parsed(path))
        if not (guessable_may_serve and "numpy.random" in what)
    ]
    return faults + [
        f"{short(path)}:{found.line} imports {found.name}: {why}"
        for found in imports(path)
        for module, why in MODULES.items()
        if found.within(module) and not (guessable_may_serve and module in GUESSABLE)
    ]


@pytest.mark.parametrize("path", sources(), ids=short)
def test_a_file_holds_nothing_forbidden(path: Path) -> None:
    faults = _all_faults(path)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", GUESSABLE_MAY_SERVE)
def test_every_exception_is_still_needed(name: str) -> None:
    path = PACKAGE / name
    uses = any(found.within(module) for found in imports(path) for module in GUESSABLE)
    assert uses or any("numpy.random" in what for _, what in _faults(parsed(path))), f"take {name} off the list"


@pytest.mark.parametrize(
    "line",
    [
        "assert x",
        "eval('1')",
        "exec(text)",
        "yaml.load(text)",
        "np.random.default_rng()",
        "numpy.random.rand()",
        "np.load(file, allow_pickle=True)",
    ],
)
def test_the_walk_sees_what_is_forbidden(line: str) -> None:
    assert list(_faults(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["from numpy import random", "import pickle", "def f():\n    from random import choice"]
)
def test_forbidden_modules_are_seen_wherever_they_are_imported(line: str) -> None:
    assert any(found.within(module) for found in imports_in(ast.parse(line), ("junto",)) for module in MODULES)


def test_methods_of_the_same_name_are_not_taken_for_builtins() -> None:
    assert not list(_faults(ast.parse("session.exec(plan); re.compile('x'); random_bytes(32)")))
