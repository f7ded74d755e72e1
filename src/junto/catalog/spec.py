# SPDX-License-Identifier: Apache-2.0
"""The file an owner writes to publish datasets: parsed strictly, each mistake told in one line.

    [dataset.flights]
    source = "flights.parquet"    # CSV, Parquet, a folder or glob of either, or a DuckDB file with table = "…"
    unit   = "flight_id"          # what thresholds count; without it each row is a unit

    [[dataset.flights.rule]]
    columns = ["origin", "month"]
    allow   = "group"

Nothing is read here but the text. `check.py` finds out if the columns exist, once the source has been opened.
"""

import datetime
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Literal, NoReturn, TypeVar, get_args

from junto.catalog.names import meant
from junto.errors import InvalidInput
from junto.trust.allow import DEFAULT_DOMINANCE, DEFAULT_UNITS, KINDS, check_name
from junto.trust.rules import DomainValue, Owners, Rule
from junto.types import DatasetName, PartyId

T = TypeVar("T")

_SPEC_BYTES = 1 << 20
_DOMAIN_BOUND = 10**18

SourceKind = Literal["csv", "parquet", "folder", "duckdb"]

_SUFFIXES: dict[str, SourceKind] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".csv.zst": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".duckdb": "duckdb",
    ".ddb": "duckdb",
    ".db": "duckdb",
}


