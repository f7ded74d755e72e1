# SPDX-License-Identifier: Apache-2.0
"""Tests of the tests: each mutant switches off one safeguard of the node, and the simulator must find it."""

import asyncio
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from junto.journal.lease import Challenge
from junto.node import exchange
from junto.node.courier import Courier
from junto.node.keep import Keeper
from junto.node.ledger import Kept, Ledger
from junto.node.node import Node
from junto.node.runner import Runner
from junto.node.spool import Spool
from junto.tasks import replay as replays
from junto.tasks import state as states
from junto.tasks.bodies import Attempt, Contract, Receipt
from junto.tasks.events import Restarted
from junto.tasks.instructions import Perform, Publish, Redo, Wake
from junto.tasks.resources import Resources
from junto.tasks.state import Task
from junto.testing.sim.faults import Kind
from junto.testing.sim.pair import Pair


@dataclass(frozen=True, slots=True)
class Mutant:
    """One safeguard that is off while `applied` is entered."""

    name: str
    what: str
    applied: Callable[[], AbstractContextManager[Any]]
    against: tuple[Kind, ...] = ()  # the faults it is there for, if they are drawn too seldom among all


def _ledger_does_not_wait() -> AbstractContextManager[Any]:
    async def append(self: Ledger, statement: Any) -> Kept:
        from junto.journal import statement as statements

        envelope = statements.sign(statement, self._key)
        job = asyncio.ensure_future(self.journal.append(envelope, statement))
        job.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Kept(statement, envelope, self.name)

    return patch.object(Ledger, "_append", append)


def _acknowledged_before_durable() -> AbstractContextManager[Any]:
    async def keep(self: Ledger, envelope: bytes, statement: Any) -> Kept:
        from junto.trust.names import parse_name

        new = self.journal.find(statement.id) is None
        job = asyncio.ensure_future(self.journal.append(envelope, statement))
        job.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Kept(statement, envelope, parse_name(statement.author), new)

    return patch.object(Ledger, "keep", keep)


def _instructions(without: Callable[[Task, Any], bool], on: type) -> Callable[[], AbstractContextManager[Any]]:
    """The machine, which leaves out some instructions when such an event comes."""

    def applied() -> AbstractContextManager[Any]:
        real = Task.handle

        def handle(self: Task, event: Any) -> list[Any]:
            found = real(self, event)
            return [one for one in found if not (isinstance(event, on) and without(self, one))]

        return patch.object(Task, "handle", handle)

    return applied


def _all_events(without: Callable[[Task, Any], bool]) -> Callable[[], AbstractContextManager[Any]]:
    return _instructions(without, object)


def _publishes(one: Any, body: type) -> bool:
    return isinstance(one, Publish) and isinstance(one.body, body)


def _courier_gives_up() -> AbstractContextManager[Any]:
    async def pause(seconds: float) -> None:
        raise asyncio.CancelledError

    real = Courier.__init__

    def init(self: Courier, links: Any, **options: Any) -> None:
        real(self, links, **{**options, "pause": pause})

    return patch.object(Courier, "__init__", init)


def _nothing_is_said_again() -> AbstractContextManager[Any]:
    real = Node._take_up

    def take_up(self: Node) -> None:
        with patch.object(self.courier, "send", lambda *_: None):
            real(self)

    return patch.object(Node, "_take_up", take_up)


def _one_run_for_ever() -> AbstractContextManager[Any]:
    return patch.object(states, "run_of", lambda joint, step, numbers: "")


def _receipts_are_forgotten() -> AbstractContextManager[Any]:
    real = replays._events

    def events(entry: Any, me: Any, asker: Any) -> list[Any]:
        return [] if isinstance(entry.body, Receipt) and entry.party == me else real(entry, me, asker)

    @contextmanager
    def both() -> Iterator[None]:
        with patch.object(replays, "_events", events):
            yield

    return both()


def _kept_for_ever() -> AbstractContextManager[Any]:
    return patch.object(Keeper, "ended", lambda self, task, answer: None)


def _outbox_is_not_emptied() -> AbstractContextManager[Any]:
    return patch.object(exchange.Outbox, "drop", lambda self, task: None)


def _resumes_at_the_start() -> AbstractContextManager[Any]:
    real = exchange._pieces

    def pieces(link: Any, pull: Any, parcel: Any, offset: int, seconds: float) -> Any:
        return real(link, pull, parcel, 0, seconds)

    return patch.object(exchange, "_pieces", pieces)


def _a_lost_link_ends_a_pull() -> AbstractContextManager[Any]:
    return patch.object(exchange, "_PAUSE_SECONDS", float("inf"))


def _asks_are_taken_on_trust() -> AbstractContextManager[Any]:
    real = Runner.ask

    def ask(self: Runner, id: Any, proposal: Any) -> Any:
        live = real(self, id, proposal)
        live.recorded.set()
        return live

    return patch.object(Runner, "ask", ask)


