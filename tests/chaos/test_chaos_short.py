# SPDX-License-Identifier: Apache-2.0
"""A short piece of `make chaos`: nodes die and connections break, and every task is accounted for."""

from pathlib import Path

import pytest
from chaos_run import run

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]


def test_while_nodes_die_and_connections_break_every_task_is_right_or_ends_with_a_reason(tmp_path: Path) -> None:
    story = run(seed=7, tasks=40, rate=6.0, folder=tmp_path, pause=(0.1, 0.6))
    assert story.problems == []
    assert len(story.ended) == 40
    assert sum(story.accidents.values()) >= 3
    assert story.right >= 12, story.table()  # of 34 that may be; a slow machine is late for many deadlines