@dataclass(frozen=True, slots=True)
class Source:
    """The place of the rows. `path` may be a glob of CSV or Parquet files; a folder holds one kind of them."""

    kind: SourceKind
    path: str  # relative paths of the file have become paths beside it
    table: str | None = None  # of a DuckDB file, perhaps with its schema: `main.flights`


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One dataset as its owner describes it."""

    file: str  # for messages
    name: DatasetName
    source: Source
    unit: str | None
    rules: tuple[Rule, ...]


def parse(text: str | bytes, file: PurePath) -> tuple[DatasetSpec, ...]:
    """The datasets that a file's text describes, in its order. Raises InvalidInput with one line."""
    if len(text) > _SPEC_BYTES:
        raise InvalidInput(f"{file.name} has more than {_SPEC_BYTES} bytes: a description is a short TOML file")
    try:
        document = tomllib.loads(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError:
        raise InvalidInput(f"{file.name} is not UTF-8 text: a description is a TOML file") from None
    except RecursionError:
        raise InvalidInput(f"{file.name} nests too deeply: a description has tables, and lists of texts") from None
    except ValueError as error:  # TOMLDecodeError, and a number of thousands of digits
        raise InvalidInput(f"{file.name} is not TOML: {error}") from None
    whole = _Table(document, file.name, ("dataset",))
    datasets = whole.tables("dataset")
    if not datasets:
        whole.fault("describes no dataset: begin with [dataset.NAME] and its source")
    folded: dict[str, str] = {}
    for name in datasets:
        whole.attempt(partial(check_name, name, "dataset"))
        if folded.setdefault(name.casefold(), name) != name:
            whole.fault(f"names both {folded[name.casefold()]!r} and {name!r}: SQL cannot tell them apart, rename one")
    return tuple(_dataset(name, value, file) for name, value in datasets.items())


def _dataset(name: str, value: object, file: PurePath) -> DatasetSpec:
    place = f"{file.name}: [dataset.{name}]"
    table = _Table(value, place, ("source", "table", "unit", "rule"))
    unit = table.text("unit")
    rules: list[Rule] = []
    for number, item in enumerate(table.list("rule"), start=1):
        rules.append(_rule(item, number, place))
        if rules[-1].name in [rule.name for rule in rules[:-1]]:
            table.fault(f"two rules have the name {rules[-1].name!r}: rename one")
    return DatasetSpec(file.name, DatasetName(name), _source(table, file.parent), unit, tuple(rules))


def _source(table: "_Table", folder: PurePath) -> Source:
    written = table.text("source")
    if written is None:
        table.fault('source is missing: add source = "FILE", a path beside this file')
    if not written.isprintable() or written.startswith("~"):
        table.fault("source is no plain path: write it in full or beside this file, in printable characters, without ~")
    if "://" in written:
        table.fault("source is a URL: Junto reads files (CSV, Parquet, DuckDB), so name a path")
    within = table.text("table")
    path = str(folder / written)
    name = PurePath(written).name.lower()
    matching = [suffix for suffix in _SUFFIXES if name.endswith(suffix)]
    if not matching and "." in name.strip(".") and not written.endswith("/"):
        table.fault(f"source ends in {PurePath(name).suffix!r}: Junto reads {', '.join(_SUFFIXES)} and folders of them")
    kind: SourceKind = _SUFFIXES[max(matching, key=len)] if matching else "folder"
    if kind == "duckdb" and within is None:
        table.fault('source is a DuckDB file: add table = "NAME", the table or view in it')
    if kind != "duckdb" and within is not None:
        table.fault("table goes with a DuckDB file: take it away, or name a .duckdb file as the source")
    if kind == "folder" and any(sign in written for sign in "*?["):
        table.fault("source is a glob without an ending: write what it matches, for instance *.parquet")
    return Source(kind, path, within)


def _rule(value: object, number: int, place: str) -> Rule:
    keys = ("columns", "allow", "to", "purpose", "units", "parties", "owners", "dominance", "domain", "name")
    table = _Table(value, f"{place} rule {number}", keys)
    columns, allow = table.texts("columns"), table.text("allow")
    if columns is None:
        table.fault('columns is missing: add columns = ["…"], or ["*"] for all')
    if allow is None:
        table.fault(f"allow is missing: add one of {', '.join(KINDS)}")
    kind = next((kind for kind in KINDS if kind == allow), None)
    if kind is None:
        table.fault(f"allow = {allow[:40]!r} is none of {', '.join(KINDS)}: {meant(allow, KINDS)}")
    owners = table.text("owners") or "all"
    whose = next((one for one in get_args(Owners) if one == owners), None)
    if whose is None:
        table.fault(f'owners = {owners[:40]!r} is neither "all" nor "any"')
    name = table.text("name") or f"rule {number}"
    return table.attempt(
        lambda: Rule(
            columns=columns,
            allow=kind,
            to=tuple(PartyId(party) for party in table.texts("to") or ()),
            purpose=table.texts("purpose") or (),
            units=table.integer("units", DEFAULT_UNITS),
            parties=table.integer("parties", 1),
            owners=whose,
            dominance=table.number("dominance", DEFAULT_DOMINANCE),
            domain=table.domain("domain"),
            name=name,
        )
    )


class _Table:
    """A TOML table whose keys are all known and whose values are read once with their type."""

    def __init__(self, value: object, place: str, keys: Iterable[str]) -> None:
        self.place = place
        if not isinstance(value, Mapping):
            self.fault(f"is {_kind(value)}: write a table with the keys {', '.join(keys)}")
        self._values: Mapping[str, object] = value
        for key in value:
            if key not in keys:
                self.fault(f"unknown key {key[:60]!r}: {meant(key, keys)}")

    def fault(self, what: str) -> NoReturn:
        """Raises InvalidInput that says where."""
        raise InvalidInput(f"{self.place}: {what}")

    def attempt(self, make: Callable[[], T]) -> T:
        """The result of `make`; its InvalidInput then says where."""
        try:
            return make()
        except InvalidInput as error:
            if str(error).startswith(self.place):
                raise
            self.fault(str(error))

    def text(self, key: str) -> str | None:
        """A text that is not empty, or None where there is none."""
        value = self._values.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            self.fault(f'{key} is {_kind(value)}: write {key} = "…"')
        return value

    def integer(self, key: str, default: int) -> int:
        """A whole number."""
        value = self._values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fault(f"{key} is {_kind(value)}: write a whole number, for instance {key} = {default}")
        return value

    def number(self, key: str, default: float) -> float:
        """A number."""
        value = self._values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.fault(f"{key} is {_kind(value)}: write a number, for instance {key} = {default}")
        return float(value)

    def list(self, key: str) -> tuple[object, ...]:
        """The items of an array; none if the key is not there."""
        value = self._values.get(key, [])
        if not isinstance(value, list):
            self.fault(f"{key} is {_kind(value)}: write [[…{key}]] with double brackets")
        return tuple(value)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """An array of texts, or None where there is none."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fault(f'{key} is {_kind(value)}: write a list of texts, {key} = ["…", "…"]')
        if not value:
            self.fault(f"{key} is an empty list: name at least one, or leave the key out")
        return tuple(str(item) for item in value)

    def domain(self, key: str) -> tuple[DomainValue, ...] | None:
        """An array of plain values, dates as their text; or None where there is none."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.fault(f"{key} is {_kind(value)}: list the values, {key} = [1, 2, 3]")
        plain: list[DomainValue] = []
        for item in value:
            if isinstance(item, datetime.date | datetime.time):
                plain.append(item.isoformat())
            elif isinstance(item, str) or (isinstance(item, int | float) and abs(item) < _DOMAIN_BOUND):
                plain.append(item)
            else:
                self.fault(f"{key} holds {_kind(item)}: list texts, booleans, dates or numbers of at most 18 digits")
        return tuple(plain)

    def tables(self, key: str) -> Mapping[str, object]:
        """The tables below a key, by name; none if the key is not there."""
        value = self._values.get(key, {})
        if not isinstance(value, Mapping):
            self.fault(f"{key} is {_kind(value)}: write [{key}.NAME] with its keys below")
        return value


def _kind(value: object) -> str:
    """The kind of a TOML value, without showing the value."""
    match value:
        case bool():
            return "a boolean"
        case str():
            return "a text" if value.strip() else "an empty text"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"
