# SPDX-License-Identifier: Apache-2.0
"""The comparison of two results of one fragment, told to the task: by salted digests of the rows, never by the rows.

It knows nothing of the work that it is told of: what work holds goes with its task.
"""

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

from junto.errors import JuntoError
from junto.logs import logger
from junto.node.cache import Copy
from junto.node.certifying import digest_of_fragment
from junto.node.spool import Spool, Spooled
from junto.plan.steps import Query
from junto.tasks.bodies import Second
from junto.types import Digest, NodeId, PartyId, StepId, TaskId

_log = logger("junto.comparing")
Gave: TypeAlias = pa.Table | Spooled | Copy


@dataclass(frozen=True, slots=True)
class Run:
    """One node's result."""

    node: NodeId
    gave: Gave


@dataclass(frozen=True, slots=True)
class Comparing:
    """The fragments of one task at one party. `told` hears how each compares."""

    me: PartyId
    task: TaskId
    salt: bytes
    spool: Spool
    told: Callable[[Second], None]

    async def compared(self, step: Query, first: Run, second: Run) -> None:
        """Both runs, the one that counts first."""
        runs = (first, second)
        try:
            found = [await asyncio.to_thread(digest_of_fragment, step, run.gave, self.spool) for run in runs]
        except JuntoError as error:
            self.once(step.id, f"two results of {self.me} cannot be compared: {error}")
            return
        nodes = tuple(run.node for run in runs)
        if found[0] != found[1]:
            _log.error(
                "two nodes gave different rows",
                task=self.task,
                step=step.id,
                nodes=nodes,
                first=found[0],
                second=found[1],
            )
        counts, other = (salted(self.salt, self.task, step.id, digest.encode()) for digest in found)
        self.told(Second(step.id, counts, other, nodes))

    def once(self, step: StepId, why: str) -> None:
        """Tell that there is no second result, and why."""
        self.told(Second(step, Digest(""), Digest(""), (), why))


def salted(salt: bytes, task: TaskId, step: StepId, inner: bytes) -> Digest:
    """A digest of a step's output that nobody can test guesses against: salted with a key that stays here."""
    key = hmac.digest(salt, f"{task} {step}".encode(), "sha256")
    return Digest("sha256:" + hmac.digest(key, inner, "sha256").hex())
