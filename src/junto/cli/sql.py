# SPDX-License-Identifier: Apache-2.0
"""`junto sql`: ask one question, see who learns what, get the answer and its receipt."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from junto.cli.options import (
    Absence,
    AtLeast,
    Certify,
    Deadline,
    Double,
    Home,
    Priority,
    Profile,
    Purpose,
    QuestionText,
    User,
    asked,
)
from junto.cli.progress import progress_lines
from junto.cli.tables import Format, check_place, print_answer
from junto.client import connect


def sql(
    question: QuestionText,
    explain: Annotated[bool, typer.Option("--explain", help="Show who would learn what, and run nothing.")] = False,
    format: Annotated[Format, typer.Option(help="How to write the answer.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(help="Write the answer to this file (needed for parquet).")] = None,
    deadline: Deadline = "60s",
    purpose: Purpose = "",
    priority: Priority = 0,
    absent: Absence = None,
    at_least: AtLeast = 0,
    certify: Certify = 0,
    double: Double = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no receipt: the answer alone.")] = False,
    home: Home = None,
    user: User = None,
    profile: Profile = None,
) -> None:
    """Ask a joint question.

    Tables are datasets as `junto dataset ls` shows them: one name at several parties is one joint table.
    """
    check_place(format, out)
    with connect(home, user=user, profile=profile) as desk:
        compiled = asked(desk, question, purpose, certify)
        if explain:
            print(compiled.explain())
            return
        with progress_lines(sys.stderr, quiet=quiet) as watch:
            answer = compiled.run(
                deadline=deadline,
                priority=priority,
                absent=absent or "",
                at_least=at_least,
                double=double,
                watch=watch,
            )
    print_answer(answer, format, out, quiet=quiet)
