# SPDX-License-Identifier: Apache-2.0
"""A sync of the journal that fails ends the process with one line, and what was acknowledged is there afterwards.

The failure comes from below: a library loaded before all others answers `fsync` and `fdatasync` of the journal with an
error while a certain file exists. Nothing in Junto knows of it.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from parties import Parties, parties

from junto.demo.consortium import is_alive
from junto.journal.reading import Reader
from junto.journal.verify import verify_journal
from junto.node import home as homes
from junto.testing.until import until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_QUESTION = "SELECT SUM(v) AS s FROM t"
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    char link[64], path[4096];
    const char *when = getenv("SYNC_FAILS_WHILE");
    if (when == NULL || access(when, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strstr(path, "journal.db") != NULL;
}

int fsync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a sync fail with")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(_SHIM)
    words = [compiler, "-shared", "-fPIC", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
    made = subprocess.run(words, capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("the C compiler here makes no shared library")
    return folder / "shim.so"


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Parties]:
    with parties(("ann", "bea", "cyd"), tmp_path, 'threads = 1\nabsence = "8s"\n') as running:
        table = pa.table({"id": list(range(40)), "v": list(range(40))})
        for party in ("ann", "bea"):
            running.publish(party, "t", table)
        yield running


def _held(running: Parties, party: str, author: str) -> set[str]:
    with Reader(running.home(party) / "journal.db") as reader:
        return {e.statement.id for e in reader.entries() if f"/{author}/" in e.statement.author}


def test_a_failed_sync_ends_the_process_in_one_line_and_nothing_acknowledged_is_lost(
    three: Parties, shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "syncs fail"
    assert three.type("bea", "node", "stop").code == 0
    with monkeypatch.context() as environment:
        environment.setenv("LD_PRELOAD", str(shim))
        environment.setenv("SYNC_FAILS_WHILE", str(failing))
        three.start("bea")
    three.whole()
    with three.desk("cyd") as desk:
        question = desk.sql(_QUESTION)
        answered = question.run(deadline="20s").task
        pid, logged = three.pid("bea"), len((three.home("bea") / "node.log").read_bytes())
        failing.touch()
        task = question.submit(deadline="20s")
        until(lambda: not is_alive(pid), "bea's node has ended by itself")
        failing.unlink()
        said = (three.home("bea") / "node.log").read_bytes()[logged:].decode()
        (line,) = [line for line in said.splitlines() if line.startswith("junto: ")]
        assert "journal.db cannot be written any more" in line
        assert line.endswith("the node stops here, start it again")
        three.start("bea")
        assert desk.wait(task).table.to_pylist() == [{"s": 1560}]  # what was not acknowledged was told again
    home = homes.load(three.home("bea"))
    assert [str(problem) for problem in verify_journal(home.journal_path, home.charter()).problems] == []
    for other in ("ann", "cyd"):
        assert _held(three, other, "bea") <= _held(three, "bea", "bea")
    with Reader(home.journal_path) as reader:
        assert [e.kind for e in reader.entries(kinds=("receipt",), task=answered)] == ["receipt"]
    three.whole()
    printed = three.type("cyd", "sql", _QUESTION, "--quiet", "--deadline", "20s")
    assert (printed.code, printed.out.split()[-1:]) == (0, ["1560"]), printed.err
