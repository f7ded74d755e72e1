# SPDX-License-Identifier: Apache-2.0
"""No owner's own figures show by leaving it out, and no owner learns another's groups that are not for it."""

from collections.abc import Iterator, Mapping

import msgspec
import pyarrow as pa
import pytest
from pooled import Pooled

from junto.client.question import Question
from junto.errors import PeerFault, Refused
from junto.plan.steps import MaskedSum, Plan, Query, Threshold
from junto.plan.without import without
from junto.types import PartyId

OWNERS = ("ann", "bea", "cyd", "dan")
_SUM = "SELECT k, SUM(v) AS s FROM stays GROUP BY k ORDER BY k"


def _rules(**limits: object) -> list[dict[str, object]]:
    return [{"columns": ["*"], "allow": kind, **limits} for kind in ("group", "aggregate")]


def _stays(party: str) -> pa.Table:
    """Thirty stays of one kind at each party but dan, which has one patient."""
    count = 1 if party == "dan" else 30
    return pa.table({"id": list(range(count)), "k": ["x"] * count, "v": [ord(party[0])] * count})


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled([*OWNERS, "hub"]) as consortium:
        consortium.share("stays", {p: _stays(p) for p in OWNERS}, _rules(), unit="id")
        consortium.share("parts", {p: _stays(p) for p in OWNERS}, _rules(owners="any", parties=3), unit="id")
        yield consortium


def _run(world: Pooled, question: Question, plan: Plan) -> pa.Table:
    return Question(question.text, plan, "", question.desk).run(deadline="20s").table


def test_an_owner_that_is_left_out_makes_the_others_refuse(world: Pooled) -> None:
    question = world["hub"].sql(_SUM)
    for missing in ((PartyId("dan"),), (PartyId("ann"), PartyId("dan"))):
        with pytest.raises(Refused, match=f"the plan leaves out {', '.join(missing)}"):
            _run(world, question, without(question.plan, missing))
    assert question.run(deadline="20s").table.to_pylist() == [{"k": "x", "s": 30 * (97 + 98 + 99) + 100}]
    with pytest.raises(Refused, match="the plan leaves out"):
        world.ask("hub", "SELECT SUM(v) FROM ann.stays")


def test_an_owner_may_leave_its_own_rows_out(world: Pooled) -> None:
    question = world["dan"].sql(_SUM)
    release = msgspec.structs.replace(question.plan.steps[-1], own=None)
    kept = [step for step in question.plan.steps[:-1] if not (isinstance(step, Query) and step.party == "dan")]
    plan = msgspec.structs.replace(question.plan, steps=(*kept, release))
    assert _run(world, question, plan).to_pylist() == [{"k": "x", "s": 30 * (97 + 98 + 99)}]


def test_a_second_set_of_owners_of_the_same_rows_is_refused_after_the_first(world: Pooled) -> None:
    whole = world["hub"].sql(_SUM.replace("stays", "parts"))
    assert whole.run(deadline="20s").table.num_rows == 1
    respelled = (
        _SUM.replace("stays", "parts"),
        "SELECT COUNT(*) AS n FROM parts AS q",
        "SELECT k, COUNT(v) AS n FROM parts WHERE TRUE GROUP BY k HAVING COUNT(*) > 3",
    )
    for question in respelled:
        asked = world["hub"].sql(question)
        for missing in ("dan", "cyd"):
            with pytest.raises(Refused, match=f"would tell what {missing} holds: ask for the same owners again"):
                _run(world, asked, without(asked.plan, (PartyId(missing),)))
    assert whole.run(deadline="20s").table.num_rows == 1


def test_of_other_rows_a_part_may_be_asked_where_rules_say_so(world: Pooled) -> None:
    asked = world["hub"].sql("SELECT SUM(v) AS s FROM parts WHERE k = 'x' AND k <> 'y'")
    part = without(asked.plan, (PartyId("dan"),))
    assert _run(world, asked, part).to_pylist() == [{"s": 30 * (97 + 98 + 99)}]
    again = world["hub"].sql("SELECT SUM(v) AS s FROM parts AS other WHERE k <> 'y' AND k = 'x'")
    with pytest.raises(Refused, match="would tell what dan holds"):
        again.run(deadline="20s")


