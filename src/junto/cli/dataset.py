# SPDX-License-Identifier: Apache-2.0
"""`junto dataset`: publish this party's data under rules, and see what all parties have published."""

import glob
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from junto.catalog.dataset import Dataset
from junto.catalog.names import meant
from junto.catalog.spec import DatasetSpec, parse
from junto.catalog.view import compare
from junto.cli.grid import print_grid
from junto.cli.options import AsJson, Home, Profile, User
from junto.client import connect
from junto.errors import InvalidInput
from junto.link import methods
from junto.trust.allow import DEFAULT_DOMINANCE, IN_WORDS
from junto.trust.rules import Rule
from junto.types import DatasetName

app = typer.Typer(help="Publish data under rules, and see what there is.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE.toml", help="Describes datasets: source, unit, rules.")]
Name = Annotated[str, typer.Argument(help="The dataset's name, from `junto dataset ls`.")]
Party = Annotated[str | None, typer.Option(help="Only this party's.")]


@app.command("publish")
def publish(file: File, home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """Sign and announce the datasets a file describes; say how they differ from other parties' of the same name."""
    _read(file)  # a mistake in the file is told before the node is asked
    with connect(home, user=user, profile=profile) as desk:
        reply = desk.publish(file)
    if json:
        print(msgspec.json.encode(reply).decode())
        return
    for dataset in reply.published:
        size = f"{dataset.rows:,} rows, {_count(dataset.columns, 'column')}, {_count(dataset.rules, 'rule')}"
        print(f"published {dataset.name}: {size}, version {_short(dataset.version)}")
    for line in reply.mismatches:
        print(f"mismatch  {line}")
    if reply.mismatches:
        print("Datasets of one name are one joint table only if their columns and unit are the same.")


@app.command("check")
def check(file: File) -> None:
    """Check a file without a node: its keys and rules, and that each source is there."""
    for spec in _read(file):
        if not glob.glob(spec.source.path) and not Path(spec.source.path).exists():
            raise InvalidInput(f"{file.name}: [dataset.{spec.name}]: source {spec.source.path} does not exist")
        within = f", table {spec.source.table}" if spec.source.table else ""
        counted = f"unit {spec.unit}" if spec.unit else "each row a unit"
        print(f"{spec.name}: {spec.source.kind} {spec.source.path}{within}, {counted}")
        for rule in spec.rules:
            print(f"  {', '.join(rule.columns)}: {in_words(rule)}")
        if not spec.rules:
            print("  no rules: nothing of it may leave")


@app.command("ls")
def ls(
    home: Home = None, user: User = None, profile: Profile = None, party: Party = None, json: AsJson = False
) -> None:
    """List the datasets of all parties."""
    with connect(home, user=user, profile=profile) as desk:
        datasets = [dataset for dataset in desk.datasets() if party in (None, dataset.party)]
        consents = {who: to for who, to in desk.consents().items() if party in (None, who)}
    if json:
        print(msgspec.json.encode(datasets).decode())
        return
    if not datasets:
        print("no datasets yet; `junto dataset publish FILE.toml` publishes one")
        return
    print_grid(
        ("party", "name", "rows", "columns", "version", "unit", "rules", "since"),
        (
            (d.party, d.name, d.rows, len(d.columns), _short(d.version), d.unit, len(d.rules), _clock(d.published_at))
            for d in datasets
        ),
    )
    _print_mismatches(datasets)
    for who, to in consents.items():
        print(f"computes  {who} also computes what reads none of its data, for {' and '.join(to)}")


def _print_mismatches(datasets: Sequence[Dataset]) -> None:
    """Print the differences of datasets of one name: where there are any, they are no joint table."""
    for name in sorted({dataset.name for dataset in datasets}):
        first, *others = [dataset for dataset in datasets if dataset.name == name]
        for other in others:
            for line in compare(first, other):
                print(f"mismatch  {name}: {line}")


@app.command("show")
def show(
    name: Name, home: Home = None, user: User = None, profile: Profile = None, party: Party = None, json: AsJson = False
) -> None:
    """Show a dataset at every party that has it: columns, what may leave of each, and statistics."""
    with connect(home, user=user, profile=profile) as desk:
        datasets = desk.datasets()
    named = [dataset for dataset in datasets if dataset.name == name and party in (None, dataset.party)]
    if not named:
        where = f" at {party}" if party else ""
        raise InvalidInput(f"no dataset {name!r}{where}: {meant(name, sorted({d.name for d in datasets}))}")
    if json:
        print(msgspec.json.encode(named).decode())
        return
    for number, dataset in enumerate(named):
        print("\n" * (number > 0), end="")
        _describe(dataset)


@app.command("unpublish")
def unpublish(name: Name, home: Home = None, user: User = None, profile: Profile = None) -> None:
    """Withdraw one of this party's datasets: no new question may read it."""
    with connect(home, user=user, profile=profile) as desk:
        desk.request(methods.OPERATOR_WITHDRAW, msgspec.json.encode(methods.Withdraw(DatasetName(name))))
    print(f"{name} is withdrawn; the other parties learn it as they are reached")


def in_words(rule: Rule) -> str:
    """A rule's permission in words: `as a join key, to faa, for fleet-safety`."""
    words = IN_WORDS[rule.allow]
    if rule.to:
        words += f", to {' and '.join(rule.to)}"
    if rule.purpose:
        words += f", for {' or '.join(rule.purpose)}"
    if rule.allow not in ("rows", "open", "match"):
        words += f", at least {rule.units} units"
        words += f" of {rule.parties} parties" if rule.parties > 1 else ""
        words += ", with all owners of the name" if rule.owners == "all" else ", also without some owners of the name"
    if rule.allow == "aggregate" and rule.dominance != DEFAULT_DOMINANCE:
        words += f", none of them more than {rule.dominance:.0%} of a sum"
    if rule.domain is not None:
        words += f", one of {len(rule.domain)} known values"
    return words


def _describe(dataset: Dataset) -> None:
    unit = f"unit {dataset.unit}" if dataset.unit else "each row a unit"
    print(f"{dataset.name} of {dataset.party}: {dataset.rows:,} rows, {dataset.bytes:,} bytes, {unit}")
    print(f"version {dataset.version}, since {_clock(dataset.published_at)}")
    known = {statistics.column: statistics for statistics in dataset.statistics}
    rows: list[tuple[str | int | None, ...]] = []
    for column in dataset.columns:
        leaves = [in_words(rule) for rule in dataset.rules if rule.speaks_of(column.name)]
        told = known.get(column.name)
        figures = (None,) * 4 if told is None else (told.nulls, told.distinct, told.min, told.max)
        rows.append((column.name, column.type, "\n".join(leaves) or "nothing", *figures))
    print_grid(("column", "type", "what may leave", "nulls", "distinct", "min", "max"), rows)


def _read(file: Path) -> tuple[DatasetSpec, ...]:
    try:
        return parse(file.read_bytes(), file.resolve())
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _short(version: str) -> str:
    return version.removeprefix("sha256:")[:12]


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
