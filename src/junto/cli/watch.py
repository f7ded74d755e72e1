# SPDX-License-Identifier: Apache-2.0
"""The lines of `junto task watch`: one a notice, for a person or, as JSON, for a program."""

import sys
import time
from collections.abc import Iterator, Sequence

import msgspec
from rich.text import Text

from junto.cli.screen import screen
from junto.client import Desk
from junto.link.methods import Notice
from junto.types import TaskId

_STYLES = {"warning": "yellow", "error": "bold red"}


def print_notices(desk: Desk, tasks: Sequence[str], kinds: Sequence[str], past_seconds: float, *, json: bool) -> None:
    """Print what happens at the desk's node until Ctrl-C, each line at once."""
    console = screen()

    def lost(why: str) -> None:
        print(f"junto: {' '.join(why.split())}; trying again", file=sys.stderr, flush=True)

    named = tuple(TaskId(task) for task in tasks)
    found: Iterator[Notice] = desk.notices(tasks=named, kinds=kinds, past_seconds=past_seconds, lost=lost)
    try:
        for notice in found:
            if json:
                print(msgspec.json.encode(notice).decode(), flush=True)
            else:
                console.print(line(notice), soft_wrap=True)
                console.file.flush()
    except KeyboardInterrupt:
        return  # that is how one stops watching


def line(notice: Notice) -> Text:
    """When, what kind, which task, whom it concerns and what happened."""
    clock = time.strftime("%H:%M:%S", time.localtime(notice.at))
    text = " ".join(notice.text.split())
    return Text.assemble(
        (f"{clock}  ", ""),
        (f"{notice.kind:<9}", _STYLES.get(notice.severity, "")),
        (f"  {notice.task or '-':<26}  {notice.party:<12}  {text}", ""),
    )
