# SPDX-License-Identifier: Apache-2.0
"""The parties that compute a threshold, and their order: fixed by who contributes, so that no asker chooses them."""

from collections.abc import Sequence

from junto.types import PartyId


def computing_nodes(contributors: Sequence[PartyId], receiver: PartyId) -> tuple[PartyId, ...]:
    """The nodes of a threshold over contributors that stand in the order of their names.

    One contributor decides alone. Two compute with the receiver as third, because a majority must be honest. Of three
    or more the receiver has no part in it: an odd number of contributors does, from the first on.
    """
    if len(contributors) == 2:
        return (*contributors, receiver)
    return tuple(contributors[: (len(contributors) - 1) // 2 * 2 + 1])
