# SPDX-License-Identifier: Apache-2.0
"""`junto demo`: the main job on this machine, on real data."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer


def demo(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Keep everything in this new folder.")] = None,
) -> None:
    """Four parties on this machine answer questions on real flights; every answer is checked."""
    from junto.demo.run import run
    from junto.errors import InvalidInput, JuntoError

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty: choose a new folder")
    report = run(_silent if json else _say, folder.resolve() if folder is not None else None)
    if json:
        print(msgspec.json.encode(report).decode())
    if not report.ok:
        raise JuntoError("the demo found a wrong answer, or a missing refusal; see above")


def _say(line: str) -> None:
    print(line, flush=True)


def _silent(line: str) -> None:
    del line
    sys.stdout.flush()
