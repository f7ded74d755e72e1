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
from junto.journal.storage import Fence
from junto.link import methods
from junto.link.connection import Caller, Link
from junto.node import home as homes
from junto.node.ground import Ground
from junto.node.home import Home
from junto.node.join import join
from junto.node.node import Node
from junto.node.runner import Live
from junto.node.settings import NodeSettings, read_settings
from junto.plan.steps import Plan
from junto.tasks.capacity import Cap, Capacity
from junto.tasks.waiting import Patience
from junto.testing.sim.disk import Disk, SimFiles, SimJournal
from junto.testing.sim.loop import PROCESS, Process, SimLoop
from junto.testing.sim.network import Network, SimLinks
from junto.testing.sim.pair import Pair
from junto.testing.sim.workload import QUESTIONS, RememberingEngine, table_of
from junto.trust import charter as charters
from junto.trust.names import parse_name
from junto.trust.rights import OPERATOR
from junto.types import NodeId, PartyId

T = TypeVar("T")
_USER = "ana"
_UNIX = 1_900_000_000.0  # when every run begins
_NAMES = ("ann", "bea", "cyd", "dan", "eva", "fay", "gus")
_HELPER = PartyId("hub")
ENGINE = RememberingEngine()


@dataclass(frozen=True, slots=True)
class Template:
    """Parties as they are before anything goes wrong."""

    folder: Path
    homes: dict[PartyId, Home]
    disks: dict[PartyId, Disk]
    plans: dict[tuple[PartyId, int], Plan]
    unix: float
    second: Home | None = None  # of the first party's other node
    owners: tuple[PartyId, ...] = ()  # who has data; the others compute for them


