# SPDX-License-Identifier: Apache-2.0
"""Traces of one machine: what happened, what it ordered, where it stands. `python tests/tasks/task_traces.py` rewrites
the files in `tests/traces/tasks` from their event lines; look at what changed, and keep only what you can explain."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from task_world import (
    BTS,
    PROPOSAL,
    START,
    anew,
    confirmed,
    contracted,
    finished,
    new_task,
    offered,
    permitted,
    receipt,
    refused,
    released,
    stopped,
    tried,
)

from junto.tasks.bodies import Attempt, Body, Confirm, Contract, Receipt, Refusal, Stop, kind_of
from junto.tasks.events import CancelAsked, Event, Forbidden, Opened, PartyDown, PartyUp, Restarted, StepFailed, Ticked
from junto.tasks.instructions import Conclude, GoOn, Halt, Instruction, Judge, Perform, Publish, Redo, Wake
from junto.tasks.state import Task
from junto.types import PartyId, StepId

FOLDER = Path(__file__).parent.parent / "traces" / "tasks"

_EVENTS: dict[str, Callable[[Task, float, list[str]], Event]] = {
    "opened": lambda task, at, words: Opened("" if task.me == BTS else PROPOSAL, at),
    "permitted": lambda task, at, words: permitted(task.me, at),
    "forbidden": lambda task, at, words: Forbidden(words[0], " ".join(words[1:]), at),
    "offer": lambda task, at, words: offered(PartyId(words[0]), at),
    "refusal": lambda task, at, words: refused(PartyId(words[0]), at),
    "contract": lambda task, at, words: contracted(at),
    "finished": lambda task, at, words: finished(words[0], at),
    "failed": lambda task, at, words: StepFailed(
        StepId(words[0]), words[1], PartyId(words[2]), " ".join(words[3:]), at
    ),
    "attempt": lambda task, at, words: anew(PartyId(words[0]), words[1], int(words[2]), at),
    "tried": lambda task, at, words: tried(words[0], int(words[1]), at),
    "released": lambda task, at, words: released(at),
    "confirm": lambda task, at, words: confirmed(PartyId(words[0]), *words[1:], at=at),
    "receipt": lambda task, at, words: receipt(at),
    "stop": lambda task, at, words: stopped(PartyId(words[0]), at=at),
    "cancel": lambda task, at, words: CancelAsked(words[0], at),
    "down": lambda task, at, words: PartyDown(PartyId(words[0]), " ".join(words[1:]), at),
    "up": lambda task, at, words: PartyUp(PartyId(words[0]), at),
    "restarted": lambda task, at, words: Restarted(frozenset(map(StepId, words)), at),
    "tick": lambda task, at, words: Ticked(at),
}


def replayed(text: str) -> str:
    """The trace whose event lines are those of `text`, as the machine of today writes it."""
    lines = text.splitlines()
    head = [line for line in lines if line.startswith("#")]
    machine = next(line for line in lines if line.startswith("machine "))
    events = [line for line in lines if line[:1].isdigit()]
    task = new_task(PartyId(machine.split()[1]))
    out = [*head, machine]
    for line in events:
        out += ["", line, *_told(task, line)]
    return "\n".join(out) + "\n"


def _told(task: Task, line: str) -> Iterator[str]:
    seconds, name, *words = line.split()
    for instruction in task.handle(_EVENTS[name](task, START + float(seconds), words)):
        yield f"       → {_order(instruction)}"
        if isinstance(instruction, Publish):  # what a node does when it is durable
            match kind_of(instruction.body):
                case "proposal":
                    task.proposed(PROPOSAL)
                case "contract":
                    task.contracted("contract-1")
                case _:
                    pass
    yield f"       {task.state}"
    waits: dict[str, list[str]] = {}
    for wait in task.waits():
        why = f" ({wait.why})" if wait.why else ""
        waits.setdefault(f"{wait.what}, {wait.since - START:g} to {wait.until - START:g}{why}", []).append(wait.party)
    for what, parties in waits.items():
        yield f"       waits for {', '.join(parties)}: {what}"


def _order(instruction: Instruction) -> str:
    match instruction:
        case Judge():
            return "judge"
        case Perform():
            return "perform"
        case Redo():
            return f"redo {instruction.step}"
        case GoOn():
            return f"go on without {', '.join(instruction.without)}"
        case Halt():
            return "halt"
        case Wake():
            return f"wake at {instruction.at - START:g}"
        case Conclude():
            why = f" ({instruction.code}): {instruction.reason}" if instruction.code else ""
            return f"conclude {instruction.end} by {instruction.party}{why}"
        case Publish():
            to = f" to {', '.join(instruction.to)}" if instruction.to else ", kept here"
            return f"publish {kind_of(instruction.body)}{_detail(instruction.body)}{to}"


def _detail(body: Body) -> str:
    match body:
        case Contract():
            return f" of {len(body.offers)} offers"
        case Confirm():
            return f" of {', '.join(f'{part.step} {part.attempt}'.strip() for part in body.steps)}"
        case Attempt():
            return f" {body.number} of {body.step}: {body.reason}"
        case Receipt():
            return f" of {body.rows} rows, {body.withheld} withheld, after {body.seconds:g} s"
        case Stop():
            return f" ({body.end} by {body.party})"
        case Refusal():
            return f" ({body.code})"
        case _:
            return ""


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.txt")):
        path.write_text(replayed(path.read_text()))
        sys.stdout.write(f"{path.name}\n")
