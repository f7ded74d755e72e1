# SPDX-License-Identifier: Apache-2.0
"""Ids and values that every room shares."""

import re
from collections.abc import Callable
from typing import Literal, NewType

PartyId = NewType("PartyId", str)
"""An organisation's name in its consortium: lower-case letters, digits and hyphens."""

NodeId = NewType("NodeId", str)
"""A process of a party, unique within it."""

TaskId = NewType("TaskId", str)
"""One run of one question: 26 characters that sort by time."""

StepId = NewType("StepId", str)
"""One step of a plan, unique within it."""

DatasetName = NewType("DatasetName", str)
"""The name that owners give a dataset; the same name at several parties is one joint table."""

Withheld = Literal["none", "some", "unknown"]
"""The groups that were too small to show. `none`: the question has no threshold. `some`: enough units are behind them
for this to be told. `unknown`: there may be none, or few."""

Tokens = Literal["hmac", "oprf"]
"""The way in which contributors line up their groups. `hmac`: each can test any group it guesses, so the rules of all
must let each learn of the groups. `oprf`: nobody can test a guess alone. See `secure/alignment.py`."""

HIDDEN = b"junto.hidden"
"""In the schema of an answer: the number of groups in which a figure is NULL because its own threshold did not pass."""

OWN_LEFT_OUT = b"junto.own_left_out"
"""In the metadata of an answer: the number of groups of the asker's own rows that did not pass, in decimal digits."""

Digest = NewType("Digest", str)
"""`sha256:` and 64 hexadecimal digits."""

RandomBytes = Callable[[int], bytes]
"""Cryptographic randomness as an argument; production passes `secrets.token_bytes`."""

_ID_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
_TASK_ID = re.compile(rf"[0-7][{_ID_LETTERS}]{{25}}")


def spelled_id(now: float, tail: bytes) -> str:
    """26 characters in the order of `now` (unix seconds): 48 bits of milliseconds and ten bytes that make it unique, in
    Crockford's base 32, as ULIDs are."""
    value = (int(now * 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(tail[:10], "big")
    return "".join(_ID_LETTERS[value >> shift & 31] for shift in range(125, -5, -5))


def is_task_id(text: str) -> bool:
    """True if a text is spelled as an id of a task is."""
    return _TASK_ID.fullmatch(text) is not None


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str | float) -> float:
    """The seconds in a duration written `500ms`, `30s`, `5m`, `2h` or `1d`; a bare number is seconds.

    Raises ValueError unless it is positive and finite.
    """
    if isinstance(text, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is not a duration; write 500ms, 30s, 5m, 2h or 1d")
        value = float(match[1]) * _UNITS[match[2] or "s"]
    else:
        value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError("a duration is longer than nothing; write 500ms, 30s, 5m, 2h or 1d")
    return value
