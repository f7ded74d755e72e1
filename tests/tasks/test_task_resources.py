# SPDX-License-Identifier: Apache-2.0
"""Nothing is taken beyond what there is, everything comes back, and nobody waits for ever."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from junto.errors import InvalidTransition
from junto.tasks.capacity import Amount, Cap, Capacity, Kind
from junto.tasks.reservations import Denied, Granted, Lack, Lapsed, Outcome, Request, Started, Use
from junto.tasks.resources import (
    AGEING_SECONDS,
    BACKFILL_SECONDS,
    GRACE_SECONDS,
    LATEST_OVERTAKING_SECONDS,
    MOST_PRIORITY,
    MOST_WAITING,
    SLOT_AGEING_SECONDS,
    Resources,
)
from junto.types import PartyId, StepId, TaskId

ME, ACME, BEA = PartyId("me"), PartyId("acme"), PartyId("bea")
CAPACITY = Capacity(slots=2, memory=100, disk=1000, cap=Cap(slots=1, memory=70, tasks=4), caps={BEA: Cap(memory=40)})
WHOLE = Capacity(slots=1, memory=100, disk=1000)
FOREVER = float("inf")


def asked(
    task: str,
    memory: int = 10,
    *,
    party: PartyId = ME,
    at: float = 0.0,
    until: float = FOREVER,
    priority: int = 0,
    disk: int = 0,
    seconds: float = 1.0,
) -> Request:
    return Request(TaskId(task), party, Amount(memory, disk), priority, at, until, seconds)


def ask(resources: Resources, task: str, memory: int = 10, **more: object) -> list[Outcome]:
    """Asked, and under a contract as soon as it is granted."""
    outcomes = propose(resources, task, memory, FOREVER, **more)
    resources.contracted(TaskId(task))
    return outcomes


def propose(resources: Resources, task: str, memory: int, holds: float, **more: object) -> list[Outcome]:
    """Asked; without a contract it is held as long as `holds` says."""
    request = replace(asked(task, memory), **more)  # type: ignore[arg-type]  # the fields of a request
    return resources.request(request, holds)


def granted(outcomes: list[Outcome]) -> list[str]:
    return [one.task for one in outcomes if isinstance(one, Granted)]


def denied(outcomes: list[Outcome]) -> dict[str, str]:
    return {one.task: one.reason for one in outcomes if isinstance(one, Denied)}


def started(outcomes: list[Outcome]) -> list[str]:
    return [one.task for one in outcomes if isinstance(one, Started)]


# ── reservations ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_fits_is_held_until_the_task_ends() -> None:
    resources = Resources(ME, WHOLE)
    assert granted(ask(resources, "a", 60)) == ["a"]
    assert ask(resources, "b", 60) == []
    assert granted(resources.release(TaskId("a"), 5.0)) == ["b"]
    assert resources.release(TaskId("b"), 6.0) == []
    assert resources.view(6.0).use == Use()
    assert resources.view(6.0).parties == {}


def test_a_task_has_all_it_asks_for_or_nothing() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 60)
    ask(resources, "b", 60, amount=Amount(60, 500))
    assert resources.view(0.0).use == Use(0, 60, 0, 1)


def test_a_reservation_without_a_contract_lapses_and_the_next_has_it() -> None:
    resources = Resources(ME, WHOLE)
    propose(resources, "a", 60, 15.0)
    ask(resources, "b", 60)
    assert resources.wakes() == GRACE_SECONDS
    assert resources.advance(15.0) == [Lapsed(TaskId("a")), Granted(TaskId("b"))]
    assert not resources.contracted(TaskId("a"))


def test_a_reservation_for_no_time_lapses_in_the_next_moment() -> None:
    resources = Resources(ME, WHOLE)
    propose(resources, "a", 60, 0.0)
    assert resources.wakes() == 0.0
    assert resources.advance(0.0) == [Lapsed(TaskId("a"))]
    assert resources.wakes() is None


def test_a_reservation_under_a_contract_does_not_lapse() -> None:
    resources = Resources(ME, WHOLE)
    propose(resources, "a", 60, 15.0)
    assert resources.contracted(TaskId("a"))
    assert resources.advance(1e6) == []
    assert resources.view(1e6).use.memory == 60


def test_who_waits_past_its_limit_is_told_what_is_missing_who_has_it_and_when_it_may_start() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 60, party=ACME, seconds=30.0)
    ask(resources, "b", 50, at=1.0, until=9.0)
    assert resources.advance(8.999) == []
    assert resources.wakes() == 9.0  # even if it is asked after that: nobody has looked since
    (told,) = resources.advance(9.0)
    assert told == Denied(
        TaskId("b"),
        "busy",
        "me could not begin within 8 s: it needs 50 B of memory; of 100 B of memory at me acme has 60 B of memory; "
        "the earliest start is in about 21 s",
        21.0,
    )
    assert resources.view(9.0).waiting == ()


def test_what_no_wait_would_help_is_refused_at_once() -> None:
    resources = Resources(ME, CAPACITY)
    (told,) = ask(resources, "b", 41, party=BEA)
    assert isinstance(told, Denied)
    assert told.code == "refused"
    assert "me gives bea 40 B of memory at most ([resources.cap]" in told.reason


def test_what_is_expected_to_need_more_than_there_is_takes_all_there_is() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 10)
    assert ask(resources, "b", 10**9) == []
    assert granted(resources.release(TaskId("a"), 1.0)) == ["b"]
    assert resources.view(1.0).use.memory == 100


def test_a_party_at_its_cap_waits_and_holds_up_nobody_else() -> None:
    resources = Resources(ME, CAPACITY)
    ask(resources, "a", 40, party=BEA)
    assert ask(resources, "b", 10, party=BEA) == []
    assert granted(ask(resources, "c", 10, party=ACME, at=BACKFILL_SECONDS + 1)) == ["c"]
    assert granted(ask(resources, "d", 10, at=BACKFILL_SECONDS + 1)) == ["d"]
    assert resources.view(4.0).waiting[0][1] == Lack("memory", capped=True)
    assert resources.why(TaskId("b"), 4.0) == (
        "it needs 10 B of memory; me gives bea 40 B of memory at a time, and it has 40 B of memory"
    )
    assert granted(resources.release(TaskId("a"), 5.0)) == ["b"]


def test_the_number_of_a_partys_tasks_is_capped_too() -> None:
    resources = Resources(ME, CAPACITY)
    assert [len(ask(resources, task, 1, party=ACME)) for task in "abcde"] == [1, 1, 1, 1, 0]
    assert "it needs 1 task; me gives acme 4 tasks" in resources.why(TaskId("e"), 0.0)


def test_there_is_no_cap_on_the_nodes_own_party() -> None:
    resources = Resources(ME, CAPACITY)
    assert granted(ask(resources, "a", 100, party=ME)) == ["a"]


def test_a_higher_priority_goes_first() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 100)
    ask(resources, "b", 100, at=1.0)
    ask(resources, "c", 100, at=2.0, priority=5)
    assert granted(resources.release(TaskId("a"), 3.0)) == ["c"]


def test_age_wins_over_priority_in_the_end() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 100)
    ask(resources, "b", 100, at=0.0, priority=-1000)
    ask(resources, "c", 100, at=2 * MOST_PRIORITY * AGEING_SECONDS + 0.1, priority=1000)
    assert granted(resources.release(TaskId("a"), 30.0)) == ["b"]


def test_small_ones_go_before_a_large_one_only_so_long() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 60)
    ask(resources, "large", 80)
    assert granted(ask(resources, "b", 20, at=BACKFILL_SECONDS - 0.1)) == ["b"]
    assert granted(ask(resources, "c", 20, at=BACKFILL_SECONDS)) == []
    assert resources.view(BACKFILL_SECONDS).waiting[1] == (asked("c", 20, at=BACKFILL_SECONDS), Lack("turn"))
    assert granted(resources.release(TaskId("a"), 3.0)) == ["large"]


def test_a_large_one_that_could_not_start_before_its_limit_keeps_nobody() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 60, seconds=100.0)
    ask(resources, "large", 80, until=10.0)
    assert granted(ask(resources, "b", 20, at=5.0)) == ["b"]


def test_of_two_tasks_that_hold_what_the_other_waits_for_the_younger_yields() -> None:
    here, there = Resources(ME, WHOLE), Resources(ACME, WHOLE)
    propose(here, "older", 60, 15.0)
    propose(there, "younger", 60, 15.0)
    ask(here, "younger", 60, until=10.0)
    ask(there, "older", 60, until=10.0)
    at = here.wakes()
    assert at == GRACE_SECONDS
    assert list(denied(here.advance(at))) == ["younger"]
    assert there.advance(at) == []
    assert granted(there.release(TaskId("younger"), at)) == ["older"]


def test_who_waits_for_contracted_work_does_not_yield() -> None:
    resources = Resources(ME, WHOLE)
    propose(resources, "a", 60, 15.0)
    resources.contracted(TaskId("a"))
    ask(resources, "b", 60, until=10.0)
    assert resources.advance(9.9) == []


def test_who_ends_while_it_waits_frees_its_place() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 60)
    ask(resources, "large", 80)
    ask(resources, "b", 20, at=5.0)
    assert granted(resources.release(TaskId("large"), 6.0)) == ["b"]


def test_what_was_promised_before_a_restart_is_kept_even_if_there_is_less_now() -> None:
    resources = Resources(ME, WHOLE)
    resources.adopt(asked("a", 150), None)
    resources.adopt(asked("b", 10), 15.0)
    ask(resources, "c", 10)
    assert resources.advance(15.0) == [Lapsed(TaskId("b"))]
    assert granted(resources.release(TaskId("a"), 16.0)) == ["c"]


def test_one_party_cannot_fill_the_queue() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "held", 100)
    for number in range(MOST_WAITING):
        ask(resources, f"t{number}", 100, party=ACME)
    assert denied(ask(resources, "more", 100, party=ACME))["more"] == "1000 tasks of acme wait at me already"
    assert ask(resources, "other", 100, party=BEA) == []


def test_a_task_reserves_once() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a", 60)
    with pytest.raises(InvalidTransition, match="task a reserves twice"):
        ask(resources, "a", 60)


# ── slots ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_as_many_fragments_compute_as_there_are_slots() -> None:
    resources = Resources(ME, replace(WHOLE, slots=2))
    for task in "abc":
        ask(resources, task)
    assert [started(resources.take_slot(TaskId(t), StepId("q"), 0.0)) for t in "abc"] == [["a"], ["b"], []]
    assert resources.why(TaskId("c"), 0.0) == "it needs 1 slot; of 2 slots at me me has 2 slots"
    assert started(resources.give_slot(TaskId("a"), StepId("q"), 1.0)) == ["c"]


def test_a_party_at_its_cap_of_slots_lets_others_by() -> None:
    resources = Resources(ME, CAPACITY)
    for task, party in (("a", ACME), ("b", ACME), ("c", BEA)):
        ask(resources, task, party=party)
    assert [started(resources.take_slot(TaskId(t), StepId("q"), 0.0)) for t in "abc"] == [["a"], [], ["c"]]
    ((queued, lack),) = resources.view(0.0).queued
    assert (queued.task, lack) == ("b", Lack("slots", capped=True))


def test_slots_go_by_priority_then_age_and_age_wins() -> None:
    resources = Resources(ME, WHOLE)
    window = 2 * MOST_PRIORITY * SLOT_AGEING_SECONDS
    for task, priority in (("a", 0), ("b", -10), ("c", 10), ("d", 10)):
        ask(resources, task, priority=priority)
    resources.take_slot(TaskId("a"), StepId("q"), 0.0)
    resources.take_slot(TaskId("b"), StepId("q"), 0.0)
    resources.take_slot(TaskId("c"), StepId("q"), window - 1)
    resources.take_slot(TaskId("d"), StepId("q"), window + 1)
    order = [started(resources.give_slot(TaskId(t), StepId("q"), window + 2)) for t in "acb"]
    assert order == [["c"], ["b"], ["d"]]


def test_a_task_that_ended_gives_its_slot_back_when_its_fragment_has_stopped() -> None:
    resources = Resources(ME, WHOLE)
    ask(resources, "a")
    ask(resources, "b")
    for task in "ab":
        resources.take_slot(TaskId(task), StepId("q"), 0.0)
    assert resources.release(TaskId("a"), 1.0) == []
    assert resources.view(1.0).use == Use(1, 10, 0, 1)
    assert started(resources.give_slot(TaskId("a"), StepId("q"), 2.0)) == ["b"]


def test_who_has_no_contract_computes_nothing() -> None:
    resources = Resources(ME, WHOLE)
    propose(resources, "a", 10, 15.0)
    for task in ("a", "b"):
        with pytest.raises(InvalidTransition, match="nothing contracted"):
            resources.take_slot(TaskId(task), StepId("q"), 0.0)


def test_the_earliest_start_counts_what_others_said_they_need() -> None:
    resources = Resources(ME, replace(CAPACITY, memory=1000, caps={}))
    for task, party, seconds in (("a", ACME, 10.0), ("b", ME, 4.0), ("c", ME, 3.0)):
        ask(resources, task, party=party, seconds=seconds)
    ask(resources, "d", seconds=1.0)
    assert resources.starts_in(TaskId("d"), 0.0) == 7.0  # one slot until 10, the other until 4 + 3
    assert resources.starts_in(TaskId("d"), 3.5) == pytest.approx(0.5)  # c should be done by now
    ask(resources, "e", party=ACME, at=0.0)
    assert resources.starts_in(TaskId("e"), 0.0) == 10.0  # one slot at a time for acme
    assert Resources(ME, WHOLE).request(asked("x"), 1.0) == [Granted(TaskId("x"))]


# ── whatever happens ────────────────────────────────────────────────────────────────────────────────────────

PARTIES = (ME, ACME, BEA)
KINDS: tuple[Kind, ...] = ("slots", "memory", "disk", "tasks")


class AnyLoad(RuleBasedStateMachine):
    """Anything in any order; checked against plain sums."""

    def __init__(self) -> None:
        super().__init__()
        self.resources = Resources(ME, CAPACITY)
        self.now = 0.0
        self.number = 0
        self.requests: dict[str, Request] = {}
        self.holds: dict[str, float | None] = {}
        self.waiting: set[str] = set()
        self.held: set[str] = set()
        self.queued: set[str] = set()
        self.running: set[str] = set()

    def follow(self, outcomes: list[Outcome]) -> None:
        for one in outcomes:
            match one:
                case Granted(task):
                    self.waiting.remove(task)
                    self.held.add(task)
                case Denied(task):
                    self.waiting.remove(task)
                case Lapsed(task):
                    self.held.remove(task)
                case Started(task):
                    self.queued.remove(task)
                    self.running.add(task)

    @rule(
        party=st.sampled_from(PARTIES),
        memory=st.integers(0, 110),
        disk=st.integers(0, 1100),
        priority=st.integers(-20, 20),
        waits=st.floats(0.0, 20.0),
        seconds=st.floats(0.0, 20.0),
    )
    def ask(self, party: PartyId, memory: int, disk: int, priority: int, waits: float, seconds: float) -> None:
        self.number += 1
        task = TaskId(f"t{self.number:04}")
        request = Request(task, party, Amount(memory, disk), priority, self.now, self.now + waits, seconds)
        self.requests[task] = replace(request, amount=Amount(min(memory, 100), min(disk, 1000)))
        self.holds[task] = self.now + waits + 5.0
        self.waiting.add(task)
        self.follow(self.resources.request(request, self.now + waits + 5.0))

    @rule(seconds=st.floats(0.0, 8.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.follow(self.resources.advance(self.now))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def contract(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.held)))
        assert self.resources.contracted(TaskId(task))
        self.holds[task] = None

    @precondition(lambda self: self.idle())
    @rule(data=st.data())
    def take_slot(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.idle()))
        self.queued.add(task)
        self.follow(self.resources.take_slot(TaskId(task), StepId("q"), self.now))

    @precondition(lambda self: self.running | self.queued)
    @rule(data=st.data())
    def give_slot(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.running | self.queued)))
        self.running.discard(task)
        self.queued.discard(task)
        self.follow(self.resources.give_slot(TaskId(task), StepId("q"), self.now))

    @precondition(lambda self: self.held | self.waiting)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.held | self.waiting)))
        self.held.discard(task)
        self.waiting.discard(task)
        self.queued.discard(task)
        self.follow(self.resources.release(TaskId(task), self.now))

    @invariant()
    def nothing_is_taken_beyond_what_there_is(self) -> None:
        view = self.resources.view(self.now)
        assert {held.request.task for held in view.held} == self.held
        assert {request.task for request, _ in view.waiting} == self.waiting
        assert {fragment.task for fragment in view.running} == self.running
        assert view.use == self.sums(PARTIES)
        assert view.parties == {p: self.sums((p,)) for p in PARTIES if self.sums((p,)) != Use()}
        assert view.use.slots <= CAPACITY.slots
        assert view.use.memory <= CAPACITY.memory
        assert view.use.disk <= CAPACITY.disk
        for party in (ACME, BEA):
            cap, use = CAPACITY.cap_of(party, ME), self.sums((party,))
            for kind in KINDS:
                assert use.of(kind) <= (cap.of(kind) or 10**6)

    @invariant()
    def what_no_contract_followed_has_lapsed(self) -> None:
        assert all((self.holds[task] or FOREVER) > self.now for task in self.held)
        assert all(self.requests[task].until > self.now for task in self.waiting)

    @invariant()
    def nobody_waits_for_a_free_slot(self) -> None:
        free = self.sums(PARTIES).slots < CAPACITY.slots
        for task in self.queued if free else ():
            party = self.requests[task].party
            cap = CAPACITY.cap_of(party, ME).slots
            assert cap is not None
            assert self.sums((party,)).slots >= cap

    def idle(self) -> list[str]:
        """Tasks under contract none of whose fragments computes or wants to."""
        return sorted(t for t in self.held - self.running - self.queued if self.holds[t] is None)

    def sums(self, parties: tuple[PartyId, ...]) -> Use:
        held = [self.requests[task] for task in self.held if self.requests[task].party in parties]
        slots = sum(1 for task in self.running if self.requests[task].party in parties)
        return Use(slots, sum(r.amount.memory for r in held), sum(r.amount.disk for r in held), len(held))

    def teardown(self) -> None:
        for task in sorted(self.held | self.waiting):
            self.resources.release(TaskId(task), self.now)
        for task in sorted(self.running):
            self.resources.give_slot(TaskId(task), StepId("q"), self.now)
        view = self.resources.view(self.now)
        assert (view.use, view.parties, view.held, view.waiting) == (Use(), {}, (), ())
        assert (view.running, view.queued) == ((), ())
        assert self.resources.wakes() is None


AnyLoad.TestCase.settings = settings(derandomize=True, max_examples=150, stateful_step_count=40, deadline=None)
TestAnyLoad = AnyLoad.TestCase


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from((10, 60, 100)), st.sampled_from((-15, 0)))
def test_nobody_is_overtaken_by_one_that_came_much_later(rolled: Random, large: int, low: int) -> None:
    """The bound of the docstring; and as every task ends, everybody has their turn."""
    resources = Resources(ME, WHOLE)
    came: dict[str, float] = {}
    turns: dict[str, float] = {}
    ends: dict[str, float] = {}
    takes: dict[str, float] = {}

    def follow(outcomes: list[Outcome], now: float) -> None:
        for task in granted(outcomes):
            resources.contracted(TaskId(task))
            turns[task], ends[task] = now, now + takes[task]
            waits = [other for other, at in came.items() if other not in turns]
            overtaken = [other for other in waits if came[task] > came[other] + LATEST_OVERTAKING_SECONDS]
            assert not overtaken, f"{task} before {overtaken}"

    def until(now: float) -> None:
        while ends and min(ends.values()) <= now:
            task = min(ends, key=lambda t: (ends[t], t))
            at = ends.pop(task)
            follow(resources.release(TaskId(task), at), at)

    now = 0.0
    for number in range(120):
        now += rolled.choice((0.3, 1.0))
        until(now)
        task = f"t{number:03}"
        came[task], takes[task] = now, rolled.choice((0.5, 3.0, 6.0))
        memory, priority = (large, low) if number == 5 else (rolled.choice((5, 20, 40)), rolled.choice((0, 0, 15)))
        request = Request(TaskId(task), rolled.choice(PARTIES), Amount(memory), priority, now, FOREVER, takes[task])
        follow(resources.request(request, FOREVER), now)
    until(FOREVER)
    assert turns.keys() == came.keys()


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.permutations(range(3)), st.integers(30, 100), st.floats(0.0, 0.5)),
        min_size=2,
        max_size=20,
    )
)
def test_tasks_that_need_several_parties_do_not_wait_in_a_circle(
    tasks: list[tuple[list[int], int, float]],
) -> None:
    """Three nodes; each task reserves at all of them, and reaches them in its own order: some task always goes on, and
    by the last offer limit each has had all it needs or was turned away."""
    nodes = [Resources(party, WHOLE) for party in PARTIES]
    reserved: dict[str, set[int]] = {}
    over: set[str] = set()
    done: set[str] = set()
    arrivals = sorted(
        (turn * 0.5 + skew, order[turn], f"t{number:03}", memory)
        for number, (order, memory, skew) in enumerate(tasks)
        for turn in range(3)
    )

    def follow(node: int, outcomes: list[Outcome], now: float) -> None:
        for one in outcomes:
            match one:
                case Granted(task):
                    reserved[task].add(node)
                    if len(reserved[task]) == 3:
                        done.add(task)
                        end(task, now)
                case Denied(task):
                    end(task, now)
                case _:
                    raise AssertionError(one)

    def end(task: str, now: float) -> None:
        over.add(task)
        for node, resources in enumerate(nodes):
            follow(node, resources.release(TaskId(task), now), now)

    now = 0.0
    while arrivals or len(over) < len(tasks):
        wakes = [at for node in nodes if (at := node.wakes()) is not None]
        assert wakes or arrivals, "they wait, and nothing will happen"
        now = min([*wakes, *(at for at, *_ in arrivals[:1])])
        for node, resources in enumerate(nodes):
            follow(node, resources.advance(now), now)
        while arrivals and arrivals[0][0] <= now:
            _, node, task, memory = arrivals.pop(0)
            if task not in over:
                reserved.setdefault(task, set())
                request = Request(TaskId(task), ME, Amount(memory), 0, now, FOREVER, 0.1)
                follow(node, nodes[node].request(request, FOREVER), now)
    assert done, "nobody had all it needs"
    assert now < 60.0
    assert all(node.view(now).use == Use() for node in nodes)
