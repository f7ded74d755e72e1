# SPDX-License-Identifier: Apache-2.0
"""A receiver writes its receipt when all who certify have signed; who differs is named, and a second word never counts.

ann asks for open rows of bea, which cyd and dot compute again; the release is computed again by cyd and dot.
"""

import copy
from dataclasses import dataclass

import msgspec
import pytest

from junto.errors import Deviation, PeerFault
from junto.plan import steps
from junto.plan.steps import Move, Plan, Query, Read, Release
from junto.tasks.bodies import Certified, Confirm, Estimate, Finished, Proposal, Receipt, Stop
from junto.tasks.events import (
    ConfirmArrived,
    ContractArrived,
    Event,
    OfferArrived,
    Opened,
    Permitted,
    ReceiptArrived,
    Released,
    StepFinished,
    StopArrived,
    Ticked,
)
from junto.tasks.instructions import Conclude, Instruction, Publish
from junto.tasks.notices import Notice, notices, sight
from junto.tasks.replay import Entry, replay
from junto.tasks.state import Task
from junto.tasks.waiting import Patience
from junto.types import DatasetName, Digest, PartyId, StepId, TaskId

ANN, BEA, CYD, DOT = (PartyId(p) for p in ("ann", "bea", "cyd", "dot"))
PARTIES = (ANN, BEA, CYD, DOT)
SAME, OTHER, RELEASED, SALTED = (Digest("sha256:" + letter * 64) for letter in "1235")
OPEN = (Read("weather", DatasetName("weather"), SALTED, columns=("c0",)),)
TASK = TaskId("01jtask")
NAMED = ("query", "certify-0", "certify-1", "certify-2", "certify-3", "rows", "release")
QUERY, FIRST, SECOND, THIRD, FOURTH, MOVE, RELEASE = (StepId(name) for name in NAMED)


def _query(id: StepId, party: PartyId, of: StepId | None) -> Query:
    step = Query(id, party, "SELECT 1", OPEN, columns=("c0",), column_types=("INTEGER",))
    return step if of is None else msgspec.structs.replace(step, certifies=of)


PLAN = Plan(
    "SELECT 1",
    ANN,
    (
        _query(QUERY, BEA, None),
        _query(FIRST, CYD, QUERY),
        _query(SECOND, DOT, QUERY),
        Move(MOVE, QUERY, BEA, (ANN,), ("c0",)),
        _query(THIRD, CYD, RELEASE),
        _query(FOURTH, DOT, RELEASE),
        Release(RELEASE, ANN, "SELECT 1", moves=(MOVE,), columns=("c0",), column_types=("INTEGER",)),
    ),
)
DIGEST = steps.digest(PLAN)
HONEST: dict[PartyId, dict[StepId, Digest]] = {
    ANN: {MOVE: SAME, RELEASE: RELEASED},
    BEA: {QUERY: SAME},
    CYD: {FIRST: SAME, THIRD: RELEASED},
    DOT: {SECOND: SAME, FOURTH: RELEASED},
}
CONTRACTED = ("proposal-1", 1000.0)


@dataclass(slots=True)
class Node:
    """One party's machine under a contract."""

    task: Task
    at: float = 1010.0

    def hear(self, party: PartyId, told: dict[StepId, Digest], statement: str = "") -> list[Instruction]:
        """A party's confirmation is durable here."""
        return self.task.handle(_confirmed(party, told, self.at, statement or f"of-{party}"))

    def released(self) -> list[Instruction]:
        return self.task.handle(Released(SALTED, 1, "unknown", self.at))


def _proposal() -> Proposal:
    return Proposal(PLAN, DIGEST, PARTIES, "ana", "", 60.0)


