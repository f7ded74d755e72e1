# SPDX-License-Identifier: Apache-2.0
"""Hundreds of tasks of all kinds while nodes die and connections break; in the end everything is accounted for.

    python tests/chaos/chaos_run.py [--seed N] [--tasks N] [--rate PER_SECOND] [--folder FOLDER]

At the end every task is right (the answer is that of the pooled rows) or ended with a reason by its deadline, no node
has an open task, every journal verifies, no task has two receipts, and nothing is left in spools. The seed gives the
questions and the accidents; when they meet is up to the machine.
"""

import argparse
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from chaos_faults import strike
from chaos_world import KINDS, PARTIES, Kind, World, is_right, world

from junto.client import Desk, Question
from junto.errors import JuntoError, Unavailable
from junto.journal.verify import verify_journal
from junto.node import home as homes
from junto.testing.until import until
from junto.types import TaskId

_WORKERS = 10
_LATE_SECONDS = 8.0
"""How much later than its deadline a task may end at a node that was down when it passed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one task at its asker: `state` is "right", "wrong" or how else it ended."""

    number: int
    kind: str
    asker: str
    task: TaskId | None
    state: str
    reason: str = ""
    late_seconds: float = 0.0


@dataclass(slots=True)
class Story:
    """All that happened."""

    seed: int
    ended: list[Ended] = field(default_factory=list)
    accidents: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def right(self) -> int:
        """How many tasks were answered, and rightly."""
        return sum(one.state == "right" for one in self.ended)

    def table(self) -> str:
        """What happened, for people."""
        states = sorted({one.state for one in self.ended}, key=lambda state: (state != "right", state))
        lines = [
            f"seed {self.seed}: {len(self.ended)} tasks, {self.seconds:.0f} s, {sum(self.accidents.values())} accidents"
        ]
        lines.append("  " + ", ".join(f"{what} {count}" for what, count in sorted(self.accidents.items())))
        lines.append(f"{'':12}" + "".join(f"{state:>12}" for state in states))
        for kind in KINDS:
            counts = Counter(one.state for one in self.ended if one.kind == kind.name)
            lines.append(f"{kind.name:12}" + "".join(f"{counts[state] or '':>12}" for state in states))
        reasons = Counter(
            _pattern(one.reason) for one in self.ended if one.state in ("failed", "expired") and one.kind != "hurried"
        )
        lines += [f"  {count} × {reason}" for reason, count in reasons.most_common(8)]
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        return "\n".join(lines)


def run(seed: int, tasks: int, rate: float, folder: Path, pause: tuple[float, float] = (0.3, 2.0)) -> Story:
    """Do it all."""
    story = Story(seed)
    with world(folder) as found:
        desks = {party: found.desk(party) for party in PARTIES}
        questions = {(party, kind.name): desks[party].sql(kind.sql) for party in PARTIES for kind in KINDS}
        began = time.monotonic()
        stopping = threading.Event()
        striker = threading.Thread(
            target=_striking, args=(found, Random(f"{seed}/accidents"), story, stopping, pause), daemon=True
        )
        striker.start()
        try:
            _ask(story, desks, questions, tasks, rate)
        finally:
            stopping.set()
            striker.join(60)
            for desk in desks.values():
                desk.close()
        story.seconds = time.monotonic() - began
        found.heal()
        _all_ended(found, story)
        for party in PARTIES:
            _check_home(found, party, story)
        _check_receipts(found, story)
    return story


def _striking(
    found: World, random: Random, story: Story, stopping: threading.Event, pause: tuple[float, float]
) -> None:
    try:
        strike(found, random, story.accidents, stopping, pause)
    except Exception as error:  # noqa: BLE001  # a node that does not start again, for one
        story.problems.append(f"accidents ended: {type(error).__name__}: {error}")


