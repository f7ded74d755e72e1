# SPDX-License-Identifier: Apache-2.0
"""The demo itself: four parties, four questions, each explained before it runs and checked after."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from junto.client import Desk
from junto.demo.consortium import USER, Consortium, consortium, junto
from junto.demo.flights import CARRIERS, write_party_data
from junto.demo.oracle import largest_difference, pooled
from junto.errors import Refused, Unavailable
from junto.link.methods import Progress, ReceiptView
from junto.types import Withheld

if TYPE_CHECKING:
    import pyarrow as pa

ASKER = "bts"
PARTIES = (*CARRIERS, ASKER)
TOLERANCE = 1e-9
"""The error allowed in a number against DuckDB's over the pooled rows: both round, in different orders."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the demo; `threshold` units make a group; refused ones name what must be refused."""

    title: str
    sql: str
    keys: tuple[str, ...] = ()
    refused: bool = False


QUESTIONS = (
    Question(
        "Average departure delay by airport and month",
        "SELECT origin, month, avg(dep_delay) AS delay, count(*) AS flights "
        "FROM flights GROUP BY origin, month ORDER BY origin, month",
        ("origin", "month"),
    ),
    Question(
        "Delay by visibility: the airlines' flights, joined with the open weather",
        "SELECT CASE WHEN w.visib < 2 THEN 'a: under 2 miles' WHEN w.visib < 8 THEN 'b: 2 to 8 miles' "
        "ELSE 'c: clear' END AS visibility, avg(f.dep_delay) AS delay, count(*) AS flights "
        "FROM flights f JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour "
        "GROUP BY visibility ORDER BY visibility",
        ("visibility",),
    ),
    Question("Every delay of every aircraft, row by row", "SELECT tailnum, dep_delay FROM flights", refused=True),
    Question(
        "Delay by route and hour: many groups, some too small to show",
        "SELECT origin, dest, hour, avg(dep_delay) AS delay, count(*) AS flights "
        "FROM flights GROUP BY origin, dest, hour ORDER BY delay DESC",
        ("origin", "dest", "hour"),
    ),
)


_AVERAGE = re.compile(r"avg\([a-z_.]+\)")
_FINE_KEYS = 3  # with fewer keys a group has thousands of flights
_WITHHELD: dict[Withheld, str] = {"none": "", "some": "some withheld as too small, ", "unknown": ""}


class Asked(msgspec.Struct, frozen=True):
    """The outcome of one question."""

    question: str
    sql: str
    seconds: float
    groups: int = 0
    withheld: Withheld = "none"
    max_abs_error: float | None = None
    refused: str = ""
    receipt: str = ""
    result: str = ""


class Report(msgspec.Struct, frozen=True):
    """The demo's outcome; `ok` if every answer was right and the forbidden question was refused."""

    parties: tuple[str, ...]
    rows: dict[str, int]
    questions: tuple[Asked, ...]
    max_abs_error: float
    refused_rule: str
    journals_verified: int
    seconds: float
    ok: bool


@dataclass(slots=True)
class Stage:
    """The state of the demo while it runs."""

    say: Say
    running: Consortium
    folders: dict[str, Path]
    asked: list[Asked] = field(default_factory=list)


def run(say: Say, folder: Path | None = None) -> Report:
    """Run it all; `say` gets lines for a person. Raises what goes wrong, one line."""
    started = time.monotonic()
    say(f"Setting up {len(PARTIES)} parties: keys, cards, a charter signed by all, a node process each …")
    with consortium(PARTIES, "flights-2013", folder) as running:
        stage = Stage(say, running, {party: running.folder / "sources" / party for party in PARTIES})
        rows = publish(stage)
        with running.desk(ASKER) as desk:
            for number, question in enumerate(QUESTIONS, start=1):
                say(f"\n── {number}. {question.title} " + "─" * max(3, 84 - len(question.title)))
                say(question.sql)
                stage.asked.append(_refused(stage, desk, question) if question.refused else _ask(stage, desk, question))
        say("\n── Proof " + "─" * 80)
        verified = 0
        for party, home in running.homes.items():
            lines = junto("journal", "verify", str(home / "journal.db")).strip().splitlines()
            say(f"{party:<8} {lines[-1]}")
            verified += 1  # a problem would have raised
    errors = [asked.max_abs_error for asked in stage.asked if asked.max_abs_error is not None]
    refused = next((asked.refused for asked in stage.asked if asked.refused), "")
    right = max(errors) <= TOLERANCE and len(errors) == sum(not q.refused for q in QUESTIONS) and bool(refused)
    report = Report(
        parties=PARTIES,
        rows=rows,
        questions=tuple(stage.asked),
        max_abs_error=max(errors),
        refused_rule=refused,
        journals_verified=verified,
        seconds=round(time.monotonic() - started, 2),
        ok=right,
    )
    say(f"\nEvery answer checked against DuckDB over the pooled rows: largest difference {report.max_abs_error:.3g}.")
    say("All as it should be." if report.ok else "SOMETHING IS WRONG: see above.")
    return report