class World:
    """One run's nodes."""

    def __init__(
        self,
        template: Template,
        loop: SimLoop,
        faults: random.Random,
        told: Callable[[str], None],
        paired: PartyId | None = None,
        narrow: bool = False,
    ) -> None:
        """paired: a party that runs two nodes over one store. narrow: nodes take few tasks of others at a time."""
        self.capacity = Capacity(slots=2, cap=Cap(tasks=3)) if narrow else Capacity()
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
        self.running: dict[PartyId, Running] = {}  # who acts for a party
        self.alive: list[Running] = []  # every process
        self.pairs: dict[PartyId, Pair] = {}
        if paired is not None and template.second is not None:
            place = self.folder / "second"
            shutil.copytree(template.second.path, place, ignore_dangling_symlinks=True)
            self.pairs[paired] = Pair(paired, (self.homes[paired], homes.load(place)))
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
        """Processes for a party's nodes, as far as they do not run."""
        self.due.discard(party)
        pair = self.pairs.get(party)
        if pair is None:
            if party not in self.running:
                await self._begin(self._process(party, self.homes[party]))
            return
        for home in pair.homes:
            if not any(running.home is home for running in self.alive):
                self.spawn(self._stand(pair, self._process(party, home)))

    def _process(self, party: PartyId, home: Home) -> "Running":
        self.starts += 1
        running = Running(party, home, Process(f"{party}/{home.party.node} {self.starts}"))
        self.alive.append(running)
        return running

    async def _stand(self, pair: Pair, running: "Running") -> None:
        """One node of a pair, from its start to its end."""
        fenced, act = partial(self._deposed, running), partial(self._lead, running)
        try:
            await self.within(running.process, pair.lead(running.home, running.stopping, fenced, act))
        except asyncio.CancelledError:
            if not running.process.dead:
                raise
        finally:
            running.over.set()

    async def _lead(self, running: "Running", fence: Fence, leads: Callable[[], bool]) -> None:
        self.told(f"{running.process.name} leads {running.party}, epoch {fence.epoch}")
        await self._begin(running, fence, leads)
        await running.stopping.wait()
        await running.node.__aexit__(None, None, None)

    async def _begin(
        self, running: "Running", fence: Fence | None = None, leads: Callable[[], bool] = lambda: True
    ) -> None:
        """The node of a process acts; a disk without room ends it, and it is tried again."""
        party, process = running.party, running.process
        self.running[party] = running
        random_bytes = random.Random(self.faults.getrandbits(64)).randbytes
        disk, pair = self.disks[party], self.pairs.get(party)
        held: dict[str, Any] = {} if pair is None else {"fence": fence, "is_over": pair.is_over}

        def journal(path: Path, **options: Any) -> SimJournal:
            running.journal = SimJournal(disk, self.faults, path, **options, **held)
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
            leads=leads,
        )
        shared = pair.shared if pair is not None else None
        settings = replace(_settings(running.home, self.template.folder), shared=shared, capacity=self.capacity)
        on_fatal = partial(self._fatal, running)
        running.node = Node(running.home, on_fatal=on_fatal, settings=settings, ground=ground)
        try:
            await self.within(process, running.node.__aenter__())
        except asyncio.CancelledError:
            if not process.dead:
                raise
            return
        except Exception as error:  # noqa: BLE001  # as a service manager: what cannot start is started again
            self.told(f"{party} cannot start: {error}")
            self._kill(running)
            self.restart_soon(party, 1.0)
            return
        runner = running.node.runner
        for live in runner.live.values():
            self.changed(party, live)
        runner.watchers.append(partial(self._changed, party))
        running.ready = True
        process.resumed_at = self.loop.time()
        self.told(f"{party} is up")

    def crash(self, party: PartyId) -> None:
        """SIGKILL: the process that acts for a party is gone at this moment, and the disk keeps what it has."""
        running = self.running.get(party)
        if running is not None:
            self._kill(running)

    def crash_every(self, party: PartyId) -> None:
        """SIGKILL for every process of a party."""
        for running in [running for running in self.alive if running.party == party]:
            self._kill(running)

    def _kill(self, running: "Running") -> None:
        party = running.party
        self.crashes += 1
        self._gone(running)
        if running.journal is not None:
            running.journal.crash()
        if self.disks[party].tears:
            self.disks[party].files["torn.out"] = b"half of"
        if running.links is not None:
            self.network.leave(running.links, f"{party}: connection reset by peer")

    def _gone(self, running: "Running") -> None:
        if running in self.alive:
            self.alive.remove(running)
        if self.running.get(running.party) is running:
            del self.running[running.party]
        self.loop.kill(running.process)
        running.over.set()

    def _deposed(self, running: "Running", reason: str) -> None:
        """Exit code 75: who started it starts it again, and it stands by."""
        if running in self.alive:
            self.told(f"{running.process.name} gives way: {reason}")
            self._kill(running)
            self.restart_soon(running.party, 0.5)

    async def stop(self, party: PartyId) -> None:
        """SIGTERM to the process that acts, and wait until it has ended."""
        running = self.running.get(party)
        if running is None or not running.ready:
            return
        if party in self.pairs:
            running.stopping.set()
            await running.over.wait()
        else:
            with contextlib.suppress(asyncio.CancelledError):
                await self.within(running.process, running.node.__aexit__(None, None, None))
        self._gone(running)

    async def watch(self, pair: Pair) -> None:
        """Check for ever that one of a pair acts in time."""
        while True:
            await asyncio.sleep(0.1)
            acting, disk = self.running.get(pair.party), self.disks[pair.party]
            leads = acting is not None and acting.ready and not acting.process.paused
            well = not (disk.full or disk.breaks or disk.dies_at)
            mine = (one.process for one in self.alive if one.party == pair.party)
            could = [process for process in mine if not process.paused and not process.slow]
            pair.look(self.loop.time(), leads, could if well else [])

    def restart_soon(self, party: PartyId, seconds: float) -> None:
        """Start a party's node after a while."""
        self.due.add(party)
        self.spawn(self._later(seconds, party))

    async def _later(self, seconds: float, party: PartyId) -> None:
        await asyncio.sleep(seconds)
        await self.start(party)

    def _fatal(self, running: "Running", reason: str) -> None:
        self.told(f"{running.party} ends itself: {reason}")
        if running in self.alive:
            self._kill(running)
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
        """The answer of a party's node to its user; None if its process is not there, or dies before it answers.

        Raises the node's refusal.
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


@dataclass(slots=True, eq=False)
class Running:
    """One process of one party's node."""

    party: PartyId
    home: Home
    process: Process
    node: Node = field(init=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    journal: SimJournal | None = None
    links: SimLinks | None = None
    ready: bool = False


def _settings(home: Home, data: Path) -> NodeSettings:
    settings = read_settings(home.path / "node.toml")
    patience = Patience(offer_seconds=8.0, absence_seconds=4.0, refusal_seconds=1.0, confirm_seconds=0.05)
    return replace(settings, patience=patience, data_folders=(data,))


@lru_cache(maxsize=4)
def template(count: int, helped: bool = False) -> Template:
    """The template of a world of so many parties, data published and questions compiled. Made once in a process.

    helped: one more has no data, and consents to compute for all.
    """
    folder = Path(tempfile.mkdtemp(prefix="junto-sim-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    owners = [PartyId(name) for name in _NAMES[:count]]
    names = [*owners, _HELPER] if helped else owners
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
        home.add_user(_USER, now, rights=OPERATOR)
    if helped:
        line = ", ".join(f'"{owner}"' for owner in owners)
        (made[_HELPER].path / "node.toml").write_text(f"compute = [{line}]\n")
    bare = Template(folder, made, {party: Disk(party) for party in names}, {}, now, owners=tuple(owners))
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
    shutil.copytree(made[names[0]].path, folder / "first")  # joining changes it
    other, store = f"127.0.0.1:{1 + len(made)}", f"sqlite:{folder / 'pair.db'}"
    second = join(homes.load(folder / "first"), folder / "second", NodeId("other"), other, (other,), store)
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked through between runs, but at its end
    atexit.register(gc.unfreeze)
    return Template(folder, loaded, disks, plans, now + 60.0, second, tuple(owners))


async def _published(world: World, names: list[PartyId], plans: dict[tuple[PartyId, int], Plan]) -> None:
    for party in names:
        await world.start(party)
    everybody: list[dict[str, object]] = [
        {"columns": ["*"], "allow": kind, "to": list(names)} for kind in ("rows", "filter")
    ]
    groups: list[dict[str, object]] = [
        {"columns": ["*"], "allow": kind, "owners": "any"} for kind in ("group", "aggregate")
    ]
    owners = world.template.owners
    for number, party in enumerate(owners):
        table = table_of(party, number)
        place = world.template.folder / f"{party}.parquet"
        parquet.write_table(table, place)
        for name, rules in (("r", everybody), ("t", groups)):
            spec = world.template.folder / f"{party}-{name}.toml"
            spec.write_text(dataset_file(name, str(place), rules, "id"))
            await world.call(party, methods.OPERATOR_PUBLISH, methods.Publish(str(spec)))
    datasets: list[Dataset] = []
    while any(len(_known(world, party)) < 2 * len(owners) for party in names):
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
