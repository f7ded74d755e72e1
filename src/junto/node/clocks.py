# SPDX-License-Identifier: Apache-2.0
"""The offsets of other parties' clocks from ours: measured on every link, named before anything fails for them.

A link's Hello tells the peer's clock once. Every minute the node asks again, halfway between question and answer, as a
clock may be set while a link is up. Beyond `CLOCK_SECONDS` the node raises a notice of the kind `clock`, once for each
party until its clock is right again. A jump of our own clock shows in the same look: it no longer goes with the steady
one.

A peer's clock is its claim. It serves to read the times that the same peer writes, and for nothing else.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from junto.errors import JuntoError
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.link.links import Links
from junto.link.probe import CLOCK_SECONDS
from junto.node.notices import Notices
from junto.node.routes import Method
from junto.tasks.notices import Severity
from junto.types import PartyId

_LOOK_SECONDS = 60.0
_CALL_SECONDS = 5.0


class Clocks:
    """The clocks of the parties that a node has links to, against its own."""

    def __init__(
        self,
        me: PartyId,
        links: Links,
        notices: Notices,
        unix_time: Callable[[], float],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._me = me
        self._links = links
        self._notices = notices
        self._unix_time = unix_time
        self._steady = steady
        self._apart = unix_time() - steady()  # what our clock shows beyond the steady one
        self._named: set[PartyId] = set()  # parties whose clock was told to be wrong, and not yet to be right
        self._occasion = f"{unix_time()!r}"  # of this start of the node: the next one tells of its own
        self._turns = 0

    @property
    def routes(self) -> dict[str, Method]:
        """The method by which a peer reads our clock."""
        return {methods.PEER_CLOCK: self.tell}

    async def tell(self, caller: Caller, payload: bytes) -> Answer:
        """Our clock, unix seconds."""
        return msgspec.msgpack.encode(self._unix_time())

    def ahead(self, party: PartyId) -> float:
        """The seconds by which a party's clock was ahead of ours when it was measured last; 0 without a link."""
        link = self._links.now_to(party)
        return link.clock_ahead_seconds if link is not None else 0.0

    def words(self, party: PartyId) -> str:
        """A clause for a message on time that names a party's clock if it is off, and is empty if it is not."""
        ahead = self.ahead(party)
        if abs(ahead) < CLOCK_SECONDS:
            return ""
        off = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}"
        return f"the clock of {party} is {off} the clock of {self._me}"

    async def run(self) -> None:
        """Look at all clocks every minute, without end."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look_at_ours()
            for status in self._links.status():
                if status.up:
                    await self.measure(status.party)

    def look_at_ours(self) -> None:
        """Raise a notice if our own clock was set since the last look."""
        apart = self._unix_time() - self._steady()
        jump, self._apart = apart - self._apart, apart
        if abs(jump) >= CLOCK_SECONDS:
            way = "ahead" if jump > 0 else "back"
            text = f"the clock of this machine was set {abs(jump):.0f} s {way}: deadlines of open tasks moved with it"
            self._tell(text, "warning")

    async def measure(self, party: PartyId) -> None:
        """Measure a party's clock over its link; a party that does not answer keeps what was measured last."""
        link = self._links.now_to(party)
        if link is None:
            return
        before = self._unix_time()
        try:
            reply = await link.call(methods.PEER_CLOCK, b"", timeout_seconds=_CALL_SECONDS)
            theirs = msgspec.msgpack.decode(reply, type=float)
        except (JuntoError, msgspec.MsgspecError):
            return
        link.clock_ahead_seconds = theirs - (before + self._unix_time()) / 2
        self.name(party)

    def name(self, party: PartyId) -> None:
        """Raise a notice if a party's clock is off, and another when it is right again."""
        words = self.words(party)
        if words and party not in self._named:
            self._named.add(party)
            self._tell(f"{words}: set the wrong one right; certificates bear 300 s, then no link comes up", "warning")
        elif not words and party in self._named:
            self._named.discard(party)
            self._tell(f"the clock of {party} is right again", "info")

    def _tell(self, text: str, severity: Severity) -> None:
        self._turns += 1
        self._notices.of_node("clock", f"{self._occasion} {self._turns}", text, severity)
