# SPDX-License-Identifier: Apache-2.0
"""The helping side of a node that stands by: it dials the node that acts, and computes the fragments that one names.

It offers itself over the ordinary link, with its own certificate of the party's authority, and answers one method. What
it reads are the datasets of its home, checked against the version named before and after. It writes no journal, speaks
to no other party, holds no secret of a task, and keeps nothing: rows leave as they come, followed by their SHA-256.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from junto.engines.base import Engine, Limits, Rows, Source
from junto.engines.files import remove_leftovers
from junto.errors import InvalidInput, JuntoError, PeerFault
from junto.link import methods
from junto.link.connection import Answer, Caller, Link
from junto.link.dial import Here, Proxies, dial, first_open, here_of
from junto.link.settings import LinkSettings
from junto.logs import logger
from junto.node.files import in_words
from junto.node.ground import Ground
from junto.node.home import Home
from junto.node.routes import decoded, guarded
from junto.node.settings import NodeSettings
from junto.node.shelf import Shelf
from junto.node.waits import to_the_end
from junto.plan.steps import Query
from junto.tasks.nodes import can_be_placed
from junto.trust.names import Address, parse_address
from junto.types import DatasetName, Digest

_log = logger("junto.helping")
_OFFER_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
T = TypeVar("T")


class Helping:
    """A node that stands by, while it helps. `async with Helping(...)`; it dials from `begin` on, until it is left."""

    def __init__(self, home: Home, settings: NodeSettings, ground: Ground) -> None:
        self._home = home
        self._settings = settings
        self._ground = ground
        self._sources = Sources(home.data_path / "sources.json")
        self._engine: Engine | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._said = ""
        self.handlers = guarded(home.party.name, {methods.PARTY_COMPUTE: self.compute}, _nobody, _nobody)
        memory, threads, spill = settings.memory_bytes, settings.threads, settings.spill_bytes
        own_folder = home.cache_path  # `spool/` is the pair's
        self._limits = Limits(memory, threads, own_folder, spill, settings.cpu_seconds)

    async def __aenter__(self) -> Self:
        """Remove what an earlier process left."""
        await asyncio.to_thread(remove_leftovers, self._home.cache_path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Help no more: what is being computed is stopped."""
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)
        if self._engine is not None:
            self._engine.close()

    def begin(self) -> None:
        """Look for the node that acts, and help it."""
        if self._dialling is None:
            self._dialling = asyncio.create_task(self._keep_helping(), name="helping")

    # ── the link to the node that acts ──────────────────────────────────────────────────────────────

    async def _keep_helping(self) -> None:
        await asyncio.to_thread(import_module, "junto.node.groups")  # arrays: not before they are needed
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._help_once()
                pause = _FIRST_PAUSE_SECONDS
            except JuntoError as error:
                self._say(str(error))
            except OSError as error:
                self._say(f"its home cannot be read: {in_words(error)}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _help_once(self) -> None:
        """Help whoever acts for as long as the link lasts. Raises the reason why nobody can be helped."""
        link = await self._reach()
        try:
            offer = methods.Help(self._settings.capacity.slots)
            await link.call(methods.PARTY_HELP, msgspec.json.encode(offer), timeout_seconds=_OFFER_SECONDS)
            _log.info("helps", node=str(link.peer), address=link.address)
            self._said = ""
            reason = await asyncio.shield(link.closed)
            _log.info("helps no more", node=str(link.peer), reason=reason)
        finally:
            link.abort("it helps no more")  # a goodbye would wait for a node that hangs, and a takeover for that

    async def _reach(self) -> Link:
        here = self._here()
        settings = LinkSettings.for_wan() if self._settings.network == "wan" else LinkSettings.for_lan()
        proxies = Proxies.of(os.environ)
        reasons: list[str] = []

        async def attempt(address: Address) -> Link:
            return await dial(
                here,
                address,
                handlers=self.handlers,
                settings=settings,
                expected=self._home.party.name,
                proxies=proxies,
            )

        addresses = [parse_address(text) for text in self._home.party.addresses]
        link = await first_open(addresses, attempt, lambda error: reasons.append(str(error)))
        if link is None:
            told = "; ".join(reasons) or "party.toml names no address at which it is dialled"
            raise InvalidInput(f"the node that acts cannot be reached to help it: {told}")
        if not link.peer.node:
            await link.close("it is no node")
            raise PeerFault(f"{link.peer} answers at {link.address}: only a node can be helped")
        return link

    def _here(self) -> Here:
        """Our present identity: charter and certificate may have been renewed."""
        home, unix_time = self._home, self._ground.unix_time
        identity = home.node_identity(unix_time())
        return here_of(identity, home.charter(), self._ground.random(8).hex(), unix_time)

    def _say(self, reason: str) -> None:
        if reason != self._said:
            self._said = reason
            _log.warning("does not help", reason=reason)

    # ── fragments ───────────────────────────────────────────────────────────────────────────────────

    async def compute(self, caller: Caller, payload: bytes) -> Answer:
        """A fragment's rows as an Arrow IPC file, a piece at a time, then the SHA-256 of it all.

        Raises InvalidInput, DataChanged if its datasets are not here as named, and what the engine raises.
        """
        asked = decoded(payload, methods.Compute)
        try:
            step = msgspec.json.decode(asked.step, type=Query)
        except msgspec.MsgspecError:
            raise InvalidInput("what is to be computed is no fragment") from None
        if step.party != self._home.party.name or not can_be_placed(step):
            raise InvalidInput(f"fragment {step.id} reads more than datasets of {self._home.party.name}")
        if not 1 <= asked.threads <= self._limits.threads:
            asked = msgspec.structs.replace(asked, threads=self._limits.threads)
        return self._computed(asked, step)

    async def _computed(self, asked: methods.Compute, step: Query) -> AsyncIterator[bytes]:
        began = asyncio.get_running_loop().time()
        reads = {
            DatasetName(r.dataset): r.version for r in step.reads if r.dataset is not None and r.version is not None
        }
        tables = await asyncio.to_thread(self._sources.tables, step, reads)
        if self._engine is None:
            self._engine = self._ground.engine()
        sha256 = hashlib.sha256()
        size = 0
        pieces = fragment_pieces(self._engine, step, tables, replace(self._limits, threads=asked.threads))
        async for piece in pieces:
            sha256.update(piece)
            size += len(piece)
            yield piece
        await asyncio.to_thread(self._sources.check, reads)  # a file that changed under the run shows now
        yield sha256.digest()
        seconds = round(asyncio.get_running_loop().time() - began, 6)
        _log.info("a fragment was computed", task=asked.task, step=step.id, bytes=size, seconds=seconds)


async def fragment_pieces(
    engine: Engine, step: Query, tables: Mapping[str, Source], limits: Limits
) -> AsyncIterator[bytes]:
    """A fragment's rows as an Arrow IPC file, made at the pace at which they are taken; leaving early stops the run."""
    from junto.node.groups import ipc_pieces  # with the first fragment: see `_keep_helping`
    from junto.node.spelling import sql_of

    stop = threading.Event()
    held = ExitStack()

    def begin() -> Rows:
        return held.enter_context(engine.run(sql_of(step, tables), tables, limits, stop))

    try:
        rows = await _blocking(begin, stop)
        made = ipc_pieces(rows.schema, iter(rows))
        while (piece := await _blocking(lambda: next(made, None), stop)) is not None:
            if piece:
                yield piece
    except BaseException as error:
        stop.set()
        await _blocking(partial(held.__exit__, type(error), error, None), stop)
        raise
    await _blocking(held.close, stop)


async def _blocking(work: Callable[[], T], stop: threading.Event) -> T:
    """The result of work in a thread; cancelling the caller sets `stop` and waits until it has ended."""
    job = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        stop.set()
        await to_the_end(job)
        raise


class Sources:
    """The party's sources, as the node that acts wrote them down last. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._shelf = Shelf(path)
        self._seen: tuple[int, int, int] | None = None

    def tables(self, step: Query, reads: Mapping[DatasetName, Digest]) -> dict[str, Source]:
        """The sources that an engine reads for a fragment. Blocks while it looks. Raises InvalidInput, DataChanged."""
        shelf = self.check(reads)
        return {read.name: shelf.source(read) for read in step.reads}

    def check(self, reads: Mapping[DatasetName, Digest]) -> Shelf:
        """The shelf, on which each dataset is that version. Blocks while it looks. Raises InvalidInput, DataChanged."""
        with self._lock:
            shelf = self._latest()
            for name, version in reads.items():
                shelf.check(name, version)
            return shelf

    def _latest(self) -> Shelf:
        try:
            found = self._path.stat()
        except OSError:
            raise InvalidInput("no dataset's files are known on this machine: data/ of the home is not there") from None
        now = (found.st_ino, found.st_size, found.st_mtime_ns)
        if now != self._seen:
            shelf = Shelf(self._path)
            shelf.load()
            self._shelf, self._seen = shelf, now
        return self._shelf


def _nobody(name: object) -> bool:
    return False
