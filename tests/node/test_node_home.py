# SPDX-License-Identifier: Apache-2.0
"""A home is made whole or not at all, keeps its secrets to its owner, and names the next step."""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from junto.errors import InvalidInput, StorageFailed
from junto.node import files
from junto.node import home as homes
from junto.node.home import Home
from junto.trust import charter as charters
from junto.trust import identity
from junto.trust.charter import SignedCharter
from junto.types import NodeId, PartyId

NOON = 1_800_000_000.0
DAY = 86_400.0


def _home(folder: Path, party: str, listen: str = "", addresses: tuple[str, ...] = ()) -> Home:
    listen = listen or f"{party}.example:7300"
    return homes.create(
        folder / party, PartyId(party), listen, NOON, node=NodeId("node-1"), addresses=addresses or (listen,)
    )


@dataclass(frozen=True)
class Pair:
    """Two parties, and a charter that neither has signed."""

    united: Home
    delta: Home
    unsigned: SignedCharter

    def signed(self, version: int = 1) -> SignedCharter:
        copy = self.unsigned if version == 1 else self.version(version)
        for home in (self.united, self.delta):
            copy = charters.sign(copy, home.authority())
        return copy

    def version(self, version: int) -> SignedCharter:
        return charters.create(self.unsigned.charter.members, "sky", NOON, version=version)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    united, delta = _home(tmp_path, "united"), _home(tmp_path, "delta")
    cards = [charters.read_card(home.card()) for home in (united, delta)]
    return Pair(united, delta, charters.create(cards, "sky", NOON))


def test_a_home_comes_back_as_it_was_created(tmp_path: Path) -> None:
    made = _home(tmp_path, "united", "0.0.0.0:7301", ("united.example:7301", "[2001:db8::1]:7301"))
    assert homes.load(made.path) == made
    assert homes.load(made.path).authority().certificate == made.authority().certificate
    assert str(made.listen) == "0.0.0.0:7301"


def test_secrets_are_readable_by_their_owner_alone(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    pair.united.add_user("ann", NOON)
    pair.united.node_identity(NOON)
    for path in (pair.united.path, *pair.united.path.rglob("*")):
        if path.is_dir():
            assert path.stat().st_mode & 0o077 == 0, path
        elif b"PRIVATE KEY" in path.read_bytes():
            assert path.stat().st_mode & 0o177 == 0, path


def test_a_key_that_others_may_read_is_not_used(pair: Pair) -> None:
    key = pair.united.path / "keys" / "authority.key"
    key.chmod(0o640)
    with pytest.raises(InvalidInput, match=f"can be read by others: chmod 600 {key}"):
        pair.united.authority()


def test_an_existing_folder_is_never_touched(tmp_path: Path) -> None:
    made = _home(tmp_path, "united")
    before = {path: path.read_bytes() for path in made.path.rglob("*") if path.is_file()}
    with pytest.raises(InvalidInput, match="exists already"):
        _home(tmp_path, "united")
    assert {path: path.read_bytes() for path in made.path.rglob("*") if path.is_file()} == before


def test_a_failed_creation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="no space left on device"):
        _home(tmp_path, "united")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="nothing was changed"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("party", "listen", "addresses", "reason"),
    [
        ("UA", "a:1", (), "party name"),
        ("../ua", "a:1", (), "party name"),
        ("ua", "a:b", (), "HOST:PORT"),
        ("ua", "a:1", ("0.0.0.0:1",), "cannot be dialled"),
        ("ua", "a:1", ("a:1", "a:1"), "twice"),
    ],
)
def test_a_party_that_others_could_not_use_is_not_created(
    tmp_path: Path, party: str, listen: str, addresses: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        homes.create(tmp_path / "x", PartyId(party), listen, NOON, node=NodeId("node-1"), addresses=addresses)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name =", "does not read"),
        (b"\xff", "damaged"),
        (b'name = "united"', "does not read"),
        (b'name = "united"\nnode = "n"\nlisten = "a:1"\naddresses = []\nmore = 1', "does not read"),
        (b'name = "United"\nnode = "n"\nlisten = "a:1"\naddresses = []', "party name"),
        (b'name = "united"\nnode = "n"\nlisten = "a:x"\naddresses = []', "HOST:PORT"),
        (b"#" * 70_000, "longer than"),
    ],
)
def test_a_damaged_description_is_invalid_input(tmp_path: Path, content: bytes, reason: str) -> None:
    made = _home(tmp_path, "united")
    (made.path / "party.toml").write_bytes(content)
    with pytest.raises(InvalidInput, match=reason):
        homes.load(made.path)


