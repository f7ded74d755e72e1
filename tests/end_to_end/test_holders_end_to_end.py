# SPDX-License-Identifier: Apache-2.0
"""An open table that two parties hold is served by one that is there; an owner that stays away is named as missing."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pooled import OPEN, PARTS, Pooled

from junto.errors import InvalidInput, Unavailable
from junto.node.settings import read_settings
from junto.plan.steps import Plan, Query
from junto.testing.until import until

_KINDS = pa.table({"k": ["a", "b"], "label": ["first", "second"]})
_QUESTION = "SELECT label, SUM(v) AS s FROM t JOIN kinds USING (k) GROUP BY label ORDER BY label"


def _rows(v: int) -> pa.Table:
    return pa.table({"id": list(range(40)), "k": ["a", "b"] * 20, "v": [v] * 40})


class World(Pooled):
    """Two owners of private rows, two holders of the same open table, and one party that asks."""

    def stop(self, party: str) -> None:
        """Stop a party's node; returns when the asker has noticed."""
        self.on_loop(self.node(party).__aexit__(None, None, None))
        until(lambda: not self.up(party), f"ann has lost {party}")

    def up(self, party: str) -> bool:
        """Whether the asker's link to a party is up."""
        return next(link.up for link in self["ann"].status().links if link.party == party)

    def proposed(self, task: str) -> Plan:
        """The plan that the asker proposed."""
        return next(live.task.proposal.plan for id, live in self.node("ann").runner.live.items() if id == task)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "node.toml").write_text('offers = "2s"\nabsence = "300ms"\n')
    with World(("ann", "bea", "cyd", "dot", "eve"), read_settings(tmp_path / "node.toml")) as consortium:
        consortium.share("t", {"bea": _rows(1), "cyd": _rows(100)}, PARTS, unit="id")
        for party in ("dot", "eve"):
            consortium.publish(party, "kinds", _KINDS, OPEN)
        yield consortium


def _servers(plan: Plan) -> set[str]:
    return {s.party for s in plan.steps if isinstance(s, Query) and s.keys is None}


def test_a_question_is_answered_by_the_holders_and_owners_that_are_there(world: World) -> None:
    question = world["ann"].sql(_QUESTION)
    whole = question.run(deadline="20s")
    assert whole.table.to_pydict() == {"label": ["first", "second"], "s": [2020, 2020]}
    (near,) = _servers(world.proposed(whole.task))  # the nearer, or of equals the first
    (other,) = {"dot", "eve"} - {near}

    world.stop(near)  # wherever the plan was compiled for, what is proposed reads the same at the other
    again = question.run(deadline="20s")
    assert again.table == whole.table
    assert _servers(world.proposed(again.task)) == {other}
    assert again.missing == ()

    world.stop("cyd")
    with pytest.raises(Unavailable, match="cyd"):
        question.run(deadline="20s", absent="fail")
    without = question.run(deadline="20s", absent="go-on", at_least=3)
    assert without.table.to_pydict() == {"label": ["first", "second"], "s": [20, 20]}
    assert without.missing == ("cyd",)
    assert _servers(world.proposed(without.task)) == {other}


def test_how_many_must_be_left_is_kept_to(world: World) -> None:
    question = world["ann"].sql(_QUESTION)
    world.stop("cyd")
    with pytest.raises(Unavailable, match="cyd"):
        question.run(deadline="20s", absent="go-on", at_least=4)
    with pytest.raises(InvalidInput, match="at least 9 parties"):
        question.run(deadline="20s", absent="go-on", at_least=9)
