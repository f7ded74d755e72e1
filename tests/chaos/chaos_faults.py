# SPDX-License-Identifier: Apache-2.0
"""What goes wrong: a node is killed or stopped, a connection cut, a way silent. One seeded stream of accidents."""

import os
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from threading import Event

from chaos_world import PARTIES, World

from junto.testing.proxy import Proxy, Weather

MOMENTS = ("proposal", "decision", "offer", "contract", "confirm", "receipt")
"""A node may be killed when its journal has just taken in one of these."""
_WATCH_SECONDS = 1.5

ACCIDENTS = {
    "killed": 4, "killed at": 5, "killed twice": 1, "stopped": 3, "cut": 3, "cut after": 2, "silent there": 1,
    "silent back": 1, "silent": 1, "half-open": 2, "slow": 1, "refuses": 1,
}  # fmt: skip
"""What, and how often among 25."""


def strike(world: World, random: Random, counts: Counter[str], stopping: Event, pause: tuple[float, float]) -> None:
    """Accidents, one after the other, until told to stop; each is over before the next. Counts what was done."""
    while not stopping.wait(random.uniform(*pause)):
        what = random.choices(list(ACCIDENTS), list(ACCIDENTS.values()))[0]
        victim = random.choice(PARTIES)
        told = _strike(world, random, what, victim)
        counts[told] += 1


def _strike(world: World, random: Random, what: str, victim: str) -> str:
    match what:
        case "killed":
            return _killed(world, random, victim, what)
        case "killed at":
            moment = random.choice(MOMENTS)
            came = _await_entry(world.home(victim) / "journal.db", moment)
            return _killed(world, random, victim, f"killed at its {moment}" if came else "killed")
        case "killed twice":
            world.kill(victim)
            world.start(victim)
            return _killed(world, random, victim, what)  # in the middle of what it goes on with
        case "stopped":
            pid = world.pid(victim)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(random.uniform(0.3, 4.0))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            return what
        case "cut":
            world.at_proxy(victim, Proxy.cut)
            return what
        case "half-open":
            world.at_proxy(victim, Proxy.half_open)
            time.sleep(random.uniform(0.5, 3.0))
            world.at_proxy(victim, Proxy.heal)
            return what
        case _:
            world.at_proxy(victim, lambda proxy: proxy.set(_weather(what, random)))
            time.sleep(random.uniform(0.5, 3.0))
            world.at_proxy(victim, Proxy.heal)
            return what


def _killed(world: World, random: Random, victim: str, told: str) -> str:
    world.kill(victim)
    time.sleep(random.choice((0.0, random.uniform(0.0, 1.5))))
    world.start(victim)
    return told


def _weather(what: str, random: Random) -> Weather:
    match what:
        case "cut after":
            return Weather(cut_after_bytes=random.randrange(500, 60_000))
        case "silent there":
            return Weather(there=False)
        case "silent back":
            return Weather(back=False)
        case "silent":
            return Weather(there=False, back=False)
        case "slow":
            return Weather(delay_seconds=0.05)
        case _:
            return Weather(accepts=False)


def _await_entry(journal: Path, kind: str) -> bool:
    """Return as soon as the journal holds one more entry of a kind; False if none came in time."""
    query = "SELECT coalesce(max(position), -1) FROM entry WHERE kind = ?"
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as reader:
        before = reader.execute(query, (kind,)).fetchone()
        end = time.monotonic() + _WATCH_SECONDS
        while time.monotonic() < end:
            with suppress(sqlite3.OperationalError):
                if reader.execute(query, (kind,)).fetchone() != before:
                    return True
            time.sleep(0.001)
    return False
