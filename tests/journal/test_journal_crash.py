# SPDX-License-Identifier: Apache-2.0
"""A journal whose process is killed at any moment opens again with all that it acknowledged."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from journal_parties import NOW, PARTIES, found

from junto.journal.store import Journal
from junto.journal.verify import verify_journal
from junto.trust.certificates import key_pem, pem

CHILD = Path(__file__).with_name("journal_child.py")


def unexpected(what: str) -> None:
    raise AssertionError(what)


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    consortium, choice = found(PARTIES), random.Random(20_130_101)
    node, path = consortium.nodes["united"], tmp_path / "journal.db"
    (tmp_path / "node.key").write_bytes(key_pem(node.key))
    (tmp_path / "node.pem").write_text(pem(node.certificate))
    with Journal(path, origin=consortium.origin, key=node.key, on_fatal=unexpected) as journal:
        for said in consortium.opening():
            journal.submit(*said).result(10)
    acknowledged: list[str] = []
    for run in range(6):
        acknowledged += run_and_kill(path, f"run{run}", choice.randrange(1, 600))
        report = verify_journal(path)
        assert report.problems == ()
        with Journal(path, origin=consortium.origin, key=node.key, on_fatal=unexpected) as journal:
            assert (report.entries, report.root) == journal.head()
            kept = {entry.id for entry in journal.entries()}
        assert kept.issuperset(acknowledged)
    assert len(acknowledged) > 600


def run_and_kill(path: Path, run: str, lines: int) -> list[str]:
    """What the child acknowledged until it was killed, some time after it had printed so many lines."""
    keys = [str(path.with_name("node.key")), str(path.with_name("node.pem"))]
    command = [sys.executable, str(CHILD), str(path), *keys, str(NOW), run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        seen += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    return [line.strip() for line in seen if line.endswith("\n")]
