# SPDX-License-Identifier: Apache-2.0
"""A party's authority key away from its node: on a machine that is off most of the time, in a folder of its own.

`move` makes that folder, a home with the authority's key, the charter and no journal, and takes the key out of the
node's home. Charters and cards are signed there, users added, the node's certificates issued. The node's home makes
a fresh key and a request for it, which holds no secret; the folder answers with a certificate; the home takes it into
use, with the key that has never left it.
"""

from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from junto.errors import InvalidInput, PeerFault
from junto.node.files import read_private, write_whole
from junto.node.home import Home, described
from junto.trust import certificates, envelope, identity
from junto.trust.certificates import Identity
from junto.trust.names import parse_name

REQUEST_TYPE = "application/vnd.junto.request+json"
_REQUEST_BYTES = 16 << 10
_KEPT = ("keys/authority.key", "keys/authority.pem")
_COPIED = ("charter.json", "charter.proposed.json")
_NEXT = "node.next.key"


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node's wish for a certificate over its key. The envelope's signature is the key's own."""

    name: str  # the node's SPIFFE name
    key: str  # the public key, hexadecimal


def move(home: Home, folder: Path) -> Home:
    """A home with the authority's key, in a new folder; the key is then no longer in the node's home.

    Raises InvalidInput, StorageFailed; then the key is where it was.
    """
    home.authority()  # whole, and of its certificate
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty: choose a new folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("keys", "users", "data", "spool", "cache"):
        (folder / name).mkdir(mode=0o700)
    write_whole(folder / "party.toml", described(home.party))
    for name in _KEPT:
        write_whole(folder / name, (home.path / name).read_bytes(), private=name.endswith(".key"))
    for name in _COPIED:
        if (home.path / name).exists():
            write_whole(folder / name, (home.path / name).read_bytes())
    moved = Home(folder, home.party)
    moved.authority()
    (home.path / "keys" / "authority.key").unlink()
    return moved


def request(home: Home) -> bytes:
    """A request for a certificate over a fresh key, which is kept in the home until the certificate comes.

    Raises InvalidInput without a charter in force.
    """
    name = home.node_name()
    key = Ed25519PrivateKey.generate()
    write_whole(home.path / "keys" / _NEXT, certificates.key_pem(key), private=True)
    asked = Request(name.uri, key.public_key().public_bytes_raw().hex())
    return envelope.encode(envelope.sign(REQUEST_TYPE, msgspec.json.encode(asked), [key])) + b"\n"


def issue(home: Home, data: bytes, now: float, lifetime_seconds: float) -> tuple[str, bytes]:
    """The node that a request names, and the certificate for it.

    Raises InvalidInput for another party's request, or a damaged one.
    """
    sealed = envelope.decode(data, "request", limit_bytes=_REQUEST_BYTES)
    if sealed.payload_type != REQUEST_TYPE:
        raise InvalidInput("the file holds no request: `junto party request --out FILE` writes one")
    try:
        asked = msgspec.json.decode(sealed.payload, type=Request)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(asked.key))
    except (msgspec.MsgspecError, ValueError):
        raise InvalidInput("the file holds no request: `junto party request --out FILE` writes one") from None
    if not envelope.verify(sealed, {envelope.key_id(key): key}):
        raise InvalidInput("the request is not signed with the key it names: have the node write it again")
    name = parse_name(asked.name)
    if not name.node or name.consortium != home.charter().consortium:
        raise InvalidInput(f"the request is for {name} of {name.consortium}: only nodes of this consortium get one")
    issued = certificates.issue(home.authority(), name, key, now, lifetime_seconds)
    return str(name), certificates.pem(issued).encode()


def take(home: Home, data: bytes, now: float) -> Identity:
    """The node's renewed identity, kept in its home: a node that runs finds it within ten minutes.

    Raises InvalidInput unless the certificate is of our authority, for this node, over the key of the last request, and
    valid now.
    """
    waiting = home.path / "keys" / _NEXT
    if not waiting.exists():
        raise InvalidInput(f"no request of {home.path} is open: `junto party request --out FILE` writes one")
    key = read_private(waiting, _REQUEST_BYTES, "requested key")
    try:
        found = certificates.load_identity(key, data.decode("ascii"))
        name = identity.verify(found.certificate_der, home.charter(), now)
    except UnicodeDecodeError:
        raise InvalidInput("the file holds no certificate: `junto party issue REQUEST --out FILE` writes one") from None
    except PeerFault as error:
        raise InvalidInput(str(error)) from None
    if name != home.node_name():
        raise InvalidInput(f"the certificate is for {name}; this is the home of {home.node_name()}")
    home.keep_identity(found)
    waiting.unlink()
    return found
