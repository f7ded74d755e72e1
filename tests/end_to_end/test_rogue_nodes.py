# SPDX-License-Identifier: Apache-2.0
"""Nodes that follow every statement and deviate in the secure steps: a threshold holds, or the question ends."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
from pooled import GROUPED, Pooled

from junto.errors import JuntoError
from junto.node.work import Work
from junto.secure.shamir import P
from junto.types import PartyId, StepId

_TABLE = pa.table({"id": list(range(44)), "k": ["many"] * 40 + ["few", "few", "fewer", "one"], "v": list(range(44))})
_QUESTION = "SELECT k, COUNT(*) AS n FROM t GROUP BY k ORDER BY k"
_LAST_ROUND = "product-4"
"""Of a threshold of ten units."""
_OWN_POINT = 3
"""Where the asker's shares lie among those of two owners and itself."""

Send = Callable[[PartyId, str, bytes], None]


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled(["ann", "bea", "mal"]) as consortium:
        consortium.share("t", {"ann": _TABLE, "bea": _TABLE}, GROUPED, unit="id")
        yield consortium


def deviating(
    monkeypatch: pytest.MonkeyPatch, world: Pooled, party: str, rewrite: Callable[[PartyId, str, bytes], bytes]
) -> list[str]:
    """Have a party's node send something else in its secure steps. Gives the names of what it sent."""
    honest = Work._sender
    sent: list[str] = []

    def sender(self: Work, step: StepId) -> Send:
        send = honest(self, step)
        if self._tools.me != world.node(party).identity.name.party:
            return send

        def changed(to: PartyId, name: str, payload: bytes) -> None:
            sent.append(name)
            send(to, name, rewrite(to, name, payload))

        return changed

    monkeypatch.setattr(Work, "_sender", sender)
    return sent


def one_more(to: PartyId, name: str, payload: bytes) -> bytes:
    """In the last round, shares of the product plus one that fit together: zero is not zero any more."""
    if name != _LAST_ROUND:
        return payload
    body = 1 + payload[0]
    point = {"ann": 1, "bea": 2}[to]
    delta = (1 - point * pow(_OWN_POINT, -1, P)) % P
    shares = np.frombuffer(payload, dtype="<u4", offset=body).astype(np.uint64)
    return payload[:body] + ((shares + np.uint64(delta)) % np.uint64(P)).astype("<u4").tobytes()


def test_an_asker_that_adds_one_to_its_products_does_not_switch_the_threshold_off(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.ask("mal", _QUESTION).table.column("k").to_pylist() == ["many"]
    sent = deviating(monkeypatch, world, "mal", one_more)
    with pytest.raises(JuntoError) as ended:
        world.ask("mal", _QUESTION)
    assert _LAST_ROUND in sent
    assert "nothing was opened" in str(ended.value) or "deviated" in str(ended.value), ended.value


def test_an_owner_that_adds_one_to_its_products_for_the_asker_ends_the_question_too(
    world: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rewrite(to: PartyId, name: str, payload: bytes) -> bytes:
        if name != _LAST_ROUND:
            return payload
        body = 1 + payload[0]
        shares = np.frombuffer(payload, dtype="<u4", offset=body).astype(np.uint64)
        return payload[:body] + ((shares + np.uint64(1)) % np.uint64(P)).astype("<u4").tobytes()

    deviating(monkeypatch, world, "bea", rewrite)
    with pytest.raises(JuntoError):
        world.ask("mal", _QUESTION)
