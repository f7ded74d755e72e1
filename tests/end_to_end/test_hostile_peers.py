# SPDX-License-Identifier: Apache-2.0
"""A party with real keys that lies, repeats, alters and pries is refused with the right code, and changes nothing."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pytest
import sqlglot
from pooled import GROUPED, Pooled, statements
from rogue import Rogue, offer_of, proposal_of

from junto.catalog.dataset import Dataset, Withdrawal
from junto.errors import DeadlineExceeded, InvalidInput, JuntoError, PeerFault, Refused
from junto.frontends.sql import compile_sql
from junto.journal.statement import read_statement
from junto.journal.verify import verify_journal
from junto.link import methods
from junto.node.ids import new_id
from junto.node.node import Node
from junto.plan import steps
from junto.plan.disclosure import digest_of, disclosures
from junto.plan.steps import MaskedSum, Move, Plan, Query, Release, Threshold
from junto.tasks.bodies import Confirm, Contract, Finished, Offer, Receipt, Refusal, Stop, Version
from junto.tasks.table import ENDED
from junto.testing.until import until
from junto.trust.grants import Grant, GrantId
from junto.types import DatasetName, Digest, PartyId, StepId, TaskId

_TABLE = pa.table({"id": list(range(40)), "k": ["a", "b"] * 20, "v": list(range(40))})
_QUESTION = "SELECT k, SUM(v) AS s FROM t GROUP BY k"
_NOTHING = Digest("sha256:" + "0" * 64)


@dataclass(frozen=True)
class Scene:
    """`ann` is honest; `mal` asks, `bea` takes part, `dan` does not: all three are one adversary."""

    world: Pooled
    mal: Rogue
    bea: Rogue
    dan: Rogue

    def plan(self, question: str = _QUESTION, asker: str = "mal") -> Plan:
        """A question as the compiler compiles it."""
        return compile_sql(question, self.world["ann"].datasets(), PartyId(asker))

    def tasks(self) -> dict[str, tuple[str, str]]:
        """What ann has of every task: its state and, if it ended, the code."""
        found: dict[str, tuple[str, str]] = {}
        for id, live in self.world.node("ann").runner.live.items():
            outcome = live.task.outcome
            found[id] = (live.task.state, outcome.code if outcome is not None else "")
        return found

    def state(self, task: str) -> str:
        """The state of one task at ann."""
        return self.tasks()[task][0]

    def told(self, plan: Plan) -> str:
        """The task that mal proposes with a plan."""
        task = new_id(time.time())
        self.mal.tell(self.mal.signed(proposal_of(plan), task))
        return task

    def proposed(self, plan: Plan | None = None) -> "Case":
        """A task that mal proposed and ann offered for."""
        plan = plan or self.plan()
        task = new_id(time.time())
        statement = self.mal.statement(proposal_of(plan), task)
        self.mal.tell(self.mal.sign(statement))
        envelope, offer = self.mal.awaited("offer", task, Offer)
        return Case(self, plan, task, self.mal.sign(statement), statement.id, envelope, offer)


@dataclass(frozen=True)
class Case:
    """One offered task, and what mal holds of it."""

    scene: Scene
    plan: Plan
    task: str
    proposal: bytes
    proposal_id: str
    anns_offer: bytes
    offered: Offer

    def contract(
        self, *offers: bytes, disclosures_digest: Digest | None = None, plan: Digest | None = None
    ) -> Contract:
        """A contract over these offers, true in all else unless something is given."""
        digest = disclosures_digest or self.offered.disclosures
        envelopes = tuple(offer.decode() for offer in offers)
        return Contract(self.proposal_id, plan or steps.digest(self.plan), digest, envelopes)

    def offer(self, rogue: Rogue, *, versions: tuple[Version, ...] = (), proposal: str = "") -> bytes:
        """A rogue's own offer."""
        offer = offer_of(proposal or self.proposal_id, self.plan, self.offered.disclosures)
        return rogue.signed(msgspec.structs.replace(offer, versions=versions), self.task)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Pooled(["ann", "bea", "dan", "mal"]) as world:
        world.share("t", {"ann": _TABLE, "bea": _TABLE}, GROUPED, unit="id")
        world.publish("ann", "own", _TABLE, [{"columns": ["*"], "allow": "aggregate", "to": ["dan"]}], unit="id")
        world.ask("mal", _QUESTION)
        until(lambda: not any(world.node(party).runner.open for party in world.parties), "everyone has the receipt")
        yield Scene(world, *(Rogue(world, party, "ann") for party in ("mal", "bea", "dan")))


