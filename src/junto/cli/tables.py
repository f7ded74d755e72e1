# SPDX-License-Identifier: Apache-2.0
"""Answers as text and files, and receipts as lines."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.table import Table
from rich.text import Text

from junto.cli.screen import is_terminal, screen
from junto.client.question import Answer
from junto.errors import InvalidInput
from junto.link.methods import Certificate
from junto.plain import plain

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN_ROWS = 40


class Format(StrEnum):
    """The format of a written answer."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def check_place(format: Format, out: Path | None) -> None:
    """Raises InvalidInput for what no terminal takes, before anything is asked."""
    if format is Format.PARQUET and out is None:
        raise InvalidInput("parquet goes to a file: add --out FILE.parquet")


def print_answer(answer: Answer, format: Format, out: Path | None, *, quiet: bool) -> None:
    """The answer to a file or standard output, and to standard error its receipt: of that, if `quiet`, only what the
    answer lacks and who computed it otherwise."""
    if out is None and format is Format.TABLE:
        print(table_text(answer.table))
    else:
        write_table(answer.table, format.value, out)
    show_receipt(answer, sys.stderr, quiet=quiet)


def table_text(table: "pa.Table", most_rows: int = _SHOWN_ROWS) -> str:
    """The table drawn for a terminal; rows beyond `most_rows` are counted, not shown."""
    drawn = Table(show_edge=False)
    for column, kind in zip(table.column_names, table.schema.types, strict=True):
        numeric = str(kind).startswith(("int", "uint", "float", "double", "decimal"))
        drawn.add_column(Text(_one_line(column)), justify="right" if numeric else "left", overflow="fold")
    for row in zip(*(column.to_pylist() for column in table.slice(0, most_rows).columns), strict=True):
        drawn.add_row(*(_cell(value) for value in row))
    console = screen(wide=True)
    with console.capture() as captured:
        console.print(drawn)
        if table.num_rows > most_rows:
            console.print(f"… {table.num_rows - most_rows} more rows; --format csv writes them all")
    return captured.get().rstrip("\n")


def _cell(value: object) -> Text:
    match value:
        case None:
            return Text("—")
        case float():
            return Text(f"{value:.6g}" if abs(value) < 1e15 else f"{value:g}")
        case _:
            return Text(_one_line(str(value)))


def _one_line(text: str) -> str:
    """A value in one line of a table: a line break or tab in it is shown, too."""
    return plain(text).replace("\n", "\\n").replace("\t", "\\t")


def write_table(table: "pa.Table", format: str, out: Path | None) -> None:
    """Write the whole table to a file, or to standard output."""
    import io

    import pyarrow.csv
    import pyarrow.parquet

    held = io.BytesIO()
    match format:
        case "csv":
            pyarrow.csv.write_csv(table, held)
        case "parquet":
            pyarrow.parquet.write_table(table, held)
        case "json":
            import msgspec

            twice = sorted(name for name, times in Counter(table.column_names).items() if times > 1)
            if twice:
                raise InvalidInput(f"the answer has several columns named {twice[0]!r}; name them apart with AS")
            held.write(msgspec.json.Encoder(decimal_format="number").encode(table.to_pylist()) + b"\n")
        case _:
            held.write(table_text(table, table.num_rows).encode() + b"\n")
    if out is None:
        if is_terminal(sys.stdout):
            print(held.getvalue().decode(), end="")
        else:
            sys.stdout.buffer.write(held.getvalue())
        return
    part = out.with_name(out.name + ".part")
    try:
        part.write_bytes(held.getvalue())
        part.replace(out)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise InvalidInput(f"{out} cannot be written: {error.strerror}") from error


def certificate_lines(certificate: Certificate) -> list[str]:
    """A certified step: the digest that counts, and in which statement each party signed what of it."""
    lines = [f"certified step {certificate.step}: {certificate.digest or 'no digest has a majority'}"]
    for signed in certificate.signed:
        under = "" if signed.step == certificate.step else f" as {signed.step}"
        other = "" if signed.digest == certificate.digest else f" {signed.digest}"
        lines.append(f"  {signed.party}{under} in statement {signed.statement}{other}")
    return lines


def missing_line(parties: Sequence[str]) -> str:
    """A line that names those who stayed away from a task that went on, and says what that means for its answer."""
    return f"{', '.join(parties)}: stayed away, their rows are not in the answer"


def hidden_line(groups: int) -> str:
    """A line with the number of groups in which figures are NULL, and why."""
    where = "1 group" if groups == 1 else f"{groups:,} groups"
    return f"hidden    figures in {where}, NULL: too few units are behind them, or one unit is most of them"


def show_receipt(answer: Answer, stream: TextIO, *, quiet: bool = False) -> None:
    """The receipt in a few lines: what was computed from what, and which journals prove it."""
    receipt = answer.receipt
    told = [f"missing   {missing_line(answer.missing)}"] if answer.missing else []
    if answer.own_left_out:
        told.append(f"left out  {answer.own_left_out} groups of your own rows, in which others have too few units")
    told += [f"deviation {deviation.line}" for deviation in answer.deviations]
    if not quiet:
        groups = ", some withheld as too small" if receipt.withheld == "some" else ""
        told += [hidden_line(answer.hidden)] if answer.hidden else []
        lines = [
            f"{receipt.rows:,} {'row' if receipt.rows == 1 else 'rows'}{groups}, {receipt.seconds:.3f} s",
            f"receipt   {receipt.statement}, signed by {receipt.signer}",
            f"contract  {receipt.contract}",
            f"plan      {receipt.plan}",
            f"result    {receipt.result}",
        ]
        lines += [
            f"read      {reading.party}.{reading.dataset} {reading.version[:23]}…" for reading in receipt.versions
        ]
        for certificate in answer.certificates:
            alike = dict.fromkeys(signed.party for signed in certificate.signed if signed.digest == certificate.digest)
            lines.append(f"certified step {certificate.step} {certificate.digest[:23]}… by {', '.join(alike)}")
        lines += [f"doubled   {one.line}" for one in answer.doubled if one.second == one.first]
        told = [*lines, *told, f"in every participant's journal: junto journal ls --task {receipt.task}"]
    console = screen(stream)
    for line in told:
        console.print(line, soft_wrap=True)
