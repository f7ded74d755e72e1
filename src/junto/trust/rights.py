# SPDX-License-Identifier: Apache-2.0
"""The rights of one user within the party it belongs to, as the party's own node reads them from its home.

Other parties judge a question by its party and purpose and know no roles. Of the party's own data a user learns what
the rules and grants let the party as a whole have, or one of the user's roles, written `@analysts`. An operator is
under no rule at home.
"""

import msgspec

from junto.errors import InvalidInput
from junto.trust.allow import ROLE_MARK, check_purposes
from junto.trust.names import check_name
from junto.types import PartyId

_MOST = 100


class Rights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rights that operators gave a user of their party. A user without any asks under the rules, for no purpose."""

    operator: bool = False  # may publish and grant, reads the party's own data without a rule, states any purpose
    roles: tuple[str, ...] = ()  # sorted, without the mark
    purposes: tuple[str, ...] = ()  # sorted: those that this user may state

    def __post_init__(self) -> None:
        """Raises InvalidInput; out of a decoder, msgspec.ValidationError."""
        for role in self.roles:
            check_name("role", role)
        check_purposes(self.purposes)
        for what, values in (("roles", self.roles), ("purposes", self.purposes)):
            if len(values) > _MOST or values != tuple(sorted(set(values))):
                raise InvalidInput(f"{what} of a user: at most {_MOST}, each once, in order")

    def names(self, party: PartyId) -> frozenset[str]:
        """The names under which a rule or grant of `party` reaches its user: the party's, and each role's."""
        return frozenset((party, *(ROLE_MARK + role for role in self.roles)))

    def may_state(self, purpose: str) -> bool:
        """True if this user may ask for a purpose; for none, everybody may."""
        return not purpose or self.operator or purpose in self.purposes


OPERATOR = Rights(operator=True)
"""The rights of an operator without roles."""
