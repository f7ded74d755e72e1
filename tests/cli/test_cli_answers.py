# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a task and of an answer: lines, tables and files."""

import csv
import io
import json
import math
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from junto.cli.progress import party_lines, progress_lines
from junto.cli.tables import show_receipt, table_text, write_table
from junto.cli.task import describe
from junto.client.question import Answer
from junto.demo.oracle import largest_difference
from junto.errors import InvalidInput
from junto.link.methods import Certificate, Deviation, Part, Progress, Reading, ReceiptView, Signature, Waiting
from junto.types import DatasetName, Digest, PartyId, StepId, TaskId

BTS, DELTA, UNITED = PartyId("bts"), PartyId("delta"), PartyId("united")
TASK = TaskId("01jtask")
DIGEST = Digest("sha256:" + "a" * 64)


def _progress(state: str = "running", waits: tuple[Waiting, ...] = (), reason: str = "") -> Progress:
    parts = (Part(StepId("q1"), "Query", DELTA, 120, 4096, 0.25), Part(StepId("t"), "Threshold", DELTA, None, 64, 0.5))
    return Progress(
        TASK, "SELECT origin[1]\n  FROM f", BTS, "ana", "fleet-safety", (BTS, DELTA, UNITED), state, 1000.0, 1060.0,
        parts=parts, parts_total=8, waits=waits, code="refused" if reason else "", reason=reason,
    )  # fmt: skip


def _shown(progress: Progress, now: float) -> str:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as captured:
        console.print(party_lines(progress, now))
    return captured.get()


# ── while it runs ───────────────────────────────────────────────────────────────────────────────────


def test_there_is_a_line_for_each_party_and_one_for_the_task() -> None:
    waits = (Waiting(UNITED, "step [q2]", 1001.0, 1060.0), Waiting(UNITED, "step t", 1001.0, 1060.0))
    lines = _shown(_progress(waits=waits), 1004.5).splitlines()
    assert len(lines) == 4
    assert f"task {TASK}" in lines[0]
    assert "56 s left" in lines[0]
    assert "2 done, last t in 0.50 s" in lines[2]
    assert "waited for: step [q2], 3.5 s (until" in lines[3]


def test_past_the_deadline_nothing_is_left() -> None:
    assert "0 s left" in _shown(_progress(), 2000.0)


def test_elsewhere_than_on_a_terminal_each_change_of_state_is_a_line() -> None:
    stream = io.StringIO()
    with progress_lines(stream, quiet=False) as watch:
        assert watch is not None
        for state in ("proposed", "proposed", "running", "running", "done"):
            watch(_progress(state))
    assert stream.getvalue().splitlines() == [f"task {TASK}: {state}" for state in ("proposed", "running", "done")]


def test_quiet_is_quiet() -> None:
    stream = io.StringIO()
    with progress_lines(stream, quiet=True) as watch:
        assert watch is None
    assert stream.getvalue() == ""


def test_a_certified_step_is_told_with_who_signed_what_and_who_differs() -> None:
    other = Digest("sha256:" + "b" * 64)
    signed = (
        Signature(DELTA, StepId("query"), DIGEST, "01j1"),
        Signature(UNITED, StepId("certify-0"), DIGEST, "01j2"),
        Signature(BTS, StepId("certify-1"), other, "01j3"),
    )
    certificate = Certificate(StepId("query"), DIGEST, signed)
    deviation = Deviation(StepId("query"), BTS, other, DIGEST, f"bts computed {other}")
    found = replace(_progress("done"), certificates=(certificate,), deviations=(deviation,))
    assert describe(found, 1004.0).splitlines()[-5:] == [
        f"certified step query: {DIGEST}",
        "  delta in statement 01j1",
        "  united as certify-0 in statement 01j2",
        f"  bts as certify-1 in statement 01j3 {other}",
        f"deviation bts computed {other}",
    ]
    none = replace(found, certificates=(replace(certificate, digest=Digest("")),))
    assert "certified step query: no digest has a majority" in describe(none, 1004.0)


def test_a_task_is_told_with_its_parts_its_waits_and_why_it_ended() -> None:
    text = describe(_progress("refused", (Waiting(DELTA, "its offer", 1001.0, 1010.0),), "no rule\nno grant"), 1004.0)
    assert "question  SELECT origin[1] FROM f" in text
    assert "asked by  ana@bts" in text
    assert "for fleet-safety" in text
    assert [line for line in text.splitlines() if line.startswith("because")] == [
        "because   no rule",
        "because   no grant",
    ]
    assert "120 rows" in text
    assert "waiting for delta: its offer, 3.0 s" in text


@pytest.mark.parametrize("quiet", [False, True])
def test_an_answer_says_who_is_missing_even_to_who_wants_no_receipt(quiet: bool) -> None:
    receipt = ReceiptView(TASK, "01jreceipt", "01jcontract", DIGEST, DIGEST, 1, "none", (), 1.0, "bts")
    told = io.StringIO()
    show_receipt(Answer(pa.table({"n": [1]}), receipt, replace(_progress("done"), missing=(DELTA,))), told, quiet=quiet)
    assert "missing   delta: stayed away, their rows are not in the answer\n" in told.getvalue()
    assert ("1 row, " in told.getvalue()) is not quiet


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────


def test_null_is_a_dash_and_numbers_are_short() -> None:
    text = table_text(pa.table({"a": [None, "x"], "n": [1.23456789, None], "d": [Decimal("1.50"), None]}))
    assert text.count("—") == 3
    assert "1.23457" in text
    assert "1.50" in text


def test_a_long_table_is_cut_and_says_so() -> None:
    table = pa.table({"n": list(range(1000))})
    text = table_text(table)
    assert "960 more rows" in text
    assert "999" not in text
    assert "more rows" not in table_text(table.slice(0, 40))


