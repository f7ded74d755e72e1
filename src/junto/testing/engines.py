# SPDX-License-Identifier: Apache-2.0
"""The duties of every engine, as claims that anyone may run: `conformance(engine, folder)`, or `CLAIMS` one by one.

Each claim takes an engine and an empty folder, and raises AssertionError, or what the engine should not have raised.
"""

import datetime
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import ipc, parquet

from junto.engines.base import ArrowSource, Dialect, Engine, FileSource, Limits, Source, TableSource, narrowed
from junto.engines.keys import arrow_type
from junto.errors import Cancelled, FragmentFailed, OutOfMemory

Claim = Callable[[Engine, Path], None]

ONE: Mapping[str, Source] = {"t": TableSource(pa.table({"x": [1, 2, 3], "s": ["hush-1", "hush-2", "7"]}))}


def conformance(engine: Engine, folder: Path) -> None:
    """Runs every claim, each in a folder of its own under `folder`. Raises at the first that does not hold."""
    for claim in CLAIMS:
        own = folder / claim.__name__
        own.mkdir()
        claim(engine, own)


def answer(
    engine: Engine, folder: Path, sql: str, tables: Mapping[str, Source], memory_bytes: int = 256 << 20
) -> pa.Table:
    """All rows of a fragment, with nobody asking to stop."""
    with engine.run(sql, tables, Limits(memory_bytes, 2, folder / "temp"), threading.Event()) as rows:
        return rows.table()


def joins_sources_of_every_kind(engine: Engine, folder: Path) -> None:
    """CSV, Parquet, an Arrow file and a table in memory meet in one fragment, under names of any script."""
    (folder / "a.csv").write_text("k;day\n1;31/12/2013\n2;\n")
    parquet.write_table(pa.table({"k": [1, 2], "größe": [2.5, None]}), folder / "b's [x].parquet")
    arrow = pa.table({"k": [1, 2], "b": [True, False]})
    with ipc.new_file(str(folder / "c.arrow"), arrow.schema) as file:
        file.write_table(arrow)
    tables: dict[str, Source] = {
        "csv": FileSource(
            "csv",
            (str(folder / "a.csv"),),
            columns=(("k", "INTEGER"), ("day", "DATE")),
            dialect=Dialect(";", date_format="%d/%m/%Y"),
        ),
        '名 "前"': FileSource(
            "parquet", (str(folder / "b's [x].parquet"),), columns=(("k", "BIGINT"), ("größe", "DOUBLE"))
        ),
        "C": ArrowSource(str(folder / "c.arrow")),
        "select": TableSource(pa.table({"k": [2, 1], "s": ["two", None]})),
    }
    sql = (
        'SELECT k, CAST(day AS VARCHAR) AS day, "größe", b, s FROM csv JOIN "名 ""前""" USING (k) '
        'JOIN c USING (k) JOIN "select" USING (k) ORDER BY k'
    )
    rows = answer(engine, folder, sql, tables).to_pylist()
    _same(
        rows,
        [
            {"k": 1, "day": "2013-12-31", "größe": 2.5, "b": True, "s": None},
            {"k": 2, "day": None, "größe": None, "b": False, "s": "two"},
        ],
    )


