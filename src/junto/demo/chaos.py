# SPDX-License-Identifier: Apache-2.0
"""The demo with kills: nodes die by SIGKILL in the middle of a question, come back, and the answer is still right."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from junto.demo.consortium import consortium, junto
from junto.demo.oracle import largest_difference
from junto.demo.run import ASKER, PARTIES, QUESTIONS, TOLERANCE, Question, Say, Stage, dominated, expected, publish
from junto.errors import Unavailable

_DEADLINE = "120s"
_MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class Scene:
    """The question in which nodes are killed, and the nodes that are."""

    title: str
    victims: tuple[str, ...]
    question: Question
    at_part: int  # killed when so many parts of the question's steps are finished


SCENES = (
    Scene("An owner's node is killed while it computes", ("united",), QUESTIONS[3], 0),
    Scene("An owner's node is killed between the steps", ("delta",), QUESTIONS[3], 2),
    Scene("The node that asked is killed, while its user waits", (ASKER,), QUESTIONS[0], 1),
    Scene("Every node is killed at once", PARTIES, QUESTIONS[1], 1),
)


class Survived(msgspec.Struct, frozen=True):
    """The outcome of one question in which nodes were killed."""

    scene: str
    killed: tuple[str, ...]
    state_when_killed: str
    parts_finished_when_killed: int
    steps_computed_again: tuple[str, ...]
    begun_anew: dict[str, int]
    seconds: float
    seconds_after_restart: float
    groups: int
    max_abs_error: float


class ChaosReport(msgspec.Struct, frozen=True):
    """The demo's outcome; `ok` if every answer was right and every node was killed while its question ran."""

    parties: tuple[str, ...]
    rows: dict[str, int]
    questions: tuple[Survived, ...]
    kills: int
    max_abs_error: float
    journals_verified: int
    seconds: float
    ok: bool


def run(say: Say, folder: Path | None = None) -> ChaosReport:
    """Run it all; `say` gets lines for a person. Raises what goes wrong, one line."""
    started = time.monotonic()
    say(f"Setting up {len(PARTIES)} parties: keys, cards, a charter signed by all, a node process each …")
    with consortium(PARTIES, "flights-2013", folder) as running:
        stage = Stage(say, running, {party: running.folder / "sources" / party for party in PARTIES})
        rows = publish(stage)
        survived = [_scene(stage, number, scene) for number, scene in enumerate(SCENES, start=1)]
        say("\n── Proof " + "─" * 80)
        for party, home in running.homes.items():
            say(f"{party:<8} {junto('journal', 'verify', str(home / 'journal.db')).strip().splitlines()[-1]}")
    error = max(one.max_abs_error for one in survived)
    report = ChaosReport(
        parties=PARTIES,
        rows=rows,
        questions=tuple(survived),
        kills=sum(len(one.killed) for one in survived),
        max_abs_error=error,
        journals_verified=len(PARTIES),
        seconds=round(time.monotonic() - started, 2),
        ok=error <= TOLERANCE and all(one.state_when_killed == "running" for one in survived),
    )
    say(f"\n{report.kills} nodes were killed; largest difference to DuckDB over the pooled rows: {error:.3g}.")
    say("All as it should be." if report.ok else "SOMETHING IS WRONG: see above.")
    return report


def _scene(stage: Stage, number: int, scene: Scene) -> Survived:
    stage.say(f"\n── {number}. {scene.title} " + "─" * max(3, 84 - len(scene.title)))
    stage.say(scene.question.sql)
    for _ in range(_MOST_TRIES):
        survived = _tried(stage, scene)
        if survived is not None:
            return survived
        stage.say("it was answered before the kill; once more")
    raise Unavailable(f"the question was answered {_MOST_TRIES} times before a node could be killed in it")


def _tried(stage: Stage, scene: Scene) -> Survived | None:
    """One attempt; None if the answer was there before the kill."""
    running = stage.running
    pids = [running.pid(party) for party in scene.victims]
    with running.desk(ASKER) as desk, ThreadPoolExecutor(1) as waiting:
        question = desk.sql(scene.question.sql)
        began = time.monotonic()
        task = question.submit(deadline=_DEADLINE)
        at = desk.task(task)
        while at.ended_at is None and (at.state != "running" or len(at.parts) < scene.at_part):
            at = desk.task(task)
        if at.ended_at is not None:
            desk.wait(task)
            return None
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        answered = waiting.submit(desk.wait, task)
        done, total = len(at.parts), at.parts_total
        stage.say(f"killed {', '.join(scene.victims)}: {done} of {total} parts of steps were finished")
        for party in scene.victims:
            running.start(party)
        back = time.monotonic()
        stage.say(f"started again after {back - killed:.2f} s")
        answer = answered.result()
        ended = time.monotonic()
    error = largest_difference(
        answer.table, expected(stage, scene.question), scene.question.keys, dominated(stage, scene.question)
    )
    again = tuple(sorted({part.step for part in at.parts if part not in answer.progress.parts}))
    stage.say(
        f"answered {ended - back:.2f} s after the restart: {answer.table.num_rows} groups, "
        f"largest difference to the pooled rows {error:.3g}; "
        f"finished steps that were computed again: {', '.join(again) or 'none'}"
    )
    for step, run_number in answer.progress.attempts.items():
        stage.say(f"joint step {step} began anew: run {run_number}")
    return Survived(
        scene=scene.title,
        killed=scene.victims,
        state_when_killed=at.state,
        parts_finished_when_killed=len(at.parts),
        steps_computed_again=again,
        begun_anew={str(step): count for step, count in answer.progress.attempts.items()},
        seconds=round(ended - began, 3),
        seconds_after_restart=round(ended - back, 3),
        groups=answer.table.num_rows,
        max_abs_error=error,
    )
