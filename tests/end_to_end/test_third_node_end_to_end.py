# SPDX-License-Identifier: Apache-2.0
"""Two owners, an asker, and a member that consents: the member is the third computing node, and nobody needs it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pooled import GROUPED, Pooled, statements

from junto.client.question import Question
from junto.errors import Busy, JuntoError, Refused
from junto.journal.statement import body_of
from junto.node import lending
from junto.node.placing import Placing
from junto.node.work import Work
from junto.plan.computing import computing_nodes
from junto.plan.steps import Plan, Threshold
from junto.secure.shamir import P
from junto.tasks.bodies import Refusal
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


@contextmanager
def consenting(world: Pooled, *helpers: PartyId) -> Iterator[None]:
    """Members that compute for mal, as all know."""
    said = dict.fromkeys(helpers, (MAL,))
    world.node("mal")._placing._passed.clear()  # what the tests before made of them
    for helper in helpers:
        world.on_loop(world.node(helper).publishing.consent((MAL,)))
    until(lambda: all(world[p].consents() == said for p in world.parties), "all know who computes")
    try:
        yield
    finally:
        for helper in helpers:
            world.on_loop(world.node(helper).publishing.consent(()))
        until(lambda: all(world[p].consents() == {} for p in world.parties), "all know that nobody computes")


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


def test_three_owners_need_no_helper() -> None:
    assert computing_nodes((ANN, BEA, ZOE), MAL, HUB) == (ANN, BEA, ZOE)
    assert computing_nodes((ANN,), MAL, HUB) == (ANN,)
