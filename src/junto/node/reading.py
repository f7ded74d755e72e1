# SPDX-License-Identifier: Apache-2.0
"""Reads proposed plans: what each asks of us and discloses, worked out away from the node's loop, within a time.

Reading is parsing and walking SQL that others wrote. It holds the interpreter while it goes on, and no thread of Python
can be ended; so a node reads in children (`reading_child.py`), which are killed when their time is over. A notebook and
a simulator read in their own process, where the plan's budget is what bounds it.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from junto.catalog.dataset import Dataset
from junto.children.pipe import Broken
from junto.children.pool import Pool
from junto.errors import Crashed, InvalidInput, error_from_code
from junto.node.waits import to_the_end
from junto.plan.disclosure import digest_of, disclosures
from junto.plan.review import Review, review
from junto.plan.steps import Plan
from junto.plan.texts import Texts
from junto.types import Digest, PartyId

_START_SECONDS = 60.0  # for a child to load what it needs


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plan to read, and the party that reads it."""

    plan: Plan
    party: PartyId
    datasets: tuple[Dataset, ...]


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The demands of a plan on a party, and the digest of all that it discloses."""

    review: Review
    disclosures: Digest


class Faulty(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The reason why a plan cannot run."""

    code: str
    message: str


Reader = Callable[[Plan, PartyId, Sequence[Dataset]], Awaitable[Found]]
"""The demands of a plan on a party with these datasets. Raises as `review` does, InvalidInput if it takes too long."""


def read_plan(given: Given) -> Found:
    """The demands of a plan on a party. Raises as `review` does."""
    texts = Texts()
    found = review(given.plan, given.party, given.datasets, texts)
    return Found(found, digest_of(disclosures(given.plan, texts=texts)))


async def read_here(plan: Plan, party: PartyId, datasets: Sequence[Dataset]) -> Found:
    """A `Reader` in this process."""
    return await asyncio.to_thread(read_plan, Given(plan, party, tuple(datasets)))


@dataclass(frozen=True, slots=True)
class ReadInChildren:
    """A `Reader` in children of `pool`, each plan within `seconds`."""

    pool: Pool
    seconds: float

    async def __call__(self, plan: Plan, party: PartyId, datasets: Sequence[Dataset]) -> Found:
        """See `Reader`. Raises Crashed if the child ended under it."""
        given = msgspec.msgpack.encode(Given(plan, party, tuple(datasets)))
        stop = threading.Event()
        job = asyncio.ensure_future(asyncio.to_thread(self._read, given, stop))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            stop.set()
            await to_the_end(job)
            raise

    def _read(self, given: bytes, stop: threading.Event) -> Found:
        with self.pool.lent() as lent:
            pipe = lent.child.pipe
            try:
                if lent.fresh:
                    pipe.receive(stopped=stop.is_set, seconds=_START_SECONDS)  # it says that it is there
                pipe.send(b"", given, stopped=stop.is_set)
                _, body = pipe.receive(stopped=stop.is_set, seconds=self.seconds)
                told = msgspec.msgpack.decode(body, type=Found | Faulty)
            except TimeoutError:
                raise InvalidInput(
                    f"the plan was not read within {self.seconds:g} s (`judging` in node.toml):"
                    " ask in several smaller questions"
                ) from None
            except (Broken, msgspec.MsgspecError) as error:
                raise Crashed(f"the process that read the plan ended ({lent.child.ended()})") from error
            lent.whole = True
        if isinstance(told, Faulty):
            raise error_from_code(told.code, told.message)
        return told
