# SPDX-License-Identifier: Apache-2.0
"""What finished steps gave survives the process, sealed to its task and step; what is altered or gone is made again."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.errors import Cancelled
from junto.journal.store import Journal
from junto.node.cache import Cache, Copy
from junto.node.exchange import Content
from junto.node.keep import INLINE_BYTES, Answered, Keeper, Kept, Message
from junto.node.locals import Local
from junto.node.spool import Spool, Spooled
from junto.plan.steps import MaskedSum, Plan, Query, Release, Threshold
from junto.secure.groupkeys import PassedKeys, Selection
from junto.tasks.bodies import Finished
from junto.types import Digest, PartyId, StepId, TaskId

BTS, DELTA, UNITED = PartyId("bts"), PartyId("delta"), PartyId("united")
TASK, OTHER = TaskId("01jtask"), TaskId("01jother")
DIGEST = Digest("sha256:" + "5" * 64)
LARGE = 3 * INLINE_BYTES


def _plan() -> Plan:
    queries = tuple(Query(StepId(f"q-{p}"), p, "SELECT 1", (), keys=(), measures=()) for p in (DELTA, UNITED))
    inputs = tuple(query.id for query in queries)
    threshold = Threshold(StepId("t"), inputs, (DELTA, UNITED), BTS, (BTS, DELTA, UNITED), 10)
    sums = MaskedSum(StepId("m"), threshold.id, inputs, (DELTA, UNITED), BTS, ())
    release = Release(StepId("r"), BTS, "SELECT 1", threshold=threshold.id, sums=sums.id)
    return Plan("SELECT 1", BTS, (*queries, threshold, sums, release))


PLAN = _plan()
QUERY, THRESHOLD, SUMS = StepId("q-delta"), StepId("t"), StepId("m")


class World:
    """One node's journal and spool, and a keeper over them for each process that it has had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(folder / "cache", 1 << 30)
        self.journal = Journal(
            folder / "journal.db",
            origin="junto/air/delta/node1",
            key=Ed25519PrivateKey.generate(),
            on_fatal=pytest.fail,
        )
        self.keeper = self.started()

    def started(self) -> Keeper:
        """The keeper of a process that starts now."""
        self.spool = Spool(self.folder / "spool", bytes(32))
        self.keeper = Keeper(self.journal, self.spool)
        return self.keeper

    @property
    def files(self) -> list[Path]:
        """The outputs that lie on the disk."""
        return sorted((self.folder / "spool").iterdir())

    async def save(self, step: StepId, local: Local, *messages: Message, task: TaskId = TASK) -> Kept:
        """Keep a step."""
        kept = Kept(local, messages, Finished(step, DIGEST, None, 10, 0.5, "1"))
        await self.keeper.save(task, kept)
        return kept

    def recalled(self, task: TaskId = TASK) -> dict[StepId, Kept]:
        """What a process that starts now finds."""
        return self.started().recall(task, PLAN, DELTA)

    def whole(self, content: Content) -> bytes:
        """The bytes of a content."""
        match content:
            case Spooled():
                return b"".join(self.spool.read(content))
            case Copy():
                return content.path.read_bytes()
            case _:
                return content


def _run(folder: Path, claim: Callable[[World], Awaitable[None]]) -> None:
    for name in ("spool", "cache"):
        (folder / name).mkdir()

    async def within() -> None:
        world = World(folder)
        with world.journal:
            async with asyncio.timeout(20):
                await claim(world)
            world.keeper.close()

    asyncio.run(within())


def _message(name: str, content: Content) -> Message:
    return Message(name, BTS, content, b"d" * 32)


def _same(a: Local, b: Local) -> bool:
    match a, b:
        case None, None:
            return True
        case pa.Table(), pa.Table():
            return bool(a.equals(b))
        case Selection(), Selection():
            return (
                a.size == b.size
                and a.cells.tolist() == b.cells.tolist()
                and (a.cells.dtype, a.positions.dtype) == (b.cells.dtype, b.positions.dtype)
                and a.positions.tolist() == b.positions.tolist()
            )
        case PassedKeys(), PassedKeys():
            return (a.keys, a.some, a.cells.tolist()) == (b.keys, b.some, b.cells.tolist())
        case np.ndarray(), np.ndarray():
            return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        case _:
            return bool(a == b)


