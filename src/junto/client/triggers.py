# SPDX-License-Identifier: Apache-2.0
"""Questions that are asked again without anybody sitting there: `desk.triggers`."""

from typing import Literal, Protocol

import msgspec

from junto.client.question import Question, new_task_id, seconds
from junto.client.reply import decoded
from junto.errors import InvalidInput
from junto.link import methods
from junto.link.methods import Absent, TriggerView
from junto.types import DatasetName, PartyId, TaskId


class Asker(Protocol):
    """The methods that triggers need of their desk."""

    def request(self, method: str, body: bytes = b"") -> bytes:
        """One call of the node."""


class Triggers:
    """The triggers of the desk's party. The node keeps them, and runs them whether anybody is connected or not."""

    def __init__(self, desk: Asker) -> None:
        self._desk = desk

    def create(
        self,
        name: str,
        question: Question,
        *,
        cron: str = "",
        zone: str = "UTC",
        on_version: str = "",
        after: str = "",
        ends: Literal["done", "any"] = "any",
        missed: Literal["catch-up", "skip"] = "catch-up",
        deadline: str | float = "60s",
        priority: int = 0,
        absent: Absent = "",
        at_least: int = 0,
        double: bool = False,
        user: str = "",
    ) -> TriggerView:
        """Ask the question whenever its one condition comes about, over the datasets of that time.

        cron: five fields, on the clocks of `zone`. on_version: `DATASET` of any party, or `DATASET@PARTY`. after: the
        name of another trigger, or a task's id; with `ends="done"` only an answer counts. missed: what becomes of
        occasions that came while the node was down. absent: what becomes of a task when a participant stays away:
        `wait` until the deadline, `fail`, or `go-on` if `at_least` are left. double: two nodes of a party compute its
        fragments, as for `Question.submit`. user: of an operator, whose it is.
        Raises InvalidInput, and Refused for another's trigger.
        """
        from junto.plan import steps

        dataset, _, party = on_version.partition("@")
        request = methods.CreateTrigger(
            name=name,
            plan=msgspec.Raw(steps.encode(question.plan)),
            seconds=seconds(deadline),
            purpose=question.purpose,
            priority=priority,
            absent=absent,
            at_least=at_least,
            double=double,
            missed=missed,
            user=user,
            cron=cron,
            zone=zone,
            dataset=DatasetName(dataset),
            party=PartyId(party),
            after=after,
            ends=ends,
        )
        return decoded(self._ask(methods.USER_TRIGGER_CREATE, request), TriggerView)

    def all(self) -> tuple[TriggerView, ...]:
        """This user's triggers, oldest first; an operator's are all of the party."""
        return decoded(self._desk.request(methods.USER_TRIGGERS), methods.Triggers).triggers

    def show(self, name: str) -> TriggerView:
        """One trigger, with its latest firings. Raises InvalidInput."""
        found = next((view for view in self.all() if view.name == name), None)
        if found is None:
            raise InvalidInput(f"no trigger {name[:64]!r} here; `junto trigger ls` lists them")
        return found

    def pause(self, name: str) -> None:
        """Let nothing come of it for now; what comes meanwhile is not made up for."""
        self._ask(methods.USER_TRIGGER_CHANGE, methods.ChangeTrigger(name, "paused"))

    def resume(self, name: str) -> None:
        """Go on from now."""
        self._ask(methods.USER_TRIGGER_CHANGE, methods.ChangeTrigger(name, "active"))

    def remove(self, name: str) -> None:
        """End it. Its tasks go on; what it did stays in the journal."""
        self._ask(methods.USER_TRIGGER_CHANGE, methods.ChangeTrigger(name, "removed"))

    def fire(self, name: str) -> TaskId:
        """Ask its question now; the task's id. Raises InvalidInput with what no longer fits."""
        request = methods.FireTrigger(name, new_task_id())
        return decoded(self._ask(methods.USER_TRIGGER_FIRE, request), methods.Which).task

    def _ask(self, method: str, body: methods.Message) -> bytes:
        return self._desk.request(method, msgspec.json.encode(body))
