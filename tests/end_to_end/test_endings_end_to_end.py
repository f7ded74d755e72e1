# SPDX-License-Identifier: Apache-2.0
"""However a task ends, it ends at every participant, within its time, with the same name and reason."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from held import held
from pooled import GROUPED, Pooled

import junto
from junto.client.question import Answer
from junto.errors import Cancelled, DataChanged, DeadlineExceeded, InvalidInput, JuntoError, Refused, Unavailable
from junto.node.settings import NodeSettings, read_settings
from junto.tasks.events import Forbidden, Permitted
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.testing.until import until
from junto.types import PartyId, TaskId

_TABLE = pa.table({"id": list(range(40)), "k": ["a", "b"] * 20, "v": list(range(40))})
_QUESTION = "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k"
_OWNERS = ("ann", "bea")
_ALL = ("ann", "bea", "cyd")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> NodeSettings:
    file = tmp_path_factory.mktemp("settings") / "node.toml"
    file.write_text('offers = "3s"\nabsence = "1500ms"\n')
    return read_settings(file)


@pytest.fixture(scope="module")
def world(settings: NodeSettings) -> Iterator[Pooled]:
    with Pooled(_ALL, settings) as consortium:
        consortium.share("t", dict.fromkeys(_OWNERS, _TABLE), GROUPED, unit="id")
        consortium.ask("cyd", _QUESTION)
        yield consortium


def _task(world: Pooled, party: str, task: TaskId) -> Task:
    return world.node(party).runner.find(task).task


def _ended_everywhere(world: Pooled, task: TaskId, parties: tuple[str, ...] = _ALL) -> dict[str, tuple[str, str, str]]:
    """How the task ended at each party: state, code, whose doing."""
    found: dict[str, tuple[str, str, str]] = {}
    for party in parties:
        _await_end(world, party, task)
        machine = _task(world, party, task)
        outcome = machine.outcome
        assert outcome is not None
        found[party] = (machine.state, outcome.code, outcome.party)
    return found


def _await_end(world: Pooled, party: str, task: TaskId) -> None:
    live = world.node(party).runner.live
    until(lambda: task in live and live[task].task.state in ENDED, f"task {task} ended at {party}")


def _submit(world: Pooled, asker: str = "cyd", deadline: str = "20s") -> TaskId:
    return world[asker].sql(_QUESTION).submit(deadline=deadline)


def _error(act: Callable[[], Answer]) -> JuntoError:
    with pytest.raises(JuntoError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return caught.value


def _spooled(world: Pooled, party: str) -> list[Path]:
    return list(world.home(party).spool_path.glob("*.out"))


def _whole(world: Pooled) -> None:
    """The consortium answers as if nothing had happened."""
    until(lambda: all(link.up for p in _ALL for link in world[p].status().links), "all links are up")
    assert world.ask("cyd", _QUESTION).table.num_rows == 2
    for party in _OWNERS:
        until(lambda: not world.node(party).runner.open, f"{party} has no open task")  # noqa: B023  # used at once
        assert _spooled(world, party) == []


def test_a_cancelled_task_stops_at_every_participant(world: Pooled) -> None:
    with held(world.node("bea")) as engine:
        task = _submit(world)
        assert engine.begun.wait(10)
        waits = until(lambda: [w for w in world["cyd"].task(task).waits if w.party == "bea"], "the wait is shown")
        assert all(wait.since <= time.time() <= wait.until for wait in waits)
        world["cyd"].cancel(task)
        assert _ended_everywhere(world, task) == dict.fromkeys(_ALL, ("cancelled", "cancelled", "cyd"))
        assert engine.stopped.wait(10)
    assert "cancelled by analyst at cyd" in str(_error(lambda: world["cyd"].wait(task)))
    assert isinstance(_error(lambda: world["cyd"].wait(task)), Cancelled)
    with pytest.raises(InvalidInput, match="ended already"):
        world["cyd"].cancel(task)
    _whole(world)


def test_a_participants_operator_may_stop_the_work_too(world: Pooled) -> None:
    with held(world.node("ann")) as engine:
        task = _submit(world)
        assert engine.begun.wait(10)
        world["bea"].cancel(task)
        assert _ended_everywhere(world, task) == dict.fromkeys(_ALL, ("cancelled", "cancelled", "bea"))
    assert "cancelled by analyst at bea" in str(_error(lambda: world["cyd"].wait(task)))
    world.home("ann").add_user("guest", time.time())
    with _desk(world, "ann", "guest") as guest, pytest.raises(Refused, match="of analyst@cyd"):
        guest.cancel(task)
    _whole(world)


def test_a_participant_that_never_offers_is_named(world: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(task: Task) -> Permitted | Forbidden:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(world.node("bea").runner, "_judge", never)
    task = _submit(world)
    assert _ended_everywhere(world, task) == dict.fromkeys(_ALL, ("expired", "deadline-exceeded", "bea"))
    error = _error(lambda: world["cyd"].wait(task))
    assert isinstance(error, DeadlineExceeded)
    assert "for bea: its offer" in str(error)
    monkeypatch.undo()
    _whole(world)


def test_a_participant_that_does_not_take_a_proposal_in_is_named_at_once_with_its_reason(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.node("bea")._peers, "_longest", 5.0)
    task = _submit(world)
    error = _error(lambda: world["cyd"].wait(task))
    assert isinstance(error, InvalidInput)
    assert "bea did not take in the proposal: cyd proposes a deadline of 20 s; at most 5 s here" in str(error)
    assert _ended_everywhere(world, task, ("ann", "cyd"))["ann"] == ("failed", "invalid-input", "bea")
    monkeypatch.undo()
    _whole(world)


def test_the_deadline_ends_a_task_and_names_whose_step_was_missing(world: Pooled) -> None:
    with held(world.node("bea")) as engine:
        began = time.monotonic()
        task = _submit(world, deadline="2500ms")
        ends = _ended_everywhere(world, task)
        assert time.monotonic() - began < 10
        assert {state for state, _, _ in ends.values()} == {"expired"}
        assert {party for _, _, party in ends.values()} == {"bea"}
        assert engine.stopped.wait(10)
    assert "bea" in str(_error(lambda: world["cyd"].wait(task)))
    _whole(world)


def test_a_link_that_is_cut_and_comes_back_costs_nothing(world: Pooled) -> None:
    with held(world.node("bea")) as engine:
        task = _submit(world)
        assert engine.begun.wait(10)
        for one, other in (("cyd", "bea"), ("ann", "bea"), ("cyd", "ann")):
            _cut(world, one, other)
        until(lambda: all(link.up for p in _ALL for link in world[p].status().links), "the links come back")
        engine.go.set()
        assert world["cyd"].wait(task).table.to_pylist() == [{"k": "a", "s": 760}, {"k": "b", "s": 800}]
    _whole(world)


def test_a_link_that_stays_down_ends_the_task_and_names_the_party(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nowhere(party: object) -> bool:
        return False

    with held(world.node("ann")) as engine:
        task = world["cyd"].sql(_QUESTION).submit(deadline="20s", absent="fail")
        assert engine.begun.wait(10)
        for party in _ALL:
            monkeypatch.setattr(world.node(party).links, "_dial_once", nowhere)
        began = time.monotonic()
        for other in ("ann", "cyd"):
            _cut(world, other, "bea")
        ends = _ended_everywhere(world, task)
        assert time.monotonic() - began < 10
        assert ends["ann"][::2] == ends["cyd"][::2] == ("failed", "bea")
        assert ends["bea"][0] == "failed"
    error = _error(lambda: world["cyd"].wait(task))
    assert isinstance(error, Unavailable)
    assert "bea cannot be reached" in str(error)
    late = _error(lambda: world.ask("cyd", _QUESTION))
    assert "bea cannot be reached: no link since" in str(late)
    monkeypatch.undo()
    _whole(world)


def _cut(world: Pooled, one: str, other: str) -> None:
    async def cut() -> None:
        for link in world.node(one).links.connections(PartyId(other)):
            link.abort("cut by a test")

    world.on_loop(cut())


def test_a_file_that_changes_after_it_was_published_is_refused_by_name(world: Pooled) -> None:
    world.share("changing", dict.fromkeys(_OWNERS, _TABLE), GROUPED, unit="id")
    question = "SELECT SUM(v) AS s FROM changing"
    file = max(world.home("bea").data_path.glob("*.parquet"), key=lambda path: int(path.stem))
    original = file.read_bytes()
    os.utime(file, (1, 1))
    assert world.ask("cyd", question).table.to_pylist() == [{"s": 1560}]
    pyarrow.parquet.write_table(_TABLE.slice(0, 30), file)
    error = _error(lambda: world.ask("cyd", question))
    assert isinstance(error, DataChanged)
    assert "bea" in str(error)
    assert "changing" in str(error)
    assert str(file.parent) not in str(error)  # where a party keeps its files is its own matter
    file.unlink()
    assert isinstance(_error(lambda: world.ask("cyd", question)), DataChanged)
    file.write_bytes(original)
    assert world.ask("cyd", question).table.to_pylist() == [{"s": 1560}]


def test_a_new_version_between_compiling_and_running_asks_for_the_question_again(world: Pooled) -> None:
    world.share("moving", dict.fromkeys(_OWNERS, _TABLE), GROUPED, unit="id")
    question = world["cyd"].sql("SELECT SUM(v) AS s FROM moving")
    world.publish("bea", "moving", _TABLE.slice(0, 20), GROUPED, unit="id")
    error = _error(question.run)
    assert isinstance(error, DataChanged)
    assert "dataset moving of bea has a new version since the question was compiled: ask again" in str(error)
    assert world.ask("cyd", question.text).table.to_pylist() == [{"s": 780 + 190}]


def test_a_schema_that_differs_is_told_to_both_sides_and_named_in_questions(world: Pooled) -> None:
    world.share("odd", {"ann": _TABLE}, GROUPED, unit="id")
    other = pa.table({"id": list(range(40)), "k": list(range(40))})
    world.publish("bea", "odd", other, GROUPED, unit="id")
    error = _error(lambda: world.ask("cyd", "SELECT k, SUM(v) FROM odd GROUP BY k"))
    assert isinstance(error, InvalidInput)
    assert "odd" in str(error)
    assert "bea" in str(error)


def _desk(world: Pooled, party: str, user: str) -> "junto.Desk":
    return junto.connect(world.home(party).path, user=user)
