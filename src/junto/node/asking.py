# SPDX-License-Identifier: Apache-2.0
"""Begins a task for a user of ours. The same ask with the same id, however often it comes, is one task."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from junto.errors import InvalidInput, Refused
from junto.journal.statement import body_of
from junto.journal.store import Journal
from junto.node.ground import Ground
from junto.node.ids import new_task_id
from junto.node.runner import Runner
from junto.plan import steps
from junto.plan.budget import check_budget
from junto.plan.certify import signers
from junto.plan.steps import Plan
from junto.tasks.bodies import NO_TASK, Absent, Proposal
from junto.tasks.lengths import check_plan_length, check_text
from junto.trust.rights import Rights
from junto.types import PartyId, TaskId, is_task_id


@dataclass(frozen=True, slots=True)
class Wish:
    """A user's wish to ask a plan: for what purpose, in how many seconds, and under which id, if the user chose one."""

    plan: Plan
    user: str
    seconds: float
    purpose: str = ""
    priority: int = 0
    task: TaskId = NO_TASK
    absent: Absent = ""
    at_least: int = 0
    double: bool = False


class Asking:
    """The way from a wish to a task."""

    def __init__(
        self,
        me: PartyId,
        runner: Runner,
        journal: Journal,
        longest_seconds: float,
        ground: Ground,
        placed: Callable[[Plan], Plan],
        rights: Callable[[str], Rights],
    ) -> None:
        """`placed` gives the plan to propose for one that was compiled: the same, read where it costs least. `rights`
        says what a user of ours may do now."""
        self._me = me
        self._runner = runner
        self._journal = journal
        self._longest = longest_seconds
        self._ground = ground
        self._placed = placed
        self._rights = rights

    def check(self, plan: Plan, seconds: float, at_least: int = 0) -> None:
        """Raises InvalidInput unless it is a question of ours, of a size that is read, with limits that we allow."""
        check_budget(plan)
        if plan.asker != self._me:
            raise InvalidInput(f"the plan is asked by {plan.asker}; this is the node of {self._me}")
        check_plan_length(plan)
        if not 0 < seconds <= self._longest:
            raise InvalidInput(f"a deadline of {seconds:g} s: up to {self._longest:g} s here (`longest` in node.toml)")
        if not 0 <= at_least <= len(plan.parties):
            raise InvalidInput(f"at least {at_least} parties are to be left; the question has {len(plan.parties)}")

    def check_purpose(self, user: str, purpose: str) -> None:
        """Raises Refused unless the party's operators let the user ask for that purpose."""
        if not self._rights(user).may_state(purpose):
            raise Refused(
                f"{user} of {self._me} may not ask for {purpose[:100]!r}; to allow it, {self._me} would type:"
                f" junto user change {user} --purpose {shlex.quote(purpose[:100])}"
            )

    def begin(self, wish: Wish) -> TaskId:
        """The task of a wish: begun now, or the one that was begun when it came before.

        Raises InvalidInput as `check` does, and if the id is none or stands for another question or user; Refused as
        `check_purpose` does.
        """
        self.check(wish.plan, wish.seconds, wish.at_least)
        check_text("purpose", wish.purpose)
        if not wish.task:
            self.check_purpose(wish.user, wish.purpose)
            id = new_task_id(self._ground.unix_time(), self._ground.random)
            return self._runner.ask(id, self._proposal(wish)).task.id
        if not is_task_id(wish.task):
            raise InvalidInput(f"{wish.task[:40]!r} is no id of a task: 26 digits and small letters; leave it out")
        known = self.find(wish.task)
        if known is None:
            self.check_purpose(wish.user, wish.purpose)
            return self._runner.ask(wish.task, self._proposal(wish)).task.id
        if (known.user, *_meant(known)) != (wish.user, *_meant(wish)):
            raise InvalidInput(f"task {wish.task} is another question, or another user's: ask without naming an id")
        return wish.task

    def _proposal(self, wish: Wish) -> Proposal:
        plan = self._placed(wish.plan)
        return Proposal(
            plan=plan,
            plan_digest=steps.digest(plan),
            participants=plan.parties,
            user=wish.user,
            purpose=wish.purpose,
            seconds=wish.seconds,
            priority=wish.priority,
            absent=wish.absent,
            at_least=wish.at_least,
            double=wish.double,
        )

    def find(self, task: TaskId) -> Proposal | None:
        """The proposal under an id, now or in the past; None if there was none."""
        live = self._runner.live.get(task)
        if live is not None:
            return live.task.proposal
        found = next(self._journal.entries(kinds=("proposal",), task=task), None)
        return body_of(found.statement, Proposal) if found is not None else None


def _meant(asked: Proposal | Wish) -> tuple[object, ...]:
    """The parts that make two asks the same; not the plan's digest, as a plan may be placed elsewhere by then."""
    plan = asked.plan
    return plan.asker, plan.question, signers(plan), asked.purpose, asked.absent, asked.at_least, asked.double
