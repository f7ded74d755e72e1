# SPDX-License-Identifier: Apache-2.0
"""Runs of joint steps while nodes die: never mixed, never begun twice, and the task ends done all the same."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from task_runs import Runs
from task_world import (
    BTS,
    DELTA,
    PARTIES,
    PATIENCE,
    PLAN,
    TASK,
    UNITED,
    anew,
    at_state,
    confirmed,
    done_part,
    finished,
    proposal,
    tried,
)

from junto.plan.steps import Move, Plan, Query, Read, Release, Threshold, digest
from junto.tasks.attempts import joint_steps, resting_on, run_of
from junto.tasks.bodies import Absent
from junto.tasks.events import Restarted
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.types import StepId

some = settings(derandomize=True, max_examples=150, deadline=None)
seeds = st.integers(0, 2**32 - 1)
moments = st.frozensets(st.integers(0, 90), max_size=4)
T, M, Q = StepId("t"), StepId("m"), StepId("q-delta")
JOINT = joint_steps(PLAN)


@some
@given(seeds, moments, st.booleans())
def test_whoever_dies_after_the_contract_the_task_ends_done_once_crashes_stop(
    seed: int, crashes: frozenset[int], loses: bool
) -> None:
    runs = Runs(seed, crashes, loses_kept=loses)
    runs.run()
    assert [node.task.state for node in runs.nodes.values()] == ["done"] * 3
    assert len({node.task.receipt for node in runs.nodes.values()}) == 1


@some
@given(seeds, moments, st.sampled_from(("", "wait", "fail", "go-on")))
def test_under_every_policy_everyone_ends_by_its_deadline_or_its_return(
    seed: int, crashes: frozenset[int], absent: Absent
) -> None:
    runs = Runs(seed, crashes, proposed=proposal(absent=absent, at_least=2))
    runs.run()
    for node in runs.nodes.values():
        assert node.task.state in ENDED
        assert node.task.outcome is not None
        assert node.task.outcome.party in PARTIES
        assert node.task.outcome.at <= node.task.deadline + 9, "a node that was down ends it when it is back"


@some
@given(seeds, moments)
def test_the_journal_of_any_moment_gives_the_machine_of_that_moment_attempts_included(
    seed: int, crashes: frozenset[int]
) -> None:
    Runs(seed, crashes, loses_kept=False, prompt=True).run()


def test_steps_do_begin_anew_in_these_runs() -> None:
    begun = 0
    for seed in range(30):
        runs = Runs(seed, frozenset((15, 30, 45)))
        runs.run()
        begun += any(node.task.attempts for node in runs.nodes.values())
    assert begun > 10


# ── names of runs ───────────────────────────────────────────────────────────────────────────────────

numbers = st.fixed_dictionaries({T: st.integers(0, 20), M: st.integers(0, 20)})


@some
@given(numbers, numbers)
def test_a_name_of_a_run_says_its_numbers_and_nothing_else(one: dict[StepId, int], other: dict[StepId, int]) -> None:
    for step, below in JOINT.items():
        alike = all(one[joint] == other[joint] for joint in below)
        assert (run_of(JOINT, step, one) == run_of(JOINT, step, other)) is alike


def test_while_nothing_was_begun_anew_no_run_has_a_name() -> None:
    assert {run_of(JOINT, step.id, {}) for step in PLAN.steps} == {""}
    assert run_of(JOINT, Q, {T: 3, M: 2}) == "", "a query rests on no joint step"


def test_what_rests_on_a_threshold_is_the_sum_and_the_answer_not_the_queries() -> None:
    assert resting_on(JOINT, T) == {"t", "m", "r"}
    assert resting_on(JOINT, M) == {"m", "r"}


# ── single machines ─────────────────────────────────────────────────────────────────────────────────


def test_a_sum_that_was_lost_begins_anew_and_its_threshold_stays() -> None:
    task = at_state("running")
    for part in ("q-delta", "t"):
        task.handle(finished(part))
    task.handle(Restarted(frozenset({Q, T}), 1009.0))
    assert (task.attempts, task.run_of(T), task.run_of(M)) == ({M: 1}, "", "0.1")
    assert {(Q, DELTA), (T, DELTA)} <= task.finished.keys()


def test_a_threshold_that_was_lost_takes_the_sum_that_rests_on_it_along_under_one_number() -> None:
    task = at_state("running")
    for part in ("q-delta", "t", "m"):
        task.handle(finished(part))
    task.handle(confirmed(UNITED, "q-united", "t", "m"))
    task.handle(Restarted(frozenset({Q}), 1009.0))
    assert (task.attempts, task.run_of(M)) == ({T: 1}, "1.0")
    assert set(task.finished) == {(Q, DELTA), ("q-united", UNITED)}


def test_a_confirm_that_was_not_said_yet_is_not_said_of_a_run_that_was_given_up() -> None:
    task = at_state("running")
    task.handle(finished("t"))
    task.handle(anew(UNITED, "t", 1))
    assert task._unconfirmed == []


def test_confirms_of_a_later_run_of_what_rests_on_it_count_once_the_number_is_known() -> None:
    task = at_state("running")
    task.handle(confirmed(UNITED, "t@1", "m@1.0"))
    assert not task.finished
    task.handle(anew(UNITED, "t", 1))
    assert task.finished == {(T, UNITED): done_part("t@1"), (M, UNITED): done_part("m@1.0")}


def test_that_a_run_was_tried_again_is_not_told_of_the_next() -> None:
    task = at_state("running")
    task.handle(tried("t"))
    task.handle(anew(UNITED, "t", 1))
    assert not [wait for wait in task.waits() if wait.party == DELTA and wait.why]


def test_a_lost_joint_step_above_a_joint_step_of_others_begins_anew_too() -> None:
    first, second = StepId("t1"), StepId("t2")
    plan = Plan(
        "SELECT 1",
        BTS,
        (
            Query(StepId("q1"), DELTA, "SELECT 1", (), keys=(), measures=()),
            Threshold(first, (StepId("q1"),), (DELTA,), BTS, (DELTA,), 10),
            Move(StepId("mv"), StepId("q1"), DELTA, (UNITED,), (), first),
            Query(StepId("q2"), UNITED, "SELECT 1", (Read("x", step=StepId("mv")),), keys=(), measures=()),
            Threshold(second, (StepId("q2"),), (UNITED,), BTS, (UNITED,), 10),
            Release(StepId("r"), BTS, "SELECT 1", threshold=second),
        ),
    )
    proposed = replace(proposal(), plan=plan, plan_digest=digest(plan))
    task = Task(TASK, UNITED, BTS, proposed, PATIENCE)
    task.state = "running"
    task.contracted("contract-1")
    task.handle(Restarted(frozenset({StepId("mv"), StepId("q2")}), 1009.0))
    assert task.attempts == {second: 1}
    assert task.run_of(second) == "0.1"
