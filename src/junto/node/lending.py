# SPDX-License-Identifier: Apache-2.0
"""Work for others: for whom we compute what reads none of our data, and who may compute for two owners, one of them us.

A helper goes by its own `compute` line. An owner sees to it that an asker does not take a helper's place: where the
plan passes over a member that could help (`plan/computing.py` has the order), the owner asks that member. It refuses
the plan if the member says that it computes for the asker now. A member counts as away if our link to it is down or
came up a moment ago, so that who asked may have missed it; if it does not answer in time; and if it says no: the asker
is not in its line any more, or a task of the asker's has failed there a moment ago for want of room, disk or the like.

The limits of this: an asker that fills a helper up with its own questions, or colludes with it, computes itself, under
verified products as ever. An asker that has no link to a helper to which we have one is refused, as we cannot tell this
from a pretence; the refusal says who has to be reached.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from junto.catalog.consent import refused
from junto.catalog.view import CatalogView
from junto.errors import (
    DataChanged,
    DeadlineExceeded,
    HelperAway,
    InvalidInput,
    JuntoError,
    OverQuota,
    PeerFault,
    Refused,
)
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.link.links import Links
from junto.node.routes import Method, decoded
from junto.node.runner import Live
from junto.plan.computing import could_help, helper_of
from junto.plan.review import Review
from junto.plan.steps import Plan, Threshold
from junto.tasks.bodies import Refusal
from junto.types import PartyId

_ANSWER_SECONDS = 3.0  # for a member to say whether it computes
_FRESH_SECONDS = 20.0  # a link that came up since is one that who asked may not have yet
_FAILED_SECONDS = 20.0  # so long we say no after a task has failed here
_OF_THE_ASKER = frozenset(
    error.code for error in (DataChanged, DeadlineExceeded, InvalidInput, OverQuota, PeerFault, Refused)
)
"""Ends that say nothing of whether we can compute, and which an asker could bring about at will."""


class Lending:
    """A party's work for others, and its look at who works for it."""

    def __init__(
        self,
        me: PartyId,
        view: CatalogView,
        links: Links,
        tasks: Callable[[], Iterable[Live]],
        unix_time: Callable[[], float],
    ) -> None:
        """`tasks` are those that the node knows, also ended ones."""
        self._me = me
        self._tasks = tasks
        self._view = view
        self._links = links
        self._unix_time = unix_time

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that peers may call."""
        return {methods.PEER_LENDS: self.lends}

    async def lends(self, caller: Caller, payload: bytes) -> Answer:
        """The reply whether we compute for an asker now."""
        return msgspec.json.encode(self._lends(decoded(payload, methods.Lends).asker))

    def _lends(self, asker: PartyId) -> bool:
        if asker not in self._view.consents.get(self._me, ()):
            return False
        since = self._unix_time() - _FAILED_SECONDS
        return not any(self._failed(live, since) for live in self._tasks() if live.task.asker == asker)

    def _failed(self, live: Live, since: float) -> bool:
        """True if we have said that a task failed here for want of something; what others say of us does not count."""
        said, outcome = live.our_end, live.task.outcome
        if said is None or outcome is None or outcome.at < since or said.code in _OF_THE_ASKER:
            return False
        return isinstance(said, Refusal) or said.party == self._me

    def check(self, found: Review, asker: PartyId) -> None:
        """Raises Refused if we are to compute what reads none of our data, for a party that we do not do that for."""
        to = self._view.consents.get(self._me, ())
        if found.lent and asker != self._me and asker not in to:
            raise Refused(refused(self._me, asker, f"step {found.lent[0]}", to))

    async def check_nodes(self, plan: Plan) -> None:
        """Raises HelperAway if we have no link to the helper of a threshold that we contribute to, Refused if the plan
        passes over one that is there."""
        for step in plan.steps:
            if isinstance(step, Threshold) and self._me in step.contributors:
                await self._check_helper(step)

    async def _check_helper(self, step: Threshold) -> None:
        helper = helper_of(step)
        if helper is not None and self._links.now_to(helper) is None:
            raise HelperAway(f"{self._me} has no link to {helper}, which is to compute step {step.id}")
        passed = [p for p in could_help(step, self._view.consents) if helper is None or p < helper]
        there = await self._there(passed, step.receiver)
        if there:
            raise Refused(
                f"{self._me} refuses {step.receiver}: {there[0]} computes for {step.receiver} and is there, so step"
                f" {step.id} is not for {helper or step.receiver} to compute: ask again once {step.receiver} has a link"
                f" to {there[0]}"
            )

    async def _there(self, parties: Sequence[PartyId], asker: PartyId) -> list[PartyId]:
        """The parties that say they compute for the asker now."""
        since = self._unix_time() - _FRESH_SECONDS
        steady = {status.party for status in self._links.status() if status.up and status.since <= since}
        asked = [party for party in parties if party in steady]
        said = await asyncio.gather(*(self._asked(party, asker) for party in asked))
        return [party for party, yes in zip(asked, said, strict=True) if yes]

    async def _asked(self, party: PartyId, asker: PartyId) -> bool:
        link = self._links.now_to(party)
        if link is None:
            return False
        question = msgspec.json.encode(methods.Lends(asker))
        try:
            reply = await link.call(methods.PEER_LENDS, question, timeout_seconds=_ANSWER_SECONDS)
            return msgspec.json.decode(reply, type=bool)
        except (JuntoError, msgspec.MsgspecError):
            return False
