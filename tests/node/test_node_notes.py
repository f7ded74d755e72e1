# SPDX-License-Identifier: Apache-2.0
"""A lapse that ends nothing reaches the other participants, once, and a participant cannot flood us with them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec
import pytest
from node_fakes import FakeLink, FakeLinks

from junto.errors import InvalidInput, PeerFault, Unavailable
from junto.link import methods
from junto.link.connection import Caller, Link
from junto.node.diskwatch import LOW_BYTES, free_bytes, watch_disk
from junto.node.notes import Notes
from junto.node.notices import Notices
from junto.node.runner import Live, Runner
from junto.plan import steps
from junto.plan.steps import Plan, Query, Release
from junto.tasks.bodies import Proposal
from junto.tasks.events import CancelAsked, Opened, PartyDown, PartyUp, Ticked
from junto.tasks.notices import Notice
from junto.tasks.state import Task
from junto.tasks.waiting import Patience
from junto.trust.names import parse_name
from junto.types import PartyId, StepId, TaskId

BTS, DELTA, UNITED, STRANGER = PartyId("bts"), PartyId("delta"), PartyId("united"), PartyId("jetblue")
PLAN = Plan("SELECT 1", BTS, (Query(StepId("q"), DELTA, "SELECT 1", ()), Release(StepId("r"), BTS, "SELECT 1")))
TASK = TaskId("01jtask")
NOON = 43_200.0


def _caller(party: PartyId) -> Caller:
    return Caller(parse_name(f"spiffe://sky/{party}/node-1"), "peer.note", 0.0, "", cast(Link, None))


def _note(kind: str = "away", party: PartyId = BTS, id: str = "ntc_1", task: TaskId = TASK) -> bytes:
    return msgspec.msgpack.encode(methods.Note(task, kind, party, id))


@dataclass
class _World:
    """delta's node, with one open task of three parties; what it sent stands in `sent`."""

    sent: list[tuple[PartyId, methods.Note]] = field(default_factory=list)
    told: list[Notice] = field(default_factory=list)
    fails: bool = False

    def __post_init__(self) -> None:
        proposal = Proposal(PLAN, steps.digest(PLAN), (BTS, DELTA, UNITED), "ana", "", 60.0, absent="wait")
        task = Task(TASK, DELTA, BTS, proposal, Patience())
        task.handle(Opened("p", NOON))
        self.live_task = Live(task)
        self.live = {TASK: self.live_task}
        self.now = NOON
        self.notices = Notices(DELTA, 5.0, lambda: self.now)
        self.notices.listeners.append(self.told.append)
        self.notes = Notes(DELTA, self.notices, cast(Runner, self), FakeLinks(self._to).links, lambda: self.now)

    def find(self, id: TaskId) -> Live:
        """The runner's."""
        if id not in self.live:
            raise InvalidInput(f"no task {id} here")
        return self.live[id]

    async def _to(self, party: PartyId, seconds: float) -> Link:
        async def call(method: str, payload: bytes) -> bytes:
            if self.fails:
                raise Unavailable("it is gone")
            assert method == methods.PEER_NOTE
            self.sent.append((party, msgspec.msgpack.decode(payload, type=methods.Note)))
            return b""

        return FakeLink(party, call).link

    async def happens(self, at: float, *events: PartyDown | PartyUp | Ticked | CancelAsked) -> None:
        """These, as the runner would feed them; then what they order is done."""
        self.now = at
        for event in events:
            self.live_task.task.handle(event)
        self.notices.look(self.live_task)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def _run(claim: Callable[[_World], Awaitable[None]]) -> _World:
    async def within() -> _World:
        world = _World()
        try:
            await claim(world)
        finally:
            await world.notes.close()
        return world

    return asyncio.run(within())


def test_an_absence_and_its_end_are_told_to_those_who_can_be_reached() -> None:
    async def claim(world: _World) -> None:
        await world.happens(NOON + 1, PartyDown(BTS, "its link went down", NOON + 1))
        await world.happens(NOON + 6, Ticked(NOON + 6))
        await world.happens(NOON + 9, PartyUp(BTS, NOON + 9))

    world = _run(claim)
    assert [(to, note.kind, note.party) for to, note in world.sent] == [
        (UNITED, "away", BTS),
        (BTS, "back", BTS),
        (UNITED, "back", BTS),
    ]


def test_progress_and_ends_are_no_notes() -> None:
    async def claim(world: _World) -> None:
        await world.happens(NOON + 1, CancelAsked("ana", NOON + 1))

    world = _run(claim)
    assert [notice.kind for notice in world.told] == ["ended"]
    assert world.sent == []


def test_a_note_that_does_not_arrive_changes_nothing() -> None:
    async def claim(world: _World) -> None:
        world.fails = True
        await world.happens(NOON + 1, PartyDown(BTS, "reset", NOON + 1))
        await world.happens(NOON + 6, Ticked(NOON + 6))
        assert world.live_task.task.state == "judging"

    assert _run(claim).sent == []


