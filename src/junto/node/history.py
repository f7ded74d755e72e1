# SPDX-License-Identifier: Apache-2.0
"""The tasks a journal tells of, as machines again."""

from collections import defaultdict
from collections.abc import Iterator

from junto.errors import JuntoError
from junto.journal.statement import body_of, read_statement
from junto.journal.store import Journal
from junto.logs import logger
from junto.node.ledger import Ledger
from junto.node.runner import ENDED_TASKS
from junto.tasks.bodies import BODIES, Contract, Offer
from junto.tasks.replay import Entry, by_our_clock, replay
from junto.tasks.state import Task
from junto.tasks.waiting import Patience
from junto.trust.names import parse_name
from junto.types import PartyId, TaskId

_log = logger("junto.history")


def tasks_in(
    journal: Journal, ledger: Ledger, patience: Patience, now: float, most: int = ENDED_TASKS
) -> Iterator[tuple[Task, str]]:
    """The tasks that ended last, `most` of them, in the order of their ends, each as its statements left it; then every
    one that has not ended. By their ends, as their ids follow the clocks of those who asked, which may be wrong.

    With each the id of its receipt's statement, empty if there is none. now: unix seconds, by our clock.
    """
    entries: dict[TaskId, list[Entry]] = defaultdict(list)
    for stored in journal.entries(kinds=tuple(BODIES)):
        statement = read_statement(stored.envelope)
        body = body_of(statement, BODIES[stored.kind])
        offers = _offers(ledger, statement.task, body) if isinstance(body, Contract) else ()
        party = parse_name(statement.author).party
        entry = Entry(stored.index, party, statement.id, statement.at, body, stored.envelope.decode(), offers)
        entries[statement.task].append(entry)
    ends = {task: _end_in(found, ledger.name.party) for task, found in entries.items()}
    ended = sorted((end, task) for task, end in ends.items() if end is not None)
    for task in (*(task for _, task in ended[-most:]), *sorted(task for task, end in ends.items() if end is None)):
        try:
            told = by_our_clock(entries[task], ledger.name.party, now)
            machine = replay(task, ledger.name.party, told, patience)
            receipt = next((e.id for e in entries[task] if e.kind == "receipt" and e.party == machine.receiver), "")
            yield machine, receipt
        except JuntoError as error:
            _log.warning("a task cannot be shown", task=task, reason=str(error))


def _end_in(entries: list[Entry], me: PartyId) -> int | None:
    """The place in the journal of what ended a task."""
    return next(
        (e.index for e in entries if e.kind in ("receipt", "stop") or (e.kind == "refusal" and e.party == me)), None
    )


def _offers(ledger: Ledger, task: TaskId, contract: Contract) -> tuple[tuple[PartyId, Offer], ...]:
    try:
        return tuple(ledger.open_offer(envelope.encode(), task) for envelope in contract.offers)
    except JuntoError:
        return ()
