# SPDX-License-Identifier: Apache-2.0
"""The acting node's side of sharing work with nodes that stand by: who helps, who computes what, and what if it fails.

`tasks/nodes.py` decides. A helper can only save time: whatever goes wrong with it, the fragment is computed here. Two
named waits bound what it may cost: a helper that gives no sign of life for `LIFE_SECONDS` is given up, and no fragment
waits for one longer than half the time that its task has left.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from junto import __version__
from junto.errors import InvalidInput, JuntoError, PeerFault, Refused
from junto.link import methods
from junto.link.connection import Answer, Caller, Link
from junto.logs import logger
from junto.node.routes import Method, decoded
from junto.plan.steps import Query
from junto.tasks.nodes import Nodes, Running, can_be_placed, patience_seconds, placing_key
from junto.types import NodeId, StepId, TaskId

_log = logger("junto.spreading")
_SHA256_BYTES = 32
_MOST_SLOTS = 4096
LIFE_SECONDS = 3.0
"""A helper that answers no ping for so long hangs."""
T = TypeVar("T")
Pieces = AsyncGenerator[bytes]


@dataclass(frozen=True, slots=True)
class Errand:
    """A fragment of a task, and in how many seconds that ends; `threads` 0: as many as its node gives to one."""

    task: TaskId
    step: Query
    left: float
    threads: int = 0


class HelperFailed(Exception):
    """A helper did not give the rows; says why. It never ends a task."""


class Spreading:
    """The helpers of the node that acts."""

    def __init__(
        self, me: NodeId, slots: int, slots_are: Callable[[int], None], unix_time: Callable[[], float]
    ) -> None:
        """slots: how many fragments this node computes at once. slots_are: hears how many all of them do."""
        self.nodes = Nodes(me, slots)
        self._slots_are = slots_are
        self._unix_time = unix_time
        self._links: dict[NodeId, tuple[Link, float]] = {}
        self._here = asyncio.Semaphore(slots)

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that other nodes of our party may call."""
        return {methods.PARTY_HELP: self.help}

    async def help(self, caller: Caller, payload: bytes) -> Answer:
        """A node that stands by offers itself. Raises InvalidInput if it cannot be of help."""
        offer = decoded(payload, methods.Help)
        link, node = caller.link, caller.name.node
        if node == self.nodes.me:
            raise Refused(f"{caller.name} is this node itself: give every node of a party a home of its own")
        if not 1 <= offer.slots <= _MOST_SLOTS:
            raise InvalidInput(f"{caller.name} offers {offer.slots} slots: from 1 to {_MOST_SLOTS}")
        software = link.hello.software if link.hello is not None else ""
        if software != __version__:
            raise InvalidInput(
                f"{caller.name} runs Junto {software}, {self.nodes.me}, which acts, {__version__}: it may help once "
                f"both are the same"
            )
        before = self._links.get(node)
        self._links[node] = link, self._unix_time()
        if before is not None:
            before[0].abort("the helper has dialled again")
        self.nodes.joined(node, offer.slots)
        link.closed.add_done_callback(lambda reason: self._left(node, link, reason.result()))
        _log.info("a helper is here", node=node, slots=offer.slots, address=link.address)
        self._slots_are(self.nodes.slots)
        return b""

    def _left(self, node: NodeId, link: Link, reason: str) -> None:
        if node in self._links and self._links[node][0] is link:
            del self._links[node]
            self.nodes.left(node)
            _log.info("a helper has gone", node=node, reason=reason)
            self._slots_are(self.nodes.slots)

    # ── where a fragment is computed ────────────────────────────────────────────────────────────────

    async def computed(
        self, errand: Errand, keep: Callable[[Pieces], Awaitable[T]], here: Callable[[], Awaitable[T]]
    ) -> T:
        """A fragment's output, from the node whose turn it is: what `keep` makes of a helper's rows, or `here`.

        Raises what `here` and `keep` raise, and nothing because of a helper.
        """
        node = self.nodes.me
        if self._links and can_be_placed(errand.step) and patience_seconds(errand.left):
            node = self.nodes.choose(placing_key(errand.step))
        if node != self.nodes.me:
            try:
                return await self.away(errand, node, keep)
            except HelperFailed as error:
                _log.warning(
                    "a helper gave nothing, so it is computed here",
                    task=errand.task,
                    step=errand.step.id,
                    node=node,
                    reason=str(error),
                )
        async with self.at_home(errand.task, errand.step.id):
            return await here()

    @asynccontextmanager
    async def at_home(self, task: TaskId, step: StepId) -> AsyncIterator[None]:
        """A slot of this node for its own work: no more of them at once than the node has."""
        async with self._here:
            with self._noted(task, step, self.nodes.me) as noted:
                yield
                noted.whole = True

    async def away(self, errand: Errand, node: NodeId, keep: Callable[[Pieces], Awaitable[T]]) -> T:
        """The result of `keep` for the rows that a helper computes. Raises HelperFailed, and the errors of `keep`."""
        link = self._links[node][0]
        patience = patience_seconds(errand.left)
        began = asyncio.get_running_loop().time()
        with self._noted(errand.task, errand.step.id, node) as noted:
            try:
                async with asyncio.timeout(patience), aclosing(_rows(link, errand, patience)) as rows:
                    gave = await keep(rows)
            except TimeoutError:
                raise HelperFailed(f"it took more than {patience:.3g} s, half of what the task had left") from None
            except PeerFault as error:  # what came is no Arrow file
                raise HelperFailed(str(error)) from error
            noted.whole = True
        seconds = round(asyncio.get_running_loop().time() - began, 6)
        _log.info("a helper computed a fragment", task=errand.task, step=errand.step.id, node=node, seconds=seconds)
        return gave

    def _noted(self, task: TaskId, step: StepId, node: NodeId) -> "_Noted":
        return _Noted(self.nodes, Running(task, step, node, asyncio.get_running_loop().time()))

    # ── to be seen ──────────────────────────────────────────────────────────────────────────────────

    def shown(self) -> tuple[methods.NodeLoad, ...]:
        """The party's nodes, this one first."""
        later = self._unix_time() - asyncio.get_running_loop().time()
        return tuple(self._load(node, later) for node in (self.nodes.me, *self.nodes.helpers))

    def _load(self, node: NodeId, later: float) -> methods.NodeLoad:
        running = tuple(methods.NodeStep(one.task, one.step, one.since + later) for one in self.nodes.running(node))
        link, since = self._links.get(node, (None, 0.0))
        address = link.address if link is not None else ""
        slots, computed = self.nodes.slots_of(node), self.nodes.computed[node]
        return methods.NodeLoad(node, slots, running, computed, address, since)


