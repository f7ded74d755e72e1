# SPDX-License-Identifier: Apache-2.0
"""Several parties on this machine, each with its own folder, keys and process; the commands are those a user types."""

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from junto.client import Desk, connect
from junto.errors import JuntoError, Unavailable
from junto.link.ports import free_ports

USER = "analyst"
_GONE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Consortium:
    """Parties that run: their folders, by name."""

    folder: Path
    homes: dict[str, Path]

    def desk(self, party: str) -> Desk:
        """A desk at one party's node, as its user."""
        return connect(self.homes[party], user=USER)

    def pid(self, party: str) -> int:
        """The process of a party's node."""
        return int((self.homes[party] / "node.ready").read_text().splitlines()[0])

    def start(self, party: str) -> None:
        """Start a party's node, once the process that was killed is gone."""
        until = time.monotonic() + _GONE_SECONDS
        while is_alive(self.pid(party)):
            if time.monotonic() > until:
                raise Unavailable(f"the process of {party} is not gone after {_GONE_SECONDS:g} s")
            time.sleep(0.01)
        junto("node", "start", "--background", "--home", str(self.homes[party]))


def is_alive(pid: int) -> bool:
    """True if a process runs; a process that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


Advertise = Callable[[str, int], str]
"""The address at which the others dial a party, given where its node listens on this machine."""


@contextmanager
def consortium(
    parties: Sequence[str], name: str, folder: Path | None = None, advertise: Advertise | None = None
) -> Iterator[Consortium]:
    """Set up, start and in the end stop a node for each party. The folder goes too, unless it was given.

    `advertise` puts something between the nodes. Raises what the commands raise.
    """
    given = folder is not None
    place = folder or Path(tempfile.mkdtemp(prefix="junto-"))
    place.mkdir(parents=True, exist_ok=True)
    running = Consortium(place, {party: place / party for party in parties})
    try:
        _set_up(running, name, advertise or _direct)
        try:
            for home in running.homes.values():
                junto("node", "start", "--background", "--home", str(home))
            _wait_for_links(running)
            yield running
        finally:
            for home in running.homes.values():
                with contextlib.suppress(JuntoError, OSError):
                    junto("node", "stop", "--home", str(home))
    finally:
        if not given:
            shutil.rmtree(place, ignore_errors=True)


def junto(*words: str) -> str:
    """The text that a command prints. Raises the command's error, so that the demo stops at the first failure."""
    from junto.cli import run

    printed = io.StringIO()
    with redirect_stdout(printed):
        run(words)
    return printed.getvalue()


def _direct(party: str, port: int) -> str:
    return f"127.0.0.1:{port}"


def _set_up(running: Consortium, name: str, advertise: Advertise) -> None:
    cards: list[str] = []
    for (party, home), port in zip(running.homes.items(), free_ports(len(running.homes)), strict=True):
        listen, dialled = _direct(party, port), advertise(party, port)
        junto("party", "create", party, "--listen", listen, "--advertise", dialled, "--home", str(home))
        card = str(running.folder / f"{party}.card")
        junto("party", "card", "--out", card, "--home", str(home))
        cards.append(card)
    charter = str(running.folder / f"{name}.charter")
    junto("charter", "create", *cards, "--name", name, "--out", charter)
    for home in running.homes.values():
        junto("charter", "sign", charter, "--home", str(home))
    for home in running.homes.values():
        junto("charter", "sign", charter, "--home", str(home))  # the copy that everybody has signed
        junto("user", "add", USER, "--operator", "--home", str(home))


def _wait_for_links(running: Consortium, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    for party in running.homes:
        with running.desk(party) as desk:
            while down := [link for link in desk.status().links if not link.up]:
                if time.monotonic() > until:
                    raise Unavailable(f"{party} does not reach {down[0].party}: {down[0].detail}")
                time.sleep(0.05)
