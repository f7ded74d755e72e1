# SPDX-License-Identifier: Apache-2.0
"""Waiting for a task's end: one exchange where all goes well, and as often as it takes where links are lost."""

import time
from typing import cast

import msgspec
import pytest

from junto.client.desk import Desk
from junto.client.profile import Profile
from junto.errors import DeadlineExceeded, Unavailable
from junto.link import methods
from junto.types import PartyId, TaskId

ONE, NEXT = TaskId("01jone"), TaskId("01jnext")
NOWHERE = TaskId("")
BTS = PartyId("bts")


def _progress(task: TaskId, state: str, continued: TaskId = NOWHERE) -> methods.Progress:
    deadline = time.time() + 60.0
    return methods.Progress(task, "SELECT 1", BTS, "ana", "", (BTS,), state, 0.0, deadline, continued=continued)


class _Scripted(Desk):
    """A desk whose node answers as the script says."""

    def __init__(self, *script: list[bytes] | Unavailable) -> None:
        super().__init__(cast(Profile, None))  # which nothing is dialled with here
        self.did: list[str] = []
        self._script = list(script)

    def task(self, task: TaskId) -> methods.Progress:
        self.did.append(f"task {task}")
        return _progress(task, "running")

    def _pieces(self, method: str, body: methods.Message, seconds: float) -> list[bytes]:
        self.did.append(f"{method} {cast(methods.Which, body).task} {seconds:.0f}")
        found = self._script.pop(0)
        if isinstance(found, Unavailable):
            raise found
        return found


def _end(task: TaskId, *answer: bytes, continued: TaskId = NOWHERE) -> list[bytes]:
    return [msgspec.json.encode(_progress(task, "done", continued)), *answer]


def test_who_knows_how_long_a_task_may_take_hears_of_its_end_in_one_exchange() -> None:
    desk = _Scripted(_end(ONE, b"small"))
    ended = desk.ended(ONE, None, 60.0)
    assert (ended.progress.state, ended.data) == ("done", b"small")
    assert desk.did == ["user.wait 01jone 75"]


def test_who_does_not_asks_first() -> None:
    desk = _Scripted(_end(ONE))
    assert desk.ended(ONE).data is None
    assert desk.did == ["task 01jone", "user.wait 01jone 75"]


@pytest.mark.parametrize("lost", [Unavailable("the link is lost"), cast(list[bytes], [])])
def test_a_lost_wait_is_taken_up_again(lost: list[bytes] | Unavailable) -> None:
    desk = _Scripted(lost, _end(ONE, b"small"))
    assert desk.ended(ONE, None, 60.0).data == b"small"
    assert desk.did == ["user.wait 01jone 75", "task 01jone", "user.wait 01jone 75"]


def test_a_wait_that_takes_too_long_ends() -> None:
    desk = _Scripted(DeadlineExceeded("late"))
    with pytest.raises(DeadlineExceeded, match="late"):
        desk.ended(ONE, None, 60.0)
    assert desk.did == ["user.wait 01jone 75"]


def test_the_task_that_goes_on_without_some_is_followed() -> None:
    desk = _Scripted(_end(ONE, continued=NEXT), _end(NEXT, b"small"))
    assert desk.ended(ONE, None, 60.0).progress.task == NEXT
    assert desk.did == ["user.wait 01jone 75", "task 01jnext", "user.wait 01jnext 75"]
