# SPDX-License-Identifier: Apache-2.0
"""The parties that compute a threshold, and their order: fixed by who contributes, so that no asker chooses them.

Two contributors need a third node. It is, in this order: the first by name of the *consenting* members, which are those
that have named the asker in the `compute` line of their `node.toml`, contribute nothing and are not the asker; then
the next of them; the asker where none of them is there. Such a helper computes for the asker's questions; the line
allows nothing else, and needs no word of the owners, whose counts it cannot read.

A reviewer believes none of this from the wire. The shape of a plan allows the asker or any one helper (`review.py`);
two parties may know different consents at one moment, so the rest is for each party to judge: the helper by its own
line, each contributor by asking those that the plan has passed over (`node/lending.py`).

Security. Products are verified: one node of three that deviates ends the run, and one node learns nothing. So a helper
can do no more than the asker could in its place, and a helper that colludes with the asker is no worse than the asker
as third node: both have one share of three. It takes two nodes to learn the counts. With the asker as third node these
are the asker and one owner, who have the same interest; with a helper, an owner and a party to which the answer does
not go. A member that only pretends to be away gives way to the asker, and gains nothing.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from junto.plan.steps import Plan, Threshold, parties_of
from junto.types import PartyId

Consents = Mapping[PartyId, Collection[PartyId]]
"""The parties for which each member computes what reads none of its data."""


def computing_nodes(
    contributors: Sequence[PartyId], receiver: PartyId, helper: PartyId | None = None
) -> tuple[PartyId, ...]:
    """The nodes of a threshold over contributors that stand in the order of their names.

    One contributor decides alone. Two compute with a helper as third, or with the receiver where no helper is there,
    because a majority must be honest. Of three or more neither has a part in it: an odd number of contributors does,
    from the first on.
    """
    if len(contributors) == 2:
        return (*contributors, receiver if helper is None else helper)
    return tuple(contributors[: (len(contributors) - 1) // 2 * 2 + 1])


def helper_of(step: Threshold) -> PartyId | None:
    """The node that neither contributes nor receives; None if there is none."""
    return next((node for node in step.nodes if node not in (*step.contributors, step.receiver)), None)


def could_help(step: Threshold, consents: Consents) -> tuple[PartyId, ...]:
    """The members that could be the third node in the receiver's place, by name; none unless a third node is needed."""
    if len(step.contributors) != 2:
        return ()
    taken = (*step.contributors, step.receiver)
    return tuple(party for party, to in sorted(consents.items()) if step.receiver in to and party not in taken)


def helped(plan: Plan, consents: Consents) -> Plan:
    """The plan with the first member that could help as third node of its threshold, or the receiver if none could."""
    steps = tuple(_helped(step, consents) if isinstance(step, Threshold) else step for step in plan.steps)
    return msgspec.structs.replace(plan, steps=steps)


def _helped(step: Threshold, consents: Consents) -> Threshold:
    helper = next(iter(could_help(step, consents)), None)
    return msgspec.structs.replace(step, nodes=computing_nodes(step.contributors, step.receiver, helper))


def spare(plan: Plan) -> frozenset[PartyId]:
    """The parties without which the plan's answer is the same: a helper that does nothing else in it."""
    found = {helper_of(step) for step in plan.steps if isinstance(step, Threshold)}
    needed = {party for step in plan.steps if not isinstance(step, Threshold) for party in parties_of(step)}
    return frozenset(party for party in found if party is not None and party not in needed)
