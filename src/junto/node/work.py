# SPDX-License-Identifier: Apache-2.0
"""One node's part of one contracted plan: its fragments, its side of every joint step, the answer if it receives it.

All steps start at once; each waits for what it reads, so a pull is under way before the data is there. What a step
gives here stays here; only what its `Send`s and `Move`s name is put in the outbox, each for one party.
"""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, assert_never

import numpy as np
import pyarrow as pa

from junto.engines.base import Engine, Limits, Source
from junto.errors import InvalidInput, JuntoError, PeerFault, Unavailable
from junto.link.links import Links
from junto.node import groups
from junto.node.answer import Answered, Inputs, release
from junto.node.cache import Cache, Copy, cache_key
from junto.node.exchange import Content, Outbox, Pull, fetch, fetch_whole
from junto.node.ground import Ground
from junto.node.protocol import drive
from junto.node.shelf import Shelf
from junto.node.spool import Spool, Spooled
from junto.node.waits import first_error
from junto.node.wording import in_question_words
from junto.plan.steps import AnyStep, MaskedSum, Move, Plan, Query, Release, Threshold, parties_of
from junto.secure import maskedsum, threshold
from junto.secure.groupkeys import GroupCounts, PassedKeys, Selection
from junto.secure.maskedsum import Words
from junto.tasks.bodies import Finished
from junto.types import Digest, PartyId, StepId, TaskId

_MESSAGE_BYTES = 1 << 30
"""The largest message of a protocol that is held in memory."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a node lends to every task's work."""

    me: PartyId
    engine: Engine
    limits: Limits
    shelf: Shelf
    outbox: Outbox
    spool: Spool
    cache: Cache
    links: Links
    salt: bytes
    ground: Ground
    is_open: Callable[[Query], bool]


@dataclass(frozen=True, slots=True)
class Failure:
    """Which step could not be finished, whose doing it is, and why."""

    step: StepId
    party: PartyId
    error: JuntoError


