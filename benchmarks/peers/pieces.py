# SPDX-License-Identifier: Apache-2.0
"""What every peer is measured with: the same pieces of work, the same load, the same accidents. Imports nothing else.

Each script prints one JSON object: `tasks`, {in flight: {rate, p50, p99}}; and `died`, what came of a party's process
killed in mid-task and started again: {seconds, ended, again, of, bytes_again}; `note` where something needs saying.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

PARTIES = ("north", "south", "west")
IN_FLIGHT = {1: 200, 10: 600, 100: 1000}
STEPS = 20
STEP_BYTES = 1_000_000
STEP_SECONDS = 0.05
GIVE_UP_SECONDS = 90.0


def trivial(value: int) -> int:
    """The smallest piece of work at one party."""
    return value + 1


def step(number: int, before: bytes, log: str) -> bytes:
    """One step of a task of twenty: it takes the step before, gives as much again, and says in `log` that it ran.

    The file is how one counts from outside what was computed twice.
    """
    time.sleep(STEP_SECONDS)
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.write(descriptor, f"{number}\n".encode())
    os.close(descriptor)
    return bytes([number]) * STEP_BYTES


def party_of(number: int) -> str:
    """Where a step runs: at the parties in turn."""
    return PARTIES[number % len(PARTIES)]


def steps_run(log: Path) -> Counter[int]:
    """How often each step ran."""
    return Counter(int(line) for line in log.read_text().split()) if log.exists() else Counter()


def await_step(log: Path, number: int) -> None:
    """Return while the step after `number` runs, if they take as long as they should."""
    while number not in steps_run(log):
        time.sleep(0.005)
    time.sleep(STEP_SECONDS / 2)


def load(ask: Callable[[], object], in_flight: int, total: int) -> dict[str, float]:
    """Ask `total` times, `in_flight` at once, each from a thread of its own: tasks a second, and the times of one."""
    seconds: list[float] = []
    left = iter(range(total))
    lock = threading.Lock()
    failed: list[BaseException] = []

    def asks() -> None:
        while not failed:
            with lock:
                if next(left, None) is None:
                    return
            began = time.perf_counter()
            try:
                ask()
            except BaseException as error:  # noqa: BLE001  # raised below, in the thread that waits
                failed.append(error)
                return
            seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=asks) for _ in range(in_flight)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    seconds.sort()
    return {
        "rate": len(seconds) / (time.perf_counter() - began),
        "p50": seconds[len(seconds) // 2],
        "p99": seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))],
    }


def died(
    log: Path, at: int, kill: Callable[[str], None], restart: Callable[[str], None], wait: Callable[[], object]
) -> dict[str, object]:
    """Kill the party that computes step `at`, start it again after a second; how the call that waits for it ended."""
    outcome: list[str] = []

    def waits() -> None:
        try:
            wait()
            outcome.append("right")
        except Exception as error:  # noqa: BLE001  # how it ended is what is measured
            outcome.append(type(error).__name__)

    waiter = threading.Thread(target=waits, daemon=True)
    waiter.start()
    await_step(log, at - 1)
    before = steps_run(log)
    kill(party_of(at))
    time.sleep(1.0)
    restart(party_of(at))
    restarted = time.perf_counter()
    waiter.join(GIVE_UP_SECONDS)
    again = sum(ran - 1 for ran in steps_run(log).values() if ran > 1)
    return {
        "seconds": time.perf_counter() - restarted if outcome else None,
        "ended": outcome[0] if outcome else f"waits on after {GIVE_UP_SECONDS:g} s",
        "finished_before": len(before),
        "again": again,
        "bytes_again": again * STEP_BYTES,
    }


def tell(found: dict[str, object]) -> None:
    """Print what was found, and leave at once: peers' threads may not hold us up."""
    print(json.dumps(found), flush=True)
    sys.stdout.close()
    os._exit(0)


def kill_tree(pid: int) -> None:
    """End a process of ours and all that it started."""
    found = _and_children(pid)
    for one in found:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _and_children(pid: int) -> list[int]:
    """It and its descendants; each thread of a process has children of its own."""
    found = [pid]
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = listed.read_text().split()
        except OSError:
            continue  # it has just ended
        for child in children:
            found += _and_children(int(child))
    return found
