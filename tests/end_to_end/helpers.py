# SPDX-License-Identifier: Apache-2.0
"""Further nodes of a party of a consortium in this process, which stand by and help."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pooled import Pooled

from junto.engines.base import Engine, Limits, Rows, Source, Stop
from junto.engines.duckdb import DuckDB
from junto.errors import Cancelled
from junto.node.ground import Ground
from junto.node.helping import Helping
from junto.node.home import Home
from junto.node.join import join
from junto.node.settings import NodeSettings, read_settings
from junto.testing.until import until
from junto.types import NodeId


class Watched:
    """An engine that counts its runs, and waits in each until it is let go on, or is stopped."""

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine or DuckDB()
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.stopped = threading.Event()
        self.deaf = False  # it does not hear that it is to stop
        self.runs: list[str] = []

    @contextmanager
    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> Iterator[Rows]:
        """The engine's own rows, once that may be."""
        self.runs.append(sql)
        self.begun.set()
        while not self.go.wait(0.005):
            if stop.is_set() and not self.deaf:
                self.stopped.set()
                raise Cancelled("the fragment was stopped")
        with self._engine.run(sql, tables, limits, stop) as rows:
            yield rows

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def second_home(consortium: Pooled, party: str, node: str = "helper") -> Home:
    """A home for another node of a party."""
    first = consortium.home(party)
    path = first.path.with_name(f"{party}-{node}")
    return join(first, path, NodeId(node), "127.0.0.1:7300", (), f"sqlite:{first.journal_path}")


@contextmanager
def helping(
    consortium: Pooled, home: Home, engine: Engine | None = None, settings: NodeSettings | None = None
) -> Iterator[Helping]:
    """A node that stands by, once it is known to help."""
    made = engine or DuckDB()
    found = settings or read_settings(home.path / "node.toml")

    async def begun() -> Helping:
        helper = await Helping(home, found, Ground(engine=lambda: made)).__aenter__()
        helper.begin()
        return helper

    helper = consortium.on_loop(begun())
    node = consortium.node(home.party.name)
    try:
        until(lambda: home.party.node in node.spreading.nodes.helpers, f"{home.party.node} helps")
        yield helper
    finally:
        consortium.on_loop(helper.__aexit__(None, None, None))
        until(lambda: home.party.node not in node.spreading.nodes.helpers, f"{home.party.node} helps no more")


def remove(home: Home) -> None:
    """Remove what is this home's alone, so that its folder can go."""
    for name in ("users", "data", "spool", "notices.db"):
        if (home.path / name).is_symlink():
            os.unlink(home.path / name)
