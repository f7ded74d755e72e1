# SPDX-License-Identifier: Apache-2.0
"""A step that failed over private groups is told in the same words, whatever happened."""

import pytest

from junto.errors import Crashed, DataChanged, FragmentFailed, InvalidInput, JuntoError, OutOfMemory, PeerFault
from junto.node.telling import told
from junto.plan.steps import AnyStep, MaskedSum, Move, Query, Release, Threshold
from junto.types import PartyId, StepId

ANN, BTS = PartyId("ann"), PartyId("bts")
T = StepId("t")
GROUPED: tuple[AnyStep, ...] = (
    Query(StepId("q"), ANN, "SELECT 1", (), keys=()),
    Threshold(T, (StepId("q"),), (ANN,), BTS, (ANN,), 10),
    MaskedSum(StepId("s"), T, (StepId("q"),), (ANN,), BTS, ()),
    Move(StepId("m"), StepId("q"), ANN, (BTS,), ("m0",), T),
    Release(StepId("r"), BTS, "SELECT 1", threshold=T),
)
KINDS = (
    FragmentFailed("the fragment failed: division by zero"),
    OutOfMemory("the fragment needs more memory"),
    Crashed("its process ended"),
    InvalidInput("measure SUM(salary) holds a magnitude of 2^79 or more"),
)


@pytest.mark.parametrize("step", GROUPED, ids=lambda step: type(step).__name__)
def test_nothing_tells_at_which_group_step_or_in_which_way_a_question_failed(step: AnyStep) -> None:
    said = {
        (id, party, type(error), error.code, str(error)) for id, party, error in (told(step, ANN, e) for e in KINDS)
    }
    assert len(said) == 1
    ((id, _, kind, code, words),) = said
    assert (id, kind, code) == ("", FragmentFailed, "fragment-failed")
    assert "group more coarsely" in words


@pytest.mark.parametrize("error", [DataChanged("a new version"), PeerFault("no shares")])
def test_what_rests_on_no_rows_is_told_as_it_is(error: JuntoError) -> None:
    for step in GROUPED:
        assert told(step, ANN, error) == (step.id, ANN, error)


def test_rows_that_a_rule_lets_out_one_by_one_fail_in_words_that_help() -> None:
    rows = Query(StepId("q"), ANN, "SELECT 1", (), columns=("a",), column_types=("BIGINT",))
    for error in KINDS:
        assert told(rows, ANN, error) == (rows.id, ANN, error)
