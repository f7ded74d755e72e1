# SPDX-License-Identifier: Apache-2.0
"""`junto trigger`: questions that ask themselves again."""

import time
from typing import Annotated, Literal, cast

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
from junto.client import connect
from junto.errors import InvalidInput
from junto.link.methods import FiringView, TriggerView

app = typer.Typer(help="Ask a question again: by the clock, for new data, after a task.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The trigger's name, from `junto trigger ls`.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens.")],
    question: QuestionText,
    cron: Annotated[str, typer.Option(help="Five fields: minute, hour, day, month, day of week: '0 3 * * *'.")] = "",
    zone: Annotated[str, typer.Option(help="On whose clocks: Europe/Berlin.")] = "UTC",
    on_version: Annotated[str, typer.Option(help="A dataset: each new version at any party, or DATASET@PARTY.")] = "",
    after: Annotated[str, typer.Option(help="The end of each task of this trigger, or of this task.")] = "",
    ends: Annotated[str, typer.Option(help="Which ends: any, or done, which are those with an answer.")] = "any",
    missed: Annotated[str, typer.Option(help="What came while the node was down: catch-up or skip.")] = "catch-up",
    deadline: Deadline = "10m",
    purpose: Purpose = "",
    priority: Priority = 0,
    absent: Absence = None,
    at_least: AtLeast = 0,
    certify: Certify = 0,
    double: Double = False,
    owner: Annotated[str, typer.Option("--for", help="Another user, whose it is; for operators.")] = "",
    home: Home = None,
    user: User = None,
    profile: Profile = None,
    json: AsJson = False,
) -> None:
    """Ask a question whenever something comes about: --cron, --on-version or --after.

    Every time it is asked over the datasets as they are then.
    """
    if ends not in ("any", "done"):
        raise InvalidInput(f"--ends {ends[:40]!r} is neither any nor done")
    if missed not in ("catch-up", "skip"):
        raise InvalidInput(f"--missed {missed[:40]!r} is neither catch-up nor skip")
    with connect(home, user=user, profile=profile) as desk:
        view = desk.triggers.create(
            name,
            asked(desk, question, purpose, certify),
            cron=cron,
            zone=zone,
            on_version=on_version,
            after=after,
            ends=cast(Literal["any", "done"], ends),
            missed=cast(Literal["catch-up", "skip"], missed),
            deadline=deadline,
            priority=priority,
            absent=absent or "",
            at_least=at_least,
            double=double,
            user=owner,
        )
    if json:
        print(msgspec.json.encode(view).decode())
        return
    print(f"trigger {name}: {view.when}" + (f", next {_clock(view.next_at)}" if view.next_at is not None else ""))


@app.command("ls")
def ls(home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """List triggers: what they wait for, when they fire next, how their last task ended."""
    with connect(home, user=user, profile=profile) as desk:
        views = desk.triggers.all()
    if json:
        print(msgspec.json.encode(views).decode())
        return
    if not views:
        print("no triggers; `junto trigger create` makes one")
        return
    print_grid(("trigger", "of", "state", "waits for", "next", "last fired", "its task", "ended"), map(_row, views))


@app.command("show")
def show(name: Name, home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """Show one trigger and its latest firings."""
    with connect(home, user=user, profile=profile) as desk:
        view = desk.triggers.show(name)
    print(msgspec.json.encode(view).decode() if json else describe(view))


@app.command("pause")
def pause(name: Name, home: Home = None, user: User = None, profile: Profile = None) -> None:
    """Let nothing come of a trigger until it is resumed."""
    with connect(home, user=user, profile=profile) as desk:
        desk.triggers.pause(name)
    print(f"trigger {name} is paused; what comes meanwhile is not made up for")


@app.command("resume")
def resume(name: Name, home: Home = None, user: User = None, profile: Profile = None) -> None:
    """Let a paused trigger go on from now."""
    with connect(home, user=user, profile=profile) as desk:
        desk.triggers.resume(name)
    print(f"trigger {name} goes on from now")


@app.command("remove")
def remove(name: Name, home: Home = None, user: User = None, profile: Profile = None) -> None:
    """End a trigger. Its running task goes on."""
    with connect(home, user=user, profile=profile) as desk:
        desk.triggers.remove(name)
    print(f"trigger {name} is removed; what it did stays in the journal")


@app.command("fire")
def fire(name: Name, home: Home = None, user: User = None, profile: Profile = None) -> None:
    """Ask a trigger's question now, whatever it waits for. Prints the task's id."""
    with connect(home, user=user, profile=profile) as desk:
        print(desk.triggers.fire(name))


def describe(view: TriggerView) -> str:
    """The trigger in lines a person reads."""
    lines = [
        f"trigger   {view.name} ({view.state})",
        f"question  {' '.join(view.question.split())}",
        f"asked by  {view.user}, since {_clock(view.created_at)}" + (f", for {view.purpose}" if view.purpose else ""),
        f"parties   {', '.join(view.parties)}",
        f"fires     {view.when}",
        f"missed    {view.missed}",
        f"deadline  {view.seconds:g} s, priority {view.priority}",
    ]
    if view.next_at is not None:
        lines.append(f"next      {_clock(view.next_at)}")
    if view.waiting:
        lines.append(f"waiting   {view.waiting} occasions, for the running task")
    for firing in view.firings:
        by = f", by hand of {firing.user}" if firing.user else ""
        lines.append(f"  fired for {_clock(firing.due)}{by}: task {firing.task}: {firing.end}")
        if firing.reason:
            lines.append(f"    because {firing.reason}")
    return "\n".join(lines)


def _row(view: TriggerView) -> tuple[str, ...]:
    last: FiringView | None = view.firings[0] if view.firings else None
    return (
        view.name,
        view.user,
        view.state,
        view.when,
        "—" if view.next_at is None else _clock(view.next_at),
        "never" if last is None else _clock(last.due),
        "—" if last is None else last.task,
        "—" if last is None else last.end,
    )


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
