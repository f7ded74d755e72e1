# SPDX-License-Identifier: Apache-2.0
"""`docs/wire.md` says what the code does."""

import re
from pathlib import Path

import msgspec
import pytest

from junto import errors
from junto.link import frames, moves
from junto.link.frames import PIECE_COST_BYTES, Call, Header, encode
from junto.link.greeting import HIGHEST
from junto.link.settings import LinkSettings
from junto.tasks.bodies import BODIES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "wire.md").read_text()
NAMES = {kind.__name__: kind for kind in frames.KINDS}


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first line begins so, cells stripped, heading first."""
    lines = PAGE[PAGE.index(heading) :].split("\n\n", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def test_every_kind_is_listed_with_its_number_and_its_fields_in_order() -> None:
    listed = [(int(number), name, fields) for number, name, fields in table("| kind | name |")[1:]]
    expected = [(kind.__struct_config__.tag, kind.__name__, ", ".join(kind.__struct_fields__)) for kind in frames.KINDS]
    assert listed == expected


def test_every_field_is_explained_with_its_bounds() -> None:
    explained: dict[str, str] = {}
    for names, bounds, _ in table("| field | type |")[1:]:
        explained.update(dict.fromkeys(names.split(", "), bounds))
    used = {field for kind in frames.KINDS for field in kind.__struct_fields__}
    assert set(explained) == used
    for kind in frames.KINDS:
        for field in msgspec.structs.fields(kind):
            limits = msgspec.inspect.type_info(field.type)
            largest = getattr(limits, "max_length", None)
            assert largest is None or str(largest) in explained[field.name], (kind, field.name)


@pytest.mark.parametrize(
    ("heading", "listed"),
    [("| state | Reply |", moves.ASKED_MOVES), ("| state | Call |", moves.SERVED_MOVES)],
)
def test_the_states_are_those_of_the_code(heading: str, listed: dict[tuple[str, type[Header]], str]) -> None:
    head, *rows = table(heading)
    found = {
        (row[0], NAMES[kind]): after for row in rows for kind, after in zip(head[1:], row[1:], strict=True) if after
    }
    assert found == listed


def test_the_links_states_are_those_of_the_code() -> None:
    head, *rows = table("| state | Hello |")
    found = {
        (row[0], NAMES[kind.removesuffix(" 0")]): after
        for row in rows
        for kinds, after in zip(head[1:], row[1:], strict=True)
        if after
        for kind in kinds.split(", ")
    }
    assert found == moves.LINK_MOVES


def test_every_error_code_is_listed() -> None:
    listed = {row[0].strip("`") for row in table("| code | meaning |")[1:]}
    codes = {errors.JuntoError.code}
    todo = [errors.JuntoError]
    while todo:
        for child in todo.pop().__subclasses__():
            if child.__module__ == errors.__name__:
                codes.add(child.code)
                todo.append(child)
    assert listed == codes


def test_the_sizes_and_times_are_those_of_the_code() -> None:
    numbers = {int(number.replace(" ", "")) for number in re.findall(r"\d[\d ]*\d|\d", PAGE)}
    lan, wan = LinkSettings.for_lan(), LinkSettings.for_wan()
    assert {
        frames.FRAME_BYTES,
        frames.GREETING_BYTES,
        frames.PAYLOAD_BYTES,
        frames.PIECE_BYTES,
        frames.SMALLEST_WINDOW_BYTES,
        PIECE_COST_BYTES,
    } <= numbers
    for says in (
        f"there are {lan.connect_seconds:g} seconds in all ({wan.connect_seconds:g} in the `wan` preset)",
        f"every {lan.ping_seconds:g} seconds ({wan.ping_seconds:g} in `wan`)",
        f"not heard for {lan.silent_seconds:g} seconds ({wan.silent_seconds:g}) is gone",
        f"({lan.call_bytes // 2**20} MiB here)",
        f"within {lan.ping_seconds:g} seconds, the",
    ):
        assert says in PAGE.replace("\n   ", " ").replace("\n", " "), says


def test_the_example_is_what_the_code_sends() -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("    00 00 00 0f"))
    assert bytes.fromhex(line) == encode(Call(5, "ask", 1000, ""), b"xy")


def test_every_statement_of_a_task_is_listed_with_its_fields_in_order() -> None:
    listed = [(kind.strip("`"), fields) for kind, _, fields in table("| kind | by |")[1:]]
    assert listed == [(kind, ", ".join(shape.__struct_fields__)) for kind, shape in BODIES.items()]


def test_the_page_is_of_the_version_that_the_code_speaks() -> None:
    assert f"this page is version {HIGHEST}" in PAGE
    assert table("| version | what it brought |")[-1][0] == str(HIGHEST)
