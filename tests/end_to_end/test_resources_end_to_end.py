# SPDX-License-Identifier: Apache-2.0
"""Real nodes under load: fragments take turns, who cannot reserve says why, and nothing stays taken."""

import io
import time
from collections.abc import Iterator
from contextlib import redirect_stdout

import msgspec
import pyarrow as pa
import pytest
from held import held
from pooled import GROUPED, Pooled
from rich.console import Console

from junto.cli import main
from junto.cli.top import drawn
from junto.client import connect
from junto.errors import Busy, Refused
from junto.link.methods import Share, Top
from junto.node import admission, busy
from junto.node.settings import read_settings
from junto.testing.until import until
from junto.types import TaskId

_TABLE = pa.table({"id": list(range(40)), "k": ["a", "b"] * 20, "v": list(range(40))})
_QUESTION = "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k"
_ALL = ("ann", "bea", "cyd")
_NOTHING = Share(0, 0, 0, 0)
_SETTINGS = """
offers = "12s"
[resources]
slots = 1
memory = "300MB"
[resources.cap]
default = { tasks = 2 }
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooled]:
    """A part that has no room is refused after 3 s of the time for offers, so that a machine which stalls for seconds
    makes no lapse of it."""
    file = tmp_path_factory.mktemp("settings") / "node.toml"
    file.write_text(_SETTINGS)
    with pytest.MonkeyPatch.context() as patch, Pooled(_ALL, read_settings(file)) as consortium:
        patch.setattr(admission, "_OF_THE_OFFERS", 0.25)
        consortium.share("t", dict.fromkeys(("ann", "bea"), _TABLE), GROUPED, unit="id")
        yield consortium


def _submit(world: Pooled, asker: str = "cyd", priority: int = 0, deadline: str = "60s") -> TaskId:
    return world[asker].sql(_QUESTION).submit(deadline=deadline, priority=priority)


def _top(world: Pooled, party: str) -> Top:
    return next(world[party].top())


def _free(world: Pooled) -> None:
    for party in _ALL:
        until(lambda: _top(world, party).used == _NOTHING, f"{party} has everything back")  # noqa: B023  # used at once


def _screen(top: Top) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(drawn(top))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_question_takes_and_gives_back(world: Pooled) -> None:
    assert world.ask("cyd", _QUESTION).table.num_rows == 2
    _free(world)


def test_an_offer_says_what_its_part_costs_and_how_long_it_is_held(world: Pooled) -> None:
    task = _submit(world)
    world["cyd"].wait(task)
    offers = world.node("cyd").runner.find(task).task._offers
    for party in ("ann", "bea"):
        offer, _ = offers[world.node(party).me]
        assert (offer.estimate.rows, offer.starts) == (40, 0.0)
        assert min(offer.estimate.seconds, offer.estimate.memory) > 0
        assert 0 < offer.reserves <= 17  # the time for offers, and `absence`
    _free(world)


def test_with_one_slot_fragments_take_turns_and_the_view_says_who_waits(world: Pooled) -> None:
    with held(world.node("ann")) as engine:
        first = _submit(world)
        assert engine.begun.wait(10)
        second = _submit(world, priority=3)
        top = until(lambda: top if (top := _top(world, "ann")).queued else None, "the second waits for a slot")
        assert top is not None
        assert [(step.task, step.party) for step in top.running] == [(first, "cyd")]
        ((queued),) = top.queued
        assert (queued.task, queued.priority, queued.why) == (
            second,
            3,
            "it needs 1 slot; of 1 slot at ann cyd has 1 slot",
        )
        assert {task.task for task in top.held} == {first, second}
        assert [(share.party, share.used.slots, share.used.tasks) for share in top.parties] == [("cyd", 1, 2)]
        assert queued.why in {wait.why for wait in world["ann"].task(second).waits}
        screen = _screen(top)
        assert "slots 1 of 1" in screen
        assert f"waiting for a slot (1)\ntask{' ' * 24}step" in screen
    assert world["cyd"].wait(first).table == world["cyd"].wait(second).table
    _free(world)


def test_a_party_at_its_cap_waits_and_is_refused_by_name_while_others_go_on(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "_LEAST_SECONDS", 20.0)  # it is not asked again
    with held(world.node("ann")):
        running = [_submit(world), _submit(world)]
        until(lambda: _top(world, "ann").used.tasks == 2, "both hold")
        third = _submit(world, deadline="12s")
        until(lambda: _top(world, "ann").waiting, "the third waits")
        other = _submit(world, "bea")
        until(lambda: other in {task.task for task in _top(world, "ann").held}, "bea's is reserved meanwhile")
        with pytest.raises(Busy, match=r"it needs 1 task; (ann|bea) gives cyd 2 tasks at a time, and it has 2"):
            world["cyd"].wait(third)
    for task in running:
        world["cyd"].wait(task)
    world["bea"].wait(other)
    _free(world)


def test_a_place_in_the_line_is_had_when_it_comes_free(world: Pooled) -> None:
    with held(world.node("ann")) as engine:
        running = [_submit(world), _submit(world)]
        until(lambda: _top(world, "ann").used.tasks == 2, "both hold")
        third = _submit(world)
        until(lambda: _top(world, "ann").waiting, "the third waits")
        engine.go.set()
        assert world["cyd"].wait(third).table.num_rows == 2
    for task in running:
        world["cyd"].wait(task)
    _free(world)


def test_who_was_turned_away_is_asked_again_while_there_is_time(world: Pooled) -> None:
    with held(world.node("ann")) as engine:
        running = [_submit(world), _submit(world)]
        until(lambda: _top(world, "ann").used.tasks == 2, "both hold")
        third = _submit(world)
        seen = until(lambda: p if (p := world["cyd"].task(third)).continued else None, "it goes on as another task", 40)
        assert seen is not None
        assert (seen.state, seen.code, seen.receipt) == ("failed", "busy", None)
        engine.go.set()
        answer = world["cyd"].wait(third)
    assert answer.table.num_rows == 2
    assert answer.receipt.task not in (third, *running)
    for task in running:
        world["cyd"].wait(task)
    _free(world)


def test_a_cancelled_task_gives_back_its_place_in_every_line(world: Pooled) -> None:
    with held(world.node("ann")):
        running = [_submit(world), _submit(world)]
        until(lambda: _top(world, "ann").used.tasks == 2, "both hold")
        third = _submit(world)
        until(lambda: _top(world, "ann").waiting, "the third waits")
        world["cyd"].cancel(third)
        until(lambda: not _top(world, "ann").waiting, "it waits no more")
        for task in running:
            world["cyd"].cancel(task)
        _free(world)


def test_the_command_prints_it_once_for_people_and_programs(world: Pooled) -> None:
    home = str(world.home("ann").path)
    for words in ([], ["--once"]):
        out = io.StringIO()
        with redirect_stdout(out):
            assert main(["node", "top", *words, "--home", home]) == 0
        assert out.getvalue().startswith("ann  ")
        assert "slots 0 of 1, memory 0 B of 300 MB, disk 0 B of 64 GB, tasks 0" in out.getvalue()
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["node", "top", "--once", "--json", "--home", home]) == 0
    assert msgspec.json.decode(out.getvalue(), type=Top).capacity == Share(1, 300_000_000, 64 * 10**9)


def test_only_operators_see_it(world: Pooled) -> None:
    world.home("bea").add_user("guest", time.time())
    with connect(world.home("bea").path, user="guest") as guest, pytest.raises(Refused, match="operators of bea"):
        next(guest.top())
