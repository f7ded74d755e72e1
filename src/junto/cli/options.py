# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have: where the node is, and on which terms a question is asked."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from junto.client import Desk
    from junto.client.question import Question

Home = Annotated[Path | None, typer.Option(help="The party's folder.", envvar="JUNTO_HOME")]
User = Annotated[str | None, typer.Option(help="Which of its users.")]
Profile = Annotated[Path | None, typer.Option(help="A file from `junto user export`, in place of a folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

QuestionText = Annotated[str, typer.Argument(help="One SELECT, in quotes; - reads it from standard input.")]
Deadline = Annotated[str, typer.Option(help="How long it may take: 30s, 5m, 2h.")]
Purpose = Annotated[str, typer.Option(help="What the answer is for; some rules ask it.")]
Priority = Annotated[int, typer.Option(help="Higher goes first where nodes are busy.")]
Absence = Annotated[
    Literal["wait", "fail", "go-on"] | None,
    typer.Option("--absent", help="When a participant stays away: wait for it, fail, or go on without it."),
]
AtLeast = Annotated[int, typer.Option(min=0, help="With go-on: so many participants must be left, the asker included.")]
Double = Annotated[
    bool,
    typer.Option("--double", help="Where a party runs several nodes, two compute each fragment, and are compared."),
]
Certify = Annotated[
    int, typer.Option(min=0, metavar="N", help="N parties compute what is over open tables, and sign one digest.")
]


def asked(desk: "Desk", text: str, purpose: str, certify: int) -> "Question":
    """The question of a command line, compiled. Raises InvalidInput, UnsupportedSQL."""
    question = desk.sql(sys.stdin.read() if text == "-" else text, purpose=purpose)
    return question.certified(certify) if certify else question
