# SPDX-License-Identifier: Apache-2.0
"""Nodes of one party share its fragments; whatever becomes of a helper, the answer is right and in time."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from types import SimpleNamespace
from typing import cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from held import held
from helpers import Watched, helping, second_home
from pooled import OPEN, Pooled, assert_same, statements

from junto.catalog.dataset import Dataset
from junto.engines.base import Limits, Rows, Source, Stop
from junto.engines.duckdb import DuckDB
from junto.errors import InvalidInput, JuntoError, OutOfMemory, Refused
from junto.link import methods
from junto.link.connection import Answer, Caller, Handler, Link
from junto.link.dial import dial, here_of
from junto.node.ground import Ground
from junto.node.helping import Helping
from junto.node.home import Home
from junto.node.settings import read_settings
from junto.testing.until import until
from junto.trust.certificates import Identity
from junto.trust.names import parse_name
from junto.types import NodeId

_SUMS = "SELECT k, SUM(v) AS s, COUNT(*) AS n FROM {table} GROUP BY k ORDER BY k"


@pytest.fixture(scope="module")
def consortium() -> Iterator[Pooled]:
    with Pooled(("ann", "bea", "cyd")) as world:
        for number in range(4):
            _share(world, number)
        yield world


def _share(world: Pooled, number: int) -> None:
    tables = {
        party: pa.table({"id": range(100), "k": [i % 3 for i in range(100)], "v": [number + i] * 100})
        for i, party in enumerate(("ann", "bea", "cyd"))
    }
    world.share(f"t{number}", tables, unit="id")


@pytest.fixture(scope="module")
def home(consortium: Pooled) -> Home:
    """The helper's, once each of bea's two nodes has one of the tables: versions are drawn, and so are places."""
    found = second_home(consortium, "bea")
    with helping(consortium, found):
        numbers = count(4)
        while {_chosen(consortium, table) for table in _tables(consortium)} != {"node", "helper"}:
            _share(consortium, next(numbers))
    return found


def _tables(consortium: Pooled) -> list[Dataset]:
    """The private tables of bea's."""
    node = consortium.node("bea")
    return [dataset for dataset in node.facts.view.of(node.me) if dataset.unit]


def _chosen(consortium: Pooled, table: Dataset) -> str:
    """The node that computes the fragments over a table, while it has room."""
    return consortium.node("bea").spreading.nodes.choose(f"{table.name}@{table.version}")


def _helpers_table(consortium: Pooled) -> str:
    """A table whose fragments at bea are the helper's, while it has room. Needs the helper to be there."""
    return next(table.name for table in _tables(consortium) if _chosen(consortium, table) == "helper")


def test_fragments_of_a_party_spread_over_its_nodes_and_every_answer_is_right(consortium: Pooled, home: Home) -> None:
    engine = Watched()
    with helping(consortium, home, engine), ThreadPoolExecutor(4) as asking:
        nodes = consortium.node("bea").spreading.nodes
        before = nodes.computed.copy()
        questions = [_SUMS.format(table=table.name) for table in _tables(consortium)] * 2
        answers = list(asking.map(lambda question: consortium.ask("ann", question), questions))
        for question, answer in zip(questions, answers, strict=True):
            assert_same(answer.table, consortium.pooled(question), question)
        did = nodes.computed - before
    assert did.total() == len(questions)
    assert did[NodeId("helper")] == len(engine.runs) > 0
    assert did[NodeId("node")] > 0


def test_rows_of_an_open_table_come_from_a_helper_and_their_copy_is_kept(consortium: Pooled, home: Home) -> None:
    engine = Watched()
    with helping(consortium, home, engine):
        name = next(f"o{i}" for i in count() if _published_open(consortium, f"o{i}"))
        question = f"SELECT v, id FROM {name} ORDER BY v, id"
        for _ in range(2):
            assert_same(consortium.ask("ann", question).table, consortium.pooled(question), question)
    assert len(engine.runs) == 1


