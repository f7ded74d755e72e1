# SPDX-License-Identifier: Apache-2.0
"""Grants: what they must hold, when they are in force, and how they are typed."""

import shlex

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.trust.grants import (
    Grant,
    GrantId,
    GrantRequest,
    Revocation,
    columns_of,
    moment_of,
    moment_text,
    standing,
)
from junto.types import DatasetName, PartyId

UNITED, BTS = PartyId("united"), PartyId("bts")
DAY = 86400.0
START = 20_000 * DAY


def request(**more: object) -> GrantRequest:
    fields = {"to": ("bts",), "dataset": "flights", "columns": ("tailnum",), "allow": "rows", "until": START + 30 * DAY}
    return msgspec.convert({**fields, **more}, GrantRequest)


def grant(**more: object) -> Grant:
    return request(**more).grant(GrantId("g1"), UNITED, START)


def test_a_grant_begins_when_it_is_given_unless_said_otherwise() -> None:
    assert grant().not_before == START
    assert grant(not_before=START + DAY).not_before == START + DAY


def test_a_grant_is_in_force_from_its_beginning_to_just_before_its_end() -> None:
    given_ = grant()
    assert [given_.in_force(START + at, 0) for at in (-1, 0, 30 * DAY - 1, 30 * DAY)] == [False, True, True, False]


def test_a_grant_with_uses_is_used_up() -> None:
    assert [grant(uses=2).in_force(START, used) for used in (0, 1, 2, 3)] == [True, True, False, False]
    assert grant().in_force(START, 1_000_000)


def test_only_its_giver_revokes_a_grant() -> None:
    given_ = grant()
    own, foreign = (Revocation(given_.id, party, START) for party in (UNITED, BTS))
    assert standing([given_], [foreign]) == (given_,)
    assert standing([given_], [foreign, own]) == ()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"to": ()}, "names the parties"),
        ({"to": ("BTS",)}, "party name"),
        ({"columns": ()}, "columns is empty"),
        ({"until": START}, "ends after it begins"),
        ({"until": 1e15}, "from 1970 to 9999"),
        ({"until": float("nan")}, "from 1970 to 9999"),
        ({"not_before": -1.0}, "from 1970 to 9999"),
        ({"uses": 0}, "at least one use"),
        ({"units": 4}, "from 5 to 10000"),
        ({"purpose": ("a\tb",)}, "purpose"),
    ],
)
def test_a_grant_that_cannot_be_meant_is_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        grant(**more)


def test_a_grant_off_the_wire_is_checked_too() -> None:
    wire = msgspec.json.encode(grant())
    assert msgspec.json.decode(wire, type=Grant) == grant()
    with pytest.raises(msgspec.ValidationError, match="party name"):
        msgspec.json.decode(wire.replace(b'"bts"', b'"B T S"'), type=Grant)


def test_the_command_holds_all_that_is_not_the_default() -> None:
    asked = request(
        purpose=("fleet safety", "audit"), units=7, uses=3, not_before=START + DAY / 2, columns=("a", "b,c")
    )
    assert asked.command == (
        "junto grant give --dataset flights --columns 'a,\"b,c\"' --allow rows --to bts"
        " --purpose 'fleet safety' --purpose audit --units 7 --uses 3"
        " --from 2024-10-04T12:00:00Z --until 2024-11-03"
    )


def test_the_sentence_says_it_in_words() -> None:
    asked = request(columns=("*",), allow="aggregate", to=("bts", "faa"), purpose=("audit",), uses=3)
    assert asked.sentence(UNITED) == (
        "united lets bts and faa have every column of flights in counts, sums and averages for audit"
        " until 2024-11-03, 3 times"
    )


names = st.lists(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=8), min_size=1)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(columns=names.filter(lambda some: all(name.isprintable() for name in some)))
@example(columns=['a"b', "a, b", " lead", '"', ",", "it's $HOME"])
def test_columns_are_read_back_as_the_command_spells_them(columns: list[str]) -> None:
    typed = shlex.split(request(columns=tuple(columns)).command)
    assert columns_of(typed[typed.index("--columns") + 1]) == tuple(columns)


def test_columns_typed_by_hand_may_have_spaces_after_commas() -> None:
    assert columns_of("a, b,c") == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2024-10-04", START),
        ("2024-10-04T12:00", START + DAY / 2),
        ("2024-10-04T12:00:00Z", START + DAY / 2),
        ("2024-10-04T12:00+02:00", START + DAY / 2 - 7200),
        ("30d", 100.0 + 30 * DAY),
        ("90m", 100.0 + 5400),
    ],
)
def test_a_moment_is_a_date_a_time_or_a_duration_from_now(text: str, at: float) -> None:
    assert moment_of(text, now=100.0) == at


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2024-13-01", "2024-10-04 25:00", "-3d", "0d", "31/12/2026", "2024-1"]
)
def test_what_is_no_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time: write 2026-12-31, "):
        moment_of(text, now=0.0)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(0, 200_000 * 86400))
def test_a_moment_is_read_back_as_it_was_written(at: int) -> None:
    assert moment_of(moment_text(at), now=0.0) == at


def test_the_dataset_of_a_grant_is_quoted_for_the_shell() -> None:
    assert "--dataset 'my data; rm'" in request(dataset=DatasetName("my data; rm")).command
