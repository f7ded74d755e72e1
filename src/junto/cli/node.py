# SPDX-License-Identifier: Apache-2.0
"""`junto node`: run this party's node, see how it does, stop it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from junto.cli import hook
from junto.cli.options import AsJson, Home, Profile, User
from junto.cli.screen import beneath
from junto.client import connect
from junto.errors import InvalidInput, Unavailable
from junto.link.methods import ChildStatus, LinkStatus, NodeLoad, Status
from junto.node.home import Home as HomeFolder

app = typer.Typer(help="Run this party's node, and see how it does.", no_args_is_help=True)
app.add_typer(hook.app, name="hook")

Charter = Annotated[Path | None, typer.Option(help="Adopt this charter first; everybody has signed it.")]
NewJournal = Annotated[
    bool, typer.Option("--new-journal", help="Begin another journal, because the party's is lost for good.")
]
Background = Annotated[bool, typer.Option("--background", help="Return when it is up; it logs to node.log.")]

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


@app.command("start")
def start(
    home: Home = None, charter: Charter = None, background: Background = False, new_journal: NewJournal = False
) -> None:
    """Run the node until Ctrl-C or SIGTERM."""
    from junto.node import home as homes
    from junto.node.process import ReadyFile, run_node

    found = homes.find(home)
    if charter is not None:
        _adopt(found, charter)
    ready = found.path / "node.ready"
    if background:
        _start_in_background(found.path, ready, ["--new-journal"] if new_journal else [])
        return
    run_node(found, ready=ReadyFile(ready), new_journal=new_journal, logs=beneath(sys.stderr))


@app.command("status")
def status(home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False) -> None:
    """Show the node: its links, its charter, its journal, its open tasks. Of one that stands by: who leads."""
    if user is None and profile is None and _stands_by(home, json):
        return
    with connect(home, user=user, profile=profile) as desk:
        found = desk.status()
    if json:
        print(msgspec.json.encode(found).decode())
        return
    _print_status(found, time.time())


@app.command("top")
def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once.")] = False,
    home: Home = None,
    user: User = None,
    profile: Profile = None,
    json: AsJson = False,
) -> None:
    """Watch what the node gives to tasks: who has it, and who waits for what.

    Slots are fragments that compute; memory and disk are held by tasks from offer to end.
    """
    from junto.cli.top import show_top

    with connect(home, user=user, profile=profile) as desk:
        show_top(desk, once=once, json=json)


@app.command("stop")
def stop(home: Home = None) -> None:
    """Stop the node of a home on this machine; its journal stays."""
    from junto.node import home as homes

    found = homes.find(home)
    ready = found.path / "node.ready"
    pid = _pid(ready)
    if pid is None:
        raise InvalidInput(f"no node of {found.party.name} runs here")
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + _STOP_SECONDS
    while _alive(pid):
        if time.monotonic() > until:
            raise Unavailable(f"the node of {found.party.name} (pid {pid}) still stops; look again in a while")
        time.sleep(0.05)
    print(f"the node of {found.party.name} has stopped")


def _stands_by(home: Path | None, json: bool) -> bool:
    """True if the home's node stands by; then that is printed, with the name of the leader."""
    from junto.node import home as homes
    from junto.node.process import STANDS_BY
    from junto.node.settings import read_settings

    try:
        found = homes.find(home)
        pid, told = (found.path / "node.ready").read_text().splitlines()
    except (InvalidInput, OSError, ValueError):
        return False
    if told != STANDS_BY or not _alive(int(pid)):
        return False
    shared = read_settings(found.path / "node.toml").shared
    if shared is None:
        return False
    leases, _ = shared.place.leases()
    leases.open()
    lease = leases.read()
    leases.close()
    name = f"{found.party.name}/{found.party.node}"
    if json:
        print(msgspec.json.encode({"node": name, "pid": int(pid), "stands_by": True, "lease": lease}).decode())
        return True
    print(f"{name}  stands by, pid {pid}")
    if lease is not None and lease.holder:
        now = time.time()
        print(f"leads        {found.party.name}/{lease.holder} for {_ago(lease.since, now)}, lease {lease.epoch}")
        print(f"renewed      {max(now - lease.renewed, 0):.1f} s ago; it lapses after {lease.seconds:g} s")
    else:
        print("leads        nobody: this node is about to")
    return True


