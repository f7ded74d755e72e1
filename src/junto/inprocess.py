# SPDX-License-Identifier: Apache-2.0
"""`junto.local`: a whole consortium in this process, for notebooks and tests.

Real nodes, keys, signatures, TLS and journals, on loopback, in a folder that goes away; only the processes are missing.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from junto.client.desk import Desk, connect
from junto.client.portal import Portal
from junto.errors import InvalidInput, JuntoError, Unavailable
from junto.link.ports import free_ports
from junto.types import NodeId, PartyId

if TYPE_CHECKING:
    import pyarrow as pa

    from junto.node.home import Home
    from junto.node.node import Node
    from junto.node.settings import NodeSettings

_USER = "analyst"
_LINK_SECONDS = 20.0

Rules = Sequence[Mapping[str, object]]
"""Rules as a dataset file has them: `{"columns": ["origin"], "allow": "group"}`."""


class Local:
    """A consortium that runs while the context is open. `local["name"]` is the desk of one party."""

    def __init__(self, parties: Sequence[str], settings: "NodeSettings | None" = None) -> None:
        if len(set(parties)) != len(parties) or not parties:
            raise InvalidInput("parties have distinct names, and there is at least one")
        self.parties = tuple(parties)
        self._settings = settings
        self._portal = Portal()
        self._stack = AsyncExitStack()
        self._folder = Path()
        self._desks: dict[str, Desk] = {}
        self._homes: dict[str, Home] = {}
        self._nodes: dict[str, Node] = {}

    def __enter__(self) -> Self:
        """Create and start every party. Raises what starting a node raises; then nothing is left."""
        self._folder = Path(tempfile.mkdtemp(prefix="junto-"))
        self._portal.start()
        try:
            self._homes = _homes(self._folder, self.parties)
            self._portal.run(self._start())
            for party in self.parties:
                self._desks[party] = connect(self._homes[party].path, user=_USER)
            self._await_links()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop every node and remove the folder."""
        for desk in self._desks.values():
            desk.close()
        self._desks.clear()
        self._portal.run(self._stack.aclose())
        self._portal.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __getitem__(self, party: str) -> Desk:
        """The desk of a party's user. Raises InvalidInput for another name."""
        if party not in self._desks:
            raise InvalidInput(f"no party {party!r} here; there are {', '.join(self.parties)}")
        return self._desks[party]

    def publish(self, party: str, name: str, table: "pa.Table", rules: Rules, *, unit: str | None = None) -> None:
        """Publish a table at one party, and wait until every party knows of it. Raises InvalidInput."""
        import pyarrow.parquet

        from junto.catalog.write import dataset_file

        desk = self[party]
        folder = self._homes[party].data_path
        source = folder / f"{len(list(folder.iterdir()))}.parquet"
        pyarrow.parquet.write_table(table, source)
        description = source.with_suffix(".toml")
        description.write_text(dataset_file(name, source.name, rules, unit))
        version = desk.publish(description).published[0].version
        self._await(
            lambda: all(
                any((d.party, d.name, d.version) == (party, name, version) for d in other.datasets())
                for other in self._desks.values()
            ),
            f"the parties did not all hear of {name}",
        )

    async def _start(self) -> None:
        from junto.node.node import Node

        for party, home in self._homes.items():
            node = Node(home, on_fatal=_fatal, settings=self._settings)
            self._nodes[party] = await self._stack.enter_async_context(node)

    def _await_links(self) -> None:
        self._await(
            lambda: all(link.up for desk in self._desks.values() for link in desk.status().links),
            "the parties did not reach each other",
        )

    def _await(self, reached: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + _LINK_SECONDS
        while not reached():
            if time.monotonic() > until:
                raise Unavailable(f"{otherwise} within {_LINK_SECONDS:g} s")
            time.sleep(0.01)


def local(parties: int | Sequence[str] = 3) -> Local:
    """A consortium in this process: `with junto.local(parties=3) as consortium:`.

    parties: how many (named `party1`, `party2`, …), or their names.
    """
    names = [f"party{number}" for number in range(1, parties + 1)] if isinstance(parties, int) else list(parties)
    return Local(names)


def _homes(folder: Path, parties: Sequence[str]) -> "dict[str, Home]":
    from junto.node import home as homes
    from junto.trust import charter as charters
    from junto.trust.rights import OPERATOR

    now = time.time()
    made: dict[str, Home] = {}
    for party, port in zip(parties, free_ports(len(parties)), strict=True):
        address = f"127.0.0.1:{port}"
        made[party] = homes.create(
            folder / party, PartyId(party), address, now, node=NodeId("node"), addresses=(address,)
        )
    members = [charters.read_card(home.card()) for home in made.values()]
    signed = charters.create(members, "local", now)
    for home in made.values():
        signed = charters.sign(signed, home.authority())
    for home in made.values():
        home.save_charter(signed)
        home.add_user(_USER, now, rights=OPERATOR)
    return made


def _fatal(reason: str) -> None:
    raise JuntoError(reason)
