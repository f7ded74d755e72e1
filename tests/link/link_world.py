# SPDX-License-Identifier: Apache-2.0
"""A consortium with real authorities and certificates, on loopback."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.link.connection import Answer, Caller, Handler
from junto.link.dial import Here, here_of
from junto.link.links import Links
from junto.link.ports import free_ports
from junto.link.settings import LinkSettings
from junto.trust.certificates import Authority, Identity, create_authority, issue
from junto.trust.charter import Charter, Member
from junto.trust.names import Address, Name
from junto.types import NodeId, PartyId

CONSORTIUM = "skies"
ANY_PORT = Address("127.0.0.1", 0)


@dataclass
class World:
    """Parties with their own authorities; addresses are filled in as nodes begin to listen."""

    parties: tuple[str, ...] = ("delta", "united")
    authorities: dict[str, Authority] = field(default_factory=dict)

    def __post_init__(self) -> None:
        now = time.time()
        self.authorities = {party: create_authority(PartyId(party), now) for party in self.parties}

    def charter(self, addresses: Mapping[str, Address] | None = None, version: int = 1) -> Charter:
        """A charter of all parties, at the addresses given; a party that is not named has one nobody answers."""
        known = addresses or {}
        members = [
            Member(PartyId(party), authority.certificate_pem, (str(known[party]),) if party in known else ())
            for party, authority in self.authorities.items()
        ]
        return Charter(
            consortium=CONSORTIUM,
            version=version,
            created=datetime.fromtimestamp(0, UTC),
            quorum=len(members),
            members=tuple(sorted(members, key=lambda member: member.name)),
        )

    def identity(
        self, party: str, *, signed_by: str = "", user: str = "", begins: float | None = None, lives: float = 3600.0
    ) -> Identity:
        """A certificate for a node (or user) of the party, from its own authority or another's."""
        name = Name(CONSORTIUM, PartyId(party), NodeId("" if user else "main"), user)
        key = Ed25519PrivateKey.generate()
        authority = self.authorities[signed_by or party]
        forged = Authority(PartyId(party), authority.key, authority.certificate)
        start = time.time() if begins is None else begins
        return Identity(name, key, issue(forged, name, key.public_key(), start, lives))

    def here(
        self,
        party: str,
        charter: Charter,
        *,
        identity: Identity | None = None,
        instance: str = "first",
        unix_time: Callable[[], float] = time.time,
    ) -> Here:
        """Who a party's node is to others."""
        return here_of(identity or self.identity(party), charter, f"{party}-{instance}", unix_time)


def links_of(
    here: Here,
    charter: Charter,
    handlers: Mapping[str, Handler] | None = None,
    *,
    settings: LinkSettings | None = None,
    listen: Address | None = ANY_PORT,
) -> Links:
    """The links of a node, with back-off that does not vary."""
    return Links(here, charter.members, handlers=handlers or {}, settings=settings, listen=listen, jitter=lambda: 0.0)


async def echo(caller: Caller, payload: bytes) -> Answer:
    """Answers with what was asked."""
    return payload


def free_addresses(count: int) -> list[Address]:
    """Loopback addresses that nobody listens on now."""
    return [Address("127.0.0.1", port) for port in free_ports(count)]
