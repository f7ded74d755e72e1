# SPDX-License-Identifier: Apache-2.0
"""A receiver waits a moment for second results, says what it heard of each, and never lets one change the answer.

ann asks for rows of bea and of cyd; each is to compute its fragment on two nodes.
"""

import msgspec
import pytest

from junto.errors import PeerFault
from junto.plan import steps
from junto.plan.steps import Move, Plan, Query, Read, Release
from junto.tasks.bodies import Confirm, Contract, Doubled, Estimate, Finished, Proposal, Receipt, Second
from junto.tasks.doubles import SECOND_SECONDS, Doubles, differs, doubled_parts, line, second_until
from junto.tasks.events import (
    ConfirmArrived,
    ContractArrived,
    OfferArrived,
    Opened,
    Permitted,
    ReceiptArrived,
    Released,
    StepDoubled,
    StepFinished,
    Ticked,
)
from junto.tasks.instructions import Instruction, Publish, Wake
from junto.tasks.notices import notices, sight
from junto.tasks.replay import Entry, replay
from junto.tasks.state import Task
from junto.tasks.waiting import Patience
from junto.types import DatasetName, Digest, NodeId, PartyId, StepId, TaskId

ANN, BEA, CYD = (PartyId(p) for p in ("ann", "bea", "cyd"))
PARTIES = (ANN, BEA, CYD)
SALTED, OTHER = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
Q_BEA, Q_CYD = StepId("query-bea"), StepId("query-cyd")
ONE, TWO = NodeId("node-1"), NodeId("node-2")
TASK = TaskId("01jtask")
START, ANSWERED = 1000.0, 1010.0


def _query(id: StepId, party: PartyId) -> Query:
    read = Read("t", DatasetName("t"), SALTED, columns=("c0",))
    return Query(id, party, "SELECT 1", (read,), columns=("c0",), column_types=("INTEGER",))


PLAN = Plan(
    "SELECT 1",
    ANN,
    (
        _query(Q_BEA, BEA),
        _query(Q_CYD, CYD),
        Move(StepId("move-bea"), Q_BEA, BEA, (ANN,), ("c0",)),
        Move(StepId("move-cyd"), Q_CYD, CYD, (ANN,), ("c0",)),
        Release(
            StepId("release"),
            ANN,
            "SELECT 1",
            moves=(StepId("move-bea"), StepId("move-cyd")),
            columns=("c0",),
            column_types=("INTEGER",),
        ),
    ),
)
DIGEST = steps.digest(PLAN)
PROPOSAL = Proposal(PLAN, DIGEST, PARTIES, "ana", "", 60.0, double=True)


def _node(me: PartyId, proposal: Proposal = PROPOSAL) -> Task:
    task = Task(TASK, me, ANN, proposal, Patience())
    task.handle(Opened("proposal-1", START))
    allowed = Permitted(SALTED, (), Estimate(), START)
    task.handle(allowed)
    offers = tuple((party, allowed.offer("proposal-1", DIGEST)) for party in PARTIES)
    if me == ANN:
        for party, offer in offers:
            task.handle(OfferArrived(party, offer, f"envelope of {party}", START))
        task.contracted("contract-1")
    else:
        contract = Contract("proposal-1", DIGEST, SALTED, tuple(f"envelope of {party}" for party in PARTIES))
        task.handle(ContractArrived(ANN, "contract-1", contract, offers, START))
    assert task.state == "running"
    return task


def _alike(step: StepId) -> Second:
    return Second(step, SALTED, SALTED, (ONE, TWO))


def _other(step: StepId) -> Second:
    return Second(step, SALTED, OTHER, (ONE, TWO))


def _once(step: StepId, why: str) -> Second:
    return Second(step, Digest(""), Digest(""), (), why)


def _told(party: PartyId, *seconds: Second, at: float = ANSWERED) -> ConfirmArrived:
    return ConfirmArrived(party, Confirm(DIGEST, (), seconds), at, f"of-{party}")


def _receipts(ordered: list[Instruction]) -> list[Receipt]:
    return [one.body for one in ordered if isinstance(one, Publish) and isinstance(one.body, Receipt)]