def node(me: PartyId) -> Node:
    task = Task(TASK, me, ANN, _proposal(), Patience())
    proposed, at = CONTRACTED
    task.handle(Opened(proposed, at))
    allowed = {party: Permitted(SALTED, (), Estimate(), at) for party in PARTIES}
    offers = {party: found.offer(proposed, DIGEST) for party, found in allowed.items()}
    task.handle(allowed[me])
    if me == ANN:
        for party in PARTIES:
            ordered = task.handle(OfferArrived(party, offers[party], f"envelope of {party}", at))
        task.contracted("contract-1")
        assert any(isinstance(one, Publish) for one in ordered)
    else:
        told = Task(TASK, ANN, ANN, _proposal(), Patience())
        told.handle(Opened(proposed, at))
        told.handle(allowed[ANN])
        ordered = [one for p in PARTIES for one in told.handle(OfferArrived(p, offers[p], f"envelope of {p}", at))]
        contract = next(one.body for one in ordered if isinstance(one, Publish))
        task.handle(ContractArrived(ANN, "contract-1", contract, tuple(offers.items()), at))  # type: ignore[arg-type]  # a union of bodies
    assert task.state == "running"
    return Node(task)


def _done(step: StepId, certified: Digest | None) -> Finished:
    return Finished(step, SALTED, 1, 0, 0.1, certified=certified)


def _confirmed(party: PartyId, told: dict[StepId, Digest], at: float, statement: str) -> ConfirmArrived:
    done = tuple(_done(step, digest) for step, digest in told.items())
    return ConfirmArrived(party, Confirm(DIGEST, done), at, statement)


def _published(ordered: list[Instruction], kind: type) -> list[object]:
    return [one.body for one in ordered if isinstance(one, Publish) and isinstance(one.body, kind)]


def _receipt(ordered: list[Instruction]) -> Receipt:
    (found,) = _published(ordered, Receipt)
    assert isinstance(found, Receipt)
    return found


def _settled(told: dict[PartyId, dict[StepId, Digest]]) -> tuple[Node, list[Instruction]]:
    """The receiver when everybody has told, the answer first."""
    receiver = node(ANN)
    ordered = receiver.released()
    for party, digests in told.items():
        ordered += receiver.hear(party, digests)
    return receiver, ordered


# ── the receiver ────────────────────────────────────────────────────────────────────────────────────


def test_the_receipt_waits_for_every_signature_by_name_and_holds_them_all() -> None:
    receiver = node(ANN)
    assert not _published(receiver.released(), Receipt)
    receiver.hear(BEA, HONEST[BEA])
    receiver.hear(CYD, HONEST[CYD])
    waits = {(wait.party, wait.what) for wait in receiver.task.waits()}
    assert waits == {
        (ANN, "its digest of step rows"),
        (ANN, "its digest of step release"),
        (DOT, "its digest of step certify-1"),
        (DOT, "its digest of step certify-3"),
    }
    assert {(wait.since, wait.until) for wait in receiver.task.waits()} == {(receiver.at, receiver.task.deadline)}
    assert not _published(receiver.hear(ANN, HONEST[ANN]), Receipt)
    receipt = _receipt(receiver.hear(DOT, HONEST[DOT]))
    assert receiver.task.state == "done"
    assert [(c.step, c.digest) for c in receipt.certificates] == [(QUERY, SAME), (RELEASE, RELEASED)]
    assert [(s.party, s.step, s.statement) for s in receipt.certificates[0].signed] == [
        (BEA, QUERY, "of-bea"),
        (CYD, FIRST, "of-cyd"),
        (DOT, SECOND, "of-dot"),
        (ANN, MOVE, "of-ann"),
    ]


def test_signatures_that_came_before_the_answer_count() -> None:
    receiver = node(ANN)
    for party, digests in HONEST.items():
        assert not _published(receiver.hear(party, digests), Receipt)
    assert len(_receipt(receiver.released()).certificates) == 2


def test_our_own_digest_counts_when_it_is_signed_not_when_it_is_known() -> None:
    receiver, _ = _settled({p: told for p, told in HONEST.items() if p != ANN})
    for step, digest in HONEST[ANN].items():
        ordered = receiver.task.handle(StepFinished(_done(step, digest), receiver.at))
        assert not _published(ordered, Receipt)
    assert receiver.task.state == "running"
    assert _receipt(receiver.hear(ANN, HONEST[ANN]))


def test_who_owes_a_digest_at_the_deadline_is_named() -> None:
    receiver, _ = _settled({p: told for p, told in HONEST.items() if p != DOT})
    receiver.task.handle(Ticked(receiver.task.deadline))
    assert receiver.task.outcome is not None
    assert (receiver.task.outcome.end, receiver.task.outcome.party) == ("expired", DOT)
    assert "for dot: its digest of step certify-1" in receiver.task.outcome.reason