def _answers_are_not_kept() -> AbstractContextManager[Any]:
    async def save_answer(self: Keeper, task: Any, answer: Any) -> None:
        return None

    return patch.object(Keeper, "save_answer", save_answer)


def _the_spool_is_swept_at_start() -> AbstractContextManager[Any]:
    real = Spool.clear
    return patch.object(Spool, "clear", lambda self, but=(): real(self))


def _contracts_without_everybody() -> AbstractContextManager[Any]:
    return patch.object(Runner, "_not_taken_in", lambda self, live, told, party, error: None)


class _Agrees:
    """A digest that is equal to every other."""

    __hash__ = object.__hash__

    def __init__(self, data: bytes = b"") -> None:
        self._digest = hashlib.sha256(data)

    def update(self, data: bytes) -> None:
        self._digest.update(data)

    def digest(self) -> Any:
        return _Same(self._digest.digest())


class _Same(bytes):
    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def _digests_are_not_compared() -> AbstractContextManager[Any]:
    return patch.object(exchange, "hashlib", SimpleNamespace(sha256=_Agrees))


def _reservations_do_not_lapse() -> AbstractContextManager[Any]:
    def advance(self: Resources, now: float) -> list[Any]:
        self._advanced = math.nextafter(now, math.inf)  # or what is due at `now` stays due
        return [*self._grant(now), *self._start(now)]

    return patch.object(Resources, "advance", advance)


def _nobody_is_fenced() -> AbstractContextManager[Any]:
    return patch.object(Pair, "is_over", lambda self, epoch: False)


def _only_the_dead_are_replaced() -> AbstractContextManager[Any]:
    return patch.object(
        Challenge, "look", lambda self, found, now, gone=False: found is None or not found.holder or gone
    )


def _strangers_are_refused() -> AbstractContextManager[Any]:
    return patch.object(Ledger, "knows_signers", lambda self, contract: True)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("persist-before-send", "statements are sent before they are durable", _ledger_does_not_wait),
    Mutant(
        "acknowledge-when-durable", "statements are acknowledged before they are durable", _acknowledged_before_durable
    ),
    Mutant("ask-is-recorded", "a question is accepted before it is durable", _asks_are_taken_on_trust),
    Mutant("courier-retries", "the courier gives up at the first lost link", _courier_gives_up),
    Mutant("said-again-after-restart", "what was said is not repeated after a restart", _nothing_is_said_again),
    Mutant(
        "resumes-work",
        "a restarted node does not go on with its steps",
        _instructions(lambda t, i: isinstance(i, Perform), Restarted),
    ),
    Mutant(
        "deadline-after-restart",
        "a restarted node sets no timers",
        _instructions(lambda t, i: isinstance(i, Wake), Restarted),
    ),
    Mutant("timers", "no timer is ever set", _all_events(lambda t, i: isinstance(i, Wake))),
    Mutant(
        "contract-said-again",
        "a contract lost in a crash is not written again",
        _instructions(lambda t, i: _publishes(i, Contract), Restarted),
    ),
    Mutant(
        "attempts-are-told",
        "who begins a joint step anew does not say so",
        _all_events(lambda t, i: _publishes(i, Attempt)),
    ),
    Mutant(
        "redo",
        "who hears that a joint step begins anew goes on with the old run",
        _all_events(lambda t, i: isinstance(i, Redo)),
    ),
    Mutant("runs-have-names", "messages of different runs are mixed", _one_run_for_ever),
    Mutant("one-receipt", "a restarted node forgets its receipts", _receipts_are_forgotten),
    Mutant("answer-is-kept", "an answer is not kept before its receipt", _answers_are_not_kept),
    Mutant("spool-survives", "a restarted node sweeps files that are still needed", _the_spool_is_swept_at_start),
    Mutant("outputs-go", "outputs of ended tasks are kept for ever", _kept_for_ever),
    Mutant("outbox-is-emptied", "outputs for others are held for ever", _outbox_is_not_emptied),
    Mutant("resume-offset", "a fetch that goes on begins at the start of the output", _resumes_at_the_start),
    Mutant("fetch-retries", "a lost link ends a fetch", _a_lost_link_ends_a_pull),
    Mutant(
        "digest-check",
        "what was fetched is not compared with the digest it was announced with",
        _digests_are_not_compared,
    ),
    Mutant("reservation-lapse", "a reservation without a contract is held for ever", _reservations_do_not_lapse),
    Mutant(
        "refusal-is-heard",
        "a participant that did not take in a proposal counts as waiting",
        _contracts_without_everybody,
    ),
    Mutant("fencing", "a node whose lease is over writes on", _nobody_is_fenced, ("pause",)),
    Mutant("takeover", "a node that hangs keeps its lease", _only_the_dead_are_replaced),
    Mutant(
        "certificate-comes-first",
        "a contract is refused for the offer of a node that is not known yet",
        _strangers_are_refused,
    ),
)