def publish(stage: Stage) -> dict[str, int]:
    """Every party publishes its own data; the rows of each."""
    rows: dict[str, int] = {}
    for party, home in stage.running.homes.items():
        spec = write_party_data(party, stage.folders[party])
        for line in junto("dataset", "publish", str(spec), "--user", USER, "--home", str(home)).splitlines():
            stage.say(f"{party:<8} {line}")
        with stage.running.desk(party) as desk:
            rows[party] = sum(dataset.rows for dataset in desk.datasets() if dataset.party == party)
    _wait_for_datasets(stage.running, len(CARRIERS) + 3)
    return rows


def _wait_for_datasets(running: Consortium, count: int, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    for party in running.homes:
        with running.desk(party) as desk:
            while len(desk.datasets()) < count:
                if time.monotonic() > until:
                    raise Unavailable(f"{party} has not heard of all datasets after {seconds:g} s")
                time.sleep(0.05)


def _ask(stage: Stage, desk: Desk, question: Question) -> Asked:
    asked = desk.sql(question.sql)
    stage.say("\nWho learns what, before anything runs:")
    stage.say(str(asked.explain()))
    answer = asked.run(deadline="60s")
    error = largest_difference(answer.table, expected(stage, question), question.keys, dominated(stage, question))
    stage.say("")
    for line in _head(answer.table):
        stage.say(line)
    stage.say(
        f"\n{answer.table.num_rows} groups, {_WITHHELD[answer.receipt.withheld]}{answer.seconds:.3f} s, "
        f"largest difference to the pooled rows {error:.3g}"
    )
    _say_receipt(stage, answer.receipt)
    return Asked(
        question=question.title,
        sql=question.sql,
        seconds=answer.seconds,
        groups=answer.table.num_rows,
        withheld=answer.receipt.withheld,
        max_abs_error=error,
        receipt=answer.receipt.statement,
        result=answer.receipt.result,
    )


def _refused(stage: Stage, desk: Desk, question: Question) -> Asked:
    started = time.monotonic()
    asked = desk.sql(question.sql)
    stage.say("\nWho would learn what:")
    stage.say(str(asked.explain()))
    ended: list[Progress] = []
    try:
        asked.run(deadline="60s", watch=ended.append)
    except Refused as refusal:
        stage.say("\nRefused:")
        stage.say(str(refusal))
        return Asked(question.title, question.sql, round(time.monotonic() - started, 4), refused=str(refusal))
    stage.say("It was answered, and should not have been.")
    return Asked(question.title, question.sql, round(time.monotonic() - started, 4), max_abs_error=float("inf"))


def expected(stage: Stage, question: Question) -> "pa.Table":
    """The pooled answer, without the groups that have fewer than ten units, and without averages over fewer."""
    asked = question.sql.split(" ORDER BY ")[0]
    for average in set(_AVERAGE.findall(asked)):
        column = average.removeprefix("avg(").removesuffix(")")
        units = f"count(DISTINCT flight_id) FILTER (WHERE {column} IS NOT NULL)"
        asked = asked.replace(average, f"CASE WHEN {units} >= 10 THEN {average} END")
    return pooled(stage.folders, f"{asked} HAVING count(DISTINCT flight_id) >= 10")


def dominated(stage: Stage, question: Question) -> set[tuple[object, ...]]:
    """The keys of groups of which one flight carries more than 40 % of the delays: from 80 % on an average is NULL,
    and the joint test errs by a factor of two at most."""
    if len(question.keys) < _FINE_KEYS:
        return set()
    keys = ", ".join(question.keys)
    share = "max(abs(dep_delay)) > 0.4 * sum(abs(dep_delay))"
    found = pooled(stage.folders, f"SELECT {keys} FROM flights GROUP BY {keys} HAVING {share}")
    return {tuple(row.values()) for row in found.to_pylist()}


def _head(table: "pa.Table", rows: int = 6) -> Sequence[str]:
    from junto.cli.tables import table_text

    return table_text(table, rows).splitlines()


def _say_receipt(stage: Stage, receipt: ReceiptView) -> None:
    stage.say(f"receipt {receipt.statement}, signed by {receipt.signer}, in the journals of all participants")
    stage.say(f"  plan   {receipt.plan}")
    stage.say(f"  result {receipt.result}")
    for reading in receipt.versions:
        stage.say(f"  read   {reading.party}.{reading.dataset} {reading.version[:31]}…")
