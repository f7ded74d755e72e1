# SPDX-License-Identifier: Apache-2.0
"""The limits on a whole plan's size, checked before any of its SQL is parsed, since parsing SQL is what costs.

A text that several steps share, as the fragments of many owners do, is read once and counts once. The syntax of all
texts together has a limit too (`texts.py`), which shows only while they are read.
"""

import msgspec

from junto.errors import InvalidInput
from junto.plan.steps import AnyStep, Plan, Query, Release

PLAN_STEPS = 512
PLAN_CHARACTERS = 200_000
"""The most SQL in a plan, each text counted once."""
PLAN_NAMES = 50_000
"""All that steps list: tables, columns, keys, measures, parties, other steps."""
QUESTION_CHARACTERS = 100_000


def check_budget(plan: Plan) -> None:
    """Raises InvalidInput, with the limit and the mend, if a plan is more than a node looks at."""
    if len(plan.steps) > PLAN_STEPS:
        raise InvalidInput(f"the plan has {len(plan.steps)} steps; at most {PLAN_STEPS} are run: {_MEND}")
    characters = sql_characters(plan)
    if characters > PLAN_CHARACTERS:
        raise InvalidInput(
            f"the plan's SQL has {characters:,} characters in all; at most {PLAN_CHARACTERS:,} are read: {_MEND}"
        )
    names = sum(_names(step) for step in plan.steps)
    if names > PLAN_NAMES:
        raise InvalidInput(f"the plan's steps list {names:,} names; at most {PLAN_NAMES:,} are read: {_MEND}")
    if len(plan.question) > QUESTION_CHARACTERS:
        raise InvalidInput(
            f"the question has {len(plan.question):,} characters; at most {QUESTION_CHARACTERS:,} are kept: {_MEND}"
        )


def sql_characters(plan: Plan) -> int:
    """The characters of SQL that somebody who reads the plan has to read."""
    return sum(map(len, {step.sql for step in plan.steps if isinstance(step, Query | Release)}))


_MEND = "ask in several smaller questions"


def _names(step: AnyStep) -> int:
    listed = sum(len(value) for value in msgspec.structs.astuple(step) if isinstance(value, tuple))
    return listed + (sum(len(read.columns) for read in step.reads) if isinstance(step, Query) else 0)
