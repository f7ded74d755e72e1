# SPDX-License-Identifier: Apache-2.0
"""Attackers recover nobody under the default rules; `make attacks` runs the same with more people."""

from collections.abc import Iterator
from pathlib import Path

import attack_run
import pytest
from attack_desk import Desk
from attack_kinds import ATTACKS
from attack_world import World, drawn

SECURITY = Path(__file__).parents[2] / "SECURITY.md"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(drawn(seed=1, people=420, targets=1)) as started:
        yield started


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if not attack.later])
def test_an_attack_recovers_nobody(world: World, name: str) -> None:
    desk = Desk(world)
    claims = ATTACKS[name].run(desk)
    assert ATTACKS[name].recovered(desk, claims) == 0, claims


def test_harmless_questions_are_answered_rightly(world: World) -> None:
    assert attack_run.harmless(Desk(world)) == ""


def test_attacks_that_single_answers_cannot_stop_are_told_to_the_reader() -> None:
    text = " ".join(SECURITY.read_text().split())
    missing = [attack.later for attack in ATTACKS.values() if attack.later and attack.later not in text]
    assert not missing
