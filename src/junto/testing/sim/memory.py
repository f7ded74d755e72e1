# SPDX-License-Identifier: Apache-2.0
"""Remembers what pure functions gave for the same bytes: in one process many nodes verify and read the same things.

A signature is good or not whoever looks, a statement reads the same everywhere. Nothing that depends on a clock, a
disk or a node's own state is remembered, and nothing that a mutant changes.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from junto.catalog.dataset import Dataset
from junto.journal import statement as statements
from junto.node import judge
from junto.plan.disclosure import disclosures
from junto.plan.review import Review, review
from junto.plan.steps import Plan, encode
from junto.trust import envelope as dsse
from junto.trust.envelope import Envelope, KeyId
from junto.types import PartyId

T = TypeVar("T")
_MOST = 30_000


class _Memory:
    """Results by key; forgets everything when it is full."""

    def __init__(self) -> None:
        self._known: dict[Hashable, object] = {}

    def of(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gave for this key."""
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            found = self._known[key] = compute()
        return found  # type: ignore[return-value]  # put there by the same caller


_SIGNATURES, _STATEMENTS, _PLANS = _Memory(), _Memory(), _Memory()
_verify, _parse = dsse.verify, statements._parse


def _verified(envelope: Envelope, keys: Mapping[KeyId, Ed25519PublicKey]) -> set[KeyId]:
    ring = tuple((id, key.public_bytes_raw()) for id, key in keys.items())
    signed = (envelope.payload_type, envelope.payload, envelope.signatures)
    return set(_SIGNATURES.of((signed, ring), lambda: _verify(envelope, keys)))


def _parsed(data: bytes) -> tuple[Envelope, statements.Statement]:
    return _STATEMENTS.of(data, lambda: _parse(data))


def _reviewed(plan: Plan, party: PartyId, datasets: list[Dataset]) -> Review:
    key = encode(plan), party, tuple((dataset.name, dataset.version) for dataset in datasets)
    return _PLANS.of(key, lambda: review(plan, party, datasets))


@contextmanager
def remembering() -> Iterator[None]:
    """While it is entered, the pure functions of this process remember."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(dsse, "verify", _verified))
        stack.enter_context(patch.object(statements, "_parse", _parsed))
        stack.enter_context(patch.object(judge, "review", _reviewed))
        stack.enter_context(
            patch.object(judge, "disclosures", lambda plan: _PLANS.of(encode(plan), lambda: disclosures(plan)))
        )
        yield
