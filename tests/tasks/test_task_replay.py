# SPDX-License-Identifier: Apache-2.0
"""A journal that is read again: its deadlines count by our clock, however wrong those of others are."""

import pytest
from task_world import BTS, CONTRACT, OFFERS, PATIENCE, PROPOSAL, SECONDS, START, TASK, UNITED, offer_of, proposal

from junto.tasks.replay import Entry, by_our_clock, replay

WRONG = [-1e6, -1500.0, 0.0, 1500.0, 1e6]


def _journal(theirs: float, *, judged: bool = True) -> list[Entry]:
    """What united has of a task that bts asked; the clock of bts is wrong by `theirs`."""
    entries = [
        Entry(0, BTS, PROPOSAL, START + theirs, proposal()),
        Entry(1, UNITED, "offer-united", START + 2, offer_of(UNITED)),
        Entry(2, BTS, "contract-1", START + 5 + theirs, CONTRACT, offers=OFFERS),
    ]
    return entries if judged else entries[:1]


@pytest.mark.parametrize("theirs", WRONG)
def test_a_deadline_counts_from_our_judgement_by_our_clock(theirs: float) -> None:
    now = START + 20
    task = replay(TASK, UNITED, by_our_clock(_journal(theirs), UNITED, now), PATIENCE)
    assert (task.state, task.deadline) == ("running", START + 2 + SECONDS)
    assert START + 2 <= task.since <= now


@pytest.mark.parametrize("theirs", WRONG)
def test_what_we_had_not_judged_has_just_come(theirs: float) -> None:
    task = replay(TASK, UNITED, by_our_clock(_journal(theirs, judged=False), UNITED, START + 20), PATIENCE)
    assert (task.state, task.deadline) == ("judging", START + 20 + SECONDS)


def test_clocks_that_agree_are_believed_and_ours_is_never_changed() -> None:
    journal = _journal(0.0)
    assert [entry.at for entry in by_our_clock(journal, UNITED, START + 20)] == [START + 2, START + 2, START + 5]
    assert by_our_clock(journal, BTS, START + 20)[0] == journal[0]
