# SPDX-License-Identifier: Apache-2.0
"""Real nodes ask questions again by themselves: each occasion once, over the data as it is then, whoever restarts."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pooled import GROUPED, PARTS, Pooled

from junto.client import Desk, connect
from junto.client.question import new_task_id
from junto.errors import InvalidInput, Refused, StorageFailed
from junto.link import methods
from junto.link.methods import FiringView, TriggerView
from junto.node.ledger import Kept
from junto.node.node import Node
from junto.node.settings import read_settings
from junto.plan import steps
from junto.tasks.triggers import Firing
from junto.testing.until import until
from junto.types import TaskId

_QUESTION = "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k"


def _table(v: int) -> pa.Table:
    return pa.table({"id": list(range(40)), "k": ["a", "b"] * 20, "v": [v] * 40})


class World(Pooled):
    """A consortium whose nodes can be stopped and started."""

    def stop(self, party: str) -> None:
        """Stop a party's node, as a crash of its process would leave it."""
        self.on_loop(self.node(party).__aexit__(None, None, None))

    def start(self, party: str, reaches: str = "") -> None:
        """Start it anew, and wait until it reaches another party, or all."""

        async def started() -> Node:
            return await Node(self.home(party), on_fatal=_dies).__aenter__()

        self._nodes[party] = self.on_loop(started())
        until(
            lambda: all(link.up for link in self[party].status().links if reaches in ("", link.party)),
            f"{party} reaches {reaches or 'everyone'}",
        )

    def wake(self, party: str, hours_ahead: float = 0.0) -> None:
        """Set the clock by which a party's triggers go, and let it look."""
        triggers = self.node(party).triggers

        async def set_clock() -> None:
            triggers._now = lambda: time.time() + 3600 * hours_ahead
            triggers._woken.set()

        self.on_loop(set_clock())


def _dies(reason: str) -> None:
    raise AssertionError(reason)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(("ann", "bea")) as consortium:
        consortium.share("t", {"ann": _table(1), "bea": _table(1)}, GROUPED, unit="id")
        yield consortium
        for party in ("ann", "bea"):
            consortium.stop(party)


@pytest.fixture(autouse=True)
def _fresh(world: World) -> Iterator[None]:
    world.publish("bea", "t", _table(1), GROUPED, unit="id")
    yield
    world.wake("ann")
    for view in world["ann"].triggers.all():
        world["ann"].triggers.remove(view.name)


def _create(world: World, name: str, **when: str) -> TriggerView:
    desk = world["ann"]
    return desk.triggers.create(name, desk.sql(_QUESTION, purpose="reports"), deadline="20s", **when)  # type: ignore[arg-type]  # ends and missed are words


def _firings(world: World, name: str, count: int, end: str = "done") -> list[FiringView]:
    """The trigger's firings, once there are so many and all have ended so, oldest first."""

    def reached() -> bool:
        found = world["ann"].triggers.show(name).firings
        assert len(found) <= count, f"{name} fired {len(found)} times"
        return [firing.end for firing in found] == [end] * count

    until(reached, f"{name} fired {count} times")
    return list(reversed(world["ann"].triggers.show(name).firings))


def _sums(world: World, task: TaskId) -> list[int]:
    return [int(value) for value in world["ann"].wait(task).table.column("s").to_pylist()]


def _statements(world: World, kind: str, task: TaskId) -> int:
    return sum(1 for _ in world.node("ann").journal.entries(kinds=(kind,), task=task, author=_author(world)))


def _author(world: World) -> str:
    return world.node("ann").identity.name.uri


# ── conditions ──────────────────────────────────────────────────────────────────────────────────────


def test_a_new_version_anywhere_is_asked_over_and_what_follows_follows(world: World) -> None:
    _create(world, "fresh", on_version="t")
    _create(world, "then", after="fresh", ends="done")
    world.publish("bea", "t", _table(5), GROUPED, unit="id")
    (fresh,) = _firings(world, "fresh", 1)
    (then,) = _firings(world, "then", 1)
    assert then.occasion == fresh.task
    assert _sums(world, fresh.task) == _sums(world, then.task) == [120, 120]
    progress = world["ann"].task(fresh.task)
    assert (progress.purpose, progress.user, progress.question) == ("reports", "analyst", _QUESTION)
    world.publish("bea", "t", _table(5), GROUPED, unit="id")  # as it was
    world.publish("ann", "t", _table(2), GROUPED, unit="id")
    assert _sums(world, _firings(world, "fresh", 2)[1].task) == [140, 140]
    _firings(world, "then", 2)
    world.publish("ann", "t", _table(1), GROUPED, unit="id")
    _firings(world, "then", 3)


