# SPDX-License-Identifier: Apache-2.0
"""Delivers notices to webhooks: durable first, then in order, again until they are taken or four days old.

Back-off follows the example schedule of the Standard Webhooks specification, with a fifth of jitter. While a webhook is
down (no answer, 5xx, 429, a redirect, a path that is not there) all that it should hear waits, in order; a notice that
it refuses as such (400, 409, 413, 415, 422) is tried again alone and does not hold up the others. 410 ends it. Each
notice arrives at least once, always under the same `webhook-id`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from junto.errors import InvalidInput, StorageFailed
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.logs import logger
from junto.node.ground import Ground
from junto.node.hookstore import MOST_PENDING, HookStore
from junto.node.routes import Method
from junto.node.waits import within
from junto.node.webhook import Reply, Webhook, attempt, payload
from junto.tasks.notices import Notice, notice_id
from junto.types import PartyId, RandomBytes, TaskId

_log = logger("junto.hooks")

DELAYS_SECONDS = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""The delays before the second attempt, the third, …; the last holds for all after it."""

GIVE_UP_SECONDS = 4 * 86_400.0
"""A notice that was tried in vain and is older than this is not tried again."""

_ITSELF = frozenset((400, 409, 413, 415, 422))
_GONE = 410
_DISK_SECONDS = 5.0  # before another attempt at a disk that is full

Pause = Callable[[asyncio.Event, float], Awaitable[None]]


class Attempt(Protocol):
    """Tells a webhook once: `webhook.attempt`, or a stand-in for it."""

    async def __call__(self, hook: Webhook, id: str, body: bytes, now: float) -> Reply:
        """The reply of the webhook."""


async def _until(event: asyncio.Event, seconds: float) -> None:
    await within(event.wait(), min(seconds, 86_400.0))


