# SPDX-License-Identifier: Apache-2.0
"""Two owners, an asker, and a member that consents: the member is the third computing node, and nobody needs it."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from held import held
from pooled import GROUPED, PARTS, Pooled, statements

from junto.client.question import Question
from junto.errors import Busy, JuntoError, Refused
from junto.journal.statement import body_of
from junto.node import lending
from junto.node.placing import Placing
from junto.node.settings import read_settings
from junto.node.work import Work
from junto.plan.computing import helped
from junto.plan.steps import Plan, Threshold
from junto.secure.shamir import P
from junto.tasks.bodies import Absent, Refusal
from junto.tasks.events import StepFailed
from junto.testing.until import until
from junto.types import PartyId, StepId

ANN, BEA, HUB, MAL, ZOE = (PartyId(party) for party in ("ann", "bea", "hub", "mal", "zoe"))
_TABLE = pa.table({"id": list(range(44)), "k": ["many"] * 40 + ["few", "few", "fewer", "one"], "v": list(range(44))})
_QUESTION = "SELECT k, COUNT(*) AS n FROM t GROUP BY k ORDER BY k"
_KEPT = {"many": 80}

Send = Callable[[PartyId, str, bytes], None]


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled([ANN, BEA, HUB, MAL, ZOE]) as consortium:
        consortium.share("t", {"ann": _TABLE, "bea": _TABLE}, GROUPED, unit="id")
        yield consortium


def consent(world: Pooled, *helpers: PartyId, to: tuple[PartyId, ...] = (MAL,)) -> None:
    """Have members compute for mal, and all know it."""
    for helper in helpers:
        world.on_loop(world.node(helper).publishing.consent(to))
    said = {helper: to for helper in helpers if to}
    until(lambda: all(world[p].consents() == said for p in world.parties), "all know who computes")


@contextmanager
def consenting(world: Pooled, *helpers: PartyId) -> Iterator[None]:
    """For a while, members that compute for mal."""
    world.node("mal")._placing._passed.clear()  # what the tests before made of them
    consent(world, *helpers)
    try:
        yield
    finally:
        consent(world, *helpers, to=())


def nodes_of(plan: Plan) -> tuple[PartyId, ...]:
    return next(step.nodes for step in plan.steps if isinstance(step, Threshold))


def asked(world: Pooled) -> tuple[PartyId, ...]:
    """The nodes that computed, once the answer is here and is right."""
    task = world["mal"].sql(_QUESTION).submit(deadline="60s")
    answer = world["mal"].wait(task)
    assert dict(zip(*(column.to_pylist() for column in answer.table.columns), strict=True)) == _KEPT
    assert answer.missing == ()
    live = world.node("mal").runner.live
    last = task
    while live[last].continued:
        last = live[last].continued
    return nodes_of(live[last].task.proposal.plan)


def crafted(world: Pooled, nodes: tuple[PartyId, ...]) -> Question:
    """The question with nodes of the asker's own choice."""
    plan = world["mal"].sql(_QUESTION).plan
    steps = tuple(msgspec.structs.replace(s, nodes=nodes) if isinstance(s, Threshold) else s for s in plan.steps)
    return Question(_QUESTION, msgspec.structs.replace(plan, steps=steps), "", world["mal"])


def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The asker's node proposes what it is given; owners have known all links for long."""
    monkeypatch.setattr(Placing, "_helped", lambda self, plan: plan)
    monkeypatch.setattr(lending, "_FRESH_SECONDS", 0.0)


def test_the_asker_computes_only_where_nobody_consents(world: Pooled) -> None:
    assert asked(world) == (ANN, BEA, MAL)
    with consenting(world, HUB):
        assert asked(world) == (ANN, BEA, HUB)
    with consenting(world, ZOE, HUB):
        assert asked(world) == (ANN, BEA, HUB)


