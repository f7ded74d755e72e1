# SPDX-License-Identifier: Apache-2.0
"""Tasks a second with three parties, and what a kill costs, beside Ray, Dask and Flower doing what each of them can.

    python -m benchmarks tasks        with the peers of this environment (`pip install '.[bench]'`)
    JUNTO_PEERS_PYTHON=/else/bin/python python -m benchmarks tasks        with those of another one

*Trivial steps*: the rows of an open table of one row at each of three owners, one of whom asks: a Query at each, a Move
of two, a Release. Copies of open tables are kept by version, so from the second task on no row crosses; what is left is
what every task costs: proposal, judgements, offers, contract, confirms, receipt, each signed, sent over mutual TLS, and
synced to the disk of each of three node processes before anybody hears of it. *With a secret* there are a threshold and
a masked sum besides. One asking process compiles once, and asks from as many threads as tasks are in flight. The peers
sign, journal and sync nothing, and keep no secrets.

*Killed*: see `crashes.py`; the peers have the same twenty steps, and their party's process is killed and started again.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import crashes
from benchmarks.figures import figure
from benchmarks.peers.pieces import IN_FLIGHT, STEPS, kill_tree, load
from junto.catalog.write import dataset_file
from junto.client import Desk
from junto.demo.consortium import Consortium, consortium, junto

OWNERS = ("north", "south", "west")
ASKER = "west"
TRIVIAL = "SELECT id, v FROM tiny"
JOINT = "SELECT ward, avg(v) AS a FROM small GROUP BY ward"
SECRET_TASKS = {1: 60, 10: 200}
RATE_AIM = 150.0
RECOVERY_AIM_SECONDS = 2.0
TAKEOVER_AIM_SECONDS = 3.0
RECOVERIES = 3
TAKEOVERS = 5
SIMULATED_SEEDS = 6
PEERS = {"ray": ("Ray", 240.0), "dask": ("Dask", 240.0), "flower": ("Flower", 420.0)}
"""Script: its name, and how many seconds it may take in all."""

Found = dict[str, Any]
Row = dict[str, object]


def run() -> list[Row]:
    """Each figure beside each peer: {name, value, unit, peer, peer_value, ratio, aim, met}."""
    rates, secret = _rates()
    broken = _broken()
    events = _simulated()
    theirs = {name: _peer(script, name, seconds) for script, (name, seconds) in PEERS.items()}
    return [
        *_rate_rows(rates, theirs),
        *_secret_rows(secret),
        *_broken_rows(broken, theirs),
        figure("simulator, 3 parties, all faults, one core", events, "events/s", "", None),
    ]


# ── Junto ───────────────────────────────────────────────────────────────────────────────────────────


def _rates() -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    """By tasks in flight: of trivial steps, and with a secret."""
    with consortium(OWNERS, "bench") as running:
        for number, owner in enumerate(OWNERS):
            _publish(running, owner, number)
        with running.desk(ASKER) as desk:
            _await_datasets(desk)
            trivial, secret = desk.sql(TRIVIAL), desk.sql(JOINT)
            if sorted(row["id"] for row in trivial.run().table.to_pylist()) != [0, 1, 2]:
                raise ValueError("the answer is wrong")
            load(trivial.run, 10, 100)
            rates = {in_flight: load(trivial.run, in_flight, total) for in_flight, total in IN_FLIGHT.items()}
            load(secret.run, 4, 20)
            return rates, {in_flight: load(secret.run, in_flight, n) for in_flight, n in SECRET_TASKS.items()}


def _publish(running: Consortium, owner: str, number: int) -> None:
    folder = running.homes[owner] / "data"
    opened = [{"columns": ["*"], "allow": "open"}]
    grouped = [{"columns": ["*"], "allow": kind} for kind in ("group", "aggregate")]
    pq.write_table(pa.table({"id": [number], "v": [number]}), folder / "tiny.parquet")
    wards = [f"ward{i % 5}" for i in range(100)]
    pq.write_table(pa.table({"id": range(100), "ward": wards, "v": range(100)}), folder / "small.parquet")
    (folder / "tiny.toml").write_text(dataset_file("tiny", "tiny.parquet", opened, None))
    (folder / "small.toml").write_text(dataset_file("small", "small.parquet", grouped, "id"))
    for name in ("tiny", "small"):
        junto("dataset", "publish", str(folder / f"{name}.toml"), "--home", str(running.homes[owner]))


def _await_datasets(desk: Desk) -> None:
    until = time.monotonic() + 30
    while len(desk.datasets()) < 2 * len(OWNERS):
        if time.monotonic() > until:
            raise TimeoutError("the datasets did not all become known")
        time.sleep(0.02)


def _broken() -> Found:
    """Kills at a half and at nine tenths of twenty steps; recovery of the asker, which computes the last fragment."""
    with crashes.three() as running:
        undisturbed = [crashes.undisturbed(running) for _ in range(3)]
        found: Found = {"undisturbed": statistics.median(undisturbed)}
        found["50"] = crashes.killed(running, STEPS * 50 // 100)
        at_the_end = [crashes.killed(running, STEPS * 90 // 100) for _ in range(RECOVERIES)]
        found["90"] = max(at_the_end, key=lambda crash: crash.again)
        found["recovery"] = statistics.median(crash.seconds for crash in at_the_end)
        found["takeover"] = statistics.median(crashes.takeovers(running, TAKEOVERS))
        return found


def _simulated() -> float:
    """Events a second of the simulator on one core: three parties, all faults."""
    words = [sys.executable, "-m", "junto.testing.sim", "--seeds", str(SIMULATED_SEEDS)]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    rates = re.findall(r"\(([\d,]+) events/s\)", printed)
    return float(rates[-1].replace(",", ""))


# ── peers ───────────────────────────────────────────────────────────────────────────────────────────


def _peer(script: str, name: str, seconds: float) -> Found:
    """What a peer's script found, in a process of its own; {"absent": why} if there is nothing."""
    root = Path(__file__).parent.parent
    python = os.environ.get("JUNTO_PEERS_PYTHON", sys.executable)
    print(f"tasks: {name} …", file=sys.stderr, flush=True)
    process = subprocess.Popen(
        [python, "-m", f"benchmarks.peers.{script}_tasks"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        process.communicate()
        return {"absent": f"not done within {seconds:g} s"}
    line = next((line for line in reversed(out.decode(errors="replace").splitlines()) if line.startswith("{")), "")
    if process.returncode == 0 and line:
        return dict(json.loads(line))
    if b"ModuleNotFoundError" in told or b"PackageNotFoundError" in told:
        return {"absent": "not installed"}
    last = told.decode(errors="replace").strip().splitlines()[-1:]
    return {"absent": f"failed: {' '.join(last)[:80]}"}


def _called(name: str, found: Found) -> str:
    return f"{name} ({found['absent']})" if "absent" in found else f"{name} {found['version']}"


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────


def _rate_rows(ours: dict[int, dict[str, float]], theirs: dict[str, Found]) -> list[Row]:
    rows: list[Row] = []
    for in_flight, mine in ours.items():
        for name, found in theirs.items():
            its = found.get("tasks", {}).get(str(in_flight), {})
            peer = _called(name, found) if its or "absent" in found else f"{name} (takes minutes)"
            aim, met = (f"≥ {RATE_AIM:g}/s", mine["rate"] >= RATE_AIM) if in_flight > 1 else ("", None)
            what = f"{in_flight} in flight"
            rows.append(figure(f"trivial tasks a second, {what}", mine["rate"], "1/s", aim, met, peer, its.get("rate")))
            for quantile in ("p50", "p99"):
                milliseconds = its[quantile] * 1e3 if its else None
                one = f"  {quantile} of one, {what}"
                rows.append(figure(one, mine[quantile] * 1e3, "ms", "", None, peer, milliseconds))
    return rows


def _secret_rows(ours: dict[int, dict[str, float]]) -> list[Row]:
    rows: list[Row] = []
    for in_flight, mine in ours.items():
        rows.append(figure(f"tasks with a secret a second, {in_flight} in flight", mine["rate"], "1/s", "", None))
        for quantile in ("p50", "p99"):
            rows.append(figure(f"  {quantile} of one, {in_flight} in flight", mine[quantile] * 1e3, "ms", "", None))
    return rows


def _broken_rows(ours: Found, theirs: dict[str, Found]) -> list[Row]:
    recovery, most = ours["recovery"], crashes.STEP_BYTES
    rows = [
        figure("twenty steps, nobody killed", ours["undisturbed"], "s", "", None),
        figure(
            "asker killed at 90 %: from its start to the answer", recovery, "s", f"≤ {RECOVERY_AIM_SECONDS:g} s",
            recovery <= RECOVERY_AIM_SECONDS,
        ),
    ]  # fmt: skip
    takeover = ours["takeover"]
    rows.append(
        figure(
            "takeover by a standby, from the kill", takeover, "s", f"≤ {TAKEOVER_AIM_SECONDS:g} s",
            takeover <= TAKEOVER_AIM_SECONDS,
        )
    )  # fmt: skip
    for percent in (50, 90):
        mine = ours[str(percent)]
        for name, found in theirs.items():
            its = found.get("died", {}).get(str(percent), {})
            how = (
                f": {its['ended']}, {its['seconds']:.1f} s"
                if its.get("seconds")
                else f": {its['ended']}"
                if its
                else ""
            )
            peer = _called(name, found) + how
            again = its.get("bytes_again")
            rows.append(
                figure(
                    f"bytes computed again, killed at {percent} %", mine.bytes_again, "B", f"≤ {most:,} B",
                    mine.bytes_again <= most, peer, again,
                )
            )  # fmt: skip
            rows.append(figure("  from the start to the answer", mine.seconds, "s", "", None, peer, its.get("seconds")))
    return rows


if __name__ == "__main__":
    for row in run():
        peer = f", {row['peer']} {row['peer_value']}" if row["peer"] else ""
        print(f"{row['name']}: {row['value']:.3f} {row['unit']}{peer} (aim {row['aim']}, met: {row['met']})")
