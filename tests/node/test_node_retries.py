# SPDX-License-Identifier: Apache-2.0
"""A disk without room is given time, other troubles a few tries; then the step ends, named without a path."""

import asyncio
import random
from collections.abc import Callable

import pytest

from junto.errors import Crashed, Fenced, FragmentFailed, JuntoError, NoSpill, StorageFailed, Unavailable
from junto.node import retries
from junto.node.telling import Failure, StepError
from junto.plan.steps import Query
from junto.testing.sim.loop import SimLoop
from junto.types import PartyId, StepId

ANN, BEA = PartyId("ann"), PartyId("bea")
ROWS = Query(StepId("q"), ANN, "SELECT 1", ())
GROUPS = Query(StepId("q"), ANN, "SELECT 1", (), keys=(), measures=())
FULL = StorageFailed("journal /home/4242/journal.db: SQLITE_FULL", lack="is full")


def _done(
    errors: Callable[[int], JuntoError | None], step: Query = ROWS, party: PartyId = ANN, left: float = 1000.0
) -> tuple[float, list[int], JuntoError | None]:
    """Seconds that passed, the tries that were told, and the error of a step that was tried until it was done."""
    tried: list[int] = []

    async def run() -> tuple[float, JuntoError | None]:
        clock = asyncio.get_running_loop().time
        began = clock()

        async def attempt() -> None:
            error = errors(len(tried))
            if error is not None:
                raise StepError(Failure(step.id, party, error))

        try:
            await retries.until_done(
                step, ANN, attempt, lambda: left - (clock() - began), lambda tries, error: tried.append(tries)
            )
        except StepError as error:
            return clock() - began, error.failure.error
        return clock() - began, None

    loop = SimLoop(random.Random(1))
    try:
        seconds, error = loop.run_until_complete(run())
    finally:
        loop.close()
    return seconds, tried, error


def test_a_step_is_done_when_its_disk_has_room_again() -> None:
    seconds, tried, error = _done(lambda tries: FULL if tries < 12 else None)
    assert (error, tried) == (None, list(range(1, 13)))
    assert seconds > 15


@pytest.mark.parametrize(("left", "most"), [(1000.0, 30.0), (20.0, 10.0)])
def test_a_disk_that_stays_full_ends_the_step_by_name_and_without_a_path(left: float, most: float) -> None:
    seconds, _, error = _done(lambda tries: FULL, left=left)
    assert most - 2.0 <= seconds <= most
    assert str(error) == "the disk of ann is full: it can record nothing; its log says where"


def test_no_room_for_what_spills_is_no_refusal_of_the_rows_and_tells_nothing_of_groups() -> None:
    lack = NoSpill("there is no room on disk")
    assert _done(lambda tries: lack if tries < 8 else None)[2] is None
    assert "no room on disk" in str(_done(lambda tries: lack)[2])
    assert "cannot be computed over the rows of an owner" in str(_done(lambda tries: lack, GROUPS)[2])


@pytest.mark.parametrize(
    ("error", "party", "tries"),
    [
        (Unavailable("gone"), ANN, 5),
        (Crashed("killed"), ANN, 1),
        (FragmentFailed("no"), ANN, 0),
        (Fenced("another leads"), ANN, 0),
        (FULL, BEA, 0),  # the other party has tried
        (Unavailable("gone"), BEA, 0),
    ],
)
def test_what_does_not_pass_is_not_tried_for_long(error: JuntoError, party: PartyId, tries: int) -> None:
    assert len(_done(lambda _: error, party=party)[1]) == tries
