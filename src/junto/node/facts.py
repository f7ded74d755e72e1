# SPDX-License-Identifier: Apache-2.0
"""The facts that parties publish about themselves: datasets, withdrawals, grants. Each has one author; all spread.

Our own facts come from our journal when the node starts, the others' from their nodes whenever a link comes up.
"""

from collections.abc import Callable, Iterable

import msgspec

from junto.catalog.consent import Consent
from junto.catalog.dataset import Dataset, Withdrawal
from junto.catalog.view import CatalogView, compare
from junto.errors import InvalidInput, JuntoError
from junto.journal.heads import GAP, START
from junto.journal.statement import CERTIFICATE, Statement, body_of, read_statement, signer_of
from junto.logs import logger
from junto.node.ledger import Kept, Ledger
from junto.trust.envelope import KeyId
from junto.trust.grants import Grant, GrantId, GrantState, Revocation, standing
from junto.trust.names import parse_name
from junto.types import PartyId

_log = logger("junto.facts")

_KEPT_FOR_US = 64  # of revocations, starts and gaps; a peer that is up hears of each at once
FACTS = ("dataset", "withdrawal", "consent")
"""Statement kinds that every party may read; grants concern those they name, and stay with their owner."""


TOLD = (*FACTS, "revocation", START, GAP)
"""Kinds that are told to every party: facts, and what it keeps for us, so that we cannot lose it in silence."""


class GrantUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a `grant-use` statement: one task of another party rests on these grants of ours."""

    grants: tuple[GrantId, ...]


class Facts:
    """The catalog as this node sees it, and this party's grants."""

    def __init__(self, ledger: Ledger) -> None:
        self.view = CatalogView()
        self.watchers: list[Callable[[Dataset], None]] = []  # told of every dataset that is new in the view
        self._me: PartyId = ledger.name.party
        self._grants: dict[GrantId, Grant] = {}
        self._revocations: dict[GrantId, Revocation] = {}
        self._used: dict[GrantId, int] = {}
        self._ledger = ledger

    def recall(self) -> None:
        """Take in what the journal holds."""
        for entry in self._ledger.journal.entries(kinds=(*FACTS, "grant", "revocation", "grant-use")):
            statement = read_statement(entry.envelope)
            try:
                self.absorb(Kept(statement, entry.envelope, parse_name(statement.author)))
            except JuntoError as error:
                _log.info("a fact of an earlier version", kind=entry.kind, reason=str(error))

    def absorb(self, kept: Kept) -> list[str]:
        """Take in a journaled statement; how a new dataset differs from ours of the same name, in words."""
        statement = kept.statement
        author = kept.author.party
        match statement.kind:
            case "dataset":
                dataset = body_of(statement, Dataset)
                if self.view.add(author, dataset):
                    for tell in self.watchers:
                        tell(dataset)
                return self._mismatches(dataset)
            case "withdrawal":
                self.view.withdraw(author, body_of(statement, Withdrawal))
            case "consent":
                self.view.consent(author, body_of(statement, Consent))
            case "grant" if author == self._me:
                grant = body_of(statement, Grant)
                self._grants[grant.id] = grant
            case "revocation" if author == self._me:
                revocation = body_of(statement, Revocation)
                self._revocations[revocation.grant] = revocation
            case "grant-use" if author == self._me:
                for id in body_of(statement, GrantUse).grants:
                    self._used[id] = self._used.get(id, 0) + 1
            case _:
                pass
        return []

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Our grants that stand."""
        return standing(self._grants.values(), self._revocations.values())

    @property
    def grant_uses(self) -> dict[GrantId, int]:
        """The number of uses of each grant of ours."""
        return dict(self._used)

    def grant_states(self) -> list[GrantState]:
        """Our grants and what became of them, oldest first."""
        gone = self._revocations
        return [
            GrantState(grant, self._used.get(id, 0), gone[id].at if id in gone else None)
            for id, grant in sorted(self._grants.items())
        ]

    def own_envelopes(self) -> Iterable[bytes]:
        """The statements that a peer should have of ours: certificates by which the rest is checked, our datasets, whom
        we compute for, then the latest of what it keeps for us.

        Of the certificates, those of keys that signed one of these, and each node's last.
        """
        certificates: dict[KeyId, bytes] = {}
        last: dict[str, KeyId] = {}
        datasets: dict[str, bytes] = {}
        consent: tuple[bytes, ...] = ()
        kept: list[bytes] = []
        for entry in self._ledger.journal.entries(kinds=(CERTIFICATE, *TOLD)):
            if parse_name(entry.author).party != self._me:
                continue
            if entry.kind == CERTIFICATE:
                signer = signer_of(entry.envelope)  # each is signed with the key it certifies
                certificates[signer] = entry.envelope
                last[entry.author] = signer
            elif entry.kind == "consent":
                consent = (entry.envelope,)
            elif entry.kind not in FACTS:
                kept.append(entry.envelope)
            else:
                datasets[_dataset_name(read_statement(entry.envelope))] = entry.envelope
        told = (*datasets.values(), *consent, *kept[-_KEPT_FOR_US:])
        needed = {*last.values(), *map(signer_of, told)}
        return [*(found for signer, found in certificates.items() if signer in needed), *told]

    def _mismatches(self, dataset: Dataset) -> list[str]:
        """The differences between the dataset and ours of its name; if it is ours, from everybody's."""
        others = [other for other in self.view.joint(dataset.name) if other.party != dataset.party]
        concerned = [other for other in others if self._me in (other.party, dataset.party)]
        return [
            *(f"{dataset.name}: {line}" for other in concerned for line in compare(dataset, other)),
            *(
                f"{dataset.name} at {dataset.party} and {other.name} at {other.party} are two tables, as their names"
                " differ in case: publish both under one spelling"
                for other in self.view.respelled(dataset.name)
                if self._me in (other.party, dataset.party)
            ),
        ]


def _dataset_name(statement: Statement) -> str:
    shape: type[Dataset] | type[Withdrawal] = Dataset if statement.kind == "dataset" else Withdrawal
    try:
        return body_of(statement, shape).name
    except InvalidInput:
        return statement.id
