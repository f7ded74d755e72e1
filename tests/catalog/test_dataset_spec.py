# SPDX-License-Identifier: Apache-2.0
"""The dataset file: what a good one means, and the one line each bad one gets."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.catalog.check import check_grant, check_spec
from junto.catalog.dataset import Column, Dataset, version_of
from junto.catalog.spec import DatasetSpec, Source, parse
from junto.errors import InvalidInput
from junto.trust.grants import GrantRequest
from junto.trust.rules import Rule
from junto.types import DatasetName, Digest, PartyId

FILE = PurePosixPath("/srv/data/flights.toml")

GOOD = """
[dataset.flights]
source = "flights.parquet"        # file, folder, glob
unit   = "flight_id"              # the privacy unit thresholds count

[[dataset.flights.rule]]
columns = ["origin", "month"]
allow   = "group"
[[dataset.flights.rule]]
name    = "delays"
columns = ["dep_delay"]
allow   = "aggregate"
units   = 20
parties = 2
[[dataset.flights.rule]]
columns = ["tailnum"]
allow   = "match"
to      = ["faa"]
purpose = ["fleet-safety"]
"""


def one(text: str) -> DatasetSpec:
    (spec,) = parse(text, FILE)
    return spec


def dataset(body: str) -> str:
    return f"[dataset.d]\n{body}"


def rule(body: str) -> str:
    return f'[dataset.d]\nsource = "d.csv"\n[[dataset.d.rule]]\n{body}'


def test_a_file_is_read_as_the_design_shows_it() -> None:
    assert one(GOOD) == DatasetSpec(
        file="flights.toml",
        name=DatasetName("flights"),
        source=Source("parquet", "/srv/data/flights.parquet"),
        unit="flight_id",
        rules=(
            Rule(("origin", "month"), "group", name="rule 1"),
            Rule(("dep_delay",), "aggregate", units=20, parties=2, name="delays"),
            Rule(("tailnum",), "match", to=(PartyId("faa"),), purpose=("fleet-safety",), name="rule 3"),
        ),
    )


def test_a_file_may_describe_several_datasets() -> None:
    text = '[dataset.a]\nsource = "a.csv"\n[dataset."b c"]\nsource = "b.csv"\n'
    assert [spec.name for spec in parse(text, FILE)] == ["a", "b c"]


def test_a_dataset_without_rules_or_unit_may_be_described() -> None:
    spec = one(dataset('source = "d.csv"'))
    assert (spec.unit, spec.rules) == (None, ())


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ('source = "d.csv"', Source("csv", "/srv/data/d.csv")),
        ('source = "D.CSV.GZ"', Source("csv", "/srv/data/D.CSV.GZ")),
        ('source = "d.v2.tsv"', Source("csv", "/srv/data/d.v2.tsv")),
        ('source = "/abs/d.parquet"', Source("parquet", "/abs/d.parquet")),
        ('source = "../up/*.parquet"', Source("parquet", "/srv/data/../up/*.parquet")),
        ('source = "year=*/part-[0-9].pq"', Source("parquet", "/srv/data/year=*/part-[0-9].pq")),
        ('source = "folder"', Source("folder", "/srv/data/folder")),
        ('source = "folder.d/"', Source("folder", "/srv/data/folder.d")),
        ('source = "d.duckdb"\ntable = "main.flights"', Source("duckdb", "/srv/data/d.duckdb", "main.flights")),
    ],
)
def test_a_source_is_a_file_a_glob_a_folder_or_a_table_of_a_duckdb_file(written: str, source: Source) -> None:
    assert one(dataset(written)).source == source


def test_a_domain_holds_plain_values_and_dates_as_text() -> None:
    spec = one(rule('columns = ["a"]\nallow = "group"\ndomain = [1, 2.5, true, "x", 2013-01-01]'))
    assert spec.rules[0].domain == (1, 2.5, True, "x", "2013-01-01")


FLIGHTS = "flights.toml: [dataset.d]"
RULE = "flights.toml: [dataset.d] rule 1"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "flights.toml: describes no dataset: begin with [dataset.NAME] and its source"),
        ("[datasets.d]", "flights.toml: unknown key 'datasets': did you mean 'dataset'?"),
        ("dataset = 3", "flights.toml: dataset is a whole number: write [dataset.NAME] with its keys below"),
        ("[dataset]\nd = 3", f"{FLIGHTS}: is a whole number: write a table with the keys source, table, unit, rule"),
        (
            '[dataset."a\\nb"]',
            "flights.toml: a dataset name must be 1 to 255 printable characters, not 'a\\nb': rename it",
        ),
        ("[dataset.d]", f'{FLIGHTS}: source is missing: add source = "FILE", a path beside this file'),
        (dataset("source = 3"), f'{FLIGHTS}: source is a whole number: write source = "…"'),
        (dataset('source = " "'), f'{FLIGHTS}: source is an empty text: write source = "…"'),
        (dataset('sorce = "d.csv"'), f"{FLIGHTS}: unknown key 'sorce': did you mean 'source'?"),
        (
            dataset('source = "s3://bucket/d.csv"'),
            f"{FLIGHTS}: source is a URL: Junto reads files (CSV, Parquet, DuckDB), so name a path",
        ),
        (
            dataset('source = "d.xlsx"'),
            f"{FLIGHTS}: source ends in '.xlsx': Junto reads .csv, .csv.gz, .csv.zst, .tsv, .tsv.gz, .parquet, .pq,"
            " .duckdb, .ddb, .db and folders of them",
        ),
        (
            dataset('source = "d.duckdb"'),
            f'{FLIGHTS}: source is a DuckDB file: add table = "NAME", the table or view in it',
        ),
        (
            dataset('source = "d.csv"\ntable = "t"'),
            f"{FLIGHTS}: table goes with a DuckDB file: take it away, or name a .duckdb file as the source",
        ),
        (
            dataset('source = "part-*"'),
            f"{FLIGHTS}: source is a glob without an ending: write what it matches, for instance *.parquet",
        ),
        (dataset('source = "d.csv"\nunit = ["a"]'), f'{FLIGHTS}: unit is a list: write unit = "…"'),
        (
            dataset('source = "d.csv"\nrule = "x"'),
            f"{FLIGHTS}: rule is a text: write [[…rule]] with double brackets",
        ),
        (
            dataset('source = "d.csv"\n[dataset.d.rule]\nallow = "open"'),
            f"{FLIGHTS}: rule is a table: write [[…rule]] with double brackets",
        ),
        (
            dataset('source = "d.csv"\nrule = [3]'),
            f"{RULE}: is a whole number: write a table with the keys columns, allow, to, purpose, units, parties,"
            " owners, dominance, domain, name",
        ),
        (rule('allow = "group"'), f'{RULE}: columns is missing: add columns = ["…"], or ["*"] for all'),
        (
            rule('columns = ["a"]'),
            f"{RULE}: allow is missing: add one of group, filter, aggregate, extremes, match, rows, open",
        ),
        (
            rule('columns = ["a"]\nallow = "agregate"'),
            f"{RULE}: allow = 'agregate' is none of group, filter, aggregate, extremes, match, rows, open:"
            " did you mean 'aggregate'?",
        ),
        (
            rule('columns = "a"\nallow = "open"'),
            f'{RULE}: columns is a text: write a list of texts, columns = ["…", "…"]',
        ),
        (
            rule('columns = ["a"]\nallow = "match"\nto = []'),
            f"{RULE}: to is an empty list: name at least one, or leave the key out",
        ),
        (
            rule('columns = ["a"]\nallow = "rows"'),
            f'{RULE}: allow = "rows" needs its recipients: add to = [...], or allow = "open" for all',
        ),
        (
            rule('columns = ["a"]\nallow = "match"\nto = ["FAA"]'),
            f"{RULE}: party name 'FAA': use lower-case letters and digits, with single hyphens between them",
        ),
        (
            rule('columns = ["a"]\nallow = "group"\nunits = 3'),
            f"{RULE}: units = 3: a threshold is from 5 to 10000 units",
        ),
        (
            rule('columns = ["a"]\nallow = "group"\nunits = true'),
            f"{RULE}: units is a boolean: write a whole number, for instance units = 10",
        ),
        (
            rule('columns = ["a"]\nallow = "aggregate"\ndominance = "0.8"'),
            f"{RULE}: dominance is a text: write a number, for instance dominance = 0.8",
        ),
        (
            rule('columns = ["a"]\nallow = "group"\nparties = 0'),
            f"{RULE}: parties = 0: contributors to a group are from 1 to 1000",
        ),
        (
            rule('columns = ["a"]\nallow = "group"\ndomain = [nan]'),
            f"{RULE}: domain holds a number: list texts, booleans, dates or numbers of at most 18 digits",
        ),
        (
            rule('columns = ["a"]\nallow = "group"\ndomain = [1000000000000000000]'),
            f"{RULE}: domain holds a whole number: list texts, booleans, dates or numbers of at most 18 digits",
        ),
        (
            dataset('source = "~/d.csv"'),
            f"{FLIGHTS}: source is no plain path: write it in full or beside this file, in printable characters,"
            " without ~",
        ),
        (
            dataset('source = "a\\u0000.csv"'),
            f"{FLIGHTS}: source is no plain path: write it in full or beside this file, in printable characters,"
            " without ~",
        ),
        (
            rule('columns = ["a"]\nallow = "group"\npurposes = ["x"]'),
            f"{RULE}: unknown key 'purposes': did you mean 'purpose'?",
        ),
        (
            rule(
                'columns = ["a"]\nallow = "group"\nname = "x"\n[[dataset.d.rule]]\n'
                'columns = ["a"]\nallow = "match"\nname = "x"'
            ),
            f"{FLIGHTS}: two rules have the name 'x': rename one",
        ),
        (
            '[dataset.a]\nsource = "a.csv"\n[dataset.A]\nsource = "a.csv"',
            "flights.toml: names both 'a' and 'A': SQL cannot tell them apart, rename one",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(text: str, line: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text, FILE)
    assert str(caught.value) == line


def test_what_is_not_toml_is_told_with_its_line() -> None:
    with pytest.raises(InvalidInput, match=r"flights\.toml is not TOML: .*line 2"):
        parse("[dataset.d]\nsource = flights", FILE)
    with pytest.raises(InvalidInput, match="is not TOML"):
        parse("a = " + "1" * 5000, FILE)
    with pytest.raises(InvalidInput, match="nests too deeply"):
        parse("a = " + "[" * 50_000, FILE)
    with pytest.raises(InvalidInput, match="is not UTF-8 text"):
        parse(b"\xff\xfe", FILE)
    with pytest.raises(InvalidInput, match="more than 1048576 bytes"):
        parse(b"#" * (1 << 20) + b"\n", FILE)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 4), st.text(max_size=4))
def test_a_mutated_file_is_read_or_refused_in_one_line(at: int, cut: int, put: str) -> None:
    line = ""
    try:
        parse(GOOD[:at] + put + GOOD[at + cut :], FILE)
    except InvalidInput as error:
        line = str(error)
    assert "\n" not in line


# ── once the columns and the parties are known ──────────────────────────────────────────────────────

COLUMNS = tuple(Column(name, "VARCHAR") for name in ("flight_id", "origin", "month", "dep_delay", "tailnum"))
PARTIES = (PartyId("united"), PartyId("faa"))


def test_a_description_that_fits_its_source_passes() -> None:
    check_spec(one(GOOD), COLUMNS, PARTIES)
    check_spec(one(rule('columns = ["*"]\nallow = "open"')), COLUMNS, PARTIES)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            GOOD.replace('"dep_delay"', '"depdelay"'),
            "flights.toml: [dataset.flights] rule 2: unknown column 'depdelay': did you mean 'dep_delay'?",
        ),
        (
            GOOD.replace('"flight_id"', '"Flight_ID"'),
            "flights.toml: [dataset.flights]: unit = 'Flight_ID' is no column of the source: did you mean 'flight_id'?",
        ),
        (
            GOOD.replace('"faa"', '"fa"'),
            "flights.toml: [dataset.flights] rule 3: no party 'fa' in the charter: did you mean 'faa'?",
        ),
        (
            GOOD.replace('"tailnum"', '"zzz"'),
            "flights.toml: [dataset.flights] rule 3: unknown column 'zzz': there are dep_delay, flight_id, month,"
            " origin, tailnum",
        ),
    ],
)
def test_an_unknown_column_or_party_gets_the_nearest(text: str, line: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_spec(one(text), COLUMNS, PARTIES)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("name", "column", "to", "line"),
    [
        ("flight", "origin", "faa", "no dataset 'flight' is published here: did you mean 'flights'?"),
        ("flights", "orgin", "faa", "grant on flights: unknown column 'orgin': did you mean 'origin'?"),
        ("flights", "origin", "fda", "grant on flights: no party 'fda' in the charter: did you mean 'faa'?"),
    ],
)
def test_a_grant_on_what_does_not_exist_gets_the_nearest(name: str, column: str, to: str, line: str) -> None:
    content = Digest("sha256:" + "0" * 64)
    version = version_of(COLUMNS, None, content, ())
    held = Dataset(PartyId("united"), DatasetName("flights"), version, content, COLUMNS, 1, 1, None, True, (), (), 0.0)
    request = GrantRequest((PartyId(to),), DatasetName(name), (column,), "rows", until=1.0)
    with pytest.raises(InvalidInput) as caught:
        check_grant(request, [held], PARTIES)
    assert str(caught.value) == line
    check_grant(GrantRequest((PartyId("faa"),), DatasetName("flights"), ("*",), "rows", until=1.0), [held], PARTIES)
