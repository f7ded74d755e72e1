# SPDX-License-Identifier: Apache-2.0
"""What an earlier process had finished counts only if it is of the run that counts now."""

from types import SimpleNamespace
from typing import cast

import pytest

from junto.node.keep import Kept
from junto.node.work import Job, Tools, Work
from junto.plan.steps import Plan, Query
from junto.tasks.bodies import Finished
from junto.types import Digest, PartyId, StepId, TaskId

ANN = PartyId("ann")
STEP = StepId("q")
PLAN = Plan("SELECT 1", ANN, (Query(STEP, ANN, "SELECT 1", (), keys=(), measures=()),))


@pytest.mark.parametrize(("run", "counts"), [("1", True), ("", False), ("2", False)])
def test_an_output_of_another_run_is_made_again(run: str, counts: bool) -> None:
    job = Job(
        TaskId("01jtask"), PLAN, "contract", 60.0,
        run_of=lambda step: "1",
        resting_on=lambda step: frozenset((step,)),
        finished=lambda done: None,
        tried=lambda step, tries, error: None,
        doubled=frozenset(),
        second=lambda second: None,
        home=None,
    )  # fmt: skip
    kept = Kept(None, (), Finished(STEP, Digest("sha256:0"), None, 0, 0.1, run))
    work = Work(cast(Tools, SimpleNamespace(me=ANN, spreading=None, salt=b"", spool=None)), job, {STEP: kept}, None)
    assert (STEP in work._kept) is counts
