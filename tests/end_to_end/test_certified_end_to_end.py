# SPDX-License-Identifier: Apache-2.0
"""Several parties compute what is over open tables: the receipt holds their signatures, and who lies is named."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pytest
from pooled import GROUPED, OPEN, Pooled, assert_same, statements

from junto.client.question import Answer
from junto.engines.base import Engine, Limits, Rows, Source, Stop
from junto.errors import Deviation, InvalidInput
from junto.journal.statement import body_of
from junto.journal.verify import verify_journal
from junto.link.methods import Progress
from junto.node.cache import Copy
from junto.node.exchange import Content
from junto.node.groups import ipc_bytes, table_of
from junto.node.spool import Spooled
from junto.tasks.bodies import Confirm, Receipt
from junto.tasks.notices import Notice
from junto.testing.until import until
from junto.types import PartyId

WEATHER = pa.table({"origin": ["JFK", "LGA", "EWR"] * 20, "visib": [i * 0.1 for i in range(60)]})
FLIGHTS = pa.table({"id": list(range(60)), "origin": ["JFK", "LGA", "EWR"] * 20})
MEANS = "SELECT origin, AVG(visib) AS v FROM weather GROUP BY origin ORDER BY origin"
JOINED = "SELECT AVG(visib) AS v, COUNT(*) AS n FROM flights JOIN weather USING (origin)"


class World(Pooled):
    """Remembers every notice, by the party whose node raised it."""

    raised: dict[str, list[Notice]]

    def receipted(self, party: str, task: str) -> bool:
        """Whether a party's node has the receipt."""
        return self.progress(party, task).receipt is not None

    def told(self, party: str, task: str, least: int = 1) -> list[str]:
        """What a party's node told its users of deviations in a task; nothing, if it is less than that."""
        texts = [notice.text for notice in self.raised[party] if (notice.kind, notice.task) == ("deviation", task)]
        return texts if len(texts) >= least else []

    def progress(self, party: str, task: str) -> Progress:
        """The task, as a party's node sees it now."""
        return next(one for one in self[party].tasks() if one.task == task)


@pytest.fixture
def world() -> Iterator[World]:
    with World(("ann", "bea", "cyd", "dot")) as consortium:
        consortium.raised = {party: [] for party in consortium.parties}
        for party, raised in consortium.raised.items():
            consortium.node(party).notices.listeners.append(raised.append)
        consortium.share("weather", {"bea": WEATHER, "cyd": WEATHER, "dot": WEATHER}, OPEN)
        consortium.share("flights", {"ann": FLIGHTS, "dot": FLIGHTS}, GROUPED, unit="id")
        yield consortium


class Lying:
    """An engine that leaves out rows of everything it computes."""

    def __init__(self, engine: Engine, rows: int = 1) -> None:
        self._engine = engine
        self.rows = rows

    @contextmanager
    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> Iterator[Rows]:
        held: AbstractContextManager[Rows] = self._engine.run(sql, tables, limits, stop)
        with held as rows:
            table = rows.table()
            yield Rows(table.schema, iter(table.slice(self.rows).to_batches()))

    def close(self) -> None:
        self._engine.close()


def lie(world: World, party: str) -> Lying:
    """From now on a party's engine leaves out a row, until its `rows` is 0."""
    node = world.node(party)
    tools = node.lend()
    lying = Lying(tools.engine)
    node.tools = replace(tools, engine=lying)
    return lying


def computed(answer: Answer, step: str) -> dict[str, set[str]]:
    """Who signed which digests of a step, by the receipt."""
    found: dict[str, set[str]] = {}
    for certificate in answer.certificates:
        if certificate.step == step:
            for signed in certificate.signed:
                found.setdefault(signed.digest, set()).add(signed.party)
    return found


@pytest.mark.parametrize(("n", "parties"), [(2, ("bea", "cyd")), (3, ("bea", "cyd", "dot"))])
def test_the_receipt_holds_the_signatures_of_all_who_computed_it(
    world: World, n: int, parties: tuple[str, ...]
) -> None:
    plain = world.ask("ann", MEANS)
    answer = world["ann"].sql(MEANS).run(certify=n, deadline="20s")
    assert answer.table.to_pydict() == plain.table.to_pydict()
    assert (answer.deviations, plain.certificates) == ((), ())
    (query,) = computed(answer, "query").values()
    assert query == {"ann", *parties}  # ann says what arrived
    (release,) = computed(answer, "release").values()
    assert len(release) == n
    assert release > {"ann"}
    for party in ("ann", *parties):
        until(partial(world.receipted, party, answer.task), f"{party} has the receipt")
        of_task = {one.id: one for one in statements(world, party, answer.task)}
        receipt = next(body_of(one, Receipt) for one in of_task.values() if one.kind == "receipt")
        assert [c.step for c in receipt.certificates] == ["query", "release"]
        for certified in receipt.certificates:
            for signed in certified.signed:
                statement = of_task[signed.statement]
                confirm = body_of(statement, Confirm)
                assert f"/{signed.party}/" in statement.author
                assert {done.step: done.certified for done in confirm.steps}[signed.step] == signed.digest
        assert verify_journal(world.home(party).journal_path).problems == ()
        assert not world.told(party, answer.task)