def test_explain_names_the_helper_and_all_that_it_learns(world: Pooled) -> None:
    with consenting(world, HUB):
        explained = world["mal"].sql(_QUESTION).explain()
    told = {(d.form, d.what) for d in explained.disclosures if d.recipient == HUB}
    assert told == {("shared", "random shares of how many units each figure has, about how many groups there are")}
    assert any(line.startswith("  ann, bea, hub  decide which groups") for line in explained.lines)
    assert not [d for d in explained.disclosures if (d.recipient, d.form) == (MAL, "shared")]


def test_a_helper_sees_uniform_shares_and_the_size_of_the_padded_union(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Work._sender
    seen: list[tuple[str, bytes]] = []

    def sender(self: Work, step: StepId) -> Send:
        send = honest(self, step)

        def kept(to: PartyId, name: str, payload: bytes) -> None:
            if to == HUB:
                seen.append((name, payload))
            send(to, name, payload)

        return kept

    monkeypatch.setattr(Work, "_sender", sender)
    with consenting(world, HUB):
        assert asked(world) == (ANN, BEA, HUB)
    names = {name.partition("-")[0] for name, _ in seen}
    assert names <= {"share", "random", "mac", "product", "coin", "check", "commit"}, names
    everything = b"".join(payload for _, payload in seen)
    assert not [key for key in (b"many", b"few", b"one") if key in everything]
    sizes = {len(payload) for name, payload in seen if name == "share"}
    assert len(sizes) == 1  # one union, as wide from both owners


def test_a_party_without_consent_refuses_and_names_the_line(world: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    believed(monkeypatch)
    task = crafted(world, (ANN, BEA, HUB)).submit(deadline="20s")
    assert world["mal"].wait(task).table.num_rows == 1
    refusal = next(body_of(s, Refusal) for s in statements(world, "hub", task) if s.kind == "refusal")
    assert re.search(r'hub refuses mal: step threshold is .*node\.toml: compute = \["mal"\]', refusal.reason)


def test_an_asker_takes_no_helpers_place(world: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    believed(monkeypatch)
    with consenting(world, HUB, ZOE):
        for nodes in ((ANN, BEA, MAL), (ANN, BEA, ZOE)):
            with pytest.raises(Refused, match="hub computes for mal and is there"):
                crafted(world, nodes).run(deadline="20s")
        assert crafted(world, (ANN, BEA, HUB)).run(deadline="20s").table.num_rows == 1


def test_owners_ask_a_helper_that_was_passed_over_and_take_its_no(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    believed(monkeypatch)
    with consenting(world, HUB):
        monkeypatch.setattr(lending.Lending, "_lends", lambda self, asker: False)
        assert crafted(world, (ANN, BEA, MAL)).run(deadline="20s").table.num_rows == 1


def test_an_asker_that_blames_the_helper_for_an_end_does_not_take_its_place(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(Placing, "again", lambda self, plan, absent: helped(plan, {}))
    with consenting(world, HUB), held(world.node("bea")) as engine:
        task = world["mal"].sql(_QUESTION).submit(deadline="30s")
        assert engine.begun.wait(20)
        runner = world.node("mal").runner

        async def blamed() -> None:
            runner.dispatch(runner.live[task], StepFailed(StepId("threshold"), "internal", HUB, "a fault", time.time()))

        world.on_loop(blamed())
        engine.go.set()
        with pytest.raises(Refused, match="hub computes for mal and is there"):
            world["mal"].wait(task)


@pytest.mark.parametrize(
    "nodes",
    [(MAL, ANN, BEA), (ANN, HUB, BEA), (ANN, BEA, HUB, MAL), (ANN, BEA), (HUB, ZOE, MAL), (ANN, HUB, ZOE)],
    ids=" ".join,
)
def test_no_other_nodes_pass_a_review(
    world: Pooled, monkeypatch: pytest.MonkeyPatch, nodes: tuple[PartyId, ...]
) -> None:
    believed(monkeypatch)
    with consenting(world, HUB), pytest.raises(JuntoError, match="in that order, and nobody else"):
        crafted(world, nodes).run(deadline="20s")


def test_a_helper_that_has_no_room_is_passed_over_and_not_waited_for(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "_FRESH_SECONDS", 0.0)

    async def full(task: object, permitted: object) -> None:
        raise Busy("hub has no room")

    monkeypatch.setattr(world.node("hub").admission, "admit", full)
    with consenting(world, HUB):
        assert asked(world) == (ANN, BEA, MAL)


def test_a_helper_whose_work_fails_is_replaced(world: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "_FRESH_SECONDS", 0.0)
    honest = Work._threshold

    async def broken(self: Work, step: Threshold) -> object:
        if self._tools.me == HUB:
            raise OSError("a fault of hub's")
        return await honest(self, step)

    monkeypatch.setattr(Work, "_threshold", broken)
    with consenting(world, HUB):
        assert asked(world) == (ANN, BEA, MAL)


def test_a_helper_that_bends_its_shares_ends_the_run_and_is_named(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Work._sender

    def sender(self: Work, step: StepId) -> Send:
        send = honest(self, step)
        if self._tools.me != HUB:
            return send

        def bent(to: PartyId, name: str, payload: bytes) -> None:
            if name.startswith("product"):
                body = 1 + payload[0]
                shares = np.frombuffer(payload, dtype="<u4", offset=body).astype(np.uint64)
                payload = payload[:body] + ((shares + np.uint64(1)) % np.uint64(P)).astype("<u4").tobytes()
            send(to, name, payload)

        return bent

    monkeypatch.setattr(Work, "_sender", sender)
    with consenting(world, HUB), pytest.raises(JuntoError, match="hub") as ended:
        world.ask("mal", _QUESTION)
    assert "nothing was opened" in str(ended.value) or "deviated" in str(ended.value), ended.value


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Pooled]:
    """A world of its own whose nodes wait for nobody for long."""
    settings = read_settings(tmp_path / "none.toml")
    patience = replace(settings.patience, absence_seconds=0.5, offer_seconds=2.0)
    with Pooled([ANN, BEA, HUB, MAL], replace(settings, patience=patience)) as consortium:
        consortium.share("t", {"ann": _TABLE, "bea": _TABLE}, GROUPED, unit="id")
        yield consortium


def test_a_helper_that_is_off_is_not_asked(short: Pooled) -> None:
    consent(short, HUB)
    assert asked(short) == (ANN, BEA, HUB)
    short.on_loop(short.node("hub").links.close())
    until(lambda: not any(s.up for s in short.node("mal").links.status() if s.party == HUB), "hub is off")
    assert asked(short) == (ANN, BEA, MAL)


@pytest.mark.parametrize("absent", ["", "wait", "fail", "go-on"])
def test_a_helper_that_dies_in_the_middle_ends_no_question(short: Pooled, absent: Absent) -> None:
    consent(short, HUB)
    with held(short.node("bea")) as engine:
        task = short["mal"].sql(_QUESTION).submit(deadline="30s", absent=absent, at_least=3 if absent == "go-on" else 0)
        assert engine.begun.wait(20)
        short.on_loop(short.node("hub").links.close())
        live = short.node("mal").runner.live
        until(lambda: bool(live[task].continued), "it is asked again")
        engine.go.set()
        assert nodes_of(live[live[task].continued].task.proposal.plan) == (ANN, BEA, MAL)
        answer = short["mal"].wait(task)
        assert (answer.table.num_rows, answer.missing) == (1, ())


def test_a_helper_that_an_owner_cannot_reach_is_done_without(short: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    consent(short, HUB)
    links = short.node("ann").links
    honest = links.now_to
    monkeypatch.setattr(links, "now_to", lambda party: None if party == HUB else honest(party))
    assert asked(short) == (ANN, BEA, MAL)


def test_an_owner_that_is_gone_leaves_nothing_for_a_helper_to_do(short: Pooled) -> None:
    short.share("p", {"ann": _TABLE, "bea": _TABLE}, PARTS, unit="id")
    consent(short, HUB)
    short.on_loop(short.node("bea").links.close())
    question = short["mal"].sql("SELECT COUNT(*) AS n FROM p")
    answer = question.run(deadline="30s", absent="go-on", at_least=2)
    assert (answer.table.to_pylist(), answer.missing) == ([{"n": 44}], (BEA,))
