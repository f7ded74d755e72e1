# SPDX-License-Identifier: Apache-2.0
"""Trying the way to a party, step by step: what `junto doctor` prints.

A probe is a connection of its own, marked as a trial in its Hello, so that it replaces no link that is up. A step
is tried when those it rests on have passed; the first that fails ends the probe. To try the other direction, a
node asks its peer to probe it back.
"""

import asyncio
import time
from dataclasses import replace

import msgspec
from cryptography import x509

from junto.errors import InvalidInput, JuntoError, PeerFault, Unavailable
from junto.link.connection import Answer, Caller, Handler, Link
from junto.link.dial import Here, Proxies, connect, opening_of, resolve, start_tls
from junto.link.frames import Hello
from junto.link.greeting import charter_difference, protocol_difference
from junto.link.links import Links
from junto.link.settings import LinkSettings
from junto.link.tls import client_context
from junto.trust.names import Address, Name, parse_address
from junto.types import PartyId

PROBE = "link.probe"
"""The method that a peer answers with its own probe of the caller."""

CLOCK_SECONDS = 30.0
"""The seconds by which two clocks may differ without a word; certificates bear five minutes."""

_SOON_SECONDS = 3600.0
_REPORT_LINES = 200


class Line(msgspec.Struct, frozen=True):
    """One step of a probe: what was tried, where, whether it holds, what was found, and the mend if it does not."""

    step: str
    address: str
    ok: bool
    detail: str
    mend: str = ""


_decode_lines = msgspec.json.Decoder(tuple[Line, ...]).decode


async def probe(
    here: Here,
    party: PartyId,
    addresses: tuple[str, ...],
    *,
    settings: LinkSettings | None = None,
    proxies: Proxies | None = None,
) -> list[Line]:
    """The findings at each step of the way to each address of a party; never raises for what the network does."""
    if not addresses:
        return [Line("address", "", True, f"{party} has no address: it dials us")]
    lines: list[Line] = []
    for text in addresses:
        trial = _Trial(here, party, parse_address(text), settings or LinkSettings.for_lan(), proxies or Proxies())
        lines += await trial.run()
    return lines


class _Trial:
    """One probe of one address."""

    def __init__(self, here: Here, party: PartyId, address: Address, settings: LinkSettings, proxies: Proxies) -> None:
        self._here = here
        self._party = party
        self._address = address
        self._settings = settings
        self._proxies = proxies
        self._lines: list[Line] = []
        self._step = ""
        self._leaf = b""

    async def run(self) -> list[Line]:
        link: Link | None = None
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                await self._find()
                link = await self._reach()
                await self._meet(link)
        except TimeoutError:
            self._note(False, f"no answer within {self._settings.connect_seconds:g} s")
        except JuntoError as error:
            self._note(False, str(error))
        except OSError as error:
            self._note(False, error.strerror or type(error).__name__)
        if link is not None:
            await link.close("only tried")
        return self._lines

    def _note(self, ok: bool, detail: str) -> None:
        mend = "" if ok else _MENDS[self._step]
        self._lines.append(Line(self._step, str(self._address), ok, detail, mend))

    async def _find(self) -> None:
        self._step = "name"
        proxy = self._proxies.proxy_of(self._address.host)
        if proxy:
            self._note(True, "left to the proxy")
            return
        found = await resolve(self._address)
        self._note(True, ", ".join(dict.fromkeys(target[0] for _, target in found)))

    async def _reach(self) -> Link:
        self._step = "tcp"
        begun = time.monotonic()
        connection = await connect(self._address, self._proxies)
        through = " through the proxy" if self._proxies.proxy_of(self._address.host) else ""
        self._note(True, f"connected in {(time.monotonic() - begun) * 1000:.1f} ms{through}")
        self._step = "tls"
        here = replace(self._here, verify_peer=self._look_at)
        opening = opening_of(here, {}, self._settings, str(self._address), self._party, trial=True)
        link = await start_tls(connection, client_context(here.identity, here.authorities), opening)
        if self._leaf:
            self._note(True, "TLS 1.3, both sides with certificates")
            self._step = "certificate"
        return link

    def _look_at(self, leaf: bytes) -> Name:
        self._leaf = leaf
        return self._here.verify_peer(leaf)

    async def _meet(self, link: Link) -> None:
        """The steps that rest on the peer's Hello; a Hello that differs still tells how."""
        refusal: JuntoError | None = None
        try:
            await link.opened
        except JuntoError as error:
            refusal = error
        hello = link.hello
        if hello is None:
            if isinstance(refusal, Unavailable):
                self._step = "our certificate"  # the peer hung up on us, while we have believed its own
            raise refusal or Unavailable("no Hello came")
        self._certificate(link.peer)
        self._compare(hello)
        if refusal is None:
            self._step = "call"
            self._note(True, f"answers in {await link.ping(self._settings.connect_seconds) * 1000:.1f} ms")
        elif all(line.ok for line in self._lines):
            self._step = "call"
            raise refusal

    def _certificate(self, name: Name) -> None:
        ends = x509.load_der_x509_certificate(self._leaf).not_valid_after_utc.timestamp()
        left = ends - self._here.unix_time()
        hours = f"{left / 3600:.1f} h left"
        self._note(left > 0, f"{name.uri}, {hours}" + (": renews soon" if left < _SOON_SECONDS else ""))

    def _compare(self, there: Hello) -> None:
        here = self._here.hello(self._settings)
        self._step = "clock"
        ahead = there.unix_seconds - here.unix_seconds
        way = "ahead of" if ahead > 0 else "behind"
        self._note(abs(ahead) <= CLOCK_SECONDS, f"{abs(ahead):.1f} s {way} ours")
        self._step = "version"
        protocol = protocol_difference(here, there)
        self._note(not protocol, protocol or f"Junto {there.software}, protocol {min(here.highest, there.highest)}")
        self._step = "charter"
        charter = charter_difference(here, there)
        self._note(not charter, charter or f"version {there.charter_version} {there.charter_digest[:19]}…")


_MENDS = {
    "name": "correct the host in the party's address, or this machine's DNS",
    "tcp": "start that node; let its firewall pass the port; behind a proxy, set HTTPS_PROXY",
    "tls": "compare the charters of both sides (`junto charter show`) and both clocks",
    "certificate": "the node at this address must use the certificate of the party that the charter names",
    "our certificate": "restart this node to renew its certificate; compare the charters and both clocks",
    "clock": "set both clocks by NTP",
    "version": "install the same version of Junto on both sides",
    "charter": "hand the newer charter to the side that has the older: `junto node start --charter FILE` adopts it",
    "call": "look at the peer's log: it refused after the greeting",
}


def probing_back(links: Links) -> Handler:
    """The handler of `link.probe`: our probe of whoever calls, at its addresses in the charter."""

    async def answer(caller: Caller, payload: bytes) -> Answer:
        member = links.member(caller.name.party)
        if caller.name.user:
            raise InvalidInput("only a node asks to be probed back")
        lines = await probe(links.here, member.name, member.addresses, settings=links.settings, proxies=links.proxies)
        return msgspec.json.encode(lines)

    return answer


async def ask_back(link: Link, timeout_seconds: float) -> list[Line]:
    """The peer's findings when it tried us, over a link that is up. Raises as `Link.call` does."""
    answer = await link.call(PROBE, timeout_seconds=timeout_seconds)
    try:
        lines = _decode_lines(answer)
    except msgspec.DecodeError:
        raise PeerFault(f"{link.peer} answered {PROBE} with something else than lines") from None
    return list(lines[:_REPORT_LINES])