def test_a_minority_that_differs_stands_in_the_receipt_with_its_digest() -> None:
    receiver, ordered = _settled({**HONEST, DOT: {SECOND: OTHER, FOURTH: RELEASED}})
    (query, _) = _receipt(ordered).certificates
    assert query.digest == SAME
    assert {(s.party, s.digest) for s in query.signed if s.digest != SAME} == {(DOT, OTHER)}
    (deviation,) = receiver.task.signatures.deviations
    assert (deviation.party, deviation.digest, deviation.counts) == (DOT, OTHER, SAME)
    assert deviation.line == f"dot computed {OTHER} as step query; bea, cyd computed {SAME}"


@pytest.mark.parametrize(
    ("told", "party", "words"),
    [
        ({BEA: {QUERY: OTHER}, ANN: {MOVE: OTHER, RELEASE: RELEASED}}, BEA, "bea computed sha256:22222222…; cyd, dot"),
        ({ANN: {MOVE: OTHER, RELEASE: RELEASED}}, BEA, "sha256:22222222… arrived at ann from bea, which says sha256:1"),
        ({ANN: {MOVE: SAME, RELEASE: OTHER}}, ANN, "step release was not computed alike: ann computed sha256:2"),
    ],
)
def test_what_most_of_them_did_not_compute_or_what_arrived_otherwise_is_no_answer(
    told: dict[PartyId, dict[StepId, Digest]], party: PartyId, words: str
) -> None:
    receiver, ordered = _settled({**HONEST, **told})
    (stop,) = _published(ordered, Stop)
    assert isinstance(stop, Stop)
    assert (stop.end, stop.code, stop.party) == ("failed", Deviation.code, party)
    assert words in stop.reason
    assert "\n" not in stop.reason
    assert not _published(ordered, Receipt)
    assert isinstance(ordered[-1], Conclude)
    assert receiver.task.receipt is None


# ── everybody ───────────────────────────────────────────────────────────────────────────────────────


def test_a_confirmation_without_its_digest_is_a_fault_and_changes_nothing() -> None:
    other = node(CYD)
    before = copy.deepcopy(vars(other.task))
    bare = ConfirmArrived(BEA, Confirm(DIGEST, (_done(QUERY, None),)), other.at, "bare")
    with pytest.raises(PeerFault, match="bea confirms step query without the digest"):
        other.task.handle(bare)
    assert vars(other.task) == before


def test_the_first_word_counts_and_a_second_that_differs_is_reported_with_both_digests() -> None:
    receiver = node(ANN)
    receiver.hear(BEA, {QUERY: SAME}, "first")
    receiver.hear(BEA, {QUERY: SAME}, "again")
    assert not receiver.task.signatures.deviations
    receiver.hear(BEA, {QUERY: OTHER}, "second")
    (deviation,) = receiver.task.signatures.deviations
    assert (deviation.party, deviation.digest, deviation.counts) == (BEA, OTHER, SAME)
    assert SAME in deviation.line
    assert OTHER in deviation.line
    receiver.released()
    ordered = [one for p in (ANN, CYD, DOT) for one in receiver.hear(p, HONEST[p])]
    signed = _receipt(ordered).certificates[0].signed
    assert [(s.digest, s.statement) for s in signed if s.party == BEA] == [(SAME, "first"), (OTHER, "second")]


def test_every_participant_notices_a_deviation_once_and_even_after_the_end() -> None:
    told = {**HONEST, DOT: {SECOND: OTHER, FOURTH: RELEASED}}
    _, ordered = _settled(told)
    other = node(CYD)
    seen = sight(other.task, other.at, 5.0)
    found: list[Notice] = []
    events: tuple[Event, ...] = (
        *(_confirmed(p, told[p], other.at, f"of-{p}") for p in (ANN, BEA, CYD)),
        ReceiptArrived(ANN, _receipt(ordered), other.at),
        _confirmed(DOT, told[DOT], other.at, "of-dot"),
        _confirmed(DOT, told[DOT], other.at, "of-dot"),
    )
    for event in events:
        other.task.handle(event)
        now = sight(other.task, other.at, 5.0, seen)
        found += notices(seen, now)
        seen = now
    (notice,) = [one for one in found if one.kind == "deviation"]
    assert (notice.party, notice.by, notice.task) == (DOT, CYD, TASK)
    assert SAME in notice.text
    assert OTHER in notice.text