def _adopt(home: HomeFolder, charter: Path) -> None:
    from junto.node.files import read_bounded
    from junto.trust import charter as charters

    home.save_charter(charters.verify(read_bounded(charter, charters.CHARTER_BYTES, "charter")))


def _start_in_background(home: Path, ready: Path, options: list[str]) -> None:
    if (pid := _pid(ready)) is not None:
        raise InvalidInput(f"a node runs here already (pid {pid}); `junto node stop` stops it")
    ready.unlink(missing_ok=True)
    log = home / "node.log"
    with log.open("ab") as stream:
        began = stream.tell()
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", "junto", "node", "start", "--home", str(home), *options],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    until = time.monotonic() + _START_SECONDS
    while not ready.exists():
        if process.poll() is not None:
            raise InvalidInput(f"the node did not start: {_last_line(log, began)}")
        if time.monotonic() > until:
            raise Unavailable(f"the node is not up after {_START_SECONDS:g} s; {log} says more")
        time.sleep(0.02)
    told = ready.read_text().splitlines()[1]
    how = f"is up (pid {process.pid}), listening on {told}" if ":" in told else f"{told} (pid {process.pid})"
    print(f"the node {how}; it logs to {log}")


def _pid(ready: Path) -> int | None:
    try:
        pid = int(ready.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if _alive(pid) else None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _last_line(log: Path, began: int) -> str:
    lines = [line for line in log.read_bytes()[began:].decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("junto: ") if lines else f"{log} says nothing"


def _print_status(status: Status, now: float) -> None:
    print(f"{status.party}/{status.node}  junto {status.software}, pid {status.pid}, up {_ago(status.started_at, now)}")
    print(f"listening    {status.listening}")
    print(f"charter      {status.consortium}, version {status.charter_version}, {status.charter_digest[:23]}…")
    if status.charter_waiting:
        print(f"             version {status.charter_waiting} is here: start the node again to go by it")
    print(f"certificate  until {_clock(status.certificate_until)}, {_renewal(status, now)}")
    print(f"journal      {status.journal_entries} entries, root {status.journal_root[:16]}…")
    print(f"datasets     {status.datasets}")
    print(f"open tasks   {status.open_tasks}")
    print(f"memory       {status.memory_bytes / 1e6:.0f} MB")
    for child in status.children:
        print(f"child        {_child_words(child)}")
    for helper in status.helpers:
        print(f"helper       {_helper_words(helper, now)}")
    wide = max((len(link.party) for link in status.links), default=0)
    for link in status.links:
        print(f"link         {link.party:<{wide}}  {_link_words(link, now)}")


def _renewal(status: Status, now: float) -> str:
    if status.certificate_renews:
        return "renewed by itself"
    left = f"{max(status.certificate_until - now, 0) / 86_400:.1f} days left"
    return f"{left}: renewed with `junto party request`, `issue` and `renew`, as the authority's key is elsewhere"


def _child_words(child: ChildStatus) -> str:
    does = "works" if child.busy else "rests"
    return f"{child.kind}, pid {child.pid}, {does} since {child.seconds:.1f} s, {child.memory_bytes / 1e6:.0f} MB"


def _helper_words(helper: NodeLoad, now: float) -> str:
    computes = f"computes {len(helper.running)} of {helper.slots} fragments, has computed {helper.computed}"
    return f"{helper.node} for {_ago(helper.since, now)}, from {helper.address}, {computes}"


def _link_words(link: LinkStatus, now: float) -> str:
    since = _ago(link.since, now)
    if not link.up:
        return f"down for {since}: {link.detail}"
    way = f"dialled {link.address}" if link.dialled else f"dialled by {link.address}"
    trip = f", round trip {link.rtt_seconds * 1000:.1f} ms" if link.rtt_seconds else ""
    return f"up for {since}, {way}{trip}, {link.bytes_in:,} bytes in, {link.bytes_out:,} out"


def _ago(at: float, now: float) -> str:
    seconds = max(now - at, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
