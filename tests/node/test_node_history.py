# SPDX-License-Identifier: Apache-2.0
"""Which tasks of a journal are at hand after a restart: those that ended last, and whatever has not ended."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.journal.statement import Statement, sign
from junto.journal.store import Journal
from junto.node.history import tasks_in
from junto.node.ledger import Ledger
from junto.plan import steps
from junto.plan.steps import Plan, Query, Release
from junto.tasks.bodies import Proposal, Stop
from junto.tasks.waiting import Patience
from junto.trust.names import parse_name
from junto.types import PartyId, StepId, TaskId

_BTS = parse_name("spiffe://sky/bts/node-1")
_KEY = Ed25519PrivateKey.generate()


def _plan() -> Plan:
    query = Query(StepId("q"), _BTS.party, "SELECT 1", (), keys=(), measures=())
    return Plan("SELECT 1", _BTS.party, (query, Release(StepId("r"), _BTS.party, "SELECT 1")))


_PLAN = _plan()
_DIGEST = steps.digest(_PLAN)


def _tell(journal: Journal, *told: tuple[str, str]) -> None:
    """Write proposals and stops of tasks."""
    bodies = {
        "proposal": Proposal(_PLAN, _DIGEST, (_BTS.party,), "ana", "", 60.0),
        "stop": Stop(_DIGEST, "cancelled", "cancelled", PartyId("bts"), "cancelled by ana at bts"),
    }
    for index, (kind, task) in enumerate(told):
        body = msgspec.Raw(msgspec.json.encode(bodies[kind]))
        statement = Statement(
            kind=kind, author=_BTS.uri, id=f"{kind}-{task}", at=1000.0 + index, task=TaskId(task), body=body
        )
        journal.submit(sign(statement, _KEY), statement).result()


@pytest.mark.parametrize(
    ("most", "at_hand"),
    [
        (9, ["02", "03", "01", "00", "04"]),
        (2, ["03", "01", "00", "04"]),
    ],
)
def test_those_that_ended_last_are_at_hand_whatever_the_clocks_said_that_gave_them_their_names(
    most: int, at_hand: list[str], tmp_path: Path
) -> None:
    """01 and 00 were asked where the clock is slow: theirs are the lowest ids, and yet they came last."""
    asked = [("proposal", task) for task in ("02", "03", "04", "01", "00")]
    ended = [("stop", task) for task in ("02", "03", "01")]
    with Journal(tmp_path / "journal.db", origin=str(_BTS), key=_KEY, on_fatal=pytest.fail) as journal:
        _tell(journal, *asked, *ended)
        ledger = cast(Ledger, SimpleNamespace(name=_BTS, party_prefix="spiffe://sky/bts/"))
        assert [task.id for task, _ in tasks_in(journal, ledger, Patience(), 2000.0, most)] == at_hand
