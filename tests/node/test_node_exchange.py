# SPDX-License-Identifier: Apache-2.0
"""Outputs wait for the one party they are for; what arrives is what was announced, or a fault."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from node_fakes import FakeLink

from junto.errors import Cancelled, PeerFault, Unavailable
from junto.link import methods
from junto.link.connection import Link
from junto.node.cache import Cache
from junto.node.exchange import (
    Content,
    Outbox,
    Parcel,
    Pull,
    Remade,
    Way,
    check_pull,
    decode_pull,
    fetch,
    fetch_whole,
)
from junto.node.spool import CHUNK_BYTES, Spool
from junto.plan.steps import MaskedSum, Move, Plan, Query
from junto.types import PartyId, StepId, TaskId

TASK, STEP = TaskId("01jtask"), StepId("m")
BTS, DELTA, UNITED, AIR = PartyId("bts"), PartyId("delta"), PartyId("united"), PartyId("air")
PULL = Pull(TASK, STEP, "masked")


def _parcel(size: int, sha256: bytes, inline: bytes | None = None) -> Parcel:
    return Parcel(sha256=sha256, inline=inline, bytes=size)


class _World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder, bytes(32))
        self.outbox = Outbox(self.spool)

    def put(self, content: Content, digest: bytes = b"", task: TaskId = TASK, to: PartyId = BTS) -> None:
        self.outbox.put(task, STEP, "", "masked", to, content, digest)

    async def read(self, offset: int = 0, to: PartyId = BTS) -> bytes:
        return b"".join([piece async for piece in self.outbox.read(Pull(TASK, STEP, "masked", offset=offset), to)])


def _run(folder: Path, claim: Callable[[_World], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(10):
            await claim(_World(folder))

    asyncio.run(within())


async def _waits(awaited: Awaitable[object]) -> bool:
    job = asyncio.ensure_future(awaited)
    for _ in range(5):
        await asyncio.sleep(0)
    waiting = not job.done()
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    return waiting


def test_an_output_is_there_for_its_addressee_and_nobody_else(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        world.put(b"shares", b"digest")
        assert await world.outbox.parcel(PULL, BTS) == _parcel(6, b"digest", b"shares")
        assert await _waits(world.outbox.parcel(PULL, DELTA))
        assert await _waits(world.outbox.parcel(Pull(TASK, STEP, "another"), BTS))

    _run(tmp_path, claim)


def test_a_puller_that_comes_early_waits_until_the_output_is_there(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        jobs = [asyncio.create_task(world.outbox.parcel(PULL, BTS)) for _ in range(2)]
        await asyncio.sleep(0)
        jobs[0].cancel()  # one that gives up takes nothing away from another
        await asyncio.sleep(0)
        world.put(b"shares")
        assert (await jobs[1]).inline == b"shares"

    _run(tmp_path, claim)


def test_an_output_is_made_once(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        world.put(b"first")
        world.put(b"second")
        assert (await world.outbox.parcel(PULL, BTS)).inline == b"first"

    _run(tmp_path, claim)


@pytest.mark.parametrize("offset", [0, 3, CHUNK_BYTES + 1])
def test_every_kind_of_output_is_read_from_any_byte(tmp_path: Path, offset: int) -> None:
    content = bytes(range(256)) * (CHUNK_BYTES // 128)

    async def claim(world: _World) -> None:
        spooled = world.spool.write([content])
        copy = Cache(tmp_path, 1 << 30).put("k", [content])
        for held in (content, spooled, copy):
            world.outbox = Outbox(world.spool)
            world.put(held)
            assert await world.read(offset) == content[offset:]

    _run(tmp_path, claim)


def test_a_large_output_is_announced_and_streamed(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        world.put(world.spool.write([b"x" * 10]), b"digest")
        assert await world.outbox.parcel(PULL, BTS) == _parcel(10, b"digest", None)

    _run(tmp_path, claim)


def test_the_end_of_a_task_drops_its_outputs_and_ends_the_waits(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        waiting = asyncio.create_task(world.outbox.parcel(Pull(TASK, STEP, "later"), BTS))
        spooled = world.spool.write([b"x"])
        world.put(spooled)
        world.put(b"of another task", task=TaskId("01jother"))
        await asyncio.sleep(0)
        world.outbox.drop(TASK)
        with pytest.raises(Cancelled, match="has ended"):
            await waiting
        with pytest.raises(Cancelled):
            await world.outbox.parcel(PULL, BTS)
        other = Pull(TaskId("01jother"), STEP, "masked")
        assert (await world.outbox.parcel(other, BTS)).inline == b"of another task"

    _run(tmp_path, claim)


def test_an_output_made_after_the_end_is_thrown_away(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        world.outbox.drop(TASK)
        world.put(b"too late")
        with pytest.raises(Cancelled, match="has ended"):
            await world.outbox.parcel(PULL, BTS)

    _run(tmp_path, claim)


def test_a_copy_of_an_open_table_outlives_its_task(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        copy = Cache(tmp_path, 1 << 30).put("k", [b"weather"])
        world.put(copy)
        world.outbox.drop(TASK)
        assert copy.path.exists()

    _run(tmp_path, claim)


def test_nobody_fills_our_memory_with_names_it_waits_for(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        pulls = [asyncio.create_task(world.outbox.parcel(Pull(TASK, STEP, str(n)), BTS)) for n in range(256)]
        await asyncio.sleep(0)
        with pytest.raises(PeerFault, match="waits for 256 outputs"):
            await world.outbox.parcel(Pull(TASK, STEP, "one more"), BTS)
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)
        assert not world.outbox._waiting[TASK]  # what nobody waits for any more is forgotten

    _run(tmp_path, claim)


_PLAN = Plan(
    "SELECT 1",
    BTS,
    (
        Move(StepId("m"), StepId("q"), DELTA, (BTS,), ("a",)),
        MaskedSum(StepId("s"), StepId("t"), (), (DELTA, UNITED), BTS, ()),
        Query(StepId("q"), DELTA, "SELECT 1", ()),
    ),
)


@pytest.mark.parametrize(
    ("step", "name", "run", "to"),
    [
        ("m", "rows", "", UNITED),  # the move is for another
        ("m", "others", "", BTS),  # and has one output
        ("q", "rows", "", BTS),  # a fragment's rows stay
        ("s", "masked", "", AIR),  # it takes no part
        ("nothing", "rows", "", BTS),
        ("s", "m" * 101, "", BTS),
        ("s", "masked", "1" * 101, BTS),
        ("s", "masked", "1..2", BTS),
        ("s", "masked", "\u0661", BTS),  # a digit elsewhere
    ],
)
def test_only_outputs_that_the_plan_yields_are_waited_for(step: str, name: str, run: str, to: PartyId) -> None:
    check_pull(Pull(TASK, StepId("m"), "rows"), _PLAN, DELTA, BTS)
    check_pull(Pull(TASK, StepId("s"), "masked", "1.2"), _PLAN, DELTA, UNITED)
    with pytest.raises(PeerFault, match="its plan does not have delta make"):
        check_pull(Pull(TASK, StepId(step), name, run), _PLAN, DELTA, to)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        msgspec.msgpack.encode({"task": 1, "step": "m", "name": "n"}),
        msgspec.msgpack.encode({"task": "t", "step": "m", "name": "n", "offset": -1}),
        msgspec.msgpack.encode({"task": "t", "step": "m", "name": "n", "more": 1}),
    ],
)
def test_a_pull_that_is_none_is_a_fault(payload: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_pull(payload)


# ── fetching ────────────────────────────────────────────────────────────────────────────────────────


def _link(parcel: Parcel | bytes, pieces: tuple[bytes, ...] = ()) -> FakeLink:
    async def call(method: str, payload: bytes) -> bytes:
        assert method == methods.PEER_PULL
        assert decode_pull(payload) == PULL
        return parcel if isinstance(parcel, bytes) else msgspec.msgpack.encode(parcel)

    async def stream(method: str, payload: bytes) -> AsyncIterator[bytes]:
        assert method == methods.PEER_READ
        for piece in pieces:
            yield piece

    return FakeLink("delta", call, stream)


def _way(*links: FakeLink) -> Way:
    """The links that are up one after the other; the last stays."""
    waiting = list(links)

    async def way(seconds: float) -> Link:
        return (waiting.pop(0) if len(waiting) > 1 else waiting[0]).link

    return way


def _sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _fetched(link: FakeLink, most_bytes: int = 1000) -> bytes:
    return asyncio.run(fetch_whole(_way(link), PULL, timeout_seconds=5.0, most_bytes=most_bytes))


def test_what_was_announced_is_fetched_inline_or_streamed() -> None:
    assert _fetched(_link(_parcel(6, _sha(b"shares"), b"shares"))) == b"shares"
    assert _fetched(_link(_parcel(6, _sha(b"shares")), (b"sha", b"res"))) == b"shares"
    assert _fetched(_link(_parcel(0, _sha(b""), b""))) == b""


@pytest.mark.parametrize(
    "link",
    [
        _link(_parcel(6, _sha(b"others"), b"shares")),
        _link(_parcel(5, _sha(b"shares"), b"shares")),
        _link(_parcel(6, _sha(b"others")), (b"sha", b"res")),
        _link(_parcel(6, _sha(b"shares")), (b"sha",)),
        _link(_parcel(6, _sha(b"shares")), (b"sha", b"res", b"!")),
        _link(_parcel(-1, _sha(b""), b"")),
        _link(b"no parcel"),
    ],
)
def test_what_differs_from_what_was_announced_is_a_fault_that_names_the_party(link: FakeLink) -> None:
    with pytest.raises(PeerFault, match="delta"):
        _fetched(link)


def test_a_message_beyond_the_bound_is_refused_before_it_is_all_here() -> None:
    taken: list[bytes] = []

    async def claim() -> None:
        link = _link(_parcel(3000, _sha(b"x" * 3000)), (b"x" * 600,) * 5)
        async for piece in fetch(_way(link), PULL, timeout_seconds=5.0):
            taken.append(piece)

    asyncio.run(claim())
    assert len(taken) == 5
    with pytest.raises(PeerFault, match="more than 1000 bytes"):
        _fetched(_link(_parcel(3000, _sha(b"x" * 3000)), (b"x" * 600,) * 5))


def test_a_link_that_goes_down_is_waited_for_and_the_bytes_go_on_where_they_stopped() -> None:
    whole = b"abcdefghij"
    offsets: list[int] = []

    def link(most: int | None, announces: bool = True) -> FakeLink:
        async def call(method: str, payload: bytes) -> bytes:
            if not announces:
                raise Unavailable("the link went down")
            return msgspec.msgpack.encode(_parcel(len(whole), _sha(whole)))

        async def stream(method: str, payload: bytes) -> AsyncIterator[bytes]:
            offset = decode_pull(payload).offset
            offsets.append(offset)
            yield whole[offset : offset + most if most is not None else None]
            if most is not None:
                raise Unavailable("the link went down")

        return FakeLink("delta", call, stream)

    way = _way(link(None, announces=False), link(3), link(4), link(None))
    assert asyncio.run(fetch_whole(way, PULL, timeout_seconds=5.0, most_bytes=100)) == whole
    assert offsets == [0, 3, 7]


def test_a_party_that_does_not_come_back_ends_the_fetch() -> None:
    async def way(seconds: float) -> Link:
        raise Unavailable("delta cannot be reached since 12:00:00 UTC")

    with pytest.raises(Unavailable, match="delta cannot be reached since"):
        asyncio.run(fetch_whole(way, PULL, timeout_seconds=5.0, most_bytes=100))


def _breaking(whole: bytes, most: int | None, offsets: list[int], inline: bool = False) -> FakeLink:
    """A link over which so many bytes come before it goes down; it notes from which byte on each stream was asked."""

    async def call(method: str, payload: bytes) -> bytes:
        return msgspec.msgpack.encode(_parcel(len(whole), _sha(whole), whole if inline else None))

    async def stream(method: str, payload: bytes) -> AsyncIterator[bytes]:
        offset = decode_pull(payload).offset
        offsets.append(offset)
        end = len(whole) if most is None else offset + most
        for at in range(offset, min(end, len(whole)), 2):
            yield whole[at : min(at + 2, end)]
        if most is not None:
            raise Unavailable("the link went down")

    return FakeLink("delta", call, stream)


def test_no_byte_is_asked_for_twice_however_often_the_link_breaks() -> None:
    whole, offsets = bytes(range(100)), list[int]()
    links = [_breaking(whole, most, offsets) for most in (1, 40, 0, 58, 1)]  # the last breaks when all of it is here
    way = _way(*links, _breaking(whole, None, offsets))
    assert asyncio.run(fetch_whole(way, PULL, timeout_seconds=5.0, most_bytes=100)) == whole
    assert offsets == [0, 1, 41, 41, 99, 100]


def test_an_output_that_was_streamed_and_now_comes_whole_goes_on_at_its_byte() -> None:
    whole, offsets = bytes(range(100)), list[int]()
    way = _way(_breaking(whole, 30, offsets), _breaking(whole, None, offsets, inline=True))
    assert asyncio.run(fetch_whole(way, PULL, timeout_seconds=5.0, most_bytes=100)) == whole
    assert offsets == [0]


def test_an_output_that_was_made_anew_meanwhile_starts_from_its_first_byte() -> None:
    first, second = b"a" * 100, b"b" * 90
    offsets: list[int] = []
    way = _way(_breaking(first, 30, offsets), _breaking(second, None, offsets))
    assert asyncio.run(fetch_whole(way, PULL, timeout_seconds=5.0, most_bytes=100)) == second
    assert offsets == [0, 0]

    async def streamed() -> None:
        with pytest.raises(Remade, match="was made anew at delta"):
            async for _ in fetch(
                _way(_breaking(first, 30, []), _breaking(second, None, [])), PULL, timeout_seconds=5.0
            ):
                pass

    asyncio.run(streamed())


def test_an_output_made_anew_before_its_first_byte_came_is_fetched_as_it_is_now() -> None:
    offsets: list[int] = []
    way = _way(_breaking(b"a" * 100, 0, offsets), _breaking(b"b" * 90, None, offsets))
    assert asyncio.run(fetch_whole(way, PULL, timeout_seconds=5.0, most_bytes=100)) == b"b" * 90


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────


def test_who_waits_for_an_output_of_a_run_that_was_given_up_is_told(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        runs = [
            asyncio.create_task(world.outbox.parcel(Pull(TASK, STEP, "masked", run), BTS)) for run in ("", "1", "2")
        ]
        await asyncio.sleep(0)
        world.outbox.void(TASK, STEP, "1")
        with pytest.raises(Unavailable, match="begins anew"):
            await runs[0]
        world.outbox.put(TASK, STEP, "1", "masked", BTS, b"shares", b"digest")
        assert (await runs[1]).inline == b"shares"
        assert await _waits(runs[2]), "who is ahead of us waits until we are there"

    _run(tmp_path, claim)


def test_outputs_of_runs_that_were_given_up_are_not_served_and_another_steps_are(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        world.put(b"of the first run")
        world.outbox.put(TASK, StepId("other"), "", "masked", BTS, b"of another step", b"")
        world.outbox.void(TASK, STEP, "1")
        assert world.outbox.made(TASK, STEP, "") == []
        assert await _waits(world.outbox.parcel(PULL, BTS))
        assert (await world.outbox.parcel(Pull(TASK, StepId("other"), "masked"), BTS)).inline == b"of another step"

    _run(tmp_path, claim)


def test_messages_of_two_runs_never_meet(tmp_path: Path) -> None:
    async def claim(world: _World) -> None:
        for run in ("1.0", "1.1"):
            world.outbox.put(TASK, STEP, run, "masked", BTS, run.encode(), b"")
        for run in ("1.0", "1.1"):
            assert (await world.outbox.parcel(Pull(TASK, STEP, "masked", run), BTS)).inline == run.encode()
            assert [content for _, _, content, _ in world.outbox.made(TASK, STEP, run)] == [run.encode()]
        assert await _waits(world.outbox.parcel(PULL, BTS))

    _run(tmp_path, claim)
