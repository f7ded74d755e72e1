# SPDX-License-Identifier: Apache-2.0
"""A node: everything of one party's process, put together, started and stopped in order.

Start: journal, then what it says (facts, tasks), then links: nobody is answered before we know what we have said.
Stop: links, work, courier, journal.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from junto.engines.base import Limits
from junto.engines.files import remove_leftovers
from junto.errors import InvalidInput, JuntoError, PeerFault, StorageFailed
from junto.journal.statement import CERTIFICATE
from junto.link import methods
from junto.link.connection import Handler
from junto.link.dial import Proxies, here_of
from junto.link.settings import LinkSettings
from junto.logs import logger
from junto.node.admission import Admission
from junto.node.asking import Asking
from junto.node.bounds import bounds_of
from junto.node.busy import AskingAgain
from junto.node.cache import Cache
from junto.node.clocks import Clocks
from junto.node.courier import Courier
from junto.node.diskwatch import free_bytes, watch_disk
from junto.node.doctor import Doctor
from junto.node.exchange import Outbox
from junto.node.facts import Facts
from junto.node.files import in_words
from junto.node.folders import Folders
from junto.node.ground import Ground
from junto.node.history import tasks_in
from junto.node.home import Home
from junto.node.hooks import hooks_of
from junto.node.ids import new_task_id
from junto.node.judge import Judgement
from junto.node.keep import Keeper
from junto.node.ledger import Ledger
from junto.node.lending import Lending
from junto.node.notes import Notes
from junto.node.notices import Notices
from junto.node.peers import Peers
from junto.node.performing import perform
from junto.node.placing import Placing
from junto.node.publishing import Publishing
from junto.node.routes import guarded
from junto.node.runner import Live, Runner
from junto.node.settings import NodeSettings, read_settings
from junto.node.shelf import Shelf
from junto.node.spool import Spool, spool_key_of
from junto.node.spreading import Spreading
from junto.node.trigger_routes import TriggerRoutes
from junto.node.triggers import Triggers
from junto.node.turns import Turns
from junto.node.users import Users
from junto.plan.computing import spare
from junto.plan.fragment import is_open
from junto.plan.steps import Query, digest
from junto.tasks.bodies import BODIES
from junto.tasks.events import Forbidden, Permitted
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.trust.certificates import Identity, pem, utc_text
from junto.trust.charter import SignedCharter
from junto.trust.envelope import key_id
from junto.trust.identity import public_key_of
from junto.trust.identity import verify as verify_certificate
from junto.trust.names import Name, parse_name
from junto.types import DatasetName, PartyId, TaskId

if TYPE_CHECKING:
    from junto.node.work import Tools

_log = logger("junto.node")
_RENEWAL_CHECK_SECONDS = 600.0
_SWEEP_SECONDS = 60.0


class Node:
    """One node of one party. `async with Node(home)` runs it."""

    def __init__(
        self,
        home: Home,
        *,
        on_fatal: Callable[[str], None],
        settings: NodeSettings | None = None,
        ground: Ground | None = None,
        new_journal: bool = False,
    ) -> None:
        """new_journal: begin another journal where the party has lost the one it had."""
        self.home = home
        self._new_journal = new_journal
        self.ground = ground or Ground()
        self._unix_time = self.ground.unix_time
        self.settings = settings or read_settings(home.path / "node.toml")
        self.started_at = self._unix_time()
        self._on_fatal = on_fatal
        self._jobs: set[asyncio.Task[None]] = set()
        self._serving = asyncio.Event()

    @property
    def me(self) -> PartyId:
        """Our party."""
        return self.home.party.name

    @property
    def others(self) -> list[PartyId]:
        """The other parties of the charter."""
        return [member.name for member in self.charter.members if member.name != self.me]

    async def __aenter__(self) -> Self:
        """Start. Raises InvalidInput, StorageFailed or Unavailable with one line; then nothing is left running."""
        home = self.home
        signed = home.signed_charter()
        self.charter = signed.charter
        begun = home.has_begun and not self._new_journal  # before this start leaves traces of its own
        identity = home.node_identity(self._unix_time())
        self.identity = identity
        origin = f"junto/{self.charter.consortium}/{identity.name}"
        self.journal = self.ground.journal(home.journal_path, origin=origin, key=identity.key, on_fatal=self._on_fatal)
        self.journal.open(begun=begun)
        try:
            if self._new_journal:
                home.check_new_journal(self.journal.head()[0])
            await self._assemble(signed)
            await self.links.__aenter__()
            try:
                await self.heads.begin(self._new_journal)
                self._take_up()
                await self.publishing.consent(self.settings.compute)
            except BaseException:
                await self.links.close()
                raise
        except BaseException:
            self.journal.close()
            raise
        home.write_profiles()  # users find us where we listen now, also if that has changed
        self._serving.set()
        self._start(self._keep_certificate_fresh())
        self._start(self.triggers.run())
        self._start(self.clocks.run())
        self._start(self.hooks.run())
        self._start(watch_disk(self.me, lambda: free_bytes(self.home.path), self.notices))
        if self.settings.shared is not None:
            self._start(self._sweep())
        _log.info("node started", party=self.me, listening=[str(a) for a in self.links.listening], pid=os.getpid())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop: what is under way ends here; open tasks go on when the node starts again."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self.runner.close()
        self.keeper.close()
        await self.notes.close()
        await self.courier.close()
        await self.links.close()
        if self.tools is not None:
            self.tools.engine.close()
        for pool in self.ground.pools:
            pool.close()
        self.journal.close()
        _log.info("node stopped", party=self.me)

    async def _assemble(self, signed: SignedCharter) -> None:
        home, settings, identity = self.home, self.settings, self.identity
        self.ledger = Ledger(identity.name, identity.key, self.journal, self.charter, self.ground)
        self.ledger.learn_known_keys()
        await self.ledger.begin(signed, pem(identity.certificate))
        self.facts = Facts(self.ledger)
        self.facts.recall()
        self.shelf = Shelf(home.data_path / "sources.json")
        self.shelf.load()
        spool_key = spool_key_of(home.path / "keys" / "spool.key", self.ground.random)
        self.spool = Spool(home.spool_path, spool_key, self.ground.files, self.ground.random)
        self.keeper = Keeper(self.journal, self.spool)
        remove_leftovers(home.spool_path)
        self.outbox = Outbox(self.spool)
        memory, threads, spill = settings.memory_bytes, settings.threads, settings.spill_bytes
        self.limits = Limits(memory, threads, home.spool_path, spill, settings.cpu_seconds)
        handlers: dict[str, Handler] = {}
        instance = self.ground.random(8).hex()
        self.links = self.ground.links(
            replace(
                here_of(identity, self.charter, instance, self._unix_time),
                verify_peer=self._verify_peer,
            ),
            self.charter.members,
            handlers=handlers,
            listen=home.listen,
            settings=LinkSettings.for_wan() if settings.network == "wan" else LinkSettings.for_lan(),
            proxies=Proxies.of(os.environ),
        )
        self.links.watch(self._link_up, self._link_down)
        self.courier = Courier(self.links)
        turns = Turns(self.me, "reading plans", clock=asyncio.get_running_loop().time)
        clock, reader = self._unix_time, self.ground.reader
        lending = Lending(self.me, self.facts.view, self.links, lambda: list(self.runner.live.values()), clock)
        self.judgement = Judgement(
            self.me, self.facts, self.shelf, self.ledger, clock, home.rights, reader, turns, lending
        )
        slots = settings.capacity.slots
        self.spreading = Spreading(identity.name.node, slots, self._slots_are, self._unix_time)
        self.admission = Admission(
            self.me,
            settings.capacity,
            settings.patience,
            self.facts.view.get,
            settings.memory_bytes,
            self._unix_time,
            self.spreading.shown,
        )
        self.runner = Runner(
            self.me,
            self.ledger,
            self.courier,
            settings.patience,
            self._consider,
            partial(perform, self),
            self._forget,
            self.keeper.let_go,
            self._go_on,
            self._unreachable,
            self._unix_time,
        )
        self.notices = Notices(self.me, settings.patience.absence_seconds, self._unix_time, self.may_see)
        again = AskingAgain(self.me, self._go_on, self._start, self.ground)
        self.runner.watchers += [again.look, self.admission.look, self.notices.look]
        self.hooks = hooks_of(self.me, settings.webhooks, home.path / "notices.db", self.ground)
        self.notices.listeners.append(self.hooks.raised)
        self.quotas, self.heads = bounds_of(self, instance)
        self.notes = Notes(self.me, self.notices, self.runner, self.links, self._unix_time)
        self._salt = spool_key
        self.tools: Tools | None = None
        self.clocks = Clocks(self.me, self.links, self.notices, self._unix_time, asyncio.get_running_loop().time)
        placing = Placing(self.facts.view, self.links.status, clock, settings.patience.absence_seconds)
        self._placing = placing
        peers = Peers(
            self.ledger,
            self.facts,
            self.runner,
            self.outbox,
            settings.longest_seconds,
            self.ground.unix_time,
            placing.offered,
            self.ground.leads,
            self.clocks,
            self.quotas,
            self.heads.heard,
        )
        self._peers = peers
        self.publishing = Publishing(
            self.me,
            self.charter,
            self.ledger,
            self.facts,
            self.shelf,
            self.limits,
            self.spread,
            self.ground,
            Folders(settings.data_folders, home.data_path),
            spool_key,
        )
        doctor = Doctor(self.me, self.links)
        asking = Asking(
            self.me, self.runner, self.journal, settings.longest_seconds, self.ground, placing.placed, home.rights
        )
        users = Users(self, self.publishing, asking)
        self.triggers = Triggers(
            self.ledger, self.facts, self.runner, asking, self.ground, self._has_user, self._tell_trigger
        )
        triggers = TriggerRoutes(self.triggers, self._has_user, home.is_operator)
        routes = {
            **peers.routes,
            **self.heads.routes,
            **users.routes,
            **doctor.routes,
            **lending.routes,
            **triggers.routes,
            **self.admission.routes,
            **self.spreading.routes,
            **self.notices.routes,
            **self.notes.routes,
            **self.hooks.routes,
            **self.clocks.routes,
        }
        handlers.update(guarded(self.me, routes, self._admits, self._operates, self._serving))

    # ── who may come in ─────────────────────────────────────────────────────────────────────────────

    def _verify_peer(self, leaf: bytes) -> Name:
        """The name that a certificate proves; a user's only while our home lists that very key."""
        name = verify_certificate(leaf, self.charter, self._unix_time())
        if name.user and not self.home.admits(name, key_id(public_key_of(leaf))):
            raise PeerFault(
                f"{name} is not a user of {self.me}, or was removed; `junto user add` at {self.me} adds one"
            )
        return name

    def _admits(self, name: Name) -> bool:
        return self._has_user(name.user)

    def _operates(self, name: Name) -> bool:
        return self.home.is_operator(name.user)

    def _slots_are(self, slots: int) -> None:
        self.admission.slots_are(slots)

    def _tell_trigger(self, about: str, text: str, task: TaskId) -> None:
        self.notices.of_node("trigger", about, text, "warning", task)

    def may_see(self, user: str, task: TaskId) -> bool:
        """True if a user of ours may see a task: an operator may see all, everybody else what they asked."""
        live = self.runner.live.get(task)
        asked = live is not None and (live.task.asker, live.task.proposal.user) == (self.me, user)
        return asked or self.home.is_operator(user)

    def _has_user(self, user: str) -> bool:
        return self.home.has_user(user)

    def _take_up(self) -> None:
        """Go on with the journal's tasks; what we had said of those whose time has not passed is said again to all."""
        live: dict[TaskId, Live] = {}
        self.judgement.recall()
        found = list(tasks_in(self.journal, self.ledger, self.settings.patience, self._unix_time()))
        recalled = {
            task.id: (
                self.keeper.recall(task.id, task.proposal.plan, self.me) if task.state == "running" else {},
                self.keeper.recall_answer(task.id),
            )
            for task, _ in found
        }
        self.keeper.clear(recalled)
        now = self._unix_time()
        due = {task.id: task for task, _ in found if now < task.deadline}
        self._introduce(self.identity)
        for task in due.values():
            for entry in self.journal.entries(kinds=tuple(BODIES), task=task.id):
                if parse_name(entry.author).party == self.me:
                    to = (task.asker,) if entry.kind in ("offer", "refusal") else task.others
                    others = tuple(party for party in to if party != self.me)
                    self.courier.send(entry.envelope, others, task.deadline - now)
        for task, receipt_statement in found:
            live[task.id] = self.runner.resume(task, receipt_statement, *recalled[task.id])
        followed = {task.proposal.continues: task.id for task, _ in found if task.proposal.continues}
        for task, _ in found:
            one = live[task.id]
            if task.state in ENDED:
                self._forget(one)
            elif task.state != "judging":
                self.admission.adopt(task)
            if task.id in followed:
                one.continued = followed[task.id]
            elif task.left_out and now < task.deadline:
                self._go_on(one, task.left_out)

    def _introduce(self, identity: Identity, to: tuple[PartyId, ...] = ()) -> None:
        """Tell everyone our certificate before anything else: another key, or node of ours, signed until now."""
        entry = self.journal.latest(CERTIFICATE, identity.name.uri)
        if entry is not None:
            self.courier.send(entry.envelope, to or tuple(self.others), self.settings.longest_seconds)

    # ── facts ───────────────────────────────────────────────────────────────────────────────────────

    def spread(self, envelope: bytes) -> None:
        """Tell everyone we can reach; the others ask when they come up."""
        up = tuple(status.party for status in self.links.status() if status.up)
        self.courier.send(envelope, up, 30.0)

    def _link_up(self, party: PartyId) -> None:
        self._introduce(self.identity, (party,))  # it may have been away when our key changed
        self.runner.link_changed(party, None)
        self.clocks.name(party)
        self._start(self._learn_facts(party))

    def _link_down(self, party: PartyId, reason: str) -> None:
        self.heads.turned_away(party, reason)
        self.runner.link_changed(party, f"its link went down at {_clock(self._unix_time())} UTC: {reason}")

    def _unreachable(self, party: PartyId) -> str | None:
        try:
            if self.links.now_to(party) is not None:
                return None
        except InvalidInput:  # of an earlier charter
            return None
        status = next(status for status in self.links.status() if status.party == party)
        return f"no link since {_clock(status.since)} UTC: {status.error}"

    async def _learn_facts(self, party: PartyId) -> None:
        try:
            link = await self.links.to(party, 10.0)
            reply = await link.call(methods.PEER_FACTS, timeout_seconds=30.0)
            await self._peers.take_in(party, reply)
            self.triggers.met(party)
            await self._serving.wait()
            await self.heads.ask(party, link)
        except JuntoError as error:
            _log.warning("a party's facts were not learnt", party=party, reason=str(error))

    def _is_open(self, query: Query) -> bool:
        """True if a fragment reads open data only, so that copies may be kept."""
        if any(read.step is not None for read in query.reads):
            return False
        found = [self.facts.view.get(query.party, DatasetName(read.dataset or "")) for read in query.reads]
        return all(dataset is not None and is_open(dataset) for dataset in found)

    # ── tasks ───────────────────────────────────────────────────────────────────────────────────────

    def lend(self) -> "Tools":
        """The tools of work. Engine and arrays are loaded with the first piece of work: an idle node stays small."""
        if self.tools is None:
            from junto.node.work import Tools

            self.tools = Tools(
                me=self.me,
                engine=self.ground.engine(),
                limits=self.limits,
                shelf=self.shelf,
                outbox=self.outbox,
                spool=self.spool,
                keeper=self.keeper,
                cache=Cache(self.home.cache_path, self.settings.cache_bytes),
                links=self.links,
                salt=self._salt,
                ground=self.ground,
                admission=self.admission,
                spreading=self.spreading,
                is_open=self._is_open,
            )
        return self.tools

    async def _consider(self, task: Task) -> Permitted | Forbidden:
        """The decision whether we may take part, with our part's resources reserved. Raises what prevents it."""
        verdict = await self.judgement.of(task)
        return await self.admission.admit(task, verdict) if isinstance(verdict, Permitted) else verdict

    def _forget(self, live: Live) -> None:
        """A task has ended: let go of all it holds but its answer."""
        self.outbox.drop(live.task.id, live.failure if isinstance(live.failure, StorageFailed) else None)
        self.judgement.forget(live.task.id)
        if live.task.state != "done":
            live.answer = None
        live.kept = {}
        self.keeper.ended(live.task.id, live.answer.result if live.answer is not None else None)

    def _go_on(self, live: Live, absent: tuple[PartyId, ...]) -> None:
        """Ask a task again without those who stay away; whoever watches it is told under which name."""
        old = live.task.proposal
        try:
            plan = self._placing.again(old.plan, absent)
            proposal = msgspec.structs.replace(
                old,
                plan=plan,
                plan_digest=digest(plan),
                participants=plan.parties,
                seconds=max(live.task.deadline - self._unix_time(), 1.0),
                missing=tuple(sorted({*old.missing, *absent} - spare(old.plan))),
                continues=live.task.id,
            )
            live.continued = self.runner.ask(new_task_id(self._unix_time(), self.ground.random), proposal).task.id
        except JuntoError as error:
            _log.warning("a task cannot go on without some", task=live.task.id, reason=str(error))
        finally:
            live.going_on = False

    # ── the node ────────────────────────────────────────────────────────────────────────────────────

    async def _keep_certificate_fresh(self) -> None:
        while True:
            await asyncio.sleep(_RENEWAL_CHECK_SECONDS)
            await self.renew(self._unix_time())

    async def renew(self, now: float) -> None:
        """Issue a new certificate if half the life of the present one has passed, and use it for new handshakes."""
        try:
            identity = self.home.node_identity(now)
        except (InvalidInput, OSError) as error:
            self._tell_certificate(now, str(error))
            return
        if identity.certificate == self.identity.certificate:
            if identity.is_due(now):
                self._tell_certificate(now, "the authority's key is kept elsewhere: `junto party request` asks for one")
            return
        try:
            await self.ledger.renew(identity)
        except StorageFailed as error:
            _log.error("the node's certificate was not renewed", reason=str(error))
            return
        self._introduce(identity)  # before anything that is signed with the other key
        self.journal.sign_with(identity.key)
        self.links.rotate(identity)
        self.identity = identity
        _log.info("certificate and key renewed", until=identity.expires)

    def _tell_certificate(self, now: float, why: str) -> None:
        """Say once a day that a certificate will end."""
        ends, day = utc_text(self.identity.expires), int(now // 86_400)
        text = f"the certificate of {self.identity.name} ends at {ends} and was not renewed: {why}"
        self.notices.of_node(
            "certificate", f"{ends} {day}", text, "error" if self.identity.expires <= now else "warning"
        )

    async def _sweep(self) -> None:
        """Now and then, remove what a node of ours that had hung wrote when it woke, before it gave way."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await asyncio.to_thread(self.spool.sweep)
            except OSError as error:
                _log.warning("the spool could not be looked through", reason=in_words(error))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at))
