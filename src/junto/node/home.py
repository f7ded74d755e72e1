# SPDX-License-Identifier: Apache-2.0
"""A party's home: the folder that holds all a node keeps.

    party.toml               name, node, listen address, addresses others dial
    keys/                    0700: authority.key, authority.pem, node.pem (the node's key and certificate), spool.key;
                             authority.key may be kept elsewhere, see `authority.py`
    charter.json             the charter in force; charter.proposed.json is one that not all have signed
    users/NAME/profile.json  0600: certificate, key, charter and node address of a user
    users/NAME/operator      there if the user may publish and grant in the party's name
    users/NAME/roles         the user's roles, by which the party's own rules may name it; one a line
    users/NAME/purposes      the purposes that the user may ask for; one a line
    journal.db               what happened
    data/ spool/ cache/      published files and where the others lie, outputs of running tasks, copies of open tables
    node.ready, node.log     there while the node answers or stands by; what it logs when it runs in the background

In the home of a party's second node, users, data, spool and spool.key are links into the first's (see `join.py`).

Every file is replaced whole. Back up all but `spool/` and `cache/`, which can be made again.
"""

import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.errors import InvalidInput, PeerFault, StorageFailed
from junto.node.files import in_words, read_bounded, read_private, sync_folder, write_whole
from junto.trust import certificates
from junto.trust import charter as charters
from junto.trust import identity as identities
from junto.trust import profile as profiles
from junto.trust.certificates import Authority, Identity, utc_text
from junto.trust.charter import Charter, Member, SignedCharter
from junto.trust.envelope import KeyId
from junto.trust.names import Address, Name, check_name, parse_address
from junto.trust.profile import Profile
from junto.trust.rights import Rights
from junto.types import NodeId, PartyId

USER_SECONDS = 90 * 86_400

_SMALL_BYTES = 64 << 10
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_FOLDERS = ("keys", "users", "data", "spool", "cache")


