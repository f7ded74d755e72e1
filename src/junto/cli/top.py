# SPDX-License-Identifier: Apache-2.0
"""The screen of `junto node top`: what the node gives, to whom, and who waits for what."""

import time
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from junto.cli.screen import screen
from junto.client import Desk
from junto.errors import Unavailable
from junto.link.methods import HeldStep, HeldTask, NodeLoad, Share, Top
from junto.tasks.capacity import in_bytes

_ROWS = 20


def show_top(desk: Desk, *, once: bool, json: bool) -> None:
    """Draw what the desk's node gives, again and again until Ctrl-C; once where nobody looks at a terminal."""
    console = screen(wide=True)
    found = desk.top()
    if once or not (json or console.is_terminal):
        top = next(found)
        if json:
            print(msgspec.json.encode(top).decode())
        else:
            console.print(drawn(top))
        return
    try:
        if json:
            for top in found:
                print(msgspec.json.encode(top).decode(), flush=True)
        else:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                for top in found:
                    live.update(drawn(top), refresh=True)
    except KeyboardInterrupt:
        return  # that is how one stops looking
    raise Unavailable("the node ended the view")


def drawn(top: Top) -> RenderableType:
    """The whole picture."""
    clock = time.strftime("%H:%M:%S", time.localtime(top.at))
    have = ", ".join(
        (
            f"slots {_of(top.used.slots, top.capacity.slots)}",
            f"memory {_of_bytes(top.used.memory, top.capacity.memory)}",
            f"disk {_of_bytes(top.used.disk, top.capacity.disk)}",
            f"tasks {top.used.tasks}",
        )
    )
    parts: list[RenderableType] = [Text(f"{top.party}  {clock}  {have}", style="bold")]
    if top.parties:
        parts += _section(
            "by who asked",
            ("party", "slots", "memory", "disk", "tasks"),
            [(share.party, *_shares(share.used, share.cap)) for share in top.parties],
        )
    if len(top.nodes) > 1:
        parts += _section("nodes", ("node", "computing", "computed", ""), [_node(node) for node in top.nodes])
    steps = ("task", "step", "asked by", "priority", "since")
    at = {(one.task, one.step): node.node for node in top.nodes for one in node.running}
    running = [(*_step(step, top.at), at.get((step.task, step.step), "")) for step in top.running]
    parts += _section("computing", (*steps, "node"), running)
    parts += _section("waiting for a slot", (*steps, "why"), [(*_step(s, top.at), s.why) for s in top.queued])
    tasks = ("task", "asked by", "priority", "memory", "disk", "since", "expected")
    parts += _section("reserved", (*tasks, "contract"), [(*_task(t, top.at), _contract(t, top.at)) for t in top.held])
    parts += _section("waiting to reserve", (*tasks, "why"), [(*_task(t, top.at), t.why) for t in top.waiting])
    return Group(*parts)


def _section(title: str, headers: Sequence[str], rows: Sequence[Iterable[str]]) -> list[RenderableType]:
    if not rows:
        return []
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for header in headers:
        grid.add_column(header, overflow="fold", no_wrap=header not in ("why",))
    for row in rows[:_ROWS]:
        grid.add_row(*(Text(cell) for cell in row))
    more = [Text(f"and {len(rows) - _ROWS} more", style="dim")] if len(rows) > _ROWS else []
    return [Text(""), Text(f"{title} ({len(rows)})", style="bold"), grid, *more]


def _node(node: NodeLoad) -> tuple[str, ...]:
    where = f"stands by, helps from {node.address}" if node.address else "acts"
    return node.node, f"{len(node.running)} of {node.slots}", str(node.computed), where


def _step(step: HeldStep, now: float) -> tuple[str, ...]:
    return step.task, step.step, step.party, str(step.priority), _seconds(now - step.since)


def _task(task: HeldTask, now: float) -> tuple[str, ...]:
    return (
        task.task,
        task.party,
        str(task.priority),
        in_bytes(task.memory),
        in_bytes(task.disk),
        _seconds(now - task.since),
        _seconds(task.seconds),
    )


def _contract(task: HeldTask, now: float) -> str:
    return "yes" if task.lapses_at is None else f"not yet; lapses in {_seconds(task.lapses_at - now)}"


def _shares(used: Share, cap: Share) -> tuple[str, ...]:
    return (
        _of(used.slots, cap.slots),
        _of_bytes(used.memory, cap.memory),
        _of_bytes(used.disk, cap.disk),
        _of(used.tasks, cap.tasks),
    )


def _of(used: int | None, limit: int | None) -> str:
    return f"{used or 0}" if limit is None else f"{used or 0} of {limit}"


def _of_bytes(used: int | None, limit: int | None) -> str:
    return in_bytes(used or 0) if limit is None else f"{in_bytes(used or 0)} of {in_bytes(limit)}"


def _seconds(seconds: float) -> str:
    return f"{max(seconds, 0.0):.1f} s"
