# SPDX-License-Identifier: Apache-2.0
"""Runs many seeds, over processes: what `junto sim` and the make targets start.

Not in `__main__`: a spawned process cannot import what is defined there.
"""

import argparse
import atexit
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import ParamSpec, TypeVar

from junto.testing.sim.faults import KINDS, Kind
from junto.testing.sim.mutants import MUTANTS, Mutant
from junto.testing.sim.run import Outcome, Scale, run, script_of, shrink

_LEAST_SECONDS = 1.0  # between two lines of progress
_SEEDS_PER_PROCESS = 25
_BASE_SEEDS = 20  # must hold with every safeguard on before mutants are looked for
_HOW = 160  # characters of what a mutant broke
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Sum:
    """All runs together."""

    seeds: int = 0
    tasks: int = 0
    done: int = 0
    faults: int = 0
    crashes: int = 0
    events: int = 0
    messages: int = 0

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.tasks += len(outcome.script.asked)
        self.done += outcome.done
        self.faults += len(outcome.script.faults)
        self.crashes += outcome.crashes
        self.events += outcome.events
        self.messages += outcome.messages

    def line(self, seconds: float) -> str:
        return (
            f"{self.seeds:,} seeds, {self.tasks:,} tasks ({self.done:,} answered), {self.faults:,} faults, "
            f"{self.crashes:,} nodes died, {self.messages:,} messages, {self.events:,} events in {seconds:,.0f} s "
            f"({self.events / max(seconds, 1e-9):,.0f} events/s)"
        )


def main(words: Sequence[str] | None = None) -> int:
    """0 if every seed holds; 1 with the story of the first that does not."""
    parser = argparse.ArgumentParser(prog="junto sim", description="Simulate consortia with faults, and check them.")
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first seed (default 1)")
    parser.add_argument("--parties", type=int, default=3, help="2 to 7 (default 3)")
    parser.add_argument("--tasks", type=int, default=200, help="tasks of one run (default 200)")
    parser.add_argument("--faults", default="all", help=f"all, none, or some of: {', '.join(KINDS)}")
    parser.add_argument("--fault-count", type=int, default=12, help="faults of one run (default 12)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of virtual time in which all begins (default 60)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument(
        "--mutants", action="store_true", help="switch off one safeguard after the other: each is found"
    )
    parser.add_argument("--only", default="", help="with --mutants: the names of some of them, with commas")
    asked = parser.parse_args(words)
    if not 2 <= asked.parties <= 7:
        parser.error(f"--parties {asked.parties}: 2 to 7")
    kinds = _kinds(parser, asked.faults)
    scale = Scale(asked.parties, asked.tasks, asked.fault_count if kinds else 0, asked.seconds, kinds or KINDS)
    seeds = range(asked.first, asked.first + asked.seeds)
    if asked.mutants:
        return _mutants(scale, seeds, asked.jobs, _chosen(parser, asked.only))
    return _simulated(scale, seeds, asked.jobs)


def _chosen(parser: argparse.ArgumentParser, text: str) -> list[Mutant]:
    names = {word.strip() for word in text.split(",") if word.strip()}
    unknown = names - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"--only: no mutant {min(unknown)!r}; there are {', '.join(mutant.name for mutant in MUTANTS)}")
    return [mutant for mutant in MUTANTS if not names or mutant.name in names]