ONE = np.ones((1, 1), dtype=np.bool_)
LOCALS: dict[str, Callable[[World, int], Local]] = {
    "nothing": lambda world, size: None,
    "a table": lambda world, size: pa.table({"carrier": ["DL"] * (size // 8), "minutes": list(range(size // 8))}),
    "rows on disk": lambda world, size: world.keeper.write(TASK, [b"x" * size]),
    "a copy of an open table": lambda world, size: world.cache.put("k", [b"x" * size]),
    "a selection": lambda world, size: Selection(
        size, np.arange(2 * size).reshape(2, size) % 3 == 0, np.arange(size // 4, dtype=np.int64)[::-1].copy()
    ),
    "keys": lambda world, size: PassedKeys(
        [b"key %d" % i for i in range(size // 8)], size > 100, np.ones((1, size // 8), dtype=np.bool_)
    ),
    "words": lambda world, size: np.arange(2 * (size // 8), dtype=np.uint64).reshape(2, size // 8) + np.uint64(1 << 63),
}


@pytest.mark.parametrize("size", [8, LARGE])
@pytest.mark.parametrize("kind", LOCALS)
def test_everything_a_step_can_give_survives_the_process(tmp_path: Path, kind: str, size: int) -> None:
    async def claim(world: World) -> None:
        kept = await world.save(QUERY, LOCALS[kind](world, size))
        found = world.recalled()[QUERY]
        assert _same(found.local, kept.local)
        assert found.finished == kept.finished

    _run(tmp_path, claim)


@pytest.mark.parametrize("size", [0, 5, INLINE_BYTES, INLINE_BYTES + 1, LARGE])
def test_the_messages_of_a_step_survive_with_it(tmp_path: Path, size: int) -> None:
    async def claim(world: World) -> None:
        held = world.keeper.write(TASK, [b"z" * size])
        copy = world.cache.put("k", [b"y" * size])
        await world.save(QUERY, None, _message("a", b"m" * size), _message("b", held), _message("c", copy))
        found = world.recalled()[QUERY].messages
        assert [(m.name, m.to, m.sha256) for m in found] == [(name, BTS, b"d" * 32) for name in "abc"]
        assert [world.whole(m.content) for m in found] == [b"m" * size, b"z" * size, b"y" * size]
        assert isinstance(found[0].content, bytes) == (size <= INLINE_BYTES)

    _run(tmp_path, claim)


def _mentioned(folder: Path, what: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()]


def test_what_is_kept_shows_nothing_to_who_reads_the_disk(tmp_path: Path) -> None:
    async def claim(world: World) -> None:
        await world.save(QUERY, pa.table({"n": ["a secret figure"]}), _message("a", b"a secret figure" * LARGE))
        world.journal.close()
        assert not await asyncio.to_thread(_mentioned, tmp_path, b"secret figure")
        world.journal.open()

    _run(tmp_path, claim)


def test_a_row_that_stands_in_for_another_steps_or_tasks_is_refused(tmp_path: Path) -> None:
    async def claim(world: World) -> None:
        await world.save(QUERY, None)
        await world.save(QUERY, None, task=OTHER)
        await world.save(THRESHOLD, None)
        ours, others = world.journal.kept(TASK), world.journal.kept(OTHER)
        await world.journal.keep(TASK, "q-delta", others["q-delta"])
        assert world.recalled() == {}
        await world.journal.keep(TASK, "q-delta", ours["t"])
        assert world.recalled() == {}
        await world.journal.keep(TASK, "q-delta", ours["q-delta"])
        assert world.recalled().keys() == {QUERY, THRESHOLD}

    _run(tmp_path, claim)


def _gone(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [_gone, _cut, _altered])
def test_a_step_whose_file_was_harmed_is_not_finished_nor_is_what_rests_on_it(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    async def claim(world: World) -> None:
        await world.save(QUERY, None)
        await world.save(THRESHOLD, PassedKeys([b"k" * LARGE], True, ONE))
        await world.save(SUMS, None)
        assert world.recalled().keys() == {QUERY, THRESHOLD, SUMS}
        harm(world.files[0])
        assert world.recalled().keys() == {QUERY}

    _run(tmp_path, claim)


def test_an_altered_row_makes_its_step_unfinished_and_leaves_the_others(tmp_path: Path) -> None:
    async def claim(world: World) -> None:
        await world.save(QUERY, None)
        await world.save(THRESHOLD, None)
        row = bytearray(world.journal.kept(TASK)["t"])
        row[-1] ^= 1
        await world.journal.keep(TASK, "t", bytes(row))
        assert world.recalled().keys() == {QUERY}

    _run(tmp_path, claim)


def test_a_copy_that_made_room_for_others_is_brought_again(tmp_path: Path) -> None:
    async def claim(world: World) -> None:
        copy = world.cache.put("k", [b"open"])
        await world.save(QUERY, copy)
        world.cache.remove(copy)
        assert world.recalled() == {}

    _run(tmp_path, claim)


def test_a_step_is_finished_only_with_our_own_outputs_that_it_rests_on(tmp_path: Path) -> None:
    async def claim(world: World) -> None:
        await world.save(THRESHOLD, None)  # united's query, which it rests on too, lies at united
        assert world.recalled() == {}
        await world.save(QUERY, None)
        assert world.recalled().keys() == {QUERY, THRESHOLD}

    _run(tmp_path, claim)


@pytest.mark.parametrize("size", [8, LARGE])
def test_the_end_leaves_the_answer_and_nothing_else(tmp_path: Path, size: int) -> None:
    async def claim(world: World) -> None:
        await world.save(QUERY, PassedKeys([b"k" * LARGE], True, ONE), _message("a", b"m" * LARGE))
        result = world.keeper.hold(TASK, b"a" * size)
        await world.keeper.save_answer(TASK, Answered(result, DIGEST, 3, "some"))
        world.keeper.ended(TASK, result)
        await _settled(world, lambda: world.journal.kept(TASK).keys() == {"answer"})
        assert len(world.files) == (size > INLINE_BYTES)
        answer = world.started().recall_answer(TASK)
        assert answer is not None
        assert (world.whole(answer.result), answer.digest, answer.rows, answer.withheld) == (
            b"a" * size,
            DIGEST,
            3,
            "some",
        )
        world.keeper.let_go(TASK)
        await _settled(world, lambda: not world.journal.kept(TASK))
        assert world.files == []
        assert world.keeper.tasks == frozenset()

    _run(tmp_path, claim)


def test_an_altered_answer_is_none(tmp_path: Path) -> None:
    async def claim(world: World) -> None:
        await world.keeper.save_answer(TASK, Answered(b"answer", DIGEST, 3, "some"))
        await world.journal.keep(OTHER, "answer", world.journal.kept(TASK)["answer"])
        assert world.keeper.recall_answer(OTHER) is None
        assert world.keeper.recall_answer(TASK) is not None

    _run(tmp_path, claim)


def test_what_is_written_after_the_end_is_removed(tmp_path: Path) -> None:
    async def claim(world: World) -> None:
        world.keeper.ended(TASK, None)
        with pytest.raises(Cancelled):
            world.keeper.write(TASK, [b"too late"])
        with pytest.raises(Cancelled):
            await world.save(QUERY, PassedKeys([b"k" * LARGE], True, ONE))
        await world.save(QUERY, None)
        assert world.files == []
        assert world.journal.kept(TASK) == {}

    _run(tmp_path, claim)


def test_at_start_what_belongs_to_no_task_goes(tmp_path: Path) -> None:
    async def claim(world: World) -> None:
        await world.save(QUERY, PassedKeys([b"k" * LARGE], True, ONE))
        await world.save(QUERY, PassedKeys([b"k" * LARGE], True, ONE), task=OTHER)
        world.spool.write([b"never kept"])
        assert len(world.files) == 3
        assert world.recalled().keys() == {QUERY}
        world.keeper.clear([TASK])
        await _settled(world, lambda: world.journal.kept_tasks() == {TASK})
        assert len(world.files) == 1
        assert world.recalled().keys() == {QUERY}

    _run(tmp_path, claim)


async def _settled(world: World, done: Callable[[], bool]) -> None:
    """The journal has done what it was told before: it writes in order, and what is asked of it now comes later."""
    await asyncio.wrap_future(world.journal.forget(TaskId("01jnone")))
    assert done()