def test_the_end_of_one_task_is_followed_once(world: World) -> None:
    desk = world["ann"]
    reached, go = asyncio.Event(), asyncio.Event()
    begin = world.node("ann").judgement.begin

    async def held(task: TaskId) -> None:
        reached.set()
        await go.wait()
        await begin(task)

    world.node("ann").judgement.begin = held  # type: ignore[method-assign]  # the task runs until it is let
    try:
        task = desk.sql(_QUESTION).submit(deadline="20s")
        _create(world, "after-it", after=task)
        assert desk.triggers.show("after-it").firings == ()
        world.node("ann").judgement.begin = begin  # type: ignore[method-assign]
        world.on_loop(_set(go))
        (firing,) = _firings(world, "after-it", 1)
    finally:
        world.node("ann").judgement.begin = begin  # type: ignore[method-assign]
    assert firing.occasion == task
    with pytest.raises(InvalidInput, match=f"task {task} has ended already"):
        _create(world, "too-late", after=task)


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_missed_nights_are_caught_up_one_after_the_other_and_a_clock_set_back_asks_nothing_twice(world: World) -> None:
    half_a_day_on = time.strftime("%M %H * * *", time.gmtime(time.time() + 12 * 3600))
    assert _create(world, "nightly", cron=half_a_day_on).next_at is not None
    _create(world, "lazy", cron=half_a_day_on, missed="skip")
    world.wake("ann", 72.0)
    firings = _firings(world, "nightly", 3)
    assert [firing.due for firing in firings] == sorted({firing.due for firing in firings})
    tasks = [world["ann"].task(firing.task) for firing in firings]
    for earlier, later in itertools.pairwise(tasks):
        assert earlier.ended_at is not None
        assert earlier.ended_at <= later.opened_at
    told = next(iter(world["ann"].notices(kinds=["trigger"], past_seconds=60.0)))
    assert told.text.startswith("trigger lazy leaves out 3 occasions, the last of ")
    for hours in (0.0, 30.0, 72.0):
        world.wake("ann", hours)
        world["ann"].triggers.fire("lazy")  # a turn was taken in between
    world.wake("ann")
    assert len(world["ann"].triggers.show("nightly").firings) == 3
    assert all(firing.user == "analyst" for firing in world["ann"].triggers.show("lazy").firings)
    world.stop("ann")
    world.start("ann")
    world["ann"].triggers.fire("lazy")
    assert len(world["ann"].triggers.show("nightly").firings) == 3


# ── crashes ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_that_dies_between_a_firing_and_its_task_asks_that_task_once_when_it_is_back(world: World) -> None:
    _create(world, "fresh", on_version="t@bea")
    triggers = world.node("ann").triggers
    dying = asyncio.Event()

    async def dies(firing: Firing) -> None:
        dying.set()
        await asyncio.Event().wait()

    triggers._ask = dies  # type: ignore[method-assign]  # the process ends here
    world.publish("bea", "t", _table(3), GROUPED, unit="id")
    until(dying.is_set, "the firing is in the journal")
    (before,) = world["ann"].triggers.show("fresh").firings
    assert _statements(world, "proposal", before.task) == 0
    world.stop("ann")
    world.start("ann")
    (after,) = _firings(world, "fresh", 1)
    assert (after.id, after.task) == (before.id, before.task)
    assert _sums(world, after.task) == [80, 80]
    assert _statements(world, "firing", after.task) == _statements(world, "proposal", after.task) == 1
    world.stop("ann")
    world.start("ann")
    assert [firing.id for firing in _firings(world, "fresh", 1)] == [after.id]


def test_a_version_whose_firing_was_not_recorded_before_the_crash_is_fired_after_it(world: World) -> None:
    _create(world, "fresh", on_version="t@bea", missed="skip")

    async def dies() -> None:
        await asyncio.Event().wait()

    world.node("ann").triggers._turn = dies  # type: ignore[method-assign]  # the process ends here
    world.publish("bea", "t", _table(3), GROUPED, unit="id")
    assert world["ann"].triggers.show("fresh").firings == ()
    world.stop("ann")
    world.start("ann")
    _firings(world, "fresh", 1)


