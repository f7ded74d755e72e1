# SPDX-License-Identifier: Apache-2.0
"""A home without the authority's key works: certificates, users and charters come from where the key is."""

import time
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.errors import InvalidInput
from junto.node import authority
from junto.node import home as homes
from junto.node.home import Home
from junto.trust import certificates, envelope
from junto.trust import charter as charters
from junto.trust import profile as profiles
from junto.trust.rights import OPERATOR, Rights
from junto.types import NodeId, PartyId

DAY = 86_400.0
NOON = 1_750_000_000.0


def _homes(folder: Path, now: float = NOON) -> dict[str, Home]:
    made = {
        name: homes.create(
            folder / name, PartyId(name), f"127.0.0.1:{port}", now, node=NodeId("n1"), addresses=(f"127.0.0.1:{port}",)
        )
        for name, port in (("acme", 7301), ("bravo", 7302))
    }
    signed = charters.create([charters.read_card(home.card()) for home in made.values()], "harbour", now)
    for home in made.values():
        signed = charters.sign(signed, home.authority())
    for home in made.values():
        home.save_charter(signed)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return _homes(tmp_path)["acme"]


def test_the_key_is_moved_and_the_certificate_serves_until_it_ends(home: Home, tmp_path: Path) -> None:
    first = home.node_identity(NOON)
    kept = authority.move(home, tmp_path / "safe")
    assert not home.has_authority
    assert kept.has_authority
    assert homes.load(kept.path).authority().certificate_pem == home.authority_pem
    assert home.node_identity(NOON + 0.9 * DAY).key_id == first.key_id
    with pytest.raises(InvalidInput, match=r"no certificate that is valid at .*: `junto party request"):
        home.node_identity(NOON + 1.1 * DAY)
    for needs_it in (home.authority, home.card, lambda: home.add_user("ann", NOON)):
        with pytest.raises(InvalidInput, match="authority key of acme is not in"):
            needs_it()
    assert charters.fingerprint(home.member()) == charters.fingerprint(charters.read_card(kept.card()))


def test_a_request_is_answered_where_the_key_is_and_the_nodes_key_changes(home: Home, tmp_path: Path) -> None:
    first = home.node_identity(NOON)
    kept = authority.move(home, tmp_path / "safe")
    asked = authority.request(home)
    assert home.node_identity(NOON).key_id == first.key_id  # nothing changes before the answer
    name, issued = authority.issue(kept, asked, NOON + DAY, 30 * DAY)
    assert name == "acme/n1"
    taken = authority.take(home, issued, NOON + DAY)
    assert taken.key_id != first.key_id
    assert homes.load(home.path).node_identity(NOON + 30 * DAY).key_id == taken.key_id
    assert b"PRIVATE" not in asked + issued
    assert (home.path / "keys" / "node.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(InvalidInput, match=r"no request of .* is open"):
        authority.take(home, issued, NOON + DAY)


def test_a_certificate_that_does_not_fit_changes_nothing(home: Home, tmp_path: Path) -> None:
    first = home.node_identity(NOON)
    kept = authority.move(home, tmp_path / "safe")
    stranger = _homes(tmp_path / "others")["acme"]
    old = authority.issue(kept, authority.request(home), NOON, DAY)[1]
    asked = authority.request(home)  # another key: the answer to the first request is void
    foreign = authority.issue(stranger, asked, NOON, DAY)[1]
    late = authority.issue(kept, asked, NOON, DAY)[1]
    for data, now in ((old, NOON), (foreign, NOON), (late, NOON + 2 * DAY), (b"\xff", NOON), (b"", NOON)):
        with pytest.raises(InvalidInput):
            authority.take(home, data, now)
    assert home.node_identity(NOON).key_id == first.key_id


def test_only_a_sound_request_of_an_own_node_gets_a_certificate(home: Home, tmp_path: Path) -> None:
    bravo = homes.load(tmp_path / "bravo")
    with pytest.raises(InvalidInput, match="only bravo can"):
        authority.issue(home, authority.request(bravo), NOON, DAY)
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

    def request(name: str, signer: Ed25519PrivateKey, kind: str = authority.REQUEST_TYPE) -> bytes:
        asked = authority.Request(name, key.public_key().public_bytes_raw().hex())
        return envelope.encode(envelope.sign(kind, msgspec.json.encode(asked), [signer]))

    node, user = "spiffe://harbour/acme/n1", "spiffe://harbour/acme/user/ann"
    authority.issue(home, request(node, key), NOON, DAY)
    for bad in (request(node, other), request(user, key), request("spiffe://bay/acme/n1", key)):
        with pytest.raises(InvalidInput):
            authority.issue(home, bad, NOON, DAY)
    with pytest.raises(InvalidInput, match="no request"):
        authority.issue(home, request(node, key, "application/json"), NOON, DAY)


def test_a_user_made_where_the_key_is_is_admitted_by_the_nodes_home(home: Home, tmp_path: Path) -> None:
    now = time.time()
    kept = authority.move(home, tmp_path / "safe")
    ann = kept.add_user("ann", now, rights=OPERATOR)
    data = profiles.encode(kept.profile("ann"))
    assert not home.has_user("ann")
    name = home.import_user(data, Rights(roles=("analysts",)), now)
    assert home.admits(name, ann.key_id)
    assert home.rights("ann") == Rights(roles=("analysts",))  # what the home says, not what the folder said
    stranger = _homes(tmp_path / "others", now)["acme"]
    stranger.add_user("eve", now)
    bravo = homes.load(tmp_path / "bravo")
    bravo.add_user("bob", now)
    for other, user in ((stranger, "eve"), (bravo, "bob")):
        with pytest.raises(InvalidInput):
            home.import_user(profiles.encode(other.profile(user)), Rights(), now)
        assert not home.has_user(user)


def test_a_home_with_its_node_key_in_a_file_of_its_own_opens_and_goes_over(home: Home) -> None:
    """As homes were laid out before keys were renewed with their certificates."""
    keys = home.path / "keys"
    key = Ed25519PrivateKey.generate()
    issued = certificates.issue(home.authority(), home.node_name(), key.public_key(), NOON)
    (keys / "node.key").write_bytes(certificates.key_pem(key))
    (keys / "node.key").chmod(0o600)
    (keys / "node.pem").write_text(certificates.pem(issued))
    assert home.node_identity(NOON).certificate == issued
    renewed = home.node_identity(NOON + 0.6 * DAY)
    assert renewed.key_id != envelope.key_id(key.public_key())
    assert not (keys / "node.key").exists()
    assert homes.load(home.path).node_identity(NOON + 0.6 * DAY).key_id == renewed.key_id


def test_a_folder_that_is_not_empty_is_not_filled_and_the_key_stays(home: Home, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InvalidInput, match="not empty"):
        authority.move(home, tmp_path / "full")
    assert home.has_authority
