# SPDX-License-Identifier: Apache-2.0
"""Nodes of two releases: what both speak is spoken; with nothing in common both refuse, and both name both versions."""

import pytest

from junto.link import frames
from junto.link.events import HelloArrived, LinkEnded
from junto.link.frames import Error, Header, Hello, encode
from junto.link.greeting import HIGHEST, LOWEST
from junto.link.session import Session
from junto.link.settings import LinkSettings

DELTA, UNITED = "spiffe://skies/delta/node-1", "spiffe://skies/united/node-1"


def _hello(name: str, lowest: int, highest: int, software: str) -> Hello:
    return Hello(lowest, highest, software, "skies", 3, "sha256:" + "ab" * 32, name, "first", 0.0, 3, 2)


def _sent(side: Session) -> list[tuple[Header, bytes]]:
    decoder, found = frames.Decoder(), []
    for data in side.outgoing():
        rest = bytes(data)
        while rest:
            space = decoder.space()
            taken = rest[: len(space)]
            space[: len(taken)] = taken
            found += list(decoder.received(len(taken)))
            rest = rest[len(taken) :]
    return found


def _met(ours: Hello, theirs: Hello) -> tuple[object, object]:
    """What each side finds in the other's Hello."""
    delta = Session(ours, UNITED, LinkSettings(), 0.0)
    united = Session(theirs, DELTA, LinkSettings(), 0.0)
    delta.outgoing(), united.outgoing()
    (at_delta,) = delta.receive(encode(theirs), 0.0)
    (at_united,) = united.receive(encode(ours), 0.0)
    for side, found in ((delta, at_delta), (united, at_united)):
        if isinstance(found, LinkEnded):
            assert _sent(side) == [(Error(0, "refused", found.message), b"")]
    return at_delta, at_united


def test_a_node_of_version_1_and_one_of_today_refuse_each_other_and_both_name_both_versions() -> None:
    today = _hello(DELTA, LOWEST, HIGHEST, "0.2.0")
    before = _hello(UNITED, 1, 1, "0.1.0")
    assert (LOWEST, HIGHEST) == (2, 2)
    at_today, at_before = _met(today, before)
    assert at_today == LinkEnded(
        "refused",
        "protocol differs: here version 2 (Junto 0.2.0), at united/node-1 version 1 (Junto 0.1.0): "
        "upgrade the older one",
        by_peer=False,
    )
    assert at_before == LinkEnded(
        "refused",
        "protocol differs: here version 1 (Junto 0.1.0), at delta/node-1 version 2 (Junto 0.2.0): "
        "upgrade the older one",
        by_peer=False,
    )


@pytest.mark.parametrize("theirs", [(1, 2), (2, 2), (2, 5), (1, 9)])
def test_a_node_that_speaks_todays_version_among_others_is_let_in(theirs: tuple[int, int]) -> None:
    today, other = _hello(DELTA, LOWEST, HIGHEST, "0.2.0"), _hello(UNITED, *theirs, "0.9.0")
    assert _met(today, other) == (HelloArrived(other), HelloArrived(today))
