# SPDX-License-Identifier: Apache-2.0
"""Flower: a SuperLink, a SuperNode for each party, an app whose rounds are the tasks. Prints JSON.

A task is one round of one message to each node; a party that dies is measured with one chain of twenty messages only,
killed at half of it: a message takes seconds, as each starts a process.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.pieces import GIVE_UP_SECONDS, PARTIES, STEP_BYTES, STEPS, kill_tree, steps_run, tell

STARTING_SECONDS = 120.0
BIN = Path(sys.executable).parent


def main() -> None:
    """Start all, run the app, kill a node in the middle, stop all."""
    found: dict[str, Any] = {"version": version("flwr"), "tasks": {}, "died": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            found |= _measured(folder, running)
        finally:
            for process in running.values():
                kill_tree(process.pid)
    tell(found)


def _measured(folder: Path, running: "dict[str, subprocess.Popen[bytes]]") -> dict[str, Any]:
    environment = {
        **os.environ, "FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0", "PATH": f"{BIN}:{os.environ['PATH']}"
    }  # fmt: skip
    link, *ports = _free_ports(1 + len(PARTIES))
    address = f"127.0.0.1:{link}"

    def start(what: str, program: str, *words: str) -> None:
        with (folder / f"{what}.log").open("ab") as log:
            running[what] = subprocess.Popen(
                [BIN / program, "--insecure", *words], env=environment, stdout=log, stderr=log, cwd=folder
            )

    def start_node(party: str) -> None:
        port = str(ports[PARTIES.index(party)])
        start(party, "flower-supernode", "--superlink", address, "--port", port, "--node-config", f"party='{party}'")

    start("link", "flower-superlink", "--port", str(link), "--disable-runtime-dependency-installation")
    _await_port(link)
    for party in PARTIES:
        start_node(party)
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "{address}"\ninsecure = true\n'
    )
    app = shutil.copytree(Path(__file__).parent / "flower_app", folder / "app")
    told, log = folder / "found.json", folder / "steps"
    config = f'found="{told}" log="{log}" steps={STEPS} step-bytes={STEP_BYTES}'
    began = time.perf_counter()
    subprocess.run(
        [BIN / "flwr", "run", str(app), "bench", "--run-config", config],
        env=environment, check=True, stdout=subprocess.DEVNULL, timeout=STARTING_SECONDS,
    )  # fmt: skip
    _await(told, STARTING_SECONDS, "the rounds")
    measured: dict[str, Any] = json.loads(told.read_text())
    half = STEPS // 2
    _await_steps(log, half)
    victim = sorted(PARTIES)[half % len(PARTIES)]
    killed = time.time()
    kill_tree(running.pop(victim).pid)
    time.sleep(1.0)
    start_node(victim)
    end = Path(f"{told}.end")
    died: dict[str, Any] = {"seconds": None, "ended": f"waits on after {GIVE_UP_SECONDS:g} s"}
    until = time.monotonic() + GIVE_UP_SECONDS + 20
    while not end.exists() and time.monotonic() < until:
        time.sleep(0.1)
    if end.exists():
        ended = json.loads(end.read_text())
        died = {"seconds": ended["ended_at"] - killed - 1.0, "ended": ended["ended"]}
    again = sum(ran - 1 for ran in steps_run(log).values())
    died |= {"finished_before": half, "again": again, "bytes_again": again * STEP_BYTES}
    return {**measured, "died": {"50": died}, "seconds": time.perf_counter() - began}


def _await_steps(log: Path, count: int) -> None:
    until = time.monotonic() + STARTING_SECONDS
    while len(steps_run(log)) < count:
        if time.monotonic() > until:
            raise TimeoutError("the steps did not come so far")
        time.sleep(0.02)
    time.sleep(0.3)


def _await(path: Path, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} took more than {seconds:g} s")
        time.sleep(0.05)


def _await_port(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the SuperLink does not listen")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    main()
