# SPDX-License-Identifier: Apache-2.0
"""A user's profile: all that a client needs to reach its party's node and prove who asks, in one file.

The file holds a private key, so it is readable by its owner alone. The party's node admits only users that it lists:
removing a user ends a profile at once, whatever its certificate says.
"""

import msgspec

from junto.errors import InvalidInput
from junto.trust import charter as charters
from junto.trust.certificates import Identity, key_pem, load_identity, pem, utc_text
from junto.trust.charter import Charter
from junto.trust.names import parse_address

PROFILE_BYTES = 2 << 20

_FORMAT = 1


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One user of one party. `read` makes checked ones."""

    format: int = _FORMAT
    certificate_pem: str
    key_pem: str
    charter_file: str  # the signed charter, as its own file spells it
    addresses: tuple[str, ...]  # of the party's node, in the order to try

    def __repr__(self) -> str:
        return f"Profile(addresses={self.addresses})"

    def identity(self, now: float | None = None) -> Identity:
        """The user's identity. Raises InvalidInput if files do not fit, or if its certificate is not valid then."""
        identity = load_identity(self.key_pem.encode(), self.certificate_pem)
        begins = identity.certificate.not_valid_before_utc.timestamp()
        if now is not None and now < begins:
            raise InvalidInput(
                f"certificate of {identity.name} is not valid before {utc_text(begins)}, our clock says "
                f"{utc_text(now)}: set the clock that is wrong"
            )
        if now is not None and now >= identity.expires:
            raise InvalidInput(
                f"certificate of {identity.name} expired at {utc_text(identity.expires)}, our clock says "
                f"{utc_text(now)}: renew it with `junto user add {identity.name.user}` at {identity.name.party}"
            )
        return identity

    def charter(self) -> Charter:
        """The charter in force when the profile was written. Raises InvalidInput."""
        return charters.verify(self.charter_file.encode()).charter


def create(identity: Identity, charter: charters.SignedCharter, addresses: tuple[str, ...]) -> Profile:
    """The profile of a user. addresses: where its party's node is reached, best first; at least one."""
    return Profile(
        certificate_pem=pem(identity.certificate),
        key_pem=key_pem(identity.key).decode("ascii"),
        charter_file=charter.encode().decode("ascii"),
        addresses=addresses,
    )


def encode(profile: Profile) -> bytes:
    """The file, indented JSON. Keep it where nobody else can read it."""
    return msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n"


def read(data: bytes) -> Profile:
    """The profile in a file; certificate, key, charter and addresses are checked to be well formed and to fit.

    Raises InvalidInput; the message never quotes the file, which holds a key.
    """
    if len(data) > PROFILE_BYTES:
        raise InvalidInput(f"profile of {len(data)} bytes: at most {PROFILE_BYTES} are read")
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except (msgspec.MsgspecError, UnicodeError):
        raise InvalidInput("profile is damaged: write it again with `junto user export`") from None
    if profile.format != _FORMAT:
        raise InvalidInput(f"profile is of format {profile.format}, this Junto reads {_FORMAT}: upgrade Junto")
    name = profile.identity().name
    charter = profile.charter()
    if not name.user or name.consortium != charter.consortium:
        raise InvalidInput(f"profile of {name} is not a user's of {charter.consortium}: export it again")
    charter.member(name.party)
    if not profile.addresses:
        raise InvalidInput(f"profile of {name} has no node address: export it again")
    for text in profile.addresses:
        parse_address(text)
    return profile
