# SPDX-License-Identifier: Apache-2.0
"""A member with real keys that fills another's journal and memory is stopped at lengths, turns and quotas, unkept."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pooled import GROUPED, Pooled
from rogue import Rogue, offer_of, proposal_of

from junto.errors import InvalidInput, JuntoError, OverQuota, PeerFault
from junto.frontends.sql import compile_sql
from junto.node.ids import new_id
from junto.node.quotas import Quota
from junto.node.settings import read_settings
from junto.plan.steps import Plan, digest
from junto.tasks.bodies import Attempt, Confirm, Contract, Finished, Offer, Receipt, Refusal, Stop
from junto.tasks.lengths import PLAN_BYTES
from junto.testing.until import until
from junto.types import Digest, PartyId, StepId, TaskId

_TABLE = pa.table({"id": list(range(40)), "k": ["a", "b"] * 20, "v": list(range(40))})
_NOTHING = Digest("sha256:" + "0" * 64)
_LONG = "x" * 300_000


@dataclass(frozen=True)
class Scene:
    """`ann` is honest, `mal` floods."""

    world: Pooled
    mal: Rogue

    def plan(self) -> Plan:
        """A small question."""
        return compile_sql("SELECT SUM(v) AS s FROM t", self.world["ann"].datasets(), PartyId("mal"))

    def entries(self) -> int:
        """How many statements of mal ann's journal holds."""
        return sum(1 for _ in self.world.node("ann").journal.entries(author=self.mal.identity.name.uri))

    def propose_many(self, count: int, plan: Plan | None = None) -> None:
        """So many tasks, one after the other."""
        for _ in range(count):
            self.propose(plan)

    def propose(self, plan: Plan | None = None) -> tuple[TaskId, str]:
        """A task that mal proposed: its id, and its proposal's."""
        task = TaskId(new_id(time.time()))
        statement = self.mal.statement(proposal_of(plan or self.plan()), task)
        self.mal.tell(self.mal.sign(statement))
        return task, statement.id

    def refused(self, kind: type[JuntoError], match: str | None, act: Callable[[], object]) -> None:
        """The act is refused with one line, and nothing of it is kept."""
        before = self.entries()
        with pytest.raises(JuntoError, match=match) as caught:
            act()
        assert caught.value.code == kind.code
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
        assert self.entries() == before


