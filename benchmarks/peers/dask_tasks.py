# SPDX-License-Identifier: Apache-2.0
"""Dask: a scheduler, a worker process for each party, marked by a resource of its name. Prints JSON.

Not by `workers=[name]`: that means the process which had the name, and waits for ever when another has taken its place.
"""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import distributed
from distributed import Client

from benchmarks.peers.pieces import IN_FLIGHT, PARTIES, STEPS, died, kill_tree, load, party_of, step, tell, trivial


def main() -> None:
    """Start a scheduler and three workers, measure, stop them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    processes = {"": _start("scheduler", "--port", address.rpartition(":")[2], "--host", "127.0.0.1", "--no-dashboard")}
    found: dict[str, Any] = {"version": distributed.__version__, "tasks": {}, "died": {}}

    def start(party: str) -> None:
        processes[party] = _start(
            "worker", address, "--name", party, "--resources", f"{party}=1000", "--nthreads", "1", "--no-nanny",
            "--no-dashboard", "--host", "127.0.0.1",
        )  # fmt: skip

    try:
        for party in PARTIES:
            start(party)
        with Client(address, timeout="30s") as client:
            client.wait_for_workers(len(PARTIES), timeout=60)

            def ask() -> None:
                parts = [
                    client.submit(trivial, number, resources={party: 1}, pure=False)
                    for number, party in enumerate(PARTIES)
                ]
                if client.gather(parts) != [1, 2, 3]:
                    raise ValueError("a wrong answer")

            load(ask, 4, 50)
            for in_flight, total in IN_FLIGHT.items():
                found["tasks"][in_flight] = load(ask, in_flight, total)
            for percent in (50, 90):
                number = STEPS * percent // 100
                with tempfile.TemporaryDirectory() as folder:
                    log = Path(folder) / "steps"
                    chain: Any = b""
                    kept = []  # so that no step is forgotten before the end
                    for index in range(STEPS):
                        place = {party_of(index): 1}
                        chain = client.submit(step, index, chain, str(log), resources=place, pure=False)
                        kept.append(chain)

                    def kill(party: str) -> None:
                        kill_tree(processes.pop(party).pid)

                    found["died"][percent] = died(log, number, kill, start, chain.result)
                    client.cancel(kept)
                client.wait_for_workers(len(PARTIES), timeout=60)
    finally:
        for process in processes.values():
            kill_tree(process.pid)
    tell(found)


def _start(what: str, *words: str) -> "subprocess.Popen[bytes]":
    program = [sys.executable, "-m", "distributed.cli.dask_" + what]
    return subprocess.Popen([*program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
