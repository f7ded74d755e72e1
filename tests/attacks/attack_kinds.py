# SPDX-License-Identifier: Apache-2.0
"""What an attack is, and the list of all."""

from collections.abc import Callable
from dataclasses import dataclass

from attack_desk import Claims, Desk

Run = Callable[[Desk], Claims]


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to learn a secret of persons. A person is recovered if the claim about that person is exactly true.

    secret: the attribute that is claimed. later: why no rule on single answers can stop the attack; empty if one must.
    """

    name: str
    shows: str
    run: Run
    secret: str
    later: str

    def recovered(self, desk: Desk, claims: Claims) -> int:
        """How many claims are true."""
        people = {person.id: person for person in desk.truth.people}
        return sum(id in people and getattr(people[id], self.secret) == claim for id, claim in claims.items())


ATTACKS: dict[str, Attack] = {}


def attack(of: str = "salary", later: str = "") -> Callable[[Run], Run]:
    """Add an attack on an attribute to the list, under its function's name."""

    def added(run: Run) -> Run:
        name = run.__name__
        ATTACKS[name] = Attack(name, (run.__doc__ or "").splitlines()[0], run, of, later)
        return run

    return added
