# SPDX-License-Identifier: Apache-2.0
"""Tells the other participants of a lapse that ends nothing, so that nobody wonders what a task waits for.

An end reaches all as a signed statement. That a party stays away from one participant, or that its offer is late, is
no statement: it is a note, told once to whoever can be reached, and it changes nothing but what people read.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec

from junto.errors import InvalidInput, JuntoError, PeerFault
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.link.links import Links
from junto.logs import logger
from junto.node.notices import Notices
from junto.node.routes import Method
from junto.node.runner import Runner
from junto.tasks.notices import Notice, notice_id
from junto.tasks.state import Task
from junto.types import PartyId

_log = logger("junto.notes")
_SECONDS = 5.0  # to reach a participant; a note is worth no more
_MOST = 50  # from one participant about one task
_UNDER_WAY = 256
_ID_CHARACTERS = 64

_Told = Literal["wait", "away", "back"]
_WORDS: dict[_Told, str] = {
    "wait": "{by} still waits for {party}, past the limit",
    "away": "{party} stays away from {by}",
    "back": "{party} is back at {by}",
}


class Notes:
    """The notes that this node and the other participants send each other about their lapses."""

    def __init__(
        self, me: PartyId, notices: Notices, runner: Runner, links: Links, unix_time: Callable[[], float]
    ) -> None:
        self._me = me
        self._notices = notices
        self._runner = runner
        self._links = links
        self._unix_time = unix_time
        self._heard: WeakKeyDictionary[Task, Counter[PartyId]] = WeakKeyDictionary()
        self._away: WeakKeyDictionary[Task, set[tuple[PartyId, PartyId]]] = WeakKeyDictionary()
        self._under_way: set[asyncio.Task[None]] = set()
        notices.listeners.append(self._raised)

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that peers may call."""
        return {methods.PEER_NOTE: self.hear}

    async def close(self) -> None:
        """Stop telling."""
        for telling in self._under_way:
            telling.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def hear(self, caller: Caller, payload: bytes) -> Answer:
        """A participant's word about a task of ours that is open. Raises PeerFault, InvalidInput."""
        sender = caller.name.party
        try:
            note = msgspec.msgpack.decode(payload, type=methods.Note)
        except msgspec.MsgspecError:
            raise PeerFault(f"{sender} brought something that is no note") from None
        if note.kind not in _WORDS or len(note.id) > _ID_CHARACTERS:
            raise InvalidInput(f"{sender} brought a note that is not known here, or has no proper id")
        task = self._runner.find(note.task).task
        if not {sender, note.party} <= set(task.proposal.participants):
            raise PeerFault(f"{sender} brought a note about task {task.id} in which not both take part")
        kind = note.kind
        heard = self._heard.setdefault(task, Counter())
        if task.outcome is not None or heard[sender] >= _MOST or not self._is_news(task, sender, kind, note.party):
            return b""
        heard[sender] += 1
        text = _WORDS[kind].format(by=sender, party=note.party)
        id = notice_id(self._me, kind, task.id, note.party, sender, note.id)
        severity: Literal["info", "warning"] = "info" if kind == "back" else "warning"
        self._notices.tell(Notice(id, kind, task.id, note.party, sender, text, self._unix_time(), severity))
        return b""

    def _is_news(self, task: Task, sender: PartyId, kind: _Told, party: PartyId) -> bool:
        """True if we do not see that absence ourselves; of a return, if we told of the absence."""
        told = self._away.setdefault(task, set())
        match kind:
            case "away" if party == self._me or party in task.away:
                return False
            case "away":
                told.add((sender, party))
                return True
            case "back":
                was_told = (sender, party) in told
                told.discard((sender, party))
                return was_told
            case "wait":
                return True

    def _raised(self, notice: Notice) -> None:
        live = self._runner.live.get(notice.task)
        if notice.by != self._me or notice.kind not in _WORDS or live is None or live.task.outcome is not None:
            return
        note = msgspec.msgpack.encode(methods.Note(notice.task, notice.kind, notice.party, notice.id))
        for party in live.task.others:
            if party not in live.task.away and len(self._under_way) < _UNDER_WAY:
                telling = asyncio.create_task(self._tell(party, note))
                self._under_way.add(telling)
                telling.add_done_callback(self._under_way.discard)

    async def _tell(self, party: PartyId, note: bytes) -> None:
        try:
            link = await self._links.to(party, _SECONDS)
            await link.call(methods.PEER_NOTE, note, timeout_seconds=_SECONDS)
        except JuntoError as error:
            _log.info("a note was not taken", party=party, code=error.code)
