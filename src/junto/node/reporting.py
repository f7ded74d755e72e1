# SPDX-License-Identifier: Apache-2.0
"""A node's state, as its operator sees it in `junto node status`."""

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from junto import __version__
from junto.errors import InvalidInput
from junto.link import methods
from junto.types import Digest

if TYPE_CHECKING:
    from junto.node.node import Node


def status_of(node: "Node") -> methods.Status:
    """The state of a node now."""
    size, root = node.journal.head()
    listening = node.links.listening
    return methods.Status(
        party=node.me,
        node=node.identity.name.node,
        software=__version__,
        pid=os.getpid(),
        started_at=node.started_at,
        listening=", ".join(str(address) for address in listening),
        consortium=node.charter.consortium,
        charter_version=node.charter.version,
        charter_digest=Digest(node.charter.digest),
        charter_waiting=_waiting(node),
        certificate_until=node.identity.expires,
        certificate_renews=node.home.has_authority,
        journal_entries=size,
        journal_root=root.hex(),
        datasets=len(node.facts.view.of(node.me)),
        open_tasks=len(node.runner.open),
        memory_bytes=_memory_bytes(),
        helpers=node.spreading.shown()[1:],
        children=tuple(
            methods.ChildStatus(child.kind, child.pid, child.busy, child.seconds, child.memory_bytes)
            for pool in node.ground.pools
            for child in pool.shown()
        ),
        links=tuple(
            methods.LinkStatus(
                party=status.party,
                up=status.up,
                since=status.since,
                detail="" if status.up else status.error,
                address=status.address,
                dialled=status.dialled,
                rtt_seconds=(status.round_trip_ms or 0.0) / 1000,
                bytes_in=status.bytes_in,
                bytes_out=status.bytes_out,
            )
            for status in node.links.status()
        ),
    )


def _waiting(node: "Node") -> int:
    try:
        kept = node.home.charter().version
    except InvalidInput:
        return 0
    return kept if kept != node.charter.version else 0


def _memory_bytes() -> int:
    """Resident memory now; the largest so far where the system does not tell the present."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
