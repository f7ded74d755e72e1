# SPDX-License-Identifier: Apache-2.0
"""The ground of a node: the clock, randomness, its links, its journal, its files and its engine, all handed in.

In production they are the machine's. A simulator gives others, and the node is none the wiser. Durations are measured
with the event loop's own time (`loop.time()`), threads are the event loop's executor: both come with the loop.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from junto.children.pool import Pool
from junto.journal.store import Journal
from junto.link.links import Links
from junto.node.reading import Reader, read_here
from junto.node.spool import Files, SystemFiles

if TYPE_CHECKING:
    from junto.engines.base import Engine


def _duckdb() -> "Engine":
    from junto.engines.duckdb import DuckDB  # loaded with the first piece of work: an idle node stays small

    return DuckDB()


@dataclass(frozen=True, slots=True)
class Ground:
    """The machine's own by default.

    unix_time: the wall clock, which may be wrong and may jump. leads: whether no other node of our party can act now.
    engine, reader: in this process, as a notebook and a simulator want them; a node of its own process has children
    that compute fragments and read plans (`process.py`), and lists them in `pools`.
    """

    unix_time: Callable[[], float] = time.time
    random: Callable[[int], bytes] = secrets.token_bytes
    files: Files = field(default_factory=SystemFiles)
    journal: Callable[..., Journal] = Journal
    links: Callable[..., Links] = Links
    engine: "Callable[[], Engine]" = _duckdb
    leads: Callable[[], bool] = lambda: True
    reader: Reader = read_here
    pools: tuple[Pool, ...] = ()
