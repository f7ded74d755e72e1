# SPDX-License-Identifier: Apache-2.0
"""Wrong clocks: questions are answered, the wrong clock is named early, journals stay verifiable."""

import time
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pytest
from pooled import Pooled

from junto.errors import InvalidInput
from junto.journal.verify import Report, verify_journal
from junto.node.ground import Ground
from junto.node.node import Node
from junto.types import PartyId

_PARTIES = ("ann", "bea", "cyd")
_TABLE = pa.table({"id": list(range(30)), "v": list(range(30))})
_QUESTION = "SELECT SUM(v) AS s FROM t"


class _Clocked(Pooled):
    """A consortium in which each party's clock can be set: `ahead` holds the seconds by which one is wrong."""

    def __init__(self, parties: Iterable[str], ahead: Mapping[str, float] | None = None) -> None:
        super().__init__(parties)
        self.ahead = dict(ahead or {})

    async def _start(self) -> None:
        for party, home in self._homes.items():

            def clock(party: str = party) -> float:
                return time.time() + self.ahead.get(party, 0.0)

            node = Node(home, on_fatal=pytest.fail, ground=Ground(unix_time=clock))
            self._nodes[party] = await self._stack.enter_async_context(node)

    def measure(self) -> None:
        """Have every node measure every clock now, rather than within a minute."""
        for one in _PARTIES:
            for other in set(_PARTIES) - {one}:
                self.on_loop(self.node(one).clocks.measure(PartyId(other)))


@pytest.fixture(scope="module")
def started() -> Iterator[_Clocked]:
    with _Clocked(_PARTIES) as consortium:
        consortium.share("t", {"bea": _TABLE, "cyd": _TABLE}, unit="id")
        yield consortium


@pytest.fixture
def world(started: _Clocked) -> Iterator[_Clocked]:
    yield started
    started.ahead.clear()
    started.measure()


def _told(world: _Clocked, party: str) -> list[str]:
    board = world.node(party).notices
    return [notice.text for notice in board._kept if notice.kind == "clock"]


@pytest.mark.parametrize("party", ["ann", "bea"])
@pytest.mark.parametrize("seconds", [90.0, -90.0, 250.0, -250.0, 400.0, -400.0])
def test_a_short_deadline_is_kept_where_a_clock_is_wrong(world: _Clocked, party: str, seconds: float) -> None:
    world.ahead[party] = seconds
    world.measure()
    assert world.ask("ann", _QUESTION, deadline="10s").table.to_pylist() == [{"s": 870}]


def test_a_proposal_that_is_refused_for_its_age_names_the_clock(world: _Clocked) -> None:
    world.ahead["ann"] = -250.0  # nobody has measured it yet
    with pytest.raises(InvalidInput, match="whose deadline has passed") as caught:
        world.ask("ann", _QUESTION, deadline="10s")
    assert "ask again" in str(caught.value)


def test_a_wrong_clock_is_named_once_by_everybody_and_again_when_it_is_right(world: _Clocked) -> None:
    before = {party: len(_told(world, party)) for party in _PARTIES}
    world.ahead["bea"] = 120.0
    world.measure()
    world.measure()
    world.ahead.clear()
    world.measure()
    for party, others, off in (
        ("ann", ["bea"], "ahead of"),
        ("cyd", ["bea"], "ahead of"),
        ("bea", ["ann", "cyd"], "behind"),
    ):
        told = sorted(text.partition(": set")[0] for text in _told(world, party)[before[party] :])
        assert told == sorted(
            line
            for its in others
            for line in (
                f"the clock of {its} is 120 s {off} the clock of {party}",
                f"the clock of {its} is right again",
            )
        )


def test_a_node_says_that_its_own_clock_was_set(world: _Clocked) -> None:
    world.ahead["cyd"] = 3600.0
    world.node("cyd").clocks.look_at_ours()
    assert _told(world, "cyd")[-1].startswith("the clock of this machine was set 3600 s ahead")
    world.ahead.clear()
    world.node("cyd").clocks.look_at_ours()
    assert _told(world, "cyd")[-1].startswith("the clock of this machine was set 3600 s back")


def test_a_journal_written_under_a_wrong_clock_verifies_with_the_oddity_listed(world: _Clocked) -> None:
    def reports() -> dict[str, Report]:
        return {party: verify_journal(world.home(party).journal_path) for party in _PARTIES}

    before = {party: len(report.oddities) for party, report in reports().items()}
    world.ahead["bea"] = 400.0
    world.measure()
    world.ask("ann", _QUESTION)
    world.ahead.clear()
    world.measure()
    world.ask("ann", _QUESTION)
    found = reports()
    assert not any(report.problems for report in found.values())
    assert {party: len(report.oddities) - before[party] for party, report in found.items()} == {
        "ann": 0,
        "bea": 1,
        "cyd": 0,
    }
    oddity = str(found["bea"].oddities[-1])
    assert "s before entry" in oddity
    assert oddity.endswith("the clock of node node was set back")
