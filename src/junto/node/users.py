# SPDX-License-Identifier: Apache-2.0
"""The answers of a node to its own party's users."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from junto.errors import InvalidInput, Refused, StorageFailed
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.node.asking import Asking, Wish
from junto.node.publishing import Publishing
from junto.node.reporting import status_of
from junto.node.routes import Method, decoded
from junto.node.runner import Live
from junto.node.waits import within
from junto.plan.steps import Plan
from junto.tasks.bodies import Certified, Doubled
from junto.tasks.doubles import line as doubled_line
from junto.tasks.table import ENDED
from junto.trust.grants import GrantId, GrantRequest
from junto.types import Digest

if TYPE_CHECKING:
    from junto.node.node import Node

_REST_SECONDS = 0.2  # changes that come together are told together
_SMALL_BYTES = 64 * 1024  # such an answer comes with the news of the end
_LISTED_CHARACTERS = 2000  # of a question, in a list of tasks
_WATCH_SECONDS = 1.0  # a watcher hears at least so often, so that waits grow visibly


class Users:
    """The users' side of one node."""

    def __init__(self, node: "Node", publishing: Publishing, asking: Asking) -> None:
        self._node = node
        self._publishing = publishing
        self._asking = asking

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that users may call."""
        return {
            methods.USER_STATUS: self.status,
            methods.USER_DATASETS: self.datasets,
            methods.USER_CONSENTS: self.consents,
            methods.OPERATOR_PUBLISH: self.publish,
            methods.OPERATOR_WITHDRAW: self.withdraw,
            methods.OPERATOR_GRANTS: self.grants,
            methods.OPERATOR_GRANT: self.grant,
            methods.OPERATOR_REVOKE: self.revoke,
            methods.USER_ASK: self.ask,
            methods.USER_WATCH: self.watch,
            methods.USER_WAIT: self.wait,
            methods.USER_RESULT: self.result,
            methods.USER_TASKS: self.tasks,
            methods.USER_TASK: self.task,
            methods.USER_CANCEL: self.cancel,
        }

    async def status(self, caller: Caller, payload: bytes) -> Answer:
        """The node's state."""
        return msgspec.json.encode(status_of(self._node))

    async def datasets(self, caller: Caller, payload: bytes) -> Answer:
        """All parties' datasets, the caller's rights, and for whom each party computes."""
        datasets = msgspec.json.encode(self._node.facts.view.datasets)
        rights = msgspec.json.encode(self._node.home.rights(caller.name.user))
        consents = msgspec.json.encode(self._node.facts.view.consents)
        return msgspec.json.encode(methods.Catalogue(*map(msgspec.Raw, (datasets, rights, consents))))

    async def consents(self, caller: Caller, payload: bytes) -> Answer:
        """The parties for which each party computes what reads none of its data."""
        return msgspec.json.encode(self._node.facts.view.consents)

    async def publish(self, caller: Caller, payload: bytes) -> Answer:
        """Publish a file of datasets."""
        asked = decoded(payload, methods.Publish)
        return msgspec.json.encode(await self._publishing.publish(Path(asked.path), asked.proof))

    async def withdraw(self, caller: Caller, payload: bytes) -> Answer:
        """Withdraw a dataset."""
        await self._publishing.withdraw(decoded(payload, methods.Withdraw).name)
        return b""

    async def grants(self, caller: Caller, payload: bytes) -> Answer:
        """The party's grants."""
        return msgspec.json.encode(self._node.facts.grant_states())

    async def grant(self, caller: Caller, payload: bytes) -> Answer:
        """Give a grant."""
        return msgspec.json.encode(methods.Granted(await self._publishing.grant(decoded(payload, GrantRequest))))

    async def revoke(self, caller: Caller, payload: bytes) -> Answer:
        """Revoke a grant."""
        await self._publishing.revoke(GrantId(decoded(payload, methods.Revoke).id))
        return b""

    async def ask(self, caller: Caller, payload: bytes) -> Answer:
        """Begin a task. Answers at once with its id."""
        ask = decoded(payload, methods.Ask)
        plan = decoded(bytes(ask.plan), Plan)
        wish = Wish(
            plan,
            caller.name.user,
            ask.seconds,
            ask.purpose,
            ask.priority,
            ask.task,
            ask.absent,
            ask.at_least,
            ask.double,
        )
        live = self._node.runner.live.get(self._asking.begin(wish))
        if live is None:
            return msgspec.json.encode(methods.Which(wish.task))  # of long ago: the journal has it
        await live.recorded.wait()  # what we say we do, we do even if we die now
        if live.unrecorded and live.task.outcome is not None:
            raise StorageFailed(live.task.outcome.reason)
        return msgspec.json.encode(methods.Which(live.task.id))

    async def watch(self, caller: Caller, payload: bytes) -> Answer:
        """The task's progress with every change, until it has ended."""
        return self._watched(self._own(caller, payload))

    async def wait(self, caller: Caller, payload: bytes) -> Answer:
        """The end of the task, once it has ended; then its answer, if that is small."""
        return self._ended(self._own(caller, payload))

    async def result(self, caller: Caller, payload: bytes) -> Answer:
        """The answer's bytes."""
        live = self._own(caller, payload)
        if live.answer is None or live.task.state != "done":  # it may still wait for what certifies it
            state = live.task.state
            why = "it is kept no more; ask again" if state == "done" else f"it is {state}"
            raise InvalidInput(f"task {live.task.id} has no answer here: {why}")
        return self._node.outbox.pieces(live.answer.result)

    async def tasks(self, caller: Caller, payload: bytes) -> Answer:
        """The caller's tasks at hand, newest first; an operator's are all, those of other parties among them."""
        return self._listed(caller)

    async def _listed(self, caller: Caller) -> AsyncIterator[bytes]:
        """One task a line, each made when the line before it has left: many large ones are never in memory at once."""
        for id in sorted(self._node.runner.live, reverse=True):
            live = self._node.runner.live.get(id)
            if live is not None and self._is_own(caller, live):
                told = self._progress(live)
                if len(told.question) > _LISTED_CHARACTERS:
                    told = msgspec.structs.replace(told, question=told.question[:_LISTED_CHARACTERS] + " …")
                yield msgspec.json.encode(told) + b"\n"

    async def task(self, caller: Caller, payload: bytes) -> Answer:
        """One task."""
        return msgspec.json.encode(self._progress(self._own(caller, payload)))

    async def cancel(self, caller: Caller, payload: bytes) -> Answer:
        """End a task."""
        await self._node.runner.cancel(self._own(caller, payload).task.id, caller.name.user)
        return b""

    def _own(self, caller: Caller, payload: bytes) -> Live:
        """The task that is meant. Raises InvalidInput, and Refused unless the caller asked, or is an operator."""
        live = self._node.runner.find(decoded(payload, methods.Which).task)
        if not self._is_own(caller, live):
            whose = f"{live.task.proposal.user}@{live.task.asker}"
            raise Refused(
                f"task {live.task.id} is of {whose}: only they, or an operator of {self._node.me}, may see or stop it"
            )
        return live

    def _is_own(self, caller: Caller, live: Live) -> bool:
        return self._node.may_see(caller.name.user, live.task.id)

    def _progress(self, live: Live) -> methods.Progress:
        return progress_of(live, self._node.admission.why(live.task.id))

    async def _watched(self, live: Live) -> AsyncIterator[bytes]:
        while True:
            changed = live.changed
            progress = self._progress(live)
            over = _is_over(live)
            yield msgspec.json.encode(progress)
            if over:
                return
            await within(changed.wait(), _WATCH_SECONDS)
            await _rested(live)

    async def _ended(self, live: Live) -> AsyncIterator[bytes]:
        """The end, and after it an answer that is small; a larger one is asked for."""
        while not _is_over(live):
            coming = live.changed if live.task.state in ENDED else live.ended
            await within(coming.wait(), _WATCH_SECONDS)
        yield msgspec.json.encode(self._progress(live))
        result = live.answer.result if live.answer is not None and live.task.state == "done" else None
        if isinstance(result, bytes) and len(result) <= _SMALL_BYTES:
            yield result


