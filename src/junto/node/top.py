# SPDX-License-Identifier: Apache-2.0
"""The amounts that a node gives to tasks, as its operator sees them."""

from junto.link import methods
from junto.tasks.capacity import Cap
from junto.tasks.reservations import Fragment, Request, Use
from junto.tasks.resources import Resources
from junto.types import PartyId


def seen(me: PartyId, resources: Resources, now: float, clock: float) -> methods.Top:
    """Everything at `now`, the node's own time, which is `clock` on the wall."""
    view = resources.view(now)
    later = clock - now  # from the node's own time to the wall's
    capacity = view.capacity
    parties = sorted({*view.parties, *capacity.caps, *(request.party for request, _ in view.waiting)})
    return methods.Top(
        party=me,
        at=clock,
        capacity=methods.Share(capacity.slots, capacity.memory, capacity.disk),
        used=_share(view.use),
        parties=tuple(
            methods.PartyShare(party, _share(view.parties.get(party, Use())), _share(capacity.cap_of(party, me)))
            for party in parties
        ),
        running=tuple(_step(fragment, later) for fragment in view.running),
        queued=tuple(_step(fragment, later, resources.words(fragment, lack)) for fragment, lack in view.queued),
        held=tuple(
            _task(held.request, held.since + later, held.until + later if held.until is not None else None)
            for held in view.held
        ),
        waiting=tuple(
            _task(request, request.at + later, None, resources.words(request, lack)) for request, lack in view.waiting
        ),
    )


def _share(given: Use | Cap) -> methods.Share:
    return methods.Share(given.slots, given.memory, given.disk, given.tasks)


def _step(fragment: Fragment, later: float, why: str = "") -> methods.HeldStep:
    return methods.HeldStep(fragment.task, fragment.step, fragment.party, fragment.priority, fragment.at + later, why)


def _task(request: Request, since: float, lapses_at: float | None, why: str = "") -> methods.HeldTask:
    return methods.HeldTask(
        request.task,
        request.party,
        request.priority,
        request.amount.memory,
        request.amount.disk,
        since,
        request.seconds,
        lapses_at,
        why,
    )
