# SPDX-License-Identifier: Apache-2.0
"""`junto demo --chaos`, as it is typed."""

import json

import pytest

from junto.cli import main

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]


def test_killed_nodes_come_back_and_every_answer_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--chaos", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["max_abs_error"] <= 1e-9
    assert report["kills"] == 7
    assert {one["state_when_killed"] for one in report["questions"]} == {"running"}
    for one in report["questions"]:
        again = set(one["steps_computed_again"])
        assert not any(step.startswith("query") for step in again), one  # no fragment that was finished
        assert not again or one["begun_anew"], (
            one
        )  # a joint step that its victim had not finished, and what rests on it