class Party(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of party.toml. No addresses: the node dials out and is never dialled."""

    name: PartyId
    node: NodeId
    listen: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Home:
    """A party's folder. `create` makes one, `load` opens one."""

    path: Path
    party: Party

    @property
    def listen(self) -> Address:
        """The address at which the node listens."""
        return parse_address(self.party.listen)

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self.path / "journal.db"

    @property
    def data_path(self) -> Path:
        """The folder in which published sources may lie."""
        return self.path / "data"

    @property
    def spool_path(self) -> Path:
        """The folder in which outputs wait until their task ends."""
        return self.path / "spool"

    @property
    def cache_path(self) -> Path:
        """The folder of copies of other parties' open tables."""
        return self.path / "cache"

    @property
    def has_begun(self) -> bool:
        """True if a node of this home has had a journal, or published from it: the traces that outlive a journal."""
        started = self._key("node.pem").exists() and self._key("spool.key").exists()
        return started or (self.data_path / "sources.json").exists()

    @property
    def has_authority(self) -> bool:
        """True if the authority's key is kept here, so that certificates are issued and renewed here."""
        return self._key("authority.key").exists()

    @property
    def authority_pem(self) -> str:
        """The certificate of the party's authority. Raises InvalidInput when its file is missing or damaged."""
        pem = read_bounded(self._key("authority.pem"), _SMALL_BYTES, "authority certificate")
        return _text(pem, "authority certificate")

    def check_new_journal(self, entries: int) -> None:
        """Raise InvalidInput if there is a journal, of so many entries, in whose place another is to be begun."""
        if entries:
            raise InvalidInput(
                f"the journal of {self.path} is there and holds {entries} entries: start without --new-journal; one "
                f"that is damaged has to be moved away first"
            )

    def authority(self) -> Authority:
        """The party's certificate authority. Raises InvalidInput if its key is elsewhere, or its files are damaged."""
        if not self.has_authority:
            raise InvalidInput(
                f"the authority key of {self.party.name} is not in {self.path}: do this in the folder that"
                " `junto party move-authority` made, with --home"
            )
        key = read_private(self._key("authority.key"), _SMALL_BYTES, "authority key")
        return certificates.load_authority(self.party.name, key, self.authority_pem)

    def member(self) -> Member:
        """The party's entry for a charter, as its card has it. Raises InvalidInput."""
        return Member(self.party.name, self.authority_pem, self.party.addresses)

    def card(self) -> bytes:
        """The file to hand over to whoever writes the charter."""
        return charters.create_card(self.authority(), self.party.addresses)

    def signed_charter(self) -> SignedCharter:
        """The charter in force here. Raises InvalidInput, with the next command, when there is none."""
        kept = self._read_charter("charter.json")
        if kept is not None:
            charters.check_in_force(kept)
            self._check_own_entry(kept)
            return kept
        proposed = self.proposed_charter()
        if proposed is None:
            raise InvalidInput(
                f"{self.party.name} has no charter yet: `junto charter create CARD… --name CONSORTIUM --out FILE` "
                f"at one party, then `junto charter sign FILE` at each"
            )
        charters.check_in_force(proposed)
        return proposed

    def charter(self) -> Charter:
        """The charter in force here, without its signatures. Raises InvalidInput as `signed_charter` does."""
        return self.signed_charter().charter

    def proposed_charter(self) -> SignedCharter | None:
        """The charter that this party signed and others still have to, if there is one."""
        return self._read_charter("charter.proposed.json")

    def save_charter(self, signed: SignedCharter) -> None:
        """Keep a charter: in force from now on if all have signed, else as the proposed one.

        Users' profiles follow. Raises InvalidInput, and changes nothing, for a charter of another consortium, an
        older version, another charter of the same version, or one that does not name this party's authority.
        """
        self._check_own_entry(signed)
        current = self._read_charter("charter.json")
        if current is not None:
            _check_succession(current.charter, signed.charter)
        proposed = self.path / "charter.proposed.json"
        if not signed.is_in_force:
            if current is None or current.charter != signed.charter:
                write_whole(proposed, signed.encode())
            return
        write_whole(self.path / "charter.json", signed.encode())
        proposed.unlink(missing_ok=True)
        self.write_profiles()

    def write_profiles(self) -> None:
        """Have every user's profile name the charter in force and the addresses of today."""
        signed = self._read_charter("charter.json")
        if signed is not None:
            for user in self.user_names():
                self._write_profile(self._user_identity(user), signed)

    def node_identity(self, now: float) -> Identity:
        """The node's identity: another key with another certificate, if half the life of the present one has passed.

        Without the authority's key here the present one serves until it ends. now: seconds since 1970. Raises
        InvalidInput without a charter in force, whose consortium the name holds, or without a certificate that serves.
        """
        name = self.node_name()
        kept = self._kept_identity()
        if kept is not None and kept.name == name:
            begins = kept.certificate.not_valid_before_utc.timestamp()
            if not kept.is_due(now) or (not self.has_authority and begins <= now < kept.expires):
                return kept
        if not self.has_authority:
            what = "no certificate" if kept is None else f"no certificate that is valid at {utc_text(now)}"
            raise InvalidInput(
                f"{name} has {what}, and the authority's key is kept elsewhere: `junto party request --out FILE` here,"
                " `junto party issue FILE` where the key is, `junto party renew FILE` here"
            )
        key = Ed25519PrivateKey.generate()
        return self.keep_identity(
            Identity(name, key, certificates.issue(self.authority(), name, key.public_key(), now))
        )

    def node_name(self) -> Name:
        """The node's name. Raises InvalidInput without a charter in force."""
        return Name(self.charter().consortium, self.party.name, node=self.party.node)

    def keep_identity(self, identity: Identity) -> Identity:
        """Keep a node's key and certificate, in one file, so that both are renewed at once; the identity."""
        both = certificates.key_pem(identity.key) + certificates.pem(identity.certificate).encode()
        write_whole(self._key("node.pem"), both, private=True)
        self._key("node.key").unlink(missing_ok=True)  # homes had the key in a file of its own
        return identity

    def _kept_identity(self) -> Identity | None:
        kept, apart = self._key("node.pem"), self._key("node.key")
        if not kept.exists():
            return None
        data = read_bounded(kept, _SMALL_BYTES, "node certificate")
        if b"PRIVATE KEY" in data:
            data = read_private(kept, _SMALL_BYTES, "node key")
            key, _, certificate = data.rpartition(_BEGIN)
            return certificates.load_identity(key, _text(_BEGIN + certificate, "node certificate"))
        key = read_private(apart, _SMALL_BYTES, "node key")
        return certificates.load_identity(key, _text(data, "node certificate"))

    def add_user(
        self, user: str, now: float, lifetime_seconds: float = USER_SECONDS, *, rights: Rights | None = None
    ) -> Identity:
        """A user's new identity, kept as a profile in this home; a user who exists gets a new certificate and key.

        rights: none but to ask, if left out.
        """
        signed = self.signed_charter()
        name = Name(signed.charter.consortium, self.party.name, user=check_name("user", user))
        key = Ed25519PrivateKey.generate()
        certificate = certificates.issue(self.authority(), name, key.public_key(), now, lifetime_seconds)
        identity = Identity(name, key, certificate)
        self._user(user).parent.mkdir(mode=0o700, exist_ok=True)
        self._write_rights(user, rights or Rights())
        self._write_profile(identity, signed)
        return identity

    def import_user(self, data: bytes, rights: Rights, now: float) -> Name:
        """The user, admitted from now on, of a profile made where the authority's key is. Raises InvalidInput."""
        profile = profiles.read(data)
        try:
            name = identities.verify(profile.identity(now).certificate_der, self.charter(), now)
        except PeerFault as error:
            raise InvalidInput(f"the profile is none of a user here: {error}") from None
        if name.party != self.party.name:
            raise InvalidInput(f"the profile is of {name}, not of a user of {self.party.name}")
        self._user(name.user).parent.mkdir(mode=0o700, exist_ok=True)
        self._write_rights(name.user, rights)
        self._write_profile(profile.identity(), self.signed_charter())
        return name

    def rights(self, user: str) -> Rights:
        """The rights of a user; those of a user without any if nobody has the name. Raises InvalidInput."""
        if not self.has_user(user):
            return Rights()
        return Rights(
            self._right(user, "operator").exists(), self._listed(user, "roles"), self._listed(user, "purposes")
        )

    def change_user(self, user: str, rights: Rights) -> None:
        """Give a user other rights; they hold from the next question on. Raises InvalidInput."""
        self._check_user(user)
        self._write_rights(user, rights)

    def remove_user(self, user: str) -> None:
        """Forget a user: the node admits that profile no more, wherever copies of it are. Raises InvalidInput."""
        self._check_user(user)
        self._user(user).unlink()
        shutil.rmtree(self._user(user).parent, ignore_errors=True)

    def is_operator(self, user: str) -> bool:
        """True if a user may publish and grant in the party's name."""
        return self.has_user(user) and self._right(user, "operator").exists()

    def has_user(self, user: str) -> bool:
        """True if this party has such a user now. `user` comes from a certificate, or was checked to be a name."""
        return self._user(user).is_file()

    def user_names(self) -> list[str]:
        """Names of this party's users, in order."""
        return sorted(found.parent.name for found in (self.path / "users").glob("*/profile.json"))

    def profile(self, user: str) -> Profile:
        """A user's profile, for a client on this machine or another. Raises InvalidInput."""
        self._check_user(user)
        return profiles.read(read_private(self._user(user), profiles.PROFILE_BYTES, "profile"))

    def admits(self, name: Name, key: KeyId) -> bool:
        """True if a verified name is a user of this party that has not been removed, with its present key."""
        if name.party != self.party.name or not self.has_user(name.user):
            return False
        identity = self._user_identity(name.user)
        return identity.name == name and identity.key_id == key

    def _key(self, file: str) -> Path:
        return self.path / "keys" / file

    def _right(self, user: str, file: str) -> Path:
        return self.path / "users" / user / file

    def _listed(self, user: str, file: str) -> tuple[str, ...]:
        path = self._right(user, file)
        if not path.exists():
            return ()
        return tuple(sorted({*_text(read_bounded(path, _SMALL_BYTES, f"{file} of {user}"), file).splitlines()}))

    def _write_rights(self, user: str, rights: Rights) -> None:
        """Write a user's rights: an operator's are taken away before the rest, and given after it."""
        if not rights.operator:
            self._right(user, "operator").unlink(missing_ok=True)
        for file, names in (("roles", rights.roles), ("purposes", rights.purposes)):
            write_whole(self._right(user, file), "".join(f"{name}\n" for name in names).encode())
        if rights.operator:
            write_whole(self._right(user, "operator"), b"")

    def _user(self, user: str) -> Path:
        return self.path / "users" / user / "profile.json"

    def _user_identity(self, user: str) -> Identity:
        return self.profile(user).identity()

    def _write_profile(self, identity: Identity, signed: SignedCharter) -> None:
        addresses = dict.fromkeys((*self.party.addresses, *_loopback(self.listen)))
        data = profiles.encode(profiles.create(identity, signed, tuple(addresses)))
        place = self._user(identity.name.user)
        if not place.exists() or place.read_bytes() != data:
            write_whole(place, data, private=True)

    def _check_user(self, user: str) -> None:
        names = self.user_names()
        if user not in names:
            known = f"its users are {', '.join(names)}" if names else "`junto user add NAME` makes one"
            raise InvalidInput(f"{self.party.name} has no user {user!r}: {known}")

    def _read_charter(self, file: str) -> SignedCharter | None:
        path = self.path / file
        return charters.verify(read_bounded(path, charters.CHARTER_BYTES, "charter")) if path.exists() else None

    def _check_own_entry(self, signed: SignedCharter) -> None:
        if signed.charter.member(self.party.name).authority_pem != self.authority_pem:
            raise InvalidInput(
                f"charter names another authority for {self.party.name} than {self.path} holds: "
                f"create the charter again with the card that `junto party card` gives now"
            )


def create(path: Path, party: PartyId, listen: str, now: float, *, node: NodeId, addresses: tuple[str, ...]) -> Home:
    """A new home with fresh keys. It appears whole or not at all; an existing folder with content is never touched.

    addresses: what others dial; none for a party that only dials out. Raises InvalidInput, StorageFailed.
    """
    check_name("party", party)
    check_name("node", node)
    described = Party(party, node, str(parse_address(listen)), tuple(str(parse_address(text)) for text in addresses))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InvalidInput(
            f"{path} exists already: choose another folder with --home, or remove it if it is not needed"
        )
    authority = certificates.create_authority(party, now)
    charters.create_card(authority, described.addresses)  # refuses addresses that a charter would refuse
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            _fill(Home(beside, described), authority)
            beside.replace(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise StorageFailed(f"cannot create {path}: {in_words(error)}; nothing was left behind") from error
    return Home(path, described)


def load(path: Path) -> Home:
    """The home in this folder. Raises InvalidInput when it is none."""
    described = path / "party.toml"
    if not described.exists():
        raise InvalidInput(f"{path} is not a party's home: `junto party create NAME --listen HOST:PORT` makes one")
    try:
        table = tomllib.loads(_text(read_bounded(described, _SMALL_BYTES, "party.toml"), "party.toml"))
        party = msgspec.convert(table, Party)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInput(f"{described} does not read: {error}") from None
    check_name("party", party.name)
    check_name("node", party.node)
    for text in (party.listen, *party.addresses):
        parse_address(text)
    return Home(path, party)


def find(given: Path | None, environment: Mapping[str, str] = os.environ) -> Home:
    """The home meant: the folder given, else $JUNTO_HOME, else the only one under ~/.junto. Raises InvalidInput."""
    if given is not None:
        return load(given)
    if environment.get("JUNTO_HOME"):
        return load(Path(environment["JUNTO_HOME"]))
    homes = sorted(found.parent for found in homes_folder(environment).glob("*/party.toml"))
    if len(homes) == 1:
        return load(homes[0])
    folder = homes_folder(environment)
    if not homes:
        raise InvalidInput(
            f"no party lives under {folder}: `junto party create NAME --listen HOST:PORT` makes one, "
            f"or give its folder with --home"
        )
    raise InvalidInput(
        f"which party? {folder} has {', '.join(home.name for home in homes)}: add --home {homes[0]} or set JUNTO_HOME"
    )


def new_home_path(party: PartyId, given: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of a new party: the folder given, else $JUNTO_HOME, else ~/.junto/<party>."""
    if given is not None:
        return given
    if environment.get("JUNTO_HOME"):
        return Path(environment["JUNTO_HOME"])
    return homes_folder(environment) / party


def homes_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder under which homes are looked for."""
    return Path(environment.get("HOME") or Path.home()) / ".junto"


def _fill(home: Home, authority: Authority) -> None:
    for folder in _FOLDERS:
        (home.path / folder).mkdir(mode=0o700)
    write_whole(home._key("authority.key"), certificates.key_pem(authority.key), private=True)
    write_whole(home._key("authority.pem"), authority.certificate_pem.encode())
    write_whole(home.path / "party.toml", described(home.party))


def described(party: Party) -> bytes:
    """The content of a party.toml."""
    # Names and addresses are checked: none holds a character that TOML would need escaped.
    addresses = ", ".join(f'"{text}"' for text in party.addresses)
    return (
        f'name = "{party.name}"\n'
        f'node = "{party.node}"\n'
        f'listen = "{party.listen}"\n'
        f"addresses = [{addresses}]  # what others dial; they learn of a change from a new charter\n"
    ).encode()


def _loopback(listen: Address) -> tuple[str, ...]:
    """The addresses at which a client on the node's own machine reaches it."""
    if not listen.is_wildcard:
        return (str(listen),)
    return (str(Address("::1" if ":" in listen.host else "127.0.0.1", listen.port)),)


def _check_succession(current: Charter, new: Charter) -> None:
    if new.consortium != current.consortium:
        raise InvalidInput(f"this home belongs to {current.consortium}: a party in {new.consortium} needs another home")
    if new.version < current.version:
        raise InvalidInput(f"charter version {new.version} is older than version {current.version}, which is in force")
    if new.version == current.version and new != current:
        changes = "; ".join(charters.difference(current, new))
        raise InvalidInput(
            f"another charter of version {current.version} is in force ({changes}): "
            f"create the new one with --version {current.version + 1}"
        )


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{what} is damaged: restore it from a backup") from None
