# SPDX-License-Identifier: Apache-2.0
"""A second home of a party has its own key and address, and the first one's users, data, spool and journal."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from junto.errors import InvalidInput
from junto.journal.places import SqlitePlace, place_at
from junto.node import home as homes
from junto.node.home import Home
from junto.node.join import check_alone, join
from junto.node.settings import read_settings
from junto.trust import charter as charters
from junto.types import NodeId, PartyId


def _home(folder: Path, party: str, port: int) -> Home:
    address = f"127.0.0.1:{port}"
    return homes.create(
        folder / party, PartyId(party), address, time.time(), node=NodeId("node-1"), addresses=(address,)
    )


@pytest.fixture
def first(tmp_path: Path) -> Home:
    """A party in a consortium of two, with a user."""
    both = [_home(tmp_path, "ann", 7300), _home(tmp_path, "bea", 7302)]
    signed = charters.create([charters.read_card(home.card()) for home in both], "air", time.time())
    for home in both:
        signed = charters.sign(signed, home.authority())
    both[0].save_charter(signed)
    both[0].add_user("analyst", time.time())
    return both[0]


def _joined(first: Home, store: str = "") -> Home:
    address = "127.0.0.1:7301"
    store = store or f"sqlite:{first.journal_path}"
    return join(first, first.path.with_name("ann-2"), NodeId("node-2"), address, (address,), store)


def test_both_homes_share_what_the_party_has_and_each_has_its_key(first: Home) -> None:
    (first.path / "node.toml").write_text("threads = 3\n")
    made = _joined(first)
    assert homes.load(made.path) == made
    now = time.time()
    identities = [homes.load(first.path).node_identity(now), made.node_identity(now)]
    assert [str(identity.name) for identity in identities] == ["ann/node-1", "ann/node-2"]
    assert identities[0].key_id != identities[1].key_id
    assert made.signed_charter() == first.signed_charter()
    settings = [read_settings(home.path / "node.toml") for home in (first, made)]
    assert settings[0] == settings[1]
    assert settings[0].threads == 3
    assert settings[0].shared is not None
    assert (settings[0].shared.place, settings[0].shared.lease_seconds) == (SqlitePlace(first.journal_path), 1.5)
    addresses = ("127.0.0.1:7300", "127.0.0.1:7301")
    assert homes.load(first.path).party.addresses == made.party.addresses == addresses
    assert charters.read_card(made.card()).addresses == addresses
    assert made.profile("analyst").addresses == addresses
    made.add_user("second", now)
    assert first.user_names() == ["analyst", "second"]
    keys = [(home.path / "keys" / "spool.key").read_bytes() for home in (first, made)]
    assert keys[0] == keys[1]
    assert (made.path / "keys" / "authority.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda first: join(first, first.path / "x", NodeId("node-1"), "h:1", ("h:1",), "sqlite:/j"), "another name"),
        (lambda first: join(first, first.path, NodeId("node-2"), "h:1", ("h:1",), "sqlite:/j"), "exists already"),
        (lambda first: join(first, first.path / "x", NodeId("node-2"), "h:1", ("h:1",), "mysql:/j"), "a store is"),
        (lambda first: join(first, first.path / "x", NodeId("user"), "h:1", ("h:1",), "sqlite:/j"), "reserved"),
        (lambda first: join(first, first.path / "x", NodeId("b"), "h:1", ("h:99999",), "sqlite:/j"), "port"),
    ],
)
def test_a_second_home_that_cannot_be_changes_nothing(first: Home, change: Callable[[Home], Home], why: str) -> None:
    before = sorted(path.name for path in first.path.iterdir())
    with pytest.raises(InvalidInput, match=why):
        change(first)
    assert sorted(path.name for path in first.path.iterdir()) == before


def test_a_second_store_is_refused(first: Home) -> None:
    _joined(first)
    with pytest.raises(InvalidInput, match="names another store"):
        join(first, first.path.with_name("ann-3"), NodeId("node-3"), "h:1", ("h:1",), "sqlite:/elsewhere")


def test_a_home_that_shares_a_journal_does_not_begin_one_of_its_own(first: Home) -> None:
    check_alone(first)
    with pytest.raises(InvalidInput, match=r"is the home of a further node of ann, .* put back \[ha\]"):
        check_alone(_joined(first))
    first.journal_path.with_name("journal.db.moved").touch()
    with pytest.raises(InvalidInput, match="was moved to a database"):
        check_alone(first)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ('[ha]\nlease = "1s"\n', "ha: .*store"),
        ('[ha]\nstore = "sqlite:/j"\nlease = "10ms"\n', "from 500ms to 60s"),
        ('[ha]\nstore = "journal.db"\n', "ha: a store is sqlite:"),
        ('[ha]\nstore = "sqlite:/j"\nmode = "x"\n', "ha: .*mode"),
    ],
)
def test_a_wrong_ha_section_is_one_line_with_the_file(tmp_path: Path, written: str, why: str) -> None:
    (tmp_path / "node.toml").write_text(written)
    with pytest.raises(InvalidInput, match=rf"node\.toml: .*{why}|{why}"):
        read_settings(tmp_path / "node.toml")
    assert place_at("sqlite:/j") == SqlitePlace(Path("/j"))
