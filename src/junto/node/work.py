# SPDX-License-Identifier: Apache-2.0
"""One node's part of one contracted plan: its fragments, its side of every joint step, the answer if it receives it.

All steps start at once; each waits for what it reads, so a pull is under way before the data is there. A step's output
stays here; only the parts that its `Send`s and `Move`s name are put in the outbox, each for one party.

A step's output is kept before the step counts as finished, after the outputs it rests on. A step that fails by a fault
that may pass (a full disk, a crash) is tried again with growing pauses (`retries.py`), and so is the keeping; a joint
step that a participant lost begins anew under another run (see `tasks/attempts.py`), and with it every step that rests
on it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, assert_never

import numpy as np
import pyarrow as pa

from junto.engines.base import Engine, Limits, Source, narrowed
from junto.errors import InvalidInput, JuntoError, PeerFault, Unavailable
from junto.link.links import Links
from junto.logs import logger
from junto.node import groups
from junto.node.admission import Admission
from junto.node.answer import Inputs, release
from junto.node.cache import Cache, Copy, cache_key
from junto.node.certifying import digest_of_answer, digest_of_fragment, digest_of_rows
from junto.node.comparing import Comparing, salted
from junto.node.declared import Declared, of_query, of_step
from junto.node.doubling import Doubling
from junto.node.exchange import Content, Outbox, Pull, Remade, fetch, fetch_whole
from junto.node.ground import Ground
from junto.node.judge import HomeLimits
from junto.node.keep import Answered, Keeper, Kept, Message
from junto.node.locals import Local
from junto.node.protocol import drive
from junto.node.retries import until_done
from junto.node.shelf import Shelf
from junto.node.spool import Spool, Spooled
from junto.node.spreading import Errand, Pieces, Spreading
from junto.node.telling import Failure, StepError
from junto.node.waits import first_error
from junto.node.wording import in_question_words
from junto.plan.certify import depends_on_order, involved, one_thread
from junto.plan.guards import Guards, guards_of
from junto.plan.steps import AnyStep, MaskedSum, Move, Plan, Query, Release, Threshold, parties_of
from junto.secure import maskedsum, threshold
from junto.secure.groupkeys import DIGEST_BYTES, GroupCounts, PassedKeys, Selection
from junto.secure.maskedsum import Words
from junto.tasks.attempts import needs
from junto.tasks.bodies import Finished, Second
from junto.tasks.certificates import certified_parts
from junto.tasks.coarse import coarse_bytes, coarse_seconds
from junto.tasks.estimates import CELL_BYTES
from junto.types import Digest, PartyId, StepId, TaskId

_log = logger("junto.work")
K = TypeVar("K")

_MESSAGE_BYTES = 1 << 30
"""The largest message of a protocol that is held in memory."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools that a node lends to every task's work."""

    me: PartyId
    engine: Engine
    limits: Limits
    shelf: Shelf
    outbox: Outbox
    spool: Spool
    keeper: Keeper
    cache: Cache
    links: Links
    salt: bytes
    ground: Ground
    admission: Admission
    spreading: Spreading
    is_open: Callable[[Query], bool]


@dataclass(frozen=True, slots=True)
class Job:
    """A task's order to its work, and the callbacks by which it hears of it."""

    task: TaskId
    plan: Plan
    contract: str  # what names this task to the secure protocols
    deadline: float  # unix seconds
    run_of: Callable[[StepId], str]
    resting_on: Callable[[StepId], frozenset[StepId]]
    finished: Callable[[Finished], None]
    tried: Callable[[StepId, int, JuntoError], None]
    doubled: frozenset[tuple[StepId, PartyId]]  # fragments that two nodes of their party are to compute
    second: Callable[[Second], None]
    home: HomeLimits | None  # for groups of our own data that our own user asks for


@dataclass(slots=True)
class _Sent:
    bytes: int = 0
    rows: int | None = None


