# SPDX-License-Identifier: Apache-2.0
"""Everything that happens is in every participant's journal, alike, and each journal proves itself from its file."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pooled import GROUPED, OPEN, Pooled, statements

from junto.errors import Refused
from junto.journal.statement import body_of
from junto.journal.verify import verify_journal
from junto.link import methods
from junto.node.judge import Decision
from junto.plan.disclosure import digest_of, disclosures
from junto.plan.steps import digest
from junto.tasks.bodies import Contract, Receipt
from junto.testing.until import until

_TABLE = pa.table({"id": list(range(30)), "k": ["a", "b", "c"] * 10, "v": list(range(30))})
_QUESTION = "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k"


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled(["ann", "bea", "cyd"]) as consortium:
        consortium.share("t", {"ann": _TABLE, "bea": _TABLE}, GROUPED, unit="id")
        yield consortium


def _kinds(world: Pooled, party: str, task: str) -> list[str]:
    return [statement.kind for statement in statements(world, party, task)]


def _await_kinds(world: Pooled, party: str, task: str, kind: str, count: int = 1) -> None:
    until(lambda: _kinds(world, party, task).count(kind) >= count, f"{party} holds {count} of kind {kind}")


def test_every_participants_journal_tells_the_whole_task(world: Pooled) -> None:
    answer = world.ask("cyd", _QUESTION)
    for party in ("ann", "bea", "cyd"):
        _await_kinds(world, party, answer.task, "confirm", 3)
        _await_kinds(world, party, answer.task, "receipt")
    told = statements(world, "cyd", answer.task)
    kinds = [statement.kind for statement in told]
    assert kinds[0] == "proposal"
    assert kinds.count("decision") == 1
    assert kinds.count("offer") == 3
    assert kinds.count("contract") == kinds.count("receipt") == 1
    for party in ("ann", "bea"):
        assert _kinds(world, party, answer.task)[:4] == ["proposal", "decision", "offer", "contract"]
        _await_alike(world, party, "cyd", answer.task)


def _await_alike(world: Pooled, one: str, other: str, task: str) -> None:
    until(lambda: _shared(world, one, task) == _shared(world, other, task), f"{one} holds what {other} holds")


def _shared(world: Pooled, party: str, task: str) -> set[str]:
    everybodys = ("proposal", "contract", "receipt", "confirm")
    return {statement.id for statement in statements(world, party, task) if statement.kind in everybodys}


def test_what_explain_shows_is_what_is_judged_and_contracted(world: Pooled) -> None:
    question = world["cyd"].sql(_QUESTION)
    explained = question.explain()
    answer = question.run()
    for party in ("ann", "bea", "cyd"):
        for statement in statements(world, party, answer.task):
            if statement.kind == "contract":
                contract = body_of(statement, Contract)
                assert contract.plan_digest == digest(explained.plan) == answer.receipt.plan
                assert contract.disclosures == digest_of(disclosures(explained.plan))
                assert statement.id == answer.receipt.contract
            elif statement.kind == "decision":
                decision = body_of(statement, Decision)
                assert (decision.allowed, decision.disclosures) == (True, digest_of(disclosures(explained.plan)))


def test_a_receipt_names_the_bytes_of_the_answer_and_the_versions_read(world: Pooled) -> None:
    answer = world.ask("cyd", _QUESTION)
    data = b"".join(world["cyd"].stream(methods.USER_RESULT, methods.Which(answer.task), seconds=10.0))
    assert answer.receipt.result == "sha256:" + hashlib.sha256(data).hexdigest()
    assert (answer.receipt.rows, answer.receipt.withheld, answer.receipt.signer) == (3, "unknown", "cyd")
    published = {(d.party, d.name, d.version) for d in world["cyd"].datasets() if d.name == "t"}
    assert {(v.party, v.dataset, v.version) for v in answer.receipt.versions} == published
    for party in ("ann", "bea"):
        _await_kinds(world, party, answer.task, "receipt")
        receipt = next(body_of(s, Receipt) for s in statements(world, party, answer.task) if s.kind == "receipt")
        assert receipt.result == answer.receipt.result


def test_a_small_answer_comes_with_the_news_of_the_end_and_a_large_one_is_asked_for(world: Pooled) -> None:
    answer = world.ask("cyd", _QUESTION)
    ended = world["cyd"].ended(answer.task)
    assert ended.data == b"".join(world["cyd"].stream(methods.USER_RESULT, methods.Which(answer.task), seconds=10.0))
    assert world["ann"].ended(answer.task).data is None  # to whom nothing was released
    world.share("wide", {"ann": pa.table({"id": list(range(3)), "v": ["x" * 40_000] * 3})}, OPEN, unit="id")
    large = world.ask("cyd", "SELECT v FROM wide")
    assert large.table.num_rows == 3
    assert world["cyd"].ended(large.task).data is None


def test_two_runs_of_one_question_have_digests_that_cannot_be_compared(world: Pooled) -> None:
    one, other = (world.ask("cyd", _QUESTION) for _ in range(2))
    assert one.table.equals(other.table)
    assert one.receipt.result != other.receipt.result


def test_a_refusal_is_in_the_journals_of_both_sides(world: Pooled) -> None:
    with pytest.raises(Refused):
        world.ask("cyd", "SELECT v FROM t")
    task = world["cyd"].tasks()[0]
    assert task.state == "refused"
    for party in ("ann", "bea"):
        _await_kinds(world, party, task.task, "decision")
        held = statements(world, party, task.task)
        decision = next(body_of(s, Decision) for s in held if s.kind == "decision")
        assert (decision.allowed, decision.code) == (False, "refused")
        assert "rule" in decision.reason
    _await_kinds(world, "cyd", task.task, "stop")
    assert "refusal" in _kinds(world, "cyd", task.task)


def test_every_journal_proves_itself_after_everything(world: Pooled) -> None:
    for party in ("ann", "bea", "cyd"):
        charter = world.home(party).charter()
        report = verify_journal(world.home(party).journal_path, charter)
        assert [str(problem) for problem in report.problems] == []
        assert report.charter == charter.digest
        assert report.kinds["decision"] > 0
