# SPDX-License-Identifier: Apache-2.0
"""Coming back to a node that was away: how often, how long, and when not."""

import pytest

from junto.client.reattach import Patience, again
from junto.errors import DeadlineExceeded, InvalidInput, Unavailable


class _Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, clock=lambda: self.now, pause=self.pause)


def _away(times: int, then: str | Exception) -> list[str | Exception]:
    return [*[Unavailable("no link")] * times, then]


def _act(script: list[str | Exception]) -> str:
    found = script.pop(0)
    if isinstance(found, Exception):
        raise found
    return found


def test_a_node_that_comes_back_in_time_is_asked_again_at_growing_pauses() -> None:
    time, script = _Time(), _away(7, "here")
    assert again(time.patience(30.0), lambda: _act(script)) == "here"
    assert time.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8]


def test_when_the_time_is_up_the_reason_is_told() -> None:
    time, script = _Time(), _away(99, "here")
    with pytest.raises(Unavailable, match="no link"):
        again(time.patience(2.0), lambda: _act(script))
    assert time.now <= 2.0


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), InvalidInput("no such task")])
def test_what_is_no_lost_link_is_told_at_once(error: Exception) -> None:
    time, script = _Time(), _away(0, error)
    with pytest.raises(type(error)):
        again(time.patience(30.0), lambda: _act(script))
    assert time.pauses == []


def test_a_node_that_answered_has_its_time_anew() -> None:
    time = _Time()
    patience = time.patience(1.0)
    patience.lost(Unavailable("no link"))
    patience.extend(5.0)
    assert patience.left == 5.0
    patience.lost(Unavailable("no link"))
    assert time.pauses == [0.05, 0.05]
