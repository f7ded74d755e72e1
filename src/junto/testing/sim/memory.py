# SPDX-License-Identifier: Apache-2.0
"""Remembers what pure functions gave for the same bytes: in one process many nodes verify and read the same things.

A signature is good or not whoever looks, a statement reads the same everywhere. Nothing that depends on a clock, a
disk or a node's own state is remembered, and nothing that a mutant changes.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from junto.journal import statement as statements
from junto.node import reading
from junto.node.reading import Found, Given, read_plan
from junto.plan.steps import encode
from junto.trust import certificates
from junto.trust import envelope as dsse
from junto.trust.envelope import Envelope, KeyId
from junto.types import PartyId

T = TypeVar("T")
_MOST = 8_000


class _Memory:
    """Results by key; forgets everything when it is full."""

    def __init__(self) -> None:
        self._known: dict[Hashable, object] = {}

    def know(self, key: Hashable, result: object) -> None:
        """The result for this key, found elsewhere."""
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = result

    def of(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value that `compute` gave for this key."""
        found = self._known.get(key)
        if found is None:
            found = compute()
            self.know(key, found)
        return found  # type: ignore[return-value]  # put there by the same caller


_SIGNATURES, _STATEMENTS, _PLANS = _Memory(), _Memory(), _Memory()
_verify, _sign, _parse = dsse.verify, dsse.add_signature, statements._parse
_check_authority = certificates.check_authority


def _verified(envelope: Envelope, keys: Mapping[KeyId, Ed25519PublicKey]) -> set[KeyId]:
    return set(_SIGNATURES.of(_signed_by(envelope, keys), lambda: _verify(envelope, keys)))


def _signed(envelope: Envelope, key: Ed25519PrivateKey) -> Envelope:
    """A signed envelope, whose signature is known to be good under the key."""
    signed = _sign(envelope, key)
    if len(signed.signatures) == 1:
        keyid = signed.signatures[0].keyid
        _SIGNATURES.know(_signed_by(signed, {keyid: key.public_key()}), {keyid})
    return signed


def _signed_by(envelope: Envelope, keys: Mapping[KeyId, Ed25519PublicKey]) -> Hashable:
    ring = tuple((id, key.public_bytes_raw()) for id, key in keys.items())
    return envelope.payload_type, envelope.payload, envelope.signatures, ring


def _parsed(data: bytes) -> tuple[Envelope, statements.Statement]:
    return _STATEMENTS.of(data, lambda: _parse(data))


def _read(given: Given) -> Found:
    key = encode(given.plan), given.party, tuple((dataset.name, dataset.version) for dataset in given.datasets)
    return _PLANS.of(key, lambda: read_plan(given))


def _authority(party: PartyId, certificate_pem: str) -> x509.Certificate:
    return _STATEMENTS.of((party, certificate_pem), lambda: _check_authority(party, certificate_pem))


@contextmanager
def remembering() -> Iterator[None]:
    """While it is entered, the pure functions of this process remember."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(dsse, "verify", _verified))
        stack.enter_context(patch.object(dsse, "add_signature", _signed))
        stack.enter_context(patch.object(statements, "_parse", _parsed))
        stack.enter_context(patch("junto.trust.identity.check_authority", _authority))
        stack.enter_context(patch.object(reading, "read_plan", _read))
        yield