def shows_no_column_but_those_judged(engine: Engine, folder: Path) -> None:
    """Of a source of any kind, a fragment sees the columns for which it was narrowed, under no name any other."""
    table = pa.table({"id": [1, 2, 3], "Phone": ["hush-1", "hush-2", "hush-3"]})
    (folder / "a.csv").write_text("id,Phone\n1,hush-1\n2,hush-2\n3,hush-3\n")
    (folder / "b.csv").write_text("id,Phone\n")
    parquet.write_table(table, folder / "a.parquet")
    with ipc.new_file(str(folder / "a.arrow"), table.schema) as file:
        file.write_table(table)
    columns = (("id", "BIGINT"), ("Phone", "VARCHAR"))
    plain: tuple[Source, ...] = (
        FileSource("csv", (str(folder / "a.csv"), str(folder / "b.csv")), columns=columns),
        FileSource("parquet", (str(folder / "a.parquet"),), columns=columns),
        ArrowSource(str(folder / "a.arrow")),
        TableSource(table),
    )
    for source in plain:
        tables = {"t": narrowed(source, ("id",)), "u": narrowed(source, [])}
        _same(answer(engine, folder, "SELECT sum(id) AS s FROM t", tables).to_pylist(), [{"s": 6}])
        _same(answer(engine, folder, "SELECT count(*) AS n FROM u", tables).to_pylist(), [{"n": 3}])
        _same(answer(engine, folder, "SELECT * FROM t", tables).column_names, ["id"])
        hidden = ("phone", '"Phone"', "t.phone", "filename", "rowid", "(SELECT max(t.phone) FROM u)")
        for expression in hidden:
            _raises(FragmentFailed, partial(answer, engine, folder, f"SELECT {expression} AS x FROM t", tables))
        whole = answer(
            engine, folder, "SELECT CAST(t AS VARCHAR) AS x FROM t UNION ALL SELECT CAST(u AS VARCHAR) FROM u", tables
        )
        _claim("hush" not in str(whole.to_pylist()), "a row as a whole shows no other column")


