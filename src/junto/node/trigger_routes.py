# SPDX-License-Identifier: Apache-2.0
"""The answers of a node to its own party's users about triggers: the triggers, and the right to make and steer them."""

import re
from collections.abc import Callable

import msgspec

from junto.errors import InvalidInput, Refused
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.node.routes import Method, decoded
from junto.node.triggers import Triggers
from junto.plan.steps import Plan
from junto.tasks.firings import Armed
from junto.tasks.triggers import Cron, Firing, NewVersion, TaskEnd, Trigger, TriggerEnd, When, spoken
from junto.types import TaskId, is_task_id

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class TriggerRoutes:
    """The users' side of the triggers."""

    def __init__(self, triggers: Triggers, is_user: Callable[[str], bool], is_operator: Callable[[str], bool]) -> None:
        self._triggers = triggers
        self._is_user = is_user
        self._is_operator = is_operator

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that users may call."""
        return {
            methods.USER_TRIGGERS: self.ls,
            methods.USER_TRIGGER_CREATE: self.create,
            methods.USER_TRIGGER_CHANGE: self.change,
            methods.USER_TRIGGER_FIRE: self.fire,
        }

    async def ls(self, caller: Caller, payload: bytes) -> Answer:
        """The caller's triggers that stand, oldest first; an operator's are all."""
        all_of_them = self._is_operator(caller.name.user)
        own = [one for one in self._triggers.standing if all_of_them or one.trigger.user == caller.name.user]
        return msgspec.json.encode(methods.Triggers(tuple(map(self._view, own))))

    async def create(self, caller: Caller, payload: bytes) -> Answer:
        """A new trigger: the caller's own or, of an operator, another user's."""
        asked = decoded(payload, methods.CreateTrigger)
        user = asked.user or caller.name.user
        if user != caller.name.user and not self._is_operator(caller.name.user):
            raise Refused(f"only an operator may make a trigger for {user}; make your own, without naming a user")
        if not self._is_user(user):
            raise InvalidInput(f"{user[:64]!r} is no user here; `junto user ls` lists them")
        if _NAME.fullmatch(asked.name) is None or is_task_id(asked.name):
            raise InvalidInput(f"{asked.name[:64]!r} is no name of a trigger: small letters, digits and hyphens")
        if not -1000 <= asked.priority <= 1000:
            raise InvalidInput(f"priority {asked.priority}: from -1000 to 1000")
        trigger = Trigger(
            name=asked.name,
            user=user,
            plan=decoded(bytes(asked.plan), Plan),
            basis=(),
            when=_when(asked),
            missed=asked.missed,
            seconds=asked.seconds,
            purpose=asked.purpose,
            priority=asked.priority,
            absent=asked.absent,
            at_least=asked.at_least,
            double=asked.double,
        )
        return msgspec.json.encode(self._view(await self._triggers.create(trigger)))

    async def change(self, caller: Caller, payload: bytes) -> Answer:
        """Pause, resume or remove one."""
        change = decoded(payload, methods.ChangeTrigger)
        self._check_own(caller, self._triggers.find(change.name))
        await self._triggers.change(change.name, change.state, caller.name.user)
        return b""

    async def fire(self, caller: Caller, payload: bytes) -> Answer:
        """Fire one now."""
        asked = decoded(payload, methods.FireTrigger)
        self._check_own(caller, self._triggers.find(asked.name))
        if not is_task_id(asked.task):
            raise InvalidInput(f"{asked.task[:40]!r} is no id of a task")
        await self._triggers.fire(asked.name, asked.task, caller.name.user)
        return msgspec.json.encode(methods.Which(asked.task))

    def _check_own(self, caller: Caller, armed: Armed) -> None:
        user = armed.trigger.user
        if user != caller.name.user and not self._is_operator(caller.name.user):
            raise Refused(f"trigger {armed.trigger.name} is {user}'s: only they, or an operator, may do that")

    def _view(self, armed: Armed) -> methods.TriggerView:
        trigger = armed.trigger
        return methods.TriggerView(
            id=armed.id,
            name=trigger.name,
            user=trigger.user,
            question=trigger.plan.question,
            parties=trigger.plan.parties,
            when=spoken(trigger.when),
            missed=trigger.missed,
            seconds=trigger.seconds,
            purpose=trigger.purpose,
            priority=trigger.priority,
            state=armed.state,
            created_at=armed.created_at,
            next_at=self._triggers.next_at(armed),
            waiting=len(armed.waiting),
            firings=tuple(self._firing(armed, firing) for firing in reversed(armed.firings)),
        )

    def _firing(self, armed: Armed, firing: Firing) -> methods.FiringView:
        misfire = armed.misfires.get(firing.id)
        if misfire is not None:
            end, reason = "no task", misfire.reason
        else:
            end, reason = self._triggers.end_of(firing.task) or "running", ""
        return methods.FiringView(firing.id, firing.occasion, firing.due, firing.task, firing.user, end, reason)


def _when(asked: methods.CreateTrigger) -> When:
    """The one condition that was named. Raises InvalidInput."""
    if sum(map(bool, (asked.cron, asked.dataset, asked.after))) != 1:
        raise InvalidInput("a trigger has one condition: a cron expression, a dataset, or a trigger or task to follow")
    if asked.cron:
        return Cron(" ".join(asked.cron.split()), asked.zone)
    if asked.dataset:
        return NewVersion(asked.dataset, asked.party or None)
    if is_task_id(asked.after):
        return TaskEnd(TaskId(asked.after), asked.ends)
    return TriggerEnd(asked.after, asked.ends)