def _released(task: Task) -> list[Instruction]:
    return task.handle(Released(SALTED, 1, "unknown", ANSWERED))


def test_only_fragments_that_any_node_can_compute_are_doubled_and_only_if_the_task_says_so() -> None:
    assert doubled_parts(PROPOSAL) == {(Q_BEA, BEA), (Q_CYD, CYD)}
    assert doubled_parts(msgspec.structs.replace(PROPOSAL, double=False)) == frozenset()


def test_without_the_rule_the_receipt_waits_for_nothing() -> None:
    [receipt] = _receipts(_released(_node(ANN, msgspec.structs.replace(PROPOSAL, double=False))))
    assert receipt.doubled == ()


def test_the_receipt_waits_by_name_and_deadline_and_holds_every_word() -> None:
    task = _node(ANN)
    task.handle(_told(BEA, _alike(Q_BEA)))
    ordered = _released(task)
    assert Wake(ANSWERED + SECOND_SECONDS) in ordered
    assert not _receipts(ordered)
    [wait] = task.waits()
    assert (wait.party, wait.what) == (CYD, "its second result of step query-cyd")
    assert (wait.since, wait.until) == (ANSWERED, ANSWERED + SECOND_SECONDS)
    [receipt] = _receipts(task.handle(_told(CYD, _once(Q_CYD, "cyd has one node"))))
    assert [(one.party, one.statement) for one in receipt.doubled] == [(BEA, "of-bea"), (CYD, "of-cyd")]
    assert [line(one) for one in receipt.doubled] == [
        "step query-bea was computed alike by bea/node-1 and bea/node-2",
        "cyd has one node; step query-cyd was computed once",
    ]
    assert task.deviations == ()


def test_after_its_patience_the_receiver_goes_without_and_says_of_whom() -> None:
    task = _node(ANN)
    _released(task)
    assert not _receipts(task.handle(Ticked(ANSWERED + SECOND_SECONDS - 0.1)))
    [receipt] = _receipts(task.handle(Ticked(ANSWERED + SECOND_SECONDS)))
    assert task.state == "done"
    assert "bea had told nothing of a second result 5 s after the answer" in line(receipt.doubled[0])
    assert receipt.doubled[0].statement == ""


def test_a_second_result_never_makes_a_task_expire() -> None:
    assert second_until(100.0, 101.0) == 100.5
    assert second_until(100.0, 99.0) == 100.0
    assert second_until(100.0, 1000.0) == 100.0 + SECOND_SECONDS


def test_a_second_that_differs_is_a_deviation_with_both_digests_and_a_notice_of_everyone() -> None:
    for me in PARTIES:
        task = _node(me)
        before = sight(task, ANSWERED, 5.0)
        task.handle(_told(BEA, _other(Q_BEA)))
        [deviation] = task.deviations
        assert (deviation.party, deviation.digest, deviation.counts) == (BEA, OTHER, SALTED)
        assert "bea/node-2 computed" in deviation.line
        found = [n for n in notices(before, sight(task, ANSWERED, 5.0, before)) if n.kind == "deviation"]
        assert [(notice.party, notice.text) for notice in found] == [(BEA, deviation.line)]


def test_a_deviation_that_is_heard_of_after_the_end_still_counts_as_one() -> None:
    task = _node(ANN)
    _released(task)
    task.handle(Ticked(ANSWERED + SECOND_SECONDS))
    task.handle(_told(BEA, _other(Q_BEA)))
    assert [one.party for one in task.deviations] == [BEA]


def test_the_first_word_counts() -> None:
    task = _node(ANN)
    task.handle(_told(BEA, _other(Q_BEA)))
    task.handle(_told(BEA, _alike(Q_BEA)))
    assert [one.party for one in task.deviations] == [BEA]


def test_what_we_know_of_our_second_result_is_confirmed_once_and_counts_when_it_is_signed() -> None:
    task = _node(BEA)
    task.handle(StepDoubled(_alike(Q_BEA), ANSWERED))
    assert task.doubles.heard == {}
    [said] = [one.body for one in task.handle(Ticked(ANSWERED + 1)) if isinstance(one, Publish)]
    assert isinstance(said, Confirm)
    assert said.seconds == (_alike(Q_BEA),)
    task.handle(ConfirmArrived(BEA, said, ANSWERED, "of-bea"))
    task.handle(StepDoubled(_once(Q_BEA, "its node was started anew"), ANSWERED))
    assert [one for one in task.handle(Ticked(ANSWERED + 2)) if isinstance(one, Publish)] == []