def test_a_minority_that_lies_is_named_with_both_digests_and_the_answer_stands(world: World) -> None:
    honest = world.ask("ann", MEANS)
    lie(world, "cyd")
    answer = world["ann"].sql(MEANS).run(certify=3, deadline="20s")
    assert answer.table == honest.table
    query = {signer: digest for digest, signers in computed(answer, "query").items() for signer in signers}
    assert query["ann"] == query["bea"] == query["dot"] != query["cyd"]
    deviation = next(one for one in answer.deviations if one.step == "query")
    assert (deviation.party, deviation.digest, deviation.counts) == ("cyd", query["cyd"], query["bea"])
    assert {one.party for one in answer.deviations} == {"cyd"}
    for party in ("ann", "bea", "cyd", "dot"):
        until(partial(world.told, party, answer.task, len(answer.deviations)), f"{party} notices it")
        assert any(query["cyd"] in text and query["bea"] in text for text in world.told(party, answer.task))


def test_of_two_that_differ_none_is_believed(world: World) -> None:
    lie(world, "cyd")
    with pytest.raises(Deviation, match=r"step query was not computed alike: bea computed .*, cyd computed") as error:
        world["ann"].sql(MEANS).run(certify=2, deadline="20s")
    assert "\n" not in str(error.value)
    (task,) = world["ann"].tasks()
    assert (task.state, task.code, task.receipt) == ("failed", "deviation", None)
    (query, _) = task.certificates
    assert query.digest == ""
    assert len({signed.digest for signed in query.signed}) == 2
    with pytest.raises(InvalidInput, match="has no answer here: it is failed"):
        world["ann"].result(task.task)
    for party in ("ann", "bea", "cyd"):
        until(partial(world.told, party, task.task), f"{party} notices it")
        assert {d.party for d in world.progress(party, task.task).deviations} >= {"bea", "cyd"}


def test_an_owner_that_lies_is_outvoted_and_ends_the_task(world: World) -> None:
    lie(world, "bea")
    with pytest.raises(Deviation, match=r"failed at bea: step query was not computed alike: bea computed .*cyd, dot"):
        world["ann"].sql(MEANS).run(certify=3, deadline="20s")


def test_an_owner_that_confirms_one_table_and_sends_another_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, spool = world.node("bea").outbox, world.node("bea").spool
    put = outbox.put

    def falsified(task: object, step: object, run: str, name: str, to: PartyId, content: Content, *rest: bytes) -> None:
        if name == "rows" and isinstance(content, Spooled | Copy):
            data = content.path.read_bytes() if isinstance(content, Copy) else b"".join(spool.read(content))
            content = ipc_bytes(table_of(data).slice(1))
            rest = (hashlib.sha256(content).digest(),)
        put(task, step, run, name, to, content, *rest)  # type: ignore[arg-type]  # handed through as they came

    monkeypatch.setattr(outbox, "put", falsified)
    with pytest.raises(Deviation, match=r"failed at bea: step .* was not computed alike: .* arrived at .* from bea"):
        world["ann"].sql(JOINED).run(certify=2, deadline="20s")


def test_what_is_joined_with_private_rows_is_certified_where_it_arrives(world: World) -> None:
    answer = world["ann"].sql(JOINED).run(certify=3, deadline="20s")
    plain = world.ask("ann", JOINED)
    assert_same(answer.table, plain.table, JOINED)
    (certificate,) = answer.certificates
    assert len({signed.digest for signed in certificate.signed}) == 1
    assert any(signed.step.startswith("certify-") for signed in certificate.signed)
    assert "ann" in {signed.party for signed in certificate.signed}


def test_no_copy_of_an_earlier_answer_stands_in_for_what_is_certified(world: World) -> None:
    question = "SELECT COUNT(*) AS n FROM flights JOIN winds USING (origin)"
    pairs = 2 * 60 * 20  # each flight of both owners with every row of its origin
    world.publish("bea", "winds", WEATHER, OPEN)
    lying = lie(world, "bea")
    assert world.ask("ann", question).table["n"].to_pylist() != [pairs]
    lying.rows = 0
    assert world.ask("ann", question).table["n"].to_pylist() != [pairs]  # bea, ann and dot have kept what was false
    for party in ("cyd", "dot"):
        world.publish(party, "winds", WEATHER, OPEN)
    assert world["ann"].sql(question).run(certify=3, deadline="20s").table["n"].to_pylist() == [pairs]


def test_more_certifiers_than_there_are_is_told_before_anything_is_asked(world: World) -> None:
    question = world["ann"].sql(MEANS)
    with pytest.raises(InvalidInput, match=r"certify = 4: only bea, cyd, dot can compute .* ask for fewer") as error:
        question.run(certify=4)
    assert "\n" not in str(error.value)
    assert world["ann"].tasks() == ()
