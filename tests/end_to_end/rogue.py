# SPDX-License-Identifier: Apache-2.0
"""A party that holds its real keys and does what it likes with them, over a real link."""

import asyncio
import time
from typing import TypeVar

import msgspec
from pooled import Pooled

from junto.journal.statement import Statement, body_of, read_statement, sign
from junto.link import methods
from junto.link.connection import Answer, Caller, Link
from junto.link.dial import dial, here_of
from junto.node.exchange import Pull
from junto.node.ids import new_id
from junto.plan import steps
from junto.plan.steps import Plan
from junto.tasks.bodies import Body, Offer, Proposal, kind_of
from junto.testing.until import until
from junto.types import Digest, PartyId, StepId, TaskId

B = TypeVar("B", bound=Body)


class Rogue:
    """Takes the place of one party's node towards one victim. Keeps what the victim tells it."""

    def __init__(self, world: Pooled, party: str, victim: str) -> None:
        self.party = PartyId(party)
        self._world = world
        self._victim = victim
        node = world.node(party)
        self.identity = node.identity
        world.on_loop(node.links.close())
        self.heard: list[bytes] = []
        self._here = here_of(self.identity, node.charter, f"rogue {party}")
        self._link: Link | None = None
        world.on_loop(self._dial())

    async def _dial(self) -> None:
        address = self._world.node(self._victim).links.listening[0]
        handlers = {methods.PEER_TELL: self._tell, methods.PEER_FACTS: self._facts, methods.PEER_PULL: self._pull}
        self._link = await dial(self._here, address, handlers=handlers)

    async def _tell(self, caller: Caller, payload: bytes) -> Answer:
        self.heard += msgspec.msgpack.decode(payload, type=methods.Envelopes).envelopes
        return b""

    async def _facts(self, caller: Caller, payload: bytes) -> Answer:
        return msgspec.msgpack.encode(methods.Envelopes(()))

    async def _pull(self, caller: Caller, payload: bytes) -> Answer:
        await asyncio.Event().wait()  # it never gives anything
        return b""

    def call(self, method: str, payload: bytes = b"", *, seconds: float = 5.0) -> bytes:
        """One call of the victim. Raises what it answers."""
        assert self._link is not None
        return self._world.on_loop(self._link.call(method, payload, timeout_seconds=seconds))

    def tell(self, *envelopes: bytes) -> None:
        """Bring statements to the victim. Raises its refusal."""
        self.call(methods.PEER_TELL, msgspec.msgpack.encode(methods.Envelopes(envelopes)))

    def pull(self, task: str, step: str, name: str = "rows", *, seconds: float = 5.0) -> bytes:
        """Ask the victim for an output."""
        pull = Pull(TaskId(task), StepId(step), name)
        return self.call(methods.PEER_PULL, msgspec.msgpack.encode(pull), seconds=seconds)

    def statement(
        self, body: msgspec.Struct, task: str = "", *, kind: str = "", author: str = "", id: str = "", at: float = 0.0
    ) -> Statement:
        """A statement, of this party unless another author is claimed."""
        now = time.time()
        named = kind or (kind_of(body) if isinstance(body, Body) else "")
        raw = msgspec.Raw(msgspec.json.encode(body))
        return Statement(
            kind=named,
            author=author or self.identity.name.uri,
            id=id or new_id(now),
            at=at or now,
            task=TaskId(task),
            body=raw,
        )

    def sign(self, statement: Statement) -> bytes:
        """The statement, signed with this party's key, whoever it says its author is."""
        return sign(statement, self.identity.key)

    def signed(self, body: Body, task: str) -> bytes:
        """A statement of this party about a task."""
        return self.sign(self.statement(body, task))

    def awaited(self, kind: str, task: str, shape: type[B]) -> tuple[bytes, B]:
        """What the victim tells of a task: its envelope and its body."""

        def found() -> list[bytes]:
            told = [(envelope, read_statement(envelope)) for envelope in self.heard]
            return [envelope for envelope, s in told if (s.kind, s.task) == (kind, task)]

        envelope = until(found, f"{self._victim} tells {self.party} its {kind}")[0]
        return envelope, body_of(read_statement(envelope), shape)


def proposal_of(plan: Plan, *, seconds: float = 20.0, digest: Digest | None = None) -> Proposal:
    """A proposal as an honest asker would make it, but for what is given."""
    return Proposal(plan, digest or steps.digest(plan), plan.parties, "analyst", "", seconds)


def offer_of(proposal_id: str, plan: Plan, disclosures: Digest) -> Offer:
    """An offer without any dataset version."""
    return Offer(proposal_id, steps.digest(plan), disclosures)
