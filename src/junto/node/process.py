# SPDX-License-Identifier: Apache-2.0
"""A node as a process: signals, logs, one line when it is ready, one line when it cannot go on."""

import asyncio
import ctypes
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import structlog

from junto.children.pool import Pool
from junto.engines.base import Engine
from junto.errors import InvalidInput
from junto.journal.lease import Lease
from junto.journal.storage import Storage
from junto.journal.store import Journal
from junto.node.ground import Ground
from junto.node.helping import Helping
from junto.node.home import Home
from junto.node.join import check_alone
from junto.node.node import Node
from junto.node.reading import ReadInChildren
from junto.node.runner import Live
from junto.node.settings import NodeSettings, read_settings
from junto.node.standby import Standby, clock
from junto.plain import plain

_M_ARENA_MAX = -8  # mallopt(3)
_FILES = 65_536
_COLLECT_SECONDS = 2.0  # after a task that did not end well
FATAL_EXIT = 70
"""The exit code after a failed write or sync of the journal: what is on disk is read anew at the next start."""


FENCED_EXIT = 75
"""The exit code of a node whose lease lapsed: another node of its party has taken over. Started again, it stands by."""

STANDS_BY = "stands by"
"""The ready file's text in place of the addresses while another node of the party acts."""


class ReadyFile:
    """A file that is there while the node answers or stands by; it holds the process id and the addresses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ours = False

    def write(self, listening: str) -> None:
        """Say that the node answers."""
        self._ours = True
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(f"{os.getpid()}\n{listening}\n")
        part.replace(self._path)

    def remove(self) -> None:
        """Say that it does not. A node that never did leaves the file of the one that runs alone."""
        if self._ours:
            self._path.unlink(missing_ok=True)


def run_node(
    home: Home, *, ready: ReadyFile | None = None, new_journal: bool = False, logs: TextIO | None = None
) -> None:
    """Run the node until SIGTERM or SIGINT. Raises what `Node` raises while it starts.

    new_journal: see `Node`. logs: where its log lines go; standard error, if left out.
    """
    settings = read_settings(home.path / "node.toml")
    configure_logs(sys.stderr if logs is None else logs, settings.log)
    _keep_memory_together()
    _open_more_files()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(home, settings, ready, new_journal))


async def _serve(home: Home, settings: NodeSettings, ready: ReadyFile | None, new_journal: bool) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    ending = (signal.SIGTERM, signal.SIGINT)
    for number in ending:
        loop.add_signal_handler(number, stopping.set)
    ground = _with_children(settings)
    try:
        if settings.shared is None:
            check_alone(home)
            await _act(home, settings, ready, stopping, ground, new_journal)
            return
        only_here = _taken(home)
        async with Standby(home.party.node, settings.shared, give_way) as standby:
            async with Helping(home, settings, ground) as helping:

                def waits(lease: Lease) -> None:
                    _say_standing_by(home, ready, lease)
                    helping.begin()

                storage = await standby.lead(stopping, waits)
            if storage is not None:
                shared = replace(ground, journal=partial(_journal_at, storage), leads=standby.leads)
                await _act(home, settings, ready, stopping, shared, new_journal)
        os.close(only_here)
    finally:
        for number in ending:  # who calls this in a process of their own is interrupted as before
            loop.remove_signal_handler(number)
        if ready is not None:
            ready.remove()


async def _act(
    home: Home,
    settings: NodeSettings,
    ready: ReadyFile | None,
    stopping: asyncio.Event,
    ground: Ground,
    new_journal: bool,
) -> None:
    async with Node(home, on_fatal=die, settings=settings, ground=ground, new_journal=new_journal) as node:
        node.runner.watchers.append(_collect_rarely())
        listening = ", ".join(str(address) for address in node.links.listening)
        sys.stderr.write(f"{node.me} is up, listening on {listening}; stop it with Ctrl-C\n")
        if ready is not None:
            ready.write(listening)
        try:
            await stopping.wait()
        finally:
            gc.unfreeze()  # what was loaded before is to be let go of in order
            if ready is not None:
                ready.remove()


def _open_more_files() -> None:
    """Raise the number of files that this process may open to what the system allows, up to `_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _with_children(settings: NodeSettings) -> Ground:
    """The machine's own ground, on which children compute fragments and read plans."""
    fragments = Pool("fragments", "junto.engines.child")
    plans = Pool("plans", "junto.node.reading_child")

    def engine() -> Engine:
        from junto.engines.supervised import Supervised  # with the first fragment: an idle node stays small

        return Supervised(fragments)

    return Ground(engine=engine, reader=ReadInChildren(plans, settings.judging_seconds), pools=(fragments, plans))


def _taken(home: Home) -> int:
    """The descriptor of a lock of the home, held until the process ends: its journal's is shared with other homes."""
    descriptor = os.open(home.path / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InvalidInput(f"a node runs in {home.path} already: `junto node stop` stops it") from None
    return descriptor


def _say_standing_by(home: Home, ready: ReadyFile | None, lease: Lease) -> None:
    sys.stderr.write(
        f"{home.party.name}/{home.party.node} stands by: {lease.holder} leads since {clock(lease.since)}; "
        f"stop this one with Ctrl-C\n"
    )
    if ready is not None:
        ready.write(STANDS_BY)


def _journal_at(storage: Storage, path: Path, **options: Any) -> Journal:  # as `Ground.journal` is called
    return Journal(storage, **options)


def give_way(reason: str) -> None:
    """End the process at once: another node of the party acts by now, and this one must not."""
    os.write(2, f"junto: {reason}; this node stops here, start it again to stand by\n".encode())
    os._exit(FENCED_EXIT)


def die(reason: str) -> None:
    """End the process at once: going on would be to acknowledge what may not be on disk."""
    os.write(2, f"junto: {reason}; the node stops here, start it again\n".encode())
    os._exit(FATAL_EXIT)


def configure_logs(stream: TextIO, level: str) -> None:
    """One line an event on `stream`: key=value for people on a terminal, JSON for collectors elsewhere."""
    colours = stream.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if colours else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(stream)
    last = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _plain_fields, renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=last))
    junto = logging.getLogger("junto")
    junto.addHandler(handler)
    junto.setLevel(level.upper())


def _plain_fields(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The event with the texts of others, such as a peer's reason, made harmless to print."""
    return {key: plain(value) if isinstance(value, str) else value for key, value in event.items()}


def _keep_memory_together() -> None:
    """Have glibc keep one heap for all threads: with one for each, freed memory of finished work stays scattered.

    Measured on a question over 20 M rows and 100,000 groups: 350 MB at the peak rather than 412 MB.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own pool keeps what it frees
    with suppress(OSError, AttributeError):  # another C library: nothing to set
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _collect_rarely() -> Callable[[Live], None]:
    """Have Python look for cycles of garbage rarely, and not among what stays anyway: our own code makes hardly any.
    Work that is stopped does, its errors remember where it stood, outputs included: what is returned is to hear of
    each task that changed, and has such garbage collected soon.

    Measured on questions over 100,000 groups: 3 % of all time was spent looking through lists of keys.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    due: list[asyncio.TimerHandle] = []

    def collect() -> None:
        due.clear()
        gc.collect()

    def look(live: Live) -> None:
        outcome = live.task.outcome
        if outcome is not None and outcome.end != "done" and not due:
            due.append(asyncio.get_running_loop().call_later(_COLLECT_SECONDS, collect))

    return look


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