def _published_open(consortium: Pooled, name: str) -> bool:
    """Whether an open table of bea's, now published, is the helper's to read."""
    rows = pa.table({"id": range(5_000), "v": [i % 7 / 8 for i in range(5_000)]})
    consortium.share(name, {"bea": rows}, OPEN)
    dataset = next(d for d in consortium["bea"].datasets() if d.name == name)
    return consortium.node("bea").spreading.nodes.choose(f"{name}@{dataset.version}") == "helper"


def test_a_helper_that_dies_in_the_middle_costs_time_and_nothing_else(consortium: Pooled, home: Home) -> None:
    engine = Watched()
    engine.go.clear()
    with ThreadPoolExecutor(1) as asking:
        with helping(consortium, home, engine):
            question = _SUMS.format(table=_helpers_table(consortium))
            answer = asking.submit(consortium.ask, "ann", question)
            assert engine.begun.wait(10)
        assert engine.stopped.wait(1)  # its link is gone, and so is its engine's run
        assert_same(answer.result(20).table, consortium.pooled(question), question)


class _Broken:
    """An engine on a machine that can do nothing."""

    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> AbstractContextManager[Rows]:
        raise OutOfMemory("the fragment needs more memory or temporary disk than the node may use")

    def close(self) -> None:
        """Nothing is kept."""


def test_a_helper_whose_engine_fails_is_not_the_tasks_end(consortium: Pooled, home: Home) -> None:
    with helping(consortium, home, _Broken()):
        question = _SUMS.format(table=_helpers_table(consortium))
        assert_same(consortium.ask("ann", question).table, consortium.pooled(question), question)
        assert consortium.node("bea").spreading.nodes.loads.total() == 0


def test_a_helper_that_never_ends_has_half_of_the_time_that_is_left(consortium: Pooled, home: Home) -> None:
    engine = Watched()
    engine.go.clear()
    with helping(consortium, home, engine):
        question = _SUMS.format(table=_helpers_table(consortium))
        answer = consortium.ask("ann", question, deadline="3s")
        assert_same(answer.table, consortium.pooled(question), question)
        assert engine.stopped.wait(1)


def test_cancel_stops_the_engine_of_a_helper_within_a_second(consortium: Pooled, home: Home) -> None:
    engine = Watched()
    engine.go.clear()
    with helping(consortium, home, engine):
        question = _SUMS.format(table=_helpers_table(consortium))
        task = consortium["ann"].sql(question).submit(deadline="20s")
        assert engine.begun.wait(10)
        top = next(iter(consortium["bea"].top()))
        assert [(node.node, len(node.running)) for node in top.nodes] == [("node", 0), ("helper", 1)]
        assert [node.node for node in consortium["bea"].status().helpers] == ["helper"]
        consortium["ann"].cancel(task)
        assert engine.stopped.wait(1)
        until(lambda: not consortium.node("bea").spreading.nodes.loads.total(), "nothing is computed any more")


def test_a_helper_without_the_files_says_so_and_the_acting_node_computes(consortium: Pooled, home: Home) -> None:
    engine = Watched()
    sources = home.path / "data"
    linked = sources.readlink()
    sources.unlink()
    sources.mkdir()
    try:
        with helping(consortium, home, engine):
            question = _SUMS.format(table=_helpers_table(consortium))
            assert_same(consortium.ask("ann", question).table, consortium.pooled(question), question)
    finally:
        sources.rmdir()
        sources.symlink_to(linked)
    assert engine.runs == []


def test_only_another_node_of_the_same_party_is_let_in_to_help(consortium: Pooled, home: Home) -> None:
    def offered(identity: Identity) -> str:
        """What a node says to whoever offers help with that certificate."""

        async def offer() -> str:
            charter = consortium.home("bea").charter()
            link = await dial(here_of(identity, charter, "stranger"), consortium.node("bea").links.listening[0])
            try:
                await link.call(methods.PARTY_HELP, msgspec.json.encode(methods.Help(1)), timeout_seconds=5)
            except JuntoError as error:
                return str(error)
            finally:
                await link.close()
            return ""

        return consortium.on_loop(offer())

    assert "bea/user/analyst is not one" in offered(consortium.home("bea").profile("analyst").identity())
    assert "is this node itself" in offered(consortium.home("bea").node_identity(time.time()))
    assert offered(home.node_identity(time.time())) == ""
    until(lambda: not consortium.node("bea").spreading.nodes.helpers, "its link is gone, and so is the helper")


