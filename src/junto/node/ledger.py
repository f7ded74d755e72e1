# SPDX-License-Identifier: Apache-2.0
"""The node's pen: what it writes is signed and durable before anyone sees it; what it keeps was checked first.

A statement whose id the journal already holds is not new: its effect has happened.
"""

from dataclasses import dataclass
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.errors import PeerFault
from junto.journal import statement as statements
from junto.journal.statement import Head, KeyRing, Statement
from junto.journal.store import Journal
from junto.logs import logger
from junto.node.ground import Ground
from junto.node.ids import new_id
from junto.tasks.bodies import Contract, Offer
from junto.trust.certificates import Identity, pem
from junto.trust.charter import Charter, SignedCharter
from junto.trust.names import Name, parse_name
from junto.types import PartyId, TaskId

_log = logger("junto.ledger")
B = TypeVar("B")
_NO_TASK = TaskId("")


@dataclass(frozen=True, slots=True)
class Kept:
    """A statement that is durable in our journal; `new` unless it was there before."""

    statement: Statement
    envelope: bytes
    author: Name
    new: bool = True


class Ledger:
    """Signs, journals and opens statements for one node."""

    def __init__(
        self,
        name: Name,
        key: Ed25519PrivateKey,
        journal: Journal,
        charter: Charter,
        ground: Ground,
    ) -> None:
        self.name = name
        self.journal = journal
        self.keys = KeyRing()
        self._key = key
        self._charter = charter
        self._unix_time = ground.unix_time
        self._random = ground.random
        self.start = 0  # the number of this process's start, once it has said so

    @property
    def party_prefix(self) -> str:
        """The beginning of the names of all nodes of our party."""
        return self.name.uri.removesuffix(self.name.node)

    async def write(self, kind: str, body: msgspec.Struct, task: TaskId = _NO_TASK) -> Kept:
        """A statement of ours, signed and durable. Raises StorageFailed."""
        now = self._unix_time()
        raw = msgspec.Raw(msgspec.json.encode(body))
        size, root = self.journal.head()
        return await self._append(
            Statement(
                kind=kind,
                author=self.name.uri,
                id=new_id(now, self._random),
                at=now,
                task=task,
                head=Head(size, root.hex(), self.start),
                body=raw,
            )
        )

    def nodes_of(self, party: PartyId) -> list[str]:
        """The names of a party's nodes whose certificates we have."""
        prefix = self.name.uri.removesuffix(str(self.name))
        return self.journal.authors(f"{prefix}{party}/")

    async def certify(self, leaf_pem: str, key: Ed25519PrivateKey | None = None) -> Kept | None:
        """Say in the journal which certificate is ours now; None if it is the last thing it says of it.

        key: the one that it certifies, if that is another than the one in use.
        """
        now = self._unix_time()
        statement = statements.certificate_statement(self.name, leaf_pem, id=new_id(now, self._random), at=now)
        self.keys.learn(statements.leaf_of(statement), self._charter, now)
        known = self._last(statements.CERTIFICATE, statements.CertificateBody)
        if known is not None and known.certificate == leaf_pem:
            return None
        return await self._append(statement, key)

    async def renew(self, identity: Identity) -> Kept | None:
        """Go over to another key, once its certificate is durable; None if the journal says it already.

        Statements written meanwhile are signed with the old key. Raises StorageFailed; then the old key stays in use.
        """
        kept = await self.certify(pem(identity.certificate), identity.key)
        self._key = identity.key
        return kept

    def open(self, envelope: bytes, sender: PartyId) -> Statement:
        """The statement in an envelope that `sender` brought. Raises InvalidInput, PeerFault."""
        statement = statements.open_statement(envelope, self.keys, self._charter)
        author = parse_name(statement.author)
        if author.party != sender:
            raise PeerFault(f"{sender} brought a statement of {author.party}; each party speaks for itself")
        return statement

    def open_offer(self, envelope: bytes, task: TaskId) -> tuple[PartyId, Offer]:
        """An offer that a contract holds, and whose it is. Raises InvalidInput, PeerFault."""
        statement = statements.open_statement(envelope, self.keys)
        if statement.kind != "offer" or statement.task != task:
            raise PeerFault(f"the contract of task {task} holds a statement of kind {statement.kind} as an offer")
        return parse_name(statement.author).party, statements.body_of(statement, Offer)

    def holds(self, envelope: bytes, statement: Statement) -> bool:
        """True if the journal has this very statement."""
        entry = self.journal.find(statement.id)
        return entry is not None and entry.envelope == envelope

    def knows_signers(self, contract: Contract) -> bool:
        """True if we know every key that signed one of its offers. Raises InvalidInput if one is no statement."""
        return all(self.keys.known(statements.signer_of(offer.encode())) is not None for offer in contract.offers)

    async def begin(self, charter: SignedCharter, leaf_pem: str) -> None:
        """Say in the journal which charter and certificate we go by, unless it is the last thing it says.

        A journal begins with its charter; into one that another node of the party began, a certificate comes first,
        by which the rest can be checked.
        """
        now = self._unix_time()
        signed = charter.encode()
        spoken = self.journal.head()[0] > 0
        if spoken:
            await self.certify(leaf_pem)
        entries = list(self.journal.entries(kinds=(statements.CHARTER,)))
        known = statements.body_of(entries[-1].statement, statements.CharterBody) if entries else None
        if known is None or known.charter.encode() != signed:
            await self._append(statements.charter_statement(self.name, signed, id=new_id(now, self._random), at=now))
        if not spoken:
            await self.certify(leaf_pem)

    async def keep(self, envelope: bytes, statement: Statement) -> Kept:
        """Journal another's statement. Raises PeerFault if its id stands for other bytes already."""
        appended = await self.journal.append(envelope, statement)
        return Kept(statement, envelope, parse_name(statement.author), appended.new)

    def learn_known_keys(self) -> None:
        """Take in the certificates that the journal holds, so that what it holds can be opened again."""
        for entry in self.journal.entries(kinds=(statements.CERTIFICATE,)):
            statement = statements.read_statement(entry.envelope)
            try:
                self.keys.learn(statements.leaf_of(statement), self._charter, statement.at)
            except PeerFault as error:
                _log.info("a certificate of an earlier charter", author=statement.author, reason=str(error))

    def _last(self, kind: str, shape: type[B]) -> B | None:
        """The body of our latest statement of a kind."""
        entry = self.journal.latest(kind, self.name.uri)
        return statements.body_of(entry.statement, shape) if entry is not None else None

    async def _append(self, statement: Statement, key: Ed25519PrivateKey | None = None) -> Kept:
        envelope = statements.sign(statement, key or self._key)
        await self.journal.append(envelope, statement)
        return Kept(statement, envelope, self.name)
