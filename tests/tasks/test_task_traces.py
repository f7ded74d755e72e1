# SPDX-License-Identifier: Apache-2.0
"""The stories in `tests/traces/tasks`, told again by the machine of today."""

from pathlib import Path

import pytest
from task_traces import FOLDER, replayed

TRACES = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_machine_tells_the_story_as_it_is_written(path: Path) -> None:
    text = path.read_text()
    assert replayed(text) == text


def test_every_way_a_task_can_end_has_its_story() -> None:
    ends = {line.split()[2] for path in TRACES for line in path.read_text().splitlines() if "→ conclude" in line}
    assert ends == {"done", "refused", "failed", "cancelled", "expired"}
