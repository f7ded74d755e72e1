# SPDX-License-Identifier: Apache-2.0
"""The heads of our journal that other parties have seen, and those of theirs that we have seen.

A node that starts asks each party it can reach which head of its journal that party saw last. If its own journal does
not lead there, entries are missing: the log or the file was cut, an older copy was put back, or a copy of the home has
run elsewhere. The node names it, takes back what the party holds of its statements, says so in a statement (`gap`), and
only then answers anybody. It asks again whenever a link comes up.

The other way round, whoever keeps statements compares their heads: one size with two roots, one start with two
processes, or a process that goes on after a later one began. It raises a notice; both statements are the evidence.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from junto.errors import InvalidInput, JuntoError, PeerFault, StorageFailed
from junto.journal.heads import GAP, START, Gap, Start
from junto.journal.statement import CERTIFICATE, Head, Statement, body_of, read_statement
from junto.link import methods
from junto.link.connection import Answer, Caller, Link
from junto.link.links import COPY, Links
from junto.logs import logger
from junto.node.facts import TOLD, Facts
from junto.node.ledger import Kept, Ledger
from junto.node.routes import Method
from junto.tasks.bodies import BODIES
from junto.types import PartyId

_log = logger("junto.heads")
_REACH_SECONDS = 1.0  # for a first attempt to reach a party at a start
_CALL_SECONDS = 5.0
_FETCH_SECONDS = 60.0
_KINDS = (*BODIES, *TOLD, CERTIFICATE)
_PAGE_ENTRIES = 256
_PAGE_BYTES = 2 << 20
_MOST_FETCHED = 50_000
_REMEMBERED_ROOTS = 4096  # of one party
_END = 1 << 62

T = TypeVar("T")
Tell = Callable[[str, str], None]
"""Raises a notice: what it is about, the same once; its text."""


@dataclass(slots=True)
class _Past:
    """The history heard of one party's journal."""

    roots: dict[int, str] = field(default_factory=dict)
    top: Head | None = None
    statement: str = ""
    starts: dict[int, str] = field(default_factory=dict)
    latest: int = 0
    opened: int = 0  # the size of its journal when the latest start was said


