# SPDX-License-Identifier: Apache-2.0
"""Names of parties, nodes and users, as they stand in certificates, and the addresses they are reached at.

A name is a SPIFFE ID (github.com/spiffe/spiffe, SPIFFE-ID.md) with the consortium as trust domain:
`spiffe://<consortium>/<party>/<node>` or `spiffe://<consortium>/<party>/user/<name>`. One spelling only: lower-case
letters, digits and single hyphens, so that two names are the same exactly if their text is.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from junto.errors import InvalidInput
from junto.types import NodeId, PartyId

NAME_CHARACTERS = 40
DEFAULT_PORT = 7300

_SCHEME = "spiffe://"
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_NO_NODE = NodeId("")
_RESERVED_NODES = frozenset({"user"})


def check_name(what: str, text: str) -> str:
    """The text itself if it may name a `what` (party, node, user, consortium). Raises InvalidInput."""
    if len(text) > NAME_CHARACTERS:
        raise InvalidInput(f"{what} name of {len(text)} characters: at most {NAME_CHARACTERS} are allowed")
    if _NAME.fullmatch(text) is None:
        raise InvalidInput(f"{what} name {text!r}: use lower-case letters and digits, with single hyphens between them")
    if what == "node" and text in _RESERVED_NODES:
        raise InvalidInput(f"node name {text!r} is reserved: choose another")
    return text


@dataclass(frozen=True, slots=True)
class Name:
    """The holder of a certificate: a node or a user of a party. Exactly one of `node` and `user` is set."""

    consortium: str
    party: PartyId
    node: NodeId = _NO_NODE
    user: str = ""

    def __post_init__(self) -> None:
        check_name("consortium", self.consortium)
        check_name("party", self.party)
        if bool(self.node) == bool(self.user):
            raise InvalidInput(f"a name under {self.party!r} is either a node's or a user's")
        if self.node:
            check_name("node", self.node)
        else:
            check_name("user", self.user)

    @property
    def uri(self) -> str:
        """The SPIFFE ID."""
        return f"{_SCHEME}{self.consortium}/{self}"

    def __str__(self) -> str:
        return f"{self.party}/{self.node}" if self.node else f"{self.party}/user/{self.user}"


@lru_cache(maxsize=1024)
def parse_name(uri: str) -> Name:
    """The name a SPIFFE ID spells. Raises InvalidInput for any other spelling than `Name.uri` gives."""
    if len(uri) > len(_SCHEME) + 4 * (NAME_CHARACTERS + 1):
        raise InvalidInput(f"name of {len(uri)} characters is too long for spiffe://CONSORTIUM/PARTY/NODE")
    parts = uri.removeprefix(_SCHEME).split("/") if uri.startswith(_SCHEME) else []
    match parts:
        case [consortium, party, node] if node:
            return Name(consortium, PartyId(party), node=NodeId(node))
        case [consortium, party, "user", user] if user:
            return Name(consortium, PartyId(party), user=user)
        case _:
            raise InvalidInput(
                f"name {uri!r} is not spiffe://CONSORTIUM/PARTY/NODE or spiffe://CONSORTIUM/PARTY/user/NAME"
            )


@dataclass(frozen=True, slots=True)
class Address:
    """An address at which a node listens or is dialled. `str()` gives `host:port`, with brackets round an IPv6 host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """True if the host means every interface of a machine, so that nobody can dial it."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """The address `HOST:PORT`, `[IPV6]:PORT` or `HOST` (port 7300). Raises InvalidInput."""
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?", text, re.ASCII)
    plain = re.fullmatch(r"([^:\[\]]+)(?::([0-9]{1,5}))?", text, re.ASCII)
    found = bracketed or plain
    if found is None or len(text) > 270:
        raise InvalidInput(f"address {text[:80]!r}: write HOST:PORT, such as node.example.org:{DEFAULT_PORT}")
    host, port = found[1], int(found[2] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise InvalidInput(f"address {text[:80]!r}: a port lies between 1 and 65535")
    return Address(_ipv6(host) if bracketed else _hostname(host), port)


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise InvalidInput(f"address [{host}]: not an IPv6 address") from None


def _hostname(host: str) -> str:
    labels = host.split(".")
    if len(host) > 253 or not all(_HOST.fullmatch(label) for label in labels):
        raise InvalidInput(f"address host {host[:80]!r}: not a host name or IPv4 address")
    if labels[-1].isdigit():
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise InvalidInput(f"address host {host!r}: not an IPv4 address") from None
    return host.lower()
