# SPDX-License-Identifier: Apache-2.0
"""`junto task`: what this party's node works on, whom it waits for, and how tasks ended."""

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from junto.cli.grid import print_grid
from junto.cli.options import (
    Absence,
    AsJson,
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
from junto.cli.tables import Format, certificate_lines, check_place, missing_line, print_answer
from junto.cli.watch import print_notices
from junto.client import connect
from junto.errors import Busy, InvalidInput
from junto.link.methods import Progress
from junto.types import TaskId, seconds_of

app = typer.Typer(help="Start, see and steer tasks.", no_args_is_help=True)

Task = Annotated[str, typer.Argument(help="The task's id, from `junto task ls`.")]


@app.command("submit")
def submit(
    question: QuestionText,
    deadline: Deadline = "10m",
    purpose: Purpose = "",
    priority: Priority = 0,
    absent: Absence = None,
    at_least: AtLeast = 0,
    certify: Certify = 0,
    double: Double = False,
    home: Home = None,
    user: User = None,
    profile: Profile = None,
) -> None:
    """Start a joint question and return at once. Prints the task's id."""
    with connect(home, user=user, profile=profile) as desk:
        compiled = asked(desk, question, purpose, certify)
        task = compiled.submit(
            deadline=deadline, priority=priority, absent=absent or "", at_least=at_least, double=double
        )
    print(task)
    print(f"its answer: junto task wait {task}; how it goes: junto task watch {task}", file=sys.stderr)


@app.command("wait")
def wait(
    task: Task,
    format: Annotated[Format, typer.Option(help="How to write the answer.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(help="Write the answer to this file (needed for parquet).")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no receipt: the answer alone.")] = False,
    home: Home = None,
    user: User = None,
    profile: Profile = None,
) -> None:
    """Wait for a task's end and print its answer. Interrupted, the task goes on."""
    check_place(format, out)
    with connect(home, user=user, profile=profile) as desk, progress_lines(sys.stderr, quiet=quiet) as lines:
        answer = desk.wait(TaskId(task), lines)
    print_answer(answer, format, out, quiet=quiet)


@app.command("ls")
def ls(home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """List your tasks, newest first; for an operator, all, those that other parties asked among them."""
    with connect(home, user=user, profile=profile) as desk:
        tasks = desk.tasks()
    if json:
        print(msgspec.json.encode(tasks).decode())
        return
    if not tasks:
        print("no tasks yet; `junto sql` asks a question")
        return
    print_grid(
        ("task", "asked by", "state", "since", "question"),
        ((t.task, f"{t.user}@{t.asker}", t.state, _clock(t.opened_at), _short(t.question)) for t in tasks),
    )


@app.command("show")
def show(task: Task, home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """Show one task: its timeline, its waits, its end, its receipt."""
    with connect(home, user=user, profile=profile) as desk:
        progress = desk.task(TaskId(task))
    print(msgspec.json.encode(progress).decode() if json else describe(progress, time.time()))


@app.command("watch")
def watch(
    task: Annotated[str, typer.Argument(help="A task to follow to its end; without it, all that happens here.")] = "",
    only: Annotated[
        list[str] | None, typer.Option("--task", metavar="ID", help="Only this task; may be repeated.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Only this kind of notice; may be repeated.")
    ] = None,
    since: Annotated[str, typer.Option(help="Begin so long ago: 30s, 10m, 2h.")] = "",
    home: Home = None,
    user: User = None,
    profile: Profile = None,
    json: AsJson = False,
) -> None:
    """Follow a task until it ends or, without its id, every task at this node until Ctrl-C.

    Without an id: one line for each notice (a task moved, a step was finished or is tried again, a wait passed its
    limit, a participant stays away, a task ended), and it goes on when the node restarts.
    """
    if not task:
        with connect(home, user=user, profile=profile) as desk:
            print_notices(desk, only or (), kind or (), _past(since), json=json)
        return
    if only or kind or since:
        raise InvalidInput("--task, --kind and --since are for watching all tasks: leave out the id")
    with connect(home, user=user, profile=profile) as desk, progress_lines(sys.stderr, quiet=json) as lines:
        progress = desk.follow(TaskId(task), lines)
    print(msgspec.json.encode(progress).decode() if json else describe(progress, time.time()))


@app.command("cancel")
def cancel(task: Task, home: Home = None, user: User = None, profile: Profile = None) -> None:
    """End a task at every participant."""
    with connect(home, user=user, profile=profile) as desk:
        desk.cancel(TaskId(task))
    print(f"task {task} is cancelled at every participant that can be reached")


def _past(since: str) -> float:
    try:
        return seconds_of(since) if since else 0.0
    except ValueError as error:
        raise InvalidInput(f"--since: {error}") from None


def describe(progress: Progress, now: float) -> str:
    """The task in lines a person reads."""
    lines = [
        f"task      {progress.task}",
        f"question  {_short(progress.question, 400)}",
        f"asked by  {progress.user}@{progress.asker} at {_clock(progress.opened_at)}"
        + (f", for {progress.purpose}" if progress.purpose else ""),
        f"parties   {', '.join(progress.participants)}",
        f"state     {progress.state}" + (f" ({progress.code})" if progress.code else ""),
    ]
    if progress.missing:
        lines.append(f"missing   {missing_line(progress.missing)}")
    if progress.reason:
        lines += [f"because   {line}" for line in progress.reason.splitlines()]
    for part in progress.parts:
        rows = "" if part.rows is None else f", {part.rows} rows"
        lines.append(
            f"  {part.step:<10} {part.kind:<10} {part.party:<12} {part.seconds:.3f} s, {part.bytes} bytes{rows}"
        )
    lines += [
        f"  waiting for {wait.party}: {wait.what}, {now - wait.since:.1f} s, until {_clock(wait.until)}"
        + (f", {wait.why}" if wait.why else "")
        for wait in progress.waits
    ]
    lines += [f"  {step} began anew after a crash: run {number}" for step, number in progress.attempts.items()]
    if progress.continued:
        without = "" if progress.code == Busy.code else ", without those who stayed away"
        lines.append(f"goes on   as task {progress.continued}{without}")
    for certificate in progress.certificates:
        lines += certificate_lines(certificate)
    lines += [f"deviation {deviation.line}" for deviation in progress.deviations]
    if progress.receipt is not None:
        lines += [f"doubled   {one.line}" for one in progress.receipt.doubled if one.second == one.first]
    if progress.receipt is not None:
        lines.append(f"receipt   {progress.receipt.statement}, result {progress.receipt.result}")
    return "\n".join(lines)


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _short(question: str, most: int = 60) -> str:
    line = " ".join(question.split())
    return line if len(line) <= most else line[: most - 1] + "…"
