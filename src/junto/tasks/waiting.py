# SPDX-License-Identifier: Apache-2.0
"""The times that a node waits and for whom, and the ways in which a task ends."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from junto.tasks.bodies import End
from junto.types import PartyId


@dataclass(frozen=True, slots=True)
class Patience:
    """The seconds that a node waits before it names somebody. The task's own deadline caps both."""

    offer_seconds: float = 10.0
    absence_seconds: float = 5.0  # a participant's link may be down so long
    refusal_seconds: float = 1.0  # after a first refusal, others may still answer so long
    confirm_seconds: float = 0.05  # finished steps are confirmed together at this pace


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody is waited for: who, for what, since and until when (unix seconds)."""

    party: PartyId
    what: str
    since: float
    until: float
    why: str = ""  # what is known of the delay: it cannot be reached, or it tries again


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of the task, and the party that caused it."""

    end: End
    code: str
    party: PartyId
    reason: str
    at: float


def end_of(code: str) -> End:
    """The end by a code: `refused` if a participant that could not offer may not, `failed` if it cannot."""
    return "refused" if code == "refused" else "failed"


def lapsed(limit: str, until: float, waits: Sequence[Wait], me: PartyId) -> tuple[PartyId, str]:
    """The party on which a task hung when a limit passed, and the reason in words: all who owe what is due first are
    named, unreachable ones before the others."""
    due = [wait for wait in waits if wait.what == waits[0].what]
    due.sort(key=lambda wait: (not wait.why, wait.party == me))
    detail = f" ({due[0].why})" if due[0].why else ""
    names = ", ".join(wait.party for wait in due)
    what = due[0].what if len(due) == 1 else re.sub(r"^its\b", "their", due[0].what)
    return due[0].party, f"{limit} passed waiting {round(until - due[0].since, 3):g} s for {names}: {what}{detail}"