def test_neither_side_serves_nodes_of_other_parties_or_users(consortium: Pooled, home: Home) -> None:
    with helping(consortium, home) as helper:
        handlers = {**consortium.node("bea").links.handlers, **helper.handlers}
        for method in (methods.PARTY_HELP, methods.PARTY_COMPUTE):
            for stranger in ("ann/node", "bea/user/analyst"):
                name = parse_name(f"spiffe://local/{stranger}")
                caller = Caller(name, method, time.monotonic() + 5, "", cast(Link, None))
                with pytest.raises(Refused, match=f"is for other nodes of bea; {stranger} is not one"):
                    consortium.on_loop(_called(handlers[method], caller, b"{}"))
        assert list(helper.handlers) == [methods.PARTY_COMPUTE]


async def _called(handler: Handler, caller: Caller, payload: bytes) -> Answer:
    return await handler(caller, payload)


def test_both_nodes_compute_a_doubled_fragment_and_who_has_one_node_says_so(consortium: Pooled, home: Home) -> None:
    question = _SUMS.format(table="t0")
    with helping(consortium, home):
        answer = consortium["ann"].sql(question).run(deadline="20s", double=True)
    assert_same(answer.table, consortium.pooled(question), question)
    assert answer.deviations == ()
    told = {str(one.party): one for one in answer.doubled}
    assert {party: one.line for party, one in told.items() if party != "bea"} == {
        party: f"{party} has one node; step query-{party} was computed once" for party in ("ann", "cyd")
    }
    assert sorted(told["bea"].nodes) == ["helper", "node"]
    assert told["bea"].first == told["bea"].second != ""
    assert "was computed alike by bea/" in told["bea"].line


class _OneRowOff:
    """An engine whose sums are one too large: a disk or a processor that lies, or a file that is another."""

    def __init__(self) -> None:
        self._engine = DuckDB()

    @contextmanager
    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> Iterator[Rows]:
        with self._engine.run(sql, tables, limits, stop) as rows:
            table = rows.table()
            at = table.schema.names.index("units")
            more = pc.add(table.column(at), 1).cast(table.schema.field(at).type)
            table = table.set_column(at, table.schema.field(at), more)
            yield Rows(table.schema, iter(table.to_batches()))

    def close(self) -> None:
        self._engine.close()


def test_a_second_result_that_differs_is_a_deviation_with_both_digests_and_changes_nothing(
    consortium: Pooled, home: Home
) -> None:
    question = _SUMS.format(table="t1")
    late = Watched(_OneRowOff())
    late.go.clear()  # so that the first result is the right one
    with helping(consortium, home, late), ThreadPoolExecutor(1) as asking:
        answering = asking.submit(consortium["ann"].sql(question).run, deadline="20s", double=True)
        assert late.begun.wait(10)
        bea = consortium.node("bea")
        until(lambda: any(live.task.finished for live in bea.runner.open), "its own result is there")
        late.go.set()
        answer = answering.result(20)
    assert_same(answer.table, consortium.pooled(question), question)
    [deviation] = answer.deviations
    told = next(one for one in answer.doubled if one.party == "bea")
    assert (deviation.party, deviation.digest, deviation.counts) == ("bea", told.second, told.first)
    assert told.first != told.second
    assert deviation.line == told.line
    assert "bea/helper computed sha256:" in deviation.line
    for party in consortium.parties:
        found = consortium[party].notices(tasks=[answer.task], kinds=["deviation"], past_seconds=60)
        notice = next(iter(found))
        assert (notice.party, notice.text) == ("bea", deviation.line)
    said = [s for s in statements(consortium, "cyd", answer.task) if s.id == told.statement]
    assert [(s.kind, parse_name(s.author).party) for s in said] == [("confirm", "bea")]