def gives_each_type_its_arrow_type(engine: Engine, folder: Path) -> None:
    """Columns arrive in the types that group keys and results are encoded from, also when there is no row."""
    types = (
        *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL(4,1)", "DECIMAL(38,10)"),
        *("VARCHAR", "BLOB", "UUID", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
        "TIMESTAMP WITH TIME ZONE",
    )
    columns = ", ".join(f"CAST(NULL AS {type}) AS c{at}" for at, type in enumerate(types))
    for where in ("", " WHERE x > 9"):
        table = answer(engine, folder, f"SELECT {columns} FROM t{where}", ONE)
        _same(table.schema.types, [arrow_type(type) for type in types])
        _same(table.num_rows, 0 if where else 3)


def sums_integers_exactly(engine: Engine, folder: Path) -> None:
    """A sum of 64-bit integers does not wrap, and a sum of decimals does not round."""
    big = 2**63 - 1
    tables = {"t": TableSource(pa.table({"x": [big, big, big], "d": pa.array([Decimal("0.10")] * 3)}))}
    rows = answer(engine, folder, "SELECT sum(x) AS s, sum(d) AS d FROM t", tables).to_pylist()
    _same(rows, [{"s": Decimal(3 * big), "d": Decimal("0.30")}])


def keeps_nan_infinities_and_edges(engine: Engine, folder: Path) -> None:
    """NaN is one group, the infinities are two, and dates at the edges come back as they went in."""
    values = [math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, None]
    edges = [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]
    tables = {"t": TableSource(pa.table({"x": pa.array(values)})), "d": TableSource(pa.table({"day": edges}))}
    _same(answer(engine, folder, "SELECT x, count(*) FROM t GROUP BY x", tables).num_rows, 5)
    table = answer(engine, folder, "SELECT day, year(day) AS y FROM d ORDER BY day", tables)
    _same(table.to_pylist(), [{"day": edges[0], "y": 1}, {"day": edges[1], "y": 9999}])


def reads_clocks_in_utc(engine: Engine, folder: Path) -> None:
    """Whatever the machine's time zone, an hour is the same hour at every party."""
    at = datetime.datetime(2013, 7, 1, 23, 30, tzinfo=datetime.UTC)
    tables = {"t": TableSource(pa.table({"seen": pa.array([at], pa.timestamp("us", "UTC"))}))}
    sql = "SELECT hour(seen) AS h, CAST(seen AS DATE) AS day, date_trunc('day', seen) AS d FROM t"
    midnight = datetime.datetime(2013, 7, 1, tzinfo=datetime.UTC)
    _same(answer(engine, folder, sql, tables).to_pylist(), [{"h": 23, "day": at.date(), "d": midnight}])


def streams_and_spills_what_memory_does_not_hold(engine: Engine, folder: Path) -> None:
    """A file larger than the memory limit streams through; grouping it by as many keys as rows goes to disk."""
    rows = 3_000_000
    random = np.random.default_rng(1)
    table = pa.table({"k": random.permutation(rows), "a": random.random(rows), "b": random.random(rows)})
    parquet.write_table(table, folder / "big.parquet", row_group_size=1 << 16)
    tables = {"t": FileSource("parquet", (str(folder / "big.parquet"),))}
    limits = Limits(48 << 20, 2, folder / "temp")
    seen = 0
    with engine.run("SELECT * FROM t", tables, limits, threading.Event()) as answer:
        for batch in answer:
            _claim(batch.nbytes < limits.memory_bytes // 4, "a batch is small beside the memory limit")
            seen += batch.num_rows
    _same(seen, rows)
    sql = "SELECT count(*) AS n, sum(c) AS c FROM (SELECT k, count(*) AS c, sum(a), min(b) FROM t GROUP BY k)"
    with engine.run(sql, tables, limits, threading.Event()) as answer:
        _same(answer.table().to_pylist(), [{"n": rows, "c": Decimal(rows)}])


def says_out_of_memory(engine: Engine, folder: Path) -> None:
    """Rows that can neither stay in memory nor go to disk end as OutOfMemory, and the next run works."""
    sql = "SELECT string_agg(CAST(range AS VARCHAR) || repeat('x', 100), ',') AS s FROM range(3000000), t"
    _raises(OutOfMemory, lambda: answer(engine, folder, sql, ONE, memory_bytes=32 << 20))
    limits = Limits(32 << 20, 1, folder / "temp", temp_bytes=1 << 20)
    sql = "SELECT count(*) FROM (SELECT DISTINCT hash(range), hash(range + 1) FROM range(3000000))"
    _raises(OutOfMemory, partial(_drain, engine, sql, ONE, limits, threading.Event()))
    _same(answer(engine, folder, "SELECT count(*) AS n FROM t", ONE).to_pylist(), [{"n": 3}])


def stops_when_asked(engine: Engine, folder: Path) -> None:
    """A stop ends a run before it starts, while it computes, and between two batches."""
    limits = Limits(128 << 20, 2, folder / "temp")
    stop = threading.Event()
    stop.set()
    _raises(Cancelled, lambda: _drain(engine, "SELECT x FROM t", ONE, limits, stop))
    endless = "SELECT sum(sqrt(a.range * b.range)) AS s FROM range(100000000) a, range(100000) b"
    late = threading.Event()
    timer = threading.Timer(0.2, late.set)
    timer.start()
    _raises(Cancelled, lambda: _drain(engine, endless, ONE, limits, late))
    between = threading.Event()
    with engine.run("SELECT range AS r FROM range(100000000)", ONE, limits, between) as rows:
        next(iter(rows))
        between.set()
        _raises(Cancelled, lambda: list(rows))


def fails_without_quoting_data(engine: Engine, folder: Path) -> None:
    """An error says of what kind it was, and holds neither a value of the data nor a literal of the fragment."""
    for sql, kind in (
        ("SELECT CAST(s AS INTEGER) FROM t", "conversion failed"),
        ("SELECT CAST(s || range AS INTEGER) FROM t, range(300000)", "conversion failed"),
        ("SELECT error(s) FROM t", "a value that it does not take"),
        ("SELECT strptime(s, '%Y') FROM t", "a value that it does not take"),
        ("SELECT CAST(x AS TINYINT) * CAST(100 AS TINYINT) FROM t", "out of range"),
        ("SELECT hush_1 FROM t", "binder error"),
        ("SELECT hush_1(x) FROM t", "catalog error"),
        ("SELECT x + DATE '2020-01-01' + s FROM t", "binder error"),
    ):
        error = _raises(FragmentFailed, partial(answer, engine, folder, sql, ONE))
        _claim(kind in str(error), f"{sql} is a {kind}, not {error}")
        _claim("hush" not in str(error) and "\n" not in str(error), "the message quotes nothing and is one line")
        _claim(error.__cause__ is None and error.__suppress_context__, "the engine's own error is not passed on")


def runs_one_select_over_the_tables_named(engine: Engine, folder: Path) -> None:
    """Whatever is not one SELECT, or reads more than its tables, fails, and writes nothing."""
    (folder / "other.csv").write_text("x\n1\n")
    other, out = folder / "other.csv", folder / "out"
    for sql in (
        *(
            "SELECT 1; SELECT 2",
            "",
            "SELEC 1",
            "SET threads = 1",
            "PRAGMA database_list",
            "DESCRIBE t",
            "EXPLAIN SELECT 1",
        ),
        *("INSERT INTO t VALUES (1)", "CREATE TABLE u AS SELECT 1", f"ATTACH '{out}'", "INSTALL httpfs", "LOAD httpfs"),
        *(f"COPY t TO '{out}'", f"EXPORT DATABASE '{out}'", f"COPY (SELECT 1) TO '{out}'", "CALL duckdb_settings()"),
        *(f"SELECT * FROM '{other}'", f"SELECT * FROM read_csv('{other}')", f"SELECT * FROM read_text('{other}')"),
        *(f"SELECT (SELECT count(*) FROM glob('{folder}/*')) FROM t", "SELECT * FROM u", "SELECT * FROM main.t"),
        *("SELECT * FROM duckdb_settings()", "SELECT * FROM information_schema.tables", "SELECT * FROM pg_class"),
        *("SELECT * FROM query('SELECT 1')", "SELECT * FROM query_table('t')", "SELECT getenv('HOME')"),
        *("SELECT 1 IN (SELECT x FROM u)", "WITH c AS (SELECT * FROM u) SELECT * FROM c", "FROM ONE", "FROM (SHOW t)"),
    ):
        _raises(FragmentFailed, partial(answer, engine, folder, sql, ONE))
    _same(sorted(path.name for path in folder.iterdir() if path.name != "temp"), ["other.csv"])
    for deep in ("(" * 100_000, "NOT " * 5_000, "(SELECT * FROM " * 100_000, "1+" * 1_000_000):
        _raises(FragmentFailed, partial(answer, engine, folder, "SELECT " + deep, ONE))
    rows = answer(engine, folder, "WITH c AS (SELECT max(x) AS m FROM t) SELECT m FROM c", ONE)
    _same(rows.to_pylist(), [{"m": 3}])


def lets_the_reader_leave_and_fail(engine: Engine, folder: Path) -> None:
    """A reader may leave after one batch; its own error is its own; nothing stays behind on disk."""
    limits = Limits(64 << 20, 2, folder / "temp")
    for _ in range(3):
        with engine.run("SELECT range AS r FROM range(10000000)", ONE, limits, threading.Event()) as rows:
            next(iter(rows))

    def disk_full() -> None:
        with engine.run("SELECT x FROM t", ONE, limits, threading.Event()):
            raise OSError(28, "disk full")

    _raises(OSError, disk_full)


def runs_many_at_a_time(engine: Engine, folder: Path) -> None:
    """Runs from several threads do not see each other's tables."""

    def one(value: int) -> int:
        tables = {"t": TableSource(pa.table({"x": [value]}))}
        return int(answer(engine, folder, "SELECT sum(x + range) AS s FROM t, range(1000)", tables)["s"][0].as_py())

    with ThreadPoolExecutor(4) as pool:
        _same(list(pool.map(one, range(16))), [1000 * value + 499_500 for value in range(16)])


def counts_what_is_no_number(engine: Engine, folder: Path) -> None:
    """NaN is larger than every number, also where a Parquet file's statistics do not tell of it."""
    parquet.write_table(pa.table({"v": [float("nan"), 1.0, 3.0]}), folder / "a.parquet")
    tables: dict[str, Source] = {
        "t": FileSource("parquet", (str(folder / "a.parquet"),), columns=(("v", "DOUBLE"),)),
    }
    counted = "SELECT count(*) FILTER (v > 2) AS up, count(*) FILTER (v <= 2) AS down, max(v) AS most FROM t"
    found = answer(engine, folder, counted, tables).to_pylist()[0]
    _claim((found["up"], found["down"]) == (2, 1) and math.isnan(found["most"]), "NaN was left out of an aggregate")
    for where, rows in (("v > 5", 1), ("v < 1e300", 2), ("v BETWEEN 0 AND 10", 2), ("NOT (v <= 5)", 1)):
        counted = answer(engine, folder, f"SELECT v FROM t WHERE {where}", tables).num_rows
        _claim(counted == rows, f"{where} keeps {counted} rows, not {rows}")


def takes_extremes_of_values_alone(engine: Engine, folder: Path) -> None:
    """The extremes of reals are among the values that are there, whatever a file's statistics leave open."""
    table = pa.table({"v": [1.5, 50.0, None], "f": pa.array([2.5, -3.0, 0.5], pa.float32())})
    columns = (("v", "DOUBLE"), ("f", "FLOAT"))
    for statistics in (True, False):
        path = str(folder / f"statistics-{statistics}.parquet")
        parquet.write_table(table, path, write_statistics=statistics)
        tables: dict[str, Source] = {"t": FileSource("parquet", (path,), columns=columns)}
        for sql in (
            "SELECT max(v) AS a, max(f) AS b FROM t",
            "SELECT max(v) AS a, max(f) AS b, min(v) AS c, count(*) AS n FROM t",
            "SELECT max(a) AS a, max(b) AS b FROM (SELECT v AS a, f AS b FROM t) AS s HAVING max(a) < 100",
            "SELECT max(v) AS a, max(f) AS b FROM t WHERE v IS NOT NULL OR f IS NOT NULL",
            "SELECT v AS a, 2.5 AS b FROM t WHERE v = (SELECT max(v) FROM t)",
        ):
            found = answer(engine, folder, sql, tables).to_pylist()
            _claim([(row["a"], float(row["b"])) for row in found] == [(50.0, 2.5)], f"{sql} gave {found}")


CLAIMS: tuple[Claim, ...] = (
    joins_sources_of_every_kind,
    shows_no_column_but_those_judged,
    counts_what_is_no_number,
    takes_extremes_of_values_alone,
    gives_each_type_its_arrow_type,
    sums_integers_exactly,
    keeps_nan_infinities_and_edges,
    reads_clocks_in_utc,
    streams_and_spills_what_memory_does_not_hold,
    says_out_of_memory,
    stops_when_asked,
    fails_without_quoting_data,
    runs_one_select_over_the_tables_named,
    lets_the_reader_leave_and_fail,
    runs_many_at_a_time,
)


def _drain(engine: Engine, sql: str, tables: Mapping[str, Source], limits: Limits, stop: threading.Event) -> None:
    with engine.run(sql, tables, limits, stop) as rows:
        for _ in rows:
            pass


def _same(found: object, expected: object) -> None:
    _claim(found == expected, f"expected {expected!r}, found {found!r}")


def _claim(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _raises(kind: type[Exception], act: Callable[[], object]) -> Exception:
    try:
        act()
    except kind as error:
        if kind is not FragmentFailed or type(error) is FragmentFailed:
            return error
        raise
    raise AssertionError(f"expected {kind.__name__}, but nothing was raised")
