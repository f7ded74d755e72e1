# SPDX-License-Identifier: Apache-2.0
"""`junto doctor`: every way to and from the other parties, tried step by step."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from junto.cli.options import AsJson, Home, Profile, User
from junto.cli.screen import screen
from junto.client import connect
from junto.errors import Unavailable
from junto.link import methods
from junto.types import PartyId

Parties = Annotated[list[str] | None, typer.Argument(metavar="[PARTY…]", help="Only these; all others if none.")]

_SECONDS = 600.0


def doctor(
    parties: Parties = None, home: Home = None, user: User = None, profile: Profile = None, json: AsJson = False
) -> None:
    """Try every way to and from the other parties: name, TCP, TLS, certificate, clock, version, charter."""
    wanted = methods.Doctor(tuple(PartyId(party) for party in parties or ()))
    console = screen()
    found: list[methods.DoctorLine] = []
    with connect(home, user=user, profile=profile) as desk:
        for piece in desk.stream(methods.USER_DOCTOR, wanted, seconds=_SECONDS):
            line = msgspec.json.decode(piece, type=methods.DoctorLine)
            found.append(line)
            if not json:
                _print(console, line)
    if json:
        print(msgspec.json.encode(found).decode())
    failed = sum(not line.ok for line in found)
    if failed:
        raise Unavailable(f"{failed} of {len(found)} checks failed; each line above names its mend")
    if not json:
        console.print(f"all {len(found)} checks passed" if found else "there is no other party in the charter")


def _print(console: Console, line: methods.DoctorLine) -> None:
    mark = ("ok    ", "green") if line.ok else ("failed", "red")
    told = Text.assemble(mark, f" {line.sender} → {line.to}  {line.check}: {line.detail}")
    console.print(told, soft_wrap=True)
    if line.mend:
        console.print(f"       mend: {line.mend}", soft_wrap=True)
