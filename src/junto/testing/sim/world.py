# SPDX-License-Identifier: Apache-2.0
"""The simulated consortium: real nodes on simulated disks, links and clocks, killed and started again.

A template of keys, charter and published data is made once in a process; each run begins with copies of it.
"""

import asyncio
import atexit
import contextlib
import gc
import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from pyarrow import parquet

from junto.catalog.dataset import Dataset
from junto.catalog.write import dataset_file
from junto.frontends.sql import compile_sql
from junto.frontends.sql.typing import Describer
from junto.link import methods
from junto.link.connection import Caller, Link
from junto.node import home as homes
from junto.node.ground import Ground
from junto.node.home import Home
from junto.node.node import Node
from junto.node.runner import Live
from junto.node.settings import NodeSettings, read_settings
from junto.plan.steps import Plan
from junto.tasks.waiting import Patience
from junto.testing.sim.disk import Disk, SimFiles, SimJournal
from junto.testing.sim.loop import PROCESS, Process, SimLoop
from junto.testing.sim.network import Network, SimLinks
from junto.testing.sim.workload import QUESTIONS, RememberingEngine, table_of
from junto.trust import charter as charters
from junto.trust.names import parse_name
from junto.types import NodeId, PartyId

T = TypeVar("T")
_USER = "ana"
_UNIX = 1_900_000_000.0  # when every run begins
_NAMES = ("ann", "bea", "cyd", "dan", "eva", "fay", "gus")
ENGINE = RememberingEngine()


@dataclass(frozen=True, slots=True)
class Template:
    """Parties as they are before anything goes wrong."""

    folder: Path
    homes: dict[PartyId, Home]
    disks: dict[PartyId, Disk]
    plans: dict[tuple[PartyId, int], Plan]
    unix: float


class World:
    """One run's nodes."""

    def __init__(self, template: Template, loop: SimLoop, faults: random.Random, told: Callable[[str], None]) -> None:
        self.template = template
        self.loop = loop
        self.folder = Path(tempfile.mkdtemp(prefix="junto-sim-"))
        self.homes: dict[PartyId, Home] = {}
        for party, home in template.homes.items():
            shutil.copytree(home.path, self.folder / party)
            self.homes[party] = homes.load(self.folder / party)
        self.disks = {party: disk.copy() for party, disk in template.disks.items()}
        self.skew = dict.fromkeys(template.homes, 0.0)
        self.network = Network(faults, told)
        self.faults = faults
        self.told = told
        self.running: dict[PartyId, Running] = {}
        self.starts = 0
        self.crashes = 0
        self.changed: Callable[[PartyId, Live], None] = lambda party, live: None
        self.unix = template.unix
        self.due: set[PartyId] = set()  # killed, and about to be started again

    @property
    def parties(self) -> list[PartyId]:
        """All of them, by name."""
        return sorted(self.homes)

    def unix_time(self, party: PartyId) -> float:
        """A party's wall clock."""
        return self.unix + self.loop.time() + self.skew[party]

    async def start(self, party: PartyId) -> None:
        """A process for a party's node; a disk without room ends it, and it is tried again."""
        self.due.discard(party)
        if party in self.running:
            return
        self.starts += 1
        process = Process(f"{party} {self.starts}")
        running = Running(party, process)
        self.running[party] = running
        random_bytes = random.Random(self.faults.getrandbits(64)).randbytes
        disk = self.disks[party]

        def journal(path: Path, **options: Any) -> SimJournal:
            running.journal = SimJournal(disk, self.faults, path, **options)
            return running.journal

        def links(*given: Any, **options: Any) -> SimLinks:
            running.links = SimLinks(self.network, *given, **options)
            return running.links

        ground = Ground(
            unix_time=partial(self.unix_time, party),
            random=random_bytes,
            files=SimFiles(disk, process),
            journal=cast(Any, journal),
            links=cast(Any, links),
            engine=lambda: ENGINE,
        )
        settings = _settings(self.homes[party])
        on_fatal = partial(self._fatal, running)
        running.node = Node(self.homes[party], on_fatal=on_fatal, settings=settings, ground=ground)
        try:
            await self.within(process, running.node.__aenter__())
        except asyncio.CancelledError:
            if not process.dead:
                raise
            return
        except Exception as error:  # noqa: BLE001  # as a service manager: what cannot start is started again
            self.told(f"{party} cannot start: {error}")
            self.crash(party)
            self.restart_soon(party, 1.0)
            return
        runner = running.node.runner
        for live in runner.live.values():
            self.changed(party, live)
        runner.watchers.append(partial(self._changed, party))
        running.ready = True
        self.told(f"{party} is up")

    def crash(self, party: PartyId) -> None:
        """SIGKILL: the process is gone at this moment, and the disk keeps what it has."""
        running = self.running.pop(party, None)
        if running is None:
            return
        self.crashes += 1
        self.loop.kill(running.process)
        if running.journal is not None:
            running.journal.crash()
        if self.disks[party].tears:
            self.disks[party].files[self.homes[party].spool_path / "torn.out"] = b"half of"
        if running.links is not None:
            self.network.leave(running.links, f"{party}: connection reset by peer")

    async def stop(self, party: PartyId) -> None:
        """SIGTERM, and wait until it has ended."""
        running = self.running.get(party)
        if running is None or not running.ready:
            return
        with contextlib.suppress(asyncio.CancelledError):
            await self.within(running.process, running.node.__aexit__(None, None, None))
        self.running.pop(party, None)
        self.loop.kill(running.process)

    def restart_soon(self, party: PartyId, seconds: float) -> None:
        """Start a party's node after a while."""
        self.due.add(party)
        self.spawn(self._later(seconds, party))

    async def _later(self, seconds: float, party: PartyId) -> None:
        await asyncio.sleep(seconds)
        await self.start(party)

    def _fatal(self, running: "Running", reason: str) -> None:
        self.told(f"{running.party} ends itself: {reason}")
        if self.running.get(running.party) is running:
            self.crash(running.party)
            self.restart_soon(running.party, 0.5 + self.faults.random())

    def _changed(self, party: PartyId, live: Live) -> None:
        self.changed(party, live)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work of the harness, which nothing kills."""
        context = copy_context()
        context.run(PROCESS.set, None)
        return self.loop.create_task(work, context=context)

    async def within(self, process: Process, work: Coroutine[Any, Any, T]) -> T:
        """Work of a process. Raises CancelledError if it is killed meanwhile."""
        context = copy_context()
        context.run(PROCESS.set, process)
        job: asyncio.Task[T] = self.loop.create_task(work, context=context)
        try:
            await asyncio.wait([job])
        finally:
            job.cancel()
        return job.result()

    async def call(self, party: PartyId, method: str, body: msgspec.Struct) -> bytes | None:
        """What a party's node answers its user; None if its process is not there, or dies before it answers.

        Raises what the node refuses.
        """
        running = self.running.get(party)
        if running is None or not running.ready or running.links is None:
            return None
        name = parse_name(f"spiffe://{running.node.charter.consortium}/{party}/user/{_USER}")
        caller = Caller(name, method, self.loop.time() + 30.0, "", cast(Link, None))
        handler = running.links.handlers[method]
        try:
            async with asyncio.timeout(30.0):
                answer = await self.within(running.process, cast(Any, handler(caller, msgspec.json.encode(body))))
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            return None
        return answer if isinstance(answer, bytes) else b""

    def close(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(slots=True)
class Running:
    """One process of one party's node."""

    party: PartyId
    process: Process
    node: Node = field(init=False)
    journal: SimJournal | None = None
    links: SimLinks | None = None
    ready: bool = False


