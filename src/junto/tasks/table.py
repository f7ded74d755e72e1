# SPDX-License-Identifier: Apache-2.0
"""The states of a task, which events each takes, and which state may follow which; `docs/tasks.md` is drawn from it."""

from typing import Literal

from junto.tasks.events import (
    AttemptArrived,
    CancelAsked,
    ConfirmArrived,
    ContractArrived,
    Forbidden,
    OfferArrived,
    Opened,
    PartyDown,
    PartyUp,
    Permitted,
    ReceiptArrived,
    RefusalArrived,
    Released,
    Restarted,
    StepDoubled,
    StepFailed,
    StepFinished,
    StepTried,
    StopArrived,
    Ticked,
)

State = Literal["new", "judging", "proposed", "offered", "running", "done", "refused", "failed", "cancelled", "expired"]

_ALWAYS: tuple[type, ...] = (StopArrived, CancelAsked, PartyDown, PartyUp, Restarted, Ticked)
_LATE: tuple[type, ...] = (
    *_ALWAYS,
    Permitted,
    Forbidden,
    OfferArrived,
    RefusalArrived,
    ContractArrived,
    ConfirmArrived,
    AttemptArrived,
    StepFinished,
    StepFailed,
    StepTried,
    StepDoubled,
    Released,
    ReceiptArrived,
)

LEGAL: dict[State, tuple[type, ...]] = {
    "new": (Opened,),
    "judging": (*_ALWAYS, Permitted, Forbidden, OfferArrived, RefusalArrived),
    "proposed": (*_ALWAYS, OfferArrived, RefusalArrived),
    "offered": (*_ALWAYS, ContractArrived, ConfirmArrived, AttemptArrived),  # others' may overtake the contract
    "running": (
        *_ALWAYS,
        ConfirmArrived,
        AttemptArrived,
        StepFinished,
        StepFailed,
        StepTried,
        StepDoubled,
        Released,
        ReceiptArrived,
    ),
    "done": _LATE,
    "refused": _LATE,
    "failed": _LATE,
    "cancelled": _LATE,
    "expired": _LATE,
}
"""The events that each state accepts. In an ended state late events are accepted and change nothing but the record."""

_BROKEN_OFF: tuple[State, ...] = ("refused", "failed", "cancelled", "expired")

MOVES: dict[State, tuple[State, ...]] = {
    "new": ("judging",),
    "judging": ("proposed", "offered", *_BROKEN_OFF),
    "proposed": ("running", *_BROKEN_OFF),
    "offered": ("running", *_BROKEN_OFF),
    "running": ("done", *_BROKEN_OFF),
    "done": ("failed",),  # only at the receiver, and only if its receipt could not be written
    "refused": (),
    "failed": (),
    "cancelled": (),
    "expired": (),
}
"""The states that may follow each state."""

ENDED: frozenset[State] = frozenset(("done", *_BROKEN_OFF))
