# SPDX-License-Identifier: Apache-2.0
"""Four parties as processes whose addresses lead through proxies, their data, what is asked, and what is right."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
from pyarrow import parquet

from junto.catalog.write import dataset_file
from junto.client import Desk
from junto.client.portal import Portal
from junto.client.profile import Profile
from junto.demo.consortium import USER, Consortium, consortium, is_alive, junto
from junto.node import home as homes
from junto.testing.proxy import Proxy
from junto.testing.until import until
from junto.trust import profile as profiles

PARTIES = ("ann", "bea", "cyd", "dan")
SETTINGS = 'threads = 1\nabsence = "8s"\n'

_GROUPED: list[dict[str, object]] = [{"columns": ["*"], "allow": kind} for kind in ("group", "aggregate")]
_OPEN: list[dict[str, object]] = [{"columns": ["*"], "allow": "open"}]
_MANY = 2_000


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task: what is asked, how often among ten, how long it may take, and how it may end besides well."""

    name: str
    sql: str
    weight: int
    seconds: float = 30.0
    refused: bool = False
    cancelled: bool = False


KINDS = (
    Kind("groups", "SELECT k, SUM(v) AS s, COUNT(*) AS n FROM t GROUP BY k ORDER BY k", 4),
    Kind("one sum", "SELECT SUM(v) AS s FROM t", 2),
    Kind("open rows", "SELECT name, w FROM o ORDER BY name", 4),
    Kind("join", "SELECT names.label, AVG(t.v) AS a FROM t JOIN names ON t.k = names.k GROUP BY 1 ORDER BY 1", 3),
    Kind("long", "SELECT SUM(t.v + many.w) AS s FROM t JOIN many ON t.k = many.k", 3),
    Kind("hurried", "SELECT k, COUNT(*) AS n FROM t GROUP BY k ORDER BY k", 1, seconds=0.4),
    Kind("forbidden", "SELECT id, v FROM t", 1, refused=True),
    Kind("cancelled", "SELECT SUM(t.v - many.w) AS s FROM t JOIN many ON t.k = many.k", 1, cancelled=True),
)


def _tables() -> dict[str, dict[str, pa.Table]]:
    """Dataset → party → rows."""
    t = {
        party: pa.table(
            {
                "id": [100 * number + i for i in range(60)],
                "k": [("x", "y", "z")[i % 3] for i in range(60)],
                "v": [7 * number + i for i in range(60)],
            }
        )
        for number, party in enumerate(PARTIES)
    }
    o = {party: pa.table({"name": [f"{party}{i}" for i in range(3)], "w": [1, 2, 3]}) for party in PARTIES}
    names = {"ann": pa.table({"k": ["x", "y", "z"], "label": ["ex", "why", "zed"]})}
    many = {"dan": pa.table({"k": ["x", "y"] * _MANY, "w": list(range(2 * _MANY))})}
    return {"t": t, "o": o, "names": names, "many": many}


@cache
def right(kind: Kind) -> list[dict[str, object]]:
    """What DuckDB says over the pooled rows."""
    with duckdb.connect() as database:
        for name, parts in _tables().items():
            database.register(name, pa.concat_tables(parts.values()))
        return list(database.sql(kind.sql).to_arrow_table().to_pylist())


def is_right(kind: Kind, answer: pa.Table) -> bool:
    """Whether an answer is what the pooled rows give."""
    expected, found = right(kind), answer.to_pylist()
    return len(expected) == len(found) and all(
        row.keys() == other.keys()
        and all(abs(row[c] - v) < 1e-9 if isinstance(v, float) else row[c] == v for c, v in other.items())
        for row, other in zip(found, expected, strict=True)
    )


class World:
    """The consortium, and a proxy in front of each node. Users reach their own node directly."""

    def __init__(self, running: Consortium, proxies: dict[str, Proxy], portal: Portal) -> None:
        self.running = running
        self.proxies = proxies
        self._portal = portal

    def home(self, party: str) -> Path:
        """A party's folder."""
        return self.running.homes[party]

    def desk(self, party: str) -> Desk:
        """A desk at a party's node, not through its proxy."""
        home = homes.load(self.home(party))
        file = msgspec.structs.replace(home.profile(USER), addresses=(home.party.listen,))
        return Desk(Profile(profiles.read(profiles.encode(file)))).open()

    def at_proxy(self, party: str, do: Callable[[Proxy], None]) -> None:
        """Do something to a proxy, in its loop."""

        async def done() -> None:
            do(self.proxies[party])

        self._portal.run(done())

    def pid(self, party: str) -> int:
        """The process of a party's node."""
        return self.running.pid(party)

    def kill(self, party: str) -> None:
        """SIGKILL a node; it is gone when this returns."""
        pid = self.pid(party)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid), f"the node of {party} is gone")

    def start(self, party: str) -> None:
        """Start a node that was killed."""
        junto("node", "start", "--background", "--home", str(self.home(party)))

    def heal(self) -> None:
        """Every node runs, and everyone reaches everyone."""
        for party in PARTIES:
            self.at_proxy(party, Proxy.heal)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid(party), signal.SIGCONT)
            if not is_alive(self.pid(party)):
                self.start(party)
        for party in PARTIES:
            with self.desk(party) as desk:
                until(lambda: all(link.up for link in desk.status().links), f"{party} reaches everyone", 40)


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Set up, and stop in the end; the folder is yours."""
    portal = Portal()
    portal.start()
    stack = AsyncExitStack()
    proxies: dict[str, Proxy] = {}

    def advertise(party: str, port: int) -> str:
        proxies[party] = proxy = Proxy(lambda: ("127.0.0.1", port))
        portal.run(stack.enter_async_context(proxy))
        return f"127.0.0.1:{proxy.port}"

    try:
        with consortium(PARTIES, "chaos", folder, advertise) as running:
            found = World(running, proxies, portal)
            for party in PARTIES:
                junto("node", "stop", "--home", str(found.home(party)))
                (found.home(party) / "node.toml").write_text(SETTINGS)
                found.start(party)
            try:
                _publish(found)
                found.heal()
                yield found
            finally:
                for party in PARTIES:
                    with contextlib.suppress(OSError, ValueError):
                        os.kill(found.pid(party), signal.SIGCONT)
    finally:
        portal.run(stack.aclose())
        portal.stop()


def _publish(found: World) -> None:
    for name, parts in _tables().items():
        for party, table in parts.items():
            folder = found.home(party) / "data"
            parquet.write_table(table, folder / f"{name}.parquet")
            rules, unit = (_GROUPED, "id") if name == "t" else (_OPEN, None)
            (folder / f"{name}.toml").write_text(dataset_file(name, f"{name}.parquet", rules, unit))
            junto("dataset", "publish", str(folder / f"{name}.toml"), "--home", str(found.home(party)))
    count = sum(len(parts) for parts in _tables().values())
    for party in PARTIES:
        with found.desk(party) as desk:
            until(lambda: len(desk.datasets()) == count, f"{party} knows all datasets")