def _kinds(parser: argparse.ArgumentParser, text: str) -> tuple[Kind, ...]:
    if text == "all":
        return KINDS
    if text == "none":
        return ()
    chosen = tuple(word.strip() for word in text.split(","))
    unknown = [word for word in chosen if word not in KINDS]
    if unknown:
        parser.error(f"--faults: no fault {unknown[0]!r}; there are {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in chosen)


def _process() -> ProcessPoolExecutor:
    """A process to run seeds in: not for all of them, for coroutines that were killed linger."""
    return ProcessPoolExecutor(1, get_context("spawn"), _settle)


def _alone(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """The result of work in a process of its own."""
    with _process() as process:
        return process.submit(work, *given, **named).result()


def _settle() -> None:
    """Killed coroutines stand where they were: taking the interpreter apart around them is slow and loud. Whoever asked
    may be killed too: then nobody waits for us any more."""
    warnings.simplefilter("ignore", RuntimeWarning)  # "was never awaited": its process was killed before
    atexit.register(os._exit, 0)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(asking: BaseProcess | None) -> None:
    if asking is not None:
        asking.join()
        os._exit(1)


def _outcomes(scale: Scale, seeds: Sequence[int], jobs: int) -> Iterator[Outcome]:
    """The outcomes in the seeds' order, as they come from so many processes at a time."""
    parts = (seeds[at : at + _SEEDS_PER_PROCESS] for at in range(0, len(seeds), _SEEDS_PER_PROCESS))
    under_way: deque[tuple[ProcessPoolExecutor, list[Future[Outcome]]]] = deque()
    try:
        while True:
            while len(under_way) < jobs and (part := next(parts, None)) is not None:
                process = _process()
                under_way.append((process, [process.submit(_seed, scale, seed) for seed in part]))
            if not under_way:
                return
            process, outcomes = under_way[0]
            for outcome in outcomes:
                yield outcome.result()
            under_way.popleft()
            process.shutdown()
    finally:
        for process, _ in under_way:
            process.shutdown(wait=False, cancel_futures=True)


def _seed(scale: Scale, seed: int) -> Outcome:
    outcome = run(script_of(seed, scale))
    if not outcome.failure:
        outcome.story = []
    return outcome


def _simulated(scale: Scale, seeds: Sequence[int], jobs: int) -> int:
    total, began, told = _Sum(), time.monotonic(), 0.0
    for outcome in _outcomes(scale, seeds, jobs):
        total.add(outcome)
        now = time.monotonic()
        if outcome.failure:
            print(total.line(now - began), flush=True)
            _alone(_tell, outcome)
            return 1
        if now - told >= _LEAST_SECONDS:
            told = now
            print(f"{total.seeds} of {len(seeds)} seeds hold", file=sys.stderr, flush=True)
    print(total.line(time.monotonic() - began))
    print("Every invariant held in every run.")
    return 0


def _tell(outcome: Outcome) -> None:
    """The story of a seed that fails, then of the smallest part of it that fails too."""
    script = outcome.script
    scale = script.scale
    print(f"\nSeed {script.seed} fails: {outcome.failure}\n")
    print("\n".join(outcome.story[-60:]))
    print("\nLooking for the smallest part of it that fails …", flush=True)
    least = shrink(script, lambda line: print(f"  {line}", flush=True))
    print(f"\n{len(least.script.faults)} faults, {len(least.script.asked)} tasks: {least.failure}\n")
    print("\n".join(least.story[-80:]))
    again = f"junto sim --from {script.seed} --seeds 1 --parties {scale.parties} --tasks {scale.tasks}"
    print(f"\nAgain: {again} --fault-count {scale.faults} --seconds {scale.seconds:g}", flush=True)


def _mutants(scale: Scale, seeds: Sequence[int], jobs: int, chosen: Sequence[Mutant]) -> int:
    """A line for each mutant as soon as the runs have found it, or have not."""
    survived = 0
    width = max(len(mutant.name) for mutant in chosen)
    base = list(_outcomes(scale, seeds[:_BASE_SEEDS], jobs))
    failed = next((outcome for outcome in base if outcome.failure), None)
    if failed is not None:
        print(f"Nothing is switched off, and seed {failed.script.seed} fails: {failed.failure}")
        return 1
    with ThreadPoolExecutor(jobs) as threads:
        found = {threads.submit(_alone, _found, scale, seeds, mutant.name): mutant for mutant in chosen}
        for future in as_completed(found):
            mutant, (seed, how, seconds) = found[future], future.result()
            survived += seed is None
            where = f"seed {seed}: {how}" if seed is not None else f"NOT FOUND in {len(seeds)} seeds"
            print(
                f"{mutant.name:<{width}}  {mutant.what} ({seconds:,.0f} s)\n{'':<{width}}  {where[:_HOW]}", flush=True
            )
    print(f"\n{len(chosen) - survived} of {len(chosen)} mutants were found.")
    return 1 if survived else 0


def _found(scale: Scale, seeds: Sequence[int], name: str) -> tuple[int | None, str, float]:
    """The first seed at which the simulator notices that a safeguard is off, what it says, and after what time."""
    began = time.monotonic()
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    scale = replace(scale, kinds=mutant.against or scale.kinds)
    for seed in seeds:
        script = script_of(seed, scale)
        with mutant.applied():
            outcome = run(script)
        if outcome.failure:
            return seed, outcome.failure, time.monotonic() - began
    return None, "", time.monotonic() - began