def _is_over(live: Live) -> bool:
    """True if there is no more to tell of the task: it ended, goes on as no other task, and its receipt has a name."""
    told = bool(live.receipt_statement) or live.task.receipt is None
    return live.task.state in ENDED and not live.going_on and told


async def _rested(live: Live) -> None:
    """Return a moment after a change, so that what changes together is told together; at once when the task ends."""
    clock = asyncio.get_running_loop().time
    until = clock() + _REST_SECONDS
    while live.task.state not in ENDED and clock() < until:
        await within(live.changed.wait(), until - clock())


def progress_of(live: Live, held_up: str) -> methods.Progress:
    """A task as its watchers see it. `held_up`: what our own part waits for, in words."""
    task = live.task
    kinds = {step.id: type(step).__name__ for step in task.proposal.plan.steps}
    outcome, receipt = task.outcome, task.receipt
    return methods.Progress(
        task=task.id,
        question=task.proposal.plan.question,
        asker=task.asker,
        user=task.proposal.user,
        purpose=task.proposal.purpose,
        participants=task.proposal.participants,
        state=task.state,
        opened_at=task.opened_at,
        deadline=task.deadline,
        parts=tuple(
            methods.Part(step, kinds.get(step, ""), party, done.rows, done.bytes, done.seconds)
            for (step, party), done in task.finished.items()
        ),
        parts_total=task.parts_total,
        waits=tuple(
            methods.Waiting(w.party, w.what, w.since, w.until, w.why or (held_up if w.party == task.me else ""))
            for w in task.waits()
        ),
        code=outcome.code if outcome is not None else "",
        party=outcome.party if outcome is not None else "",
        reason=outcome.reason if outcome is not None else "",
        ended_at=outcome.at if outcome is not None else None,
        missing=task.proposal.missing,
        continued=live.continued,
        certificates=_certificates(task.signatures.record),
        deviations=tuple(
            methods.Deviation(one.step, one.party, one.digest, one.counts or Digest(""), one.line)
            for one in task.deviations
        ),
        attempts={step: number + 1 for step, number in task.attempts.items()},
        receipt=None
        if receipt is None or not live.receipt_statement
        else methods.ReceiptView(
            task=task.id,
            statement=live.receipt_statement,
            contract=receipt.contract,
            plan=receipt.plan_digest,
            result=receipt.result,
            rows=receipt.rows,
            withheld=receipt.told,
            versions=tuple(methods.Reading(v.party, v.dataset, v.version) for v in receipt.versions),
            seconds=receipt.seconds,
            signer=task.receiver,
            certificates=_certificates(receipt.certificates),
            doubled=_doubled(receipt.doubled),
        ),
    )


def _doubled(found: tuple[Doubled, ...]) -> tuple[methods.Doubled, ...]:
    return tuple(
        methods.Doubled(
            one.second.step,
            one.party,
            one.second.nodes,
            one.second.first,
            one.second.second,
            one.statement,
            doubled_line(one),
        )
        for one in found
    )


def _certificates(found: tuple[Certified, ...]) -> tuple[methods.Certificate, ...]:
    return tuple(
        methods.Certificate(
            one.step, one.digest, tuple(methods.Signature(s.party, s.step, s.digest, s.statement) for s in one.signed)
        )
        for one in found
    )
