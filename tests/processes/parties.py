# SPDX-License-Identifier: Apache-2.0
"""Parties as separate processes, set up and driven by the commands a user types, and broken by signals."""

import contextlib
import io
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from junto.catalog.write import dataset_file
from junto.cli import main
from junto.client import Desk
from junto.demo.consortium import Consortium, consortium, is_alive
from junto.errors import JuntoError
from junto.link.methods import Progress
from junto.testing.until import until
from junto.types import TaskId

ENDED = ("done", "refused", "failed", "cancelled", "expired")
GROUPED: list[dict[str, object]] = [{"columns": ["*"], "allow": kind} for kind in ("group", "aggregate")]
OPEN: list[dict[str, object]] = [{"columns": ["*"], "allow": "open"}]


@dataclass(frozen=True)
class Printed:
    """What a command gave: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


class Parties:
    """A consortium of processes."""

    def __init__(self, running: Consortium) -> None:
        self.running = running
        self.names = tuple(running.homes)

    def home(self, party: str) -> Path:
        """A party's folder."""
        return self.running.homes[party]

    def type(self, party: str, *words: str) -> Printed:
        """One command at one party, as its user types it."""
        return self.type_at(self.home(party), *words)

    def type_at(self, home: Path, *words: str) -> Printed:
        """One command with a home."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*words, "--home", str(home)])
        return Printed(code, out.getvalue(), err.getvalue())

    @contextmanager
    def desk(self, party: str) -> Iterator[Desk]:
        """A desk at one party's node."""
        with self.running.desk(party) as desk:
            yield desk

    def publish(
        self,
        party: str,
        name: str,
        table: pa.Table,
        rules: Sequence[dict[str, object]] = GROUPED,
        unit: str | None = "id",
    ) -> None:
        """Publish a table at one party, and wait until every running party knows of it."""
        folder = self.home(party) / "data"
        parquet.write_table(table, folder / f"{name}.parquet")
        (folder / f"{name}.toml").write_text(dataset_file(name, f"{name}.parquet", rules, unit))
        printed = self.type(party, "dataset", "publish", str(folder / f"{name}.toml"))
        assert printed.code == 0, printed.err
        for other in self.names:
            with self.desk(other) as desk:
                until(lambda: any((d.party, d.name) == (party, name) for d in desk.datasets()), f"{other} knows {name}")

    def pid(self, party: str) -> int:
        """The process of a party's node."""
        return self.running.pid(party)

    def signal(self, party: str, number: signal.Signals) -> None:
        """Send a signal to a party's node; a killed one is gone when this returns."""
        pid = self.pid(party)
        os.kill(pid, number)
        if number == signal.SIGKILL:
            until(lambda: not is_alive(pid), f"the node of {party} is gone")

    def start(self, party: str) -> None:
        """Start a party's node, if it does not run."""
        printed = self.type(party, "node", "start", "--background")
        assert printed.code == 0 or "runs here already" in printed.err, printed.err

    def whole(self) -> None:
        """Every node runs, and reaches every other."""
        for party in self.names:
            with contextlib.suppress(OSError, ValueError):
                os.kill(self.pid(party), signal.SIGCONT)
            self.start(party)
        for party in self.names:
            with self.desk(party) as desk:
                until(lambda: all(link.up for link in desk.status().links), f"{party} reaches everyone")

    def task(self, party: str, task: TaskId) -> Progress | None:
        """A task as one party's node sees it; None while it does not know it."""
        with self.desk(party) as desk:
            try:
                return desk.task(task)
            except JuntoError:
                return None

    def ended(self, party: str, task: TaskId, seconds: float = 20.0) -> Progress:
        """A task's end, as one party's node sees it."""

        def end() -> Progress | None:
            progress = self.task(party, task)
            return progress if progress is not None and progress.state in ENDED else None

        found = until(end, f"task {task} ended at {party}", seconds)
        assert found is not None
        return found


@contextmanager
def parties(names: Sequence[str], folder: Path, settings: str = "") -> Iterator[Parties]:
    """A consortium of processes, stopped at the end. `settings` is everybody's node.toml."""
    with consortium(names, "tests", folder) as running:
        all_of_them = Parties(running)
        if settings:
            for name in names:
                all_of_them.type(name, "node", "stop")
                (all_of_them.home(name) / "node.toml").write_text(settings)
            all_of_them.whole()
        try:
            yield all_of_them
        finally:
            for name in names:
                with contextlib.suppress(OSError, ValueError):
                    os.kill(all_of_them.pid(name), signal.SIGCONT)
