# SPDX-License-Identifier: Apache-2.0
"""The tasks a journal tells of, as machines again."""

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
    party = ledger.party_prefix
    for task in (*journal.ended_tasks(party, most), *journal.open_tasks(party)):
        try:
            entries = _entries(journal, ledger, task)
            told = by_our_clock(entries, ledger.name.party, now)
            machine = replay(task, ledger.name.party, told, patience)
            receipt = next((e.id for e in entries if e.kind == "receipt" and e.party == machine.receiver), "")
            yield machine, receipt
        except JuntoError as error:
            _log.warning("a task cannot be shown", task=task, reason=str(error))


def _entries(journal: Journal, ledger: Ledger, task: TaskId) -> list[Entry]:
    """The journal's entries about one task."""
    found: list[Entry] = []
    for stored in journal.entries(kinds=tuple(BODIES), task=task):
        statement = read_statement(stored.envelope)
        body = body_of(statement, BODIES[stored.kind])
        offers = _offers(ledger, task, body) if isinstance(body, Contract) else ()
        party = parse_name(statement.author).party
        found.append(Entry(stored.index, party, statement.id, statement.at, body, stored.envelope.decode(), offers))
    return found


def _offers(ledger: Ledger, task: TaskId, contract: Contract) -> tuple[tuple[PartyId, Offer], ...]:
    try:
        return tuple(ledger.open_offer(envelope.encode(), task) for envelope in contract.offers)
    except JuntoError:
        return ()
