# SPDX-License-Identifier: Apache-2.0
"""For whom parties compute: the newest word of each counts, said by itself, in names of the charter."""

import pytest

from junto.catalog.consent import Consent, named, refused
from junto.catalog.view import CatalogView
from junto.errors import InvalidInput, PeerFault
from junto.types import PartyId

NORTH, HUB, EAST = (PartyId(name) for name in ("north", "hub", "east"))


def test_the_newest_consent_counts_whatever_arrives_last() -> None:
    said = [Consent(NORTH, (HUB,), 1.0), Consent(NORTH, (EAST, HUB), 2.0), Consent(NORTH, (), 3.0)]
    for order in (said, said[::-1]):
        view = CatalogView()
        for consent in order[:2] if order is said else order[1:]:
            view.consent(NORTH, consent)
        assert view.consents == {NORTH: (EAST, HUB)}
        view.consent(NORTH, said[2])
        assert view.consents == {}


def test_nobody_consents_for_another() -> None:
    with pytest.raises(PeerFault, match="whom north computes for"):
        CatalogView().consent(HUB, Consent(NORTH, (HUB,), 1.0))


def test_a_name_that_the_charter_does_not_hold_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"node\.toml: compute names 'hbu'"):
        named((PartyId("hbu"),), (HUB, EAST))
    named((HUB,), (HUB, EAST))


def test_a_refusal_says_the_line_that_would_allow_the_work() -> None:
    line = refused(NORTH, HUB, "step q", (EAST,))
    assert line.endswith('in node.toml: compute = ["east", "hub"]')
    assert "\n" not in line
