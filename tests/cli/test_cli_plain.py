# SPDX-License-Identifier: Apache-2.0
"""Nothing that another party wrote steers the terminal of whoever reads it, whatever prints it."""

import ast
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from rich.text import Text

import junto.cli
from junto.cli.doctor import _print
from junto.cli.grid import print_grid
from junto.cli.screen import PlainStream, Screen, plain_output, screen
from junto.cli.task import describe
from junto.cli.watch import line
from junto.errors import Refused
from junto.link.methods import DoctorLine, Notice, Progress
from junto.plain import plain
from junto.types import PartyId, TaskId

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\x9b31mc\x08\x08\rd\u202edcba\u2066\u200be\x7f[red]f[/]"
_FORBIDDEN = set(HOSTILE) - set("abcdef[]/2J0;title31mdcba red")


def _say(text: str, stream: TextIO | None = None) -> None:
    (sys.stdout if stream is None else stream).write(f"{text}\n")


def test_what_no_eye_sees_is_shown_as_an_escape() -> None:
    assert plain("\x1b[31m\u202e") == "\\u001b[31m\\u202e"
    assert plain("Zürich, 東京: 3 µm\tok\n") == "Zürich, 東京: 3 µm\tok\n"
    assert plain("\U000e0041") == "\\udb40\\udc41"


@given(st.text())
@settings(derandomize=True)
def test_plain_text_prints_and_stays_plain(text: str) -> None:
    shown = plain(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert plain(shown) == shown


@given(st.text())
@settings(derandomize=True)
def test_json_that_is_printed_means_what_it_did(text: str) -> None:
    said = json.dumps({"question": text}, ensure_ascii=False)
    assert json.loads(plain(said)) == json.loads(said)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _progress() -> Progress:
    return Progress(
        task=TaskId("01hf7yat00393ehy7j5t2hfbkj"), question=HOSTILE, asker=PartyId("bea"), user=HOSTILE,
        purpose=HOSTILE, participants=(PartyId("ann"), PartyId("bea")), state="failed", opened_at=0.0, deadline=9.0,
        parts=(), parts_total=1, waits=(), code="failed", party="bea", reason=HOSTILE, ended_at=1.0, receipt=None,
    )  # fmt: skip


def _notice() -> Notice:
    return Notice("n", "ended", TaskId(""), PartyId("bea"), PartyId("bea"), HOSTILE, 0.0, "info")


def _live() -> None:
    table = Table()
    table.add_column(HOSTILE)
    table.add_row(Text(HOSTILE))
    with Live(console=screen(), refresh_per_second=1) as live:
        live.update(table)


_WAYS: dict[str, Callable[[], object]] = {
    "print": lambda: _say(HOSTILE),
    "standard error": lambda: _say(HOSTILE, sys.stderr),
    "a task": lambda: _say(describe(_progress(), 2.0)),
    "a grid": lambda: print_grid(("task", HOSTILE), [(HOSTILE, 3)]),
    "a notice": lambda: screen().print(line(_notice()), soft_wrap=True),
    "a doctor's line": lambda: _print(
        screen(), DoctorLine(PartyId("ann"), PartyId("bea"), HOSTILE, False, HOSTILE, HOSTILE)
    ),
    "a live table": _live,
    "a line of a console": lambda: screen(sys.stderr).print(HOSTILE, soft_wrap=True),
}


@pytest.mark.parametrize("way", _WAYS)
def test_a_hostile_text_reaches_the_terminal_by_no_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb" if way != "a live table" else "xterm")
    out, err = _Terminal(), _Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with plain_output():
        _WAYS[way]()
    told = out.getvalue() + err.getvalue()
    forbidden = _FORBIDDEN - ({"\x1b", "\r"} if way == "a live table" else set())  # rich's own
    assert told
    assert not forbidden & set(told)
    assert "\x1b[2J" not in told
    assert "\x1b]0" not in told
    assert "[red]f[/]" in told or way == "a live table"  # nor is it read as markup; a live table has no room for it


def test_an_error_of_another_party_is_one_plain_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(given: object) -> int:
        raise Refused(f"bea refuses ann: {HOSTILE}")

    monkeypatch.setattr(junto.cli, "run", refused)
    assert junto.cli.main(["task", "ls"]) == 3
    told = capsys.readouterr()
    assert not told.out
    assert not _FORBIDDEN & set(told.err)
    assert told.err.count("\n") == 1


def test_what_several_parties_said_stands_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(given: object) -> int:
        raise Refused("bea refuses ann: type\n  this\n\ncyd refuses ann")

    monkeypatch.setattr(junto.cli, "run", refused)
    assert junto.cli.main(["task", "ls"]) == 3
    assert capsys.readouterr().err == "junto: bea refuses ann: type; this; cyd refuses ann\n"


def test_a_screen_keeps_its_own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = _Terminal()
    Screen(file=out, force_terminal=True, color_system="standard").print(Text(HOSTILE, style="red"))
    assert out.getvalue().startswith("\x1b[31m")
    assert "\x1b[2J" not in out.getvalue()


def test_a_plain_stream_hands_exact_bytes_to_whoever_asks_for_them() -> None:
    beneath = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    PlainStream(beneath).buffer.write(b"\x1b")
    assert beneath.buffer.getvalue() == b"\x1b"


def test_every_command_prints_by_the_one_way() -> None:
    """`print` stands behind a plain stream while a command runs; a console of rich's own would not."""
    faults = []
    for path in sorted(Path(junto.cli.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if path.name != "screen.py" and isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "Console", "rich.print", "typer.echo", "typer.secho", "click.echo",
            ):  # fmt: skip
                faults.append(f"{path.name}:{node.lineno}")
    assert not faults, f"{', '.join(faults)}: write with print, or on a console from screen()"