def _settings(home: Home) -> NodeSettings:
    settings = read_settings(home.path / "node.toml")
    patience = Patience(offer_seconds=8.0, absence_seconds=4.0, refusal_seconds=1.0, confirm_seconds=0.05)
    return replace(settings, patience=patience)


@lru_cache(maxsize=4)
def template(count: int) -> Template:
    """So many parties, with data published and every question compiled. Made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="junto-sim-template-"))
    names = [PartyId(name) for name in _NAMES[:count]]
    now = _UNIX
    made: dict[PartyId, Home] = {}
    for party in names:
        address = f"127.0.0.1:{1 + len(made)}"  # nobody dials it
        made[party] = homes.create(folder / party, party, address, now, node=NodeId("node"), addresses=(address,))
    members = [charters.read_card(home.card()) for home in made.values()]
    signed = charters.create(members, "sim", now)
    for home in made.values():
        signed = charters.sign(signed, home.authority())
    for home in made.values():
        home.save_charter(signed)
        home.add_user(_USER, now, operator=True)
    bare = Template(folder, made, {party: Disk(party) for party in names}, {}, now)
    loop = SimLoop(random.Random(0))
    world = World(bare, loop, random.Random(0), lambda line: None)
    plans: dict[tuple[PartyId, int], Plan] = {}
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_published(world, names, plans))
    finally:
        asyncio.set_event_loop(None)
    disks = {party: disk.copy() for party, disk in world.disks.items()}
    for party in names:  # with sources.json, as publishing left it
        shutil.rmtree(made[party].path)
        shutil.copytree(world.homes[party].path, made[party].path)
    world.close()
    loaded = {party: homes.load(made[party].path) for party in names}
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked through between runs, but at its end
    atexit.register(gc.unfreeze)
    return Template(folder, loaded, disks, plans, now + 60.0)


async def _published(world: World, names: list[PartyId], plans: dict[tuple[PartyId, int], Plan]) -> None:
    for party in names:
        await world.start(party)
    everybody: list[dict[str, object]] = [
        {"columns": ["*"], "allow": kind, "to": list(names)} for kind in ("rows", "filter")
    ]
    groups: list[dict[str, object]] = [{"columns": ["*"], "allow": kind} for kind in ("group", "aggregate")]
    for number, party in enumerate(names):
        table = table_of(party, number)
        place = world.template.folder / f"{party}.parquet"
        parquet.write_table(table, place)
        for name, rules in (("r", everybody), ("t", groups)):
            spec = world.template.folder / f"{party}-{name}.toml"
            spec.write_text(dataset_file(name, str(place), rules, "id"))
            await world.call(party, methods.OPERATOR_PUBLISH, methods.Publish(str(spec)))
    datasets: list[Dataset] = []
    while any(len(_known(world, party)) < 2 * len(names) for party in names):
        await asyncio.sleep(0.1)
    for party in names:
        datasets = _known(world, party)
        describer = Describer()
        for index, question in enumerate(QUESTIONS):
            plans[party, index] = compile_sql(
                question.sql, datasets, party, purpose="", now=world.unix, describer=describer
            )
        describer.close()
    for party in names:
        await world.stop(party)


def _known(world: World, party: PartyId) -> list[Dataset]:
    return list(world.running[party].node.facts.view.datasets)