def test_nobody_tells_of_a_fragment_that_is_not_its_own_or_was_not_to_be_doubled() -> None:
    task = _node(ANN)
    with pytest.raises(PeerFault, match="cyd tells of a second result of step query-bea"):
        task.handle(_told(CYD, _alike(Q_BEA)))
    plain = _node(ANN, msgspec.structs.replace(PROPOSAL, double=False))
    with pytest.raises(PeerFault, match="which it has not to double"):
        plain.handle(_told(BEA, _alike(Q_BEA)))


def test_a_receipt_that_leaves_a_fragment_out_or_puts_words_in_our_mouth_is_refused() -> None:
    task = _node(BEA)
    task.handle(_told(BEA, _alike(Q_BEA)))
    whole = (Doubled(BEA, _alike(Q_BEA), "of-bea"), Doubled(CYD, _alike(Q_CYD), "of-cyd"))
    receipt = Receipt(DIGEST, "contract-1", SALTED, 1, 0, (), 1.0, doubled=whole)
    for wrong in (whole[:1], (*whole, whole[0]), (Doubled(BEA, _other(Q_BEA), "of-bea"), whole[1])):
        with pytest.raises(PeerFault, match="a receipt"):
            task.handle(ReceiptArrived(ANN, msgspec.structs.replace(receipt, doubled=wrong), ANSWERED))
    task.handle(ReceiptArrived(ANN, receipt, ANSWERED))
    assert task.state == "done"


def test_a_journal_gives_back_what_was_said_and_an_answer_without_a_word_stays_done() -> None:
    task = _node(ANN)
    _released(task)
    [receipt] = _receipts(task.handle(Ticked(ANSWERED + SECOND_SECONDS)))
    allowed = Permitted(SALTED, (), Estimate(), START)
    offers = tuple((party, allowed.offer("proposal-1", DIGEST)) for party in PARTIES)
    done = tuple(Finished(StepId(s), SALTED, 1, 0, 0.1) for s in ("move-bea", "move-cyd", "release"))
    bodies = [
        (ANN, PROPOSAL),
        *offers,
        (ANN, Contract("0", DIGEST, SALTED, ())),
        (ANN, Confirm(DIGEST, done)),
        (ANN, receipt),
        (BEA, Confirm(DIGEST, (), (_other(Q_BEA),))),
    ]
    entries = [Entry(i, party, str(i), START + i, body) for i, (party, body) in enumerate(bodies)]
    again = replay(TASK, ANN, [_named(entry) for entry in entries], Patience())
    assert again.state == "done"
    assert [one.party for one in again.deviations] == [BEA]


def _named(entry: Entry) -> Entry:
    """Offers name the proposal by its statement's id, which is its place here."""
    body = entry.body
    return Entry(entry.index, entry.party, "proposal-1" if entry.index == 0 else entry.id, entry.at, body)


def test_only_two_digests_that_are_there_can_differ() -> None:
    assert differs(_other(Q_BEA))
    assert not differs(_alike(Q_BEA))
    assert not differs(_once(Q_BEA, "bea has one node"))


def test_our_steps_and_their_second_results_share_a_statement() -> None:
    task = _node(CYD)
    task.handle(StepDoubled(_alike(Q_CYD), ANSWERED))
    finished = [Finished(step, SALTED, 1, 0, 0.1) for step in (Q_CYD, StepId("move-cyd"))]
    ordered = [one for done in finished for one in task.handle(StepFinished(done, ANSWERED))]
    [said] = [one.body for one in ordered if isinstance(one, Publish)]
    assert isinstance(said, Confirm)
    assert (len(said.steps), len(said.seconds)) == (2, 1)


def test_doubles_of_nothing_are_nothing() -> None:
    none = Doubles(msgspec.structs.replace(PROPOSAL, double=False))
    assert (none.waiting, none.record, none.deviations) == ((), (), ())
