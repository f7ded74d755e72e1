# SPDX-License-Identifier: Apache-2.0
"""`junto sql`: ask one question, see who learns what, get the answer and its receipt."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from junto.cli.options import Home, Profile, User
from junto.cli.progress import progress_lines
from junto.cli.tables import Format, check_place, print_answer
from junto.client import connect


def sql(
    question: Annotated[str, typer.Argument(help="One SELECT, in quotes; - reads it from standard input.")],
    explain: Annotated[bool, typer.Option("--explain", help="Show who would learn what, and run nothing.")] = False,
    format: Annotated[Format, typer.Option(help="How to write the answer.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(help="Write the answer to this file (needed for parquet).")] = None,
    deadline: Annotated[str, typer.Option(help="How long it may take: 30s, 5m, 2h.")] = "60s",
    purpose: Annotated[str, typer.Option(help="What the answer is for; some rules ask it.")] = "",
    priority: Annotated[int, typer.Option(help="Higher goes first where nodes are busy.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no receipt: the answer alone.")] = False,
    home: Home = None,
    user: User = None,
    profile: Profile = None,
) -> None:
    """Ask a joint question.

    Tables are datasets as `junto dataset ls` shows them: one name at several parties is one joint table.
    """
    check_place(format, out)
    text = sys.stdin.read() if question == "-" else question
    with connect(home, user=user, profile=profile) as desk:
        asked = desk.sql(text, purpose=purpose)
        if explain:
            print(asked.explain())
            return
        with progress_lines(sys.stderr, quiet=quiet) as watch:
            answer = asked.run(deadline=deadline, priority=priority, watch=watch)
    print_answer(answer, format, out, quiet=quiet)