def test_without_a_charter_the_next_command_is_named(pair: Pair) -> None:
    with pytest.raises(InvalidInput, match="united has no charter yet: `junto charter create"):
        pair.united.charter()


def test_a_charter_that_others_have_to_sign_is_kept_but_not_in_force(pair: Pair) -> None:
    pair.united.save_charter(charters.sign(pair.unsigned, pair.united.authority()))
    with pytest.raises(InvalidInput, match="delta has not signed; run `junto charter sign FILE` there"):
        pair.united.charter()
    pair.united.save_charter(pair.signed())
    assert pair.united.charter() == pair.unsigned.charter
    assert pair.united.proposed_charter() is None


def test_a_proposed_change_leaves_the_charter_in_force_until_all_have_signed(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    pair.united.save_charter(charters.sign(pair.version(2), pair.united.authority()))
    assert pair.united.charter().version == 1
    proposed = pair.united.proposed_charter()
    assert proposed is not None
    assert proposed.charter.version == 2
    pair.united.save_charter(pair.signed(2))
    assert pair.united.charter().version == 2


def test_a_charter_in_force_gives_way_only_to_a_later_one_of_its_consortium(pair: Pair) -> None:
    pair.united.save_charter(pair.signed(2))
    members = pair.unsigned.charter.members
    for other, reason in (
        (pair.signed(1), "version 1 is older than version 2"),
        (charters.create(members, "sky", NOON + 1, version=2), "another charter of version 2 is in force"),
        (charters.create(members, "sea", NOON, version=3), "belongs to sky"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            pair.united.save_charter(other)
    assert pair.united.charter().version == 2


def test_a_charter_without_this_partys_own_authority_is_not_kept(pair: Pair, tmp_path: Path) -> None:
    namesake = _home(tmp_path / "other", "united")
    with pytest.raises(InvalidInput, match="another authority for united"):
        namesake.save_charter(pair.signed())
    stranger = _home(tmp_path, "jetblue")
    with pytest.raises(InvalidInput, match="no party 'jetblue'"):
        stranger.save_charter(pair.signed())


def test_a_damaged_charter_is_invalid_input(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    path = pair.united.path / "charter.json"
    path.write_bytes(path.read_bytes().replace(b"sig", b"sgi", 1))
    with pytest.raises(InvalidInput, match="damaged"):
        pair.united.charter()


def test_the_nodes_certificate_is_renewed_at_half_its_life_over_another_key(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    first = pair.united.node_identity(NOON)
    assert pair.united.node_identity(NOON + 0.4 * DAY).certificate == first.certificate
    second = pair.united.node_identity(NOON + 0.6 * DAY)
    assert second.certificate != first.certificate
    assert second.key_id != first.key_id
    assert homes.load(pair.united.path).node_identity(NOON + 0.6 * DAY).certificate == second.certificate
    name = identity.verify(second.certificate_der, pair.unsigned.charter, NOON + DAY)
    assert str(name) == "united/node-1"


def test_a_node_whose_clock_went_back_gets_a_certificate_that_is_valid_now(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    pair.united.node_identity(NOON + 10 * DAY)
    early = pair.united.node_identity(NOON + DAY)
    identity.verify(early.certificate_der, pair.unsigned.charter, NOON + DAY)


def test_a_user_is_admitted_until_removed_and_only_with_its_present_key(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    first = pair.united.add_user("ann", NOON)
    assert pair.united.admits(first.name, first.key_id)
    second = pair.united.add_user("ann", NOON)
    assert not pair.united.admits(first.name, first.key_id)
    assert pair.united.admits(second.name, second.key_id)
    assert pair.united.user_names() == ["ann"]
    pair.united.remove_user("ann")
    assert not pair.united.admits(second.name, second.key_id)
    assert pair.united.user_names() == []


def test_users_of_another_party_and_nodes_are_not_admitted_as_users(pair: Pair) -> None:
    for home in (pair.united, pair.delta):
        home.save_charter(pair.signed())
    ann = pair.united.add_user("ann", NOON)
    pair.delta.add_user("ann", NOON)
    assert not pair.delta.admits(ann.name, ann.key_id)
    node = pair.united.node_identity(NOON)
    assert not pair.united.admits(node.name, node.key_id)


def test_an_unknown_user_is_answered_with_those_there_are(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    with pytest.raises(InvalidInput, match="`junto user add NAME` makes one"):
        pair.united.remove_user("bob")
    pair.united.add_user("ann", NOON)
    for call in (pair.united.remove_user, pair.united.profile):
        with pytest.raises(InvalidInput, match="no user 'bob': its users are ann"):
            call("bob")
    with pytest.raises(InvalidInput, match="user name"):
        pair.united.add_user("../ann", NOON)


def test_profiles_follow_the_charter(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    ann = pair.united.add_user("ann", NOON)
    pair.united.save_charter(pair.signed(2))
    profile = pair.united.profile("ann")
    assert profile.charter().version == 2
    assert profile.identity(NOON).key_id == ann.key_id


@pytest.mark.parametrize(
    ("listen", "addresses", "expected"),
    [
        ("0.0.0.0:7301", ("united.example:7301",), ("united.example:7301", "127.0.0.1:7301")),
        ("[::]:7301", ("united.example:7301",), ("united.example:7301", "[::1]:7301")),
        ("127.0.0.1:7301", ("127.0.0.1:7301",), ("127.0.0.1:7301",)),
    ],
)
def test_a_profile_reaches_the_node_from_its_own_machine_too(
    tmp_path: Path, listen: str, addresses: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    united, delta = _home(tmp_path, "united", listen, addresses), _home(tmp_path, "delta")
    copy = charters.create([charters.read_card(home.card()) for home in (united, delta)], "sky", NOON)
    for home in (united, delta):
        copy = charters.sign(copy, home.authority())
    united.save_charter(copy)
    united.add_user("ann", NOON)
    assert united.profile("ann").addresses == expected


def test_the_home_meant_is_the_one_given_or_set_or_the_only_one(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    with pytest.raises(InvalidInput, match="no party lives under"):
        homes.find(None, environment)
    folder = tmp_path / ".junto"
    united = _home(folder, "united")
    assert homes.find(None, environment) == united
    delta = _home(folder, "delta")
    with pytest.raises(InvalidInput, match=r"which party\? .* has delta, united: add --home"):
        homes.find(None, environment)
    assert homes.find(delta.path, environment) == delta
    assert homes.find(None, {**environment, "JUNTO_HOME": str(united.path)}) == united
    with pytest.raises(InvalidInput, match="is not a party's home"):
        homes.find(tmp_path, environment)


def test_a_new_home_goes_where_it_will_be_found(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    party = PartyId("united")
    assert homes.new_home_path(party, None, environment) == tmp_path / ".junto" / "united"
    assert homes.new_home_path(party, tmp_path / "x", environment) == tmp_path / "x"
    assert homes.new_home_path(party, None, {**environment, "JUNTO_HOME": "/y"}) == Path("/y")


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path, "is a directory"),
        (tmp_path / "none", "no such file"),
        (Path("/dev/zero"), "not a plain"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            files.read_bounded(path, 100, "card")


def test_profiles_follow_a_change_of_the_listening_address(pair: Pair) -> None:
    pair.united.save_charter(pair.signed())
    pair.united.add_user("ann", NOON)
    described = pair.united.path / "party.toml"
    described.write_text(re.sub(r"listen = .*", 'listen = "127.0.0.1:7399"', described.read_text()))
    moved = homes.load(pair.united.path)
    moved.write_profiles()
    assert "127.0.0.1:7399" in moved.profile("ann").addresses
    place = moved.path / "users" / "ann" / "profile.json"
    before = place.stat().st_ino
    moved.write_profiles()
    assert place.stat().st_ino == before  # nothing to write
