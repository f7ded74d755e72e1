# SPDX-License-Identifier: Apache-2.0
"""A user's place at their own party's node: what `junto.connect()` returns."""

import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from junto.client.portal import Portal
from junto.client.profile import Profile, find_profile
from junto.client.question import Answer, Ended, Question, Watcher, answer, new_task_id, read
from junto.client.reattach import Patience, again
from junto.client.reply import decoded
from junto.client.triggers import Triggers
from junto.errors import Unavailable
from junto.link import methods
from junto.types import TaskId

if TYPE_CHECKING:
    import pyarrow as pa

    from junto.catalog.dataset import Dataset
    from junto.client.notices import Lost
    from junto.frontends.sql.typing import Describer
    from junto.link.connection import Link
    from junto.plan.explain import Explanation
    from junto.plan.steps import Plan
    from junto.trust.rights import Rights
    from junto.types import PartyId

M = TypeVar("M", bound=methods.Message)
_TOP_SECONDS = 86400.0
_CALL_SECONDS = 30.0
_LIST_SECONDS = 120.0
_RESTART_SECONDS = 30.0  # a node that cannot be reached has so long to come back
_GRACE_SECONDS = 15.0  # the node ends a task at its deadline by itself; a desk waits a little longer


class Desk:
    """Asks questions as one user. Use it as a context manager, or `close` it.

    Every method may be called from any thread. Raises Unavailable when the node cannot be reached.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._portal = Portal()
        self._link: Link | None = None
        self._open = False
        self._compiling = threading.Lock()
        self._describer: Describer | None = None

    @property
    def party(self) -> str:
        """The party whose node this desk speaks with."""
        return self._profile.name.party

    @property
    def user(self) -> str:
        """The user this desk asks as."""
        return self._profile.name.user

    def open(self) -> Self:
        """Connect. Raises Unavailable, naming the address tried, and PeerFault for a node that is not ours."""
        if not self._open:
            self._portal.start()
            self._open = True
            try:
                self._portal.run(self._linked())
            except BaseException:
                self.close()
                raise
        return self

    def close(self) -> None:
        """Disconnect. Tasks go on without us."""
        if self._open:
            self._open = False
            if self._describer is not None:
                self._describer.close()
                self._describer = None
            if self._link is not None:
                self._portal.run(self._link.close())
                self._link = None
            self._portal.stop()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # ── questions ───────────────────────────────────────────────────────────────────────────────────

    def sql(self, text: str, *, purpose: str = "") -> Question:
        """Compile a question against the datasets known now. Raises InvalidInput, UnsupportedSQL."""
        from junto.frontends.sql import compile_sql
        from junto.frontends.sql.typing import Describer
        from junto.types import PartyId

        datasets, rights, consents = self._catalogue()
        with self._compiling:
            self._describer = self._describer or Describer()
            plan = compile_sql(
                text,
                datasets,
                PartyId(self.party),
                purpose=purpose,
                now=time.time(),
                describer=self._describer,
                rights=rights,
                consents=consents,
            )
        return Question(text, plan, purpose, self)

    def datasets(self) -> "list[Dataset]":
        """The datasets of all parties, as their signed statements arrived."""
        return self._catalogue()[0]

    def _catalogue(self) -> "tuple[list[Dataset], Rights, dict[PartyId, tuple[PartyId, ...]]]":
        """The datasets of all parties, this user's rights to those of its own, and for whom each party computes."""
        from junto.catalog.dataset import Dataset
        from junto.trust.rights import Rights
        from junto.types import PartyId

        reply = decoded(self.request(methods.USER_DATASETS), methods.Catalogue)
        return (
            msgspec.json.decode(reply.datasets, type=list[Dataset]),
            msgspec.json.decode(reply.rights, type=Rights),
            msgspec.json.decode(reply.consents, type=dict[PartyId, tuple[PartyId, ...]]),
        )

    def consents(self) -> "dict[PartyId, tuple[PartyId, ...]]":
        """The parties for which each party computes what reads none of its own data, by its `node.toml`."""
        from junto.types import PartyId

        return msgspec.json.decode(self.request(methods.USER_CONSENTS), type=dict[PartyId, tuple[PartyId, ...]])

    def explain(self, plan: "Plan") -> "Explanation":
        """The explanation of a plan: who will do what, and who will learn what."""
        from junto.plan.explain import explain

        datasets, rights, _ = self._catalogue()
        return explain(plan, datasets, at_home=not rights.operator)

    def certified(self, plan: "Plan", n: int) -> "Plan":
        """The plan in which `n` parties compute what everybody may see. Raises InvalidInput where they cannot."""
        from junto.plan.certify import certified

        return certified(plan, n, self.datasets())

    def submit(
        self,
        plan: "Plan",
        *,
        seconds: float,
        purpose: str,
        priority: int,
        absent: methods.Absent = "",
        at_least: int = 0,
        double: bool = False,
    ) -> TaskId:
        """Hand a plan to the node; the task's id. A node that restarts meanwhile is waited for: the id is chosen here,
        so the node takes what it hears twice for one task."""
        from junto.plan import steps

        task = new_task_id()
        ask = methods.Ask(msgspec.Raw(steps.encode(plan)), seconds, purpose, priority, task, absent, at_least, double)
        patience = Patience(min(seconds, _RESTART_SECONDS))
        return again(patience, lambda: self._ask(methods.USER_ASK, ask, methods.Which).task)

    def follow(self, task: TaskId, watch: Watcher | None = None) -> methods.Progress:
        """Wait until the task has ended here, telling `watch` of every change; its last progress."""
        return self.ended(task, watch).progress

    def ended(self, task: TaskId, watch: Watcher | None = None, seconds: float | None = None) -> Ended:
        """As `follow`; with the answer, if it is small and there is no `watch`. `seconds`: how long the task may take,
        from now, if that is known.

        A node that restarts goes on with the task and is waited for. Where the others go on without a party that stays
        away, their task is followed instead.
        """
        patience = Patience(_RESTART_SECONDS if seconds is None else seconds + _GRACE_SECONDS)
        while True:
            try:
                if seconds is None:
                    patience.extend(max(self.task(task).deadline - time.time(), 0.0) + _GRACE_SECONDS)
                seconds = None
                ended = (
                    self._waited(task, patience.left) if watch is None else self._watched(task, watch, patience.left)
                )
            except Unavailable as error:
                patience.lost(error)
                continue
            if not ended.progress.continued:
                return ended
            task = ended.progress.continued

    def _waited(self, task: TaskId, seconds: float) -> Ended:
        match self._pieces(methods.USER_WAIT, methods.Which(task), seconds):
            case [progress, *answer]:
                return Ended(decoded(progress, methods.Progress), b"".join(answer) or None)
            case _:
                raise Unavailable(f"the node ended the wait for task {task}")

    def _watched(self, task: TaskId, watch: Watcher, seconds: float) -> Ended:
        progress = None
        for piece in self.stream(methods.USER_WATCH, methods.Which(task), seconds=seconds):
            progress = decoded(piece, methods.Progress)
            watch(progress)
        if progress is None or progress.ended_at is None:
            raise Unavailable(f"the node ended the watch of task {task}")
        return Ended(progress)

    def wait(self, task: TaskId, watch: Watcher | None = None) -> Answer:
        """The answer of a task that was submitted. Raises what ended it otherwise. Interrupted, the task goes on."""
        return answer(self, task, watch)

    def result(self, task: TaskId) -> "pa.Table":
        """The answer of a task that is done."""
        patience = Patience(_RESTART_SECONDS)
        return read(again(patience, lambda: b"".join(self._pieces(methods.USER_RESULT, methods.Which(task), 600.0))))

    @property
    def triggers(self) -> Triggers:
        """Questions that are asked again by the clock, a new version, or a task's end."""
        return Triggers(self)

    # ── tasks and the node ──────────────────────────────────────────────────────────────────────────

    def tasks(self) -> tuple[methods.Progress, ...]:
        """This user's tasks that the node knows, newest first; an operator's are all.

        Of a long question they hold the beginning; `task` gives all of it.
        """
        lines = b"".join(self._pieces(methods.USER_TASKS, methods.Message(), _LIST_SECONDS)).splitlines()
        return tuple(decoded(line, methods.Progress) for line in lines)

    def task(self, task: TaskId) -> methods.Progress:
        """One task, as the node sees it now. Raises InvalidInput if it knows none of that id."""
        return self._ask(methods.USER_TASK, methods.Which(task), methods.Progress)

    def cancel(self, task: TaskId) -> None:
        """End a task at every participant."""
        self.request(methods.USER_CANCEL, msgspec.json.encode(methods.Which(task)))

    def notices(
        self,
        *,
        tasks: Sequence[TaskId] = (),
        kinds: Sequence[str] = (),
        past_seconds: float = 0.0,
        lost: "Lost | None" = None,
    ) -> Iterator[methods.Notice]:
        """The notices of the node, from `past_seconds` ago on and without end: of these tasks and kinds, or all.

        The client waits for a node that restarts, and tells nothing twice; `lost` hears why the node cannot be reached.
        """
        from junto.client.notices import followed

        return followed(
            lambda asked, seconds: self.stream(methods.USER_NOTICES, asked, seconds=seconds),
            tasks=tasks,
            kinds=kinds,
            past_seconds=past_seconds,
            lost=lost,
        )

    def hooks(self) -> tuple[methods.HookStatus, ...]:
        """The node's webhooks: what waits for each, and how it does."""
        return decoded(self.request(methods.OPERATOR_HOOKS), methods.Hooks).hooks

    def test_hooks(self) -> tuple[methods.HookTest, ...]:
        """Send a test notice to each of the node's webhooks; what came back."""
        return decoded(self.request(methods.OPERATOR_HOOK_TEST, seconds=60.0), methods.HookTests).tests

    def publish(self, path: str | Path) -> methods.Published:
        """Publish the datasets of a TOML file that lies on the node's machine.

        A desk that was opened with the party's folder may name any file there; one with an exported profile those in
        the node's `data_folders`. Raises Refused, InvalidInput.
        """
        with self._profile.proof() as proof:
            asked = methods.Publish(str(Path(path).resolve()), proof)
            return self._ask(methods.OPERATOR_PUBLISH, asked, methods.Published, 600.0)

    def status(self) -> methods.Status:
        """The node, as its operator sees it."""
        return decoded(self.request(methods.USER_STATUS), methods.Status)

    def top(self) -> Iterator[methods.Top]:
        """The node's present work and queue, now and every moment. Raises Unavailable when the node stops."""
        for piece in self.stream(methods.OPERATOR_TOP, methods.Message(), seconds=_TOP_SECONDS):
            yield decoded(piece, methods.Top)

    # ── the link ────────────────────────────────────────────────────────────────────────────────────

    def request(self, method: str, body: bytes = b"", *, seconds: float = _CALL_SECONDS) -> bytes:
        """One call of the node."""
        return self._portal.run(self._request(method, body, seconds))

    def stream(self, method: str, body: methods.Message, *, seconds: float) -> Iterator[bytes]:
        """The pieces of a streamed reply."""

        async def pieces() -> AsyncIterator[bytes]:
            link = await self._linked()
            async for piece in link.stream(method, msgspec.json.encode(body), timeout_seconds=seconds):
                yield piece

        return self._portal.iterate(pieces)

    def _pieces(self, method: str, body: methods.Message, seconds: float) -> list[bytes]:
        """All pieces of a streamed reply, once it is whole."""

        async def pieces() -> list[bytes]:
            link = await self._linked()
            return [piece async for piece in link.stream(method, msgspec.json.encode(body), timeout_seconds=seconds)]

        return self._portal.run(pieces())

    async def _request(self, method: str, body: bytes, seconds: float) -> bytes:
        link = await self._linked()
        return await link.call(method, body, timeout_seconds=seconds)

    async def _linked(self) -> "Link":
        if self._link is None or self._link.closed.done():
            self._link = await self._profile.dial()
        return self._link

    def _ask(self, method: str, body: methods.Message, reply: type[M], seconds: float = _CALL_SECONDS) -> M:
        return decoded(self.request(method, msgspec.json.encode(body), seconds=seconds), reply)


def connect(home: str | Path | None = None, *, user: str | None = None, profile: str | Path | None = None) -> Desk:
    """A desk at the party's node, connected.

    `home` is the party's folder (default: `$JUNTO_HOME`, or the only one under `~/.junto`), `user` one of its users
    (default: the only one). `profile` is a file from `junto user export`, for a user on another machine.
    Raises InvalidInput if there is no such party or user, Unavailable if the node does not answer.
    """
    return Desk(find_profile(home, user, profile)).open()
