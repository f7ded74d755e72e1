# SPDX-License-Identifier: Apache-2.0
"""One child, as its parent holds it: started, talked to over a pipe, killed, reaped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

from junto.children.pipe import Pipe

_ENDING_SECONDS = 1.0
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")
"""The environment variables a child gets: those without which Python does not start. Others may hold a password."""
_SET = {
    # One heap for all threads, and Arrow on it: what is freed goes back to the system rather than staying scattered.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "PYTHONUNBUFFERED": "1",
}


class Child:
    """A process of ours that runs one module. It inherits one socket, and neither descriptors nor keys besides."""

    def __init__(self, module: str) -> None:
        """Start it; it answers when it has loaded what it needs. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                # -P: a module of that name in the folder where the node was started is not taken for ours.
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                close_fds=True,
                pass_fds=(theirs.fileno(),),
                env={**{name: os.environ[name] for name in _PASSED_ON if name in os.environ}, **_SET},
                start_new_session=True,  # Ctrl-C in a terminal is for the node, which ends its children itself
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pipe = Pipe(ours)
        self.pid = self._process.pid
        self.name = uuid.uuid4().hex
        self._folders: set[Path] = set()

    def may_leave(self, folder: Path) -> None:
        """Note a folder that it writes to: a killed child cannot remove it, so it is removed with the child."""
        self._folders.add(folder)

    def end(self) -> None:
        """Kill it, unless it has ended by then."""
        with suppress(OSError):
            self._process.kill()
        self.ended()

    def ended(self) -> str:
        """The end of a child that sends nothing any more, in words: a signal or an exit code."""
        try:
            code = self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:  # it sends what is no frame, and lives
            self._process.kill()
            code = self._process.wait()
        self.pipe.close()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        if code >= 0:
            return f"exit code {code}"
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"
