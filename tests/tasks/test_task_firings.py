# SPDX-License-Identifier: Apache-2.0
"""Each occasion of a trigger runs exactly once, wherever the node dies and whatever its clock does."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from junto.plan.steps import Plan
from junto.tasks.bodies import End
from junto.tasks.firings import (
    LATE_SECONDS,
    MOST_WAITING,
    Changed,
    Created,
    Due,
    Event,
    Fired,
    Firings,
    Misfired,
    TaskEnded,
    VersionSeen,
)
from junto.tasks.triggers import (
    Cron,
    Firing,
    Misfire,
    Missed,
    NewVersion,
    Standing,
    TaskEnd,
    Trigger,
    TriggerEnd,
    TriggerState,
    When,
    by_hand,
    firing_by_hand,
    firing_of,
    spoken,
)
from junto.types import DatasetName, Digest, PartyId, TaskId, is_task_id

BTS, DELTA = PartyId("bts"), PartyId("delta")
FLIGHTS = DatasetName("flights")
EVERY = Cron("every 600 s")
V1, V2, V3 = (Digest(f"sha256:{n}") for n in (1, 2, 3))


def every_ten_minutes(cron: Cron, after: float) -> float:
    return (after // 600 + 1) * 600


def trigger(when: When = EVERY, missed: Missed = "catch-up", name: str = "nightly") -> Trigger:
    return Trigger(name, "ana", Plan("SELECT 1", BTS, ()), (), when, missed, 60.0)


@dataclass
class Party:
    """A node that journals, fires and dies. `journal` is what survives; `asked` what ran."""

    journal: list[Event] = field(default_factory=list)
    asked: list[TaskId] = field(default_factory=list)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.firings = Firings(every_ten_minutes, self.now)

    def says(self, event: Event) -> None:
        """A statement: journaled, then known."""
        self.journal.append(event)
        self.firings.handle(event)

    def dies_and_comes_back(self, after: float = 0.0) -> None:
        self.now += after
        self.firings = Firings(every_ten_minutes, self.now)
        for event in self.journal:
            self.firings.handle(event)
        for firing in self.firings.running:
            self._ask(firing)

    def turns(self, dies_before_asking: Callable[[], bool] = lambda: False) -> list[Due]:
        """Fire what is due; each task ends at once. What was due."""
        fired = []
        while dues := self.firings.due(self.now):
            for due in dues:
                firing = firing_of(due.trigger, due.occasion, due.due, self.now)
                self.says(Fired(firing))
                fired.append(due)
                if dies_before_asking():
                    self.dies_and_comes_back()
                    break
                self._ask(firing)
        return fired

    def _ask(self, firing: Firing) -> None:
        self.asked.append(firing.task)
        self.says(TaskEnded(firing.task, "done", self.now))

    @property
    def fired(self) -> list[Firing]:
        return [event.firing for event in self.journal if isinstance(event, Fired)]

    @property
    def occasions(self) -> list[str]:
        return [firing.occasion for firing in self.fired]


def party(when: When = EVERY, missed: Missed = "catch-up") -> Party:
    made = Party()
    made.says(Created("t", trigger(when, missed), made.now))
    return made


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_firing_is_the_same_whoever_derives_it_and_another_for_another_occasion() -> None:
    one = firing_of("t", "1200", 1200.0, 1201.0)
    assert one == firing_of("t", "1200", 1200.0, 1201.0)
    assert is_task_id(one.task)
    others = [firing_of("t", "1800", 1200.0, 1201.0), firing_of("u", "1200", 1200.0, 1201.0)]
    assert len({one.id, *(other.id for other in others)}) == len({one.task, *(other.task for other in others)}) == 3


def test_conditions_are_told_in_words() -> None:
    assert spoken(Cron("0 3 * * *", "Europe/Berlin")) == "at 0 3 * * * (Europe/Berlin)"
    assert spoken(NewVersion(FLIGHTS)) == "a new version of flights at any party"
    assert spoken(NewVersion(FLIGHTS, DELTA)) == "a new version of flights at delta"
    assert spoken(TaskEnd(TaskId("01j"))) == "the end of task 01j"
    assert spoken(TriggerEnd("nightly", "done")) == "the end of each task of trigger nightly with an answer"


# ── the clock ───────────────────────────────────────────────────────────────────────────────────────


def test_a_clock_fires_at_its_times_and_not_before() -> None:
    ann = party()
    assert ann.turns() == []
    assert ann.firings.wake_at(ann.now) == 1200.0
    ann.now = 1199.9
    assert ann.turns() == []
    ann.now = 1200.0
    assert [due.due for due in ann.turns()] == [1200.0]
    assert ann.turns() == []


def test_a_trigger_runs_one_task_at_a_time() -> None:
    ann = party()
    ann.now = 1200.0
    (due,) = ann.firings.due(ann.now)
    firing = firing_of(due.trigger, due.occasion, due.due, ann.now)
    ann.says(Fired(firing))
    ann.now = 2400.0
    assert ann.firings.due(ann.now) == []
    assert ann.firings.running == [firing]
    ann.firings.handle(TaskEnded(firing.task, "expired", ann.now))
    assert [due.due for due in ann.firings.due(ann.now)] == [1800.0]


@pytest.mark.parametrize(("missed", "fires"), [("catch-up", [1200.0, 1800.0, 2400.0, 3000.0]), ("skip", [3000.0])])
def test_missed_times_are_caught_up_oldest_first_or_skipped(missed: Missed, fires: list[float]) -> None:
    ann = party(missed=missed)
    ann.dies_and_comes_back(1700.0)  # 2700
    early = [due.due for due in ann.turns()]
    ann.now = 3000.0
    assert early + [due.due for due in ann.turns()] == fires


def test_what_is_left_out_is_told_once() -> None:
    ann = party(missed="skip")
    ann.dies_and_comes_back(1700.0)
    ann.turns()
    assert [due.due for due in ann.firings.left_out()] == [1200.0, 1800.0, 2400.0]
    ann.turns()
    assert ann.firings.left_out() == []


def test_a_time_is_not_missed_while_it_is_hardly_past() -> None:
    ann = party(missed="skip")
    ann.dies_and_comes_back(200.0 + LATE_SECONDS)
    assert [due.due for due in ann.turns()] == [1200.0]


def test_of_very_many_missed_times_the_latest_are_caught_up() -> None:
    ann = party()
    ann.now += 600 * 100_000
    ends = [due.due for due in ann.turns()]
    assert len(ends) == MOST_WAITING
    assert ends == sorted(ends)
    assert ann.now - ends[-1] < 600


def test_a_clock_set_back_fires_nothing_twice_and_goes_on() -> None:
    ann = party()
    for ann.now in (1200.0, 1800.0, 1000.0, 1200.0, 1850.0, 2400.0):
        ann.turns()
    assert ann.occasions == ["1200", "1800", "2400"]


def test_a_clock_that_was_far_ahead_does_not_silence_the_trigger() -> None:
    ann = party()
    ann.now = 1e9
    ann.turns()
    ann.now = 1100.0  # set right
    ann.turns()
    ann.now = 1200.0
    ann.turns()
    assert ann.occasions[-1] == "1200"
    ann.now = 1500.0
    ann.dies_and_comes_back(0.0)
    ann.turns()
    ann.now = 1800.0
    ann.turns()
    assert ann.occasions[-1] == "1800"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["passes", "passes", "dies", "dies asking", "back", "forward"]),
            st.integers(1, 4000),
        ),
        max_size=40,
    )
)
@example([("back", 401), ("dies", 1)])
@settings(derandomize=True, max_examples=200, deadline=None)
def test_every_time_that_was_shown_runs_exactly_once_whatever_dies_and_jumps(story: list[tuple[str, int]]) -> None:
    ann = party()
    made = ann.now
    shown: set[str] = set()
    for what, seconds in story:
        before = ann.now
        if what == "back":
            ann.now = max(0.0, ann.now - seconds)
        elif what == "dies":
            ann.dies_and_comes_back(float(seconds))
        else:
            ann.now += seconds
        # A node that was down does not know how long, nor of times then that are before the trigger was made.
        since = max(before, made) if what == "dies" else before
        shown |= {f"{due}" for due in range(600, 600 * 1000, 600) if since < due <= ann.now}
        deaths = iter([what == "dies asking"])
        ann.turns(lambda deaths=deaths: next(deaths, False))  # type: ignore[misc]  # a default binds the loop's value
    assert len(set(ann.occasions)) == len(ann.occasions)
    assert set(ann.occasions) == shown
    assert sorted(ann.asked) == sorted(firing.task for firing in ann.fired)
    assert len(set(ann.asked)) == len(ann.asked)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4000)), max_size=30))
@settings(derandomize=True, max_examples=100, deadline=None)
def test_a_trigger_that_skips_never_runs_late_nor_twice(story: list[tuple[bool, int]]) -> None:
    ann = party(missed="skip")
    for dies, seconds in story:
        if dies:
            ann.dies_and_comes_back(float(seconds))
        else:
            ann.now += seconds
        assert all(0 <= ann.now - due.due <= LATE_SECONDS for due in ann.turns())
    assert len(set(ann.occasions)) == len(ann.occasions)


# ── versions ────────────────────────────────────────────────────────────────────────────────────────


def _version(party: PartyId, version: Digest, at: float) -> VersionSeen:
    return VersionSeen(party, FLIGHTS, version, at)


def test_a_new_version_fires_and_the_one_of_before_does_not() -> None:
    ann = Party()
    ann.says(_version(DELTA, V1, 900.0))
    ann.says(Created("t", trigger(NewVersion(FLIGHTS)), ann.now))
    assert ann.turns() == []
    ann.says(_version(DELTA, V1, 1001.0))  # as it was
    ann.says(_version(DELTA, V3, 950.0))  # an old one that comes late
    assert ann.turns() == []
    ann.says(_version(DELTA, V2, 1002.0))
    ann.says(_version(DELTA, V1, 1003.0))  # the first one again is new
    ann.says(_version(BTS, V1, 1004.0))
    assert len(ann.turns()) == 3


def test_a_version_of_another_party_or_dataset_does_not_fire() -> None:
    ann = party(NewVersion(FLIGHTS, DELTA))
    ann.says(_version(BTS, V1, 1001.0))
    ann.says(VersionSeen(DELTA, DatasetName("airports"), V1, 1001.0))
    assert ann.turns() == []
    ann.says(_version(DELTA, V1, 1002.0))
    assert len(ann.turns()) == 1


@pytest.mark.parametrize(("missed", "fires"), [("catch-up", [2000.0]), ("skip", [])])
def test_of_the_versions_published_while_the_node_was_down_the_latest_is_caught_up(
    missed: Missed, fires: list[float]
) -> None:
    ann = party(NewVersion(FLIGHTS), missed)
    ann.dies_and_comes_back(5000.0)
    ann.says(_version(DELTA, V1, 1900.0))
    ann.says(_version(BTS, V1, 2000.0))
    assert [due.due for due in ann.turns()] == fires
    ann.says(_version(DELTA, V2, 6001.0))
    assert [due.due for due in ann.turns()] == [6001.0]


@given(
    st.lists(st.tuples(st.sampled_from([BTS, DELTA]), st.sampled_from([V1, V2, V3]), st.integers(0, 2)), max_size=30)
)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_every_version_that_arrives_runs_exactly_once_wherever_the_node_dies(
    story: list[tuple[PartyId, Digest, int]],
) -> None:
    ann = party(NewVersion(FLIGHTS), "skip" if len(story) % 2 else "catch-up")
    known: dict[PartyId, Digest] = {}
    changes = 0
    for of, version, dies in story:
        ann.now += 1
        changes += known.get(of) != version
        known[of] = version
        ann.says(_version(of, version, ann.now))
        if dies == 1:
            ann.dies_and_comes_back()
        deaths = iter([dies == 2])
        ann.turns(lambda deaths=deaths: next(deaths, False))  # type: ignore[misc]  # a default binds the loop's value
    assert len(ann.occasions) == len(set(ann.occasions)) == changes == len(set(ann.asked)) == len(ann.asked)


# ── the ends of tasks ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ends", "end", "fires"), [("any", "failed", 1), ("any", "done", 1), ("done", "failed", 0), ("done", "done", 1)]
)
def test_a_tasks_end_fires_once(ends: str, end: End, fires: int) -> None:
    task = TaskId("01jother")
    ann = party(TaskEnd(task, "done" if ends == "done" else "any"))
    ann.says(TaskEnded(TaskId("01janother"), "done", 1001.0))
    ann.says(TaskEnded(task, end, 1002.0))
    assert len(ann.turns()) == fires
    ann.says(TaskEnded(task, end, 1003.0))
    ann.dies_and_comes_back()
    assert ann.turns() == []


def test_a_trigger_follows_every_task_of_another_in_whatever_order_the_journal_tells() -> None:
    ann = Party()
    ann.says(Created("a", trigger(name="a"), ann.now))
    ann.says(Created("b", trigger(TriggerEnd("a", "done"), name="b"), ann.now))
    ann.now = 1200.0
    assert [due.trigger for due in ann.turns()] == ["a", "b"]
    first = next(f for f in ann.fired if f.trigger == "a")
    ended = TaskEnded(first.task, "done", 1200.0)
    ann.journal.remove(ended)
    ann.journal.append(ended)  # its receipt was durable after the firing that it led to
    ann.dies_and_comes_back()
    assert ann.turns() == []
    ann.now = 1800.0
    assert [due.trigger for due in ann.turns()] == ["a", "b"]


def test_an_end_that_nobody_saw_before_the_crash_is_caught_up() -> None:
    ann = Party()
    ann.says(Created("a", trigger(name="a"), ann.now))
    ann.says(Created("b", trigger(TriggerEnd("a"), name="b"), ann.now))
    firing = firing_of("a", "1200", 1200.0, 1200.0)
    ann.journal += [Fired(firing), TaskEnded(firing.task, "failed", 1201.0)]
    ann.dies_and_comes_back(9000.0)
    assert next(due for due in ann.turns() if due.trigger == "b").occasion == firing.task


# ── users ───────────────────────────────────────────────────────────────────────────────────────────


def _changed(state: Standing, at: float) -> Changed:
    return Changed(TriggerState("t", state, "ana"), at)


def test_what_comes_while_a_trigger_is_paused_is_not_made_up_for() -> None:
    ann = party()
    ann.says(_changed("paused", 1100.0))
    ann.now = 5000.0
    assert ann.turns() == []
    assert ann.firings.wake_at(ann.now) is None
    ann.says(_changed("active", 5000.0))
    ann.dies_and_comes_back()
    assert ann.turns() == []
    ann.now = 5400.0
    assert [due.due for due in ann.turns()] == [5400.0]


def test_a_removed_trigger_is_gone_when_its_task_has_ended() -> None:
    ann = party()
    ann.now = 1200.0
    (due,) = ann.firings.due(ann.now)
    firing = firing_of(due.trigger, due.occasion, due.due, ann.now)
    ann.says(Fired(firing))
    ann.says(_changed("removed", 1201.0))
    assert ann.firings.standing == []
    assert ann.firings.named("nightly") is None
    assert ann.firings.running == [firing]
    ann.firings.handle(TaskEnded(firing.task, "done", 1202.0))
    assert ann.firings.running == []
    ann.says(Created("u", trigger(), 1203.0))
    assert ann.firings.named("nightly") is ann.firings.of("u")


def test_a_firing_by_hand_runs_beside_the_others_and_once() -> None:
    ann = party()
    task = TaskId("01jhand")
    for _ in range(2):
        ann.says(Fired(firing_by_hand("t", task, "ana", ann.now)))
    assert [firing.task for firing in ann.firings.running] == [task]
    assert by_hand(task) in ann.firings.of("t").done
    ann.firings.handle(TaskEnded(task, "done", ann.now))
    ann.now = 1200.0
    assert [due.due for due in ann.turns()] == [1200.0]


def test_a_firing_that_came_to_no_task_is_remembered_and_the_next_goes_on() -> None:
    ann = party()
    ann.now = 1200.0
    (due,) = ann.firings.due(ann.now)
    firing = firing_of(due.trigger, due.occasion, due.due, ann.now)
    ann.says(Fired(firing))
    ann.says(Misfired(Misfire(firing.id, "t", "invalid-input", "flights is no longer published")))
    assert ann.firings.running == []
    assert ann.firings.of("t").misfires[firing.id].reason == "flights is no longer published"
    ann.now = 1800.0
    ann.dies_and_comes_back()
    assert [due.due for due in ann.turns()] == [1800.0]


def test_statements_about_an_unknown_trigger_change_nothing() -> None:
    ann = Party()
    ann.says(_changed("paused", 1.0))
    ann.says(Fired(firing_of("t", "600", 600.0, 600.0)))
    ann.says(Misfired(Misfire("f", "t", "internal", "")))
    assert not ann.firings.standing
    assert not ann.firings.running
    assert not ann.turns()
