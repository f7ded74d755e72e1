# SPDX-License-Identifier: Apache-2.0
"""The simulator: the same seed is the same run, every fault alone and all together are survived, and a bug is found."""

import os
import re
import subprocess
import sys

import pytest

from junto.cli import main
from junto.testing.sim import many
from junto.testing.sim.faults import KINDS, Kind
from junto.testing.sim.mutants import MUTANTS
from junto.testing.sim.run import Scale, run, script_of, shrink

pytestmark = [
    # a killed process's coroutines are let go of wherever they are
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_SMALL = Scale(tasks=15, faults=6, seconds=12.0)
_PAUSES = Scale(tasks=15, faults=4, seconds=12.0, kinds=("pause",))
_TRACE = (
    "from junto.testing.sim.run import Scale, run, script_of\n"
    "outcome = run(script_of(7, Scale(tasks=15, faults=8, seconds=12.0)))\n"
    "print(outcome.trace, outcome.events, outcome.failure)\n"
)


def test_the_same_seed_is_the_same_run_in_every_process() -> None:
    traces = {
        subprocess.run(
            [sys.executable, "-c", _TRACE],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1")
    }
    assert len(traces) == 1
    assert len(traces.pop().split()[0]) == 64


def test_without_faults_every_task_that_is_not_taken_back_is_answered() -> None:
    outcome = run(script_of(1, Scale(tasks=20, faults=0, seconds=10.0)))
    assert outcome.failure == ""
    assert set(outcome.ended) <= {"done", "cancelled cancelled"}
    assert outcome.done >= 18


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_is_survived(kind: Kind) -> None:
    outcome = run(script_of(3, Scale(tasks=15, faults=4, seconds=12.0, kinds=(kind,))))
    assert outcome.failure == "", "\n".join(outcome.story[-20:])
    assert outcome.done > 0


@pytest.mark.parametrize("seed", range(1, 5))
def test_all_faults_together_are_survived(seed: int) -> None:
    outcome = run(script_of(seed, _SMALL))
    assert outcome.failure == "", "\n".join(outcome.story[-20:])


@pytest.mark.parametrize("name", ["persist-before-send", "ask-is-recorded"])
def test_a_safeguard_that_is_off_is_found(name: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    found = ""
    for seed in range(1, 10):
        with mutant.applied():
            found = run(script_of(seed, _SMALL)).failure
        if found:
            break
    assert found


def test_a_node_that_slept_through_a_takeover_writes_nothing_more_and_gives_way() -> None:
    script = script_of(4, _PAUSES)
    outcome = run(script)
    assert script.paired == "ann"
    assert outcome.failure == "", "\n".join(outcome.story[-20:])
    told = [line.split("  ")[-1] for line in outcome.story]
    (first,) = (line.removesuffix(" leads ann, epoch 1") for line in told if line.endswith(" leads ann, epoch 1"))
    (second,) = (line.removesuffix(" leads ann, epoch 2") for line in told if line.endswith(" leads ann, epoch 2"))
    assert first != second
    assert [line for line in told if line.startswith(f"{first} gives way: ")]


def test_a_standby_that_never_takes_over_is_found() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "takeover")
    with mutant.applied():
        outcome = run(script_of(4, _PAUSES))
    assert re.match(r"nobody leads ann for 3.1 s, though ann/\w+ \d+ could", outcome.failure)


def test_a_failure_is_made_small() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "outputs-go")
    with mutant.applied():
        least = shrink(script_of(1, _SMALL), lambda line: None, tries=25)
    assert least.failure
    assert len(least.script.faults) == 0
    assert len(least.script.asked) < 4
    assert any("BROKEN" in line for line in least.story)


def test_the_command_says_what_it_does_not_know(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--faults", "flood", "--seeds", "1"]) == 2
    assert "no fault 'flood'; there are crash," in capfd.readouterr().err


def test_seeds_go_on_in_another_process_when_one_has_done_its_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(many, "_SEEDS_PER_PROCESS", 1)
    assert many.main(["--seeds=3", "--tasks=2", "--fault-count=1", "--seconds=2", "--jobs=2"]) == 0
    assert capsys.readouterr().out.startswith("3 seeds, 6 tasks")
