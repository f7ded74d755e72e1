# SPDX-License-Identifier: Apache-2.0
"""Who watches hears each notice once, across lost links and restarted nodes, and may stop at any time."""

from collections.abc import Iterator
from itertools import islice

import msgspec
import pytest

from junto.client.notices import followed
from junto.errors import DeadlineExceeded, InvalidInput, JuntoError, PeerFault, Unavailable
from junto.link.methods import Follow, Notice
from junto.types import PartyId, TaskId


def _notice(number: int) -> Notice:
    return Notice(f"ntc_{number}", "ended", TaskId("t"), PartyId("bts"), PartyId("bts"), f"{number}", 0.0, "info")


class _Node:
    """Answers each time as it is told: notices, then perhaps an error. The clock moves a second with each notice."""

    def __init__(self, *answers: tuple[int, ...] | JuntoError) -> None:
        self._answers = list(answers)
        self.asked: list[Follow] = []
        self.pauses: list[float] = []
        self.told: list[str] = []
        self.now = 100.0

    def stream(self, asked: Follow, seconds: float) -> Iterator[bytes]:
        self.asked.append(asked)
        answer = self._answers.pop(0)
        if isinstance(answer, JuntoError):
            raise answer
        for number in answer:
            self.now += 1
            yield msgspec.json.encode(_notice(number))
        raise Unavailable("the link went down")

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def follow(self, count: int, past_seconds: float = 0.0) -> list[str]:
        """The next notices' texts."""
        found = followed(
            self.stream,
            tasks=(TaskId("t"),),
            kinds=("ended",),
            past_seconds=past_seconds,
            lost=self.told.append,
            clock=lambda: self.now,
            pause=self.pause,
        )
        return [notice.text for notice in islice(found, count)]


def test_a_node_that_restarts_is_asked_for_what_was_missed_and_nothing_is_told_twice() -> None:
    node = _Node((1, 2), Unavailable("refused"), Unavailable("refused"), (1, 2, 3), (3, 4))
    assert node.follow(4, past_seconds=60.0) == ["1", "2", "3", "4"]
    assert node.asked[0] == Follow(60.0, (TaskId("t"),), ("ended",))
    # The last came 0.1 s before the second attempt, which asks a little further back; never before the watch began.
    assert [round(asked.past_seconds, 3) for asked in node.asked[1:4]] == [30.1, 30.3, 30.8]


def test_what_happened_before_the_watch_began_is_not_asked_for_after_a_break() -> None:
    node = _Node((1,), (2,))
    assert node.follow(2) == ["1", "2"]
    assert [round(asked.past_seconds, 3) for asked in node.asked] == [0.0, 1.1]


def test_a_break_is_told_once_and_only_if_it_lasts() -> None:
    node = _Node((1,), (2,), *[Unavailable("nobody is there")] * 6, (3,))
    assert node.follow(3) == ["1", "2", "3"]
    assert node.told == ["nobody is there"]
    assert node.pauses == [0.1, 0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_the_end_of_a_streams_own_time_is_no_break() -> None:
    node = _Node(DeadlineExceeded("an hour is over"), (1,))
    assert node.follow(1) == ["1"]
    assert node.told == []


def test_what_the_node_refuses_ends_the_watch() -> None:
    with pytest.raises(InvalidInput, match="no kind"):
        _Node(InvalidInput("no kind of notice is called x")).follow(1)


def test_words_of_another_version_are_named() -> None:
    with pytest.raises(PeerFault, match="another version"):
        next(followed(lambda asked, seconds: iter([b"{}"])))
