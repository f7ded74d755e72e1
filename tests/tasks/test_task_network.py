# SPDX-License-Identifier: Apache-2.0
"""Three machines and everything a network can do to them: who ends how, when, and what their journals say of it."""

from hypothesis import given, settings
from hypothesis import strategies as st
from task_network import Network, Side
from task_world import BTS, DELTA, PARTIES, UNITED

from junto.tasks.bodies import Contract, Offer
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.types import PartyId

seeds = st.integers(0, 2**32 - 1)
some = settings(derandomize=True, max_examples=200, deadline=None)


def _story(task: Task) -> tuple[object, ...]:
    """What a journal must tell again: the state, how it ended, the receipt, who finished what."""
    outcome = task.outcome
    ended = None if outcome is None else (outcome.end, outcome.code, outcome.party, outcome.reason)
    unconfirmed = {(finished.step, task.me) for finished in task._unconfirmed}
    return task.state, ended, task.receipt, task.finished.keys() - unconfirmed


def _tasks(network: Network) -> dict[PartyId, Task]:
    return {party: side.task for party, side in network.sides.items() if side.task is not None}


@some
@given(seeds)
def test_whatever_comes_first_all_are_done_with_the_same_receipt(seed: int) -> None:
    network = Network(seed)
    network.run()
    tasks = _tasks(network)
    assert [task.state for task in tasks.values()] == ["done"] * 3
    (receipt,) = {task.receipt for task in tasks.values()}
    assert receipt is not None
    assert receipt.contract == tasks[DELTA].contract == tasks[BTS].contract
    assert len({frozenset(task.finished) for task in tasks.values()}) == 1


@some
@given(seeds, st.frozensets(st.sampled_from(PARTIES), min_size=1))
def test_if_anybody_refuses_all_end_refused_naming_one_who_did_and_nobody_performs(
    seed: int, refusing: frozenset[PartyId]
) -> None:
    network = Network(seed, refusing=refusing)
    network.run()
    for task in _tasks(network).values():
        assert task.outcome is not None
        assert (task.state, task.outcome.party in refusing) == ("refused", True)
    assert not any(side.performed for side in network.sides.values())


@some
@given(seeds)
def test_a_cancelled_task_ends_at_everyone_within_moments(seed: int) -> None:
    network = Network(seed, cancels=1)
    network.run()
    tasks = _tasks(network)
    ends = {task.state for task in tasks.values()}
    assert ends <= {"done", "cancelled"}, "a race with the receipt is all that may differ"
    assert all(task.outcome is not None and task.outcome.party in PARTIES for task in tasks.values())
    assert all(task.since < task.opened_at + 10 for task in tasks.values())
    if "done" not in ends:
        assert len({task.outcome and task.outcome.reason for task in tasks.values()}) == 1


@some
@given(
    seeds,
    st.frozensets(st.sampled_from(PARTIES), max_size=1),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_whatever_is_lost_repeated_reordered_cancelled_or_killed_everyone_ends_by_its_deadline(
    seed: int, refusing: frozenset[PartyId], cancels: int, crashes: int
) -> None:
    network = Network(seed, wild=True, refusing=refusing, cancels=cancels, crashes=crashes)
    network.run()
    tasks = _tasks(network)
    for party, task in tasks.items():
        assert task.state in ENDED
        assert task.outcome is not None
        assert task.outcome.party in PARTIES
        assert task.outcome.at <= network.sides[party].deadline
    assert len({task.receipt for task in tasks.values() if task.receipt is not None}) <= 1
    for side in network.sides.values():
        if side.performed:
            _assert_contracted_by_all(side)


def _assert_contracted_by_all(side: Side) -> None:
    contract = next(entry for entry in side.journal if isinstance(entry.body, Contract))
    assert sorted(party for party, _ in contract.offers) == sorted(PARTIES)
    assert {offer.disclosures for _, offer in contract.offers} == {contract.offers[0][1].disclosures}


@some
@given(seeds, st.frozensets(st.sampled_from((DELTA, UNITED)), max_size=1), st.integers(0, 1), st.booleans())
def test_the_journal_of_any_moment_gives_the_task_of_that_moment(
    seed: int, refusing: frozenset[PartyId], cancels: int, wild: bool
) -> None:
    network = Network(seed, wild=wild, prompt=True, refusing=refusing, cancels=cancels)

    def compare(side: Side) -> None:
        assert side.task is not None
        if side.journal:
            assert _story(network.replayed(side)) == _story(side.task)

    network.after_event = compare
    network.run()
    assert any(isinstance(entry.body, Offer) for entry in network.sides[BTS].journal) or refusing or cancels or wild


@some
@given(seeds, st.integers(0, 2), st.booleans())
def test_a_journal_slower_than_the_machine_still_tells_how_the_task_ended(seed: int, cancels: int, wild: bool) -> None:
    network = Network(seed, wild=wild, cancels=cancels)
    network.run()
    for side in network.sides.values():
        if side.task is not None:
            assert _story(network.replayed(side)) == _story(side.task)
