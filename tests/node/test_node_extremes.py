# SPDX-License-Identifier: Apache-2.0
"""The extremes of the parties' values are DuckDB's, for every type that travels."""

from itertools import product
from typing import Literal

import duckdb
import pyarrow as pa
import pytest

from junto.engines import keys
from junto.node.extremes import extreme

VALUES = {
    "BOOLEAN": ("true", "false"),
    "TINYINT": ("-128", "127", "0"),
    "UBIGINT": ("18446744073709551615", "0"),
    "HUGEINT": ("-5", "99999999999999999999999999999"),
    "FLOAT": ("'nan'", "1.5", "'-inf'", "'inf'", "-2.0"),
    "DOUBLE": ("'nan'", "1.5", "'-inf'", "'inf'", "-2.0", "1e308"),
    "DECIMAL(4,1)": ("1.5", "-3"),
    "DECIMAL(38,10)": ("1.5", "-3"),
    "VARCHAR": ("''", "'a'", "'Z'", "'é'", "'ab'"),
    "BLOB": ("'\\x00'", "'\\xff'", "''"),
    "UUID": ("'00000000-0000-0000-0000-000000000001'", "'80000000-0000-0000-0000-000000000000'"),
    "DATE": ("'0001-01-01'", "'9999-12-31'"),
    "TIME": ("'00:00:00'", "'23:59:59.999999'"),
    "TIMESTAMP": ("'1970-01-01'", "'2020-01-01 00:00:00.000001'"),
    "TIMESTAMP_S": ("'1970-01-01'", "'2020-01-01'"),
    "TIMESTAMP_MS": ("'1970-01-01'", "'2020-01-01'"),
    "TIMESTAMP_NS": ("'1970-01-01'", "'2020-01-01'"),
    "TIMESTAMP WITH TIME ZONE": ("'1970-01-01 00:00:00+00'", "'2020-01-01 00:00:00+02'"),
}


@pytest.mark.parametrize("combine", ["min", "max"])
@pytest.mark.parametrize("type", VALUES)
def test_the_extreme_of_three_parties_is_duckdbs(type: str, combine: Literal["min", "max"]) -> None:
    rows = product(("NULL", *VALUES[type]), repeat=3)
    made = ", ".join(f"({', '.join(f'CAST({value} AS {type})' for value in row)})" for row in rows)
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sql = f"SELECT a, b, c, list_{combine}([a, b, c]) AS expected FROM (VALUES {made}) AS v(a, b, c)"
        table = connection.sql(sql).to_arrow_table().combine_chunks()
    columns = [table.column(name).combine_chunks() for name in "abc"]
    assert columns[0].type == keys.arrow_type(type)
    found = extreme(combine, columns)
    assert found.type == columns[0].type
    assert str(found.to_pylist()) == str(table.column("expected").combine_chunks().to_pylist())


def test_columns_of_two_types_do_not_compare() -> None:
    with pytest.raises(pa.ArrowException):
        extreme("max", [pa.array([1]), pa.array(["a"])])
