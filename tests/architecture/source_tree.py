# SPDX-License-Identifier: Apache-2.0
"""The project's files and syntax trees, as the architecture tests read them."""

import ast
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "junto"


@dataclass(frozen=True, slots=True)
class Import:
    """One name a file imports, with dots: `junto.trust.rules.Rule`, `time`, `numpy.random`."""

    name: str
    line: int

    def within(self, module: str) -> bool:
        """Whether it is the module or something of it."""
        return self.name == module or self.name.startswith(module + ".")


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def sources() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def short(path: Path) -> str:
    """How messages call a file."""
    return path.relative_to(ROOT).as_posix()


def rooms() -> list[str]:
    """The folders of the package."""
    return sorted({path.relative_to(PACKAGE).parts[0] for path in sources() if path.parent != PACKAGE})


def room_of(path: Path) -> str:
    """The room a file of the package is in; a file beside the rooms is its own, and the package's own is `junto`."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "junto" if first == "__init__" else first


def imports(path: Path) -> Iterator[Import]:
    """Everything a file of the package imports."""
    return imports_in(parsed(path), ("junto", *path.relative_to(PACKAGE).parent.parts))


def imports_in(tree: ast.Module, package: Sequence[str]) -> Iterator[Import]:
    """Everything a module of `package` imports: at its top, inside functions, and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (Import(alias.name, node.lineno) for alias in node.names)
            case ast.ImportFrom():
                above = [*package][: len(package) - node.level + 1] if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                yield from (Import(f"{module}.{alias.name}", node.lineno) for alias in node.names)
            case _:
                pass


def tracked() -> list[Path]:
    """Every file under version control; where there is none, as in an unpacked archive, every file of the project."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        folders = (ROOT / name for name in ("src", "tests", "docs", "benchmarks", "scripts", ".ci"))
        found = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
        found += ROOT.glob("*")
    return sorted(path for path in found if path.is_file())
