# SPDX-License-Identifier: Apache-2.0
"""The defences, each of which can be switched off: the attack that it stops must then succeed.

A defence that stands behind another one is tried with the one before it switched off as well.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

from sqlglot import exp

from junto.plan.guards import Guards
from junto.plan.total import Types
from junto.plan.uses import Columns, Use
from junto.trust.allow import Allow


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defence, the attack that it stops, and the names that are replaced to switch it off."""

    defence: str
    attack: str
    replaced: Mapping[str, object]

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Run what follows without the defence."""
        with ExitStack() as stack:
            for name, replacement in self.replaced.items():
                stack.enter_context(mock.patch(name, replacement))
            yield


def _group_alone(guards: Guards, measure: str) -> tuple[int, ...]:
    return (0,)


def _guard_alone(guards: Guards, measure: str) -> tuple[int, ...]:
    return (guards.of[measure],)


def _nothing_more(node: exp.Expr, place: Allow, columns: Columns) -> Iterator[Use]:
    for column in node.find_all(exp.Column):
        yield Use(column, place if columns.is_private(column) else None)


def _as_written(node: exp.Expr, types: Types) -> exp.Expr:
    return node.copy()


def _passes(*_: object) -> None:
    return None


MUTANTS = (
    Mutant("a guard for each figure", "filter_on_one", {"junto.plan.guards.Guards.flags": _group_alone}),
    Mutant("guards of choices", "case_on_one", {"junto.plan.guards.Guards.flags": _group_alone}),
    Mutant("dominance", "weights_for_everybody", {"junto.plan.guards.Guards.flags": _guard_alone}),
    Mutant(
        "the needs of what selects, beside guards",
        "histogram_by_bending",
        {"junto.plan.uses._bent": _nothing_more, "junto.plan.guards.Guards.flags": _group_alone},
    ),
    Mutant(
        "fragments that cannot fail, beside needs",
        "failure_below_the_threshold",
        {
            "junto.plan.uses._bent": _nothing_more,
            "junto.plan.counting.total": _as_written,
            "junto.plan.guards.total": _as_written,
        },
    ),
    Mutant(
        "the check of the threshold, beside guards and the least threshold that there is",
        "threshold_of_another_kind",
        {
            "junto.plan.review.Demand.check": _passes,
            "junto.plan.review.MIN_UNITS": 1,
            "junto.plan.guards.Guards.flags": _group_alone,
        },
    ),
)
