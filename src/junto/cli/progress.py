# SPDX-License-Identifier: Apache-2.0
"""The lines that show a running task: one per party, what it has done and whom it keeps waiting."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from junto.cli.screen import screen
from junto.link.methods import Progress
from junto.plain import plain

Watch = Callable[[Progress], None]


@contextmanager
def progress_lines(stream: TextIO, *, quiet: bool) -> Iterator[Watch | None]:
    """A watcher that redraws on a terminal, and prints each change of state elsewhere."""
    if quiet:
        yield None
        return
    console = screen(stream)
    if not console.is_terminal:
        yield _plain(console)
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:

        def watch(progress: Progress) -> None:
            live.update(party_lines(progress, time.time()))

        yield watch


def _plain(console: Console) -> Watch:
    seen: list[str] = []

    def watch(progress: Progress) -> None:
        lines = [f"task {progress.task}: {progress.state}"]
        lines += [f"task {progress.task}: waiting for {w.party}: {w.what}: {w.why}" for w in progress.waits if w.why][
            :1
        ]
        lines += [f"task {progress.task}: step {s} begins anew, run {n}" for s, n in progress.attempts.items()]
        if progress.continued:
            lines.append(f"task {progress.task}: goes on as task {progress.continued}")
        for line in lines:
            if line not in seen:
                seen.append(line)
                console.print(line, soft_wrap=True)

    return watch


def party_lines(progress: Progress, now: float) -> Table:
    """One line per party: parts done, last step, and what it is waited for, since when and until when."""
    left = max(progress.deadline - now, 0.0)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("", Text(f"task {progress.task}  {progress.state}  {left:.0f} s left", style="bold"))
    for party in progress.participants:
        parts = [part for part in progress.parts if part.party == party]
        waits = [wait for wait in progress.waits if wait.party == party]
        done = f"{len(parts)} done" + (f", last {parts[-1].step} in {parts[-1].seconds:.2f} s" if parts else "")
        if waits:
            wait = waits[0]
            done += f"; waited for: {wait.what}, {now - wait.since:.1f} s (until {_clock(wait.until)})"
            done += f", {wait.why}" if wait.why else ""
        table.add_row(Text(party), Text(plain(done)))
    return table


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
