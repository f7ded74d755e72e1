# SPDX-License-Identifier: Apache-2.0
"""Whole questions over real node processes: the smallest one, and 20 M rows beside DuckDB over the pooled files.

    python -m benchmarks.bench_question [FOLDER]   the files (290 MB) are made in FOLDER once; else in a temporary one

Three owners and nobody else: one of them asks. Everything a user gets is in: signatures, syncs, TLS, thresholds,
receipt. The time of the large question is from the client's `run` to the table in its hands; the pooled DuckDB gives an
Arrow table too, in this process, over all three files, with as many threads as the machine has cores.
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_node import memory_mb
from benchmarks.figures import figure
from junto.client import Desk
from junto.demo.consortium import Consortium, consortium, junto

OWNERS = ("north", "south", "west")
ASKER = "west"
ROWS = 20_000_000
SMALL_RUNS = 300
LARGE_RUNS = 7
SIZES = {"g500": 500, "g100k": 100_000}
SMALL = "SELECT ward, avg(days) AS days, count(*) AS stays FROM small GROUP BY ward"
UNITS = 10

_RULES = """
[dataset.{name}]
source = "{source}"
unit = "id"
[[dataset.{name}.rule]]
columns = {keys}
allow = "group"
[[dataset.{name}.rule]]
columns = {measures}
allow = "aggregate"
"""


def run(folder: Path | None = None) -> list[dict[str, object]]:
    """Each figure: {name, value, unit, peer, peer_value, ratio, aim, met}."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return run(Path(temporary))
    _write_small(folder)
    _write_large(folder)
    with consortium(OWNERS, "bench") as running:
        for owner in OWNERS:
            spec = folder / owner / "datasets.toml"
            junto("dataset", "publish", str(spec), "--home", str(running.homes[owner]))
        with running.desk(ASKER) as desk:
            _await_datasets(desk)
            return [*_small(desk), *_large(desk, folder, running)]


def _small(desk: Desk) -> list[dict[str, object]]:
    question = desk.sql(SMALL)
    for _ in range(20):
        question.run()
    walls: list[float] = []
    steps: dict[str, list[float]] = defaultdict(list)
    for _ in range(SMALL_RUNS):
        began = time.perf_counter()
        answer = question.run()
        walls.append(time.perf_counter() - began)
        for part in answer.progress.parts:
            steps[part.kind].append(part.seconds)
        steps["proposal to receipt"].append(answer.seconds)
    compiled = []
    for _ in range(30):
        began = time.perf_counter()
        desk.sql(SMALL)
        compiled.append(time.perf_counter() - began)
    p50, p99 = (float(np.percentile(walls, q)) * 1e3 for q in (50, 99))
    rows = [
        figure("smallest joint question, p50", p50, "ms", "≤ 60 ms", p50 <= 60),
        figure("smallest joint question, p99", p99, "ms", "≤ 150 ms", p99 <= 150),
        figure("  compiling it, p50 (once per question)", statistics.median(compiled) * 1e3, "ms", "", None),
    ]
    for kind, seconds in steps.items():
        rows.append(figure(f"  of it, {kind}, p50", statistics.median(seconds) * 1e3, "ms", "", None))
    return rows


def _large(desk: Desk, folder: Path, running: Consortium) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    files = [str(folder / owner / "large.parquet") for owner in OWNERS]
    for key, groups in SIZES.items():
        sql = f"SELECT {key}, count(*) AS n, sum(i) AS s, avg(x) AS a FROM {{}} GROUP BY {key}"
        question = desk.sql(sql.format("large"))
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(LARGE_RUNS):
            began = time.perf_counter()
            answer = question.run(deadline="120s")
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            with duckdb.connect() as db:
                pooled = db.sql(sql.format(f"read_parquet({files!r})")).to_arrow_table()
            theirs.append(time.perf_counter() - began)
        _check(answer.table, pooled, key)
        wall, peer = statistics.median(ours[1:]), statistics.median(theirs[1:])
        met = wall <= 1.3 * peer + 0.15
        name = f"joint aggregate, {ROWS // 1_000_000} M rows, {groups:,} groups"
        rows.append(figure(name, wall, "s", "≤ 1.3 × + 0.15 s", met, "DuckDB over the pooled files", peer))
    peak = max(memory_mb(home, "VmHWM") for home in running.homes.values())
    rows.append(figure(f"peak memory of a node, {ROWS // 1_000_000} M rows", peak, "MB", "≤ 400 MB", peak <= 400))
    return rows


def _check(answer: pa.Table, pooled: pa.Table, key: str) -> None:
    """The answer is the pooled one, for groups that pass; sums are exact, averages as near as floats are."""
    expected = {row[key]: row for row in pooled.to_pylist()}
    if answer.num_rows < 400:
        raise ValueError(f"{answer.num_rows} groups came out")
    for row in answer.to_pylist():
        other = expected[row[key]]
        if (row["n"], int(row["s"])) != (other["n"], int(other["s"])) or abs(row["a"] - other["a"]) > 1e-9:
            raise ValueError("the answer is not that of the pooled rows")


def _await_datasets(desk: Desk) -> None:
    until = time.monotonic() + 30
    while len(desk.datasets()) < 2 * len(OWNERS):
        if time.monotonic() > until:
            raise TimeoutError("the datasets did not all become known")
        time.sleep(0.02)


def _write_small(folder: Path) -> None:
    for number, owner in enumerate(OWNERS):
        place = folder / owner
        place.mkdir(parents=True, exist_ok=True)
        wards = [f"ward{i % 5}" for i in range(100)]
        stays = pa.table({"id": range(100), "ward": wards, "days": [(i * 7 + number) % 30 for i in range(100)]})
        pq.write_table(stays, place / "small.parquet")
        small = _RULES.format(name="small", source="small.parquet", keys='["ward"]', measures='["days"]')
        large = _RULES.format(name="large", source="large.parquet", keys='["g500", "g100k"]', measures='["i", "x"]')
        (place / "datasets.toml").write_text(small + large)


def _write_large(folder: Path) -> None:
    """A third of the rows at each owner: Zipf groups, an exact and a real measure, an id that no row shares."""
    rng = np.random.default_rng(2013)
    share = ROWS // len(OWNERS)
    for number, owner in enumerate(OWNERS):
        target = folder / owner / "large.parquet"
        if target.exists():
            continue
        columns: dict[str, object] = {"id": np.arange(number * share, (number + 1) * share)}
        for key, groups in SIZES.items():
            columns[key] = ((rng.zipf(1.2, share) - 1) % groups).astype(np.int32)
        columns["i"] = rng.integers(0, 1000, share, dtype=np.int32)
        columns["x"] = rng.normal(100, 15, share)
        pq.write_table(pa.table(columns), target, compression="zstd", row_group_size=1 << 20)


if __name__ == "__main__":
    for row in run(Path(sys.argv[1]) if len(sys.argv) > 1 else None):
        peer = f", {row['peer']} {row['peer_value']:.3f}" if row["peer"] else ""
        print(f"{row['name']}: {row['value']:.3f} {row['unit']}{peer} (aim {row['aim']}, met: {row['met']})")
