# SPDX-License-Identifier: Apache-2.0
"""Ports of this machine for nodes that are started on it a moment later."""

import secrets
import socket
from contextlib import ExitStack

_PORTS = range(10_240, 32_768)
"""The ports below those that systems give to outgoing connections (RFC 6056 section 2.1; Linux begins at 32768), which
could take one before its node does."""
_TRIES = 1000


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now; drawn at random, as others may be looking for some too.

    Raises OSError if none is found.
    """
    with ExitStack() as held:
        found: list[int] = []
        for _ in range(_TRIES):
            if len(found) == count:
                break
            one = held.enter_context(socket.socket())
            port = secrets.choice(_PORTS)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    if len(found) < count:
        raise OSError(f"no {count} free ports of {_PORTS.start} to {_PORTS.stop - 1} on loopback")
    return found
