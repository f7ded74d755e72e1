# SPDX-License-Identifier: Apache-2.0
"""A question and its answer, as the analyst holds them."""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from junto.errors import Cancelled, DeadlineExceeded, InvalidInput, JuntoError, Refused, Unavailable, error_from_code
from junto.link.methods import Absent, Certificate, Deviation, Doubled, Progress, ReceiptView
from junto.types import HIDDEN, OWN_LEFT_OUT, TaskId, seconds_of, spelled_id

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from junto.plan.explain import Explanation
    from junto.plan.steps import Plan

Watcher = Callable[[Progress], None]
"""A callback for every change of a running task."""


class Asker(Protocol):
    """The methods that a question needs of its desk."""

    def submit(
        self, plan: "Plan", *, seconds: float, purpose: str, priority: int, absent: Absent, at_least: int, double: bool
    ) -> TaskId:
        """Hand a plan to the node, as often as it takes to be sure that it has it once; the task's id."""

    def certified(self, plan: "Plan", n: int) -> "Plan":
        """The plan in which `n` parties compute what everybody may see, each for itself."""

    def ended(self, task: TaskId, watch: Watcher | None, seconds: float | None) -> "Ended":
        """Wait until the task has ended. `seconds`: how long it may take, if that is known."""

    def cancel(self, task: TaskId) -> None:
        """End a task at every participant."""

    def result(self, task: TaskId) -> "pa.Table":
        """The answer of a task that is done."""

    def explain(self, plan: "Plan") -> "Explanation":
        """The explanation of a plan: who learns what."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A task's last progress, and its answer as an Arrow IPC stream, if that came along."""

    progress: Progress
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a question, and the proof of it."""

    table: "pa.Table"
    receipt: ReceiptView
    progress: Progress

    @property
    def task(self) -> TaskId:
        """The task's id."""
        return self.progress.task

    @property
    def seconds(self) -> float:
        """From the proposal to the receipt, on the asker's node."""
        return self.receipt.seconds

    @property
    def withheld(self) -> bool:
        """True if groups were too small to show, with enough units behind them for this to be told.

        False says that there were none, or too few units to tell; how many there were is told nowhere.
        """
        return self.receipt.withheld == "some"

    @property
    def own_left_out(self) -> int:
        """The number of groups of the asker's own rows that the answer lacks: the others have too few units there."""
        return int((self.table.schema.metadata or {}).get(OWN_LEFT_OUT, b"0"))

    @property
    def hidden(self) -> int:
        """The number of groups in which a figure is NULL: too few units stand behind it or one unit is most of it."""
        return int((self.table.schema.metadata or {}).get(HIDDEN, b"0"))

    @property
    def missing(self) -> tuple[str, ...]:
        """Parties whose rows are not in it, because they stayed away and the task went on without them."""
        return self.progress.missing

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The steps that several parties computed, and who signed which digest in which statement."""
        return self.receipt.certificates

    @property
    def doubled(self) -> tuple[Doubled, ...]:
        """Each fragment that was to be computed twice: the nodes that did, or why only one did."""
        return self.receipt.doubled

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Every digest of a step told by a party, or by its second node, that differs from the one that counts."""
        return self.progress.deviations

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a pandas frame."""
        return self.table.to_pandas()


@dataclass(frozen=True, slots=True)
class Question:
    """A compiled question. Nothing has run yet."""

    text: str
    plan: "Plan"
    purpose: str
    desk: Asker

    def certified(self, n: int) -> "Question":
        """The same question, of which `n` parties compute what everybody may see, each for itself, and sign one digest.

        Raises InvalidInput if nothing in it is over open tables alone, or fewer than `n` parties hold these.
        """
        return replace(self, plan=self.desk.certified(self.plan, n))

    def explain(self) -> "Explanation":
        """The explanation of the plan before anything runs: who will do what, and who will learn what."""
        return self.desk.explain(self.plan)

    def submit(
        self,
        *,
        deadline: str | float = "60s",
        priority: int = 0,
        absent: Absent = "",
        at_least: int = 0,
        certify: int = 0,
        double: bool = False,
    ) -> TaskId:
        """Start the task and return at once; `Desk.wait` gives the answer.

        absent: what becomes of it when a participant stays away: `wait` until the deadline, `fail`, or `go-on` without
        it while at least `at_least` participants are left, the asker among them; the answer then lists who is missing.
        certify: so many parties compute what everybody may see, as `certified` says; 0 is nobody but its owner.
        double: where a party runs several nodes, two of them compute each of its fragments. The first result counts, a
        second that differs is among the answer's deviations, and `Answer.doubled` says how each was computed.
        """
        if at_least and absent != "go-on":
            raise InvalidInput('at_least says how many must be left to go on: add absent = "go-on", or leave it out')
        return self.desk.submit(
            self.desk.certified(self.plan, certify) if certify else self.plan,
            seconds=seconds(deadline),
            purpose=self.purpose,
            priority=priority,
            absent=absent,
            at_least=at_least,
            double=double,
        )

    def run(
        self,
        *,
        deadline: str | float = "60s",
        priority: int = 0,
        absent: Absent = "",
        at_least: int = 0,
        certify: int = 0,
        double: bool = False,
        watch: Watcher | None = None,
    ) -> Answer:
        """The answer. Raises Refused, DeadlineExceeded, Cancelled, Deviation, or the error that ended the task.

        absent, at_least, certify, double: as for `submit`.
        """
        task = self.submit(
            deadline=deadline, priority=priority, absent=absent, at_least=at_least, certify=certify, double=double
        )
        try:
            return answer(self.desk, task, watch, seconds(deadline))
        except KeyboardInterrupt:
            with suppress(JuntoError):
                self.desk.cancel(task)  # nobody waits for the answer any more
            raise


def answer(desk: Asker, task: TaskId, watch: Watcher | None, seconds: float | None = None) -> Answer:
    """Follow a task to its end. `seconds`: how long it may take, if that is known. Raises what ended it otherwise."""
    ended = desk.ended(task, watch, seconds)
    progress = ended.progress
    if progress.state != "done" or progress.receipt is None:
        raise ending(progress)
    table = desk.result(progress.task) if ended.data is None else read(ended.data)
    return Answer(table, progress.receipt, progress)


def read(data: bytes) -> "pa.Table":
    """The answer's table, from its Arrow IPC stream."""
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    said = {key: value for key, value in (table.schema.metadata or {}).items() if key in (OWN_LEFT_OUT, HIDDEN)}
    return table.replace_schema_metadata({key: value for key, value in said.items() if value != b"0"} or None)


def ending(progress: Progress) -> JuntoError:
    """The error that an ended task without an answer stands for."""
    match progress.state:
        case "refused":
            return Refused(progress.reason)
        case "cancelled":
            return Cancelled(f"task {progress.task}: {progress.reason}")
        case "expired":
            return DeadlineExceeded(f"task {progress.task}: {progress.reason}")
        case "failed":
            return error_from_code(progress.code, f"task {progress.task} failed at {progress.party}: {progress.reason}")
        case state:
            how = f"`junto task show {progress.task}` tells how it goes on"
            return Unavailable(f"task {progress.task} is {state}, and its answer was not to be had in time; {how}")


def new_task_id() -> TaskId:
    """An id for a task, chosen here so that asking may be repeated."""
    return TaskId(spelled_id(time.time(), secrets.token_bytes(10)))


def seconds(deadline: str | float) -> float:
    """A deadline in seconds. Raises InvalidInput."""
    try:
        return seconds_of(deadline)
    except ValueError as error:
        raise InvalidInput(f"deadline: {error}") from error
