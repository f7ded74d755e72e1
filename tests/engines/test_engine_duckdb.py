# SPDX-License-Identifier: Apache-2.0
"""DuckDB passes what every engine must, keeps databases between runs, and holds no owner's file."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from junto.engines import scan
from junto.engines.base import ArrowSource, FileSource, Limits, TableSource, narrowed
from junto.engines.duckdb import DuckDB
from junto.engines.files import remove_leftovers
from junto.errors import Cancelled, FragmentFailed, InvalidInput
from junto.testing.engines import CLAIMS, Claim, answer


@pytest.fixture
def engine() -> Iterator[DuckDB]:
    engine = DuckDB()
    yield engine
    engine.close()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_duckdb_conforms(engine: DuckDB, tmp_path: Path, claim: Claim) -> None:
    claim(engine, tmp_path)
    engine.close()
    assert not list(tmp_path.glob("temp/*"))


def test_two_runs_over_the_same_files_open_one_database(
    engine: DuckDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[duckdb.DuckDBPyConnection] = []
    connect = duckdb.connect

    def counted(path: str, config: dict[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
        opened.append(connect(path, config=config))
        return opened[-1]

    monkeypatch.setattr(duckdb, "connect", counted)
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    a, b = (FileSource("parquet", (str(tmp_path / f"{name}.parquet"),)) for name in "ab")
    for source in (a, a, a):
        answer(engine, tmp_path, "SELECT x FROM t", {"t": source})
    assert len(opened) == 1
    answer(engine, tmp_path, "SELECT x FROM u", {"u": b})
    assert len(opened) == 2
    with pytest.raises(FragmentFailed):
        answer(engine, tmp_path, "SELECT error('') FROM t", {"t": a})
    answer(engine, tmp_path, "SELECT x FROM t", {"t": a})
    assert len(opened) == 3


def test_a_run_outlives_the_database_it_began_on(tmp_path: Path) -> None:
    engine = DuckDB(idle=1)
    sources = []
    for name in "abc":
        parquet.write_table(pa.table({"x": range(200_000)}), tmp_path / f"{name}.parquet")
        sources.append(FileSource("parquet", (str(tmp_path / f"{name}.parquet"),)))
    limits = Limits(128 << 20, 1, tmp_path / "temp")
    with engine.run("SELECT x FROM t", {"t": sources[0]}, limits, threading.Event()) as rows:
        first = next(iter(rows))
        for source in sources[1:]:
            answer(engine, tmp_path, "SELECT x FROM t", {"t": source})
        assert first.num_rows + rows.table().num_rows == 200_000
    engine.close()


def test_an_engine_closes_while_a_fragment_is_computed(engine: DuckDB, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": list(range(40_000))}), tmp_path / "t.parquet")
    source = FileSource("parquet", (str(tmp_path / "t.parquet"),))
    limits = Limits(100_000_000, 1, tmp_path / "temp", 10**9)
    stop, begun, ended = threading.Event(), threading.Event(), list[str]()

    def computed() -> None:
        try:
            with engine.run("SELECT SUM(a.x * b.x) AS s FROM t a, t b", {"t": source}, limits, stop) as rows:
                begun.set()
                list(rows)
        except Cancelled as error:
            ended.append(error.code)

    run = threading.Thread(target=computed)
    run.start()
    try:
        begun.wait(0.3)  # the reader may come only with the first row, and then the work is under way all the same
        engine.close()
    finally:
        stop.set()
        run.join(20)
    assert ended == ["cancelled"]


def test_one_thread_watches_over_all_runs_and_stops_the_one_that_is_asked_to_stop(
    engine: DuckDB, tmp_path: Path
) -> None:
    limits = Limits(100_000_000, 1, tmp_path / "temp", 10**9)
    endless = "SELECT SUM(a.range * b.range) AS s FROM range(1000000) a, range(1000000) b"
    stop, begun, ended = threading.Event(), threading.Event(), list[str]()

    def computed() -> None:
        try:
            with engine.run(endless, {}, limits, stop) as rows:
                begun.set()
                list(rows)
        except Cancelled as error:
            ended.append(error.code)

    run = threading.Thread(target=computed)
    earlier = set(threading.enumerate())
    with engine.run("SELECT range AS x FROM range(10)", {}, limits, threading.Event()) as rows:
        run.start()
        try:
            begun.wait(0.3)  # as above
            watchers = [one for one in threading.enumerate() if one.name == "duckdb-stop" and one not in earlier]
        finally:
            stop.set()
            run.join(20)
        assert rows.table().num_rows == 10
    assert (len(watchers), ended) == (1, ["cancelled"])


def test_a_text_that_passed_is_checked_again_over_other_tables(engine: DuckDB, tmp_path: Path) -> None:
    table = TableSource(pa.table({"x": [1]}))
    for _ in range(2):
        assert answer(engine, tmp_path, "SELECT x FROM t", {"t": table}).num_rows == 1
        with pytest.raises(FragmentFailed, match="a table that it does not name"):
            answer(engine, tmp_path, "SELECT x FROM t", {"u": table})


def test_an_idle_engine_does_not_keep_the_owner_from_writing_a_duckdb_file(engine: DuckDB, tmp_path: Path) -> None:
    path = str(tmp_path / "a.duckdb")
    with duckdb.connect(path) as database:
        database.execute("CREATE TABLE t AS SELECT 1 AS x; CREATE TABLE secret AS SELECT 2 AS x")
    source = FileSource("duckdb", (path,), "t")
    assert answer(engine, tmp_path, "SELECT x FROM t", {"t": source}).to_pylist() == [{"x": 1}]
    with pytest.raises(FragmentFailed, match="a table that it does not name"):
        answer(engine, tmp_path, "SELECT x FROM secret", {"t": source})
    with duckdb.connect(path) as database:
        database.execute("INSERT INTO t VALUES (2)")
    assert answer(engine, tmp_path, "SELECT x FROM t", {"t": source}).num_rows == 2


def test_a_fragment_sees_no_column_but_the_published_ones(engine: DuckDB, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1], "later": [2]}), tmp_path / "a.parquet")
    source = FileSource("parquet", (str(tmp_path / "a.parquet"),), columns=(("x", "BIGINT"),))
    for column in ("later", "filename", "file_row_number", "file_index"):
        with pytest.raises(FragmentFailed, match="binder error"):
            answer(engine, tmp_path, f"SELECT {column} FROM t", {"t": source})
    assert answer(engine, tmp_path, "SELECT * FROM t", {"t": source}).column_names == ["x"]


def test_a_table_of_a_duckdb_file_shows_the_columns_judged_and_no_other(engine: DuckDB, tmp_path: Path) -> None:
    path = str(tmp_path / "a.duckdb")
    with duckdb.connect(path) as database:
        database.execute("CREATE TABLE t AS SELECT 1 AS id, 'hush' AS phone")
    source = narrowed(FileSource("duckdb", (path,), "t", columns=(("id", "INTEGER"), ("phone", "VARCHAR"))), ["id"])
    assert answer(engine, tmp_path, "SELECT * FROM t", {"t": source}).to_pylist() == [{"id": 1}]
    for column in ("phone", "t.phone", "rowid"):
        with pytest.raises(FragmentFailed, match="binder error"):
            answer(engine, tmp_path, f"SELECT {column} FROM t", {"t": source})


def test_a_column_that_a_source_has_not_cannot_be_shown(engine: DuckDB, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    file = FileSource("parquet", (str(tmp_path / "a.parquet"),), columns=(("x", "BIGINT"),))
    for source in (file, TableSource(pa.table({"x": [1]}))):
        with pytest.raises(InvalidInput, match="column 'X', which its table has not"):
            answer(engine, tmp_path, "SELECT * FROM t", {"t": narrowed(source, ["X"])})


def test_no_python_object_is_a_table(engine: DuckDB, tmp_path: Path) -> None:
    hidden = pa.table({"x": [1]})
    with pytest.raises(FragmentFailed):
        answer(engine, tmp_path, "SELECT * FROM hidden", {})
    with pytest.raises(FragmentFailed):
        answer(engine, tmp_path, "WITH hidden AS (SELECT * FROM hidden) SELECT * FROM hidden", {})
    assert hidden.num_rows == 1


def test_a_source_that_is_gone_fails_the_fragment_without_its_path(engine: DuckDB, tmp_path: Path) -> None:
    for source in (
        FileSource("parquet", (str(tmp_path / "gone.parquet"),)),
        FileSource("duckdb", (str(tmp_path / "gone.duckdb"),), "t"),
        ArrowSource(str(tmp_path / "gone.arrow")),
    ):
        with pytest.raises(FragmentFailed) as failed:
            answer(engine, tmp_path, "SELECT * FROM t", {"t": source})
        assert "gone" not in str(failed.value)


def test_a_hostile_type_in_a_source_is_refused(engine: DuckDB, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    source = FileSource("parquet", (str(tmp_path / "a.parquet"),), columns=(("x", "BIGINT), (SELECT 1"),))
    with pytest.raises(InvalidInput, match="a type Junto does not read"):
        answer(engine, tmp_path, "SELECT * FROM t", {"t": source})


def test_what_a_killed_process_spilled_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "duckdb-1").mkdir()
    (tmp_path / "duckdb-1" / "duckdb_temp_storage_DEFAULT-0.tmp").write_bytes(b"rows")
    (tmp_path / "output.out").write_bytes(b"kept")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["output.out"]


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8), min_size=2, max_size=2)
)
@settings(derandomize=True, max_examples=50, deadline=None)
def test_any_name_of_table_and_column_stays_a_name(names: list[str]) -> None:
    table, column = names
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        parquet.write_table(pa.table({column: [1, 2]}), path)
        source = FileSource("parquet", (str(path),), columns=((column, "BIGINT"),))
        engine = DuckDB()
        sql = f"SELECT sum({scan.name(column)}) AS s FROM {scan.name(table)}"
        assert answer(engine, Path(folder), sql, {table: source}).to_pylist() == [{"s": 3}]
        engine.close()
