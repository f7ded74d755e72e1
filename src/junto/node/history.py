# SPDX-License-Identifier: Apache-2.0
"""The tasks a journal tells of, as machines again."""

from collections import defaultdict
from collections.abc import Iterator

from junto.errors import JuntoError
from junto.journal.statement import body_of, read_statement
from junto.journal.store import Journal
from junto.logs import logger
from junto.node.ledger import Ledger
from junto.tasks.bodies import BODIES, Contract, Offer
from junto.tasks.replay import Entry, by_our_clock, replay
from junto.tasks.state import Task
from junto.tasks.waiting import Patience
from junto.trust.names import parse_name
from junto.types import PartyId, TaskId

_log = logger("junto.history")
_TASKS = 200
"""How many tasks are kept at hand; older ones are in the journal."""


def tasks_in(journal: Journal, ledger: Ledger, patience: Patience, now: float) -> Iterator[tuple[Task, str]]:
    """The latest tasks, oldest first, each as its statements left it; and every one that has not ended.

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
    ended = {task for task, found in entries.items() if _has_ended(found, ledger.name.party)}
    recent = set(sorted(entries)[-_TASKS:])
    for task in sorted(entries):
        if task in recent or task not in ended:
            try:
                told = by_our_clock(entries[task], ledger.name.party, now)
                machine = replay(task, ledger.name.party, told, patience)
                receipt = next((e.id for e in entries[task] if e.kind == "receipt" and e.party == machine.receiver), "")
                yield machine, receipt
            except JuntoError as error:
                _log.warning("a task cannot be shown", task=task, reason=str(error))


def _has_ended(entries: list[Entry], me: PartyId) -> bool:
    return any(e.kind in ("receipt", "stop") or (e.kind == "refusal" and e.party == me) for e in entries)


def _offers(ledger: Ledger, task: TaskId, contract: Contract) -> tuple[tuple[PartyId, Offer], ...]:
    try:
        return tuple(ledger.open_offer(envelope.encode(), task) for envelope in contract.offers)
    except JuntoError:
        return ()