def test_a_receipt_that_says_of_us_what_we_did_not_tell_or_leaves_someone_out_is_a_fault() -> None:
    _, ordered = _settled(HONEST)
    receipt = _receipt(ordered)
    query, release = receipt.certificates

    def refused(*certificates: Certified) -> str:
        other = node(CYD)
        other.hear(CYD, HONEST[CYD])
        forged = msgspec.structs.replace(receipt, certificates=certificates)
        with pytest.raises(PeerFault) as error:
            other.task.handle(ReceiptArrived(ANN, forged, other.at))
        assert other.task.state == "running"
        return str(error.value)

    replace = msgspec.structs.replace
    assert "leaves out" in refused(query)
    assert "leaves out" in refused(query, replace(release, signed=release.signed[:-1]))
    assert "leaves out" in refused(replace(query, digest=OTHER), release)
    swapped = tuple(replace(s, digest=OTHER) if s.party == CYD else s for s in query.signed)
    said = refused(replace(query, signed=swapped), release)
    assert "cyd told a digest of step certify-0 that it did not tell" in said
    arrived = tuple(replace(s, digest=OTHER) if s.step == MOVE else s for s in query.signed)
    assert "not computed alike" in refused(replace(query, signed=arrived), release)


# ── a journal ───────────────────────────────────────────────────────────────────────────────────────


def _entries(me: PartyId, confirms: dict[PartyId, dict[StepId, Digest]]) -> list[Entry]:
    """What the asker's journal holds after these confirmations."""
    proposed, at = CONTRACTED
    found = [Entry(0, ANN, proposed, at, _proposal())]
    live = node(ANN)
    offers = {p: live.task._offers[p][0] for p in PARTIES}  # as the machine took them in
    found += [Entry(1 + i, p, f"offer-{p}", at, offers[p], f"envelope of {p}") for i, p in enumerate(PARTIES)]
    found.append(Entry(5, ANN, "contract-1", at, live.task._contract()))
    for party, told in confirms.items():
        done = tuple(_done(step, digest) for step, digest in told.items())
        found.append(Entry(len(found), party, f"of-{party}", at + 10, Confirm(DIGEST, done)))
    return found


def test_a_receiver_that_died_waiting_for_a_signature_waits_for_that_one_alone() -> None:
    task = replay(TASK, ANN, _entries(ANN, {p: told for p, told in HONEST.items() if p != DOT}), Patience())
    assert task.state == "running"
    task.handle(Released(SALTED, 1, "unknown", 1020.0))
    assert {wait.party for wait in task.waits()} == {DOT}
    receipt = _receipt(task.handle(_confirmed(DOT, HONEST[DOT], 1021.0, "of-dot")))
    assert [s.statement for s in receipt.certificates[0].signed] == ["of-bea", "of-cyd", "of-dot", "of-ann"]


def test_a_journal_tells_the_certificates_and_deviations_again() -> None:
    told = {**HONEST, DOT: {SECOND: OTHER, FOURTH: RELEASED}}
    live, ordered = _settled(told)
    entries = _entries(ANN, told)
    entries.append(Entry(len(entries), ANN, "receipt-1", 1011.0, _receipt(ordered)))
    task = replay(TASK, ANN, entries, Patience())
    assert task.state == "done"
    assert task.receipt == live.task.receipt
    assert task.signatures.deviations == live.task.signatures.deviations != ()


def test_a_stop_because_of_a_deviation_ends_it_at_the_others() -> None:
    _, ordered = _settled({**HONEST, BEA: {QUERY: OTHER}})
    (stop,) = _published(ordered, Stop)
    assert isinstance(stop, Stop)
    other = node(DOT)
    other.task.handle(StopArrived(ANN, stop, other.at))
    assert other.task.outcome is not None
    assert (other.task.outcome.end, other.task.outcome.code) == ("failed", "deviation")
