# SPDX-License-Identifier: Apache-2.0
"""Three parties with their certificates, and a fixed moment they live in."""

from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.journal import checkpoint, statement
from junto.journal.statement import KeyRing, Statement
from junto.trust import charter as charters
from junto.trust.certificates import Authority, Identity, create_authority, issue, pem
from junto.trust.charter import Charter, Member
from junto.trust.names import Name
from junto.types import NodeId, PartyId, TaskId

NOW = 1_800_000_000.0
CONSORTIUM = "air"
PARTIES = ("bts", "delta", "united")


@dataclass(frozen=True)
class Consortium:
    """Parties by name; `united` keeps the journals under test."""

    authorities: dict[str, Authority]
    nodes: dict[str, Identity]
    signed_charter: bytes

    @property
    def charter(self) -> Charter:
        return charters.verify(self.signed_charter).charter

    @property
    def origin(self) -> str:
        return checkpoint.origin_of(CONSORTIUM, "united", "node1")

    def ring(self) -> KeyRing:
        """All nodes' certificates, learnt."""
        keys = KeyRing()
        for node in self.nodes.values():
            keys.learn(node.certificate_der, self.charter, NOW)
        return keys

    def say(self, party: str, id: str, *, kind: str = "decision", at: float = NOW, task: str = "") -> Statement:
        body = msgspec.Raw(b'{"of":"%s"}' % id.encode())
        author = self.nodes[party].name.uri
        return Statement(kind=kind, author=author, id=id, at=at, task=TaskId(task), body=body)

    def signed(self, party: str, said: Statement) -> tuple[bytes, Statement]:
        return statement.sign(said, self.nodes[party].key), said

    def opening(self) -> list[tuple[bytes, Statement]]:
        """What united's journal begins with: its charter, its certificate, the certificates of the others."""
        united = self.nodes["united"].name
        said = [self.signed("united", statement.charter_statement(united, self.signed_charter, id="charter", at=NOW))]
        for party in ("united", "bts", "delta"):
            node = self.nodes[party]
            certificate = statement.certificate_statement(
                node.name, pem(node.certificate), id=f"certificate-{party}", at=NOW
            )
            said.append(self.signed(party, certificate))
        return said

    def talk(self, count: int) -> list[tuple[bytes, Statement]]:
        """A journal's content: the opening, then `count` statements of all three parties."""
        said = self.opening()
        for number in range(count):
            party = ("united", "delta", "bts")[number % 3]
            what = self.say(party, f"s{number}", task=f"task{number % 5}", at=NOW + number)
            said.append(self.signed(party, what))
        return said


def found(parties: tuple[str, ...]) -> Consortium:
    authorities = {party: create_authority(PartyId(party), NOW) for party in parties}
    nodes: dict[str, Identity] = {}
    for party, authority in authorities.items():
        key = Ed25519PrivateKey.generate()
        name = Name(CONSORTIUM, PartyId(party), node=NodeId("node1"))
        nodes[party] = Identity(name, key, issue(authority, name, key.public_key(), NOW))
    members = [
        Member(PartyId(party), authority.certificate_pem, (f"{party}.example:7300",))
        for party, authority in authorities.items()
    ]
    signed = charters.create(members, CONSORTIUM, NOW)
    for authority in authorities.values():
        signed = charters.sign(signed, authority)
    return Consortium(authorities, nodes, signed.encode())
