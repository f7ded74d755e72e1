# SPDX-License-Identifier: Apache-2.0
"""What a node costs while nobody asks: its start, its memory, and the import of the package.

python benchmarks/bench_node.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import figure
from junto.demo.consortium import consortium

RUNS = 7
SETTLE_SECONDS = 3.0


def run() -> list[dict[str, object]]:
    """Each figure: {name, value, unit, peer, peer_value, ratio, aim, met}."""
    rows = []
    bare = _wall("pass")
    imported = _wall("import junto")
    rows.append(figure("import junto", imported - bare, "s", "≤ 0.2 s", imported - bare <= 0.2, "a bare python", bare))
    with consortium(("a", "b", "c"), "bench") as running:
        time.sleep(SETTLE_SECONDS)
        idle = max(memory_mb(home, "VmRSS") for home in running.homes.values())
        rows.append(figure("node, idle memory", idle, "MB", "≤ 120 MB", idle <= 120))
        starts = [_restart(running.homes["a"]) for _ in range(RUNS)]
        start = statistics.median(starts)
        rows.append(figure("node, start to first answer", start, "s", "≤ 1 s", start <= 1.0))
    return rows


def memory_mb(home: Path, field: str) -> float:
    """A field of the node's /proc status, in MB."""
    pid = int((home / "node.ready").read_text().split()[0])
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(field)


def _restart(home: Path) -> float:
    """Seconds from the spawn of a node's process until it answers."""
    words = [sys.executable, "-m", "junto", "node"]
    subprocess.run([*words, "stop", "--home", str(home)], check=True, capture_output=True)
    ready = home / "node.ready"
    while ready.exists():
        time.sleep(0.01)
    with (home / "node.log").open("ab") as log:
        began = time.perf_counter()
        process = subprocess.Popen([*words, "start", "--home", str(home)], stdout=log, stderr=log, stdin=log)
        while not ready.exists():
            if process.poll() is not None:
                raise RuntimeError("the node did not start; its log says more")
            time.sleep(0.001)
        return time.perf_counter() - began


def _wall(code: str) -> float:
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']}: {row['value']:.3f} {row['unit']} (aim {row['aim']}, met: {row['met']})")
