# SPDX-License-Identifier: Apache-2.0
"""A child for tests: it says what it has inherited, or ends in the way it is told."""

import json
import os
import resource
import signal

from junto.children import inside
from junto.children.pipe import Pipe


def serve(pipe: Pipe) -> None:
    """Answer each frame."""
    while True:
        head, _ = pipe.receive()
        match head:
            case b"inherited":
                descriptors = [os.readlink(f"/proc/self/fd/{number}") for number in _open_descriptors()]
                told = {"environ": sorted(os.environ), "descriptors": descriptors, "core": resource.getrlimit(4)[0]}
                pipe.send(json.dumps(told).encode())
            case b"crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case b"hang":
                pipe.send(b"hangs")
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                while True:
                    signal.sigtimedwait([signal.SIGUSR1], 3600)
            case _:
                pipe.send(b"done")


def _open_descriptors() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]


if __name__ == "__main__":
    inside.main(serve)