class Heads:
    """The heads of journals at one node."""

    def __init__(
        self,
        ledger: Ledger,
        facts: Facts,
        links: Links,
        instance: str,
        parties: list[PartyId],
        spread: Callable[[bytes], None],
        tell: Tell,
    ) -> None:
        """instance: what tells this process from others of its home. parties: the others. spread: tells a statement to
        everyone up now."""
        self._ledger = ledger
        self._journal = ledger.journal
        self._me: PartyId = ledger.name.party
        self._facts = facts
        self._links = links
        self._instance = instance
        self._parties = parties
        self._spread = spread
        self._tell = tell
        self._pasts: dict[PartyId, _Past] = {}
        self._gaps: list[Gap] = []
        self._last = 0  # the number of the last start that our journal, or a party, knows of
        self._asking = asyncio.Lock()
        self._recall()
        links.watch_copies(self.copied)

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that peers may call, also before anything else is answered."""
        return {methods.PEER_SEEN: self.seen, methods.PEER_SAID: self.said}

    # ── other parties' journals ─────────────────────────────────────────────────────────────────────

    def _recall(self) -> None:
        """Read what our journal holds of heads."""
        for party in self._parties:
            authors = self._ledger.nodes_of(party)
            latest = self._journal.said(authors, _KINDS, _END, _PAGE_ENTRIES)
            begun = self._journal.said(authors, (START, GAP), _END, _PAGE_ENTRIES)
            entries = {entry.index: entry for entry in (*latest, *begun)}
            for _, entry in sorted(entries.items()):
                self._hear(party, entry.statement, self._pasts.setdefault(party, _Past()))
        for entry in self._journal.entries(kinds=(START, GAP)):
            if entry.author.startswith(self._ledger.party_prefix):
                self._own(entry.statement)

    def heard(self, kept: Kept) -> None:
        """Compare a party's new statement with what it said before, and name what does not fit."""
        party = kept.author.party
        past = self._pasts.setdefault(party, _Past())
        for trouble in self._hear(party, kept.statement, past):
            self._say(f"{party} {trouble}", f"{trouble}: statement {kept.statement.id} shows it")

    def _hear(self, party: PartyId, statement: Statement, past: _Past) -> list[str]:
        """The contradictions in words."""
        found: list[str] = []
        head = statement.head
        if statement.kind == START:
            start = body_of(statement, Start)
            if start.anew:
                past.roots.clear()
                past.starts.clear()
                past.top, past.latest = None, 0
                found.append(f"{party} has lost its journal and began another")
            if past.starts.setdefault(start.number, start.instance) != start.instance:
                found.append(f"two processes of {party} both say that they are its start {start.number}: {_COPIED}")
            if start.number >= past.latest and isinstance(head, Head):
                past.latest, past.opened = start.number, head.size
        elif statement.kind == GAP:
            gap = body_of(statement, Gap)
            past.roots = {size: root for size, root in past.roots.items() if size <= gap.size}
            past.top = None
            found.append(f"{party} has lost entries of its journal after the first {gap.size}, and says so")
        if not isinstance(head, Head):
            return found
        if past.roots.setdefault(head.size, head.root) != head.root:
            found.append(f"the journal of {party} has two histories of its first {head.size} entries: {_COPIED}")
        if statement.kind != START and head.start < past.latest and head.size > past.opened:
            found.append(f"a process of {party} goes on writing after a later one began: {_COPIED}")
        while len(past.roots) > _REMEMBERED_ROOTS:
            past.roots.pop(next(iter(past.roots)))
        if past.top is None or head.size >= past.top.size:
            past.top, past.statement = head, statement.id
        return found

    async def seen(self, caller: Caller, payload: bytes) -> Answer:
        """The last head that we have seen of the caller's journal."""
        past = self._pasts.get(caller.name.party, _Past())
        top = past.top or Head(0, "", 0)
        instance = past.starts.get(past.latest, "")
        return msgspec.msgpack.encode(
            methods.Seen(top.size, top.root, top.start, past.statement, past.latest, instance)
        )

    async def said(self, caller: Caller, payload: bytes) -> Answer:
        """Statements of the caller's own party that we hold, the latest first."""
        try:
            before = msgspec.msgpack.decode(payload, type=methods.Before).position
        except msgspec.MsgspecError as error:
            raise PeerFault(f"{caller.name.party} asks for its statements without a place to begin at") from error
        authors = self._ledger.nodes_of(caller.name.party)
        envelopes: list[bytes] = []
        size = 0
        for entry in self._journal.said(authors, _KINDS, before, _PAGE_ENTRIES):
            size += len(entry.envelope)
            if envelopes and size > _PAGE_BYTES:
                break
            envelopes.append(entry.envelope)
            before = entry.index
        return msgspec.msgpack.encode(methods.Said(tuple(envelopes), before))

    def copied(self, party: PartyId) -> None:
        """A process of the party came back whose place a later one has taken."""
        self._say(f"{party} copied", f"two processes run as one node of {party}: {_COPIED}")

    def turned_away(self, party: PartyId, reason: str) -> None:
        """A link to a party ended: that party may say that a later process has taken our place."""
        if COPY in reason:
            self._say(f"{self._me} copied", f"{party} turns this node away: {reason}")

    # ── our own ─────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, anew: bool) -> None:
        """Find out from everyone in reach what our journal lacks, then say that this process writes it now."""
        await asyncio.gather(*(self._meet(party) for party in self._parties))
        self._ledger.start = self._last = self._last + 1
        try:
            kept = await self._ledger.write(START, Start(self._ledger.start, self._instance, anew))
        except StorageFailed as error:  # a full disk is no reason not to start
            _log.warning("this start is not in the journal", reason=str(error))
            return
        self._spread(kept.envelope)

    async def _meet(self, party: PartyId) -> None:
        link = await self._links.tried(party, _REACH_SECONDS)
        if link is not None:
            await self.ask(party, link)

    async def ask(self, party: PartyId, link: Link) -> None:
        """Compare our journal with what a party has seen of it."""
        try:
            reply = await link.call(methods.PEER_SEEN, timeout_seconds=_CALL_SECONDS)
            seen = _decoded(party, reply, methods.Seen)
            async with self._asking:
                await self._compare(party, link, seen)
        except JuntoError as error:
            _log.warning("a party does not say what it has seen of our journal", party=party, reason=str(error))

    async def _compare(self, party: PartyId, link: Link, seen: methods.Seen) -> None:
        if self._lacks(seen):
            size, _ = self._journal.head()
            taken = await self._fetch(party, link)
            head = self._proof(seen)
            if head is None:
                raise PeerFault(f"{party} says that {self._me} lacks entries of its own journal, and does not show one")
            self._say(
                f"{self._me} {seen.size} {seen.root}",
                f"{party} has seen {seen.size} entries of the journal of {self._me} and one more, and it does not hold "
                f"them ({size} entries were here): it was cut, or put back from an older copy, or a copy of this home "
                f"has run; {taken} statements came back from {party}. Grants, triggers and uses of grants were told to "
                "nobody: look at `junto grant ls` and `junto trigger ls`, and give again what is missing",
            )
            gap = Gap(size, head, party, taken)
            self._gaps.append(gap)
            self._spread((await self._ledger.write(GAP, gap)).envelope)
        ours = self._ledger.start
        later = seen.latest > ours or (seen.latest == ours and seen.instance != self._instance)
        if ours and later:
            self._say(
                f"{self._me} start {seen.latest} {seen.instance}",
                f"{party} has heard of another process of {self._me} that was started after this one: {_COPIED}",
            )

    def _lacks(self, seen: methods.Seen) -> bool:
        """True if a party says it has seen what our journal does not hold, and our journal names no gap."""
        if not seen.statement:
            return False
        if self._journal.find(seen.statement) is None:
            return True
        head = self._proof(seen)
        if head is None or any(gap.covers(head) for gap in self._gaps):
            return False
        size, _ = self._journal.head()
        return head.size > size or self._journal.root_at(head.size).hex() != head.root

    def _proof(self, seen: methods.Seen) -> Head | None:
        """The head that a party says it saw, if a statement of ours, which we hold by now, holds it too."""
        entry = self._journal.find(seen.statement)
        if entry is None or not entry.author.startswith(self._ledger.party_prefix):
            return None
        head = entry.statement.head
        return head if isinstance(head, Head) and (head.size, head.root) == (seen.size, seen.root) else None

    async def _fetch(self, party: PartyId, link: Link) -> int:
        """Take back the statements of ours that a party holds and we do not; how many there were."""
        missing: deque[bytes] = deque()
        before = _END
        while len(missing) < _MOST_FETCHED:
            request = msgspec.msgpack.encode(methods.Before(before))
            reply = await link.call(methods.PEER_SAID, request, timeout_seconds=_FETCH_SECONDS)
            page = _decoded(party, reply, methods.Said)
            lost = [one for one in page.envelopes if not self._ledger.holds(one, read_statement(one))]
            missing.extendleft(lost)
            if not lost or page.last >= before:
                break
            before = page.last
        taken = 0
        for envelope in missing:
            try:
                statement = self._ledger.open(envelope, self._me)
                kept = await self._ledger.keep(envelope, statement)
                taken += kept.new
                if statement.kind in (START, GAP):
                    self._own(statement)
                elif statement.kind not in BODIES:
                    self._facts.absorb(kept)
            except (InvalidInput, PeerFault) as error:
                _log.warning("what a party holds as ours is not", party=party, reason=str(error))
        return taken

    def _own(self, statement: Statement) -> None:
        if statement.kind == START:
            self._last = max(self._last, body_of(statement, Start).number)
        else:
            self._gaps.append(body_of(statement, Gap))

    def _say(self, about: str, text: str) -> None:
        _log.error("a journal is not what it was", what=text)
        self._tell(about, text)


def check_told(statement: Statement) -> None:
    """Nothing, if what a party says of its journal is well-formed. Raises InvalidInput."""
    if statement.kind == START:
        body_of(statement, Start)
    elif statement.kind == GAP:
        body_of(statement, Gap)


_COPIED = "a home was copied and runs twice, or an older copy of it was put back"


def _decoded(party: PartyId, reply: bytes, shape: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(reply, type=shape)
    except msgspec.MsgspecError as error:
        raise PeerFault(f"{party} does not say properly what it has seen of our journal") from error