@pytest.mark.parametrize(("missed", "count"), [("catch-up", 1), ("skip", 0)])
def test_of_versions_published_while_the_node_was_down_the_latest_counts_or_none(
    world: World, monkeypatch: pytest.MonkeyPatch, missed: str, count: int
) -> None:
    _create(world, "fresh", on_version="t@bea", missed=missed)
    _create(world, "witness", on_version="t@bea")
    world.stop("ann")
    for value in (7, 9):
        _publish_alone(world, value)
    monkeypatch.setattr("junto.tasks.firings.LATE_SECONDS", 0.0)
    world.start("ann")
    (firing,) = _firings(world, "witness", 1)
    assert _sums(world, firing.task) == [200, 200]
    _firings(world, "fresh", count)


def _publish_alone(world: World, value: int) -> None:
    """As `publish`, without waiting for the other, who is down."""
    import pyarrow.parquet

    from junto.catalog.write import dataset_file

    folder = world.home("bea").data_path
    pyarrow.parquet.write_table(_table(value), folder / f"alone-{value}.parquet")
    (folder / f"alone-{value}.toml").write_text(dataset_file("t", f"alone-{value}.parquet", GROUPED, "id"))
    world["bea"].publish(folder / f"alone-{value}.toml")


def test_a_firing_that_cannot_be_recorded_is_tried_again(world: World) -> None:
    _create(world, "fresh", on_version="t@bea")
    ledger = world.node("ann").ledger
    write, full = ledger.write, asyncio.Event()

    async def no_room(kind: str, body: msgspec.Struct, task: TaskId = TaskId("")) -> Kept:  # noqa: B008  # an empty id
        if kind == "firing":
            full.set()
            raise StorageFailed("no space left for the journal")
        return await write(kind, body, task)

    ledger.write = no_room  # type: ignore[method-assign]
    world.publish("bea", "t", _table(3), GROUPED, unit="id")
    until(full.is_set, "a firing was tried")
    assert world["ann"].triggers.show("fresh").firings == ()
    ledger.write = write  # type: ignore[method-assign]
    world.wake("ann")
    _firings(world, "fresh", 1)


# ── what no longer fits ─────────────────────────────────────────────────────────────────────────────


def test_a_firing_whose_data_no_longer_fits_fails_by_name_and_the_next_goes_on(world: World) -> None:
    _create(world, "fresh", on_version="t@bea")
    other = pa.table({"id": list(range(40)), "k": ["a", "b"] * 20, "w": [1] * 40})
    world.publish("bea", "t", other, GROUPED, unit="id")
    (firing,) = _firings(world, "fresh", 1, end="no task")
    assert firing.reason == "t of bea no longer has the column v"
    told = next(iter(world["ann"].notices(tasks=[firing.task], past_seconds=60.0)))
    assert (told.kind, told.text) == ("trigger", f"trigger fresh came to no task: {firing.reason}")
    with pytest.raises(InvalidInput, match="trigger fresh came to no task: t of bea no longer has the column v"):
        world["ann"].triggers.fire("fresh")
    world.stop("ann")
    world.start("ann")
    assert [f.end for f in world["ann"].triggers.show("fresh").firings] == ["no task"] * 2
    world.publish("bea", "t", _table(4), GROUPED, unit="id")
    until(lambda: world["ann"].triggers.show("fresh").firings[0].end == "done", "the next version is asked over")


# ── users ───────────────────────────────────────────────────────────────────────────────────────────


def _guest(world: World) -> Desk:
    world.home("ann").add_user("guest", time.time())
    return connect(world.home("ann").path, user="guest")


def test_users_make_and_steer_their_own_triggers_and_operators_everybodys(world: World) -> None:
    with _guest(world) as guest:
        question = guest.sql(_QUESTION)
        assert guest.triggers.create("mine", question, cron="0 3 * * *").user == "guest"
        _create(world, "theirs", cron="0 3 * * *")
        with pytest.raises(Refused, match="only an operator may make a trigger for analyst"):
            guest.triggers.create("forged", question, cron="0 3 * * *", user="analyst")
        for act in (guest.triggers.pause, guest.triggers.remove, guest.triggers.fire):
            with pytest.raises(Refused, match="trigger theirs is analyst's"):
                act("theirs")
        world["ann"].triggers.create("given", world["ann"].sql(_QUESTION), cron="0 3 * * *", user="guest")
        guest.triggers.pause("given")
        assert guest.triggers.show("given").state == "paused"
        assert guest.triggers.show("given").next_at is None
        world["ann"].triggers.resume("given")
        assert guest.wait(guest.triggers.fire("given")).table.num_rows == 2
    world.home("ann").remove_user("guest")
    with pytest.raises(InvalidInput, match="guest is no longer a user of ann"):
        world["ann"].triggers.fire("mine")


