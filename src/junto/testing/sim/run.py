# SPDX-License-Identifier: Apache-2.0
"""One seed: a workload, faults, the check, and, if it fails, the story and the smallest part of it that still fails."""

import asyncio
import gc
import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from junto.errors import JuntoError
from junto.link import methods
from junto.node import exchange, keep, spool
from junto.plan.steps import encode
from junto.secure import padding
from junto.testing.sim.faults import KINDS, Fault, Kind, faults
from junto.testing.sim.invariants import Broken, Invariants
from junto.testing.sim.loop import SimLoop, Stuck
from junto.testing.sim.memory import remembering
from junto.testing.sim.pair import in_virtual_time
from junto.testing.sim.workload import Asked, workload
from junto.testing.sim.world import World, template
from junto.types import PartyId, TaskId

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_STORY_LINES = 400
_CALM_SECONDS = 30.0  # after the last deadline
_HELPED = 0.25  # of all runs have a party that computes for the others


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run."""

    parties: int = 3
    tasks: int = 200
    faults: int = 12
    seconds: float = 60.0
    kinds: tuple[Kind, ...] = KINDS


@dataclass(frozen=True, slots=True)
class Script:
    """All that a seed draws beforehand."""

    seed: int
    scale: Scale
    asked: tuple[Asked, ...]
    faults: tuple[Fault, ...]
    paired: PartyId | None = None  # runs two nodes over one store
    narrow: bool = False  # nodes take few tasks of others at a time
    helped: bool = False  # one more party computes for those that have data


@dataclass(slots=True)
class Outcome:
    """The outcome of a run."""

    script: Script
    failure: str = ""
    events: int = 0
    messages: int = 0
    crashes: int = 0
    virtual_seconds: float = 0.0
    done: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    trace: str = ""
    story: list[str] = field(default_factory=list)


def script_of(seed: int, scale: Scale) -> Script:
    """The script of a seed at a scale; workload and faults are drawn from sources of their own."""
    helped = random.Random(f"hub {seed}").random() < _HELPED
    names = sorted(template(scale.parties, helped).homes)
    asked = workload(random.Random(f"workload {seed}"), names, scale.tasks, scale.seconds)
    found = faults(random.Random(f"faults {seed}"), names, scale.faults, scale.seconds, scale.kinds)
    drawn = random.Random(f"pair {seed}")
    paired = names[0] if drawn.random() < 0.5 else None
    if (
        paired is not None and scale.faults and "pause" in scale.kinds
    ):  # one that leads sleeps while the other takes over
        for _ in range(2):
            at, length = drawn.random() * scale.seconds, 1.5 + 3 * drawn.random()
            found.append(Fault(at, "pause", paired, names[1], length, 0.0))
        found.sort(key=lambda fault: fault.at)
    return Script(seed, scale, tuple(asked), tuple(found), paired, drawn.random() < 0.5, helped)


def run(script: Script) -> Outcome:
    """Run a script. Never raises for what the nodes do: the outcome says what failed."""
    logging.getLogger("junto").setLevel(logging.CRITICAL)
    gc.collect()
    gc.disable()
    sizes = exchange.INLINE_BYTES, exchange.PIECE_BYTES, spool.CHUNK_BYTES, keep.INLINE_BYTES
    padded = padding.MEAN_DUMMIES, padding.MOST_DUMMIES
    # Tables here are small: so that they are streamed in pieces and lie in files, the limits are smaller still. Of
    # dummies there are as few, or most of a run would be numbers of groups that nobody has.
    exchange.INLINE_BYTES, exchange.PIECE_BYTES, spool.CHUNK_BYTES, keep.INLINE_BYTES = 1200, 400, 400, 1500
    padding.MEAN_DUMMIES, padding.MOST_DUMMIES = 0, 1
    try:
        with remembering(), in_virtual_time():
            return _Run(script).run()
    finally:
        exchange.INLINE_BYTES, exchange.PIECE_BYTES, spool.CHUNK_BYTES, keep.INLINE_BYTES = sizes
        padding.MEAN_DUMMIES, padding.MOST_DUMMIES = padded
        gc.enable()


class _Run:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.outcome = Outcome(script)
        self.loop = SimLoop(random.Random(f"schedule {script.seed}"))
        self.story: deque[str] = deque(maxlen=_STORY_LINES)
        self.digest = hashlib.sha256()
        network = random.Random(f"network {script.seed}")
        parties = template(script.scale.parties, script.helped)
        self.world = World(parties, self.loop, network, self.tell, script.paired, script.narrow)
        self.asked: dict[TaskId, Asked] = {}
        self.invariants = Invariants(self.world, self.asked)
        kinds = {fault.kind for fault in script.faults}
        self.invariants.clocks_agree = not kinds & {"skew", "jump"}
        self.world.network.on_trap = self._trapped

    def tell(self, line: str) -> None:
        """One line of the story, at this moment."""
        text = f"{self.loop.time():9.4f}  {line}"
        self.story.append(text)
        self.digest.update(text.encode())

    def run(self) -> Outcome:
        outcome = self.outcome
        before = self.world.network.before_call

        def heard(sender: PartyId, to: PartyId, method: str, payload: bytes) -> None:
            self.digest.update(f"{self.loop.time():.6f} {sender} {to} {method}".encode())
            before(sender, to, method, payload)

        self.world.network.before_call = heard
        self.loop.now_and_then = self.invariants.check
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._play())
            for found in (*self.loop.faults, *self.world.network.faults_found):
                raise Broken(f"an exception that nobody expected: {found}")
        except (Broken, Stuck) as error:
            outcome.failure = str(error)
            self.tell(f"BROKEN: {error}")
        except Exception as error:  # noqa: BLE001  # what a node cannot give back at the end is a failure of the run
            outcome.failure = f"an exception that nobody expected: {error!r}"
            self.tell(f"BROKEN: {outcome.failure}")
        finally:
            asyncio.set_event_loop(None)
            outcome.events = self.loop.events
            outcome.messages = self.world.network.messages
            outcome.crashes = self.world.crashes
            outcome.virtual_seconds = self.loop.time()
            outcome.done = self.invariants.done
            outcome.ended = dict(self.invariants.ended)
            outcome.trace = self.digest.hexdigest()
            outcome.story = list(self.story)
            self._unwind()
            self.world.close()
        return outcome

    def _unwind(self) -> None:
        """Let go of every coroutine, without a word."""
        self.loop.now_and_then = lambda: None
        self.loop.most_events = self.loop.events + 1_000_000
        for running in self.world.alive:
            self.loop.kill(running.process)
        for task in list(self.loop.tasks.values()):
            task.cancel()
        self.loop.set_exception_handler(lambda loop, context: None)
        for _ in range(200):
            if not self.loop.tasks:
                break
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.close()

    async def _play(self) -> None:
        world, script = self.world, self.script
        jobs = [world.spawn(world.start(party)) for party in world.parties]
        await self._all(jobs)
        for pair in world.pairs.values():
            world.spawn(world.watch(pair))
        jobs = [world.spawn(self._user(asked)) for asked in script.asked]
        jobs += [world.spawn(self._fault(fault)) for fault in script.faults]
        await self._until(script.scale.seconds + 1.0)
        await self._heal()
        last = max((asked.at + asked.seconds for asked in script.asked), default=0.0)
        await self._until(max(last, self.loop.time()) + _CALM_SECONDS)
        await self._all(jobs)
        self.tell("all is mended and every deadline has passed")
        self.invariants.check()
        self.invariants.finish()

    async def _all(self, jobs: Sequence[asyncio.Task[None]]) -> None:
        if jobs:
            await asyncio.wait(jobs)
        for job in jobs:
            job.result()

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(at - self.loop.time(), 0.0))

    async def _heal(self) -> None:
        world = self.world
        for party in world.parties:
            disk = world.disks[party]
            disk.full = disk.breaks = disk.tears = False
            disk.dies_at = ""
        for running in world.alive:
            running.process.slow = 0.0
            if running.process.paused:
                self.loop.go_on(running.process)
        world.network.heal()
        world.network.traps.clear()
        for party in world.parties:
            while party not in world.running or not world.running[party].ready:
                await world.start(party)
                await asyncio.sleep(0.2)
        self.tell("healed")
        self.invariants.healed_at = self.loop.time()

    # ── users ──

    async def _user(self, asked: Asked) -> None:
        await self._until(asked.at)
        task = _task_id(self.world.unix + asked.at, self.script.seed, asked.number)
        self.asked[task] = asked
        self.tell(f"{asked.line()}: {task}")
        plan = self.world.template.plans[asked.party, asked.question]
        ask = methods.Ask(
            msgspec.Raw(encode(plan)), asked.seconds, "", asked.priority, task, asked.absent, 2 if asked.absent else 0
        )
        until = asked.at + asked.seconds
        while self.loop.time() < until:
            try:
                answer = await self.world.call(asked.party, methods.USER_ASK, ask)
            except JuntoError as error:
                self.tell(f"task {asked.number} is not taken: {error.code}")
                answer = None
            if answer is not None:
                self.invariants.promised(asked.party, task)
                break
            await asyncio.sleep(0.3)
        else:
            return
        if asked.cancel_after is not None:
            await asyncio.sleep(asked.cancel_after)
            try:
                await self.world.call(asked.party, methods.USER_CANCEL, methods.Which(task))
            except JuntoError as error:
                self.tell(f"task {asked.number} is not taken back: {error.code}")

    # ── faults ──

    async def _fault(self, fault: Fault) -> None:
        await self._until(fault.at)
        self.tell(fault.line())
        world, network, party, other = self.world, self.world.network, fault.party, fault.other
        disk = world.disks[party]
        match fault.kind:
            case "crash":
                world.crash(party)
                world.restart_soon(party, fault.seconds)
            case "crash-at-message":
                network.traps[party] = int(fault.seconds * 5)
            case "crash-in-commit":
                disk.breaks = disk.tears = True
                await asyncio.sleep(fault.seconds)
                disk.breaks = disk.tears = False
            case "crash-at-record":
                for each in world.disks.values():
                    each.dies_at = fault.record
            case "crash-all":
                for one in world.parties:
                    world.crash_every(one)
                    world.restart_soon(one, fault.seconds)
            case "stop":
                await world.stop(party)
                world.restart_soon(party, fault.seconds)
            case "pause":
                running = world.running.get(party)
                if running is not None:
                    running.process.paused = True
                    await asyncio.sleep(fault.seconds)
                    self.loop.go_on(running.process)
            case "slow":
                running = world.running.get(party)
                if running is not None:
                    running.process.slow = fault.look_seconds
                    await asyncio.sleep(fault.seconds)
                    running.process.slow = 0.0
            case "cut":
                network.cut(party, other)
            case "partition" | "one-way" | "isolate":
                pairs = [(party, other)]
                if fault.kind == "isolate":
                    pairs = [(party, one) for one in world.parties if one != party]
                if fault.kind != "one-way":
                    pairs += [(b, a) for a, b in pairs]
                for pair in pairs:
                    network.block(*pair)
                await asyncio.sleep(fault.seconds * 2)
                for a, b in pairs:
                    network.blocked.discard((a, b))
                    network._connect(a, b)  # one object in two files
            case "loss" | "twice" | "late" | "garble":
                setattr(network.weather, fault.kind, fault.size)
                await asyncio.sleep(fault.seconds)
                setattr(network.weather, fault.kind, 0.0)
            case "disk-full":
                disk.full = disk.was_full = True
                await asyncio.sleep(fault.seconds)
                disk.full = False
            case "sync-fails":
                disk.breaks = True
                await asyncio.sleep(fault.seconds)
                disk.breaks = False
            case "skew" | "jump":
                world.skew[party] += fault.size * (3600.0 if fault.kind == "jump" else 30.0)
                await asyncio.sleep(fault.seconds)
                if fault.kind == "jump":
                    world.skew[party] -= fault.size * 3600.0

    def _trapped(self, party: PartyId) -> None:
        self.tell(f"{party} dies at a message")
        self.world.crash(party)
        self.world.restart_soon(party, 0.3)


def _task_id(now: float, seed: int, number: int) -> TaskId:
    low = int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:10], "big")
    value = (int(now * 1000) & ((1 << 48) - 1)) << 80 | low
    return TaskId("".join(_ALPHABET[value >> shift & 31] for shift in range(125, -5, -5)))


def shrink(script: Script, told: Callable[[str], None], tries: int = 60) -> Outcome:
    """The smallest script found that still fails the same way: fewer faults first, then fewer tasks."""
    best = run(script)
    if not best.failure:
        return best
    left = tries
    for part in ("faults", "asked"):
        size = max(len(getattr(best.script, part)) // 2, 1)
        while size >= 1 and left > 0:
            at, found = 0, False
            while at < len(getattr(best.script, part)) and left > 0:
                items = getattr(best.script, part)
                smaller = replace(best.script, **{part: items[:at] + items[at + size :]})
                left -= 1
                outcome = run(smaller)
                if outcome.failure:
                    best, found = outcome, True
                    told(f"{len(best.script.faults)} faults, {len(best.script.asked)} tasks: {best.failure}")
                else:
                    at += size
            if not found:
                size //= 2
    return best
