# SPDX-License-Identifier: Apache-2.0
"""Tries every way to and from the other parties, one line a step, with the mend for what fails."""

from collections.abc import AsyncIterator, Sequence

import msgspec

from junto.errors import InvalidInput, JuntoError
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.link.links import Links
from junto.link.probe import PROBE, Line, ask_back, probe, probing_back
from junto.node.routes import Method
from junto.types import PartyId

_BACK_SECONDS = 60.0


class Doctor:
    """The doctor's side of one node: it probes others, and lets them ask to be probed."""

    def __init__(self, me: PartyId, links: Links) -> None:
        self._me = me
        self._links = links

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that we answer: our users' examination, and peers' request to be probed."""
        return {methods.USER_DOCTOR: self.examine, PROBE: probing_back(self._links)}

    async def examine(self, caller: Caller, payload: bytes) -> Answer:
        """Lines for the parties named, or for all others, as they are found."""
        try:
            wanted = msgspec.json.decode(payload, type=methods.Doctor).parties
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"the request is no Doctor: {error}") from None
        parties = wanted or tuple(status.party for status in self._links.status())
        for party in parties:
            self._links.member(party)
        return self._examined(parties)

    async def _examined(self, parties: Sequence[PartyId]) -> AsyncIterator[bytes]:
        for party in parties:
            for line in await self._there(party):
                yield msgspec.json.encode(_told(self._me, party, line))
            for line in await self._back(party):
                yield msgspec.json.encode(_told(party, self._me, line))

    async def _there(self, party: PartyId) -> list[Line]:
        links = self._links
        addresses = links.member(party).addresses
        return await probe(links.here, party, addresses, settings=links.settings, proxies=links.proxies)

    async def _back(self, party: PartyId) -> list[Line]:
        """The other direction: the peer tries us, over the link that is up."""
        link = self._links.now_to(party)
        if link is None:
            mend = f"mend our way to {party} first: the lines above"
            return [Line("back", "", False, f"{party} cannot be asked to try us: no link is up", mend)]
        try:
            return await ask_back(link, _BACK_SECONDS)
        except JuntoError as error:
            return [Line("back", "", False, f"{party} did not try us: {error}", f"look at the log of {party}")]


def _told(sender: PartyId, to: PartyId, line: Line) -> methods.DoctorLine:
    where = f" {line.address}" if line.address else ""
    return methods.DoctorLine(sender, to, f"{line.step}{where}", line.ok, line.detail, line.mend)
