# SPDX-License-Identifier: Apache-2.0
"""The first acts of a child: it ties its life to its parent's, and gives up what it does not need.

A child dies with its parent in two ways: the kernel's (`PR_SET_PDEATHSIG`), which reaches it whatever it does, and the
end of the pipe, seen by a thread of its own. The kernel looks at the *thread* that started it: see `pool.py`.
"""

import ctypes
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from junto.children.pipe import Broken, Pipe

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_FIRST_FOR_THE_OOM_KILLER = "900"


def main(work: Callable[[Pipe], None]) -> None:
    """Run a child: `work` answers what comes over the pipe, until it is `Broken`, which is how a child ends."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_FOR_THE_OOM_KILLER)
    _die_with(parent)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core holds rows
    threading.Thread(target=_watch, args=(descriptor,), name="parent", daemon=True).start()
    with suppress(Broken):
        work(Pipe(socket.socket(fileno=descriptor)))
    os._exit(0)  # nothing of it is to be kept, and taking an engine apart takes time


def limit_memory(size: int) -> None:
    """Have the kernel give this process no more private memory than that."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size if most == resource.RLIM_INFINITY else min(size, most), most))


def _die_with(parent: int) -> None:
    with suppress(OSError, AttributeError):  # another system: the pipe's end is what is left
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_DUMPABLE, 0)  # no other process of this account reads its memory
    if os.getppid() != parent:
        os._exit(0)


def _watch(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # its end alone
    poll.poll()
    os._exit(0)
