# SPDX-License-Identifier: Apache-2.0
"""Every lapse, absence, retry and end of a task is told once, by whoever's machine knows it, under one id for ever."""

from task_world import (
    BTS,
    DELTA,
    PATIENCE,
    START,
    TASK,
    UNITED,
    after,
    asker,
    at_state,
    confirmed,
    contracted,
    offered,
    permitted,
    receipt,
    refused,
    running_asker,
    stopped,
)

from junto.tasks.events import Event, Opened, PartyDown, PartyUp, StepTried, Ticked
from junto.tasks.notices import KINDS, PROGRESS, Kind, Notice, Sight, notices, sight
from junto.tasks.state import Task
from junto.types import StepId

AWAY = PATIENCE.absence_seconds


def _look(task: Task, at: float, before: Sight | None = None) -> Sight:
    return sight(task, at, PATIENCE.absence_seconds, before)


def _told(task: Task, *events: Event, before: Sight | None = None) -> list[Notice]:
    """What a watcher hears while these happen to the task."""
    seen = before or _look(task, task.since)
    found: list[Notice] = []
    for event in events:
        task.handle(event)
        now = _look(task, event.at, seen)
        found += notices(seen, now)
        seen = now
    return found


def _kinds(found: list[Notice]) -> list[Kind]:
    return [notice.kind for notice in found]


def test_a_task_tells_its_states_its_finished_parts_and_its_end() -> None:
    task = after(DELTA)
    found = _told(
        task,
        Opened("proposal-1", START),
        permitted(DELTA, START + 1),
        contracted(START + 2),
        confirmed(UNITED, "q-united", at=START + 3),
        receipt(START + 4),
    )
    assert [(notice.kind, notice.party, notice.text) for notice in found] == [
        ("state", BTS, "the task of bts is judging"),
        ("state", BTS, "the task of bts is offered"),
        ("state", BTS, "the task of bts is running"),
        ("step", UNITED, "united finished its part of step q-united"),
        ("ended", BTS, "the task is done"),
    ]
    assert {notice.by for notice in found} == {DELTA}
    assert {notice.task for notice in found} == {TASK}
    assert [notice.at for notice in found] == [START, START + 1, START + 2, START + 3, START + 4]


def test_an_expired_task_names_who_was_waited_for_and_for_what() -> None:
    task = running_asker()
    lapse, end = _told(task, confirmed(DELTA, "q-delta", at=START + 1), Ticked(task.deadline))[-2:]
    assert (lapse.kind, lapse.party, lapse.severity) == ("wait", UNITED, "warning")
    assert "waiting 60 s for united: step q-united" in lapse.text
    assert (end.kind, end.party, end.severity) == ("ended", UNITED, "error")
    assert lapse.text in end.text


def test_everyone_tells_the_same_lapse_each_in_its_own_name() -> None:
    mine, theirs = asker(offered(DELTA)), at_state("offered")
    at = START + PATIENCE.offer_seconds
    told = _told(mine, Ticked(at))
    assert mine.outcome is not None
    heard = _told(theirs, stopped(BTS, mine.outcome.end, because=mine.outcome.party, at=at))
    assert _kinds(told) == ["wait", "ended"]
    assert _kinds(heard) == ["ended"]  # its stop says out of memory: nothing lapsed
    assert told[1].id != heard[0].id
    assert (told[1].by, heard[0].by) == (BTS, DELTA)


def test_a_refused_or_cancelled_task_is_no_fault() -> None:
    for end in ("refused", "cancelled"):
        (found,) = _told(at_state("running"), stopped(BTS, end, at=START + 1))
        assert (found.kind, found.severity) == ("ended", "warning")


def test_a_link_that_blinks_is_no_notice() -> None:
    task = at_state("running")
    assert _told(task, PartyDown(BTS, "reset", START + 1), PartyUp(BTS, START + 2), Ticked(START + 10)) == []


def test_a_participant_that_stays_away_is_told_once_and_its_return_too() -> None:
    task = at_state("running")
    gone = START + 1
    found = _told(
        task,
        PartyDown(BTS, "its link went down", gone),
        Ticked(gone + AWAY),
        Ticked(gone + AWAY + 1),
        PartyUp(BTS, gone + AWAY + 2),
    )
    assert [(notice.kind, notice.party, notice.text) for notice in found] == [
        ("away", BTS, "bts stays away, for 5 s now: its link went down"),
        ("back", BTS, "bts is back after 7 s"),
    ]


def test_a_second_absence_is_another_notice() -> None:
    task = at_state("running")
    found = _told(
        task,
        PartyDown(BTS, "reset", START + 1),
        Ticked(START + 1 + AWAY),
        PartyUp(BTS, START + 10),
        PartyDown(BTS, "reset", START + 20),
        Ticked(START + 20 + AWAY),
    )
    assert _kinds(found) == ["away", "back", "away"]
    assert len({notice.id for notice in found}) == 3


def test_a_step_that_is_tried_again_says_which_attempt_and_why() -> None:
    task = at_state("running")
    found = _told(
        task,
        StepTried(StepId("q-delta"), 1, "unavailable", "its engine hung up", START + 1),
        StepTried(StepId("q-delta"), 2, "unavailable", "its engine hung up", START + 2),
    )
    assert [notice.text for notice in found] == [
        "step q-delta is tried again (attempt 2): its engine hung up",
        "step q-delta is tried again (attempt 3): its engine hung up",
    ]
    assert len({notice.id for notice in found}) == 2


def test_a_wait_past_its_limit_that_ends_nothing_is_told_once() -> None:
    task = asker(offered(DELTA))
    seen = _look(task, START + 1)
    limit = START + PATIENCE.offer_seconds
    late = _look(task, limit, seen)
    assert [(n.kind, n.party) for n in notices(seen, late)] == [("wait", UNITED)]
    assert notices(late, _look(task, limit + 1, late)) == []


def test_nothing_new_is_no_notice() -> None:
    for state in ("judging", "proposed", "offered", "running", "done"):
        task = at_state(state)
        seen = _look(task, START)
        assert notices(seen, _look(task, START + 0.5, seen)) == []


def test_the_same_fact_has_the_same_id_whoever_looks_first() -> None:
    watched = at_state("running")
    live = _told(watched, confirmed(UNITED, "q-united", at=START + 1), stopped(BTS, at=START + 2))
    again = at_state("running")
    again.handle(confirmed(UNITED, "q-united", at=START + 1))
    again.handle(stopped(BTS, at=START + 2))
    (end,) = notices(None, _look(again, START + 99))
    assert end == live[-1]  # the moment of the end, too, not that of the look


def test_an_open_task_seen_for_the_first_time_tells_all_that_still_matters() -> None:
    task = at_state("running")
    for event in (
        confirmed(UNITED, "q-united", at=START + 1),
        PartyDown(BTS, "reset", START + 2),
        Ticked(START + 2 + AWAY),
    ):
        task.handle(event)
    assert _kinds(notices(None, _look(task, START + 20))) == ["state", "step", "away"]


def test_reasons_of_several_lines_become_one() -> None:
    task = asker(refused(DELTA), refused(UNITED, at=START + 0.5))
    (end,) = notices(None, _look(task, START + 2))
    assert end.text == "the task was refused: delta says no; united says no"


def test_progress_is_what_nobody_is_called_for() -> None:
    assert set(KINDS) >= PROGRESS
    assert "ended" not in PROGRESS
