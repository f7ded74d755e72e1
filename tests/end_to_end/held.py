# SPDX-License-Identifier: Apache-2.0
"""A node's engine, held: a fragment begins, and goes on when the test lets it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from junto.engines.base import Engine, Limits, Rows, Source, Stop
from junto.errors import Cancelled
from junto.node.node import Node


class Held:
    """An engine that begins a fragment and does not go on until it is let."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.go = threading.Event()
        self.begun = threading.Event()
        self.stopped = threading.Event()

    @contextmanager
    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> Iterator[Rows]:
        """The engine's own rows, later."""
        self.begun.set()
        while not self.go.wait(0.005):
            if stop.is_set():
                self.stopped.set()
                raise Cancelled("the fragment was stopped")
        with self._engine.run(sql, tables, limits, stop) as rows:
            yield rows

    def close(self) -> None:
        """Nothing is kept here."""


@contextmanager
def held(node: Node) -> Iterator[Held]:
    """The node's engine, held for a while."""
    tools = node.lend()
    engine = Held(tools.engine)
    node.tools = replace(tools, engine=engine)
    try:
        yield engine
    finally:
        engine.go.set()
        node.tools = tools