class StepError(Exception):
    """A step of ours failed; carries the failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


Rows: TypeAlias = Spooled | Copy
"""Rows on disk, as an Arrow IPC stream: encrypted, or open data in the cache."""

Local: TypeAlias = pa.Table | Rows | Selection | PassedKeys | Words | None
"""What a step gives at this party."""


@dataclass(slots=True)
class _Sent:
    bytes: int = 0
    rows: int | None = None


class Work:
    """Performs this node's steps of one task."""

    def __init__(
        self,
        tools: Tools,
        task: TaskId,
        plan: Plan,
        contract: str,
        deadline: float,
        finished: Callable[[Finished], None],
    ) -> None:
        self._tools = tools
        self._task = task
        self._plan = plan
        self._contract = contract
        self._deadline = deadline
        self._finished = finished
        self._locals: dict[StepId, asyncio.Task[Local]] = {}
        self._sent: dict[StepId, _Sent] = {}
        self._written: list[Spooled] = []  # what lies on disk for this task alone
        self.answer: Answered | None = None

    async def run(self) -> Answered | None:
        """Do everything; the answer, if it is ours to receive. Raises StepError."""
        mine = [step for step in self._plan.steps if self._tools.me in parties_of(step)]
        try:
            async with asyncio.TaskGroup() as group:
                for step in mine:
                    self._locals[step.id] = group.create_task(self._timed(step))
        except BaseExceptionGroup as error:
            raise first_error(error) from error
        finally:
            for spooled in self._written:
                self._tools.spool.remove(spooled)
        return self.answer

    async def _timed(self, step: AnyStep) -> Local:
        clock = asyncio.get_running_loop().time
        started = clock()
        sent = self._sent.setdefault(step.id, _Sent())
        try:
            local = await self._perform(step)
        except InvalidInput as error:
            told = type(error)(in_question_words(str(error), self._plan))
            raise StepError(Failure(step.id, self._tools.me, told)) from error
        except JuntoError as error:
            raise StepError(Failure(step.id, self._tools.me, error)) from error
        digest = self._commitment(step.id, local)
        seconds = round(clock() - started, 6)
        if not isinstance(step, Release):
            self._finished(Finished(step.id, digest, sent.rows, sent.bytes, seconds))
        return local

    async def _perform(self, step: AnyStep) -> Local:
        match step:
            case Query():
                return await self._query(step)
            case Threshold():
                return await self._threshold(step)
            case MaskedSum():
                return await self._masked_sum(step)
            case Move():
                return await self._move(step)
            case Release():
                self.answer = await self._release(step)
                return None
            case _:
                assert_never(step)

    # ── fragments ───────────────────────────────────────────────────────────────────────────────────

    async def _query(self, step: Query) -> Local:
        tools = self._tools
        open_rows = step.keys is None and tools.is_open(step)
        key = cache_key(step)
        if open_rows and (copy := tools.cache.get(key)) is not None:
            return copy
        tables: dict[str, Source] = {}
        for read in step.reads:
            if read.step is not None:
                tables[read.name] = groups.source_of(await self._local(read.step))
            else:
                tables[read.name] = tools.shelf.source(read)
        gave = await self._run(step, tables, open_rows)
        try:
            for read in step.reads:
                if read.dataset is not None and read.version is not None:
                    # The run is over: a file that changed under it shows now.
                    await asyncio.to_thread(tools.shelf.check, read.dataset, read.version)
        except JuntoError:
            if isinstance(gave, Copy):
                tools.cache.remove(gave)
            raise
        return gave

    async def _run(self, step: Query, tables: dict[str, Source], open_rows: bool) -> Local:
        tools = self._tools
        if step.keys is not None:
            return await groups.run_grouped(tools.engine, step, tables, tools.limits)
        if open_rows:
            key = cache_key(step)
            return await groups.run_rows(tools.engine, step, tables, tools.limits, lambda p: tools.cache.put(key, p))
        return await groups.run_rows(tools.engine, step, tables, tools.limits, self._write)

    async def _move(self, step: Move) -> Local:
        tools = self._tools
        if step.sender == tools.me:
            rows = await self._local(step.input)
            content: Content
            if step.threshold is not None:
                selection = await self._local(step.threshold)
                if not isinstance(rows, pa.Table) or not isinstance(selection, Selection):
                    raise PeerFault(f"step {step.id} moves groups, but step {step.input} gives none")
                content = groups.ipc_bytes(groups.aligned(rows.select(list(step.columns)), selection))
            elif isinstance(rows, Spooled | Copy):
                content = rows
            else:
                raise PeerFault(f"step {step.id} moves the groups of step {step.input} without a threshold")
            sha256 = hashlib.sha256(content).digest() if isinstance(content, bytes) else content.sha256
            for party in step.to:
                if party != tools.me:
                    self._written = [own for own in self._written if own != content]  # the outbox's now
                    tools.outbox.put(self._task, step.id, "rows", party, content, sha256)
                    self._count(step.id, content)
            return None if tools.me not in step.to else await self._local(step.input)
        query = self._plan.step(step.input)
        pull = Pull(self._task, step.id, "rows")
        if isinstance(query, Query) and step.threshold is None and tools.is_open(query):
            key = cache_key(query)
            return tools.cache.get(key) or await self._copy(step, pull, key)
        return await self._bring(step.sender, pull, self._write)

    async def _copy(self, step: Move, pull: Pull, key: str) -> Copy:
        """A copy of an open table, whole and sound, kept for the next question."""
        copy = await groups.write_streamed(self._pieces(step.sender, pull), partial(self._tools.cache.put, key))
        try:
            await asyncio.to_thread(groups.check_copy, copy)
        except PeerFault as error:
            self._tools.cache.remove(copy)
            raise StepError(Failure(step.id, step.sender, error)) from error
        return copy

    async def _bring(self, sender: PartyId, pull: Pull, keep: Callable[[Iterator[bytes]], Rows]) -> Rows:
        """An output of another party, written as it comes."""
        return await groups.write_streamed(self._pieces(sender, pull), keep)

    async def _pieces(self, sender: PartyId, pull: Pull) -> AsyncIterator[bytes]:
        way = partial(self._tools.links.to, sender)
        try:
            async for piece in fetch(way, pull, timeout_seconds=self._left()):
                yield piece
        except JuntoError as error:
            raise StepError(Failure(pull.step, sender, error)) from error

    # ── joint steps ─────────────────────────────────────────────────────────────────────────────────

    async def _threshold(self, step: Threshold) -> Local:
        tools = self._tools
        terms = threshold.Terms(step.contributors, step.receiver, step.nodes, step.units, step.parties)
        if tools.me in step.contributors:
            query = step.inputs[step.contributors.index(tools.me)]
            contribute = threshold.contribute(tools.me, terms, self._context(step.id), tools.ground.random)
            return await drive(contribute, self._counts(query), self._sender(step.id), self._puller(step.id))
        receive = threshold.receive_keys(terms, self._context(step.id), tools.ground.random)
        return await drive(receive, None, self._sender(step.id), self._puller(step.id))

    async def _masked_sum(self, step: MaskedSum) -> Local:
        tools = self._tools
        if tools.me in step.contributors:
            query = step.inputs[step.contributors.index(tools.me)]
            context = self._context(step.id)
            contribute = maskedsum.contribute(
                tools.me, step.contributors, step.receiver, context, self._tools.ground.random
            )
            vector = self._vector(step, query)
            await drive(contribute, vector, self._sender(step.id), self._puller(step.id))
            return None
        receive = maskedsum.receive_sum(step.contributors, step.receiver)
        return await drive(receive, self._shape(step), self._sender(step.id), self._puller(step.id))

    async def _counts(self, query: StepId) -> GroupCounts:
        step = self._plan.step(query)
        table = await self._local(query)
        if not isinstance(step, Query) or not isinstance(table, pa.Table):
            raise PeerFault(f"step {query} gives no groups")
        return await asyncio.to_thread(groups.counts_of, step, table)

    async def _vector(self, step: MaskedSum, query: StepId) -> Words:
        table = await self._local(query)
        selection = await self._local(step.threshold)
        if not isinstance(table, pa.Table) or not isinstance(selection, Selection):
            raise PeerFault(f"step {step.id} sums what is not groups")
        return await asyncio.to_thread(groups.lanes_of, step.measures, table, selection)

    async def _shape(self, step: MaskedSum) -> tuple[int, int]:
        keys = await self._local(step.threshold)
        if not isinstance(keys, PassedKeys):
            raise PeerFault(f"step {step.id} sums groups whose keys step {step.threshold} does not give")
        return groups.lane_count(step.measures), keys.passed

    # ── the answer ──────────────────────────────────────────────────────────────────────────────────

    async def _release(self, step: Release) -> Answered:
        own = await self._local(step.own) if step.own is not None else None
        keys = await self._local(step.threshold) if step.threshold is not None else None
        sums = await self._local(step.sums) if step.sums is not None else None
        moves = [await self._local(move) for move in step.moves]
        inputs = Inputs(
            plan=self._plan,
            step=step,
            own=_of_kind(own, step, pa.Table, Spooled, Copy),
            keys=_of_kind(keys, step, PassedKeys),
            sums=_of_kind(sums, step, np.ndarray),
            moves=[_of_kind(move, step, pa.Table, Spooled, Copy) for move in moves],
        )
        return await release(
            self._tools.engine, self._tools.spool, self._tools.limits, inputs, self._tools.ground.random
        )

    def _write(self, pieces: Iterator[bytes]) -> Spooled:
        written = self._tools.spool.write(pieces)
        self._written.append(written)
        return written

    # ── shared ──────────────────────────────────────────────────────────────────────────────────────

    async def _local(self, step: StepId) -> Local:
        if step not in self._locals:
            raise PeerFault(f"step {step} gives nothing at {self._tools.me}")
        return await asyncio.shield(self._locals[step])

    def _sender(self, step: StepId) -> Callable[[PartyId, str, bytes], None]:
        def send(to: PartyId, name: str, payload: bytes) -> None:
            self._tools.outbox.put(self._task, step, name, to, payload, hashlib.sha256(payload).digest())
            self._count(step, payload)

        return send

    def _puller(self, step: StepId) -> Callable[[PartyId, str], Awaitable[bytes]]:
        async def pull(sender: PartyId, name: str) -> bytes:
            way = partial(self._tools.links.to, sender)
            request = Pull(self._task, step, name)
            try:
                return await fetch_whole(way, request, timeout_seconds=self._left(), most_bytes=_MESSAGE_BYTES)
            except JuntoError as error:
                raise StepError(Failure(step, sender, error)) from error

        return pull

    def _left(self) -> float:
        left = self._deadline - self._tools.ground.unix_time()
        if left <= 0:
            raise Unavailable(f"task {self._task} is past its deadline")
        return left

    def _context(self, step: StepId) -> bytes:
        return f"junto 1 {self._contract} {self._task} {step}".encode()

    def _count(self, step: StepId, content: Content) -> None:
        self._sent[step].bytes += len(content) if isinstance(content, bytes) else content.bytes

    def _commitment(self, step: StepId, local: Local) -> Digest:
        """A digest of a step's output that nobody can test guesses against: salted with a key that stays here."""
        key = hmac.digest(self._tools.salt, f"{self._task} {step}".encode(), "sha256")
        inner = groups.fingerprint(local)
        return Digest("sha256:" + hmac.digest(key, inner, "sha256").hex())


def _of_kind(local: Local, step: Release, *kinds: type) -> Any:  # the caller's field says which
    if local is not None and not isinstance(local, kinds):
        raise PeerFault(f"step {step.id} releases what an earlier step does not give")
    return local
