# SPDX-License-Identifier: Apache-2.0
"""The answers of a node to nodes of other parties: facts, statements of tasks, outputs.

Every statement is checked and durable before it has an effect, and before its sender is told that we have it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from junto.errors import (
    Cancelled,
    InvalidInput,
    InvalidTransition,
    JuntoError,
    PeerFault,
    Refused,
    StorageFailed,
    Unavailable,
)
from junto.journal.statement import CERTIFICATE, Statement, body_of
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.logs import logger
from junto.node.clocks import Clocks
from junto.node.courier import Unrecorded
from junto.node.exchange import Outbox, Pull, check_pull, decode_pull
from junto.node.facts import TOLD, Facts
from junto.node.heads import check_told
from junto.node.ledger import Kept, Ledger
from junto.node.quotas import Quotas
from junto.node.routes import Method
from junto.node.runner import Live, Runner
from junto.plan import steps
from junto.plan.budget import check_budget
from junto.tasks.bodies import BODIES, Attempt, Body, Confirm, Contract, Offer, Proposal, Receipt, Refusal, Stop
from junto.tasks.checks import check_late
from junto.tasks.events import (
    AttemptArrived,
    ConfirmArrived,
    ContractArrived,
    Event,
    OfferArrived,
    ReceiptArrived,
    RefusalArrived,
    StopArrived,
)
from junto.tasks.lengths import check_lengths
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.types import PartyId

_log = logger("junto.peers")
_STATEMENTS = 256
_STALE_SECONDS = 60.0
_SMALL_BYTES = 32 << 10
_MOST_REPEATED = 64  # confirmations, or new attempts, of one party about one task; beside them eight for each step


@dataclass(frozen=True, slots=True)
class _Brought:
    """A statement that was judged: its body if it is about a task, and what it means to a task that there is."""

    envelope: bytes
    statement: Statement
    body: Body | None = None
    event: Event | None = None


class Peers:
    """The peers' side of one node."""

    def __init__(
        self,
        ledger: Ledger,
        facts: Facts,
        runner: Runner,
        outbox: Outbox,
        longest_seconds: float,
        unix_time: Callable[[], float],
        offered: Callable[[PartyId, float], None],
        leads: Callable[[], bool],
        clocks: Clocks,
        quotas: Quotas,
        heard: Callable[[Kept], None],
    ) -> None:
        """`heard` is told of every statement that is new. `offered` hears in how many seconds a party says that it can
        start. `leads`: see `Ground`."""
        self._ledger = ledger
        self._facts = facts
        self._runner = runner
        self._outbox = outbox
        self._longest = longest_seconds
        self._unix_time = unix_time
        self._offered = offered
        self._leads = leads
        self._clocks = clocks
        self._quotas = quotas
        self._heard = heard
        self._turns: dict[PartyId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._taking: set[asyncio.Task[None]] = set()

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that peers may call."""
        return {
            methods.PEER_FACTS: self.facts,
            methods.PEER_TELL: self.tell,
            methods.PEER_PULL: self.pull,
            methods.PEER_READ: self.read,
            methods.PEER_UNRECORDED: self.unrecorded,
        }

    async def facts(self, caller: Caller, payload: bytes) -> Answer:
        """The facts that we have published, oldest first."""
        return msgspec.msgpack.encode(methods.Envelopes(tuple(self._facts.own_envelopes())))

    async def tell(self, caller: Caller, payload: bytes) -> Answer:
        """Take in statements, in order. Answers when all are durable; a refused one does not hold up the others.

        If the link goes down meanwhile, we go on: what is durable and had no effect would not be new when told again.
        """
        taking = asyncio.create_task(self.take_in(caller.name.party, payload))
        self._taking.add(taking)
        taking.add_done_callback(self._taken)
        await asyncio.shield(taking)
        return b""

    def _taken(self, taking: asyncio.Task[None]) -> None:
        self._taking.discard(taking)
        if not taking.cancelled():
            taking.exception()  # seen, also where nobody is left to hear of it

    async def take_in(self, sender: PartyId, payload: bytes) -> None:
        """Open, judge, journal and act on what a peer brought. Raises the first refusal, after the others had their
        effect. What is refused is not kept."""
        self._quotas.check(sender)
        try:
            brought = msgspec.msgpack.decode(payload, type=methods.Envelopes).envelopes
        except msgspec.MsgspecError as error:
            raise PeerFault(f"{sender} brought something that is no list of statements") from error
        if len(brought) > _STATEMENTS:
            raise InvalidInput(f"{sender} brought {len(brought)} statements at once; at most {_STATEMENTS}")
        async with self._turns[sender]:  # or a statement overtakes the certificate that it is checked by
            await self._in_order(sender, brought)

    async def _in_order(self, sender: PartyId, brought: tuple[bytes, ...]) -> None:
        refusals: list[JuntoError] = []
        judged: list[_Brought] = []
        for envelope in brought:
            statement: Statement | None = None
            try:
                statement = self._ledger.open(envelope, sender)
                self._quotas.check(sender, len(judged) + 1, sum(len(one.envelope) for one in judged) + len(envelope))
                if judged and not self._is_in_turn(sender, envelope, statement):
                    await self._take(sender, judged, refusals)  # it may be, once what came before it had its effect
                    judged = []
                judged.append(self._judged(sender, envelope, statement))
            except (InvalidInput, PeerFault, Refused) as error:
                if statement is None or not self._ledger.holds(envelope, statement):
                    refusals.append(error)
        await self._take(sender, judged, refusals)
        if refusals:
            raise refusals[0]

    async def _take(self, sender: PartyId, judged: "list[_Brought]", refusals: list[JuntoError]) -> None:
        """Journal what was judged, all of it together, and act on each."""
        for one, kept in zip(judged, await self._kept(judged), strict=True):
            try:
                if isinstance(kept, BaseException):
                    raise kept
                if kept.new:
                    self._quotas.took(sender, len(one.envelope))
                    self._heard(kept)
                    self._act(sender, kept, one)
            except (InvalidInput, PeerFault) as error:
                _log.warning("a statement had no effect", party=sender, reason=str(error))
                refusals.append(error)

    async def _kept(self, judged: "list[_Brought]") -> list[Kept | BaseException]:
        """Each statement in our journal, or why it is not; one alone, as most come, makes no jobs."""
        if len(judged) == 1:
            try:
                return [await self._ledger.keep(judged[0].envelope, judged[0].statement)]
            except JuntoError as error:
                return [error]
        keeping = (self._ledger.keep(one.envelope, one.statement) for one in judged)
        return await asyncio.gather(*keeping, return_exceptions=True)

    async def pull(self, caller: Caller, payload: bytes) -> Answer:
        """An output of ours for this caller, once it is there."""
        pull = decode_pull(payload)
        await self._contracted(caller, pull)
        return msgspec.msgpack.encode(await self._outbox.parcel(pull, caller.name.party))

    async def read(self, caller: Caller, payload: bytes) -> Answer:
        """The bytes of such an output, streamed."""
        pull = decode_pull(payload)
        await self._contracted(caller, pull)
        return self._outbox.read(pull, caller.name.party)

    async def unrecorded(self, caller: Caller, payload: bytes) -> Answer:
        """A participant's word that a task ended there, in place of the statement that its journal has no room for."""
        sender = caller.name.party
        try:
            word = msgspec.msgpack.decode(payload, type=Unrecorded)
        except msgspec.MsgspecError:
            raise PeerFault(f"{sender} says of a task that it ended there, and not as such a thing is said") from None
        live = self._runner.live.get(word.task)
        if live is None:
            raise self._unknown(sender, word.task)
        if sender not in live.task.proposal.participants:
            raise PeerFault(f"{sender} takes no part in task {word.task}")
        self._runner.ended_unrecorded(live, sender, StorageFailed("", lack=word.lack).told_by(sender))
        return b""

    async def _contracted(self, caller: Caller, pull: Pull) -> None:
        live = self._runner.live.get(pull.task)
        if live is None:
            raise self._unknown(caller.name.party, pull.task)
        party = caller.name.party
        if party not in live.task.proposal.participants:
            raise PeerFault(f"{party} takes no part in task {pull.task}")
        check_pull(pull, live.task.proposal.plan, self._ledger.name.party, party)
        await live.contracted.wait()
        if live.task.state in ENDED and isinstance(live.failure, StorageFailed):
            raise live.failure  # no statement says so
        if live.task.state in ENDED:
            raise Cancelled(f"task {pull.task} has ended at {self._ledger.name.party} ({live.task.state})")

    def _is_in_turn(self, sender: PartyId, envelope: bytes, statement: Statement) -> bool:
        try:
            self._judged(sender, envelope, statement)
        except (InvalidInput, PeerFault):
            return False
        return True

    def _judged(self, sender: PartyId, envelope: bytes, statement: Statement) -> "_Brought":
        """The statement, well-formed, short enough, by one whom it concerns, in turn; facts are checked by the view.

        Raises InvalidInput, PeerFault, OverQuota; Unavailable for what may be told again in a moment.
        """
        shape = BODIES.get(statement.kind)
        if shape is None:
            if statement.kind not in (CERTIFICATE, *TOLD):
                raise PeerFault(f"{sender} brought a statement of kind {statement.kind}, which is not for us")
            if statement.kind != "dataset" and len(envelope) > _SMALL_BYTES:
                raise InvalidInput(f"{sender} brought a {statement.kind} of {len(envelope):,} bytes: too long")
            check_told(statement)
            return _Brought(envelope, statement)
        body = body_of(statement, shape)
        check_lengths(body)
        if isinstance(body, Proposal):
            self._check_proposal(sender, statement, body)
            return _Brought(envelope, statement, body)
        live = self._runner.live.get(statement.task)
        if live is None:
            raise self._unknown(sender, statement.task)
        if sender not in live.task.proposal.participants:
            raise PeerFault(f"{sender} takes no part in task {statement.task}")
        if isinstance(body, Contract) and not self._ledger.knows_signers(body):
            # Another node of that party has taken over, and its certificate is on its way here: nothing is kept yet.
            raise Unavailable(f"{self._ledger.name.party} has not heard yet of a node whose offer {sender} took up")
        event = self._event(live, sender, envelope, statement, body)
        try:
            live.task.check(event)
        except InvalidTransition as error:  # of ours it would be our bug; a peer's is out of turn
            raise _out_of_turn(sender, statement, live) from error
        if live.task.state in ENDED:
            check_late(live.task.id, live.task.me, live.task.asker, live.task.proposal, event)
        said = live.said.setdefault((sender, statement.kind), set())
        if statement.id not in said and len(said) >= _most(live.task, body):
            raise _out_of_turn(sender, statement, live)
        said.add(statement.id)
        return _Brought(envelope, statement, body, event)

    def _unknown(self, sender: PartyId, task: str) -> JuntoError:
        """A task that is unknown to one that hung may have come to another node of the party: it gives way in a moment,
        and who asks again is heard by the one that leads."""
        if not self._leads():
            return Unavailable(f"this node of {self._ledger.name.party} hung, and does not know yet whether it leads")
        return InvalidInput(f"{sender} speaks of task {task}, which is not known here")

    def _check_proposal(self, sender: PartyId, statement: Statement, proposal: Proposal) -> None:
        if not 0 < proposal.seconds <= self._longest:
            raise InvalidInput(
                f"{sender} proposes a deadline of {proposal.seconds:g} s; at most {self._longest:g} s here"
            )
        asked_at = statement.at - self._clocks.ahead(sender)  # by our clock
        if asked_at + proposal.seconds + _STALE_SECONDS < self._unix_time():
            off = self._clocks.words(sender)
            raise InvalidInput(
                f"{sender} proposes task {statement.task}, whose deadline has passed{off and f' ({off})'}: ask again"
            )
        check_budget(proposal.plan)  # before it is journaled, too
        if steps.digest(proposal.plan) != proposal.plan_digest:
            raise PeerFault(f"{sender} proposes task {statement.task} with another plan than its digest says")
        if proposal.plan.asker != sender or proposal.participants != proposal.plan.parties:
            raise PeerFault(f"{sender} proposes task {statement.task} with other participants than its plan has")
        if statement.task in self._runner.live:
            raise PeerFault(f"{sender} proposes task {statement.task} twice")
        self._quotas.check_task(sender)
        if self._ledger.name.party not in proposal.participants:
            raise InvalidInput(f"{sender} proposes task {statement.task} to us, who have no part in it")

    def _act(self, sender: PartyId, kept: Kept, one: "_Brought") -> None:
        statement, body = kept.statement, one.body
        if isinstance(body, Proposal):
            self._runner.open_proposal(statement.task, sender, statement.id, body)
            return
        if one.event is None:
            for line in self._facts.absorb(kept):
                _log.warning("a dataset differs from another of its name", difference=line)
            return
        live = self._runner.find(statement.task)
        if isinstance(body, Offer):
            self._offered(sender, body.starts)
        try:
            if isinstance(body, Receipt):
                self._receipt(live, statement.id, one.event)
            else:
                self._runner.dispatch(live, one.event)
        except InvalidTransition as error:  # the task went on while the statement was being kept
            raise _out_of_turn(sender, statement, live) from error

    def _event(self, live: Live, sender: PartyId, envelope: bytes, statement: Statement, body: Body) -> Event:
        """The statement as its task's machine hears it."""
        now = self._unix_time()
        match body:
            case Offer():
                return OfferArrived(sender, body, envelope.decode(), now)
            case Refusal():
                return RefusalArrived(sender, body, now)
            case Contract():
                return ContractArrived(sender, statement.id, body, self._offers(live, body), now)
            case Confirm():
                return ConfirmArrived(sender, body, now, statement.id)
            case Attempt():
                return AttemptArrived(sender, body, now)
            case Receipt():
                return ReceiptArrived(sender, body, now)
            case Stop():
                return StopArrived(sender, body, now)
            case _:
                raise PeerFault(f"{sender} brought a statement of kind {statement.kind} about a task")

    def _receipt(self, live: Live, statement: str, event: Event) -> None:
        """Watchers hear of the receipt with its statement's name, or, if it is refused, not at all."""
        before, live.receipt_statement = live.receipt_statement, statement
        try:
            self._runner.dispatch(live, event)
        except JuntoError:
            live.receipt_statement = before
            raise

    def _offers(self, live: Live, contract: Contract) -> tuple[tuple[PartyId, Offer], ...]:
        """The offers in a contract, each signed by the participant it is of; ours is the one we wrote."""
        ours, offer = live.offered or ("", None)
        return tuple(
            (self._ledger.name.party, offer)
            if offer is not None and envelope == ours
            else self._ledger.open_offer(envelope.encode(), live.task.id)
            for envelope in contract.offers
        )


def _most(task: Task, body: Body) -> int:
    """The most statements of this kind that one party makes about a task."""
    return _MOST_REPEATED + 8 * len(task.proposal.plan.steps) if isinstance(body, Confirm | Attempt) else 1


def _out_of_turn(sender: PartyId, statement: Statement, live: Live) -> PeerFault:
    return PeerFault(
        f"{sender} brought its {statement.kind} out of turn: task {statement.task} is {live.task.state} here"
    )