class _Noted:
    """A note, while it is open, that a node computes a fragment."""

    def __init__(self, nodes: Nodes, running: Running) -> None:
        self._nodes = nodes
        self._running = running
        self.whole = False

    def __enter__(self) -> "_Noted":
        self._nodes.begin(self._running)
        return self

    def __exit__(self, *_: object) -> None:
        self._nodes.end(self._running, whole=self.whole)


async def _rows(link: Link, errand: Errand, seconds: float) -> Pieces:
    """The bytes that a helper's fragment gives, once their digest holds. Raises HelperFailed."""
    asked = methods.Compute(errand.task, msgspec.Raw(msgspec.json.encode(errand.step)), errand.threads)
    stream = link.stream(methods.PARTY_COMPUTE, msgspec.json.encode(asked), timeout_seconds=seconds)
    sha256 = hashlib.sha256()
    tail = b""
    life = asyncio.create_task(_cut_if_it_hangs(link))
    try:
        async with aclosing(stream):
            async for piece in stream:
                held = tail + piece
                give, tail = held[:-_SHA256_BYTES], held[-_SHA256_BYTES:]
                if give:
                    sha256.update(give)
                    yield give
    except JuntoError as error:
        raise HelperFailed(str(error)) from error
    finally:
        life.cancel()
    if sha256.digest() != tail:
        raise HelperFailed("its rows did not arrive whole")


async def _cut_if_it_hangs(link: Link) -> None:
    """Ask for signs of life until there is none; then the link is cut, which ends all that waits for it."""
    while True:
        await asyncio.sleep(LIFE_SECONDS)
        try:
            await link.ping(LIFE_SECONDS)
        except JuntoError:
            link.abort("the helper hangs")
            return