class Hooks:
    """The webhooks of one node. `raised` takes a notice in; `run` delivers until it is cancelled."""

    def __init__(
        self,
        me: PartyId,
        hooks: Sequence[Webhook],
        store: HookStore,
        *,
        unix_time: Callable[[], float],
        random: RandomBytes,
        attempt: Attempt = attempt,
        pause: Pause = _until,
    ) -> None:
        """`store` is opened by `run`. `pause` returns when the event is set, or after so many seconds."""
        self._me = me
        self._hooks = tuple(hooks)
        self._store = store
        self._unix_time = unix_time
        self._random = random
        self._attempt = attempt
        self._pause = pause
        self._inbox: deque[Notice] = deque(maxlen=MOST_PENDING)
        self._raised = asyncio.Event()
        self._news = {hook.name: asyncio.Event() for hook in hooks}

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that operators may call."""
        return {methods.OPERATOR_HOOKS: self.status, methods.OPERATOR_HOOK_TEST: self.test}

    def raised(self, notice: Notice) -> None:
        """Take a notice in, if a webhook wants it."""
        if any(notice.kind in hook.kinds for hook in self._hooks):
            self._inbox.append(notice)
            self._raised.set()

    async def run(self) -> None:
        """Keep and deliver what is raised, until cancelled. Returns at once if no webhook is set."""
        while self._hooks:
            try:
                await asyncio.to_thread(self.open)
                break
            except StorageFailed as error:
                _log.error("webhooks hear of nothing", reason=str(error))
                await self._pause(asyncio.Event(), _DISK_SECONDS)
        else:
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_all())
                for hook in self._hooks:
                    group.create_task(self._carry(hook))
        finally:
            self.close()

    def open(self) -> None:
        """Open what is kept. Raises StorageFailed."""
        self._store.open((hook.name for hook in self._hooks), self._unix_time())

    def close(self) -> None:
        """Close it."""
        self._store.close()

    async def keep(self) -> None:
        """Make durable what was raised. Raises StorageFailed; then it is still in memory."""
        taken = tuple(self._inbox)
        letters = [
            (hook.name, notice.id, notice.at, payload(notice))
            for notice in taken
            for hook in self._hooks
            if notice.kind in hook.kinds
        ]
        if not letters:
            return
        pushed = await asyncio.to_thread(self._store.add, letters)
        for notice in taken:
            if self._inbox and self._inbox[0] is notice:
                self._inbox.popleft()
        if pushed:
            _log.warning("old notices gave way: too many wait for webhooks", dropped=pushed)
        for event in self._news.values():
            event.set()

    async def deliver(self, hook: Webhook) -> float:
        """Send what is due now, one after the other; when the next attempt is due, in unix seconds."""
        while True:
            now = self._unix_time()
            dropped = await asyncio.to_thread(self._store.give_up, hook.name, now - GIVE_UP_SECONDS)
            if dropped:
                _log.error("notices were given up", hook=hook.name, to=hook.to, dropped=dropped)
            found = await asyncio.to_thread(self._store.next, hook.name)
            if found is None:
                return float("inf")
            letter, due = found
            if due > now:
                return due
            reply = await self._attempt(hook, letter.id, letter.body, now)
            now = self._unix_time()
            if reply.ok:
                await asyncio.to_thread(self._store.delivered, hook.name, letter, now, reply.words)
                continue
            _log.warning("a webhook was not told", hook=hook.name, to=hook.to, notice=letter.id, reply=reply.words)
            if reply.status == _GONE:
                await asyncio.to_thread(self._store.end, hook.name, now, reply.words)
            elif reply.status in _ITSELF:
                next_at = now + self._delay(letter.attempts)
                await asyncio.to_thread(self._store.refused, hook.name, letter, now, reply.words, next_at)
            else:
                failures = (await asyncio.to_thread(self._store.state, hook.name)).failures
                next_at = now + max(self._delay(failures), min(reply.wait_seconds, DELAYS_SECONDS[-1]))
                await asyncio.to_thread(self._store.failed, hook.name, letter, now, reply.words, next_at)

    async def status(self, caller: Caller, payload: bytes) -> Answer:
        """The status of every webhook."""
        found: list[methods.HookStatus] = []
        for hook in self._hooks:
            state = await asyncio.to_thread(self._store.state, hook.name)
            found.append(
                methods.HookStatus(
                    hook=hook.name,
                    to=hook.to,
                    kinds=tuple(sorted(hook.kinds)),
                    pending=state.pending,
                    given_up=state.given_up,
                    failures=state.failures,
                    next_at=state.next_at,
                    last_at=state.last_at,
                    last_reply=state.last_reply,
                    gone=state.gone,
                )
            )
        return msgspec.json.encode(methods.Hooks(tuple(found)))

    async def test(self, caller: Caller, payload: bytes) -> Answer:
        """Send a test notice to every webhook, now and once; one that takes it is told of things again."""
        if not self._hooks:
            raise InvalidInput("no webhook is set here: write a [[webhook]] into node.toml and start the node again")
        tests = await asyncio.gather(*(self._test(hook, caller.name.user) for hook in self._hooks))
        return msgspec.json.encode(methods.HookTests(tuple(tests)))

    async def _test(self, hook: Webhook, user: str) -> methods.HookTest:
        now = self._unix_time()
        id = notice_id(self._me, "test", hook.name, self._random(16).hex())
        text = f"{user} at {self._me} asked for a test notice"
        notice = Notice(id, "test", TaskId(""), self._me, self._me, text, now, "info")
        reply = await self._attempt(hook, id, payload(notice), now)
        after = self._unix_time()
        if reply.ok:
            await asyncio.to_thread(self._store.revive, hook.name, after, reply.words)
            self._news[hook.name].set()
        return methods.HookTest(hook.name, hook.to, reply.ok, reply.words, max(after - now, 0.0))

    async def _keep_all(self) -> None:
        while True:
            await self._raised.wait()
            self._raised.clear()
            while self._inbox:
                try:
                    await self.keep()
                except StorageFailed as error:
                    _log.error("notices for webhooks cannot be kept", reason=str(error), waiting=len(self._inbox))
                    await self._pause(asyncio.Event(), _DISK_SECONDS)

    async def _carry(self, hook: Webhook) -> None:
        news = self._news[hook.name]
        while True:
            news.clear()
            try:
                due = await self.deliver(hook)
            except StorageFailed as error:
                _log.error("a webhook's letters cannot be read or marked", hook=hook.name, reason=str(error))
                due = self._unix_time() + _DISK_SECONDS
            await self._pause(news, max(due - self._unix_time(), 0.0))

    def _delay(self, failures: int) -> float:
        share = int.from_bytes(self._random(4)) / 2**32
        return DELAYS_SECONDS[min(failures, len(DELAYS_SECONDS) - 1)] * (0.8 + 0.4 * share)


def hooks_of(me: PartyId, hooks: Sequence[Webhook], path: Path, ground: Ground) -> Hooks:
    """The webhooks of a node, which keep at `path` what they have still to tell."""
    return Hooks(me, hooks, HookStore(path), unix_time=ground.unix_time, random=ground.random)
