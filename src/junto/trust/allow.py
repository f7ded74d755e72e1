# SPDX-License-Identifier: Apache-2.0
"""The seven things an owner may allow of a column, what each implies, and the checks that rules and grants share.

group       a grouping key, and a filter
filter      WHERE against constants only
aggregate   count, sum, avg, var, stddev over at least `units` units
extremes    min, max, quantiles
match       the key of a private join
rows        row by row, to the recipients named; so also all of the above but match
open        everything, to everybody
"""

import re
from typing import Literal, get_args

from junto.errors import InvalidInput
from junto.trust import names

Allow = Literal["group", "filter", "aggregate", "extremes", "match", "rows", "open"]

KINDS: tuple[Allow, ...] = get_args(Allow)

ROLE_MARK = "@"
"""The mark before the name of a role: `@analysts` are those users of the owner's own party."""

EVERY_COLUMN = "*"
"""The sign for all columns in a rule or a grant. In a need: no column in particular, only how many rows there are."""

MIN_UNITS = 5
"""No group of fewer units is ever released, whatever a rule says."""

MAX_UNITS = 10_000
"""The cost of a threshold grows with its units; beyond this it protects no better."""

DEFAULT_UNITS = 10

DEFAULT_DOMINANCE = 0.8
"""The largest share of a sum that one unit may be."""

_IMPLIED: dict[Allow, frozenset[Allow]] = {
    "group": frozenset(("group", "filter")),
    "filter": frozenset(("filter",)),
    "aggregate": frozenset(("aggregate",)),
    "extremes": frozenset(("extremes",)),
    "match": frozenset(("match",)),
    "rows": frozenset(("rows", "group", "filter", "aggregate", "extremes")),
    "open": frozenset(KINDS),
}

IN_WORDS: dict[Allow, str] = {
    "group": "as a grouping key",
    "filter": "in a filter",
    "aggregate": "in counts, sums and averages",
    "extremes": "in minima, maxima and quantiles",
    "match": "as a join key",
    "rows": "row by row",
    "open": "in every form",
}
"""The words for each kind after a column's name in messages."""

_PURPOSE = re.compile(r"[^\W_](?:[\w .:/-]{0,98}\w)?")


def serves(allow: Allow, needed: Allow) -> bool:
    """True if permission `allow` on a column includes `needed`."""
    return needed in _IMPLIED[allow]


def check_columns(columns: tuple[str, ...]) -> None:
    """Raises InvalidInput unless the columns are named once each, or are `*` alone."""
    if not columns:
        raise InvalidInput('columns is empty: name the columns, or write ["*"] for all')
    for column in columns:
        check_name(column, "column")
    if EVERY_COLUMN in columns and len(columns) > 1:
        raise InvalidInput('columns holds "*" and other names: "*" already means all, write it alone')
    _check_once(columns, "columns")


def check_name(name: str, what: str) -> None:
    """Raises InvalidInput unless the name of a column or dataset fits on one line of a message."""
    if not name or len(name) > 255 or not name.isprintable():
        raise InvalidInput(f"a {what} name must be 1 to 255 printable characters, not {name[:40]!r}: rename it")


def check_parties(to: tuple[str, ...]) -> None:
    """Raises InvalidInput unless each recipient is spelled as a party."""
    for party in to:
        names.check_name("party", party)
    _check_once(to, "to")


def check_recipients(to: tuple[str, ...]) -> None:
    """Raises InvalidInput unless each recipient is spelled as a party, or as a role of the owner's users: `@name`."""
    for recipient in to:
        if recipient.startswith(ROLE_MARK):
            names.check_name("role", recipient.removeprefix(ROLE_MARK))
        else:
            names.check_name("party", recipient)
    _check_once(to, "to")


def check_purposes(purpose: tuple[str, ...]) -> None:
    """Raises InvalidInput unless each purpose is a short line of words."""
    for text in purpose:
        if not _PURPOSE.fullmatch(text):
            raise InvalidInput(
                f"purpose {text[:40]!r} must be 1 to 100 letters, digits and any of space . : / - _,"
                " beginning and ending with a letter or digit"
            )
    _check_once(purpose, "purpose")


def check_units(units: int) -> None:
    """Raises InvalidInput unless the threshold is one that protects."""
    if not MIN_UNITS <= units <= MAX_UNITS:
        raise InvalidInput(f"units = {units}: a threshold is from {MIN_UNITS} to {MAX_UNITS} units")


def _check_once(values: tuple[str, ...], key: str) -> None:
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise InvalidInput(f"{key} names {twice!r} twice: once is enough")
