# SPDX-License-Identifier: Apache-2.0
"""A party's word for whom it computes what reads none of its own data: `compute = [...]` in its `node.toml`."""

import msgspec

from junto.errors import InvalidInput
from junto.trust.allow import check_parties
from junto.types import PartyId


class Consent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parties for which its author computes: the body of a "consent" statement. Every party may see it."""

    party: PartyId
    to: tuple[PartyId, ...]
    at: float  # UTC, Unix seconds

    def __post_init__(self) -> None:
        """Raises InvalidInput; out of a decoder, msgspec.ValidationError."""
        check_parties((self.party,))
        check_parties(self.to)


def refused(me: PartyId, asker: PartyId, what: str, known: tuple[PartyId, ...]) -> str:
    """The line of a refusal: what is asked, and what the party's operator would write to allow it."""
    names = ", ".join(f'"{party}"' for party in (*known, asker))
    return (
        f"{me} refuses {asker}: {what} is work for others, and reads no data of {me}. To allow it, {me} would write in"
        f" node.toml: compute = [{names}]"
    )


def named(to: tuple[PartyId, ...], members: tuple[PartyId, ...]) -> None:
    """Raises InvalidInput, naming the key, if a party to compute for is none of the charter's."""
    for party in to:
        if party not in members:
            raise InvalidInput(f"node.toml: compute names {party!r}, which the charter does not: correct the name")