def _ask(
    story: Story, desks: dict[str, Desk], questions: dict[tuple[str, str], Question], tasks: int, rate: float
) -> None:
    numbers = iter(range(tasks))
    lock = threading.Lock()
    began = time.monotonic()

    def works() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            random = Random(f"{story.seed}/{number}")
            asker = random.choice(PARTIES)
            kind = random.choices(KINDS, [kind.weight for kind in KINDS])[0]
            ended = _one(number, desks[asker], kind, questions[asker, kind.name], random)
            with lock:
                story.ended.append(ended)

    workers = [threading.Thread(target=works) for _ in range(_WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _one(number: int, desk: Desk, kind: Kind, question: Question, random: Random) -> Ended:
    """Ask one question; a node that is down is asked again while it restarts, as users do."""
    task: TaskId | None = None
    state, reason = "", ""
    try:
        task = question.submit(deadline=kind.seconds)
        if kind.cancelled:
            time.sleep(random.uniform(0.0, 0.1))
            try:
                desk.cancel(task)
            except JuntoError as error:
                reason = str(error)  # it had ended, or the node has just died
        answer = desk.wait(task)
        state = "right" if is_right(kind, answer.table) else "wrong"
    except Unavailable as error:
        state, reason = "not asked" if task is None else error.code, str(error)
    except JuntoError as error:
        state, reason = error.code, str(error)
    late = 0.0
    if task is not None:
        try:
            progress = desk.task(task)
            late = (progress.ended_at or time.time()) - progress.deadline
            state = state if state in ("right", "wrong") else progress.state
        except JuntoError:
            pass  # it was let go of meanwhile
    return Ended(number, kind.name, desk.party, task, state, reason, late)


def _all_ended(found: World, story: Story) -> None:
    """Every node is done with every task soon after all is whole again."""
    seconds = max(kind.seconds for kind in KINDS) + _LATE_SECONDS
    for party in PARTIES:
        with found.desk(party) as desk:
            try:
                until(lambda: desk.status().open_tasks == 0, f"{party} has no open task", seconds)  # used at once
            except AssertionError as error:
                open_ones = [f"{one.task} {one.state}" for one in desk.tasks() if one.ended_at is None]
                story.problems.append(f"{error}: {', '.join(open_ones)}")
    allowed = {
        "right",
        "failed",
        "refused",
        "cancelled",
        "expired",
        "not asked",
    }  # the last: its node was down till the deadline
    kinds = {kind.name: kind for kind in KINDS}
    for one in story.ended:
        kind = kinds[one.kind]
        if one.state not in allowed:
            story.problems.append(f"task {one.number} ({one.kind}) of {one.asker}: {one.state}: {one.reason}")
        elif (one.state == "refused" and not kind.refused) or (one.state == "cancelled" and not kind.cancelled):
            story.problems.append(f"task {one.number} ({one.kind}) of {one.asker} was {one.state}: {one.reason}")
        elif one.state == "right" and kind.refused:
            story.problems.append(f"task {one.number} ({one.kind}) was answered")
        elif one.state != "right" and not one.reason:
            story.problems.append(f"task {one.number} ({one.kind}) ended {one.state} without a reason")
        if one.late_seconds > _LATE_SECONDS:
            story.problems.append(f"task {one.number} ({one.kind}) ended {one.late_seconds:.1f} s after its deadline")


def _check_home(found: World, party: str, story: Story) -> None:
    """The journal proves itself, and nothing is left of tasks that have ended."""
    home = homes.load(found.home(party))
    for problem in verify_journal(home.journal_path, home.charter()).problems:
        story.problems.append(f"journal of {party}: {problem}")
    with closing(sqlite3.connect(f"file:{home.journal_path}?mode=ro", uri=True)) as reader:
        kept = reader.execute("SELECT name, count(*) FROM kept WHERE name <> 'answer' GROUP BY name").fetchall()
        told = {row[0] for row in reader.execute("SELECT task FROM entry WHERE kind = 'proposal'")}
    if kept:
        story.problems.append(
            f"{party} keeps {sum(count for _, count in kept)} outputs of tasks that have ended: {kept[:5]}"
        )
    left = [path.name for path in home.spool_path.rglob("*") if path.is_file()]
    if left:
        story.problems.append(f"{len(left)} files are left in the spool of {party}: {', '.join(left[:3])}")
    lost = [one.task for one in story.ended if one.asker == party and one.task is not None and one.task not in told]
    if lost:
        story.problems.append(f"the journal of {party} has lost {len(lost)} tasks that it acknowledged: {lost[:3]}")


def _check_receipts(found: World, story: Story) -> None:
    receipts: dict[str, set[str]] = defaultdict(set)
    for party in PARTIES:
        with closing(sqlite3.connect(f"file:{found.home(party) / 'journal.db'}?mode=ro", uri=True)) as reader:
            for task, id in reader.execute("SELECT task, id FROM entry WHERE kind = 'receipt'"):
                receipts[task].add(id)
    for task, ids in receipts.items():
        if len(ids) > 1:
            story.problems.append(f"task {task} has {len(ids)} receipts")
    for one in story.ended:
        if one.state == "right" and one.task not in receipts:
            story.problems.append(f"task {one.number} was answered, and no journal has its receipt")


def _pattern(reason: str) -> str:
    """A reason without what differs from task to task."""
    import re

    return re.sub(r"\b[0-9a-hjkmnp-tv-z]{26}\b", "…", re.sub(r"\d+(\.\d+)?(:\d\d)*", "n", reason))[:150]


def main(arguments: Sequence[str]) -> int:
    """Print the table; 1 if anything is not accounted for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="junto-chaos-") as temporary:
        story = run(given.seed, given.tasks, given.rate, given.folder or Path(temporary))
    sys.stdout.write(story.table() + "\n")
    return 1 if story.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
