# SPDX-License-Identifier: Apache-2.0
"""The lengths allowed to each part of a task's statement, so that no party fills another's journal with one word.

Journals of earlier versions may hold longer ones, so these lengths are no part of a body's shape: they are checked when
a statement comes, before anything of it is kept, and before our own is signed.
"""

import msgspec

from junto.errors import InvalidInput
from junto.plan import steps
from junto.plan.steps import Plan
from junto.tasks.bodies import Attempt, Body, Refusal, Stop, kind_of

TEXT_CHARACTERS = 256
"""The length of every text that is not named here: ids, digests, names, codes, users, purposes."""

REASON_CHARACTERS = 8_000
OFFER_CHARACTERS = 64 << 10
PLAN_BYTES = 512 << 10
"""The whole plan, in its canonical spelling."""

_CHARACTERS = {"reason": REASON_CHARACTERS, "why": REASON_CHARACTERS, "offers": OFFER_CHARACTERS}
_ITEMS = 4_096
_CUT = " …"


def check_lengths(body: Body) -> None:
    """Nothing, if no part of the body is longer than it may be. Raises InvalidInput, naming field, length and limit."""
    whose = f"the {kind_of(body)}'s"
    for name in body.__struct_fields__:
        _check(whose, name, getattr(body, name))


def check_plan_length(plan: Plan) -> None:
    """Nothing, if a plan is short enough to be proposed. Raises InvalidInput."""
    size = len(steps.encode(plan))
    if size > PLAN_BYTES:
        raise InvalidInput(f"the plan has {size:,} bytes: at most {PLAN_BYTES:,} are proposed; ask in parts")


def check_text(what: str, text: str) -> None:
    """Nothing, if a user's word is short enough to be proposed. Raises InvalidInput."""
    if len(text) > TEXT_CHARACTERS:
        raise InvalidInput(f"the {what} has {len(text):,} characters: at most {TEXT_CHARACTERS}")


def fitted(body: Body) -> Body:
    """A statement of ours, its reason cut to the length that others take: an engine or a rule may have much to say."""
    if isinstance(body, Refusal | Stop | Attempt) and len(body.reason) > REASON_CHARACTERS:
        return msgspec.structs.replace(body, reason=body.reason[: REASON_CHARACTERS - len(_CUT)] + _CUT)
    return body


def _check(whose: str, name: str, value: object) -> None:
    match value:
        case str():
            most = _CHARACTERS.get(name, TEXT_CHARACTERS)
            if len(value) > most:
                raise InvalidInput(f"{whose} {name} has {len(value):,} characters: at most {most:,} are taken")
        case tuple():
            if len(value) > _ITEMS:
                raise InvalidInput(f"{whose} {name} are {len(value):,}: at most {_ITEMS:,} are taken")
            for item in value:
                _check(whose, name, item)
        case Plan():
            check_plan_length(value)
        case msgspec.Struct():
            for field in value.__struct_fields__:
                _check(whose, field, getattr(value, field))
        case _:
            pass