def test_a_second_result_that_does_not_come_holds_the_answer_up_for_a_moment_and_is_named(
    consortium: Pooled, home: Home
) -> None:
    question = _SUMS.format(table="t2")
    engine = Watched()
    engine.go.clear()
    with helping(consortium, home, engine):
        answer = consortium["ann"].sql(question).run(deadline="3s", double=True)
        assert_same(answer.table, consortium.pooled(question), question)
        told = next(one for one in answer.doubled if one.party == "bea")
        assert "computed once" in told.line
        assert engine.stopped.wait(1)
        until(lambda: not consortium.node("bea").spreading.nodes.loads.total(), "nothing is computed any more")


def test_the_first_result_counts_also_when_it_is_the_helpers(consortium: Pooled, home: Home) -> None:
    question = _SUMS.format(table="t3")
    with helping(consortium, home), held(consortium.node("bea")) as own, ThreadPoolExecutor(1) as asking:
        answering = asking.submit(consortium["ann"].sql(question).run, deadline="20s", double=True)
        assert own.begun.wait(10)
        bea = consortium.node("bea")
        until(lambda: any(live.task.finished for live in bea.runner.open), "the helper's result is there")
        own.go.set()
        answer = answering.result(20)
    assert_same(answer.table, consortium.pooled(question), question)
    told = next(one for one in answer.doubled if one.party == "bea")
    assert told.nodes == ("helper", "node")
    assert told.first == told.second != ""


def test_a_fragment_that_only_one_of_two_nodes_can_compute_is_computed_by_that_one(
    consortium: Pooled, home: Home
) -> None:
    question = _SUMS.format(table="t0")
    with helping(consortium, home, _Broken()):
        answer = consortium["ann"].sql(question).run(deadline="20s", double=True)
    assert_same(answer.table, consortium.pooled(question), question)
    told = next(one for one in answer.doubled if one.party == "bea")
    assert told.line == "helper of bea gave no second result; step query-bea was computed once"


def test_each_task_of_a_trigger_is_doubled_if_the_trigger_says_so(consortium: Pooled, home: Home) -> None:
    triggers = consortium["ann"].triggers
    with helping(consortium, home):
        triggers.create("nightly", consortium["ann"].sql(_SUMS.format(table="t1")), cron="0 3 * * *", double=True)
        answer = consortium["ann"].wait(triggers.fire("nightly"))
        triggers.remove("nightly")
    assert sorted(next(one for one in answer.doubled if one.party == "bea").nodes) == ["helper", "node"]


def test_a_helper_of_another_version_of_junto_is_turned_away(
    consortium: Pooled, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("junto.node.spreading.__version__", "9.9.9")
    name = parse_name("spiffe://local/bea/helper")
    link = SimpleNamespace(hello=SimpleNamespace(software="0.1.0"))
    caller = Caller(name, methods.PARTY_HELP, time.monotonic() + 5, "", cast(Link, link))
    offer = msgspec.json.encode(methods.Help(1))
    with pytest.raises(InvalidInput, match=r"bea/helper runs Junto 0.1.0, node, which acts, 9.9.9"):
        consortium.on_loop(_called(consortium.node("bea").links.handlers[methods.PARTY_HELP], caller, offer))
    assert consortium.node("bea").spreading.nodes.helpers == ()


def test_a_node_that_cannot_help_says_why_once_and_helps_when_it_can(
    consortium: Pooled, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    key = home.path / "keys" / "authority.pem"
    hidden = key.with_suffix(".away")
    key.rename(hidden)

    def reasons() -> list[str]:
        return [record.getMessage() for record in caplog.records if "does not help" in record.getMessage()]

    async def begun() -> Helping:
        helper = await Helping(home, read_settings(home.path / "node.toml"), Ground()).__aenter__()
        helper.begin()
        return helper

    helper = consortium.on_loop(begun())
    try:
        until(lambda: len(reasons()) == 1, "it says why")
        hidden.rename(key)
        until(lambda: "helper" in consortium.node("bea").spreading.nodes.helpers, "it helps")
        assert len(reasons()) == 1
    finally:
        consortium.on_loop(helper.__aexit__(None, None, None))
