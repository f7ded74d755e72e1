# SPDX-License-Identifier: Apache-2.0
"""What a node answers to nodes of other parties: facts, statements of tasks, outputs.

Every statement is checked and durable before it has an effect, and before its sender is told that we have it.
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from junto.errors import Cancelled, InvalidInput, InvalidTransition, JuntoError, PeerFault, Unavailable
from junto.journal.statement import CERTIFICATE, Statement, body_of
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.logs import logger
from junto.node.clocks import Clocks
from junto.node.exchange import Outbox, decode_pull
from junto.node.facts import FACTS, Facts
from junto.node.ledger import Kept, Ledger
from junto.node.routes import Method
from junto.node.runner import Live, Runner
from junto.plan import steps
from junto.tasks.bodies import BODIES, Attempt, Body, Confirm, Contract, Offer, Proposal, Receipt, Refusal, Stop
from junto.tasks.events import (
    AttemptArrived,
    ConfirmArrived,
    ContractArrived,
    OfferArrived,
    ReceiptArrived,
    RefusalArrived,
    StopArrived,
)
from junto.tasks.table import ENDED
from junto.types import PartyId, TaskId

_log = logger("junto.peers")
_STATEMENTS = 256
_STALE_SECONDS = 60.0


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
    ) -> None:
        """`offered` hears in how many seconds a party says that it can start. `leads`: see `Ground`."""
        self._ledger = ledger
        self._facts = facts
        self._runner = runner
        self._outbox = outbox
        self._longest = longest_seconds
        self._unix_time = unix_time
        self._offered = offered
        self._leads = leads
        self._clocks = clocks
        self._taking: set[asyncio.Task[None]] = set()

    @property
    def routes(self) -> dict[str, Method]:
        """What we answer to peers."""
        return {
            methods.PEER_FACTS: self.facts,
            methods.PEER_TELL: self.tell,
            methods.PEER_PULL: self.pull,
            methods.PEER_READ: self.read,
        }

    async def facts(self, caller: Caller, payload: bytes) -> Answer:
        """What we have published, oldest first."""
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
        """Open, journal and act on what a peer brought. Raises the first refusal, after the others had their effect."""
        try:
            brought = msgspec.msgpack.decode(payload, type=methods.Envelopes).envelopes
        except msgspec.MsgspecError as error:
            raise PeerFault(f"{sender} brought something that is no list of statements") from error
        if len(brought) > _STATEMENTS:
            raise InvalidInput(f"{sender} brought {len(brought)} statements at once; at most {_STATEMENTS}")
        refusal: JuntoError | None = None
        opened: list[tuple[bytes, Statement, Body | None]] = []
        proposed: dict[TaskId, Proposal] = {}  # what follows its proposal in one list is of a known task
        for envelope in brought:
            try:
                statement = self._ledger.open(envelope, sender)
                body = self._checked(sender, statement, proposed)
                opened.append((envelope, statement, body))
                if isinstance(body, Proposal):
                    proposed[statement.task] = body
            except (InvalidInput, PeerFault) as error:
                refusal = refusal or error
        for (_, _, body), kept in zip(opened, await self._kept(opened), strict=True):
            try:
                if isinstance(kept, BaseException):
                    raise kept
                if kept.new:
                    self._act(sender, kept, body)
            except (InvalidInput, PeerFault) as error:
                _log.warning("a statement had no effect", party=sender, reason=str(error))
                refusal = refusal or error
        if refusal is not None:
            raise refusal

    async def _kept(self, opened: list[tuple[bytes, Statement, Body | None]]) -> list[Kept | BaseException]:
        """Each statement in our journal, or why it is not; one alone, as most come, makes no jobs."""
        if len(opened) == 1:
            ((envelope, statement, _),) = opened
            try:
                return [await self._ledger.keep(envelope, statement)]
            except JuntoError as error:
                return [error]
        keeping = (self._ledger.keep(envelope, statement) for envelope, statement, _ in opened)
        return await asyncio.gather(*keeping, return_exceptions=True)

    async def pull(self, caller: Caller, payload: bytes) -> Answer:
        """An output of ours for this caller, once it is there."""
        pull = decode_pull(payload)
        await self._contracted(caller, pull.task)
        return msgspec.msgpack.encode(await self._outbox.parcel(pull, caller.name.party))

    async def read(self, caller: Caller, payload: bytes) -> Answer:
        """The bytes of such an output, streamed."""
        pull = decode_pull(payload)
        await self._contracted(caller, pull.task)
        return self._outbox.read(pull, caller.name.party)

    async def _contracted(self, caller: Caller, task: str) -> Live:
        live = self._runner.live.get(TaskId(task))
        if live is None:
            raise self._unknown(caller.name.party, task)
        party = caller.name.party
        if party not in live.task.proposal.participants:
            raise PeerFault(f"{party} takes no part in task {task}")
        await live.contracted.wait()
        if live.task.state in ENDED:
            raise Cancelled(f"task {task} has ended at {self._ledger.name.party} ({live.task.state})")
        return live

    def _checked(self, sender: PartyId, statement: Statement, proposed: Mapping[TaskId, Proposal]) -> Body | None:
        """The body of a task's statement, well-formed and of a participant; facts are checked by the view."""
        shape = BODIES.get(statement.kind)
        if shape is None:
            if statement.kind not in (CERTIFICATE, *FACTS):
                raise PeerFault(f"{sender} brought a statement of kind {statement.kind}, which is not for us")
            return None
        body = body_of(statement, shape)
        if isinstance(body, Proposal):
            self._check_proposal(sender, statement, body)
            return body
        live = self._runner.live.get(statement.task)
        proposal = live.task.proposal if live is not None else proposed.get(statement.task)
        if proposal is None:
            raise self._unknown(sender, statement.task)
        if sender not in proposal.participants:
            raise PeerFault(f"{sender} takes no part in task {statement.task}")
        if isinstance(body, Contract) and not self._ledger.knows_signers(body):
            # Another node of that party has taken over, and its certificate is on its way here: nothing is kept yet.
            raise Unavailable(f"{self._ledger.name.party} has not heard yet of a node whose offer {sender} took up")
        return body

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
        if steps.digest(proposal.plan) != proposal.plan_digest:
            raise PeerFault(f"{sender} proposes task {statement.task} with another plan than its digest says")
        if proposal.plan.asker != sender or proposal.participants != proposal.plan.parties:
            raise PeerFault(f"{sender} proposes task {statement.task} with other participants than its plan has")
        if self._ledger.name.party not in proposal.participants:
            raise InvalidInput(f"{sender} proposes task {statement.task} to us, who have no part in it")

    def _act(self, sender: PartyId, kept: Kept, body: Body | None) -> None:
        statement = kept.statement
        now = self._unix_time()
        if isinstance(body, Proposal):
            self._runner.open_proposal(statement.task, sender, statement.id, body)
            return
        if body is None:
            for line in self._facts.absorb(kept):
                _log.warning("a dataset differs from another of its name", difference=line)
            return
        live = self._runner.find(statement.task)
        try:
            self._feed(live, sender, kept, body, now)
        except InvalidTransition as error:  # of ours it would be our bug; a peer's is out of turn
            raise PeerFault(
                f"{sender} brought its {statement.kind} out of turn: task {statement.task} is {live.task.state} here"
            ) from error

    def _feed(self, live: Live, sender: PartyId, kept: Kept, body: Body, now: float) -> None:
        statement = kept.statement
        match body:
            case Offer():
                self._offered(sender, body.starts)
                event = OfferArrived(sender, body, kept.envelope.decode(), now)
                self._runner.dispatch(live, event)
            case Refusal():
                self._runner.dispatch(live, RefusalArrived(sender, body, now))
            case Contract():
                offers = self._offers(live, body)
                self._runner.dispatch(live, ContractArrived(sender, statement.id, body, offers, now))
            case Confirm():
                self._runner.dispatch(live, ConfirmArrived(sender, body, now, statement.id))
            case Attempt():
                self._runner.dispatch(live, AttemptArrived(sender, body, now))
            case Receipt():
                self._receipt(live, sender, statement.id, body)
            case Stop():
                self._runner.dispatch(live, StopArrived(sender, body, now))
            case _:
                raise PeerFault(f"{sender} brought a statement of kind {statement.kind} about a task")

    def _receipt(self, live: Live, sender: PartyId, statement: str, body: Receipt) -> None:
        """Watchers hear of the receipt with its statement's name, or, if it is refused, not at all."""
        before, live.receipt_statement = live.receipt_statement, statement
        try:
            self._runner.dispatch(live, ReceiptArrived(sender, body, self._unix_time()))
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