class Work:
    """Performs this node's steps of one task."""

    def __init__(self, tools: Tools, job: Job, kept: Mapping[StepId, Kept], answer: Answered | None) -> None:
        """`kept` and `answer` are what an earlier process of this node had finished."""
        self._tools = tools
        self._task = job.task
        self._plan = job.plan
        self._job = job
        self._kept = {step: found for step, found in kept.items() if found.finished.attempt == job.run_of(step)}
        self._locals: dict[StepId, asyncio.Task[Local]] = {}
        self._saves: dict[StepId, asyncio.Task[None]] = {}
        self._sent: dict[StepId, _Sent] = {}
        self._runs: dict[StepId, str] = {}  # under which run each step was begun here: fixed, whatever is heard later
        self._changed = asyncio.Event()
        self._certified = certified_parts(job.plan)
        self._doubled = frozenset(step for step, party in job.doubled if party == tools.me)
        self._anew = (involved(job.plan) if self._certified else frozenset()) | self._doubled  # no copy of another run
        self._one_thread: frozenset[StepId] = frozenset()  # known once the work runs: it is found by reading SQL
        self._comparing = Comparing(tools.me, job.task, tools.salt, tools.spool, job.second)
        self.doubling = Doubling(tools.spreading, self._comparing)
        self.answer = answer

    async def run(self) -> Answered | None:
        """Do everything; the answer, if it is ours to receive. Raises StepError."""
        mine = [step for step in self._plan.steps if self._tools.me in parties_of(step)]
        try:
            if self._certified or self._doubled:
                self._one_thread = await asyncio.to_thread(one_thread, self._plan, self._doubled)
            for step in mine:
                self._begin(step, [])
            while True:
                self._changed.clear()
                jobs = [*self._locals.values(), *self._saves.values()]
                failed = [job.exception() for job in jobs if job.done() and not job.cancelled()]
                errors = [error for error in failed if error is not None]
                if errors:
                    raise first_error(BaseExceptionGroup("steps failed", errors))
                if all(job.done() for job in jobs):
                    return self.answer
                await self._changed.wait()
        except BaseException:
            await self.doubling.close()
            raise
        finally:
            await _stopped([*self._locals.values(), *self._saves.values()])

    def redo(self, step: StepId) -> None:
        """Do a joint step and all that rests on it anew, under the run that counts now."""
        rests = [s for s in self._plan.steps if s.id in self._job.resting_on(step) and s.id in self._locals]
        # One that was begun after the news, and before this order, has the right run already: no run is begun twice.
        void = [s for s in rests if self._runs[s.id] != self._job.run_of(s.id)]
        for resting in void:
            stopping: list[asyncio.Task[Any]] = [self._locals[resting.id]]
            if resting.id in self._saves:
                stopping.append(self._saves.pop(resting.id))
            for job in stopping:
                job.cancel()
            self._kept.pop(resting.id, None)
            self._tools.outbox.void(self._task, resting.id, self._job.run_of(resting.id))
            self._begin(resting, stopping)

    def _begin(self, step: AnyStep, instead_of: list[asyncio.Task[Any]]) -> None:
        self._runs[step.id] = self._job.run_of(step.id)
        job = asyncio.create_task(self._done(step, instead_of), name=f"step {step.id} {self._task}")
        job.add_done_callback(lambda _: self._changed.set())
        self._locals[step.id] = job

    async def _done(self, step: AnyStep, instead_of: list[asyncio.Task[Any]]) -> Local:
        await _stopped(instead_of)
        kept = self._kept.get(step.id)
        if kept is not None:
            if step.id in self._doubled:
                self._comparing.once(
                    step.id, f"the node of {self._tools.me} was started anew and gave up the second result"
                )
            for made in kept.messages:
                run = kept.finished.attempt
                self._tools.outbox.put(self._task, step.id, run, made.name, made.to, made.content, made.sha256)
            return kept.local
        if isinstance(step, Release) and self.answer is not None:
            await self._answered(step, self.answer, 0.0)
            return None
        clock = asyncio.get_running_loop().time
        started = clock()
        local = await self._until_done(step, lambda: self._tried(step))
        took = clock() - started
        _log.debug("a step was computed", task=self._task, step=step.id, seconds=round(took, 6))
        seconds = coarse_seconds(took)
        save = asyncio.create_task(self._save(step, local, seconds), name=f"save {step.id} {self._task}")
        save.add_done_callback(lambda _: self._changed.set())
        self._saves[step.id] = save
        return local

    async def _save(self, step: AnyStep, local: Local, seconds: float) -> None:
        """Keep what a step gave, after what it rests on: the order of its rows may depend on theirs."""
        run = self._runs[step.id]
        for needed in needs(step):
            if needed in self._locals:
                await asyncio.shield(self._locals[needed])
            if needed in self._saves:
                await asyncio.shield(self._saves[needed])
        done = await self._until_done(step, lambda: self._saved(step, local, seconds, run))
        if done is not None:
            self._job.finished(done)

    async def _saved(self, step: AnyStep, local: Local, seconds: float, run: str) -> Finished | None:
        """The confirmation of a step, once its output is kept; None for an answer. Raises StepError."""
        tools = self._tools
        try:
            if isinstance(step, Release):
                if self.answer is not None:
                    await tools.keeper.save_answer(self._task, self.answer)
                    await self._answered(step, self.answer, seconds)
                return None
            sent = self._sent.get(step.id, _Sent())
            certified = None
            if (step.id, tools.me) in self._certified:
                certified = await asyncio.to_thread(digest_of_rows, self._plan, step.id, local, tools.spool)
            size = coarse_bytes(sent.bytes)
            done = Finished(step.id, self._commitment(step.id, local), sent.rows, size, seconds, run, certified)
            messages = tuple(Message(*made) for made in tools.outbox.made(self._task, step.id, run))
            await tools.keeper.save(self._task, Kept(local, messages, done))
        except JuntoError as error:
            raise StepError(Failure(step.id, tools.me, error)) from error
        return done

    async def _until_done(self, step: AnyStep, attempt: Callable[[], Awaitable[K]]) -> K:
        def tried(tries: int, error: JuntoError) -> None:
            self._job.tried(step.id, tries, error)

        return await until_done(step, self._tools.me, attempt, self._left, tried)

    async def _answered(self, step: Release, answer: Answered, seconds: float) -> None:
        """Others compute the answer too: confirm what it is here."""
        if (step.id, self._tools.me) in self._certified:
            certified = await asyncio.to_thread(digest_of_answer, step, answer.result, self._tools.spool)
            self._job.finished(Finished(step.id, answer.digest, answer.rows, 0, seconds, "", certified))

    async def _tried(self, step: AnyStep) -> Local:
        self._sent[step.id] = _Sent()
        try:
            return await self._perform(step)
        except JuntoError as error:
            words = error
            if isinstance(error, InvalidInput):
                words = type(error)(await asyncio.to_thread(in_question_words, str(error), self._plan))
            raise StepError(Failure(step.id, self._tools.me, words)) from error

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
        open_rows = step.keys is None and await self._is_kept(step)
        key = cache_key(step)
        if open_rows and (copy := tools.cache.get(key)) is not None:
            return copy
        tables: dict[str, Source] = {}
        for read in step.reads:
            if read.step is not None:
                given = await self._local(read.step)
                memory = tools.limits.memory_bytes
                declared = of_step(self._plan, read.step)
                source = await asyncio.to_thread(groups.source_of, given, tools.spool, memory, declared)
                tables[read.name] = narrowed(source, read.columns)
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

    async def _run(self, step: Query, tables: dict[str, Source], open_rows: bool) -> pa.Table | Spooled | Copy:
        """A fragment's output. It has a slot of the node while it computes, and only then."""
        admission, clock = self._tools.admission, asyncio.get_running_loop().time
        async with admission.slot(self._task, step.id):
            began = clock()
            places = self.doubling if step.id in self._doubled else self._tools.spreading
            gave = await places.computed(
                self._errand(step),
                lambda pieces: self._arrived(step, pieces, open_rows),
                lambda: self._computed(step, tables, open_rows),
            )
            admission.ran(step, _rows(step, gave), clock() - began)
        return gave

    async def _computed(self, step: Query, tables: dict[str, Source], open_rows: bool) -> pa.Table | Spooled | Copy:
        tools, limits = self._tools, self._limits(step.id)
        if step.keys is not None:
            return await groups.run_grouped(tools.engine, step, tables, limits)
        if open_rows:
            key = cache_key(step)
            return await groups.run_rows(tools.engine, step, tables, limits, lambda p: tools.cache.put(key, p))
        return await groups.run_rows(tools.engine, step, tables, limits, self._write)

    async def _arrived(self, step: Query, pieces: Pieces, open_rows: bool) -> pa.Table | Spooled | Copy:
        """The same, computed by another node of the party."""
        tools = self._tools
        if step.keys is not None:
            return await groups.gathered(pieces, tools.limits.memory_bytes, of_query(step))
        if open_rows:
            copy = await groups.write_streamed(pieces, partial(tools.cache.put, cache_key(step)))
            return await self._checked(copy, of_query(step))
        return await groups.write_streamed(pieces, self._write)

    def _errand(self, step: Query) -> Errand:
        limits = self._limits(step.id)
        return Errand(self._task, step, self._left(), limits.threads if limits is not self._tools.limits else 0)

    def _limits(self, step: StepId) -> Limits:
        return replace(self._tools.limits, threads=1) if step in self._one_thread else self._tools.limits

    async def _move(self, step: Move) -> Local:
        tools = self._tools
        if step.sender == tools.me:
            rows = await self._local(step.input)
            content: Content
            if step.threshold is not None:
                selection = await self._local(step.threshold)
                if not isinstance(rows, pa.Table) or not isinstance(selection, Selection):
                    raise PeerFault(f"step {step.id} moves groups, but step {step.input} gives none")
                found = await asyncio.to_thread(guards_of, self._plan, step.threshold)
                content = groups.ipc_bytes(groups.aligned(rows.select(list(step.columns)), selection, found))
            elif isinstance(rows, Spooled | Copy):
                content = rows
            else:
                raise PeerFault(f"step {step.id} moves the groups of step {step.input} without a threshold")
            sha256 = hashlib.sha256(content).digest() if isinstance(content, bytes) else content.sha256
            run = self._runs[step.id]
            for party in step.to:
                if party != tools.me:
                    tools.outbox.put(self._task, step.id, run, "rows", party, content, sha256)
                    self._count(step.id, content)
            return None if tools.me not in step.to else await self._local(step.input)
        query = self._plan.step(step.input)
        pull = Pull(self._task, step.id, "rows", self._runs[step.id])
        if isinstance(query, Query) and step.threshold is None and await self._is_kept(query):
            key = cache_key(query)
            return tools.cache.get(key) or await self._copy(step, pull, key)
        return await self._bring(step.sender, pull, self._write)

    async def _is_kept(self, query: Query) -> bool:
        """True if rows serve the next question too: not sums, as all must be given the same, and runs may differ."""
        kept = query.id not in self._anew and self._tools.is_open(query)
        return kept and not await asyncio.to_thread(depends_on_order, query.sql)

    async def _copy(self, step: Move, pull: Pull, key: str) -> Copy:
        """A copy of an open table, whole and sound, kept for the next question."""
        try:
            copy = await self._bring(step.sender, pull, partial(self._tools.cache.put, key))
            return await self._checked(copy, of_step(self._plan, step.id))
        except PeerFault as error:
            raise StepError(Failure(step.id, step.sender, error)) from error

    async def _checked(self, copy: Copy, declared: Declared) -> Copy:
        """A copy that holds together and is what was declared. Raises PeerFault, and forgets it, if it is not."""
        try:
            await asyncio.to_thread(groups.check_copy, copy, declared)
        except PeerFault:
            self._tools.cache.remove(copy)
            raise
        return copy

    async def _bring(self, sender: PartyId, pull: Pull, keep: Callable[[Iterator[bytes]], K]) -> K:
        """An output of another party, written as it comes; from the start, if it was made anew meanwhile."""
        while True:
            try:
                return await groups.write_streamed(self._pieces(sender, pull), keep)
            except Remade:
                continue

    async def _pieces(self, sender: PartyId, pull: Pull) -> AsyncIterator[bytes]:
        way = partial(self._tools.links.to, sender)
        try:
            async for piece in fetch(way, pull, timeout_seconds=self._left()):
                yield piece
        except Remade:
            raise
        except JuntoError as error:
            raise StepError(Failure(pull.step, sender, error)) from error

    # ── joint steps ─────────────────────────────────────────────────────────────────────────────────

    async def _threshold(self, step: Threshold) -> Local:
        tools = self._tools
        found = await asyncio.to_thread(guards_of, self._plan, step.id)
        terms = groups.terms_of(step, found)
        if tools.me in step.contributors:
            query = step.inputs[step.contributors.index(tools.me)]
            dummies = groups.dummies_of(tools.salt, self._plan.step(query))
            contribute = threshold.contribute(tools.me, terms, self._context(step.id), tools.ground.random, dummies)
            counts = partial(self._counts, query, found)
            return await drive(contribute, counts, self._sender(step.id), self._puller(step.id))
        if tools.me != step.receiver:
            compute = threshold.compute(tools.me, terms, self._context(step.id), tools.ground.random)
            await drive(compute, None, self._sender(step.id), self._puller(step.id))
            return None
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
            await drive(contribute, partial(self._vector, step, query), self._sender(step.id), self._puller(step.id))
            return None
        receive = maskedsum.receive_sum(step.contributors, step.receiver)
        return await drive(receive, partial(self._shape, step), self._sender(step.id), self._puller(step.id))

    async def _counts(self, query: StepId, found: Guards) -> GroupCounts:
        step = self._plan.step(query)
        table = await self._local(query)
        if not isinstance(step, Query) or not isinstance(table, pa.Table):
            raise PeerFault(f"step {query} gives no groups")
        given = np.zeros((len(step.reads), DIGEST_BYTES), dtype=np.uint8)
        for row, read in enumerate(sorted(step.reads, key=lambda read: read.name)):
            if read.step is not None:
                digest = await asyncio.to_thread(self._digest_of, read.step, await self._local(read.step))
                given[row] = np.frombuffer(bytes.fromhex(digest.removeprefix("sha256:")), dtype=np.uint8)
        return replace(await asyncio.to_thread(groups.counts_of, step, table, found), given=given)

    def _digest_of(self, id: StepId, rows: Local) -> Digest:
        """The digest of rows that a step gave to join. Blocks."""
        step = self._plan.step(id)
        query = self._plan.step(step.input) if isinstance(step, Move) else step
        if not isinstance(query, Query):
            raise PeerFault(f"step {id} gives no rows to join")
        make = partial(digest_of_fragment, query, rows, self._tools.spool)
        return self._tools.cache.digest(rows, make) if isinstance(rows, Copy) else make()

    async def _vector(self, step: MaskedSum, query: StepId) -> Words:
        table = await self._local(query)
        selection = await self._local(step.threshold)
        if not isinstance(table, pa.Table) or not isinstance(selection, Selection):
            raise PeerFault(f"step {step.id} sums what is not groups")
        found = await asyncio.to_thread(guards_of, self._plan, step.threshold)
        return await asyncio.to_thread(groups.lanes_of, step.measures, table, selection, found)

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
            own=self._shown(step, _of_kind(own, step, pa.Table, Spooled, Copy)),
            keys=_of_kind(keys, step, PassedKeys),
            sums=_of_kind(sums, step, np.ndarray),
            moves=[_of_kind(move, step, pa.Table, Spooled, Copy) for move in moves],
        )
        tools = self._tools
        hold = partial(tools.keeper.hold, self._task)
        async with tools.admission.slot(self._task, step.id), tools.spreading.at_home(self._task, step.id):
            return await release(tools.engine, tools.spool, self._limits(step.id), inputs, tools.ground.random, hold)

    def _shown(self, step: Release, own: pa.Table | Spooled | Copy | None) -> pa.Table | Spooled | Copy | None:
        """Our own output as our own user may see it: of groups, those with units enough."""
        query = self._plan.step(step.own) if step.own is not None else None
        if not isinstance(query, Query) or query.keys is None or self._job.home is None:
            return own
        return groups.shown_at_home(query, own, self._job.home)

    def _write(self, pieces: Iterator[bytes]) -> Spooled:
        return self._tools.keeper.write(self._task, pieces)

    # ── shared ──────────────────────────────────────────────────────────────────────────────────────

    async def _local(self, step: StepId) -> Local:
        if step not in self._locals:
            raise PeerFault(f"step {step} gives nothing at {self._tools.me}")
        return await asyncio.shield(self._locals[step])

    def _sender(self, step: StepId) -> Callable[[PartyId, str, bytes], None]:
        run = self._runs[step]

        def send(to: PartyId, name: str, payload: bytes) -> None:
            self._tools.outbox.put(self._task, step, run, name, to, payload, hashlib.sha256(payload).digest())
            self._count(step, payload)

        return send

    def _puller(self, step: StepId) -> Callable[[PartyId, str], Awaitable[bytes]]:
        run = self._runs[step]

        async def pull(sender: PartyId, name: str) -> bytes:
            way = partial(self._tools.links.to, sender)
            request = Pull(self._task, step, name, run)
            try:
                return await fetch_whole(way, request, timeout_seconds=self._left(), most_bytes=_MESSAGE_BYTES)
            except JuntoError as error:
                raise StepError(Failure(step, sender, error)) from error

        return pull

    def _left(self) -> float:
        left = self._job.deadline - self._tools.ground.unix_time()
        if left <= 0:
            raise Unavailable(f"task {self._task} is past its deadline")
        return left

    def _context(self, step: StepId) -> bytes:
        run = self._runs[step]
        return f"junto 1 {self._job.contract} {self._task} {step}{' ' + run if run else ''}".encode()

    def _count(self, step: StepId, content: Content) -> None:
        self._sent[step].bytes += len(content) if isinstance(content, bytes) else content.bytes

    def _commitment(self, step: StepId, local: Local) -> Digest:
        return salted(self._tools.salt, self._task, step, groups.fingerprint(local))


def _rows(step: Query, gave: pa.Table | Spooled | Copy) -> int:
    """The number of rows that a fragment gave; of a file, about."""
    return gave.num_rows if isinstance(gave, pa.Table) else gave.bytes // (CELL_BYTES * max(len(step.columns), 1))


async def _stopped(jobs: list[asyncio.Task[Any]]) -> None:
    """Cancel jobs and wait until they have ended: a thread of theirs may still be at work."""
    if not jobs:
        return
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


def _of_kind(local: Local, step: Release, *kinds: type) -> Any:  # the caller's field says which
    if local is not None and not isinstance(local, kinds):
        raise PeerFault(f"step {step.id} releases what an earlier step does not give")
    return local