@contextmanager
def _scene(folder: Path, quota: Quota) -> Iterator[Scene]:
    settings = replace(read_settings(folder / "node.toml"), quota=quota)
    with Pooled(["ann", "mal"], settings) as world:
        world.share("t", {"ann": _TABLE, "mal": _TABLE}, GROUPED, unit="id")
        yield Scene(world, Rogue(world, "mal", "ann"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with _scene(tmp_path_factory.mktemp("scene"), Quota()) as found:
        yield found


def test_a_word_that_is_too_long_is_refused_before_it_is_kept(scene: Scene) -> None:
    plan = scene.plan()
    proposal = proposal_of(plan)
    long = msgspec.structs.replace(plan, question="x" * PLAN_BYTES)
    for word, told in (
        ("proposal's user has 300,000 characters", msgspec.structs.replace(proposal, user=_LONG)),
        ("proposal's purpose has 300,000", msgspec.structs.replace(proposal, purpose=_LONG)),
        ("plan has", proposal_of(long)),
    ):
        envelope = scene.mal.signed(told, new_id(time.time()))
        scene.refused(InvalidInput, word, lambda envelope=envelope: scene.mal.tell(envelope))  # type: ignore[misc]  # mypy infers no type for a lambda's default
    task, proposed = scene.propose()
    _, offer = scene.mal.awaited("offer", task, Offer)
    shown = digest(plan)
    for told_of_it in (
        Stop(shown, "failed", "internal", PartyId("mal"), _LONG),
        Refusal(proposed, shown, "refused", _LONG),
        Contract(proposed, shown, offer.disclosures, (_LONG,)),
        Confirm(shown, (Finished(StepId(_LONG), _NOTHING, None, 0, 0.0),)),
        Attempt(shown, StepId("t"), 1, _LONG),
        Receipt(shown, _LONG, _NOTHING, 0, 0, (), 0.0),
    ):
        envelope = scene.mal.signed(told_of_it, task)
        scene.refused(InvalidInput, "300,000", lambda envelope=envelope: scene.mal.tell(envelope))  # type: ignore[misc]  # as above


def test_what_is_out_of_turn_is_not_kept_and_what_is_repeated_neither(scene: Scene) -> None:
    task, proposed = scene.propose()
    _, offer = scene.mal.awaited("offer", task, Offer)
    plan = scene.plan()
    shown = digest(plan)
    for told in (
        offer_of(proposed, plan, offer.disclosures),  # ann has not asked
        Refusal(proposed, shown, "refused", "no"),
        Receipt(shown, proposed, _NOTHING, 0, 0, (), 0.0),  # nothing runs yet
        Contract(proposed, shown, offer.disclosures, ()),  # of nobody's offers
        Confirm(shown, (Finished(StepId("nothing"), _NOTHING, None, 0, 0.0),)),
        Stop(_NOTHING, "failed", "internal", PartyId("mal"), "of another plan"),
    ):
        envelope = scene.mal.signed(told, task)
        scene.refused(PeerFault, None, lambda envelope=envelope: scene.mal.tell(envelope))  # type: ignore[misc]  # as above
    before = scene.entries()
    stops = [scene.mal.signed(Stop(shown, "failed", "internal", PartyId("mal"), str(n)), task) for n in range(20)]
    with pytest.raises(PeerFault, match="out of turn"):
        scene.mal.tell(*stops)
    assert scene.entries() == before + 1
    with pytest.raises(PeerFault, match="out of turn"):
        scene.mal.tell(scene.mal.signed(Stop(shown, "failed", "internal", PartyId("mal"), "again"), task))
    assert scene.entries() == before + 1


def test_what_follows_its_proposal_in_one_list_is_judged_after_it(scene: Scene) -> None:
    plan, task = scene.plan(), new_id(time.time())
    proposal = scene.mal.signed(proposal_of(plan), task)
    confirms = [scene.mal.signed(Confirm(digest(plan), ()), task) for _ in range(50)]
    before = scene.entries()
    with pytest.raises(PeerFault, match="out of turn"):
        scene.mal.tell(proposal, *confirms)
    until(lambda: scene.world.node("ann").runner.live[TaskId(task)].task.state == "offered", "ann has offered")
    assert scene.entries() == before + 1


def test_many_tasks_with_huge_questions_are_still_listed(scene: Scene) -> None:
    huge = msgspec.structs.replace(scene.plan(), question="SELECT 1 -- " + "x" * 90_000)
    tasks = [scene.propose(huge)[0] for _ in range(14)]
    listed = scene.world["ann"].tasks()
    assert {task.task for task in listed} >= set(tasks)
    assert max(len(task.question) for task in listed) < 3000
    assert len(scene.world["ann"].task(tasks[0]).question) > 90_000


def test_a_party_that_has_reached_its_quota_is_refused_by_one_code_and_told_of_in_few_notices(tmp_path: Path) -> None:
    with _scene(tmp_path, Quota(statements=30)) as scene:
        node = scene.world.node("ann")
        with pytest.raises(OverQuota):
            scene.propose_many(40)
        before = scene.entries()
        for _ in range(30):
            scene.refused(OverQuota, "ann keeps no more statements of mal today", scene.propose)
        told = [notice.text for notice in node.notices._kept if notice.kind == "quota"]
        assert 1 <= len(told) <= 3
        assert "refused so far today" in told[-1]
        assert scene.entries() == before


def test_bytes_and_open_tasks_have_their_quotas_too(tmp_path: Path) -> None:
    with _scene(tmp_path, Quota(bytes=200_000)) as scene:
        long = msgspec.structs.replace(scene.plan(), question="x" * 100_000)
        with pytest.raises(OverQuota, match="has reached its quota"):
            scene.propose_many(4, long)
    with _scene(tmp_path, Quota(tasks=3)) as scene:
        scene.propose_many(3)
        scene.refused(OverQuota, "takes no more tasks of mal now: 3 have not ended", scene.propose)


def test_a_quota_outlives_a_restart(tmp_path: Path) -> None:
    with _scene(tmp_path, Quota()) as scene:
        scene.propose_many(3)
        node = scene.world.node("ann")
        kept = node.journal.kept_since(node.quotas.day_began)
        statements, size = kept[scene.mal.identity.name.uri]
        assert statements >= 3
        assert size > 3000
        assert node.journal.kept_since(time.time() + 1000) == {}
