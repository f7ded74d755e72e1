# SPDX-License-Identifier: Apache-2.0
"""The choice of a connection to drop when too many have not proven who they are, and the log's limit for such lines.

A member must get in while strangers hold connections open, or open new ones as fast as they are cut. So a newcomer
always comes in, and another gives way: one of the network that holds most of them, as none may take more than its
share; of that network one that has sent nothing, as a member sends its TLS greeting at once; of these the oldest.
Whoever attacks from one address therefore pushes out itself, and whoever only connects pushes out itself.
"""

import ipaddress
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")


@dataclass(slots=True)
class Stranger:
    """A connection that has not proven who it is: the network it comes from, and whether it has sent anything."""

    network: str
    spoke: bool = False


def network_of(host: str) -> str:
    """The network whose connections share a limit: an IPv4 address, or the IPv6 prefix of 64 bits of a subscriber."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped is not None else str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def gives_way(held: Mapping[K, Stranger], newcomer: str) -> K:
    """The one of the connections held that gives way to one more from the network `newcomer`.

    held: at least one, in the order of arrival.
    """
    share = Counter(stranger.network for stranger in held.values())
    share[newcomer] += 1
    return min(held, key=lambda key: (-share[held[key].network], held[key].spoke))


class Tally:
    """Occurrences that are logged at once when they are rare, and counted when they are many."""

    def __init__(self, every_seconds: float) -> None:
        self._every = every_seconds
        self._quiet_until = float("-inf")
        self._left_out = 0

    def due(self, now: float) -> int | None:
        """Count one more occurrence: how many were left out since the last line if a line is due, else None.

        now: seconds of a clock that never goes back.
        """
        if now < self._quiet_until:
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        self._quiet_until = now + self._every
        return left_out