def test_a_removed_trigger_leaves_its_name_free_also_after_a_restart(world: World) -> None:
    first = _create(world, "mine", on_version="t")
    with pytest.raises(InvalidInput, match="mine is there already"):
        _create(world, "mine", on_version="t")
    world["ann"].triggers.remove("mine")
    second = _create(world, "mine", on_version="t@bea")
    world.stop("ann")
    world.start("ann")
    assert [view.id for view in world["ann"].triggers.all()] == [second.id]
    assert first.id != second.id


def test_fired_by_hand_twice_under_one_id_it_is_one_task(world: World) -> None:
    _create(world, "mine", cron="0 3 * * *")
    task = new_task_id()
    body = msgspec.json.encode(methods.FireTrigger("mine", task))
    for _ in range(2):
        world["ann"].request(methods.USER_TRIGGER_FIRE, body)
    assert [firing.task for firing in _firings(world, "mine", 1)] == [task]
    assert _statements(world, "proposal", task) == 1


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ({}, "one condition"),
        ({"cron": "0 3 * * *", "on_version": "t"}, "one condition"),
        ({"cron": "every night"}, "fields"),
        ({"cron": "0 3 * * *", "zone": "Europe/Atlantis"}, "no time zone"),
        ({"on_version": "tt"}, "'tt'"),
        ({"on_version": "t@cyd"}, "cyd does not publish t"),
        ({"after": "nightly"}, "no trigger 'nightly'"),
        ({"after": "01jzzzzzzzzzzzzzzzzzzzzzzz"}, "no task 01jzzz"),
        ({"after": "this-one"}, "no trigger 'this-one'|follow itself"),
        ({"on_version": "t", "deadline": "5h"}, "deadline"),
        ({"on_version": "t", "missed": "perhaps"}, "CreateTrigger"),
    ],
)
def test_a_trigger_that_cannot_be_is_refused_in_a_line(world: World, when: dict[str, str], says: str) -> None:
    desk = world["ann"]
    with pytest.raises(InvalidInput, match=says) as refusal:
        desk.triggers.create("this-one", desk.sql(_QUESTION), **when)  # type: ignore[arg-type]  # words of all kinds
    assert "\n" not in str(refusal.value)
    assert desk.triggers.all() == ()


@pytest.mark.parametrize("name", ["", "Nightly", "a b", "-a", "x" * 65, "01jzzzzzzzzzzzzzzzzzzzzzzz"])
def test_a_name_that_is_none_is_refused(world: World, name: str) -> None:
    with pytest.raises(InvalidInput, match="no name of a trigger"):
        _create(world, name, on_version="t")


def test_an_ask_that_is_repeated_is_one_task_and_its_answer_is_there_later(world: World) -> None:
    desk = world["ann"]
    plan, task = desk.sql(_QUESTION).plan, new_task_id()
    ask = methods.Ask(msgspec.Raw(steps.encode(plan)), 20.0, "", 0, task)
    for _ in range(2):
        assert (
            msgspec.json.decode(desk.request(methods.USER_ASK, msgspec.json.encode(ask)), type=methods.Which).task
            == task
        )
    assert _sums(world, task) == [40, 40]
    assert _statements(world, "proposal", task) == 1
    other = msgspec.structs.replace(ask, purpose="something else")
    with pytest.raises(InvalidInput, match="another question"):
        desk.request(methods.USER_ASK, msgspec.json.encode(other))


def test_a_task_that_goes_on_without_an_absent_party_is_one_firing_and_followed_once(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('offers = "2s"\nabsence = "300ms"\n')
    with World(("ann", "bea", "cyd"), read_settings(tmp_path / "node.toml")) as three:
        three.share("t", {party: _table(1) for party in three.parties}, PARTS, unit="id")
        triggers, question = three["ann"].triggers, three["ann"].sql(_QUESTION)
        for name, when in (("first", {"cron": "0 3 * * *"}), ("then", {"after": "first", "ends": "done"})):
            triggers.create(name, question, absent="go-on", at_least=2, deadline="20s", **when)  # type: ignore[arg-type]  # words
        three.stop("cyd")
        task = triggers.fire("first")
        (then,) = _firings(three, "then", 1)
        assert then.occasion == task
        assert three["ann"].task(task).state == "failed"
        assert [firing.end for firing in triggers.show("first").firings] == ["done"]
        three.stop("ann")
        three.start("ann", reaches="bea")
        assert [firing.end for firing in triggers.show("first").firings] == ["done"]
        assert [firing.task for firing in _firings(three, "then", 1)] == [then.task]
        for party in ("ann", "bea"):
            three.stop(party)