def _refused(kind: type[JuntoError], match: str | None, act: Callable[[], object]) -> None:
    with pytest.raises(JuntoError, match=match) as caught:
        act()
    assert caught.value.code == kind.code
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def _fragment(plan: Plan, number: int, sql: str) -> Query:
    """One more fragment at ann, by hand."""
    query = next(step for step in plan.steps if isinstance(step, Query) and step.party == "ann")
    return msgspec.structs.replace(query, id=StepId(f"more-{number}"), sql=sql)


def _altered(envelope: bytes, part: str) -> bytes:
    """An envelope with one character of a field changed."""
    found = msgspec.json.decode(envelope)
    holder = found if part in found else found["signatures"][0]
    text = holder[part]
    middle = len(text) // 2
    holder[part] = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
    return msgspec.json.encode(found)


# ── proposals ───────────────────────────────────────────────────────────────────────────────────────


def test_a_replayed_proposal_has_no_second_effect(scene: Scene) -> None:
    case = scene.proposed()
    before, size = scene.tasks(), scene.world["ann"].status().journal_entries
    scene.mal.tell(case.proposal, case.proposal)
    assert (scene.tasks(), scene.world["ann"].status().journal_entries) == (before, size)


def test_an_id_stands_for_one_proposal(scene: Scene) -> None:
    case = scene.proposed()
    again = scene.mal.statement(proposal_of(case.plan, seconds=5.0), case.task)
    same_id = scene.mal.statement(proposal_of(case.plan, seconds=5.0), case.task, id=case.proposal_id)
    before = scene.tasks()
    _refused(PeerFault, "twice", lambda: scene.mal.tell(scene.mal.sign(again)))
    _refused(PeerFault, "twice", lambda: scene.mal.tell(scene.mal.sign(same_id)))
    other = scene.plan(asker="bea")
    taken = scene.bea.statement(proposal_of(other), case.task)
    _refused(PeerFault, "twice", lambda: scene.bea.tell(scene.bea.sign(taken)))
    assert scene.tasks() == before


@pytest.mark.parametrize("part", ["payload", "sig", "payloadType", "keyid"])
def test_a_proposal_altered_after_it_was_signed_is_refused(scene: Scene, part: str) -> None:
    envelope = scene.mal.signed(proposal_of(scene.plan()), new_id(time.time()))
    before = scene.tasks()
    with pytest.raises(JuntoError) as caught:
        scene.mal.tell(_altered(envelope, part))
    assert caught.value.code in (PeerFault.code, InvalidInput.code)
    assert scene.tasks() == before


def test_a_proposal_that_contradicts_itself_is_refused(scene: Scene) -> None:
    plan, task = scene.plan(), new_id(time.time())
    other = scene.plan("SELECT COUNT(*) AS n FROM t")
    proposal = proposal_of(plan)
    before = scene.tasks()
    replace = msgspec.structs.replace
    for match, kind, told in (
        ("another plan than its digest", PeerFault, proposal_of(plan, digest=steps.digest(other))),
        ("other participants", PeerFault, replace(proposal, participants=(PartyId("mal"), PartyId("ann")))),
        ("other participants", PeerFault, proposal_of(scene.plan(asker="bea"))),
        ("have no part", InvalidInput, proposal_of(replace(plan, steps=()))),
        ("deadline of", InvalidInput, proposal_of(plan, seconds=1e9)),
        ("deadline of", InvalidInput, proposal_of(plan, seconds=-1.0)),
    ):
        _refused(kind, match, lambda told=told: scene.mal.tell(scene.mal.signed(told, task)))  # type: ignore[misc]  # mypy infers no type for a lambda's default
    stale = scene.mal.statement(proposal, task, at=time.time() - 3600)
    _refused(InvalidInput, "whose deadline has passed", lambda: scene.mal.tell(scene.mal.sign(stale)))
    assert scene.tasks() == before


