# SPDX-License-Identifier: Apache-2.0
"""One fragment over 20 M rows of Zipf groups, run by the engine and by plain DuckDB over the same Parquet file.

    python benchmarks/bench_engine.py [FOLDER]      the file (200 MB) is made in FOLDER once; else in a temporary one

Each figure comes from a process of its own, the median of its runs but the first; peak RSS is that process's, with
Python and pyarrow in it. Both have two threads; the engine has `MEMORY_BYTES`, plain DuckDB all it wants.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROWS = 20_000_000
GROUPS = {"g500": 500, "g100k": 100_000}
MEMORY_BYTES = 200 << 20
THREADS = 2
RUNS = 6
SMALL_RUNS = 200
COLUMNS = (("id", "BIGINT"), ("g500", "INTEGER"), ("g100k", "INTEGER"), ("i", "INTEGER"), ("x", "DOUBLE"))
RSS_AIM_MB = 400.0

Fragment = tuple[str, str, float]
"""Its name, its SQL, and by which factor it may take longer than plain DuckDB."""


def fragments() -> tuple[Fragment, ...]:
    """The fragments measured: two numbers of groups, units that are rows and units that must be counted."""
    measures = "count(i) AS m0, sum(i) AS m1, sum(x) AS m2"
    found = []
    for column, groups in GROUPS.items():
        size = f"{ROWS // 1_000_000} M rows, {groups if groups < 1000 else f'{groups // 1000} k'} groups"
        select = f"SELECT {column} AS k0, {{}} AS units, {measures} FROM t GROUP BY {column}"
        found.append((size, select.format("count(*)"), 1.1))
        found.append((f"{size}, distinct units", select.format("count(DISTINCT id)"), 1.3))
    return tuple(found)


def run(folder: Path | None = None) -> list[dict[str, object]]:
    """Each figure beside its peer: {name, value, unit, peer, peer_value, ratio, aim, met}."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return run(Path(temporary))
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"zipf-{ROWS}.parquet"
    if not data.exists():
        _write(data)
    rows = []
    for name, sql, aim in fragments():
        seconds, peak = _child("engine", sql, data, RUNS)
        peer_seconds, peer_peak = _child("duckdb", sql, data, RUNS)
        met = seconds <= aim * peer_seconds + 0.02
        rows.append(_row(f"fragment, {name}", seconds, "s", peer_seconds, f"≤ {aim} × + 0.02 s", met))
        rows.append(_row(f"peak RSS, {name}", peak, "MB", peer_peak, f"≤ {RSS_AIM_MB:g} MB", peak <= RSS_AIM_MB))
    small = "SELECT range % 5 AS k0, count(*) AS units FROM range(100) GROUP BY k0"
    seconds, peak = _child("engine", small, data, SMALL_RUNS)
    peer_seconds, peer_peak = _child("duckdb", small, data, SMALL_RUNS)
    rows.append(_row("smallest fragment", seconds * 1e3, "ms", peer_seconds * 1e3, "≤ 5 ms", seconds <= 0.005))
    return rows


def _row(name: str, value: float, unit: str, peer_value: float, aim: str, met: bool) -> dict[str, object]:
    return {
        "name": name, "value": value, "unit": unit, "peer": "plain DuckDB", "peer_value": peer_value,
        "ratio": value / peer_value, "aim": aim, "met": met,
    }  # fmt: skip


def _child(who: str, sql: str, data: Path, runs: int) -> tuple[float, float]:
    """Seconds a run, and peak RSS in MB, of a fresh process."""
    ran = subprocess.run(
        [sys.executable, __file__, "--child", who, sql, str(data), str(runs)], check=True, capture_output=True
    )
    seconds, peak = json.loads(ran.stdout)
    return float(seconds), float(peak)


def _measured(who: str, sql: str, data: Path, runs: int) -> tuple[float, float]:
    work = {"engine": _engine, "duckdb": _duckdb}[who](sql, data)
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    status = Path("/proc/self/status").read_text()  # not getrusage, whose peak begins with the parent's
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return statistics.median(seconds[1:]), int(peak) / 1024


def _engine(sql: str, data: Path) -> Callable[[], object]:
    from junto.engines.base import FileSource, Limits
    from junto.engines.duckdb import DuckDB

    engine = DuckDB()
    tables = {"t": FileSource("parquet", (str(data),), columns=COLUMNS)}
    limits = Limits(MEMORY_BYTES, THREADS, data.parent / "temp")

    def work() -> object:
        with engine.run(sql, tables, limits, threading.Event()) as rows:
            return rows.table()

    return work


def _duckdb(sql: str, data: Path) -> Callable[[], object]:
    import duckdb

    database = duckdb.connect(config={"threads": str(THREADS), "temp_directory": str(data.parent / "peer")})
    database.execute(f"CREATE VIEW t AS FROM '{data}'")
    return lambda: database.sql(sql).to_arrow_table()


def _write(data: Path) -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(7)
    types = (pa.int64(), pa.int32(), pa.int32(), pa.int32(), pa.float64())
    schema = pa.schema([(name, type) for (name, _), type in zip(COLUMNS, types, strict=True)])
    weights = [np.cumsum(1 / np.arange(1, groups + 1)) for groups in GROUPS.values()]
    part = data.with_suffix(".part")
    with parquet.ParquetWriter(part, schema, compression="zstd") as file:
        for start in range(0, ROWS, 1 << 20):
            n = min(1 << 20, ROWS - start)
            keys = [np.searchsorted(w, random.random(n) * w[-1]).astype(np.int32) for w in weights]
            whole, real = random.integers(-1000, 1000, n).astype(np.int32), np.round(random.normal(10, 40, n), 2)
            columns = [np.arange(start, start + n), *keys, whole, real]
            file.write_table(pa.table(columns, schema=schema), row_group_size=120 * 1024)
    os.replace(part, data)


def main(arguments: list[str]) -> None:
    """Print the table, or as a child its two numbers."""
    if arguments[:1] == ["--child"]:
        who, sql, data, runs = arguments[1:]
        print(json.dumps(_measured(who, sql, Path(data), int(runs))))
        return
    for row in run(Path(arguments[0]) if arguments else None):
        beside = f"{row['peer']} {row['peer_value']:,.2f}, ratio {row['ratio']:.2f}"
        print(f"{row['name']:<54} {row['value']:>8,.2f} {row['unit']:<3} {beside:<36} aim {row['aim']}: {row['met']}")


if __name__ == "__main__":
    main(sys.argv[1:])
