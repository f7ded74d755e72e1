# SPDX-License-Identifier: Apache-2.0
"""The limits and times of the link, with a preset for each kind of network."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """The times that the link waits, and the amounts it takes at once. Times are seconds."""

    connect_seconds: float = 10.0
    """From dialling to the peer's Hello, and from accepting to it: absolute, however slowly bytes come."""

    ping_seconds: float = 5.0
    """The pause between two requests to the peer for a sign of life."""

    silent_seconds: float = 15.0
    """Nothing heard for so long: the link is down."""

    drain_seconds: float = 10.0
    """The time that a link which is being replaced or closed has to finish what is under way."""

    first_retry_seconds: float = 0.25
    """The wait before the second attempt to dial; it doubles with each failure."""

    longest_retry_seconds: float = 15.0
    """The wait never grows beyond this."""

    calls: int = 512
    """Calls served at once for one peer."""

    streams: int = 512
    """Streams served at once for one peer."""

    call_bytes: int = 64 * 1024 * 1024
    """Payloads of unanswered calls of one peer held at once; further calls are told to retry."""

    window_bytes: int = 4 * 1024 * 1024
    """The most bytes of one stream that a slow reader holds."""

    unsent_bytes: int = 64 * 1024 * 1024
    """The bytes that may wait to be sent to one peer; beyond it the peer counts as not reading."""

    strangers: int = 128
    """Connections that have not yet proven who they are, an eighth of the process's files at most; one gives way to one
    more (`strangers.py`)."""

    @classmethod
    def for_lan(cls) -> "LinkSettings":
        """For machines near each other."""
        return cls()

    @classmethod
    def for_wan(cls) -> "LinkSettings":
        """For the open internet: more patience, larger windows for long round trips."""
        return cls(
            connect_seconds=20.0,
            ping_seconds=10.0,
            silent_seconds=35.0,
            drain_seconds=30.0,
            first_retry_seconds=1.0,
            longest_retry_seconds=60.0,
            window_bytes=16 * 1024 * 1024,
            unsent_bytes=128 * 1024 * 1024,
        )

    @classmethod
    def for_user(cls, addresses: int) -> "LinkSettings":
        """For a user's link to one of so many addresses: where another node may have taken over, a silent one is left
        soon. The next link takes up what was waited for, so leaving one that was merely slow costs little."""
        return cls(ping_seconds=1.5, silent_seconds=5.0) if addresses > 1 else cls.for_lan()