def test_what_was_released_is_remembered_over_a_restart(world: Pooled) -> None:
    asked = world["hub"].sql("SELECT SUM(v) AS s FROM parts WHERE k <> 'z'")
    assert asked.run(deadline="20s").table.num_rows == 1
    for owner in OWNERS:
        judgement = world.node(owner).judgement
        judgement._remembered = type(judgement._remembered)()
        judgement.recall()
    with pytest.raises(Refused, match="would tell what bea holds"):
        _run(world, asked, without(asked.plan, (PartyId("bea"),)))


def _keys_for(world: Pooled, name: str, to: Mapping[str, list[str]]) -> None:
    for party, recipients in to.items():
        rules: list[dict[str, object]] = [
            {"columns": ["name"], "allow": "group", "to": recipients},
            {"columns": ["id"], "allow": "aggregate"},
        ]
        table = pa.table({"id": list(range(30)), "name": ["common"] * 15 + [f"{party} {i}" for i in range(15)]})
        world.publish(party, name, table, rules, unit="id")


def _tokens(plan: Plan) -> str:
    return next(step.tokens for step in plan.steps if isinstance(step, Threshold))


def test_tokens_that_can_be_tested_are_refused_where_a_rule_leaves_an_owner_out(world: Pooled) -> None:
    _keys_for(world, "people", {"ann": ["hub"], "bea": ["hub", "ann"]})
    question = world["hub"].sql("SELECT name, COUNT(*) AS n FROM people GROUP BY name")
    assert _tokens(question.plan) == "oprf"
    assert "no group that it does not bring can be tested" in str(question.explain())
    assert question.run(deadline="20s").table.to_pylist() == [{"name": "common", "n": 30}]
    weaker = tuple(
        msgspec.structs.replace(step, tokens="hmac") if isinstance(step, Threshold) else step
        for step in question.plan.steps
    )
    with pytest.raises(Refused, match=r"name of people as a grouping key .* for bea: rule 1 allows it only to hub"):
        _run(world, question, msgspec.structs.replace(question.plan, steps=weaker))


def test_where_every_owner_may_learn_the_groups_tokens_stay_fast(world: Pooled) -> None:
    _keys_for(world, "guests", {"ann": ["hub", "bea"], "bea": ["hub", "ann"]})
    question = world["hub"].sql("SELECT name, COUNT(*) AS n FROM guests GROUP BY name")
    assert _tokens(question.plan) == "hmac"
    assert "any guessed group can be tested" in str(question.explain())
    assert question.run(deadline="20s").table.to_pylist() == [{"name": "common", "n": 30}]


@pytest.mark.parametrize("party", ["hub", "ann"])
def test_the_presence_of_one_person_changes_nothing_that_anybody_is_told(world: Pooled, party: str) -> None:
    """One person in a group of its own is withheld, or is not there at all: the asker is told the same."""
    told = []
    for value in ("here", "nowhere"):
        answer = world.ask(party, f"SELECT k, COUNT(*) AS n FROM stays WHERE k = '{value}' GROUP BY k")
        told.append((answer.table.num_rows, answer.withheld, answer.receipt.rows, answer.receipt.withheld))
    assert told[0] == told[1] == (0, False, 0, "unknown")


def test_sums_of_a_part_are_refused_by_each_owner_for_itself(world: Pooled) -> None:
    """A plan by hand that names all owners in the threshold, but sums of fewer, is none."""
    question = world["hub"].sql(_SUM)
    steps = tuple(
        msgspec.structs.replace(step, inputs=step.inputs[:3], contributors=step.contributors[:3])
        if isinstance(step, MaskedSum)
        else step
        for step in question.plan.steps
    )
    with pytest.raises(PeerFault, match="it sums for others, or of others"):
        _run(world, question, msgspec.structs.replace(question.plan, steps=steps))