def test_a_plan_past_its_budget_is_refused_unread_and_unjournaled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = scene.plan()
    wide = " + ".join(f'CASE WHEN "t0"."v" > {i} THEN 1 ELSE 0 END' for i in range(900))
    texts = [f'SELECT {wide} AS "x" FROM "t" AS "t0" LIMIT {i}' for i in range(10)]
    fragments = (_fragment(plan, number, sql) for number, sql in enumerate(texts))
    large = msgspec.structs.replace(plan, steps=(*fragments, *plan.steps))
    assert 400_000 < len(steps.encode(large)) < 500_000

    def read(*_: object, **__: object) -> None:
        raise AssertionError("SQL was read")

    monkeypatch.setattr(sqlglot, "parse", read)
    before, size = scene.tasks(), scene.world["ann"].status().journal_entries
    proposal = scene.mal.signed(proposal_of(large), new_id(time.time()))
    _refused(InvalidInput, "at most 200,000 are read: ask in several smaller", lambda: scene.mal.tell(proposal))
    assert (scene.tasks(), scene.world["ann"].status().journal_entries) == (before, size)


def test_a_long_plan_of_a_party_that_no_rule_speaks_to_is_refused_unread(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = scene.world["ann"].datasets()
    listed = ", ".join(map(str, range(3_000)))
    plan = compile_sql(f"SELECT SUM(v) AS s FROM own WHERE v IN ({listed})", datasets, PartyId("mal"))
    short = compile_sql("SELECT SUM(v) AS s FROM own", datasets, PartyId("mal"))
    (told,) = (scene.mal.awaited("refusal", scene.told(one), Refusal)[1] for one in (short,))
    assert "rule 1 allows it only to dan" in told.reason

    def read(*_: object, **__: object) -> None:
        raise AssertionError("SQL was read")

    monkeypatch.setattr(sqlglot, "parse", read)
    _, told = scene.mal.awaited("refusal", scene.told(plan), Refusal)
    assert told.code == "refused"
    assert "no rule and no grant of own lets mal learn anything of it" in told.reason
    assert "ask ann for one" in told.reason


def test_nobody_speaks_for_another(scene: Scene) -> None:
    task = new_id(time.time())
    body = proposal_of(scene.plan(asker="bea"))
    before = scene.tasks()
    claimed = scene.mal.statement(body, task, author=scene.bea.identity.name.uri)
    with pytest.raises(JuntoError) as caught:
        scene.mal.tell(scene.mal.sign(claimed))
    assert caught.value.code in (PeerFault.code, InvalidInput.code)
    genuine = scene.bea.signed(body, task)
    _refused(PeerFault, "brought a statement of bea", lambda: scene.mal.tell(genuine))
    assert scene.tasks() == before


# ── contracts ───────────────────────────────────────────────────────────────────────────────────────


def test_a_contract_holds_everyones_own_offer_for_this_very_plan_or_nobody_performs(scene: Scene) -> None:
    case = scene.proposed()
    mals, beas, anns = case.offer(scene.mal), case.offer(scene.bea), case.anns_offer
    elsewhere = scene.proposed()
    foreign = Version(PartyId("ann"), DatasetName("t"), _NOTHING)
    forged = scene.mal.sign(scene.mal.statement(case.offered, case.task, author=read_statement(anns).author))
    contracts = {
        "missing": case.contract(mals, anns),
        "doubled": case.contract(mals, anns, beas, beas),
        "altered": case.contract(mals, _altered(anns, "payload"), beas),
        "not signed by its author": case.contract(mals, forged, beas),
        "of another task": case.contract(mals, elsewhere.anns_offer, beas),
        "for another proposal": case.contract(mals, anns, case.offer(scene.bea, proposal="other")),
        "with a version of another's data": case.contract(mals, anns, case.offer(scene.bea, versions=(foreign,))),
        "no offer at all": case.contract(mals, anns, case.proposal),
        "no envelope": case.contract(mals, anns, b"{}"),
        "for other disclosures": case.contract(mals, anns, beas, disclosures_digest=_NOTHING),
        "for another plan": case.contract(mals, anns, beas, plan=_NOTHING),
        "empty": case.contract(),
    }
    for name, contract in contracts.items():
        with pytest.raises(JuntoError) as caught:
            scene.mal.tell(scene.mal.signed(contract, case.task))
        assert caught.value.code in (PeerFault.code, InvalidInput.code), name
        assert scene.state(case.task) == "offered", name
    good = case.contract(mals, anns, beas)
    _refused(PeerFault, "which mal asked", lambda: scene.bea.tell(scene.bea.signed(good, case.task)))
    assert scene.state(case.task) == "offered"
    envelope = scene.mal.signed(good, case.task)
    scene.mal.tell(envelope)
    assert scene.state(case.task) == "running"
    scene.mal.tell(envelope)
    with pytest.raises(JuntoError):
        scene.mal.tell(scene.mal.signed(good, case.task))
    assert scene.state(case.task) == "running"
    _stop(scene, case)


def _stop(scene: Scene, case: Case) -> None:
    stop = Stop(steps.digest(case.plan), "cancelled", "cancelled", PartyId("mal"), "enough")
    scene.mal.tell(scene.mal.signed(stop, case.task))
    assert scene.state(case.task) == "cancelled"


def test_an_offer_is_for_the_asker_who_asked_and_the_proposal_it_names(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = scene.plan(asker="ann")
    task = scene.world["ann"].submit(plan, seconds=20.0, purpose="", priority=0)
    until(lambda: scene.state(task) == "proposed", "ann has judged her own question")
    proposal = next(e for e in statements(scene.world, "ann", task) if e.kind == "proposal")
    true = digest_of(disclosures(plan))
    digest = steps.digest(plan)
    earlier = scene.proposed()
    replayed = earlier.offer(scene.bea)
    for name, envelope in {
        "of another task": replayed,
        "for another proposal": scene.bea.signed(Offer("other", digest, true), task),
        "for another plan": scene.bea.signed(Offer(proposal.id, _NOTHING, true), task),
        "with another's version": scene.bea.signed(
            Offer(proposal.id, digest, true, (Version(PartyId("ann"), DatasetName("t"), _NOTHING),)), task
        ),
    }.items():
        with pytest.raises(JuntoError) as caught:
            scene.bea.tell(envelope)
        assert caught.value.code in (PeerFault.code, InvalidInput.code), name
        assert scene.state(task) == "proposed", name
    _refused(
        PeerFault, "takes no part", lambda: scene.dan.tell(scene.dan.signed(Offer(proposal.id, digest, true), task))
    )
    assert scene.state(task) == "proposed"
    scene.bea.tell(scene.bea.signed(Offer(proposal.id, digest, _NOTHING), task))
    until(lambda: scene.state(task) in ENDED, "other disclosures end the task")
    assert scene.tasks()[task] == ("failed", "peer-fault")
    _, stop = scene.bea.awaited("stop", task, Stop)
    assert (stop.party, stop.code) == ("bea", "peer-fault")


# ── the run ─────────────────────────────────────────────────────────────────────────────────────────


def test_outputs_are_for_whom_they_were_made_and_for_nobody_else(scene: Scene) -> None:
    _refused(
        InvalidInput, "speaks of task 01jno, which is not known here", lambda: scene.mal.pull("01jno", "threshold")
    )
    case = scene.proposed()
    scene.mal.tell(
        scene.mal.signed(case.contract(case.offer(scene.mal), case.anns_offer, case.offer(scene.bea)), case.task)
    )
    _refused(PeerFault, "dan takes no part", lambda: scene.dan.pull(case.task, "threshold"))
    threshold = next(step for step in case.plan.steps if isinstance(step, Threshold))
    outbox = scene.world.node("ann").outbox
    made = until(
        lambda: [
            address
            for address, slot in outbox._waiting[TaskId(case.task)].items()
            if slot.future.done() and address[0] == threshold.id
        ],
        "ann has made an output of the threshold",
    )
    step, _, name, to = made[0]
    others = {"bea": scene.bea, "mal": scene.mal}
    thief = next(rogue for party, rogue in others.items() if party != to)
    if (step, "", name, thief.party) not in made:
        _refused(DeadlineExceeded, None, lambda: thief.pull(case.task, step, name, seconds=0.3))
    for prying in ("query-ann", "nothing", "../../keys"):
        _refused(PeerFault, "does not have ann make", lambda prying=prying: scene.mal.pull(case.task, prying))  # type: ignore[misc]  # as above
    assert scene.state(case.task) == "running"
    _stop(scene, case)
    with pytest.raises(JuntoError) as caught:
        others[to].pull(case.task, step, name)
    assert caught.value.code == "cancelled"


def test_confirmations_receipts_and_stops_count_only_of_those_whose_they_are(scene: Scene) -> None:
    case = scene.proposed()
    scene.mal.tell(
        scene.mal.signed(case.contract(case.offer(scene.mal), case.anns_offer, case.offer(scene.bea)), case.task)
    )
    digest = steps.digest(case.plan)
    done = Finished(StepId("query-ann"), _NOTHING, 1, 1, 0.1)
    receipt = Receipt(digest, case.proposal_id, _NOTHING, 1, 0, (), 0.1)
    stop = Stop(digest, "failed", "internal", PartyId("ann"), "because")
    for rogue, body in (
        (scene.bea, Confirm(digest, (done,))),
        (scene.bea, Confirm(_NOTHING, ())),
        (scene.bea, receipt),
        (scene.mal, msgspec.structs.replace(receipt, plan_digest=_NOTHING)),
        (scene.dan, stop),
        (scene.dan, Confirm(digest, ())),
        (scene.bea, msgspec.structs.replace(stop, party=PartyId("dan"))),
        (scene.bea, msgspec.structs.replace(stop, plan_digest=_NOTHING)),
        (scene.bea, msgspec.structs.replace(stop, end="done")),
    ):
        with pytest.raises(JuntoError) as caught:
            rogue.tell(rogue.signed(body, case.task))
        assert caught.value.code == PeerFault.code, body
        live = scene.world.node("ann").runner.find(TaskId(case.task))
        assert live.task.state == "running"
        assert all(party == "ann" for step, party in live.task.finished if step == "query-ann")
        assert live.task.receipt is None
    _stop(scene, case)
    late = scene.mal.signed(receipt, case.task)
    with pytest.raises(JuntoError):
        scene.bea.tell(scene.bea.signed(receipt, case.task))
    scene.mal.tell(late)
    assert scene.state(case.task) == "cancelled"


# ── plans ───────────────────────────────────────────────────────────────────────────────────────────


def _with(plan: Plan, id: str, step: object) -> Plan:
    changed = tuple(step if one.id == id else one for one in plan.steps)
    return msgspec.structs.replace(plan, steps=changed)


def _hostile_plans(scene: Scene) -> dict[str, Plan]:
    plan = scene.plan()
    replace = msgspec.structs.replace
    query = next(s for s in plan.steps if isinstance(s, Query) and s.party == "ann")
    threshold = next(s for s in plan.steps if isinstance(s, Threshold))
    sums = next(s for s in plan.steps if isinstance(s, MaskedSum))
    release = next(s for s in plan.steps if isinstance(s, Release))
    move = Move(StepId("take"), query.id, PartyId("ann"), (PartyId("mal"),), query.keys or ())
    index = plan.steps.index(query)
    taken = replace(
        plan,
        steps=(*plan.steps[: index + 1], move, *plan.steps[index + 1 : -1], replace(release, moves=(move.id,))),
    )
    return {
        "a fragment that reads more than it says": _with(
            plan, query.id, replace(query, sql=query.sql.replace('"v"', '("v" + "id")'))
        ),
        "a fragment that reads a file": _with(
            plan, query.id, replace(query, sql="SELECT * FROM read_csv('/etc/passwd')")
        ),
        "a fragment that writes": _with(plan, query.id, replace(query, sql="CREATE TABLE x AS SELECT 1")),
        "a fragment of two statements": _with(plan, query.id, replace(query, sql=query.sql + "; SELECT 1")),
        "a fragment nested to crash": _with(plan, query.id, replace(query, sql="(" * 5000 + query.sql + ")" * 5000)),
        "groups moved without a threshold": taken,
        "a threshold of one": _with(plan, threshold.id, replace(threshold, units=1)),
        "a threshold below the rules": _with(plan, threshold.id, replace(threshold, units=5)),
        "a threshold that bea alone computes": _with(
            plan, threshold.id, replace(threshold, nodes=(PartyId("bea"),), contributors=(PartyId("bea"),))
        ),
        "a threshold whose nodes stand in an order that mal chose": _with(
            plan, threshold.id, replace(threshold, nodes=(PartyId("mal"), *threshold.contributors))
        ),
        "a threshold that two parties compute who hold nothing": _with(
            plan, threshold.id, replace(threshold, nodes=(threshold.contributors[0], PartyId("dan"), PartyId("mal")))
        ),
        "a threshold whose helper stands before the owners": _with(
            plan, threshold.id, replace(threshold, nodes=(PartyId("dan"), *threshold.contributors))
        ),
        "sums without a threshold": replace(plan, steps=tuple(s for s in plan.steps if s.id != threshold.id)),
        "sums of ann alone": _with(plan, sums.id, replace(sums, inputs=(query.id,), contributors=(PartyId("ann"),))),
        "a release to somebody else": _with(plan, release.id, replace(release, receiver=PartyId("bea"))),
        "a release that counts units": _with(plan, release.id, replace(release, sql="SELECT units FROM released")),
        "another format": replace(plan, format=1),
    }


def test_a_plan_that_would_show_more_is_refused_by_whoever_would_show_it(scene: Scene) -> None:
    for name, plan in _hostile_plans(scene).items():
        task = new_id(time.time())
        proposal = proposal_of(plan)
        scene.mal.tell(scene.mal.signed(proposal, task))
        until(lambda task=task: scene.state(task) in ENDED, name)  # type: ignore[misc]  # as above
        state, code = scene.tasks()[task]
        assert state in ("failed", "refused"), name
        assert code in (PeerFault.code, Refused.code, InvalidInput.code), (name, code)


def test_rows_are_not_had_by_a_plan_that_calls_them_something_else(scene: Scene) -> None:
    before = scene.tasks()
    case_plan = scene.plan("SELECT k, v FROM t")
    task = new_id(time.time())
    scene.mal.tell(scene.mal.signed(proposal_of(case_plan), task))
    until(lambda: scene.state(task) in ENDED, "ann refuses rows")
    assert scene.tasks()[task] == ("refused", "refused")
    assert {id: s for id, s in scene.tasks().items() if id != task} == before


# ── everything else ─────────────────────────────────────────────────────────────────────────────────


def test_garbage_is_refused_whatever_its_size(scene: Scene) -> None:
    def written() -> int:  # by mal: what others had under way goes on meanwhile
        return sum("/mal/" in entry.author for entry in scene.world.node("ann").journal.entries())

    before, size = set(scene.tasks()), written()
    _refused(PeerFault, "no list of statements", lambda: scene.mal.call(methods.PEER_TELL, b"\xff" * 1_000_000))
    _refused(PeerFault, None, lambda: scene.mal.call(methods.PEER_PULL, b"\xff" * 1_000_000))
    _refused(InvalidInput, "at most 256", lambda: scene.mal.tell(*(b"x" for _ in range(257))))
    for envelope in (b"", b"{}", b"\x00" * 1_000_000, b"[" * 100_000, b'{"payload":"' + b"A" * 1_000_000):
        with pytest.raises(JuntoError) as caught:
            scene.mal.tell(envelope)
        assert caught.value.code in (PeerFault.code, InvalidInput.code)
    with pytest.raises(InvalidInput, match="4"):
        scene.mal.call(methods.PEER_TELL, bytes(5 << 20))
    assert (set(scene.tasks()), written()) == (before, size)


def test_peers_are_no_users_and_users_no_peers(scene: Scene) -> None:
    for method in (methods.USER_ASK, methods.USER_STATUS, methods.USER_RESULT, methods.OPERATOR_GRANT):
        _refused(Refused, "mal/node is not one", lambda method=method: scene.mal.call(method))  # type: ignore[misc]  # as above
    for method in (methods.PEER_FACTS, methods.PEER_TELL, methods.PEER_PULL, methods.PEER_READ):
        _refused(Refused, "is for nodes of other parties", lambda method=method: scene.world["ann"].request(method))  # type: ignore[misc]  # as above
    _refused(InvalidInput, "node.shell", lambda: scene.mal.call("node.shell"))


def test_nobody_publishes_withdraws_or_grants_for_another(scene: Scene) -> None:
    anns = next(d for d in scene.world["ann"].datasets() if (d.party, d.name) == ("ann", "t"))
    before = scene.world["ann"].datasets()
    grant = Grant(
        id=GrantId(new_id(time.time())),
        party=PartyId("ann"),
        to=(PartyId("mal"),),
        dataset=DatasetName("t"),
        columns=("v",),
        allow="rows",
        until=time.time() + 1000,
        not_before=time.time(),
    )
    facts: tuple[tuple[str, Dataset | Withdrawal | Grant], ...] = (
        ("dataset", msgspec.structs.replace(anns, rules=())),
        ("dataset", msgspec.structs.replace(anns, party=PartyId("bea"))),
        ("withdrawal", Withdrawal(PartyId("ann"), DatasetName("t"), time.time())),
        ("grant", grant),
        ("made-up", grant),
    )
    for kind, body in facts:
        with pytest.raises(JuntoError) as caught:
            scene.mal.tell(scene.mal.sign(scene.mal.statement(body, kind=kind)))
        assert caught.value.code in (PeerFault.code, InvalidInput.code), kind
    assert scene.world["ann"].datasets() == before
    assert scene.world.node("ann").facts.grants == ()


def test_after_all_this_the_journal_proves_itself_and_the_node_lives(scene: Scene) -> None:
    report = verify_journal(scene.world.home("ann").journal_path, scene.world.home("ann").charter())
    assert [str(problem) for problem in report.problems] == []
    assert scene.world.ask("ann", "SELECT COUNT(*) AS n FROM ann.t").table.to_pylist() == [{"n": 40}]


def test_a_restart_believes_none_of_what_was_refused(scene: Scene) -> None:
    before = scene.tasks()
    node = scene.world.node("ann")

    async def restarted() -> dict[str, tuple[str, str]]:
        await node.__aexit__(None, None, None)
        async with Node(scene.world.home("ann"), on_fatal=_dies) as again:
            tasks = {id: live.task for id, live in again.runner.live.items()}
            return {id: (t.state, t.outcome.code if t.outcome is not None else "") for id, t in tasks.items()}

    after = scene.world.on_loop(restarted())
    assert after.keys() == before.keys()
    for task, (state, code) in before.items():
        assert after[task] == (state, code), task


def _dies(reason: str) -> None:
    raise AssertionError(reason)