def test_what_a_participant_tells_is_a_notice_in_its_name_and_goes_no_further() -> None:
    async def claim(world: _World) -> None:
        await world.notes.hear(_caller(UNITED), _note())
        await world.notes.hear(_caller(UNITED), _note())
        await asyncio.sleep(0)

    world = _run(claim)
    assert [(n.kind, n.party, n.by, n.text) for n in world.told] == [
        ("away", BTS, UNITED, "bts stays away from united"),
    ]
    assert world.sent == []


def test_an_absence_that_we_see_ourselves_is_not_told_a_second_time_nor_is_its_end() -> None:
    async def claim(world: _World) -> None:
        await world.happens(NOON + 1, PartyDown(BTS, "its link went down", NOON + 1))
        await world.notes.hear(_caller(UNITED), _note())
        await world.happens(NOON + 6, Ticked(NOON + 6))
        await world.happens(NOON + 9, PartyUp(BTS, NOON + 9))
        await world.notes.hear(_caller(UNITED), _note("back", id="ntc_2"))
        await world.notes.hear(_caller(BTS), _note(party=DELTA, id="ntc_3"))  # that we stay away from it

    told = [(notice.kind, notice.by) for notice in _run(claim).told if notice.kind != "state"]
    assert told == [("away", DELTA), ("back", DELTA)]


def test_the_end_of_an_absence_that_we_were_told_of_is_told_too() -> None:
    async def claim(world: _World) -> None:
        await world.notes.hear(_caller(UNITED), _note())
        await world.notes.hear(_caller(UNITED), _note("back", id="ntc_2"))
        await world.notes.hear(_caller(UNITED), _note("back", id="ntc_3"))

    assert [notice.text for notice in _run(claim).told] == ["bts stays away from united", "bts is back at united"]


def test_a_note_by_or_about_a_stranger_is_refused() -> None:
    async def claim(world: _World) -> None:
        with pytest.raises(PeerFault, match="not both take part"):
            await world.notes.hear(_caller(STRANGER), _note())
        with pytest.raises(PeerFault, match="not both take part"):
            await world.notes.hear(_caller(UNITED), _note(party=STRANGER))
        with pytest.raises(PeerFault, match="no note"):
            await world.notes.hear(_caller(UNITED), b"\xc1")
        with pytest.raises(InvalidInput, match="not known here"):
            await world.notes.hear(_caller(UNITED), _note(kind="ended"))
        with pytest.raises(InvalidInput, match="not known here"):
            await world.notes.hear(_caller(UNITED), _note(id="x" * 65))
        with pytest.raises(InvalidInput, match="no task"):
            await world.notes.hear(_caller(UNITED), _note(task=TaskId("other")))

    assert _run(claim).told == []


def test_a_participant_that_tells_too_much_is_no_longer_heard_the_others_are() -> None:
    async def claim(world: _World) -> None:
        for number in range(60):
            await world.notes.hear(_caller(UNITED), _note(id=f"ntc_{number}"))
        await world.notes.hear(_caller(BTS), _note(party=UNITED))

    told = _run(claim).told
    assert [notice.by for notice in told] == [UNITED] * 50 + [BTS]


def test_nothing_is_heard_of_a_task_that_has_ended() -> None:
    async def claim(world: _World) -> None:
        await world.happens(NOON + 1, CancelAsked("ana", NOON + 1))
        await world.notes.hear(_caller(UNITED), _note())

    assert [notice.kind for notice in _run(claim).told] == ["ended"]


def test_a_disk_that_fills_and_empties_is_told_at_each_turn_and_not_in_between() -> None:
    steps_of = iter([10 * LOW_BYTES, LOW_BYTES - 1, LOW_BYTES + 1, None, 2 * LOW_BYTES, LOW_BYTES - 1])
    told: list[Notice] = []

    async def claim() -> None:
        notices = Notices(DELTA, 5.0, lambda: NOON)
        notices.listeners.append(told.append)

        async def pause(seconds: float) -> None:
            """The next look comes at once."""

        with pytest.raises(RuntimeError):  # there is nothing more to look at
            await watch_disk(DELTA, lambda: next(steps_of), notices, pause=pause)

    asyncio.run(claim())
    assert [(notice.kind, notice.severity) for notice in told] == [
        ("disk", "error"),
        ("disk", "info"),
        ("disk", "error"),
    ]
    assert told[0].text == "the disk of delta is almost full: 64 MB left; statements and outputs need room"


def test_the_space_of_a_folder_that_is_gone_is_not_known(tmp_path: Path) -> None:
    assert (free_bytes(tmp_path) or 0) > 0
    assert free_bytes(tmp_path / "gone") is None
