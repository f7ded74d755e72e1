# SPDX-License-Identifier: Apache-2.0
"""The frames that may arrive in each state, and the state they lead to; all else is the peer's fault."""

from typing import Final, Literal, TypeAlias

from junto.link.frames import (
    Call,
    Cancel,
    Drain,
    Error,
    Header,
    Hello,
    Notice,
    Ping,
    Pong,
    Reply,
    StreamCredit,
    StreamData,
    StreamEnd,
    StreamOpen,
)

LinkState: TypeAlias = Literal["greeting", "open", "closed"]
AskedState: TypeAlias = Literal["waiting", "reading", "unwanted", "stopped", "gone"]
ServedState: TypeAlias = Literal["new", "answering", "sending", "gone"]

LINK_MOVES: Final[dict[tuple[LinkState, type[Header]], LinkState]] = {
    ("greeting", Hello): "open",
    ("greeting", Error): "closed",
    ("open", Error): "closed",  # with id 0
    ("open", Notice): "open",
    ("open", Ping): "open",
    ("open", Pong): "open",
    ("open", Drain): "open",
}
ASKED_MOVES: Final[dict[tuple[AskedState, type[Header]], AskedState]] = {
    ("waiting", Reply): "gone",
    ("waiting", Error): "gone",
    ("reading", StreamData): "reading",
    ("reading", StreamEnd): "gone",
    ("reading", Error): "gone",
    ("unwanted", Reply): "gone",  # a call that we cancelled
    ("unwanted", Error): "gone",
    ("stopped", StreamData): "stopped",  # a stream that we cancelled
    ("stopped", StreamEnd): "gone",
    ("stopped", Error): "gone",
}
SERVED_MOVES: Final[dict[tuple[ServedState, type[Header]], ServedState]] = {
    ("new", Call): "answering",
    ("new", StreamOpen): "sending",
    ("answering", Cancel): "gone",
    ("sending", Cancel): "gone",
    ("sending", StreamCredit): "sending",
    ("gone", Cancel): "gone",
    ("gone", StreamCredit): "gone",
}