def test_an_empty_table_still_shows_its_columns() -> None:
    assert "origin" in table_text(pa.table({"origin": pa.array([], pa.string())}))


def test_anothers_text_neither_draws_nor_steers_the_terminal() -> None:
    text = table_text(pa.table({"[red]a": ["[/]", "[bold]b", "\x1b[2Jgone", "two\nlines", "Zürich"]}))
    for shown in ("[red]a", "[/]", "[bold]b", "\\u001b[2Jgone", "two\\nlines", "Zürich"):
        assert shown in text
    assert "\x1b" not in text


def test_two_columns_of_one_name_are_both_shown_and_are_no_json() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    assert "1" in table_text(table)
    assert "2" in table_text(table)
    with pytest.raises(InvalidInput, match="several columns named 'n'"):
        write_table(table, "json", None)


TABLE = pa.table(
    {
        "origin": ["EWR", None, 'a "quoted", one'],
        "n": pa.array([1, None, 3], pa.int64()),
        "avg": [0.5, None, math.nan],
        "sum": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(38, 2)),
    }
)


def test_csv_holds_every_row(tmp_path: Path) -> None:
    out = tmp_path / "answer.csv"
    write_table(TABLE, "csv", out)
    rows = list(csv.reader(io.StringIO(out.read_text())))
    assert rows[0] == ["origin", "n", "avg", "sum"]
    assert [row[0] for row in rows[1:]] == ["EWR", "", 'a "quoted", one']
    assert [row[3] for row in rows[1:]] == ["1.50", "", "-2.25"]


def test_json_holds_every_row_with_exact_numbers(tmp_path: Path) -> None:
    out = tmp_path / "answer.json"
    write_table(TABLE, "json", out)
    rows = json.loads(out.read_text(), parse_float=Decimal)
    assert rows[0] == {"origin": "EWR", "n": 1, "avg": Decimal("0.5"), "sum": Decimal("1.50")}
    assert rows[1] == {"origin": None, "n": None, "avg": None, "sum": None}
    assert rows[2]["avg"] is None


def test_parquet_is_the_table(tmp_path: Path) -> None:
    out = tmp_path / "answer.parquet"
    write_table(TABLE.drop_columns(["avg"]), "parquet", out)
    assert pq.read_table(out) == TABLE.drop_columns(["avg"])


def test_a_table_in_a_file_is_not_cut(tmp_path: Path) -> None:
    out = tmp_path / "answer.txt"
    write_table(pa.table({"n": list(range(1000))}), "table", out)
    assert "999" in out.read_text()


def test_an_answer_goes_to_standard_output_where_no_file_is_named(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_table(pa.table({"n": [1]}), "csv", None)
    assert capfdbinary.readouterr().out == b'"n"\n1\n'


@pytest.mark.parametrize("place", ["missing/answer.csv", "folder"])
def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInput, match="cannot be written") as refusal:
        write_table(TABLE, "csv", tmp_path / place)
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_that_was_there_stays_whole_when_the_answer_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "answer.csv"
    out.write_text("yesterday's")

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InvalidInput, match="No space left"):
        write_table(TABLE, "csv", out)
    assert out.read_text() == "yesterday's"
    assert list(tmp_path.iterdir()) == [out]


def test_a_receipt_says_what_was_computed_from_what() -> None:
    reading = Reading(DELTA, DatasetName("flights"), DIGEST)
    receipt = ReceiptView(TASK, "r1", "c1", DIGEST, DIGEST, 36, "some", (reading,), 0.5, "bts")
    stream = io.StringIO()
    show_receipt(Answer(TABLE, receipt, _progress("done")), stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "36 rows, some withheld as too small, 0.500 s"
    assert lines[1] == "receipt   r1, signed by bts"
    assert any(line.startswith("read      delta.flights sha256:") for line in lines)
    assert lines[-1].endswith(f"junto journal ls --task {TASK}")


# ── the demo's oracle ───────────────────────────────────────────────────────────────────────────────


def _difference(ours: dict[str, object], theirs: dict[str, object]) -> float:
    return largest_difference(pa.table({"k": ["a"], **_one(ours)}), pa.table({"k": ["a"], **_one(theirs)}), ["k"])


def _one(row: dict[str, object]) -> dict[str, list[object]]:
    return {name: [value] for name, value in row.items()}


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        (1.0, 1.0, 0.0),
        (1.0, 1.5, 0.5),
        (1, 3, 2.0),
        (Decimal("1.50"), Decimal("1.25"), 0.25),
        (Decimal("1.50"), 1.5, 0.0),
        (None, None, 0.0),
        (None, 0.0, math.inf),
        (math.nan, math.nan, 0.0),
        (math.nan, 5.0, math.inf),
        (math.inf, math.inf, 0.0),
        (math.inf, 5.0, math.inf),
        ("x", "x", 0.0),
        ("x", "y", math.inf),
        (True, False, math.inf),
    ],
)
def test_the_largest_difference_is_found_and_never_hidden(ours: object, theirs: object, difference: float) -> None:
    assert _difference({"v": ours}, {"v": theirs}) == difference


def test_other_rows_or_columns_differ_beyond_measure() -> None:
    table = pa.table({"k": ["a", "b"], "v": [1, 2]})
    assert largest_difference(table, table.slice(0, 1), ["k"]) == math.inf
    assert largest_difference(table, table.rename_columns(["k", "w"]), ["k"]) == math.inf
    assert largest_difference(table, pa.concat_tables([table, table]), ["k"]) == math.inf
    assert largest_difference(table, table.take([1, 0]), ["k"]) == 0.0
