# SPDX-License-Identifier: Apache-2.0
"""Typed at a shell: questions that run later and again, and a node that is killed between a firing and its task."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from parties import GROUPED, Parties, parties
from pyarrow import parquet

from junto.catalog.write import dataset_file
from junto.journal.reading import Reader
from junto.testing.until import until
from junto.types import is_task_id

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_QUESTION = "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k"
_DYING = """
import os, signal, sys
from junto.cli import main
from junto.node.triggers import Triggers

async def dies(self, firing):
    os.kill(os.getpid(), signal.SIGKILL)

Triggers._ask = dies
sys.exit(main(["node", "start", "--home", sys.argv[1]]))
"""
"""A node that is killed when a firing is in its journal, and its task is not yet asked."""


def _table(v: int) -> pa.Table:
    return pa.table({"id": list(range(40)), "k": ["a", "b"] * 20, "v": [v] * 40})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with parties(("ann", "bea"), tmp_path_factory.mktemp("two")) as running:
        for party in running.names:
            running.publish(party, "t", _table(1))
        yield running


def _publish_at_bea(two: Parties, v: int) -> None:
    folder = two.home("bea") / "data"
    parquet.write_table(_table(v), folder / f"t{v}.parquet")
    (folder / f"t{v}.toml").write_text(dataset_file("t", f"t{v}.parquet", GROUPED, "id"))
    assert two.type("bea", "dataset", "publish", str(folder / f"t{v}.toml")).code == 0


def _statements(two: Parties, kind: str) -> list[str]:
    """The tasks that statements of a kind in ann's journal are about."""
    with Reader(two.home("ann") / "journal.db") as reader:
        return [entry.task for entry in reader.entries(kinds=(kind,))]


def _typed(two: Parties, *words: str) -> str:
    printed = two.type("ann", *words)
    assert printed.code == 0, printed.err
    return printed.out.strip()


def test_a_submitted_question_is_answered_when_somebody_asks_for_the_answer(two: Parties, tmp_path: Path) -> None:
    submitted = two.type("ann", "task", "submit", _QUESTION, "--deadline", "1m", "--priority", "3")
    task = submitted.out.strip()
    assert is_task_id(task)
    assert f"junto task wait {task}" in submitted.err
    for format in ("csv", "json", "parquet"):
        _typed(two, "task", "wait", task, "--format", format, "--out", str(tmp_path / format))
    assert (tmp_path / "csv").read_text() == '"k","s"\n"a",40\n"b",40\n'
    assert json.loads((tmp_path / "json").read_text()) == [{"k": "a", "s": 40}, {"k": "b", "s": 40}]
    assert parquet.read_table(tmp_path / "parquet").num_rows == 2
    waited = two.type("ann", "task", "wait", task, "--quiet")
    assert ("40" in waited.out, waited.err) == (True, "")
    assert two.type("ann", "task", "wait", task, "--format", "parquet").err == (
        "junto: parquet goes to a file: add --out FILE.parquet\n"
    )


def test_triggers_are_made_shown_paused_fired_and_removed(two: Parties) -> None:
    made = _typed(two, "trigger", "create", "nightly", _QUESTION, "--cron", "0 3 * * *", "--zone", "Europe/Berlin")
    assert made.startswith("trigger nightly: at 0 3 * * * (Europe/Berlin), next ")
    assert "never" in _typed(two, "trigger", "ls")
    assert "is paused" in _typed(two, "trigger", "pause", "nightly")
    assert "(paused)" in _typed(two, "trigger", "show", "nightly")
    task = _typed(two, "trigger", "fire", "nightly")
    assert "40" in _typed(two, "task", "wait", task)
    assert "goes on" in _typed(two, "trigger", "resume", "nightly")
    shown = _typed(two, "trigger", "show", "nightly")
    assert re.search(rf"by hand of \w+: task {task}: done", shown)
    refused = two.type("ann", "trigger", "create", "nightly", _QUESTION, "--on-version", "t")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "nightly is there already" in refused.err
    assert "is removed" in _typed(two, "trigger", "remove", "nightly")
    assert _typed(two, "trigger", "ls") == "no triggers; `junto trigger create` makes one"


def test_a_node_killed_between_a_firing_and_its_task_asks_it_once_when_it_runs_again(two: Parties) -> None:
    _typed(two, "trigger", "create", "fresh", _QUESTION, "--on-version", "t@bea", "--deadline", "30s")
    _typed(two, "node", "stop")
    asked_before = _statements(two, "proposal")
    with subprocess.Popen([sys.executable, "-c", _DYING, str(two.home("ann"))], stdout=subprocess.DEVNULL) as dying:
        try:
            until(lambda: two.type("ann", "trigger", "ls").code == 0, "the node runs")
            _publish_at_bea(two, 5)
            assert dying.wait(20) == -signal.SIGKILL
        finally:
            dying.kill()
    (task,) = [firing for firing in _statements(two, "firing") if firing not in asked_before]
    assert _statements(two, "proposal") == asked_before
    two.start("ann")

    def ended() -> bool:
        (view,) = json.loads(_typed(two, "trigger", "ls", "--json"))
        assert [firing["task"] for firing in view["firings"]] == [task]
        return bool(view["firings"][0]["end"] == "done")

    until(ended, "the firing's task ended")
    assert "120" in _typed(two, "task", "wait", task)
    two.signal("ann", signal.SIGKILL)
    two.start("ann")
    two.whole()
    assert ended()
    assert _statements(two, "proposal") == [*asked_before, task]
    assert _statements(two, "firing").count(task) == 1
