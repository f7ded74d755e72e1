# SPDX-License-Identifier: Apache-2.0
"""Children inherit one socket, rest for the next work, and end: with their work, their rest, their pool, their node."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from junto.children.pipe import Broken, Pipe
from junto.children.pool import Pool
from junto.demo.consortium import is_alive
from junto.errors import Cancelled
from junto.testing.until import until

_NODE = """
import sys
from junto.children.pool import Pool
pool = Pool("tests", "told_by_a_child")
with pool.lent() as lent:
    lent.child.pipe.send(b"hang")
    lent.child.pipe.receive()
    print(lent.child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.fixture
def pool(environment: None) -> Iterator[Pool]:
    pool = Pool("tests", "told_by_a_child", warm=1, rest_seconds=0.0)
    yield pool
    pool.close()
    assert pool.shown() == ()


def _asked(pool: Pool, what: bytes = b"anything") -> tuple[int, bytes]:
    with pool.lent() as lent:
        lent.child.pipe.send(what)
        answer, _ = lent.child.pipe.receive()
        lent.whole = True
        return lent.child.pid, answer


def test_a_child_inherits_neither_descriptors_nor_secrets(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hush")
    with open(__file__) as held:
        os.set_inheritable(held.fileno(), True)
        _, answer = _asked(pool, b"inherited")
    told = json.loads(answer)
    assert "PGPASSWORD" not in told["environ"]
    assert not any(one.endswith(".py") for one in told["descriptors"])
    assert sum(one.startswith("socket:") for one in told["descriptors"]) == 1
    assert told["core"] == 0


def test_a_child_rests_for_the_next_work_and_one_of_several_stays(pool: Pool) -> None:
    first, _ = _asked(pool)
    assert _asked(pool)[0] == first
    with pool.lent() as one, pool.lent() as other:
        assert {child.busy for child in pool.shown()} == {True}
        one.whole = other.whole = True
    until(lambda: len(pool.shown()) == 1, "one rests, the other has ended")


def test_a_child_left_in_mid_work_is_killed_at_once(pool: Pool) -> None:
    with pool.lent() as lent:
        lent.child.pipe.send(b"hang")
        lent.child.pipe.receive()
        pid = lent.child.pid
    assert not is_alive(pid)
    assert _asked(pool)[1] == b"done"


def test_a_stop_ends_the_wait_for_a_child_that_says_nothing(pool: Pool) -> None:
    stop = threading.Event()
    with pool.lent() as lent:
        lent.child.pipe.send(b"hang")
        lent.child.pipe.receive()
        stop.set()
        with pytest.raises(Cancelled):
            lent.child.pipe.receive(stopped=stop.is_set)
        with pytest.raises(TimeoutError):
            lent.child.pipe.receive(seconds=0.0)


def test_a_child_that_crashes_ends_its_pipe_and_says_by_which_signal(pool: Pool) -> None:
    with pool.lent() as lent:
        lent.child.pipe.send(b"crash")
        with pytest.raises(Broken):
            lent.child.pipe.receive()
        assert lent.child.ended() == "SIGSEGV"
    assert _asked(pool)[1] == b"done"


def test_children_end_with_a_node_that_is_killed(environment: None) -> None:
    with subprocess.Popen([sys.executable, "-c", _NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        pid = int(node.stdout.readline())
        assert is_alive(pid)
        node.send_signal(signal.SIGKILL)
        node.wait()
        until(lambda: not is_alive(pid), "the child is gone")


def test_a_thread_that_ends_takes_no_child_with_it(pool: Pool) -> None:
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(_asked(pool)[0]))
    thread.start()
    thread.join()
    assert _asked(pool)[0] == pids[0]


def test_fifty_pieces_of_work_leave_no_descriptor_and_no_process(pool: Pool) -> None:
    _asked(pool)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        with pool.lent() as lent:
            lent.child.pipe.send(b"anything")
            lent.child.pipe.receive()
            lent.whole = number % 10 != 0
    _asked(pool)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(pool.shown()) == 1


@pytest.mark.parametrize("lengths", [b"\xff\xff\xff\xff" + bytes(8), bytes(4) + b"\xff" * 8])
def test_a_frame_that_is_too_large_is_refused_before_it_is_read(lengths: bytes) -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(lengths)
        with pytest.raises(Broken, match="too large"):
            Pipe(ours).receive()
