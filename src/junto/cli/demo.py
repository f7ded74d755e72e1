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
    chaos: Annotated[bool, typer.Option("--chaos", help="Kill nodes in the middle of questions.")] = False,
) -> None:
    """Four parties on this machine answer questions on real flights; every answer is checked."""
    from junto.demo import chaos as kills
    from junto.demo import run as questions
    from junto.errors import InvalidInput, JuntoError

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty: choose a new folder")
    run = kills.run if chaos else questions.run
    report = run(_silent if json else _say, folder.resolve() if folder is not None else None)
    if json:
        print(msgspec.json.encode(report).decode())
    if not report.ok:
        raise JuntoError("the demo found a wrong answer, a missing refusal or a kill that came too late; see above")


def _say(line: str) -> None:
    print(line, flush=True)


def _silent(line: str) -> None:
    del line
    sys.stdout.flush()
