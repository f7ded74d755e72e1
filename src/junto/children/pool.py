# SPDX-License-Identifier: Apache-2.0
"""The children of one kind: lent to one piece of work at a time, kept warm for the next, ended in time.

None is there before the first work: an idle node stays small. As many are started as work runs at once. Of those that
rest, `warm` stay; each other ends when it has rested for `rest_seconds`. One that was left in mid-work is killed.

The kernel ends a child when the *thread* that started it ends. So one thread starts them all; it lives while any does.
"""

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from junto.children.child import Child
from junto.errors import Crashed


@dataclass(frozen=True, slots=True)
class ChildState:
    """A child as an operator sees it."""

    kind: str
    pid: int
    busy: bool
    seconds: float  # since it began to work, or to rest
    memory_bytes: int


@dataclass(slots=True, eq=False)
class Lent:
    """A child, while somebody works with it. `fresh`: it was started for this, and is about to load what it needs.

    It goes back to the pool if `whole` was set: its answer has been read.
    """

    child: Child
    fresh: bool
    whole: bool = False


class Pool:
    """Children that run one module. Any thread may use it."""

    def __init__(self, kind: str, module: str, *, warm: int = 1, rest_seconds: float = 30.0) -> None:
        self.kind = kind
        self._module = module
        self._warm = warm
        self._rest_seconds = rest_seconds
        self._lock = threading.Lock()
        self._resting: list[tuple[Child, float]] = []  # the one that worked last is last
        self._busy: dict[Child, float] = {}
        self._orders: queue.SimpleQueue[Future[Child] | None] = queue.SimpleQueue()
        self._keeper: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def lent(self) -> Iterator[Lent]:
        """A child, for one piece of work. Raises Crashed if none can be started."""
        with self._lock:
            self._closed = False
            child = self._resting.pop()[0] if self._resting else None
            if child is not None:
                self._busy[child] = time.monotonic()
        lent = Lent(child or self._started(), fresh=child is None)
        try:
            yield lent
        finally:
            self._back(lent)

    def shown(self) -> tuple[ChildState, ...]:
        """The children there are, those that work first."""
        now = time.monotonic()
        with self._lock:
            busy = [(child, True, now - since) for child, since in self._busy.items()]
            resting = [(child, False, now - since) for child, since in self._resting]
        return tuple(
            ChildState(self.kind, child.pid, works, seconds, _memory_bytes(child.pid))
            for child, works, seconds in (*busy, *resting)
        )

    def close(self) -> None:
        """End the children that rest; those that work end with their work."""
        with self._lock:
            self._closed = True
            ending = [child for child, _ in self._resting]
            self._resting.clear()
        for child in ending:
            child.end()
        self._orders.put(None)

    def _started(self) -> Child:
        order: Future[Child] = Future()
        with self._lock:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name=f"children {self.kind}", daemon=True)
                self._keeper.start()
            self._orders.put(order)
        try:
            return order.result()
        except OSError as error:
            raise Crashed("no process for the work can be started: too many processes, or no memory") from error

    def _back(self, lent: Lent) -> None:
        with self._lock:
            keep = lent.whole and not self._closed
            if keep:
                self._resting.append((lent.child, time.monotonic()))
                del self._busy[lent.child]
        if not keep:
            lent.child.end()
            with self._lock:
                del self._busy[lent.child]
        self._orders.put(None)  # the keeper looks who has rested enough

    def _keep(self) -> None:
        """Start children when told to, end those that have rested long enough; end with the last of them."""
        while True:
            try:
                order = self._orders.get(timeout=self._next_seconds())
            except queue.Empty:
                order = None
            if order is not None:
                self._start(order)
            for child in self._rested():
                child.end()
            with self._lock:
                if self._closed and not self._busy and not self._resting and self._orders.empty():
                    self._keeper = None
                    return

    def _start(self, order: "Future[Child]") -> None:
        try:
            child = Child(self._module)
        except OSError as error:
            order.set_exception(error)
            return
        with self._lock:
            self._busy[child] = time.monotonic()
        order.set_result(child)

    def _next_seconds(self) -> float | None:
        with self._lock:
            if len(self._resting) <= self._warm:
                return None
            return max(0.0, self._resting[0][1] + self._rest_seconds - time.monotonic())

    def _rested(self) -> list[Child]:
        now = time.monotonic()
        ended: list[Child] = []
        with self._lock:
            while len(self._resting) > self._warm and self._resting[0][1] + self._rest_seconds <= now:
                ended.append(self._resting.pop(0)[0])
        return ended


def _memory_bytes(pid: int) -> int:
    """The bytes that the process holds in memory now; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return 0
