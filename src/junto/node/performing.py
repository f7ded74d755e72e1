# SPDX-License-Identifier: Apache-2.0
"""A node's part of one contracted plan: loaded, admitted, done; however it goes, the task hears of it."""

import asyncio
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from junto.errors import Cancelled, JuntoError, StorageFailed, Unavailable, lack_of
from junto.logs import logger
from junto.node.files import in_words
from junto.node.retries import until_room
from junto.node.runner import Live
from junto.node.telling import StepError
from junto.node.waits import first_error
from junto.tasks.bodies import Finished, Second
from junto.tasks.events import Released, StepDoubled, StepFailed, StepFinished, StepTried
from junto.tasks.table import ENDED
from junto.types import StepId

if TYPE_CHECKING:
    from junto.node.node import Node

_log = logger("junto.node")


async def perform(node: "Node", live: Live) -> None:
    """Do our part of a contracted plan, and tell the task how it went."""
    task = live.task

    def left() -> float:
        return max(task.deadline - node.ground.unix_time(), 0.0)

    try:
        await until_room(_load, left)
        await node.admission.begin(task)
        await until_room(lambda: node.judgement.begin(task.id), left)
        await _work(node, live)
    except StepError as error:
        failure = error.failure
        if isinstance(failure.error, Cancelled) and failure.party != node.me:
            # The party has ended the task: its statement says why, is on its way, and ends this work.
            await asyncio.sleep(node.settings.patience.absence_seconds)
            failure = replace(failure, error=Unavailable(f"{failure.party} has ended the task, and not said why"))
        _failed(node, live, failure.event(node.ground.unix_time()))
    except JuntoError as error:
        told = error.told_by(node.me) if isinstance(error, StorageFailed) else error
        _failed(node, live, StepFailed(StepId(""), told.code, node.me, str(told), node.ground.unix_time()))
    except Exception as error:  # noqa: BLE001  # a fault of ours must end the task, named, not leave it waiting
        _log.exception("work failed", task=task.id)
        reason = f"a fault of this node ({type(first_error(error)).__name__}); its log says more"
        _failed(node, live, StepFailed(StepId(""), "internal", node.me, reason, node.ground.unix_time()))


async def _load() -> None:
    """Load what protocols and arrays need, part of which unpacks itself into a temporary file."""
    try:
        await asyncio.to_thread(import_module, "junto.node.work")
    except OSError as error:
        raise StorageFailed(f"what computes cannot be loaded: {in_words(error)}", lack=lack_of(error)) from error


async def _work(node: "Node", live: Live) -> None:
    from junto.node.work import Job, Work

    task = live.task

    def finished(done: Finished) -> None:
        if task.state not in ENDED:
            node.runner.dispatch(live, StepFinished(done, node.ground.unix_time()))

    def tried(step: StepId, tries: int, error: JuntoError) -> None:
        if task.state not in ENDED:
            node.runner.dispatch(live, StepTried(step, tries, error.code, str(error), node.ground.unix_time()))

    def second(told: Second) -> None:
        if task.state not in ENDED:
            node.runner.dispatch(live, StepDoubled(told, node.ground.unix_time()))

    job = Job(
        task.id,
        task.proposal.plan,
        task.context,
        task.deadline,
        task.run_of,
        task.resting_on,
        finished,
        tried,
        task.doubles.parts,
        second,
        node.judgement.home_limits(task.id),
    )
    work = Work(node.lend(), job, live.kept, live.answer)
    live.kept = {}
    live.redo = work.redo
    answer = await work.run()
    if answer is not None and task.state not in ENDED:
        live.answer = answer
        node.runner.dispatch(live, Released(answer.digest, answer.rows, answer.withheld, node.ground.unix_time()))
    await work.doubling.rest()


def _failed(node: "Node", live: Live, event: StepFailed) -> None:
    if live.task.state not in ENDED:
        node.runner.dispatch(live, event)
